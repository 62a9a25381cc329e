"""Where the server listens, what that needs, and which names are its own (tox -e serve)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llm_council.errors import InvalidOption
from llm_council.store import Store

pytestmark = pytest.mark.serve

pytest.importorskip("uvicorn", reason="the environment serve installs it")
httpx = pytest.importorskip("httpx")

from llm_council.serve.server import TOKEN_VARIABLE, Serving, bind, hosts_of, owner_key  # noqa: E402

KEYS = Path("keys.toml")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.com"])
def test_another_host_needs_keys_and_tls(host: str) -> None:
    with pytest.raises(InvalidOption, match="--keys"):
        Serving(host=host)
    with pytest.raises(InvalidOption, match="--behind-proxy"):
        Serving(host=host, keys=KEYS)
    with pytest.raises(InvalidOption, match="both files"):
        Serving(host=host, keys=KEYS, certificate=Path("a.pem"))
    assert Serving(host=host, keys=KEYS, behind_proxy=True).scheme == "http"
    assert Serving(host=host, keys=KEYS, certificate=Path("a.pem"), private_key=Path("b.pem")).scheme == "https"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_this_machine_needs_neither(host: str) -> None:
    assert Serving(host=host).host == host


def test_our_names_are_those_of_the_address_and_those_that_are_named() -> None:
    assert hosts_of(Serving(), 80) == {"127.0.0.1:80", "localhost:80"}
    assert hosts_of(Serving(host="::1"), 80) == {"[::1]:80", "127.0.0.1:80", "localhost:80"}
    named = hosts_of(Serving(host="0.0.0.0", keys=KEYS, behind_proxy=True, allow_hosts=("Council.example",)), 80)
    assert named == {"0.0.0.0:80", "council.example", "council.example:80"}


def test_a_port_that_is_taken_is_named() -> None:
    with bind(Serving(port=0)) as first, pytest.raises(InvalidOption, match="name another port with --port"):
        bind(Serving(port=first.getsockname()[1]))


def test_the_token_is_new_or_that_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert owner_key().secret != owner_key().secret
    monkeypatch.setenv(TOKEN_VARIABLE, "a-token-of-my-own")
    assert owner_key().secret == "a-token-of-my-own"
    # Clients strip spaces around a token, and encode other letters each in their own way.
    for unusable in ("short", " a-token-of-my-own ", "ein-Schlüssel-von-mir"):
        monkeypatch.setenv(TOKEN_VARIABLE, unusable)
        with pytest.raises(InvalidOption, match="16 characters") as caught:
            owner_key()
        assert unusable not in str(caught.value)


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_files_that_tls_cannot_use_are_refused_before_the_server_listens(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "a.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidOption, match=r"TLS cannot use .*a\.pem"):
        bind(Serving(port=0, certificate=path, private_key=path))


def test_a_host_without_an_address_is_named() -> None:
    with pytest.raises(InvalidOption, match="--host"):
        bind(Serving(host="a host", keys=KEYS, behind_proxy=True, port=0))


def test_the_command_serves_stores_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    environment: dict[str, Any] = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path),
        "OPENAI_API_KEY": "sk-test-1234567890123456",
    }
    command = [sys.executable, "-m", "llm_council", "serve", "-p", "openai", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            url = running.stdout.readline().split()[1]
            token = running.stdout.readline().split()[1]
            names = httpx.get(f"{url}/models", headers={"authorization": f"Bearer {token}"}, trust_env=False).json()
            assert names["data"][0]["id"] == "council"
            assert httpx.get(f"{url}/models", trust_env=False).status_code == 401
            page = running.stdout.readline().split()[1]
            with httpx.Client(trust_env=False, follow_redirects=True) as browser:
                assert "Ask the council" in browser.get(page).text
            assert token not in str(httpx.get(page, trust_env=False).headers)
            status = Path(f"/proc/{running.pid}/status")
            if status.exists():
                assert int(status.read_text().partition("VmRSS:")[2].split()[0]) < 90_000  # kB
            assert (tmp_path / "data" / "llm-council" / "runs.db").exists()
            assert (tmp_path / "data" / "llm-council").stat().st_mode & 0o077 == 0
            running.send_signal(signal.SIGTERM)
            began = time.monotonic()
            _, err = running.communicate(timeout=30)
            assert time.monotonic() - began < 25
        finally:
            running.kill()
    assert "runs are stored in" in err
    assert token not in err
    assert "Traceback" not in err


SEATED = '''
"""Run the command with three scripted seats; the first argument is how long they think."""
import sys
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider
from llm_council.cli import main

delay, *sys.argv[1:] = sys.argv[1:]
script = {"draft": "I think so.", "critique": "A: fine", "synthesise": "The final answer is here."}
seats = {name: ScriptedProvider(script, name=name, delay=float(delay)) for name in ("ann", "bob", "cy")}
with registry.overriding(**seats):
    main()
'''


def test_a_stream_ends_whole_although_the_server_is_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "start.py").write_text(SEATED)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    command = [sys.executable, str(tmp_path / "start.py"), "1.5", "serve", "-p", "ann", "--port", "0", "--no-store"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            url = running.stdout.readline().split()[1]
            headers = {"authorization": f"Bearer {running.stdout.readline().split()[1]}"}
            body = {"model": "council/single", "messages": [{"role": "user", "content": "2+2?"}], "stream": True}
            with httpx.stream(
                "POST", f"{url}/chat/completions", json=body, headers=headers, trust_env=False, timeout=30
            ) as reply:
                lines = reply.iter_lines()
                assert next(lines).startswith("data: ")  # the run has begun
                running.send_signal(signal.SIGTERM)
                data = [line.removeprefix("data: ") for line in lines if line]
            assert data.pop() == "[DONE]"
            told = [json.loads(one)["choices"][0]["delta"].get("content") or "" for one in data]
            assert "".join(told) == "I think so."
        finally:
            running.kill()


def test_a_run_of_a_killed_server_can_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "start.py").write_text(SEATED)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    store = str(tmp_path / "runs.db")

    def start(delay: str, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(tmp_path / "start.py"), delay, *words]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with start("30", "serve", "-p", "ann,bob,cy", "--port", "0", "--store", store) as running:
        try:
            assert running.stdout is not None
            url = running.stdout.readline().split()[1]
            token = running.stdout.readline().split()[1]
            body = {"model": "council", "messages": [{"role": "user", "content": "2+2?"}], "stream": True}
            headers = {"authorization": f"Bearer {token}"}
            with httpx.stream("POST", f"{url}/chat/completions", json=body, headers=headers, trust_env=False) as reply:
                assert next(reply.iter_lines()).startswith("data: ")
                end = time.monotonic() + 20
                while not any(run.in_flight for run in Store(store).runs_sync()):
                    assert time.monotonic() < end, "no call was stored"
                    time.sleep(0.05)
                running.kill()
        finally:
            running.kill()
            running.wait(20)
    with start("0", "resume", "last", "--store", store) as resumed:
        out, err = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, err
    assert "The final answer is here." in out


TRACED = '''
"""Print the name of each span that ends, then run the command as SEATED does."""
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

exporter = ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: f"span {span.name}\\n")
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
'''


@pytest.mark.parametrize("flags", [["--otel"], []])
def test_runs_are_traced_on_request(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "start.py").write_text(TRACED + SEATED)
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    command = [sys.executable, str(tmp_path / "start.py"), "0", "serve", "-p", "ann", "--port", "0", "--no-store"]
    with subprocess.Popen(
        [*command, *flags], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            url = running.stdout.readline().split()[1]
            headers = {"authorization": f"Bearer {running.stdout.readline().split()[1]}"}
            body = {"model": "council/single", "messages": [{"role": "user", "content": "2+2?"}]}
            reply = httpx.post(f"{url}/chat/completions", json=body, headers=headers, trust_env=False, timeout=30)
            assert reply.json()["choices"][0]["message"]["content"] == "I think so."
            running.send_signal(signal.SIGTERM)
            _, err = running.communicate(timeout=30)
        finally:
            running.kill()
    spans = [line.removeprefix("span ") for line in err.splitlines() if line.startswith("span ")]
    assert spans == (["chat", "draft", "invoke_agent advisor"] if flags else [])
