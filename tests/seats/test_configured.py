"""``[providers.NAME]``: compositions by name, and what is said of tables that will not do."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llm_council import Council, CouncilConfig
from llm_council._seats.configured import MIDDLEWARE, REDIS_URL, ConfiguredProviders
from llm_council.cli import main
from llm_council.errors import (
    ConfigurationError,
    InvalidOption,
    MissingCredentials,
    ServerFailed,
    UnknownOption,
    UnknownProvider,
)
from llm_council.middleware import Balance, Cached, Failover, Hedge, Limit, Logged, Pinned, Retry, SQLiteStore
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider

ANSWER = '{"answer": "391", "reasoning": "17 * 20 + 17 * 3"}'


@pytest.fixture
def fakes() -> Iterator[dict[str, ScriptedProvider]]:
    made = {name: ScriptedProvider('{"answer": "yes"}', name=name) for name in ("ann", "ben", "cat")}
    with registry.overriding(made):
        yield made


def tables(text: str, tmp_path: Path) -> Any:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return CouncilConfig.from_file(path).instances


def test_every_middleware_kind_wraps_the_named_providers(fakes: Any, tmp_path: Path) -> None:
    text = f"""
    [providers.fast]
    kind = "failover"
    of = ["ann", "ben/large"]
    mid_stream = "restart"
    patience = 20
    failures = 3

    [providers.spread]
    kind = "balance"
    of = ["ann", "fast"]
    strategy = "weighted"
    weights = [3, 1]

    [providers.twice]
    kind = "hedge"
    of = "ann"
    after = "p90"
    backup = "ben"

    [providers.again]
    kind = "retry"
    of = "ann"
    max_retries = 5

    [providers.slow]
    kind = "limit"
    of = "spread"
    rate = "60/minute"
    tokens = "90k/minute"
    concurrency = 8

    [providers.kept]
    kind = "cached"
    of = "slow"
    ttl = 60
    store = "{tmp_path}/cache.db"
    size = 1000000

    [providers.seen]
    kind = "logged"
    of = "kept"
    content = true
    """
    made = ConfiguredProviders(tables(text, tmp_path))
    seen = made.get("seen")
    assert isinstance(seen, Logged)
    assert isinstance(seen.inner, Cached)
    assert isinstance(seen.inner.store, SQLiteStore)
    assert isinstance(seen.inner.inner, Limit)
    spread = seen.inner.inner.inner
    assert isinstance(spread, Balance)
    assert [member.weight for member in spread._members] == [3, 1]
    fast = made.get("fast")
    assert spread.providers == (fakes["ann"], fast), "each is made once"
    assert isinstance(fast, Failover)
    assert isinstance(fast.providers[1], Pinned)
    assert (fast.name, fast.providers[1].name) == ("fast", "ben/large")
    again, twice = made.get("again"), made.get("twice")
    assert isinstance(again, Retry)
    assert again.policy.max_retries == 5
    assert isinstance(twice, Hedge)
    assert twice.backup is fakes["ben"]
    assert [seen.name, again.name] == ["seen", "again"]


def test_a_configured_middleware_can_be_a_seat(fakes: Any) -> None:
    instances = {
        "fast": {"kind": "failover", "of": ["broken", "ben/large"]},
        "broken": {"kind": "logged", "of": "ann"},
        "own": {"kind": "retry", "of": "fast", "max_retries": 1},
    }
    fakes["ann"]._script = lambda request: ServerFailed("down")
    config = CouncilConfig(instances=instances)
    council = Council(["fast:2", "own", "cat"], config=config)
    assert council.providers == ("fast-1", "fast-2", "own", "cat")
    assert isinstance(council._seating.providers["fast"], Retry), "a call is made again, as with any provider"
    assert type(council._seating.providers["own"].inner) is Failover, "one that holds a Retry gets no second one"  # type: ignore[attr-defined]
    result = council.run("hello", schema={"type": "object", "properties": {"answer": {"type": "string"}}})
    assert result.success, result.error
    assert {request.model for request in fakes["ben"].requests} == {"large"}
    assert [seat.provider for seat in result.seats] == ["fast", "fast", "own", "cat"]
    assert council.doctor()["fast"].ok
    council.close()


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({"kind": "failover"}, InvalidOption, r'\[providers.x\] kind \'failover\' needs of = \["NAME", "NAME"\]'),
        ({"kind": "failover", "of": []}, InvalidOption, "needs of"),
        ({"kind": "failover", "of": [1]}, InvalidOption, "needs of"),
        ({"kind": "cached", "of": ["ann", "ben"]}, InvalidOption, "wraps one provider: name a failover"),
        ({"kind": "failovr", "of": ["ann"]}, InvalidOption, "did you mean 'failover'"),
        ({"kind": "opneai"}, UnknownProvider, r"\[providers.x\] no provider is named 'opneai'; did you mean 'openai'"),
        ({"kind": "cache"}, UnknownProvider, "did you mean 'cached'"),
        ({"kind": "failover", "of": ["anne"]}, UnknownProvider, "did you mean 'ann'"),
        ({"kind": "failover", "of": ["yy"]}, UnknownProvider, "did you mean 'y'"),
        (
            {"kind": "failover", "of": ["ann"], "patienc": 1},
            UnknownOption,
            "takes no 'patienc'; did you mean 'patience'",
        ),
        ({"kind": "logged", "of": "ann", "clock": 1}, UnknownOption, "takes no 'clock'; it takes logger, content"),
        ({"kind": "retry", "of": "ann", "retries": 1}, UnknownOption, "did you mean 'max_retries'"),
        ({"kind": "limit", "of": "ann", "rate": "fast"}, InvalidOption, r"\[providers.x\] rate: a rate such as"),
        (
            {"kind": "failover", "of": ["ann"], "failures": "many"},
            InvalidOption,
            r"\[providers.x\] failures: expected a whole number",
        ),
        ({"kind": "hedge", "of": "ann", "backup": 3}, InvalidOption, "name of a provider"),
        ({"kind": "limit", "of": "ann", "rate": "1/s", "shared": True}, MissingCredentials, REDIS_URL),
        (
            {"kind": "openai", "api_key": "${NO_SUCH_VARIABLE}"},
            MissingCredentials,
            r"\[providers.x\].*NO_SUCH_VARIABLE",
        ),
    ],
)
def test_an_invalid_table_is_refused_with_the_remedy(
    table: Any, error: type[ConfigurationError], message: str, fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REDIS_URL, raising=False)
    with pytest.raises(error, match=message):
        ConfiguredProviders({"x": table, "y": {"kind": "logged", "of": "ann"}}).get("x")


@pytest.mark.parametrize("first", ["a", "b", "c"])
def test_a_circle_of_tables_is_refused_and_shown(first: str, fakes: Any) -> None:
    ring = {
        "a": {"kind": "failover", "of": ["ann", "b"]},
        "b": {"kind": "hedge", "of": "ann", "backup": "c"},
        "c": {"kind": "retry", "of": "a/model"},
        "same": {"kind": "retry", "of": "same"},
    }
    with pytest.raises(InvalidOption, match=r"holds itself: . -> . -> . -> .; give one of these tables another name"):
        ConfiguredProviders(ring).get(first)
    with pytest.raises(InvalidOption, match="same -> same"):
        ConfiguredProviders(ring).get("same")


def test_middleware_kinds_do_not_collide_with_provider_names() -> None:
    names = {info.name for info in registry.list_providers()}
    assert not names & set(MIDDLEWARE)
    from llm_council import middleware

    assert all(issubclass(getattr(middleware, name), registry.ProviderAdapter) for name in MIDDLEWARE.values())


def test_a_password_in_a_redis_url_is_masked(fakes: Any, tmp_path: Path) -> None:
    pytest.importorskip("limits")
    text = """
    [providers.slow]
    kind = "limit"
    of = "ann"
    rate = "1/s"
    shared = "redis://me:canary@127.0.0.1:1/0"
    """
    found = tables(text, tmp_path)
    assert "canary" not in repr(found)
    assert "canary" not in repr(ConfiguredProviders(found).get("slow"))


class Gateway(ThreadingHTTPServer):
    """A house's own gateway."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.seen: list[dict[str, str]] = []


class _Answer(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(
            {**{name.lower(): value for name, value in self.headers.items()}, "model": asked["model"]}
        )
        choice = {
            "message": {"role": "assistant", "content": ANSWER},
            "finish_reason": "stop",
        }
        choice["delta"] = choice["message"]
        body = json.dumps({"model": asked["model"], "choices": [choice]}).encode()
        kind = "application/json"
        if asked.get("stream"):
            kind, body = "text/event-stream", b"data: " + body + b"\n\ndata: [DONE]\n\n"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield server
    server.shutdown()
    serving.join(30)
    server.server_close()


def test_the_command_line_uses_a_configured_gateway_and_middleware(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    path = tmp_path / "config.toml"
    path.write_text(
        f"""
        [providers.house]
        kind = "openai-compatible"
        base_url = "http://127.0.0.1:{gateway.server_port}/v1"
        api_key = "${{HOUSE_KEY}}"
        default_model = "house-70b"
        headers = {{ X-Team = "research" }}

        [providers.nobody]
        kind = "openai-compatible"
        base_url = "http://127.0.0.1:1/v1"
        default_model = "none"

        [providers.fast]
        kind = "failover"
        of = ["nobody", "house"]
        """,
        encoding="utf-8",
    )
    monkeypatch.setenv("LLM_COUNCIL_CONFIG", str(path))
    monkeypatch.setenv("HOUSE_KEY", "canary-key")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["council", "run", "-p", "fast", "--json", "What is 17 * 23?"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["status"] == "completed"
    assert [seat["provider"] for seat in result["seats"]] == ["fast"]
    assert {seen["authorization"] for seen in gateway.seen} == {"Bearer canary-key"}
    assert {(seen["x-team"], seen["model"]) for seen in gateway.seen} == {("research", "house-70b")}
    assert "canary" not in printed.out + printed.err
