"""Claude on other clouds: Anthropic's clients for Bedrock, Vertex AI, Foundry and others, each run end to end."""

import base64
import re
import struct
import zlib
from contextlib import asynccontextmanager
from urllib.parse import unquote

import attrs
import pytest

anthropic = pytest.importorskip("anthropic")  # loaded here: it takes longer than the deadlines below
pytest.importorskip("boto3", reason="no boto3: Bedrock's clients cannot sign")

from anthropic.lib import bedrock  # noqa: E402

from llm_council._wire.payloads import dumps  # noqa: E402
from llm_council.errors import (  # noqa: E402
    AdapterFailed,
    ConnectFailed,
    MalformedReply,
    MissingCredentials,
    ModelNotFound,
    PermissionRefused,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import (  # noqa: E402
    FinishReason,
    GenerateResponse,
    Message,
    Tool,
    ToolCall,
    Usage,
    join,
)
from llm_council.models.messages import ReasoningPart  # noqa: E402
from llm_council.models.request import ReasoningConfig  # noqa: E402
from llm_council.providers.anthropic import AnthropicProvider  # noqa: E402
from llm_council.providers.base import GenerateRequest, call, stream  # noqa: E402
from llm_council.testing._mirrors import anthropic as wire  # noqa: E402
from llm_council.testing.servers import Asked, FakeVendor, Raw, Refuse, Sent  # noqa: E402
from llm_council.testing.servers._builtin import Anthropic, ClaudeOnVertex  # noqa: E402

pytestmark = [pytest.mark.anyio, pytest.mark.oracles]

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
)


def framed_by_aws(payload, **headers):
    """Write a message as Bedrock does: lengths, headers, a payload, checksums."""
    written = b"".join(
        struct.pack(">B", len(name) + 1) + b":" + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for name, value in ((key.replace("_", "-"), value) for key, value in headers.items())
    )
    body = dumps(payload)
    prelude = struct.pack(">II", 16 + len(written) + len(body), len(written))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + written + body
    return whole + struct.pack(">I", zlib.crc32(whole))


class ClaudeOnBedrock(Anthropic):
    """Anthropic's models on Bedrock: the address names the model; frames and errors are Amazon's."""

    name = "bedrock-claude"
    stream_type = "application/vnd.amazon.eventstream"

    def read(self, asked: Asked):
        found = re.fullmatch(r"/model/([^/]+)/(invoke|invoke-with-response-stream)", unquote(asked.path))
        if asked.method != "POST" or found is None:
            return None
        assert not {"model", "stream"} & set(asked.json)
        said = {**asked.json, "model": found[1], "stream": found[2] != "invoke"}
        return wire.decode_request({key: value for key, value in said.items() if key != "anthropic_version"})

    def frame(self, event):
        if event.get("type") == "error":
            kind = {"message": event["error"]["message"]}
            return framed_by_aws(kind, exception_type="throttlingException", message_type="exception")
        payload = {"bytes": base64.b64encode(dumps(event)).decode(), "p": "abcdefgh"}
        return framed_by_aws(payload, event_type="chunk", message_type="event", content_type="application/json")

    def facts(self, asked):
        return None

    def _error(self, refuse, request=None):
        if refuse.after is not None:
            begun = list(wire.encode_events(GenerateResponse(text=refuse.after, request_id="msg_1")))
            text = next(index for index, event in enumerate(begun) if event["type"] == "content_block_delta")
            return self._stream([self.frame(event) for event in [*begun[: text + 1], self.refusal(refuse)]])
        body = dumps({"message": refuse.message})
        kind = f"{refuse.code or 'InternalServerException'}:http://internal.amazon.com/coral/com.amazon.bedrock/"
        return Sent.of(body, status=refuse.status, x_amzn_errortype=kind, x_amzn_requestid="req-refused")


class ListsNothing(Anthropic):
    """Anthropic's own dialect, without a list of models."""

    name = "anthropic-elsewhere"

    def facts(self, asked):
        return None


def _bedrock(url, **signs):
    return anthropic.AsyncAnthropicBedrock(aws_region="us-east-1", base_url=url, **signs)


def _mantle(url, **signs):
    return bedrock.AsyncAnthropicBedrockMantle(aws_region="us-east-1", base_url=f"{url}/anthropic", **signs)


def _vertex(url):
    return anthropic.AsyncAnthropicVertex(
        region="europe-west1", project_id="p-1", access_token="t-1", base_url=f"{url}/v1"
    )


def _foundry(url, **signs):
    return anthropic.AsyncAnthropicFoundry(base_url=f"{url}/anthropic/", **signs)


def _aws(url):
    return anthropic.AsyncAnthropicAWS(api_key="k-1", workspace_id="w-1", aws_region="us-east-1", base_url=url)


def _google_cloud(url):
    return anthropic.AsyncAnthropicGoogleCloud(
        project="p-1", workspace_id="w-1", token_provider=lambda: "t-1", base_url=url
    )


AWS_KEYS = {"aws_access_key": "AKIAIOSFODNN7EXAMPLE", "aws_secret_key": "not-a-secret", "aws_session_token": "s-1"}
SIGNED = r"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/\d+/us-east-1/bedrock{}/aws4_request, .*"


@attrs.frozen
class Cloud:
    """How a client is made, which address it should call, and with which credentials."""

    make: object
    dialect: type[Anthropic]
    path: str  # of a whole call
    streams: str
    auth: tuple[str, str]
    model: str = "claude-sonnet-4-5"
    lists: bool = False


ON_VERTEX = "/v1/projects/p-1/locations/europe-west1/publishers/anthropic/models/claude-sonnet-4-5@20250929"
ON_BEDROCK = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PLAIN, ELSEWHERE = "/v1/messages", "/anthropic/v1/messages"
US = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CLOUDS = {
    "bedrock, a key": Cloud(
        lambda url: _bedrock(url, api_key="b-1"), ClaudeOnBedrock,
        f"{ON_BEDROCK}/invoke", f"{ON_BEDROCK}/invoke-with-response-stream", ("authorization", "Bearer b-1"), US,
    ),
    "bedrock, signed": Cloud(
        lambda url: _bedrock(url, **AWS_KEYS), ClaudeOnBedrock,
        f"{ON_BEDROCK}/invoke", f"{ON_BEDROCK}/invoke-with-response-stream", ("authorization", SIGNED.format("")), US,
    ),
    "mantle, a key": Cloud(
        lambda url: _mantle(url, api_key="m-1"), ListsNothing, ELSEWHERE, ELSEWHERE, ("authorization", "Bearer m-1"),
        "anthropic.claude-sonnet-4-5",
    ),
    "mantle, signed": Cloud(
        lambda url: _mantle(url, **AWS_KEYS), ListsNothing,
        ELSEWHERE, ELSEWHERE, ("authorization", SIGNED.format("-mantle")), "anthropic.claude-sonnet-4-5",
    ),
    "vertex": Cloud(
        _vertex, ClaudeOnVertex,
        f"{ON_VERTEX}:rawPredict", f"{ON_VERTEX}:streamRawPredict", ("authorization", "Bearer t-1"),
        "claude-sonnet-4-5@20250929",
    ),
    "foundry, a key": Cloud(
        lambda url: _foundry(url, api_key="f-1"), ListsNothing, ELSEWHERE, ELSEWHERE, ("api-key|x-api-key", "f-1")
    ),
    "foundry, a token": Cloud(
        lambda url: _foundry(url, azure_ad_token_provider=lambda: "t-1"), ListsNothing,
        ELSEWHERE, ELSEWHERE, ("authorization", "Bearer t-1"),
    ),
    "aws": Cloud(_aws, Anthropic, PLAIN, PLAIN, ("x-api-key|authorization", "(Bearer )?k-1"), lists=True),
    "google cloud": Cloud(_google_cloud, Anthropic, PLAIN, PLAIN, ("authorization", "Bearer t-1"), lists=True),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch, tmp_path):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.fixture(params=CLOUDS)
def cloud(request):
    return CLOUDS[request.param]


@asynccontextmanager
async def seated(cloud, said=ANSWER, **options):
    """A fake cloud, and a provider that calls it with the vendor's client."""
    with FakeVendor(cloud.dialect(), said).serve() as vendor:
        async with cloud.make(vendor.url) as client:
            options = {"default_model": cloud.model, **options}
            async with AnthropicProvider(client=client, **options) as provider:
                yield vendor, provider


async def drained(provider, ask=ASK):
    return join([piece async for piece in stream(provider, ask)])


def facts_of(response):
    return attrs.evolve(response, raw=None, attempts=(), request_id=None, extra={}, adjustments=())


async def test_calls_and_streams_reach_the_cloud_with_the_callers_credentials(cloud):
    async with seated(cloud) as (vendor, provider):
        whole = await call(provider, ASK)
        streamed = await drained(provider)
    assert facts_of(whole) == facts_of(ANSWER)
    assert facts_of(streamed) == facts_of(ANSWER)
    assert [unquote(asked.path) for asked in vendor.asked] == [cloud.path, cloud.streams]
    names, value = cloud.auth
    for asked in vendor.asked:
        held = {
            name: asked.headers[name] for name in ("authorization", "api-key", "x-api-key") if name in asked.headers
        }
        assert set(held) & set(names.split("|"))
        assert all(re.fullmatch(value, word) for word in held.values()), held
    in_body = cloud.dialect in (ClaudeOnBedrock, ClaudeOnVertex)
    assert ("anthropic-version" in vendor.asked[0].headers) is not in_body
    assert in_body or vendor.asked[0].headers["anthropic-version"] == "2023-06-01"
    versions = {ClaudeOnBedrock: "bedrock-2023-05-31", ClaudeOnVertex: "vertex-2023-10-16"}
    assert vendor.asked[0].json.get("anthropic_version") == versions.get(cloud.dialect)


async def test_the_profile_is_found_by_the_clouds_name_of_the_model(cloud):
    """Sonnet 4.5 takes a thinking budget under each cloud's name for it."""
    async with seated(cloud) as (vendor, provider):
        await call(provider, GenerateRequest(prompt="?", reasoning=ReasoningConfig(effort="low")))
    assert vendor.asked[0].json["thinking"] == {"type": "enabled", "budget_tokens": 2048}


async def test_the_callers_betas_and_version_are_sent(cloud):
    async with seated(cloud, betas=["b-1", "b-2"], version="v-1") as (vendor, provider):
        await call(provider, ASK)
        asked = vendor.asked[0]
    if cloud.dialect is ClaudeOnBedrock:
        assert asked.json["anthropic_beta"] == ["b-1", "b-2"]
    else:
        assert asked.headers["anthropic-beta"] == "b-1,b-2"
    in_body = cloud.dialect in (ClaudeOnBedrock, ClaudeOnVertex)
    assert (asked.json["anthropic_version"] if in_body else asked.headers["anthropic-version"]) == "v-1"


async def test_the_doctor_lists_models_or_asks_for_one_token(cloud):
    async with seated(cloud) as (vendor, provider):
        said = await provider.doctor()
        assert (said.ok, len(vendor.calls)) == (True, 0 if cloud.lists else 1), said.message
        assert cloud.lists or vendor.calls[0].json["max_tokens"] == 1
        deep = await provider.doctor(deep=True)
        assert (deep.ok, "answered in" in deep.message) == (True, True)
    async with seated(cloud, Refuse(status=403, message="no entry", code="AccessDeniedException")) as (_, provider):
        said = await provider.doctor()
        assert (said.ok, "no entry" in said.message) == (False, True)


@pytest.mark.parametrize(("status", "error"), [(403, PermissionRefused), (429, RateLimited), (503, ServerFailed)])
async def test_a_refusal_is_typed_and_not_retried(cloud, status, error):
    codes = {403: "AccessDeniedException", 429: "ThrottlingException", 503: "ServiceUnavailableException"}
    code = codes[status] if cloud.dialect is ClaudeOnBedrock else None
    async with seated(cloud, Refuse(status=status, message="not now", code=code)) as (vendor, provider):
        for ask in (call, drained):
            with pytest.raises(error) as caught:
                await ask(provider, ASK)
            found = caught.value
            assert (found.status, "not now" in found.message, found.request_id) == (status, True, "req-refused")
            assert found.code == code or code is None
        assert len(vendor.asked) == 2


async def test_an_error_inside_a_stream_is_typed_by_its_own_type(cloud):
    async with seated(cloud, Refuse(status=429, message="too fast", after="Hel")) as (_, provider):
        with pytest.raises(RateLimited) as caught:
            await drained(provider)
    assert (caught.value.partial, caught.value.retryable) == ("Hel", True)
    assert caught.value.code in ("throttlingException", "rate_limit_error")


# Errors in the platforms' own shapes


async def test_a_refusal_of_azure_is_typed():
    body = {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}
    async with seated(CLOUDS["foundry, a key"], Raw(dumps(body), status=404)) as (_, provider):
        with pytest.raises(ModelNotFound) as caught:
            await call(provider, ASK)
    assert caught.value.code == "DeploymentNotFound"


# Amazon's framing

EVENTS = [ClaudeOnBedrock().frame(event) for event in wire.encode_events(ANSWER)]
BROKEN = {
    "an end too early": (b"".join(EVENTS[:-3]), TruncatedReply),
    "a message cut in two": (b"".join(EVENTS[:-3])[:-9], TruncatedReply),
    "a wrong checksum": (b"".join(EVENTS)[:-9] + b"garbage!!", MalformedReply),
    "no base64": (framed_by_aws({"bytes": "?"}, message_type="event"), MalformedReply),
    "no JSON": (framed_by_aws({"bytes": base64.b64encode(b"{").decode()}, message_type="event"), MalformedReply),
    "a server's error": (
        framed_by_aws({"message": "oh"}, error_code="InternalServerException", message_type="error"), ServerFailed,
    ),
    "a model's error": (
        framed_by_aws({"message": "oh"}, exception_type="modelStreamErrorException", message_type="exception"),
        ServerFailed,
    ),
    "a refused request": (
        framed_by_aws({"message": "no"}, exception_type="validationException", message_type="exception"),
        RequestRejected,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
async def test_a_broken_stream_of_amazon_is_an_error(what):
    body, error = BROKEN[what]
    said = Raw(body, media_type=ClaudeOnBedrock.stream_type)
    async with seated(CLOUDS["bedrock, a key"], said) as (_, provider):
        with pytest.raises(error) as caught:
            await drained(provider)
    assert type(caught.value) is error
    if error is TruncatedReply:
        assert caught.value.partial == "42"


async def test_amazons_client_reads_the_fakes_streams():
    """If the vendor's own client reads the fake's streams, tests against the fake mean something."""
    with FakeVendor(ClaudeOnBedrock(), ANSWER).serve() as vendor:
        async with _bedrock(vendor.url, api_key="b-1") as client:
            pieces = await client.messages.create(
                model=US, max_tokens=9, messages=[{"role": "user", "content": "?"}], stream=True
            )
            events = [event.type async for event in pieces]
    assert (events[0], events[-1], "content_block_delta" in events) == ("message_start", "message_stop", True)


# Clients that cannot sign


@pytest.mark.parametrize("make", [_bedrock, _mantle])
async def test_a_client_without_credentials_is_reported(make, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    with FakeVendor(ClaudeOnBedrock(), ANSWER).serve() as vendor:
        async with make(vendor.url) as client, AnthropicProvider(client=client, default_model=US) as provider:
            with pytest.raises(MissingCredentials, match="AWS"):
                await call(provider, ASK)
            assert not (await provider.doctor()).ok
    assert vendor.asked == []


async def test_a_failed_sign_in_at_google_is_reported(monkeypatch, tmp_path):
    auth = pytest.importorskip("google.auth.exceptions")
    missing = tmp_path / "none.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(missing))
    with FakeVendor(ClaudeOnVertex(), ANSWER).serve() as vendor:
        client = anthropic.AsyncAnthropicVertex(region="local", project_id="p-1", base_url=f"{vendor.url}/v1")
        async with client, AnthropicProvider(client=client, default_model="claude-sonnet-4-5") as provider:
            with pytest.raises(MissingCredentials, match=r"none\.json"):
                await call(provider, ASK)

            async def unreached():
                raise auth.TransportError("no route to Google")

            client._ensure_access_token = unreached
            with pytest.raises(ConnectFailed, match="no route"):
                await call(provider, ASK)
    assert vendor.asked == []


async def test_an_error_of_the_callers_token_provider_keeps_its_message():
    """It is an error of the caller's code, not of the vendor."""

    def broken():
        raise LookupError("no such vault")

    with FakeVendor(ListsNothing(), ANSWER).serve() as vendor:
        async with (
            _foundry(vendor.url, azure_ad_token_provider=broken) as client,
            AnthropicProvider(client=client, default_model="claude-sonnet-4-5") as provider,
        ):
            with pytest.raises(AdapterFailed, match="no such vault"):
                await call(provider, ASK)
    assert vendor.asked == []


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param
