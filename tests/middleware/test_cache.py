"""Cached: one call for equal requests, what is stored and for how long, and what a cached answer holds."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council.errors import CouncilError, InvalidOption, NotCached, ServerFailed, StoreError, TimedOut
from llm_council.middleware import Cached, MemoryStore, SQLiteStore
from llm_council.middleware.cache import Entry, is_whole, key_of
from llm_council.models import (
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    ImagePart,
    Message,
    StructuredOutput,
    TextPart,
    Tool,
    ToolCall,
    Usage,
    join,
)
from llm_council.providers.base import call, stream
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest(prompt="hello", model="m-1")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: Any, tmp_path: Path) -> Any:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "deep" / "cache.db")


async def collected(adapter: Any, request: GenerateRequest = REQUEST) -> list[GenerateChunk]:
    return [chunk async for chunk in stream(adapter, request)]


async def test_a_cached_answer_has_usage_and_cost_of_zero(store: Any, clock: Any) -> None:
    provider = ScriptedProvider(["first", "second"])
    cached = Cached(provider, store=store, clock=clock)
    first = await call(cached, REQUEST)
    clock.now += 5.0
    again = await call(cached, REQUEST)
    assert (first.text, again.text, len(provider.requests)) == ("first", "first", 1)
    assert again.usage == Usage(input_tokens=0, output_tokens=0)
    assert again.cost is not None
    assert (again.cost.usd, again.cost.complete) == (0.0, True)
    assert again.extra["cache"] == {"age": 5.0, "usage": {"input_tokens": 1, "output_tokens": 1}}
    assert again.finish_reason == FinishReason.STOP
    assert (again.model, again.raw) == ("m-1", None)
    await cached.aclose()


async def test_an_answer_expires_after_its_ttl(store: Any, clock: Any) -> None:
    provider = ScriptedProvider(["first", "second"])
    cached = Cached(provider, ttl=60.0, store=store, clock=clock)
    await call(cached, REQUEST)
    clock.now += 59.9
    assert (await call(cached, REQUEST)).text == "first"
    clock.now += 0.2
    assert (await call(cached, REQUEST)).text == "second"
    await cached.aclose()


async def test_a_cached_answer_has_all_fields_of_the_original(store: Any, turns: Any) -> None:
    whole = GenerateResponse(
        text="yes \ud83d\ude00 \0",
        reasoning="because",
        tool_calls=(ToolCall(id="c1", name="look", arguments='{"a": 1}'),),
        structured={"a": [1, {"b": None}]},
        finish_reason="tool_calls",
        model="m-1",
        request_id="r-1",
        extra={"logprobs": [0.1]},
        raw={"secret": 1},
    )
    cached = Cached(turns("a", whole), store=store)
    await call(cached, REQUEST)
    again = await call(cached, REQUEST)
    stored_answer = attrs.evolve(again, usage=None, cost=None, attempts=(), extra={"logprobs": [0.1]})
    assert stored_answer == attrs.evolve(whole, raw=None, text=again.text, content=again.text)
    again.structured["a"].append("spoilt")
    assert (await call(cached, REQUEST)).structured == {"a": [1, {"b": None}]}
    await cached.aclose()


async def test_ten_equal_concurrent_requests_make_one_call(store: Any) -> None:
    provider = ScriptedProvider(lambda request: "yes", delay=0.05)
    cached = Cached(provider, store=store)
    texts: list[str | None] = []

    async def ask() -> None:
        texts.append((await call(cached, REQUEST)).text)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(ask)
    assert texts == ["yes"] * 10
    assert len(provider.requests) == 1
    await cached.aclose()


def test_equal_requests_of_ten_threads_make_one_call() -> None:
    counted: list[str] = []
    go_on = threading.Event()

    class Vendor(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            counted.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            go_on.wait(30)
            reply = {"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Vendor)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    provider = OpenAICompatibleProvider(base_url=f"http://127.0.0.1:{server.server_port}", default_model="m")
    cached = Cached(provider)
    texts: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: texts.append(cached.generate_sync(GenerateRequest(prompt="x")).text))
        for _ in range(9)
    ]

    async def in_a_loop_of_its_own() -> None:
        texts.append((await call(cached, GenerateRequest(prompt="x"))).text)
        await cached.aclose()

    threads.append(threading.Thread(target=lambda: anyio.run(in_a_loop_of_its_own)))
    try:
        for thread in threads:
            thread.start()
        until = waiting_at_most(30)
        while sum(len(shared._waiting) for shared in list(cached._shared_calls.values())) < 9:
            until()
        go_on.set()
        for thread in threads:
            thread.join(30)
        assert len(texts) == 10
        assert len(counted) == 1
    finally:
        go_on.set()
        cached.close()
        server.shutdown()
        serving.join(30)
        server.server_close()


def waiting_at_most(seconds: float) -> Any:
    """Return a function that sleeps a moment, and fails after so many seconds."""
    import time

    end = time.monotonic() + seconds

    def tick() -> None:
        assert time.monotonic() < end
        time.sleep(0.005)

    return tick


async def test_cancelling_the_request_that_makes_the_call_leaves_the_others_alone(store: Any) -> None:
    async def say(_: GenerateRequest) -> str:
        if len(provider.requests) == 1:
            await anyio.sleep_forever()
        return "yes"

    provider = ScriptedProvider(say)
    cached = Cached(provider, store=store)
    texts: list[str | None] = []
    pilot = anyio.CancelScope()

    async def first() -> None:
        with pilot:
            await call(cached, REQUEST)

    async def ask() -> None:
        texts.append((await call(cached, REQUEST)).text)

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        while not provider.requests:
            await anyio.sleep(0)
        for _ in range(5):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        pilot.cancel()
    assert texts == ["yes"] * 5
    assert (len(provider.requests), provider.cancelled) == (2, 1)
    assert cached._shared_calls == {}
    await cached.aclose()


async def test_a_failure_is_shared_with_concurrent_requests_but_not_stored(store: Any) -> None:
    provider = ScriptedProvider([ServerFailed("down"), "well"], delay=0.05)
    cached = Cached(provider, store=store)
    errors: list[CouncilError] = []

    async def ask() -> None:
        try:
            await call(cached, REQUEST)
        except CouncilError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
    assert [type(error) for error in errors] == [ServerFailed] * 3
    assert len({id(error) for error in errors}) == 3, "each has an error of its own"
    assert (await call(cached, REQUEST)).text == "well"
    await cached.aclose()


async def test_the_timeout_of_one_request_does_not_end_the_others() -> None:
    provider = ScriptedProvider(lambda request: "yes", delay=0.1)
    cached = Cached(provider)
    texts: list[str | None] = []

    async def ask() -> None:
        texts.append((await call(cached, REQUEST)).text)

    async def hurried() -> None:
        with pytest.raises(TimedOut):
            await call(cached, GenerateRequest(prompt="hello", model="m-1", timeout_seconds=0.02))

    async with anyio.create_task_group() as group:
        group.start_soon(hurried)
        while not provider.requests:
            await anyio.sleep(0)
        group.start_soon(ask)
    assert texts == ["yes"]


@pytest.mark.parametrize(
    ("facts", "kept"),
    [
        ({"finish_reason": "stop"}, True),
        ({"finish_reason": "tool_calls"}, True),
        ({}, True),
        ({"finish_reason": "length"}, False),
        ({"finish_reason": "content_filter"}, False),
        ({"finish_reason": "error"}, False),
        ({"finish_reason": "never heard of"}, False),
        ({"finish_reason": "stop", "refusal": "no"}, False),
    ],
)
def test_only_whole_answers_count_as_whole(facts: Any, kept: bool) -> None:
    assert is_whole(GenerateResponse(text="x", **facts)) is kept


async def test_a_cut_answer_is_not_stored(store: Any, turns: Any) -> None:
    a = turns("a", GenerateResponse(text="half", finish_reason="length"), GenerateResponse(text="all"))
    cached = Cached(a, store=store)
    assert [(await call(cached, REQUEST)).text for _ in range(3)] == ["half", "all", "all"]
    await cached.aclose()


async def test_a_cached_stream_returns_the_same_pieces(store: Any, turns: Any) -> None:
    a = turns("a", [GenerateChunk(reasoning="hm"), "one ", "two ", GenerateChunk(usage=Usage(output_tokens=9))])
    cached = Cached(a, store=store)
    first, again = await collected(cached), await collected(cached)
    assert len(a.asked) == 1
    assert [chunk.text for chunk in again if chunk.text] == ["one ", "two "]
    whole = join(again)
    assert (whole.text, whole.reasoning, whole.finish_reason) == ("one two ", "hm", FinishReason.STOP)
    assert (join(first).usage, whole.usage) == (Usage(output_tokens=9), Usage(input_tokens=0, output_tokens=0))
    assert (await call(cached, REQUEST)).text == "one two ", "whole answers come from streams"
    await cached.aclose()


async def test_a_stream_can_return_an_answer_that_was_not_streamed(turns: Any) -> None:
    a = turns("a", "whole")
    cached = Cached(a)
    await call(cached, REQUEST)
    assert [chunk.text for chunk in await collected(cached)] == ["whole"]
    assert len(a.asked) == 1


async def test_a_stream_that_was_closed_early_or_failed_is_not_stored(turns: Any) -> None:
    a = turns("a", ["one ", "two "], ["one ", ServerFailed("down")], ["uno ", "due "])
    cached = Cached(a)
    chunks = stream(cached, REQUEST)
    async for chunk in chunks:
        if chunk.text:
            break
    await chunks.aclose()
    with pytest.raises(ServerFailed):
        await collected(cached)
    assert join(await collected(cached)).text == "uno due "
    assert join(await collected(cached)).text == "uno due "
    assert len(a.asked) == 3


async def test_equal_concurrent_streams_make_one_call(turns: Any) -> None:
    provider = ScriptedProvider("one two three", delay=0.05)
    cached = Cached(provider)
    texts: list[str | None] = []

    async def ask() -> None:
        texts.append(join(await collected(cached)).text)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(ask)
    assert texts == ["one two three"] * 4
    assert len(provider.requests) == 1


async def test_each_cache_mode_reads_and_writes_as_documented(store: Any) -> None:
    provider = ScriptedProvider(["1", "2", "3", "4", "5"])
    cached = Cached(provider, store=store)

    async def ask(mode: str | None) -> str | None:
        return (await call(cached, attrs.evolve(REQUEST, cache=mode))).text

    with pytest.raises(NotCached, match="is cached"):
        await ask("only")
    assert not provider.requests
    assert await ask("read") == "1"
    assert await ask("off") == "2"
    with pytest.raises(NotCached):
        await ask("only")
    assert await ask(None) == "3"
    assert await ask(None) == await ask("read") == await ask("only") == "3"
    assert await ask("off") == "4"
    assert await ask("write") == "5"
    assert await ask("only") == "5"
    with pytest.raises(InvalidOption, match="one of off, read, write, only"):
        await ask("never")
    default = Cached(provider, store=store, mode="only")
    assert (await call(default, REQUEST)).text == "5"
    await cached.aclose()


VARIANTS: list[dict[str, Any]] = [
    {"model": "m-2"},
    {"prompt": "hello "},
    {"messages": [{"role": "user", "content": "hello"}], "prompt": None},
    {"max_tokens": 1},
    {"temperature": 0.0},
    {"temperature": 1},
    {"top_p": 0.5},
    {"stop": ["x"]},
    {"tools": [Tool(name="look")]},
    {"tool_choice": "none"},
    {"structured_output": StructuredOutput(json_schema={"type": "object"})},
    {"structured_output": StructuredOutput(json_schema={"type": "array"})},
    {"extra": {"seed": 1}},
    {"messages": [Message("user", [TextPart(text="a", cache=True)])]},
    {"messages": [Message("user", [ImagePart(url="https://a.example/b.png")])]},
]


def test_requests_that_differ_in_content_have_different_keys() -> None:
    keys = [key_of(attrs.evolve(REQUEST, **variant), "id") for variant in [{}, *VARIANTS]]
    assert len(set(keys)) == len(keys)
    assert None not in keys
    assert key_of(REQUEST, "other") not in keys


@pytest.mark.parametrize(
    "same",
    [
        {"timeout_seconds": 3.0},
        {"idempotency_key": "k"},
        {"metadata": {"phase": "draft"}},
        {"stream": True},
        {"cache": "read"},
    ],
)
def test_timeout_metadata_and_idempotency_key_do_not_change_the_key(same: Any) -> None:
    assert key_of(attrs.evolve(REQUEST, **same), "id") == key_of(REQUEST, "id")


@examples(20)
@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=5))
def test_the_order_of_a_mapping_does_not_change_the_key(extra: dict[str, Any]) -> None:
    turned = dict(reversed(extra.items()))
    one, two = (key_of(GenerateRequest(prompt="x", extra=each), "id") for each in (extra, turned))
    assert one == two


async def test_a_request_that_json_cannot_represent_is_not_cached() -> None:
    provider = ScriptedProvider(["1", "2"])
    cached = Cached(provider)
    request = GenerateRequest(prompt="x", extra={"x": object()})
    assert [(await call(cached, request)).text for _ in range(2)] == ["1", "2"]
    with pytest.raises(NotCached, match="JSON"):
        await call(cached, attrs.evolve(request, cache="only"))
    assert key_of(GenerateRequest(prompt="x", extra={"x": {1: 2}}), "id") is None
    assert key_of(GenerateRequest(prompt="x", extra={"x": float("nan")}), "id") is None


async def test_accounts_do_not_share_answers_and_no_api_key_is_stored(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "cache.db")
    one, two = (
        Cached(
            OpenAICompatibleProvider(base_url="https://llm.example.com", api_key=key, default_model="m"), store=store
        )
        for key in ("canary-key-1", "canary-key-2")
    )
    assert one._identity != two._identity
    key = key_of(REQUEST, one._identity)
    assert key is not None
    await store.put(key, Entry(response=GenerateResponse(text="x")), 0.0)
    await store.aclose()
    for file in tmp_path.iterdir():
        assert b"canary" not in file.read_bytes()


async def test_the_memory_store_deletes_the_least_recently_used_first() -> None:
    store = MemoryStore(size=12_000)
    for index in range(10):
        await store.put(str(index), Entry(response=GenerateResponse(text="x" * 800)), 0.0)
        assert await store.get("0", 0.0) is not None, "it is used all the time"
    assert 2 <= len(store) < 10
    assert await store.get("9", 0.0) is not None
    assert await store.get("1", 0.0) is None
    await store.put("huge", Entry(response=GenerateResponse(text="x" * 20_000)), 0.0)
    assert await store.get("huge", 0.0) is None
    assert await store.get("0", 0.0) is not None


class TestTheFile:
    async def test_the_file_is_readable_by_its_owner_alone(self, tmp_path: Path) -> None:
        store = SQLiteStore(tmp_path / "deep" / "cache.db")
        await store.put("k", Entry(response=GenerateResponse(text="x")), 0.0)
        for path in (tmp_path / "deep").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        await store.aclose()

    async def test_the_oldest_and_expired_answers_are_deleted(self, tmp_path: Path) -> None:
        store = SQLiteStore(tmp_path / "cache.db", size=2000)
        for index in range(10):
            entry = Entry(
                response=GenerateResponse(text="x" * 500), at=float(index), expires=5.5 if index == 9 else None
            )
            await store.put(str(index), entry, 0.0)
        there = [index for index in range(10) if await store.get(str(index), 0.0) is not None]
        assert there == [7, 8, 9]
        await store.put("new", Entry(response=GenerateResponse(text="x"), at=10.0), 6.0)
        await store.aclose()
        with sqlite3.connect(tmp_path / "cache.db") as connection:
            rows = connection.execute("SELECT key FROM entries ORDER BY at").fetchall()
            total = connection.execute("SELECT (SELECT size FROM total), (SELECT sum(size) FROM entries)").fetchone()
        connection.close()
        assert rows == [("7",), ("8",), ("new",)]
        assert total[0] == total[1]

    async def test_another_process_finds_the_answer(self, tmp_path: Path, python: Any) -> None:
        store = SQLiteStore(tmp_path / "cache.db")
        await call(Cached(ScriptedProvider("from here"), store=store), REQUEST)
        done = await anyio.to_thread.run_sync(
            lambda: python(
                """
                import sys
                from llm_council.middleware import Cached
                from llm_council.models import GenerateRequest
                from llm_council.testing.fakes import ScriptedProvider
                with Cached(ScriptedProvider("from there"), store=sys.argv[1]) as cached:
                    print(cached.generate_sync(GenerateRequest(prompt="hello", model="m-1")).text)
                """,
                str(tmp_path / "cache.db"),
            )
        )
        assert (done.stdout, done.stderr) == ("from here\n", "")
        await store.aclose()

    async def test_many_tasks_and_stores_use_one_file_at_once(self, tmp_path: Path) -> None:
        stores = [SQLiteStore(tmp_path / "cache.db", timeout=30.0) for _ in range(3)]

        async def work(store: SQLiteStore, index: int) -> None:
            await store.put(str(index), Entry(response=GenerateResponse(text=str(index))), 0.0)
            found = await store.get(str(index), 0.0)
            assert found is not None
            assert found.response.text == str(index)

        async with anyio.create_task_group() as group:
            for index in range(30):
                group.start_soon(work, stores[index % 3], index)
        for store in stores:
            await store.aclose()

    @pytest.mark.parametrize("trouble", ["damaged", "foreign", "newer", "denied"])
    async def test_a_store_that_fails_makes_no_call_fail(
        self, trouble: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "cache.db"
        if trouble == "damaged":
            path.write_bytes(b"not a database at all, but long enough to be read as one" * 40)
        elif trouble == "denied":
            path.mkdir()
        else:
            connection = sqlite3.connect(path)
            connection.execute("PRAGMA user_version = 7" if trouble == "newer" else "CREATE TABLE entries (x)")
            connection.commit()
            connection.close()
        provider = ScriptedProvider(["1", "2"])
        cached = Cached(provider, store=path)
        assert [(await call(cached, REQUEST)).text for _ in range(2)] == ["1", "2"]
        assert "cannot be cached" in caplog.text
        with pytest.raises(StoreError, match=r"cache\.db"):
            await cached.store.get("k", 0.0)
        await cached.aclose()

    async def test_an_entry_that_cannot_be_decoded_counts_as_missing(self, tmp_path: Path) -> None:
        store = SQLiteStore(tmp_path / "cache.db")
        await store.put("k", Entry(response=GenerateResponse(text="x")), 0.0)
        await store.aclose()
        connection = sqlite3.connect(tmp_path / "cache.db")
        connection.execute("UPDATE entries SET body = '[{\"text\": 5}, []]'")
        connection.commit()
        connection.close()
        assert await store.get("k", 0.0) is None
        await store.aclose()

    def test_a_forked_child_opens_a_connection_of_its_own(self, tmp_path: Path) -> None:
        store = SQLiteStore(tmp_path / "cache.db")
        store._put("k", Entry(response=GenerateResponse(text="x")), 0.0)
        assert store._open is not None
        connection = store._open[1]
        store._open = os.getpid() + 1, connection  # as a child of a fork finds it
        assert store._get("k", 0.0) is not None
        assert store._open[1] is not connection
        connection.close()
        store._close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ttl": 0}, "ttl"),
        ({"ttl": float("inf")}, "ttl"),
        ({"size": 0}, "size"),
        ({"size": 10, "store": MemoryStore()}, "give it to the store"),
        ({"mode": "always"}, "one of off, read, write, only"),
    ],
)
def test_invalid_arguments_are_refused(options: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Cached(ScriptedProvider("x"), **options)
