"""The Vertex AI provider over a real socket: sign-in, URLs and payloads of Gemini and Claude, errors, doctor."""

import json
import pickle
import subprocess
import sys
import threading

import anyio
import pytest
import responses
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import exceptions

from llm_council import get_provider
from llm_council.errors import (
    AuthenticationFailed,
    ConnectFailed,
    InvalidOption,
    MissingCredentials,
    MissingDependency,
    ModelNotFound,
    RateLimited,
    ServerFailed,
)
from llm_council.models import GenerateResponse, Message, ReasoningConfig, StructuredOutput, Tool, Usage, join
from llm_council.providers._google import sign_in
from llm_council.providers.base import GenerateRequest, call, examine, stream
from llm_council.testing._mirrors import anthropic as claude_server
from llm_council.testing._mirrors import gemini as gemini_server

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ANSWER = GenerateResponse(text="42", finish_reason="stop", usage=Usage(input_tokens=5, output_tokens=2), model="m")
CLAUDE = "claude-sonnet-4-5@20250929"


class Credentials:
    """Google credentials whose tokens are numbered; ``refresh`` may raise."""

    def __init__(self, *, error=None):
        self.token = None
        self.valid = False
        self.threads = []
        self.error = error

    def refresh(self, request):
        self.threads.append(threading.current_thread())
        if self.error is not None:
            raise self.error
        self.token = f"token-{len(self.threads)}-0123456789"
        self.valid = True

    def apply(self, headers):
        headers["authorization"] = f"Bearer {self.token}"
        headers["x-goog-user-project"] = "who-pays"


def server(answer=ANSWER, *, refused=()):
    """Return a script of a Vertex AI with Gemini and Claude that rejects the given tokens."""

    def script(exchange):
        token = exchange.headers["authorization"].removeprefix("Bearer ")
        if token in refused:
            body = gemini_server.encode_error("Request had invalid credentials.", code=401, status="UNAUTHENTICATED")
            exchange.say(body, 401)
        elif exchange.path.partition("?")[0].endswith("/publishers/google/models"):
            exchange.say({"publisherModels": [{"name": "publishers/google/models/gemini-3.6-flash"}, {}]})
        elif ":stream" in exchange.path:
            exchange.begin_stream()
            claude = "rawPredict" in exchange.path or "RawPredict" in exchange.path
            if claude:
                body = b"".join(map(claude_server.frame, claude_server.encode_events(answer)))
            else:
                body = b"".join(map(gemini_server.frame, gemini_server.encode_chunks(answer)))
            exchange.send(body)
            exchange.wfile.write(b"0\r\n\r\n")
        else:
            dialect = claude_server if exchange.path.endswith(":rawPredict") else gemini_server
            exchange.say(dialect.encode_response(answer))

    return script


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "CLOUD_ML_REGION", "GOOGLE_VERTEX_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def credentials():
    return Credentials()


@pytest.fixture
def vertex(vendor, credentials):
    vendor.script = server()
    root = vendor.url.removesuffix("/v1")
    given = {"base_url": root, "project": "house-1", "location": "us-east5", "credentials": credentials}
    return lambda **options: get_provider("vertex", **{**given, **options})


def test_the_constructor_loads_no_credentials(monkeypatch):
    def default(**_):
        raise AssertionError("the metadata server would be asked")

    monkeypatch.setattr("google.auth.default", default)
    provider = get_provider("vertex")
    provider.check()
    assert repr(provider) == "<VertexProvider vertex at https://aiplatform.googleapis.com>"
    monkeypatch.setenv("CLOUD_ML_REGION", "eu")
    assert "at https://aiplatform.eu.rep.googleapis.com>" in repr(get_provider("vertex"))
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west1")
    assert "at https://europe-west1-aiplatform.googleapis.com>" in repr(get_provider("vertex"))
    assert "at https://asia-east1-aiplatform.googleapis.com>" in repr(get_provider("vertex", location="asia-east1"))
    with pytest.raises(InvalidOption, match="location"):
        get_provider("vertex", location="evil.example/")


def test_a_missing_google_auth_raises_with_the_name_of_the_extra(monkeypatch):
    monkeypatch.setattr(sign_in.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"llm-council-sdk\[vertex\]"):
        get_provider("vertex", project="p").check()
    get_provider("vertex", project="p", credentials=Credentials()).check()
    get_provider("vertex", project="p", headers={"Authorization": "Bearer token-of-mine"}).check()


def test_the_constructor_imports_no_google_package():
    code = (
        "import sys; from llm_council import get_provider; get_provider('vertex'); print('google.auth' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


async def test_gemini_answers_and_streams(vertex, vendor, credentials, ask):
    async with vertex() as provider:
        whole = await call(provider, ask)
        joined = join([chunk async for chunk in stream(provider, ask)])
    assert (whole.text, whole.usage, whole.finish_reason) == (joined.text, joined.usage, joined.finish_reason)
    assert [exchange.path for exchange in vendor.seen] == [
        f"/v1beta1/projects/house-1/locations/us-east5/publishers/google/models/{provider.default_model}:{method}"
        for method in ("generateContent", "streamGenerateContent?alt=sse")
    ]
    assert vendor.body == {"contents": [{"role": "user", "parts": [{"text": ask.prompt}]}]}
    assert vendor.headers["authorization"] == "Bearer token-1-0123456789"
    assert vendor.headers["x-goog-user-project"] == "who-pays"
    assert len(credentials.threads) == 1  # the token is kept
    assert credentials.threads[0] is not threading.current_thread()


async def test_claude_answers_and_streams(vertex, vendor, ask):
    async with vertex(default_model=CLAUDE) as provider:
        whole = await call(provider, ask)
        joined = join([chunk async for chunk in stream(provider, ask)])
    assert (whole.text, whole.usage, whole.finish_reason) == (joined.text, joined.usage, joined.finish_reason)
    place = f"/v1/projects/house-1/locations/us-east5/publishers/anthropic/models/{CLAUDE}"
    assert [exchange.path for exchange in vendor.seen] == [f"{place}:rawPredict", f"{place}:streamRawPredict"]
    body = {
        "anthropic_version": "vertex-2023-10-16",
        "max_tokens": 16_000,
        "messages": [{"role": "user", "content": ask.prompt}],
    }
    assert [exchange.body for exchange in vendor.seen] == [body, {**body, "stream": True}]
    assert vendor.headers["anthropic-version"] is None
    assert vendor.headers["x-api-key"] is None
    assert vendor.headers["authorization"] == "Bearer token-1-0123456789"


async def test_api_versions_can_be_set(vertex, vendor, ask):
    async with vertex(api_version="v2", claude_version="2026-10-21", answer_tokens=7) as provider:
        await call(provider, ask)
        assert vendor.seen[-1].path.startswith("/v2/projects/house-1/")
        await call(provider, GenerateRequest(prompt="x", model=CLAUDE))
    assert vendor.seen[-1].path.startswith("/v2/projects/house-1/")
    assert (vendor.body["anthropic_version"], vendor.body["max_tokens"]) == ("2026-10-21", 7)


async def test_requests_are_fitted_to_the_model_family(vertex, vendor):
    schema = StructuredOutput(
        json_schema={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    )
    request = {"structured_output": schema, "reasoning": ReasoningConfig(effort="high"), "tools": [Tool(name="add")]}
    async with vertex() as provider:
        await call(provider, GenerateRequest(prompt="x", model="gemini-2.5-flash", **request))
        config = vendor.body["generationConfig"]
        assert config["responseJsonSchema"] == schema.json_schema
        assert config["thinkingConfig"] == {"thinkingBudget": 24576, "includeThoughts": True}
        assert vendor.body["tools"][0]["functionDeclarations"][0]["name"] == "add"
        response = await call(provider, GenerateRequest(prompt="x", model="anthropic/claude-opus-4-6", **request))
        assert vendor.body["thinking"]["type"] == "adaptive"
        assert vendor.body["output_config"]["format"]["type"] == "json_schema"
        assert vendor.body["tools"][0]["name"] == "add"
        assert {one.field for one in response.adjustments} == {"structured_output"}  # closed, as Claude wants it
        with pytest.raises(InvalidOption, match="mistralai"):
            await call(provider, GenerateRequest(prompt="x", model="mistralai/mistral-large"))


async def test_a_token_that_expired_is_renewed(vertex, vendor, credentials, ask):
    async with vertex() as provider:
        await call(provider, ask)
        credentials.valid = False
        await call(provider, ask)
    assert vendor.headers["authorization"] == "Bearer token-2-0123456789"


@pytest.mark.parametrize("model", ["gemini-3.6-flash", CLAUDE])
async def test_a_token_that_is_refused_is_renewed_once(vertex, vendor, credentials, ask, model):
    vendor.script = server(refused={"token-1-0123456789"})
    async with vertex(default_model=model) as provider:
        assert (await call(provider, ask)).text == "42"
        vendor.script = server(refused={"token-2-0123456789"})
        assert join([chunk async for chunk in stream(provider, ask)]).text == "42"
        vendor.script = server(refused={f"token-{number}-0123456789" for number in range(9)})
        for ask_by in (call, lambda *both: anext(aiter(stream(*both)))):
            vendor.seen.clear()
            with pytest.raises(AuthenticationFailed, match="invalid credentials") as caught:
                await ask_by(provider, ask)
            assert len(vendor.seen) == 2
            assert (caught.value.provider, caught.value.retryable) == ("vertex", False)


async def test_many_calls_share_one_renewal(vertex, credentials, ask):
    async with vertex() as provider, anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(call, provider, ask)
    assert len(credentials.threads) == 1


@pytest.mark.parametrize(
    ("error", "cls", "words"),
    [
        (exceptions.RefreshError("invalid_grant: Bad Request"), AuthenticationFailed, "application-default login"),
        (exceptions.TransportError("no route"), ConnectFailed, "no route"),
    ],
)
async def test_a_failed_sign_in_raises_with_the_remedy(vertex, credentials, vendor, ask, error, cls, words):
    credentials.error = error
    async with vertex() as provider:
        with pytest.raises(cls, match=words) as caught:
            await call(provider, ask)
        assert caught.value.retryable is (cls is ConnectFailed)
        result = await examine(provider)
    assert (result.ok, words in result.message) == (False, True)
    assert vendor.seen == []


@pytest.fixture(scope="module")
def private_key():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


async def test_a_service_account_file_signs_in(vertex, vendor, ask, monkeypatch, tmp_path, private_key):
    """Use the real google-auth, which fetches tokens with requests."""
    token_uri = "https://oauth2.googleapis.com/token"
    account = {
        "type": "service_account",
        "project_id": "house-of-the-file",
        "private_key_id": "1",
        "private_key": private_key,
        "client_email": "council@house-of-the-file.iam.gserviceaccount.com",
        "token_uri": token_uri,
    }
    file = tmp_path / "account.json"
    file.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    vendor.script = server(refused={"real-1-0123456789"})
    with responses.RequestsMock() as google:
        for number in (1, 2):
            grant = {"access_token": f"real-{number}-0123456789", "expires_in": 3600, "token_type": "Bearer"}
            google.post(token_uri, json=grant)
        async with vertex(credentials=None, project=None) as provider:
            assert (await call(provider, ask)).text == "42"
            assert (await call(provider, ask)).text == "42"
    assert "/projects/house-of-the-file/" in vendor.seen[-1].path
    assert vendor.headers["authorization"] == "Bearer real-2-0123456789"


async def test_the_first_call_loads_the_default_credentials(vertex, vendor, credentials, ask, monkeypatch):
    asked = []

    def default(scopes):
        asked.append((scopes, threading.current_thread()))
        return credentials, "house-of-the-credentials"

    monkeypatch.setattr("google.auth.default", default)
    async with vertex(credentials=None, project=None) as provider:
        await call(provider, ask)
        await call(provider, ask)
    ((scopes, thread),) = asked
    assert scopes == ["https://www.googleapis.com/auth/cloud-platform"]
    assert thread is not threading.current_thread()
    assert "/projects/house-of-the-credentials/" in vendor.seen[-1].path

    def nobody(scopes):
        raise exceptions.DefaultCredentialsError("Your default credentials were not found.")

    monkeypatch.setattr("google.auth.default", nobody)
    async with vertex(credentials=None) as provider:
        with pytest.raises(MissingCredentials, match="GOOGLE_APPLICATION_CREDENTIALS"):
            await call(provider, ask)
    async with vertex(project=None) as provider:
        with pytest.raises(InvalidOption, match="GOOGLE_CLOUD_PROJECT,"):
            await call(provider, ask)


async def test_the_project_comes_from_the_environment(vertex, vendor, ask, monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "house-of-the-environment")
    async with vertex(project=None) as provider:
        await call(provider, ask)
    assert "/projects/house-of-the-environment/" in vendor.seen[-1].path


async def test_an_authorization_header_of_the_caller_replaces_the_sign_in(vertex, vendor, credentials, ask):
    vendor.script = server(refused={"mine-0123456789"})
    async with vertex(headers={"Authorization": "Bearer mine-0123456789"}) as provider:
        with pytest.raises(AuthenticationFailed):
            await call(provider, ask)
    assert [exchange.headers["authorization"] for exchange in vendor.seen] == ["Bearer mine-0123456789"]
    assert credentials.threads == []
    async with vertex(headers={"Authorization": "Bearer mine-0123456789"}, project=None) as provider:
        with pytest.raises(InvalidOption, match="GOOGLE_CLOUD_PROJECT,"):
            await call(provider, ask)
    assert "needs a project" in (await examine(vertex(project=None))).message


@pytest.mark.parametrize(
    ("model", "status", "body", "cls", "code"),
    [
        (
            CLAUDE,
            529,
            claude_server.encode_error("Overloaded", kind="overloaded_error"),
            ServerFailed,
            "overloaded_error",
        ),
        (
            CLAUDE,
            404,
            gemini_server.encode_error("Publisher Model `x` was not found", code=404, status="NOT_FOUND"),
            ModelNotFound,
            "NOT_FOUND",
        ),
        (
            "gemini-2.5-pro",
            429,
            gemini_server.encode_error("Resource exhausted.", code=429, status="RESOURCE_EXHAUSTED"),
            RateLimited,
            "RESOURCE_EXHAUSTED",
        ),
    ],
)
async def test_errors_of_google_and_of_anthropic_are_classified(vertex, vendor, ask, model, status, body, cls, code):
    vendor.script = lambda exchange: exchange.say(body, status)
    async with vertex(default_model=model) as provider:
        for ask_by in (call, lambda *both: anext(aiter(stream(*both)))):
            with pytest.raises(cls) as caught:
                await ask_by(provider, ask)
            assert (caught.value.code, caught.value.status, caught.value.provider) == (code, status, "vertex")


async def test_doctor_signs_in(vertex, vendor, credentials):
    async with vertex() as provider:
        result = await examine(provider)
        assert (result.ok, result.details["models"]) == (True, ["gemini-3.6-flash"])
        assert vendor.seen[-1].path == "/v1beta1/publishers/google/models?pageSize=200"
        assert (await examine(provider, deep=True)).ok
        assert vendor.seen[-1].path.endswith(":generateContent")
    async with vertex(default_model=CLAUDE) as provider:
        vendor.seen.clear()
        result = await examine(provider)
        assert (result.ok, "house-1" in result.message, vendor.seen) == (True, True, [])
        assert (await examine(provider, deep=True)).ok
        assert vendor.seen[-1].path.endswith(":rawPredict")


async def test_credentials_are_not_pickled(vertex, vendor, credentials, ask):
    async with vertex() as provider:
        await call(provider, ask)
        written = pickle.dumps(provider)
    assert b"token-1" not in written
    async with pickle.loads(written) as copy:
        with pytest.raises(MissingCredentials, match="not pickled"):
            await call(copy, ask)


async def test_a_conversation_with_tools_is_sent_back(vertex, vendor):
    call_part = {"functionCall": {"name": "clock", "args": {}, "id": "c-1"}, "thoughtSignature": "c2ln"}
    candidate = {"content": {"role": "model", "parts": [call_part]}, "finishReason": "STOP"}
    vendor.script = lambda exchange: exchange.say({"candidates": [candidate]})
    tools = [Tool(name="clock")]
    ask = Message("user", "time?")
    async with vertex() as provider:
        response = await call(provider, GenerateRequest(messages=[ask], tools=tools))
        result = Message("tool", json.dumps({"at": "12:00"}), tool_call_id=response.tool_calls[0].id)
        await call(provider, GenerateRequest(messages=[ask, response.to_message(), result], tools=tools))
    assert vendor.body["contents"][1]["parts"] == [call_part]
    answer = {"id": "c-1", "name": "clock", "response": {"at": "12:00"}}
    assert vendor.body["contents"][2] == {"role": "user", "parts": [{"functionResponse": answer}]}
