"""Kill `council batch` at random points, give the same command again, and note what became of each.

A script for the test. As in ``kill_strategies``, whose seats sit in the councils, a warm process forks for every
command, and a point is counted in what happens and never in time: a call is sent or answered, records are committed, a
line of results is written in part or whole, the store is removed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import kill_strategies as kills
from kill_strategies import OBJECT, Point, forked, paid, step

import llm_council.cli._main as command_line
from llm_council.batch import line_file
from llm_council.cli import _batch, _batch_run, _batch_survey  # noqa: F401  # warm
from llm_council.store import _writer

TASKS = 8
COMMAND = [
    *("council", "batch", "tasks.jsonl", "-o", "results.jsonl", "-p", "ann,bob,cyd", "--strategy", "synthesize"),
    *("--schema", "schema.json", "--seed", "a seed", "--concurrency", "3"),
]


lines = 0  # that this process has begun to write
torn = 0  # the number of the line in which it is killed; 0 for none


def append(self: Any, line: bytes) -> None:
    """Write a line in two pieces, so that a process can be killed between them."""
    global lines
    lines += 1
    step()
    whole = line + b"\n"
    os.write(self._file, whole[: len(whole) // 2])
    if lines == torn:
        os.kill(os.getpid(), signal.SIGKILL)
    step()
    os.write(self._file, whole[len(whole) // 2 :])
    self._end += len(whole)
    step()


def batch(chosen: Point | None, tear: int = 0) -> None:
    """Run the command; it ends itself at a point, or in the middle of a line, if there is one."""
    global torn
    torn = tear
    real_transact, real_unlink = _writer.Writer._transact, Path.unlink

    def transact(self: Any, connection: Any, several: Any) -> Any:
        step()
        result = real_transact(self, connection, several)
        step()
        return result

    def unlink(self: Path, missing_ok: bool = False) -> None:
        step()
        real_unlink(self, missing_ok)
        step()

    kills.point = chosen or Point()
    line_file.LineFile.append = append  # type: ignore[method-assign]
    _writer.Writer._transact = transact  # type: ignore[method-assign]
    Path.unlink = unlink  # type: ignore[assignment, method-assign]
    sys.argv = COMMAND
    try:
        command_line.main()
    finally:
        Path("steps").write_text(str(kills.point.stepped))
        if chosen is not None:  # how often records are committed depends on threads: the point was not reached
            os.kill(os.getpid(), signal.SIGKILL)


def prepare(folder: Path) -> None:
    folder.mkdir()
    lines = [{"id": f"q{number}", "task": f"Where is {number}?"} for number in range(TASKS - 2)]
    lines += [{"task": "Without an id?"}] * 2
    (folder / "tasks.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "schema.json").write_text(json.dumps(OBJECT))


def left_by(folder: Path) -> dict[str, Any]:
    """Return what a process left: the keys of the calls in its store, the lines of its results, and what it paid."""
    store, results = folder / "results.jsonl.runs.db", folder / "results.jsonl"
    facts: dict[str, Any] = {"paid": paid(folder), "answered": [], "in flight": []}
    facts["results"] = results.read_bytes().decode() if results.exists() else ""
    if not store.exists() or not store.stat().st_size:
        return facts
    with closing(sqlite3.connect(store)) as connection:
        facts["intact"] = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'runs'").fetchone()[0]:
            ended = "SELECT 1 FROM endings WHERE endings.run = calls.run AND endings.name = calls.name"
            for key, has_ended in connection.execute(f"SELECT key, EXISTS ({ended}) FROM calls"):
                facts["answered" if has_ended else "in flight"].append(key)
    return facts


def main(root: Path, seed: int, points: int) -> None:
    """Run the command undisturbed, then kill others; write what became of each."""
    os.environ["KILL_CASE"] = "synthesize"
    chance = random.Random(f"{seed} batch")
    whole = root / "whole"
    prepare(whole)
    kills.warm(kills.CASES["synthesize"], root)
    if forked(whole, batch, None) != 0:
        sys.exit((whole / "stderr").read_text())
    steps = int((whole / "steps").read_text())
    every = []
    for number in range(points):
        folder = root / str(number)
        prepare(folder)
        # Every second one is killed twice, and every fourth in the middle of a line.
        rounds = [(chance.randint(1, steps), 0) for _ in range(1 + number % 2)]
        if number % 4 == 2:
            rounds = [(sys.maxsize, chance.randint(1, TASKS))]
        stages = []
        for last, tear in rounds:
            ended = forked(folder, batch, Point(steps=last), tear)
            stages.append({"point": (last, tear), "ended": ended, **left_by(folder)})
        stages.append({"ended": forked(folder, batch, None), **left_by(folder)})
        said = (folder / "stderr").read_text()
        left = sorted(path.name for path in folder.iterdir())
        every.append({"stages": stages, "said": said, "left": left})
    facts = {"whole": paid(whole), "lines": (whole / "results.jsonl").read_text(), "killed": every}
    (root / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
