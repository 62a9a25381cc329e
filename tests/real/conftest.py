"""Software of others: the command-line agents themselves, a mock server that speaks every wire, and llama.cpp's server.

The environment `real` installs them (see tox.ini); the tests fetch nothing and reach no network. A tool that is missing
fails where `CI` is set, and skips elsewhere, saying so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TOOLS = Path(os.environ.get("LLM_COUNCIL_TOOLS") or "/nowhere") / "node_modules" / ".bin"
TEXT = '{"capital": "Paris"}'
FIXTURES = {
    "fixtures": [
        {
            "match": {"userMessage": "refuse with 429"},
            "response": {
                "status": 429,
                "error": {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"},
            },
        },
        {
            "match": {"userMessage": "refuse with 401"},
            "response": {
                "status": 401,
                "error": {"message": "bad key", "type": "authentication_error", "code": "invalid_api_key"},
            },
        },
        {  # the tool through which Claude Code answers in a schema
            "match": {"toolName": "StructuredOutput", "hasToolResult": False},
            "response": {"toolCalls": [{"name": "StructuredOutput", "arguments": TEXT}]},
        },
        {"match": {}, "response": {"content": TEXT}},
    ]
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/real/"):
            item.add_marker(pytest.mark.real)


def _missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing: the environment `real` must install it")
    pytest.skip(f"{what} is missing; `tox -e real` installs it")


@pytest.fixture(scope="session")
def missing() -> Callable[[str], None]:
    """Report that something is missing: fail in CI, skip elsewhere."""
    return _missing


@pytest.fixture(scope="session")
def tool() -> Callable[[str], Path]:
    """Return the path of a program that the environment installed."""

    def find(name: str) -> Path:
        path = TOOLS / name
        if shutil.which("node") is None or not path.exists():
            _missing(f"{name} (LLM_COUNCIL_TOOLS, node)")
        return path

    return find


@pytest.fixture(scope="session")
def mock_server(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], Path]) -> Iterator[str]:
    """Run aimock, which speaks the wires of many vendors on one loopback port; returns its address."""
    program = tool("llmock")
    folder = tmp_path_factory.mktemp("aimock")
    (folder / "fixtures.json").write_text(json.dumps(FIXTURES))
    command = [program, "--port", "0", "--host", "127.0.0.1", "--fixtures", folder / "fixtures.json"]
    command += ["--strict", "--chunk-size", "5", "--latency", "30"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        output_lines: list[str] = []
        found = None
        for line in server.stdout:
            output_lines.append(line)
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                break
        drain = threading.Thread(target=server.stdout.read)  # a full pipe would stop it
        drain.start()
        try:
            assert found, "".join(output_lines)
            yield found[0]
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
            drain.join(10)
