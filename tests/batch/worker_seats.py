"""A provider for worker processes, which import this module: it answers with its process, or kills that."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from llm_council.models import GenerateRequest
from llm_council.testing.fakes import ScriptedProvider

FOLDER = "LLM_COUNCIL_TEST_FOLDER"
"""The variable that names the folder in which workers note each call, and that one of them was killed."""


def reply(request: GenerateRequest) -> str | Exception:
    """Answer with the process id, or do what the name of the task says."""
    text = "\n".join(turn.text for turn in request.turns())
    folder = Path(os.environ[FOLDER])
    if "task-that-kills" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "task-of-the-first-victim" in text and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with (folder / "calls").open("a") as calls:
        calls.write(f"{os.getpid()}\n")
    if "task-that-breaks" in text:
        return ValueError("it broke")
    return json.dumps({"answer": str(os.getpid()), "reasoning": "x"})


class WorkerSeat(ScriptedProvider):
    """Seated by its class, so that a council with it can be pickled."""

    name = "worker"

    def __init__(self) -> None:
        super().__init__(reply)


def calls_in(folder: Path) -> list[str]:
    """Return the process id of each call that was made."""
    path = folder / "calls"
    return path.read_text().split() if path.exists() else []
