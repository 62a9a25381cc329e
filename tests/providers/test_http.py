"""Every provider with an address: its key goes only there and shows nowhere, its waits and sizes are bounded."""

import contextlib
import copy
import json
import logging
import pickle
import threading
import time
import traceback

import anyio
import attrs
import httpx
import pytest
import requests
import responses

from llm_council.errors import (
    AuthenticationFailed,
    ConnectFailed,
    ContentFiltered,
    CouncilError,
    EmptyReply,
    InvalidKey,
    InvalidOption,
    MalformedReply,
    MissingCredentials,
    ModelNotFound,
    OutOfCredit,
    RateLimited,
    RedirectRefused,
    ReplyTooLarge,
    ServerFailed,
    TimedOut,
    TruncatedReply,
)
from llm_council.errors._secrets import Secret
from llm_council.models import Limits, Timeouts, join
from llm_council.providers.base import GenerateRequest, call, examine, stream
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.providers.registry import get_provider
from llm_council.transports import HttpxTransport, RequestsTransport

CANARY = "sk-canary-0123456789abcdef"
ASK = GenerateRequest(prompt="What is 6 times 7?", model="m")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LLM_COUNCIL_ALLOW_HTTP", "GATEWAY_KEY", "GATEWAY_URL"):
        monkeypatch.delenv(variable, raising=False)


class Gateway(OpenAICompatibleProvider):
    name = "gateway"
    BASE_URL = "https://llm.example.com/v1"
    BASE_URL_ENV = "GATEWAY_URL"
    API_KEY_ENV = "GATEWAY_KEY"
    DEFAULT_MODEL = "house-70b"


def at(vendor, **options):
    return OpenAICompatibleProvider(base_url=vendor.url, **{"api_key": CANARY, **options})


async def gathered(provider, request=ASK, **options):
    return [chunk async for chunk in stream(provider, request, **options)]


# Where it is reached.


@pytest.mark.parametrize(
    "url",
    [
        "https://llm.example.com/v1",
        "https://10.0.0.7/v1/",
        "http://localhost:8000/v1",
        "http://box.localhost/v1",
        "http://127.0.0.2:1",
        "http://[::1]:9/v1",
        " https://llm.example.com ",
    ],
)
def test_addresses_that_are_taken(url):
    assert OpenAICompatibleProvider(base_url=url).base_url == url.strip().rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://llm.example.com/v1",
        "http://169.254.169.254/latest",
        "http://0x7f.1/v1",
        "http://[::ffff:10.0.0.1]/v1",
        "http://localhost.example.com/v1",
        "https://user:hunter2@llm.example.com/v1",
        "https://llm.example.com/v1?key=x",
        "https://llm.example.com/v1#x",
        "ftp://llm.example.com",
        "file:///etc/passwd",
        "llm.example.com/v1",
        "https://",
        "https://[::1/v1",
    ],
)
def test_addresses_that_are_refused(url):
    with pytest.raises(InvalidOption, match="base_url") as caught:
        OpenAICompatibleProvider(base_url=url)
    assert "hunter2" not in caught.value.message


def test_plain_http_is_taken_only_where_code_or_environment_says_so(monkeypatch):
    plain = "http://llm.example.com/v1"
    assert OpenAICompatibleProvider(base_url=plain, allow_http=True).base_url == plain
    monkeypatch.setenv("LLM_COUNCIL_ALLOW_HTTP", "1")
    assert OpenAICompatibleProvider(base_url=plain).base_url == plain


def test_the_address_comes_from_argument_environment_class(monkeypatch):
    assert Gateway().base_url == "https://llm.example.com/v1"
    monkeypatch.setenv("GATEWAY_URL", "https://elsewhere.example.com")
    assert Gateway().base_url == "https://elsewhere.example.com"
    assert Gateway(base_url="https://here.example.com").base_url == "https://here.example.com"


@pytest.mark.anyio
async def test_no_address_no_call():
    with pytest.raises(InvalidOption, match="openai-compatible has no address: pass base_url"):
        await call(OpenAICompatibleProvider(), ASK)


# Its key.


def test_the_key_is_read_when_it_is_made(monkeypatch, vendor):
    monkeypatch.setenv("GATEWAY_KEY", f" {CANARY}\n")
    provider = Gateway(base_url=vendor.url)
    monkeypatch.setenv("GATEWAY_KEY", "another")
    with provider:
        provider.generate_sync(ASK)
    assert vendor.headers["Authorization"] == f"Bearer {CANARY}"


@pytest.mark.anyio
async def test_a_missing_key_is_told_by_its_variable_before_anything_is_sent(vendor):
    provider = Gateway(base_url=vendor.url)
    for attempt in (call, gathered):
        with pytest.raises(MissingCredentials, match="gateway needs a key: set GATEWAY_KEY") as caught:
            await attempt(provider, ASK)
        assert caught.value.provider == "gateway"
    result = await examine(provider)
    assert (result.ok, "GATEWAY_KEY" in result.message) == (False, True)
    with pytest.raises(MissingCredentials):
        provider.check()
    assert vendor.seen == []


@pytest.mark.anyio
@pytest.mark.parametrize("bad", ["two words", "line\nbreak", "schlüssel", "nul\0"])
async def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(monkeypatch, vendor, bad):
    with pytest.raises(InvalidKey) as caught:
        Gateway(api_key=bad)
    assert bad not in caught.value.message
    if "\0" not in bad:
        monkeypatch.setenv("GATEWAY_KEY", bad)
        provider = Gateway(base_url=vendor.url)  # a wrong variable spoils no other provider
        with pytest.raises(InvalidKey, match="GATEWAY_KEY") as caught:
            await call(provider, ASK)
        assert bad not in caught.value.message
        assert vendor.seen == []


def test_a_key_may_name_its_variable(monkeypatch, vendor):
    monkeypatch.setenv("HOUSE_KEY", CANARY)
    with at(vendor, api_key="${HOUSE_KEY}") as provider:
        provider.generate_sync(ASK)
    assert vendor.headers["Authorization"] == f"Bearer {CANARY}"
    with pytest.raises(MissingCredentials, match="NO_SUCH_KEY"):
        OpenAICompatibleProvider(api_key="${NO_SUCH_KEY}")


def test_an_environment_key_of_another_provider_is_not_taken(monkeypatch, vendor):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with OpenAICompatibleProvider(base_url=vendor.url) as provider:
        provider.generate_sync(ASK)
    assert vendor.headers["Authorization"] is None


def test_headers_of_the_callers_own(vendor):
    headers = {"X-Team": "red", "api-key": CANARY, "Authorization": f"Token {CANARY}"}
    with Gateway(base_url=vendor.url, headers=headers) as provider:  # signed without a key
        provider.generate_sync(ASK)
        assert vendor.headers["X-Team"] == "red"
        assert vendor.headers["api-key"] == CANARY
        assert vendor.headers["Authorization"] == f"Token {CANARY}"
        assert CANARY.encode() not in pickle.dumps(provider)
    with pytest.raises(InvalidKey):
        Gateway(headers={"x-api-key": "line\nbreak"})
    with pytest.raises(InvalidOption):
        Gateway(headers={"X-Team": 7})


@pytest.mark.anyio
async def test_keys_and_prompts_follow_no_redirect(vendor):
    elsewhere = []

    def script(exchange):
        if exchange.path.startswith("/v1"):
            exchange.say(b"", status=307, Location="/other")
        else:
            elsewhere.append(exchange)

    vendor.script = script
    async with at(vendor) as provider:
        for attempt in (call, gathered):
            with pytest.raises(RedirectRefused):
                await attempt(provider, ASK)
    assert elsewhere == []


def shown(error):
    """Everything that a reader of a failure may see: the text, and the locals of every frame."""
    seen = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return f"{seen} {error!r} {error.__dict__} {error.attempts}"


@pytest.mark.anyio
async def test_the_key_shows_nowhere(vendor, caplog, capsys):
    def script(exchange):
        key = exchange.headers["Authorization"]
        exchange.say({"error": {"message": f"bad key {key}", "code": "invalid_api_key"}}, 401, X_Echo=key)

    vendor.script = script
    provider = at(vendor, headers={"X-Api-Key": CANARY})
    caplog.set_level(logging.DEBUG)
    async with provider:
        for attempt in (call, gathered):
            with pytest.raises(AuthenticationFailed) as caught:
                await attempt(provider, ASK)
            assert "***" in caught.value.message
            assert CANARY not in shown(caught.value)
            assert CANARY not in caught.value.body
            assert CANARY.encode() not in pickle.dumps(caught.value)
        result = await examine(provider)
    for text in (repr(provider), str(vars(provider)), result.message, provider.cache_identity(), caplog.text):
        assert CANARY not in text
    assert CANARY not in "".join(capsys.readouterr())
    assert CANARY.encode() not in pickle.dumps(provider)


@pytest.mark.anyio
async def test_the_key_shows_nowhere_when_the_network_fails():
    provider = OpenAICompatibleProvider(base_url="http://127.0.0.1:1/v1", api_key=CANARY, transport=None)
    async with provider:
        for attempt in (call, gathered):
            with pytest.raises(ConnectFailed) as caught:
                await attempt(provider, ASK)
            assert caught.value.retryable
            assert CANARY not in shown(caught.value)


def test_copies_work_and_a_pickle_reads_the_variable_again(monkeypatch, vendor):
    monkeypatch.setenv("GATEWAY_KEY", CANARY)
    provider = Gateway(base_url=vendor.url, name="mine", default_model="m", extra_body={"a": 1})
    for copied in (copy.deepcopy(provider), pickle.loads(pickle.dumps(provider))):
        with copied:
            assert copied.name == "mine"
            assert copied.generate_sync(GenerateRequest(prompt="x")).text == "42"
        assert (vendor.headers["Authorization"], vendor.body["a"]) == (f"Bearer {CANARY}", 1)
    given = pickle.loads(pickle.dumps(at(vendor, api_key=Secret(CANARY))))
    with given:
        given.generate_sync(ASK)  # a key that was only given is not carried over; this server needs none
    assert vendor.headers["Authorization"] is None


def test_identities_differ_by_account_and_address():
    here = Gateway(api_key=CANARY).cache_identity()
    assert here == Gateway(api_key=CANARY).cache_identity()
    others = [
        Gateway(api_key=CANARY + "x"),
        Gateway(api_key=CANARY, base_url="https://b.example"),
        Gateway(api_key=CANARY, default_model="other"),
    ]
    assert len({here, *(other.cache_identity() for other in others)}) == 4


def test_identities_differ_by_what_is_sent_beside_a_request():
    team, key = {"X-Team": "a"}, {"X-Api-Key": CANARY}
    ways = [
        OpenAICompatibleProvider(base_url="https://a.example/v1", **options)
        for options in (
            {},
            {"headers": team},
            {"headers": {"X-Team": "b"}},
            {"headers": key},
            {"headers": {"X-Api-Key": CANARY + "x"}},
            {"extra_body": {"options": {"num_ctx": 4096}}},
            {"extra_body": {"options": {"num_ctx": 8192}}},
            {"api": "responses"},
            {"profile": {"reasoning_style": "none"}},
        )
    ]
    identities = [provider.cache_identity() for provider in ways]
    assert len(set(identities)) == len(ways)
    assert not any(CANARY in identity for identity in identities)
    same = OpenAICompatibleProvider(base_url="https://a.example/v1", headers=dict(team)).cache_identity()
    assert same == identities[1]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("openrouter", {"models": ["a/b"]}),
        ("openrouter", {"routing": {"only": ["a"]}}),
        ("openai", {"reasoning_summary": "detailed"}),
        ("ollama", {"extra_body": {"options": {"num_ctx": 8192}}}),
        ("anthropic", {"betas": ["one-2026-01-01"]}),
        ("anthropic", {"answer_tokens": 100}),
        ("gemini", {"api_version": "v1"}),
        ("vertex", {"answer_tokens": 100}),
    ],
)
def test_a_provider_s_own_options_are_part_of_its_identity(name, options, monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    plain, other = get_provider(name), get_provider(name, **options)
    assert plain.cache_identity() == get_provider(name).cache_identity() != other.cache_identity()


# How bytes are moved.


@pytest.mark.anyio
async def test_any_transport_will_do(vendor):
    ours = HttpxTransport()
    async with httpx.AsyncClient(trust_env=False) as client, httpx.AsyncHTTPTransport() as theirs:
        for transport in (None, client, ours, theirs):
            async with at(vendor, transport=transport) as provider:
                assert (await call(provider, ASK)).text == "42"
                assert join(await gathered(provider)).text == "42"
        await ours.aclose()


@pytest.mark.anyio
async def test_a_session_of_the_callers_own(vendor):
    session = requests.Session()
    session.headers["X-Corporate"] = "yes"
    with session:
        for transport in (session, RequestsTransport(session, timeout=(5, 30))):
            async with at(vendor, transport=transport) as provider:
                assert (await call(provider, ASK)).text == "42"
                assert join(await gathered(provider)).text == "42"
            assert vendor.headers["X-Corporate"] == "yes"


@pytest.mark.anyio
@responses.activate
async def test_mocks_of_responses_hold():
    reply = {"choices": [{"message": {"content": "42"}, "finish_reason": "stop"}]}
    responses.post("https://llm.example.com/v1/chat/completions", json=reply)
    with requests.Session() as session:
        provider = Gateway(api_key=CANARY, transport=session)
        assert (await call(provider, ASK)).text == "42"
    assert json.loads(responses.calls[0].request.body)["model"] == "m"


@pytest.mark.parametrize("transport", [httpx.Client, "https://proxy", object(), HttpxTransport])
def test_what_is_no_transport_is_refused(transport):
    transport = transport() if transport is httpx.Client else transport
    with pytest.raises(InvalidOption, match="transport: "):
        Gateway(transport=transport)


def test_blocking_calls_share_connections_with_each_other(vendor):
    with at(vendor) as provider:
        for _ in range(10):
            provider.generate_sync(ASK)
            assert "".join(chunk.text for chunk in provider.stream_sync(ASK)) == "42"
    assert len(vendor.connections) == 1


def test_threads_share_one_provider(vendor):
    texts = []
    with at(vendor) as provider:
        threads = [
            threading.Thread(target=lambda: texts.extend(provider.generate_sync(ASK).text for _ in range(5)))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert texts == ["42"] * 30


# What comes back.


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "error", "cls", "retryable"),
    [
        (401, {"code": "invalid_api_key", "message": "no"}, AuthenticationFailed, False),
        (404, {"code": "model_not_found", "message": "no"}, ModelNotFound, False),
        (429, {"code": "rate_limit_exceeded", "message": "slow"}, RateLimited, True),
        (429, {"code": "insufficient_quota", "message": "pay"}, OutOfCredit, False),
        (503, {"message": "later"}, ServerFailed, True),
        (200, {"code": 429, "message": "slow"}, RateLimited, True),
    ],
)
async def test_refusals_are_typed(vendor, status, error, cls, retryable):
    vendor.script = lambda exchange: exchange.say({"error": error}, status, x_request_id="r-9", retry_after="7")
    async with at(vendor) as provider:
        for attempt in (call, gathered):
            with pytest.raises(cls) as caught:
                await attempt(provider, ASK)
            assert caught.value.retryable is retryable
            assert caught.value.request_id == "r-9"
            assert (caught.value.provider, caught.value.model) == ("openai-compatible", "m")
            if status == 429:
                assert caught.value.retry_after == 7.0
                assert caught.value.attempts[0].status == 429


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "content_type", "cls"),
    [
        (b"", "application/json", EmptyReply),
        (b"<html>login</html>", "text/html", MalformedReply),
        (b'{"choices": [', "application/json", MalformedReply),
        (b"[]", "application/json", MalformedReply),
        (b'{"choices": []}', "application/json", MalformedReply),
        (b'{"choices": [{"message": {"content": null}}]}', "application/json", EmptyReply),
        (b'{"choices": [{"message": {"content": 42}}]}', "application/json", MalformedReply),
        (b'{"choices": [{"message": {"content": null, "refusal": "no"}}]}', "application/json", ContentFiltered),
        (b"\xff\xfe", "application/json", MalformedReply),
    ],
)
async def test_what_is_no_answer(vendor, body, content_type, cls):
    vendor.script = lambda exchange: exchange.say(body, content_type=content_type)
    async with at(vendor) as provider:
        with pytest.raises(cls) as caught:
            await call(provider, ASK)
        if content_type == "text/html":
            assert "text/html" in caught.value.message
        with pytest.raises(CouncilError):
            await gathered(provider)


@pytest.mark.anyio
async def test_replies_and_events_are_bounded(vendor):
    limits = Limits(body=2000, event=1000, stream=3000)
    vendor.script = lambda exchange: exchange.answer("x" * 3000)

    def flood(exchange):
        exchange.begin_stream()
        with contextlib.suppress(OSError):
            for _ in range(1000):
                exchange.piece("y" * 500)

    async with at(vendor, limits=limits) as provider:
        with pytest.raises(ReplyTooLarge):
            await call(provider, ASK)
        vendor.script = flood
        with pytest.raises(ReplyTooLarge) as caught:
            await gathered(provider)
        assert caught.value.partial.startswith("yyy")


# Streams.


@pytest.mark.anyio
async def test_a_stream_that_is_cut_is_never_whole(vendor):
    def cut(exchange):
        exchange.begin_stream()
        exchange.piece("4")
        exchange.wfile.write(b"0\r\n\r\n")

    def reset(exchange):
        exchange.begin_stream()
        exchange.piece("4")
        exchange.close_connection = True

    for script in (cut, reset):
        vendor.script = script
        async with at(vendor) as provider:
            with pytest.raises(TruncatedReply) as caught:
                await gathered(provider)
            assert caught.value.partial == "4"


@pytest.mark.anyio
async def test_an_error_in_mid_stream_keeps_the_text(vendor):
    def script(exchange):
        exchange.begin_stream()
        exchange.piece("4")
        exchange.event({"error": {"message": "overloaded", "code": "overloaded_error"}})
        exchange.end_stream()

    vendor.script = script
    async with at(vendor) as provider:
        with pytest.raises(ServerFailed) as caught:
            await gathered(provider)
    assert caught.value.partial == "4"


@pytest.mark.anyio
async def test_keep_alives_are_no_content(vendor):
    def script(exchange):
        exchange.begin_stream()
        exchange.piece("4")
        for _ in range(400):
            exchange.send(b": PROCESSING\n\n")
            time.sleep(0.05)

    vendor.script = script
    async with at(vendor, timeout=Timeouts(idle=0.4)) as provider:
        with pytest.raises(TimedOut) as caught:
            await gathered(provider)
        assert (caught.value.phase, caught.value.partial) == ("idle", "4")
        assert await anyio.to_thread.run_sync(vendor.hung_up.wait, 10)


@pytest.mark.anyio
async def test_a_stream_ends_with_its_mark_though_the_connection_stays(vendor):
    over = threading.Event()

    def script(exchange):
        exchange.begin_stream()
        exchange.piece("42", finish="stop")
        exchange.event(b"[DONE]")
        over.wait(20)

    vendor.script = script
    async with at(vendor) as provider:
        with anyio.fail_after(10):
            assert join(await gathered(provider)).text == "42"
    over.set()


@pytest.mark.anyio
async def test_the_deadline_ends_a_stream_and_the_server_sees_it(vendor):
    def script(exchange):
        exchange.begin_stream()
        for _ in range(200):
            exchange.piece("4")
            time.sleep(0.05)

    vendor.script = script
    async with at(vendor) as provider:
        with pytest.raises(TimedOut) as caught:
            await gathered(provider, deadline=0.4)
        assert caught.value.phase == "deadline"
        assert caught.value.partial
        assert await anyio.to_thread.run_sync(vendor.hung_up.wait, 10)


@pytest.mark.anyio
async def test_breaking_off_early_ends_the_request(vendor):
    def script(exchange):
        exchange.begin_stream()
        for _ in range(200):
            exchange.piece("4")
            time.sleep(0.05)

    vendor.script = script
    async with at(vendor) as provider:
        chunks = stream(provider, ASK)
        await anext(chunks)
        await chunks.aclose()
        assert await anyio.to_thread.run_sync(vendor.hung_up.wait, 10)


@pytest.mark.anyio
async def test_json_in_place_of_a_stream_is_one_piece(vendor):
    vendor.script = lambda exchange: exchange.answer("42")
    async with at(vendor) as provider:
        assert join(await gathered(provider)).text == "42"


# Direct calls of an adapter's methods.


@pytest.mark.anyio
async def test_generate_itself_fits_the_request_too(vendor):
    vendor.script = lambda exchange: exchange.answer()
    async with OpenAIProvider(base_url=vendor.url, api_key=CANARY) as provider:
        response = await provider.generate(GenerateRequest(prompt="x", model="o3", temperature=0.5))
        assert "temperature" not in vendor.body
        assert [change.field for change in response.adjustments] == ["temperature"]
        vendor.script = lambda exchange: exchange.chat()
        request = GenerateRequest(prompt="x", model="o3", temperature=0.5)
        chunks = [chunk async for chunk in provider.stream(request)]
        assert [change.field for change in join(chunks).adjustments] == ["temperature"]
        adjustments = (await call(provider, request)).adjustments
        assert [change.field for change in adjustments] == ["temperature"]


def test_configuration_may_write_data_types_as_tables(vendor):
    options = {
        "timeout": {"idle": 3.0},
        "limits": {"body": 99},
        "profile": {"sampling": "never", "token_field": "max_out"},
    }
    with at(vendor, **options) as provider:
        with pytest.raises(ReplyTooLarge):
            provider.generate_sync(attrs.evolve(ASK, temperature=1, max_tokens=5))
        assert vendor.body["max_out"] == 5
        assert "temperature" not in vendor.body
    with pytest.raises(InvalidOption, match="expected Timeouts"):
        at(vendor, timeout=30)
