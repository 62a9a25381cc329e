"""Kill councils at random points of one strategy, resume them by ``council resume``, and note what became of each.

A script for the tests, and the plugin whose providers sit in these councils. A warm process forks for every run and for
every command, so that none pays for imports; it has no thread and no loop of its own. A point is counted in function
calls of the process, or in what happens to the journal, and never in time: no slow machine kills later than a fast one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import sys
import threading
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs

import llm_council.cli._main as command_line
from llm_council import Council, CouncilConfig, _plugins
from llm_council.cli import _progress, _render, _result, _runs  # noqa: F401  # warm
from llm_council.models import Budget, GenerateRequest
from llm_council.results import CouncilResult
from llm_council.store import _writer
from llm_council.strategies import (
    Auto,
    Escalate,
    Judge,
    Poll,
    Rank,
    Revise,
    Sample,
    Single,
    Strategy,
    Synthesize,
    Verify,
)
from llm_council.testing.fakes import ScriptedProvider

NUMBER = {"type": "integer"}
OBJECT = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "reasoning": {"type": "string"}},
    "required": ["answer", "reasoning"],
}


@attrs.frozen
class Case:
    """One strategy in a council.

    Attributes:
        strategy: the strategy.
        seats: how many seats the council has.
        schema: the schema of its answer.
        drafts: the numbers that its drafts say, by seat, or by sample; later ones are 1.
        waits: the phase in which the last seat never answers, so that the strategy must end without it.
    """

    strategy: Strategy
    seats: int = 3
    schema: Any = None
    drafts: str = ""
    waits: str = ""


CASES = {
    "synthesize": Case(Synthesize(), schema=OBJECT),
    "rank": Case(Rank(), schema=OBJECT),
    "single": Case(Single(), 1, OBJECT),
    "auto": Case(Auto(), 3, NUMBER, "11", waits="draft"),
    "poll": Case(Poll(abstain_below=0.4), 5, NUMBER, "12221", waits="draft"),
    "sample": Case(Sample(), 1, NUMBER, "12212"),
    "judge": Case(Judge(judges=["cyd", "dee", "eva"]), 5, OBJECT, waits="judge"),
    "revise": Case(Revise(rounds=2), 3, NUMBER, "123"),
    "escalate": Case(Escalate(last="revise"), 4, NUMBER, "1234"),
    "verify": Case(Verify(of=Judge(floor=1), questions=2), 3, OBJECT),
}
NAMES = ("ann", "bob", "cyd", "dee", "eva")


class Seat(ScriptedProvider):
    """Says words that depend on every character of what it is asked; its backend logs each call."""

    def __init__(self) -> None:
        super().__init__(self._say, name=type(self).name)
        self.folder = Path(os.environ["KILL_FOLDER"])
        self.case = CASES[os.environ["KILL_CASE"]]

    async def _say(self, request: GenerateRequest) -> str:
        with (self.folder / "paid").open("a") as log:
            log.write(f"{request.idempotency_key}\n")
        step()
        phase, number = request.metadata["phase"], NAMES.index(self.name)
        if phase == self.case.waits and number == self.case.seats - 1:
            await asyncio.sleep(3600)
        await asyncio.sleep(0)  # other calls may be sent, or the writer may commit
        asked = "\n".join(turn.text for turn in request.turns())
        mark = hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()
        step()
        return said(self.case, request, asked, mark, number)


def said(case: Case, request: GenerateRequest, asked: str, mark: str, number: int) -> str:
    """Return what a seat answers; ``mark`` stands for all that it was asked."""
    written = dict(re.findall(r"(?:Text|Draft) ([A-Z])\b[^\n]*\n(?:[^\n]*\n)?text (\d)", asked))
    match request.metadata["phase"]:
        case "draft":
            place = int(request.metadata.get("sample", "1")) - 1 if case.seats == 1 else number
            value = case.drafts[place : place + 1] or "1"
            return f"text {number}, {mark}\nANSWER: {value}"
        case "revise":  # in the first round, some change their minds; in the second, all agree
            return f"text {number}, {mark}\nANSWER: {1 if number < 2 or 'round 1' in asked else 3}, round 1"
        case "critique" | "rank":  # each prefers the next one, so that nothing is decided before the last ranking
            order = sorted(written, key=lambda label: (int(written[label]) - number) % case.seats)
            return f"seen {mark}\nRANKING: {' > '.join(order)}"
        case "judge":
            return "\n".join(f"SCORE {label}: {9 if author == '1' else 3}" for label, author in written.items())
        case "verify" if "QUESTION:" in asked:
            return f"QUESTION: When, {mark}?\nCLAIM: 1932\nQUESTION: By whom?\nCLAIM: the Romans"
        case "verify" if "UNKNOWN if" in asked:
            return "ANSWER: in 1931" if "When" in asked else "ANSWER: the Romans"
        case "verify" if "1: SAME" in asked:
            return "1: DIFFERENT"
        case "synthesise":  # breaks the schema once, so that there is a repair too
            return json.dumps({"answer": mark})
    return json.dumps({"answer": mark, "reasoning": "repaired"})


class Ann(Seat):
    name = "ann"


class Bob(Seat):
    name = "bob"


class Cyd(Seat):
    name = "cyd"


class Dee(Seat):
    name = "dee"


class Eva(Seat):
    name = "eva"


SEATS = (Ann, Bob, Cyd, Dee, Eva)


@attrs.define
class Point:
    """Where a process ends itself.

    Attributes:
        calls: after how many function calls; 0 for never.
        steps: after how many steps: a call is sent or answered, records are to be committed or are committed.
        called: function calls so far.
        stepped: steps so far.
    """

    calls: int = 0
    steps: int = 0
    called: int = 0
    stepped: int = 0

    def count(self, *_: object) -> None:
        """Count a function call or the end of one, in any thread."""
        self.called += 1
        if self.called == self.calls:
            os.kill(os.getpid(), signal.SIGKILL)


point = Point()


def step() -> None:
    """Count a step."""
    point.stepped += 1
    if point.stepped == point.steps:
        os.kill(os.getpid(), signal.SIGKILL)


def forked(folder: Path, work: Any, *args: Any) -> int:
    """Run a function in a child with its output in files of this folder; return how the child ended."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        os.chdir(folder)
        os.environ["KILL_FOLDER"] = str(folder)
        for stream, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
        work(*args)
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    _writer.stop_all()
    os._exit(status)


def convene(case: Case, store: str | None) -> CouncilResult:
    """Let a council run to its end."""
    config = CouncilConfig(seed="a seed", store=store, budget=Budget(deadline=None))
    members = [seat() for seat in SEATS[: case.seats]]
    return asyncio.run(Council(members, config=config, strategy=case.strategy).arun("Where?", schema=case.schema))


def warm(case: Case, folder: Path) -> None:
    """Do once what every child would do first otherwise: make converters and validators, and find plugins."""
    os.environ["KILL_FOLDER"] = str(folder)
    CouncilResult.from_dict(json.loads(json.dumps(convene(case, None).to_dict())))
    for kind in ("provider", "command"):
        _plugins.find(kind)


def run(case: Case, chosen: Point) -> None:
    """Convene a council that ends at a point, and write the result and the points of one that has none."""
    global point
    point, real = chosen, _writer.Writer._transact

    def transact(self: Any, connection: Any, batch: Any) -> Any:
        step()
        result = real(self, connection, batch)
        step()
        return result

    _writer.Writer._transact = transact  # type: ignore[method-assign]
    if chosen.calls or not chosen.steps:
        threading.setprofile(point.count)
        sys.setprofile(point.count)
    result = convene(case, "runs.db")
    sys.setprofile(None)
    threading.setprofile(None)
    if chosen.calls or chosen.steps:  # how often records are committed depends on threads: the point was not reached
        os.kill(os.getpid(), signal.SIGKILL)
    Path("result.json").write_text(json.dumps(result.to_dict()))
    Path("points.json").write_text(json.dumps([point.called, point.stepped]))


def resume() -> None:
    """Go on with a run as a person would."""
    sys.argv = ["council", "resume", "last", "--store", "runs.db", "--json", "--output", "result.json"]
    command_line.main()


def look(folder: Path) -> dict[str, Any]:
    """Return what a killed process left: whether its store is intact, and the keys of the calls in it."""
    database = folder / "runs.db"
    facts: dict[str, Any] = {"paid": paid(folder), "runs": 0, "answered": [], "in flight": []}
    if database.exists() and database.stat().st_size:
        with closing(sqlite3.connect(database)) as connection:
            facts["intact"] = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'runs'").fetchone()[0]:
                facts["runs"] = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
                query = "SELECT key, EXISTS (SELECT 1 FROM endings WHERE endings.name = calls.name) FROM calls"
                for key, ended in connection.execute(query):
                    facts["answered" if ended else "in flight"].append(key)
    return facts


def paid(folder: Path) -> list[str]:
    path = folder / "paid"
    return path.read_text().split() if path.exists() else []


def main(root: Path, name: str, seed: int, points: int) -> None:
    """Run a council undisturbed, then kill and resume ``points`` others; write what became of each."""
    os.environ["KILL_CASE"] = name
    case, chance = CASES[name], random.Random(f"{seed} {name}")
    whole = root / "whole"
    whole.mkdir()
    warm(case, root)
    if forked(whole, run, case, Point()) != 0:
        sys.exit((whole / "stderr").read_text())
    calls, steps = json.loads((whole / "points.json").read_text())
    every = []
    for number in range(points):
        folder = root / str(number)
        folder.mkdir()
        chosen = Point(calls=chance.randint(1, calls)) if number % 2 else Point(steps=chance.randint(1, steps))
        if number == 0:  # never reached: killed at its end, so that one run at least has stored answers
            chosen = Point(steps=sys.maxsize)
        ended = forked(folder, run, case, chosen)
        facts = {"point": attrs.asdict(chosen), "ended": ended, "before": look(folder)}
        if facts["before"]["runs"]:
            facts["resumed"] = forked(folder, resume)
            facts["after"] = look(folder)
            facts["said"] = (folder / "stderr").read_text()
        every.append(facts)
    (root / "facts.json").write_text(json.dumps({"whole": paid(whole), "killed": every}))


def install(folder: Path) -> None:
    """Write the metadata by which the command finds the providers."""
    about = folder / "kill_strategies-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kill-strategies\nVersion: 1.0\n")
    points = "".join(f"{seat.name} = kill_strategies:{seat.__name__}\n" for seat in SEATS)
    (about / "entry_points.txt").write_text(f"[llm_council.providers]\n{points}")


if __name__ == "__main__":
    import kill_strategies  # under the name that the entry points have

    kill_strategies.main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
