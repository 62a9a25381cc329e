"""Run councils in forked processes, kill them, resume them by the installed command, and note what became of each.

A script for the tests, and the plugin whose providers sit in these councils: the command finds them by their entry
points. A warm process forks for every run, so that none pays for imports; it has no thread and no loop of its own.
"""

import asyncio
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from llm_council import Council, CouncilConfig, council, subagents  # noqa: F401  # warm
from llm_council._engine import make_plan, run_plan  # noqa: F401  # warm
from llm_council.models import GenerateRequest
from llm_council.store import _writer
from llm_council.testing.fakes import ScriptedProvider


class Seat(ScriptedProvider):
    """Says words that depend on every character of what it is asked; its backend logs each call."""

    def __init__(self, folder: Path | None = None, seed: int | None = None) -> None:
        super().__init__(self._say, name=type(self).name)
        self.folder = folder or Path(os.environ["KILL_FOLDER"])
        self.chance = random.Random(f"{os.environ.get('KILL_SEED') if seed is None else seed} {self.name}")

    async def _say(self, request: GenerateRequest) -> str:
        phase = request.metadata["phase"]
        line = f"{request.idempotency_key} {phase} {self.name}\n"
        log = os.open(self.folder / "paid", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(log, line.encode())
        os.close(log)
        await asyncio.sleep(self.chance.uniform(0, 0.006))
        asked = "\n".join(turn.text for turn in request.turns())
        mark = hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()
        if phase == "critique":
            return f"seen {mark}\nRANKING: " + " > ".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        if phase == "synthesise":  # breaks the schema once, so that there is a repair too
            return json.dumps({"answer": mark})
        if phase == "repair":
            return json.dumps({"answer": mark, "reasoning": "repaired"})
        return f"draft {mark}"


class Ada(Seat):
    name = "ada"


class Bob(Seat):
    name = "bob"


class Cyd(Seat):
    name = "cyd"


SEATS = (Ada, Bob, Cyd)


def installed(folder: Path) -> dict[str, str]:
    """Install the plugin into a folder, and return the environment in which the command finds it."""
    about = folder / "kill_seats-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kill-seats\nVersion: 1.0\n")
    points = "".join(f"{seat.name} = kill:{seat.__name__}\n" for seat in SEATS)
    (about / "entry_points.txt").write_text(f"[llm_council.providers]\n{points}")
    (folder / "kill.py").symlink_to(Path(__file__).resolve())
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_COUNCIL_", "XDG_"))}
    return {**own, "PYTHONPATH": str(folder), "PYTHONWARNINGS": "error", "HOME": str(folder)}


def forked(work: Any, *args: Any) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work(*args)
        except BaseException as error:  # told by the status
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        _writer.stop_all()
        os._exit(0)
    return pid


def run(folder: Path, seed: int, commit: int | None, late: bool, store: str | None = None) -> None:
    """Convene a council; end at once before, or after, the commit of that number.

    Its store is ``runs.db`` in the folder, unless another one is given.
    """
    done, real = 0, _writer.Writer._transact

    def commits(self: Any, connection: Any, batch: Any) -> Any:
        nonlocal done
        done += 1
        if commit == done and not late:
            os.kill(os.getpid(), signal.SIGKILL)
        if commit == done:  # committed, and nobody is told of it any more
            batch = [_writer.WriteJob(entry.write, lambda fault: None) for entry in batch]
        result = real(self, connection, batch)
        if commit == done:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    _writer.Writer._transact = commits  # type: ignore[method-assign]
    config = CouncilConfig(seed="a seed", store=store or str(folder / "runs.db"))
    asyncio.run(Council([seat(folder, seed) for seat in SEATS], config=config).arun("Where?"))


def resume(folder: Path, run_id: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Go on with a run as a person would, by the command that pip installs."""
    command = [str(Path(sysconfig.get_path("scripts"), "council")), "resume", run_id, "--store", "runs.db", "--json"]
    return subprocess.run(
        [*command, "--output", "result.json"],
        cwd=folder,
        env={**environment, "KILL_FOLDER": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def paid(folder: Path) -> list[str]:
    path = folder / "paid"
    return path.read_text().splitlines() if path.exists() else []


def killed(folder: Path, seed: int, number: int, chance: random.Random) -> dict[str, Any]:
    """Kill a run, and say what it left."""
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
    return facts


def main(root: Path, seed: int, points: int) -> None:
    chance = random.Random(seed)
    every = [killed(root / str(number), seed, number, chance) for number in range(points)]
    environment = installed(root / "plugin")

    def resumed(number: int) -> None:
        facts, folder = every[number], root / str(number)
        if facts["runs"]:
            done = resume(folder, facts["run"], {**environment, "KILL_SEED": str(seed - number)})
            facts["resumed"], facts["said"] = done.returncode, done.stderr
            facts["after"] = paid(folder)
        (folder / "facts.json").write_text(json.dumps(facts))

    with ThreadPoolExecutor(2) as pool:  # there is nothing to fork any more
        list(pool.map(resumed, range(points)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
