"""The command in a hostile folder, before a hostile server, on a terminal: judged by what happens, not by our flags."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

EVIL = (
    "ok\x1b]52;c;ZXZpbA==\x07 \x9b31m [bold red]red[/] \u202etxt.exe\x1b[2J\x08\r{0.__class__} ${HOME} $(touch pwned)"
)
COUNCIL = Path(sysconfig.get_path("scripts")) / "council"


class Vendor(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append((self.path, str(self.headers), asked))
        shaped = "json_schema" in asked
        content = json.dumps({"answer": EVIL, "reasoning": EVIL}) if shaped else EVIL
        status = self.server.status
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        reply = {"choices": [choice], "model": EVIL} if status == 200 else {"error": {"message": EVIL}}
        body = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def vendor() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Vendor) as server:
        server.daemon_threads = True
        server.asked, server.status = [], 200  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path, vendor: Any) -> dict[str, str]:
    """An environment with a configuration of one's own, and nothing else."""
    folder = tmp_path / "home" / ".config" / "llm-council"
    folder.mkdir(parents=True)
    address = f"http://127.0.0.1:{vendor.server_address[1]}/v1"
    gateway = f'kind = "openai-compatible"\nbase_url = "{address}"\napi_key = "${{GATEWAY_KEY}}"\ndefault_model = "m"\n'
    (folder / "config.toml").write_text(f"[providers.gateway]\n{gateway}")
    inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**inherited, "HOME": str(tmp_path / "home"), "GATEWAY_KEY": "canary-of-the-gateway", "TERM": "xterm"}


@pytest.fixture
def run(tmp_path: Path, home: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    place = tmp_path / "place"
    place.mkdir(exist_ok=True)

    def go(*words: str, cwd: Path = place, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(COUNCIL), *words]
        return subprocess.run(command, cwd=cwd, env={**home, **more}, capture_output=True, text=True, timeout=90)

    return go


TRAPS = ("codex", "claude", "gemini", "git", "llama-server", "xllamacpp")
WORDS = ("CLAUDE.md", "AGENTS.md", "GEMINI.md", "README.md", ".env", ".netrc", "config.toml", "notes.txt")


def test_nothing_of_the_folder_is_run_read_or_sent(run: Any, vendor: Any, tmp_path: Path) -> None:
    place = tmp_path / "place"
    marker = tmp_path / "ran"
    for name in TRAPS:
        (place / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (place / name).chmod(0o755)
    for name in ("sitecustomize", "usercustomize", "json", "attrs", "httpx", "llm_council", "click"):
        (place / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')\n")
    for name in WORDS:
        (place / name).write_text(f"OPENAI_API_KEY=canary-of-{name}\nGATEWAY_KEY=canary-of-{name}\nbase_url = 'x'\n")
    (place / "council.toml").write_text('[council]\nsystem_context = "${GATEWAY_KEY} and ${HOME}"\n')
    before = sorted(place.rglob("*"))
    for words in (["providers"], ["run", "What is 2 + 2?", "-p", "gateway"]):
        done = run(*words)
        assert done.returncode == 0, done.stderr
    assert not marker.exists()
    assert sorted(place.rglob("*")) == before, "nothing is written"
    assert [path.relative_to(tmp_path) for path in (tmp_path / "home").rglob("*") if path.is_file()] == [
        Path("home/.config/llm-council/config.toml")
    ]
    assert vendor.asked
    for path, headers, body in vendor.asked:
        assert "canary" not in path + body
        assert re.findall(r"canary-of-\S+", headers) == ["canary-of-the-gateway"]
        assert "${GATEWAY_KEY} and ${HOME}" in body, "variables are looked up in keys alone"


def test_a_folder_cannot_send_a_key_elsewhere(run: Any, vendor: Any, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{vendor.server_address[1]}/v1"
    (tmp_path / "place" / "council.toml").write_text(
        f'[council]\nproviders = ["openai"]\n[providers.openai]\nkind = "openai"\nbase_url = "{address}"\n'
    )
    done = run("run", "What is 2 + 2?", OPENAI_API_KEY="canary-of-openai")
    assert done.returncode == 2
    assert "[providers.openai] kind, base_url" in done.stderr
    assert vendor.asked == []
    assert run("config", "trust").returncode == 0
    assert run("run", "What is 2 + 2?", OPENAI_API_KEY="canary-of-openai").returncode == 0
    assert "canary-of-openai" in vendor.asked[0][1]


def on_a_terminal(words: list[str], *, stream: str, env: dict[str, str], cwd: Path) -> tuple[bytes, int]:
    """Run the command with one of its streams on a terminal, and return what the terminal got."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [str(COUNCIL), *words],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs},  # type: ignore[call-overload]
    ) as process:
        os.close(theirs)
        got = b""
        while True:
            ready, _, _ = select.select([ours], [], [], 60)
            assert ready, "the command hangs"
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            got += piece
        status = process.wait(timeout=60)
    os.close(ours)
    return got, status


def controls(text: str) -> set[str]:
    return {c for c in text if (ord(c) < 32 and c not in "\n\r\t") or 127 <= ord(c) < 160 or c in "\u202e\u2066"}


STYLE = re.compile(r"\x1b\[[0-9;]*m")


def test_an_answer_on_a_terminal_holds_no_control(home: dict[str, str], tmp_path: Path) -> None:
    words = ["run", "What is 2 + 2?", "-p", "gateway"]
    got, status = on_a_terminal(words, stream="stdout", env=home, cwd=tmp_path)
    assert status == 0
    assert b"ok" in got
    assert not controls(STYLE.sub("", got.decode())), "nothing but the styles of rendered Markdown"
    assert b"[bold red]" in got, "markup of a terminal is text"
    assert not list(tmp_path.rglob("pwned"))


OURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # what a board on a terminal is drawn with


@pytest.mark.parametrize(("status", "flag"), [(200, "--stream"), (400, "--verbose")])
def test_progress_on_a_terminal_obeys_no_model(
    status: int, flag: str, home: dict[str, str], vendor: Any, tmp_path: Path
) -> None:
    vendor.status = status
    words = ["run", "What is 2 + 2?", "-p", "gateway:2", flag]
    got, _ = on_a_terminal(words, stream="stderr", env={**home, "NO_COLOR": "1"}, cwd=tmp_path)
    text = got.decode()
    assert b"\x1b]52" not in got
    assert "\x1b[2J" not in text
    assert not controls(OURS.sub("", text)), "nothing but the board's own moves"
    assert not re.search(r"\x1b\[(?:3|4|9|10)[0-9](?:;[0-9]+)*m", text), "NO_COLOR is kept to"


def test_json_is_exact_on_a_terminal(home: dict[str, str], tmp_path: Path) -> None:
    words = ["run", "What is 2 + 2?", "-p", "gateway", "--json"]
    got, _ = on_a_terminal(words, stream="stdout", env=home, cwd=tmp_path)
    assert json.loads(got)["output"]["answer"] == EVIL


def test_what_is_asked_and_answered_is_in_no_log(vendor: Any) -> None:
    script = f"""
import io, logging
heard = io.StringIO()
logging.basicConfig(stream=heard, level=logging.INFO)
from llm_council import Council
from llm_council.providers.compatible import OpenAICompatibleProvider
seat = OpenAICompatibleProvider(base_url="http://127.0.0.1:{vendor.server_address[1]}/v1", default_model="m")
with Council([seat, seat]) as council:
    assert council.run_sync("a-secret-plan", context="a-secret-context").success
print(heard.getvalue())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert "a-secret" not in done.stdout + done.stderr
    assert "txt.exe" not in done.stdout + done.stderr
