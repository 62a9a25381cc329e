"""A program that uses the package without the POSIX-only names that Windows lacks; `test_windows.py` reads its output.

asyncio and the HTTP libraries have Windows code of their own, and are imported before the names are hidden.
"""

# ruff: noqa: E402
import asyncio
import importlib
import multiprocessing  # noqa: F401
import os
import pkgutil
import signal
import socket
import sqlite3  # noqa: F401
import subprocess  # noqa: F401
import sys
import tempfile
from pathlib import Path

import aiohttp  # noqa: F401
import click.testing
import httpcore  # noqa: F401
import httpx  # noqa: F401
import requests  # noqa: F401
import rich.console  # noqa: F401

for module in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[module] = None
for name in (
    *("fork", "forkpty", "geteuid", "getuid", "getgid", "getpgid", "killpg", "mkfifo", "register_at_fork", "setsid"),
    *("sched_getaffinity", "statvfs", "uname", "WNOHANG", "O_NOFOLLOW", "O_CLOEXEC", "O_DIRECTORY"),
):
    if hasattr(os, name):  # macOS lacks some of them too
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGQUIT", "SIGCHLD", "SIGALRM", "SIGPIPE", "pthread_sigmask", "setitimer"):
    delattr(signal, name)
del socket.AF_UNIX


def socketpair(*_):
    """Return two connected TCP sockets, as ``socket.socketpair`` does on Windows."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        two, _ = listener.accept()
    return one, two


socket.socketpair = socketpair

import llm_council
from llm_council import Council, CouncilConfig, errors
from llm_council.testing.servers import FakeVendor

# The supervisor is the POSIX program that agents start; nothing imports it. One module needs a library of an extra.
NOT_IMPORTED = (
    "llm_council.transports._supervisor",
    "llm_council.evals._inspect_models",
    "llm_council.__main__",
    "llm_council.testing.__main__",
    # These need extras, which this test does without.
    "llm_council.store._postgres",
)
SERVER = "llm_council.serve."
"""Modules that need extras as well."""


def import_everything():
    for found in pkgutil.walk_packages(llm_council.__path__, "llm_council."):
        if found.name not in NOT_IMPORTED and not found.name.startswith(SERVER):
            importlib.import_module(found.name)
    print("import: all")


def run_over_http(folder):
    with FakeVendor(key="secret-key").serve() as vendor:
        gateway = {"kind": "openai-compatible", "base_url": vendor.url, "api_key": "secret-key", "default_model": "m"}
        config = CouncilConfig(providers=["gateway:3"], instances={"gateway": gateway})
        with Council(config=config, store=Path(folder, "runs.db")) as council:
            result = council.run("Where?")
            print("http: blocking", result.status, sorted(result.output))
            print("http: stream", [event.type for event in council.stream("Where?")][-1])
            print("http: replay", council.replay(result.run_id).status)

        async def main():
            async with Council(config=config) as council:
                return await council.run("Where?")

        print("http: awaited", asyncio.run(main()).status)
        toml = Path(folder, "config.toml")
        lines = [f"{name} = {value!r}" for name, value in gateway.items()]
        toml.write_text("\n".join(["[providers.gateway]", *lines]), encoding="utf-8")
        os.environ["LLM_COUNCIL_CONFIG"] = str(toml)
        from llm_council.cli._main import cli

        done = click.testing.CliRunner().invoke(cli, ["run", "Where?", "-p", "gateway:2", "--json"])
        print("http: command", done.exit_code, '"completed"' in done.stdout)


def ask_programs():
    for provider in ("codex", "claude-code", "gemini-cli", "local"):
        with Council([provider], config=CouncilConfig()) as council:
            try:
                council.run("Where?")
            except errors.UnsupportedEnvironmentError as error:
                print("program:", error)
            checked = council.doctor()[provider]
            print("program:", checked.ok, checked.message)


import_everything()
with tempfile.TemporaryDirectory() as folder:
    run_over_http(folder)
ask_programs()
