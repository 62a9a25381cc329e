"""Claude through the vendor's own client: the same requests, answers and errors as over plain HTTP."""

import gzip
import logging
import pickle
import tracemalloc
from functools import partial

import anyio
import attrs
import pytest

anthropic = pytest.importorskip("anthropic")  # loaded here: it takes longer than the deadlines below

from llm_council.errors import (  # noqa: E402
    ConnectFailed,
    ConnectionLost,
    CouncilError,
    InvalidOption,
    RedirectRefused,
    ReplyTooLarge,
    ServerFailed,
    TimedOut,
    TruncatedReply,
)
from llm_council.models import (  # noqa: E402
    FinishReason,
    GenerateResponse,
    Limits,
    Message,
    Timeouts,
    Tool,
    ToolCall,
    Usage,
    join,
)
from llm_council.models.messages import ReasoningPart  # noqa: E402
from llm_council.providers._anthropic.sdk import SdkTransport  # noqa: E402
from llm_council.providers.anthropic import AnthropicProvider  # noqa: E402
from llm_council.providers.base import GenerateRequest, call, stream  # noqa: E402
from llm_council.testing.conformance import ProviderConformance  # noqa: E402
from llm_council.testing.servers import Cut, Edited, FakeVendor, Hang, Raw, Refuse  # noqa: E402
from llm_council.transports import HttpxTransport, RequestsTransport  # noqa: E402

pytestmark = [pytest.mark.anyio, pytest.mark.oracles]


class TestAnthropicBySdk(ProviderConformance):
    """The adapter keeps every promise with the SDK too."""

    provider = AnthropicProvider
    backends = ("asyncio", "trio")


KEY = "sk-ant-test-canary-123456789012"
THOUGHT = {"type": "thinking", "thinking": "six sevens", "signature": "c2ln"}
ANSWER = GenerateResponse(
    text="42",
    reasoning="six sevens",
    reasoning_parts=[ReasoningPart(text="six sevens", signature="c2ln", vendor="anthropic", data=THOUGHT)],
    tool_calls=[ToolCall(id="call_1", name="look_up", arguments='{"city":"Paris"}')],
    model="claude-sonnet-5-5",
    finish_reason=FinishReason.TOOL_CALLS,
    raw_finish_reason="tool_use",
    usage=Usage(input_tokens=20, output_tokens=9, cached_tokens=12, cache_write_tokens=3, reasoning_tokens=4),
    request_id="msg_1",
)
ASK = GenerateRequest(
    messages=[Message("system", "Be brief."), Message("user", "What is 6 times 7? \u2028 🗼")],
    tools=[Tool(name="look_up")],
    extra={"metadata": {"user_id": "u-1"}, "novel_field": [1, None, 2.5]},
)
WAYS = ["sdk", "client", "httpx", "requests"]


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


class Sent:
    """A provider over plain HTTP or the SDK, and its results."""

    def __init__(self, way, url, **options):
        self.client = None
        if way == "client":
            self.client = anthropic.AsyncAnthropic(base_url=url, api_key=KEY)
            self.provider = AnthropicProvider(client=self.client, **options)
            return
        given = {"sdk": None, "httpx": HttpxTransport, "requests": RequestsTransport}[way]
        options["transport"] = given() if given else None
        self.provider = AnthropicProvider(base_url=url, api_key=KEY, **options)

    async def __aenter__(self):
        return self.provider

    async def __aexit__(self, *_):
        await self.provider.aclose()
        if self.client is not None:
            await self.client.close()


async def outcome(provider, ask=ASK, *, whole=True):
    """The result for a caller: an answer, or the facts of an error."""
    try:
        if whole:
            return attrs.evolve(await call(provider, ask), raw=None, attempts=())
        return join([piece async for piece in stream(provider, ask)])
    except CouncilError as error:
        facts = ("message", "status", "code", "retry_after", "request_id", "retryable", "partial", "body")
        found = {fact: getattr(error, fact, None) for fact in facts}
        # Where a client of the caller's holds the key, the remedy names that client.
        return type(error), {**found, "message": error.message.partition(" (check ")[0]}


SAID = {
    "an answer": ANSWER,
    "a long text": "Lorem ipsum 🗼 " * 100,
    "a refusal": Refuse(status=429, message="slow down", retry_after=7.0),
    "an overload": Refuse(status=529),
    "a wrong key": Refuse(status=401),
    "an empty account": Refuse(status=400, message="Your credit balance is too low to access the API"),
    "a page": Raw(b"<html>502 Bad Gateway</html>", status=502, media_type="text/html"),
    "a redirect": Raw(b"", status=307, headers={"location": "http://127.0.0.1:1/v1/messages"}),
    "nothing": Raw(b""),
    "no JSON": Raw(b"{", media_type="application/json"),
    "an odd shape": Edited(ANSWER, lambda value: {**value, "content": "no blocks", "delta": 5}),
}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("said", SAID)
async def test_http_and_sdk_give_the_same(said, whole):
    found = {}
    with FakeVendor("anthropic", SAID[said]).serve() as vendor:
        for way in WAYS:
            async with Sent(way, vendor.url) as provider:
                found[way] = await outcome(provider, whole=whole)
        assert len(vendor.calls) == len(WAYS)  # nothing is tried again below us
        assert all(asked.json == vendor.calls[0].json for asked in vendor.calls)
    for way in WAYS:
        assert found[way] == found["httpx"], way
    assert isinstance(found["sdk"], GenerateResponse) is said.startswith(("an answer", "a long"))
    if said == "a redirect":
        assert found["sdk"][0] is RedirectRefused


async def test_an_error_inside_a_stream_is_typed_by_its_own_type():
    for way in WAYS:
        said = Refuse(status=529, code="overloaded_error", message="Overloaded", after="Hel")
        with FakeVendor("anthropic", said).serve() as vendor:
            async with Sent(way, vendor.url) as provider:
                with pytest.raises(ServerFailed) as caught:
                    [piece async for piece in stream(provider, ASK)]
        assert (caught.value.code, caught.value.partial, caught.value.retryable) == ("overloaded_error", "Hel", True)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_connection_that_ends_too_early_is_lost(whole):
    for way in ("sdk", "client"):
        with FakeVendor("anthropic", Cut("a text that is long enough to be cut in two " * 20)).serve() as vendor:
            async with Sent(way, vendor.url) as provider:
                error, _ = await outcome(provider, whole=whole)
        assert error in (ConnectionLost, TruncatedReply)


@pytest.mark.parametrize("way", ["sdk", "client"])
@pytest.mark.parametrize("whole", [True, False])
async def test_a_cancelled_call_closes_its_connection(way, whole):
    said = Hang() if whole else Hang("a text that begins and does not end " * 20)
    with FakeVendor("anthropic", said).serve() as vendor:
        async with Sent(way, vendor.url) as provider:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(outcome, provider, whole=whole))
                assert await anyio.to_thread.run_sync(vendor.wait_asked)
                await anyio.sleep(0.05)  # into the reply
                tasks.cancel_scope.cancel()
            assert await anyio.to_thread.run_sync(vendor.wait_left)


@pytest.mark.parametrize("way", ["sdk", "client"])
async def test_deadlines_end_calls_of_the_sdk(way):
    with FakeVendor("anthropic", Hang()).serve() as vendor:
        async with Sent(way, vendor.url, timeout=Timeouts(read=0.2)) as provider:
            with pytest.raises(TimedOut) as caught:
                await call(provider, ASK)
            assert caught.value.phase == "read"
    async with Sent(way, "http://127.0.0.1:9") as provider:
        with pytest.raises(ConnectFailed) as refused:
            await call(provider, ASK)
    assert (refused.value.kind, refused.value.__context__) == ("refused", None)


@pytest.mark.parametrize("way", ["sdk", "client"])
async def test_replies_through_the_sdk_are_bounded(way):
    with FakeVendor("anthropic", "x" * 5000).serve() as vendor:
        async with Sent(way, vendor.url, limits=Limits(body=1000, stream=1000)) as provider:
            with pytest.raises(ReplyTooLarge):
                await call(provider, ASK)
            with pytest.raises(ReplyTooLarge):
                [piece async for piece in stream(provider, ASK)]


@pytest.mark.parametrize(("status", "error"), [(302, RedirectRefused), (500, ServerFailed)])
async def test_bodies_that_the_sdk_reads_itself_are_bounded(status, error):
    """The SDK reads errors and redirects before we do; neither a flood nor a compressed bomb is read whole."""
    body = b"x" * (32 * 2**20)
    headers = {"location": "https://elsewhere.test/"}
    with FakeVendor("anthropic", Raw(body, status=status, headers=headers)).serve() as vendor:
        async with AnthropicProvider(base_url=vendor.url, api_key=KEY) as provider:
            with pytest.raises(error):
                await call(provider, GenerateRequest(prompt="?"))
        assert await anyio.to_thread.run_sync(vendor.wait_left)
    bomb = Raw(gzip.compress(body, 1), status=status, headers={**headers, "content-encoding": "gzip"})
    with FakeVendor("anthropic", bomb).serve() as vendor:
        async with AnthropicProvider(base_url=vendor.url, api_key=KEY) as provider:
            tracemalloc.start()
            try:
                with pytest.raises(error):
                    await call(provider, GenerateRequest(prompt="?"))
                _, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert most < 8 * 2**20


async def test_credentials_come_from_the_client_or_the_adapter(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-of-the-environment")
    with FakeVendor("anthropic", ANSWER).serve() as vendor:
        async with Sent("sdk", vendor.url) as provider:
            await call(provider, ASK)
            assert KEY not in repr(provider) + repr(provider._http_transport)
        ours = vendor.calls[-1].headers
        assert (ours["x-api-key"], ours.get("authorization"), ours["anthropic-version"]) == (KEY, None, "2023-06-01")
        async with Sent("sdk", vendor.url, key_header="authorization", betas=["b-1"]) as provider:
            await call(provider, ASK)
        bearer = vendor.calls[-1].headers
        assert (bearer["authorization"], bearer.get("x-api-key"), bearer["anthropic-beta"]) == (
            f"Bearer {KEY}",
            None,
            "b-1",
        )
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-environment-1234")
        client = anthropic.AsyncAnthropic(base_url=vendor.url, api_key="sk-ant-of-the-client-123456789")
        provider = AnthropicProvider(client=client)
        await call(provider, ASK)
        await provider.aclose()
        await client.close()
        theirs = str(sorted(vendor.calls[-1].headers.items()))
        assert "sk-ant-of-the-client-123456789" in theirs
        assert "of-the-environment" not in theirs
    assert KEY not in caplog.text


async def test_a_client_of_an_old_release_is_refused(monkeypatch):
    monkeypatch.setattr(anthropic, "__version__", "0.40.0")
    async with anthropic.AsyncAnthropic(api_key="k") as client:
        with pytest.raises(InvalidOption, match=r"anthropic 0\.40\.0 cannot refuse redirects: install 1\.0 or later"):
            AnthropicProvider(client=client)


async def test_the_callers_client_is_checked_and_not_closed():
    with (
        pytest.raises(InvalidOption, match="blocks; pass an anthropic"),
        anthropic.Anthropic(api_key="k") as blocking,
    ):
        AnthropicProvider(client=blocking)
    with FakeVendor("anthropic", ANSWER).serve() as vendor:
        async with anthropic.AsyncAnthropic(base_url=vendor.url, api_key=KEY) as client:
            for twice in ({"transport": HttpxTransport()}, {"api_key": "k"}, {"base_url": "https://example.com"}):
                with pytest.raises(InvalidOption, match="leave out"):
                    AnthropicProvider(client=client, **twice)
            async with AnthropicProvider(client=client) as provider:
                assert (provider.base_url, await outcome(provider)) == (vendor.url, await outcome(provider))
                assert (await provider.doctor()).ok
            assert not client.is_closed()


def test_the_installed_sdk_is_the_default_transport(monkeypatch):
    provider = AnthropicProvider(api_key=KEY)
    assert isinstance(provider._http_transport, SdkTransport)
    assert isinstance(pickle.loads(pickle.dumps(provider))._http_transport, SdkTransport)
    given = HttpxTransport()
    assert AnthropicProvider(api_key=KEY, transport=given)._http_transport is given


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param
