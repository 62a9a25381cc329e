"""The first two turns of a conversation; the process kills itself in the second one. A script for the tests."""

import json
import os
import signal
import sys
from pathlib import Path

from llm_council import Council, CouncilConfig
from llm_council.models import GenerateRequest
from llm_council.testing.fakes import ScriptedProvider

TURNS = ("What is the capital of France?", "How many people live there?", "And in 1900?")
ANSWERS = ("Paris.", "Two million.", "Nearly three million.")


class Seat(ScriptedProvider):
    """Notes each call in a file; the answer to a task is that of ``ANSWERS``.

    Args:
        folder: gets the file ``paid``, with a line for each call.
        name: the name of the seat.
        kills: the turn and the phase in which the process ends as by ``kill -9``; None for none.
    """

    def __init__(self, folder: Path, name: str, kills: tuple[int, str] | None = None) -> None:
        super().__init__(self._say, name=name)
        self._folder, self._kills = folder, kills

    def _say(self, request: GenerateRequest) -> str:
        asked = "\n".join(turn.text for turn in request.turns())
        turn = next(number for number, task in enumerate(TURNS) if f"\nTask:\n{task}" in asked)
        phase = str(request.metadata["phase"])
        with (self._folder / "paid").open("a") as file:
            file.write(f"{turn} {phase} {self.name} {request.idempotency_key}\n")
        if self._kills == (turn, phase):
            os.kill(os.getpid(), signal.SIGKILL)
        if phase == "critique":
            return "RANKING: " + " > ".join("ABCDEFGHI")
        return f"A draft of {self.name}." if phase == "draft" else json.dumps(ANSWERS[turn])


def council(folder: Path, kills: tuple[int, str] | None = None) -> Council:
    """Return the council of the conversation."""
    seats = [Seat(folder, "ada"), Seat(folder, "bob"), Seat(folder, "cyd", kills)]
    config = CouncilConfig(store=str(folder / "runs.db"), strategy="synthesize")
    return Council(seats, config=config, chair="cyd")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    convened = council(place, (1, sys.argv[2]))
    first = convened.run(TURNS[0], schema={"type": "string"})
    convened.run(TURNS[1], schema={"type": "string"}, history=first)
