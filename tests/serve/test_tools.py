"""The tools for agents, called by the SDK's own client: in the process, by standard input, by HTTP (tox -e serve)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from llm_council import Budget, Council, CouncilConfig
from llm_council.testing.fakes import ScriptedProvider

pytestmark = [pytest.mark.serve, pytest.mark.anyio]

pytest.importorskip("mcp", reason="the environment serve installs it")

from mcp import Client, StdioServerParameters  # noqa: E402
from mcp.client.streamable_http import streamable_http_client  # noqa: E402

from llm_council.serve.tools import make_server  # noqa: E402

SCRIPT = {"draft": "I think so.\nANSWER: 4", "critique": "A: fine", "synthesise": "The final answer is here."}

PLUGIN = '''
"""A council of scripted seats behind the command."""
import sys
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider
from llm_council.cli import main

script = {"draft": "I think so.", "critique": "A: fine", "synthesise": "The final answer is here."}
with registry.overriding(**{name: ScriptedProvider(script, name=name) for name in ("ann", "bob", "cy")}):
    sys.argv = ["council", "mcp", "-p", "ann,bob,cy", *sys.argv[1:]]
    main()
'''


@pytest.fixture
def anyio_backend() -> str:
    """The SDK's client runs on asyncio."""
    return "asyncio"


def council_of(tmp_path: Path | None = None, **options: Any) -> Council:
    """Return a council of scripted seats, with a store if there is a folder."""
    seats = [ScriptedProvider(SCRIPT, name=name, **options) for name in ("ann", "bob", "cy")]
    return Council(seats, config=CouncilConfig(), store=None if tmp_path is None else tmp_path / "runs.db")


async def test_tools_have_schemas_and_descriptions_for_models() -> None:
    async with Client(make_server(council_of())) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert sorted(tools) == ["convene", "follow_up", "get_run", "list_councils", "list_roles"]
    convene = tools["convene"]
    assert convene.input_schema["required"] == ["task"]
    assert "ctx" not in json.dumps(convene.input_schema)
    assert set(convene.output_schema["properties"]) >= {"answer", "status", "run", "agreement", "usd"}
    assert all(tool.description for tool in tools.values())


async def test_a_council_is_convened_with_progress_and_a_typed_result(tmp_path: Path) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def note(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, total, message))

    council = council_of(tmp_path)
    async with Client(make_server(council)) as client:
        reply = await client.call_tool(
            "convene", {"task": "2+2?", "context": "Of whole numbers."}, progress_callback=note
        )
        told = reply.structured_content
        assert (reply.is_error, told["answer"], told["status"]) == (False, "The final answer is here.", "completed")
        assert told["seats"] == ["ann", "bob", "cy"]
        words = [message or "" for _, _, message in seen]
        assert any("draft" in word for word in words)
        assert seen[-1] == (3, 3, "completed")
        assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
        voted = (await client.call_tool("convene", {"task": "2+2?", "strategy": "poll"})).structured_content
        assert voted["agreement"].startswith("3 of 3 agree")
        again = (await client.call_tool("follow_up", {"run": told["run"], "task": "Sure?"})).structured_content
        stored = (await client.call_tool("get_run", {"run": again["run"]})).structured_content
        assert stored == again
        listed = json.loads((await client.read_resource("council://runs")).contents[0].text)
        assert [row["run"] for row in listed] == [again["run"], voted["run"], told["run"]]
        whole = json.loads((await client.read_resource(f"council://runs/{told['run']}")).contents[0].text)
        assert (whole["run_id"], whole["result"]["output"]) == (told["run"], "The final answer is here.")


async def test_roles_and_councils_are_listed() -> None:
    async with Client(make_server(council_of())) as client:
        roles = (await client.call_tool("list_roles", {})).structured_content["result"]
        assert {"advisor", "critic"} <= {role["name"] for role in roles}
        councils = (await client.call_tool("list_councils", {})).structured_content
        assert (councils["seats"], councils["default"]) == (["ann", "bob", "cy"], "auto")


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("convene", {"task": "?", "role": "nobody"}, "there is no role 'nobody'"),
        ("convene", {"task": "?", "role": "./role.toml"}, "there is no role"),
        ("convene", {"task": "?", "role": "/etc/passwd"}, "there is no role"),
        ("convene", {"task": "?", "strategy": "nothing"}, "nothing"),
        ("convene", {"task": "?", "usd": -1}, "usd"),
        ("follow_up", {"run": "last", "task": "?"}, "--store"),
        ("get_run", {"run": "last"}, "--store"),
    ],
)
async def test_what_goes_wrong_is_told_with_its_remedy(tool: str, arguments: dict[str, Any], message: str) -> None:
    async with Client(make_server(council_of())) as client:
        reply = await client.call_tool(tool, arguments)
    assert reply.is_error
    assert message in reply.content[0].text
    assert "Traceback" not in reply.content[0].text


async def test_a_cancelled_call_cancels_the_run() -> None:
    seats = [ScriptedProvider(SCRIPT, name=name, delay=60.0) for name in ("ann", "bob")]
    async with Client(make_server(Council(seats, config=CouncilConfig()))) as client:
        with anyio.move_on_after(1.0):
            await client.call_tool("convene", {"task": "2+2?"})
        with anyio.fail_after(10):
            while not all(seat.cancelled for seat in seats):
                await anyio.sleep(0.02)


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


async def _ask(client: Client) -> None:
    reply = await client.call_tool("convene", {"task": "2+2?"})
    assert reply.structured_content["answer"] == "The final answer is here."


async def test_the_command_speaks_over_standard_input_and_output(tmp_path: Path) -> None:
    (tmp_path / "start.py").write_text(PLUGIN)
    started = StdioServerParameters(
        command=sys.executable, args=[str(tmp_path / "start.py"), "--no-store"], env=_environment(tmp_path)
    )
    async with Client(started) as client:
        await _ask(client)


def test_the_command_ends_at_ctrl_c_although_standard_input_stays_open(tmp_path: Path) -> None:
    (tmp_path / "start.py").write_text(PLUGIN)
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "start.py"), "--no-store"],
        env=_environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            assert running.stdin is not None
            assert running.stdout is not None
            running.stdin.write(json.dumps(request) + "\n")
            running.stdin.flush()
            assert json.loads(running.stdout.readline())["id"] == 1
            running.send_signal(signal.SIGINT)
            assert running.wait(30) == -signal.SIGINT
        finally:
            running.kill()


async def test_an_agent_can_lower_the_limit_of_a_run_and_not_raise_it() -> None:
    seats = [ScriptedProvider(SCRIPT, name=name) for name in ("ann", "bob")]
    council = Council(seats, config=CouncilConfig(budget=Budget(usd=0.0)))
    async with Client(make_server(council)) as client:
        reply = await client.call_tool("convene", {"task": "2+2?", "usd": 5.0})
    assert reply.is_error
    assert "budget of this run is 0 US dollars" in reply.content[0].text
    assert not any(seat.requests for seat in seats)


async def test_the_command_speaks_over_http_to_who_has_the_token(tmp_path: Path) -> None:
    import httpx

    (tmp_path / "start.py").write_text(PLUGIN)
    command = [sys.executable, str(tmp_path / "start.py"), "--http", "--port", "0"]
    with subprocess.Popen(command, env=_environment(tmp_path), stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            read: Callable[[], str] = running.stdout.readline
            url = (await anyio.to_thread.run_sync(read)).split()[1]
            token = (await anyio.to_thread.run_sync(read)).split()[1]
            for headers in ({}, {"authorization": "Bearer wrong"}):
                assert httpx.post(url, json={}, headers=headers, trust_env=False).status_code == 401
            other = {"authorization": f"Bearer {token}", "origin": "https://evil.example"}
            assert httpx.post(url, json={}, headers=other, trust_env=False).status_code == 403
            other = {"authorization": f"Bearer {token}", "host": "evil.example"}
            assert httpx.post(url, json={}, headers=other, trust_env=False).status_code == 421
            await _over_http(url, token)
        finally:
            running.terminate()
            running.wait(20)


async def _over_http(url: str, token: str) -> None:
    """Call a tool with the SDK's client, which takes its HTTP client from us."""
    from mcp.shared._httpx_utils import create_mcp_http_client

    async with (
        create_mcp_http_client(headers={"Authorization": f"Bearer {token}"}) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        await _ask(client)
