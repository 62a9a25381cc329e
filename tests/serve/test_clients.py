"""The endpoint on a real socket: OpenAI's client, litellm and llm; clients that leave; attacks (tox -e serve)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from llm_council import Council, CouncilConfig
from llm_council.errors import ServerFailed
from llm_council.models import Budget, Cost, CostSource, GenerateRequest, GenerateResponse
from llm_council.serve.access import Key
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.serve

uvicorn = pytest.importorskip("uvicorn", reason="the environment serve installs it")
openai = pytest.importorskip("openai", reason="the environment serve installs it")
httpx = pytest.importorskip("httpx")

from llm_council.serve.access import Access  # noqa: E402
from llm_council.serve.app import MOST_BYTES, make_app  # noqa: E402
from llm_council.serve.server import Serving, bind, hosts_of  # noqa: E402

TOKEN = "a-token-of-some-length"
SCRIPT = {"draft": "I think so.\nANSWER: 4", "critique": "A: fine", "synthesise": "The final answer is here."}
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2+2?"}]


@attrs.define
class Served:
    """A running server.

    Attributes:
        port: its port.
        seats: the seats by name.
        key: its key.
    """

    port: int
    seats: dict[str, ScriptedProvider]
    key: Key

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, **options: Any) -> Any:
        """Return OpenAI's client."""
        return openai.OpenAI(base_url=self.url, api_key=TOKEN, max_retries=0, timeout=30, **options)

    def post(self, content: bytes | str = b"", **headers: str) -> Any:
        """Post a body as a browser or a script would."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}", **named}
        return httpx.post(f"{self.url}/chat/completions", content=content, headers=sent, trust_env=False)


@contextmanager
def served(*, config: CouncilConfig | None = None, key: Key | None = None, **scripts: Any) -> Iterator[Served]:
    """Serve a council of scripted seats on a free port."""
    seats = {name: ScriptedProvider(**script) for name, script in scripts.items()} or {
        name: ScriptedProvider(SCRIPT, name=name) for name in ("ann", "bob", "cy")
    }
    council = Council(list(seats.values()), config=config or CouncilConfig())
    key = key or Key(name="owner", secret=TOKEN)
    listening = bind(Serving(port=0))
    port = listening.getsockname()[1]
    app = make_app(council, Access([key]), hosts_of(Serving(), port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Served(port, seats, key)
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


def wait_until(condition: Any) -> None:
    """Wait until a condition holds, for some seconds at most."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_openais_client_lists_asks_streams_and_parses() -> None:
    from pydantic import BaseModel

    class Sum(BaseModel):
        total: int

    with served() as server, server.client() as client:
        names = [model.id for model in client.models.list()]
        assert names[0] == "council"
        assert "council/poll" in names
        assert client.models.retrieve("council/poll").id == "council/poll"
        reply = client.chat.completions.create(model="council", messages=QUESTION, extra_body={"council": {}})
        assert reply.choices[0].message.content == "The final answer is here."
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
        assert reply.council["status"] == "completed"
        for seat in server.seats.values():
            assert all("Be brief." in "\n".join(turn.text for turn in one.turns()) for one in seat.asked("draft"))
        chunks = list(
            client.chat.completions.create(
                model="council/synthesize", messages=QUESTION, stream=True, stream_options={"include_usage": True}
            )
        )
        words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert len([word for word in words if word]) > 1
        assert "".join(words) == "The final answer is here."
        assert (chunks[-1].choices, chunks[-1].usage.total_tokens > 0) == ([], True)
        assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
        with client.chat.completions.stream(model="council/poll", messages=QUESTION) as stream:
            assert stream.get_final_completion().choices[0].message.content.startswith("I think so.")
    said = {**SCRIPT, "draft": '{"total": 4}', "*": '{"total": 4}'}
    with served(ann={"script": said, "name": "ann"}) as server, server.client() as client:
        parsed = client.chat.completions.parse(model="council/single", messages=QUESTION, response_format=Sum)
        assert parsed.choices[0].message.parsed == Sum(total=4)


def test_history_goes_to_the_seats() -> None:
    with served() as server, server.client() as client:
        turns = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Hello Ada."}]
        client.chat.completions.create(model="council", messages=[*turns, {"role": "user", "content": "My name?"}])
        (asked, *_) = server.seats["ann"].asked("draft")
        assert "My name is Ada." in asked.messages[-1].text
        assert "Hello Ada." in asked.messages[-1].text


@pytest.mark.anyio
async def test_openais_async_client() -> None:
    with served() as server:
        async with openai.AsyncOpenAI(base_url=server.url, api_key=TOKEN, max_retries=0) as client:
            reply = await client.chat.completions.create(model="council/single", messages=QUESTION)
            assert reply.choices[0].message.content.startswith("I think so.")
            stream = await client.chat.completions.create(model="council", messages=QUESTION, stream=True)
            words = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(words) == "The final answer is here."


def test_errors_have_openais_classes() -> None:
    with served() as server, server.client() as client:
        create = client.chat.completions.create
        with pytest.raises(openai.BadRequestError, match="calls no tools") as caught:
            create(model="council", messages=QUESTION, tools=[{"type": "function", "function": {"name": "x"}}])
        assert (caught.value.param, caught.value.code) == ("tools", "unsupported_parameter")
        with pytest.raises(openai.NotFoundError, match="there is no council"):
            create(model="gpt-4", messages=QUESTION)
        with pytest.raises(openai.BadRequestError, match="there is no subagent"):
            create(model="council", messages=QUESTION, extra_body={"council": {"subagent": "nobody"}})
        with pytest.raises(openai.BadRequestError, match="there is no subagent"):
            create(model="council", messages=QUESTION, stream=True, extra_body={"council": {"subagent": "nobody"}})
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()
        assert all(not seat.requests for seat in server.seats.values())
    down = {"script": {"*": ServerFailed("overloaded", status=529)}, "name": "ann"}
    with served(ann=down) as server, server.client() as client:
        with pytest.raises(openai.InternalServerError, match="overloaded"):
            client.chat.completions.create(model="council", messages=QUESTION)
        with pytest.raises(openai.APIError, match="overloaded"):
            list(client.chat.completions.create(model="council", messages=QUESTION, stream=True))


def test_no_character_of_an_answer_ends_a_line_of_a_stream() -> None:
    words = "one\u2028two\x85three\u2029four"
    body = {"model": "council/single", "messages": QUESTION, "stream": True}
    with served(ann={"script": {"draft": words}, "name": "ann"}) as server:
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.stream(
            "POST", f"{server.url}/chat/completions", json=body, headers=headers, trust_env=False
        ) as reply:
            # httpx ends lines at these characters, as other clients do.
            data = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert data.pop() == "[DONE]"
    told = [json.loads(one)["choices"][0]["delta"].get("content") or "" for one in data]
    assert "".join(told) == words


def test_a_bug_is_an_error_of_the_same_form_without_its_words() -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a secret")

    with served() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_council.serve.app.read_chat", fail)
        reply = server.post("{}")
    assert reply.status_code == 500
    assert reply.json()["error"]["type"] == "server_error"
    assert "secret" not in reply.text


def test_a_client_that_leaves_ends_its_calls() -> None:
    slow = {name: {"script": SCRIPT, "name": name, "delay": 60.0} for name in ("ann", "bob")}
    for stream in (False, True):
        with served(**slow) as server:
            body = json.dumps({"model": "council", "messages": QUESTION, "stream": stream})
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json"
                f"\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            )
            with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
                connection.sendall(head.encode())
                wait_until(lambda: all(seat.requests for seat in server.seats.values()))
            wait_until(lambda: all(seat.cancelled for seat in server.seats.values()))


class Billed(ScriptedProvider):
    """A seat whose answers cost a cent."""

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Answer, and report the cost."""
        response = await super().generate(request)
        return attrs.evolve(response, cost=Cost(usd=0.01, source=CostSource.REPORTED, complete=True))


def test_a_key_has_a_budget() -> None:
    key = Key(name="ann", secret=TOKEN, usd=0.02)
    config = CouncilConfig(budget=Budget(usd=0.01))
    council_seats = {"ann": {"script": SCRIPT, "name": "ann"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "ScriptedProvider", Billed)
        with served(config=config, key=key, **council_seats) as server, server.client() as client:
            ask = client.chat.completions.create
            ask(model="council/single", messages=QUESTION)
            ask(model="council/single", messages=QUESTION)
            assert key.spent == pytest.approx(0.02)
            with pytest.raises(openai.RateLimitError, match="it is spent") as caught:
                ask(model="council/single", messages=QUESTION)
            assert caught.value.code == "insufficient_quota"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"authorization": ""}, 401),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_what_a_page_of_another_site_can_send_is_refused(headers: dict[str, str], status: int) -> None:
    with served() as server:
        reply = server.post(json.dumps({"model": "council", "messages": QUESTION}), **headers)
        assert reply.status_code == status
        assert reply.json()["error"]["message"]
        assert "access-control-allow-origin" not in reply.headers
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert all(not seat.requests for seat in server.seats.values())


@pytest.mark.parametrize(
    ("content", "status"),
    [("{", 400), ("[" * 100_000, 400), ("[]", 400), (b"x" * (MOST_BYTES + 1), 413), (b"\xff\xfe", 400)],
)
def test_a_body_that_cannot_be_read_is_refused(content: Any, status: int) -> None:
    with served() as server:
        assert server.post(content).status_code == status


def test_unknown_addresses_are_errors_of_the_same_form_and_health_needs_no_key() -> None:
    with served() as server:
        base = f"http://127.0.0.1:{server.port}"
        assert httpx.get(f"{base}/health", trust_env=False).json() == {"status": "ok"}
        assert httpx.get(f"{base}/v1/models", trust_env=False).status_code == 401
        reply = httpx.get(f"{base}/v1/embeddings", trust_env=False)
        assert (reply.status_code, "is not served" in reply.json()["error"]["message"]) == (404, True)
        assert httpx.get(f"{base}/v1/chat/completions", trust_env=False).status_code == 405


def test_litellm_asks_and_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("LITELLM_TELEMETRY", "False")
    litellm = pytest.importorskip("litellm")
    with served() as server:
        named = {"model": "openai/council", "api_base": server.url, "api_key": TOKEN, "messages": QUESTION}
        reply = litellm.completion(**named)
        assert reply.choices[0].message.content == "The final answer is here."
        words = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**named, stream=True)]
        assert "".join(words) == "The final answer is here."


def test_llm_asks_and_fills_a_schema(tmp_path: Path) -> None:
    pytest.importorskip("llm")
    said = {**SCRIPT, "*": '{"total": 4}', "draft": '{"total": 4}'}
    with served(ann={"script": said, "name": "ann"}) as server:
        (tmp_path / "extra-openai-models.yaml").write_text(
            f"- model_id: council\n  model_name: council/single\n  api_base: {server.url}\n"
            "  api_key_name: council\n  supports_schema: true\n"
        )
        (tmp_path / "keys.json").write_text(json.dumps({"council": TOKEN}))
        environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}
        command = [sys.executable, "-m", "llm", "-m", "council", "--no-log"]
        for more in ([], ["--schema", "total int"]):
            done = subprocess.run(
                [*command, *more, "2+2?"], env=environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode, json.loads(done.stdout)) == (0, {"total": 4}), done.stderr
