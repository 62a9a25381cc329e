"""Run councils in forked processes, kill them, resume them, and print what became of each: a script for the tests.

A warm process forks for every run, so that none pays for imports; it has no thread and no loop of its own.
"""

import asyncio
import hashlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from llm_council import Council, CouncilConfig, _again, council, subagents  # noqa: F401  # warm
from llm_council._engine import conduct, make_plan  # noqa: F401  # warm
from llm_council.models import GenerateRequest
from llm_council.store import _writer
from llm_council.testing.fakes import ScriptedProvider

SEATS = ("ada", "bob", "cyd")


def council_of(folder: Path, chance: random.Random) -> Council:
    """Seat three whose words depend on every character of what they are asked, and whose backend logs each call."""

    def seat(name: str) -> ScriptedProvider:
        async def say(request: GenerateRequest) -> str:
            phase = request.metadata["phase"]
            line = f"{request.idempotency_key} {phase} {name}\n"
            log = os.open(folder / "paid", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(log, line.encode())
            os.close(log)
            await asyncio.sleep(chance.uniform(0, 0.006))
            asked = "\n".join(turn.text for turn in request.turns())
            mark = hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()
            if phase == "critique":
                return f"seen {mark}\nRANKING: A"
            if phase == "synthesise":  # breaks the schema once, so that there is a repair too
                return json.dumps({"answer": mark})
            if phase == "repair":
                return json.dumps({"answer": mark, "reasoning": "repaired"})
            return f"draft {mark}"

        return ScriptedProvider(say, name=name)

    config = CouncilConfig(seed="a seed", store=str(folder / "runs.db"))
    return Council([seat(name) for name in SEATS], config=config)


def forked(work: Any, *args: Any) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work(*args)
        except BaseException as error:  # told by the status
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        _writer._exit()
        os._exit(0)
    return pid


def run(folder: Path, seed: int, commit: int | None, late: bool) -> None:
    """Convene a council; end at once before, or after, the commit of that number."""
    done, real = 0, _writer.Writer._commit

    def commits(self: Any, connection: Any, batch: Any) -> Any:
        nonlocal done
        done += 1
        if commit == done and not late:
            os.kill(os.getpid(), signal.SIGKILL)
        if commit == done:  # committed, and nobody is told of it any more
            batch = [_writer.Entry(entry.write, lambda fault: None) for entry in batch]
        told = real(self, connection, batch)
        if commit == done:
            os.kill(os.getpid(), signal.SIGKILL)
        return told

    _writer.Writer._commit = commits  # type: ignore[method-assign]
    asyncio.run(council_of(folder, random.Random(seed)).arun("Where?"))


def resume(folder: Path, run_id: str, seed: int) -> None:
    result = asyncio.run(council_of(folder, random.Random(seed)).aresume(run_id))
    (folder / "result.json").write_text(json.dumps(result.to_dict()))


def paid(folder: Path) -> list[str]:
    path = folder / "paid"
    return path.read_text().splitlines() if path.exists() else []


def main(root: Path, seed: int, points: int) -> None:
    chance = random.Random(seed)
    for number in range(points):
        folder = root / str(number)
        folder.mkdir()
        commit, late = (1 + number // 4 % 9, bool(number // 2 % 2)) if number % 2 else (None, False)
        pid = forked(run, folder, seed + number, commit, late)
        if commit is None:
            time.sleep(chance.uniform(0.0, 0.12))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        facts: dict[str, Any] = {"killed": os.WIFSIGNALED(status), "before": paid(folder), "runs": 0}
        database = folder / "runs.db"
        if database.exists() and database.stat().st_size:
            with closing(sqlite3.connect(database)) as connection:
                facts["intact"] = connection.execute("PRAGMA integrity_check").fetchone()[0]
                tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'runs'").fetchone()[0]
                runs = connection.execute("SELECT id, status FROM runs").fetchall() if tables else []
                facts["runs"] = len(runs)
                query = "SELECT key, EXISTS (SELECT 1 FROM endings WHERE endings.name = calls.name) FROM calls"
                calls = connection.execute(query).fetchall() if tables else []
                facts["journalled"] = [key for key, ended in calls if ended]
                facts["in flight"] = [key for key, ended in calls if not ended]
            if runs:
                facts["run"], facts["status"] = runs[0]
                _, status = os.waitpid(forked(resume, folder, runs[0][0], seed - number), 0)
                facts["resumed"] = os.waitstatus_to_exitcode(status)
                facts["after"] = paid(folder)
        (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
