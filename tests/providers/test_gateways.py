"""Hosted gateways are rows: every row is a class with an entry point, and sends what its vendor takes."""

import importlib.util
import inspect
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pytest

from llm_council import get_provider
from llm_council.errors import CapabilityMissing, InvalidOption, MissingCredentials
from llm_council.models import (
    ImagePart,
    Message,
    ProviderCapabilities,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    TextPart,
    join,
)
from llm_council.providers import gateways, registry
from llm_council.providers.base import GenerateRequest, call, examine, stream

pytestmark = pytest.mark.slow

NAMES = sorted(gateways.rows())
HOSTED = [name for name in NAMES if gateways.rows()[name].needs_key]
KEY = "house-key-0123456789"
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for row in gateways.rows().values():
        for variable in (row.base_url_env, row.api_key_env):
            if variable:
                monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_a_class_with_its_facts(name):
    row = gateways.rows()[name]
    cls = getattr(gateways, row.class_name)
    assert cls is registry.get_class(name)
    assert cls is getattr(gateways, row.class_name)  # made once
    assert (cls.__name__, cls.__module__, cls.name) == (row.class_name, gateways.__name__, name)
    assert row.class_name in dir(gateways)
    assert inspect.getdoc(cls) == row.doc
    assert all(variable in row.doc for variable in (row.api_key_env, row.base_url_env) if variable)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", row.since)
    assert row.base_url.startswith("https://") or row.base_url_env
    assert set(row.without) <= {field.name for field in attrs.fields(ProviderCapabilities)}


def test_rows_and_entry_points_agree():
    declared = tomllib.loads(PROJECT.read_text())["project"]["entry-points"][registry.GROUP]
    ours = {name: value for name, value in declared.items() if "gateways" in value}
    assert ours == {name: f"{gateways.__name__}:{row.class_name}" for name, row in gateways.rows().items()}
    installed = {point.name: point.value for point in entry_points(group=registry.GROUP)}
    assert ours.items() <= installed.items()


def test_there_is_no_other_class():
    with pytest.raises(AttributeError, match="NoSuchProvider"):
        gateways.NoSuchProvider  # noqa: B018
    with pytest.raises(TypeError, match="no_such_fact"):
        gateways.Row(class_name="X", doc="", since="", api_key_env="X", no_such_fact=True)


@pytest.fixture
def project(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text(PROJECT.read_text())
    return path


def test_the_command_writes_what_is_missing_and_removes_what_is_stale(project, capsys):
    fresh = project.read_text()
    assert gateways.main(["--check", str(project)]) == 0
    stale = re.sub(r"(?m)^groq = .*\n", 'gone = "llm_council.providers.gateways:GoneProvider"\n', fresh)
    project.write_text(stale)
    assert gateways.main(["--check", str(project)]) == 1
    assert project.read_text() == stale
    assert gateways.main(["--write", str(project)]) == 0
    assert project.read_text() == fresh
    assert "are stale" in capsys.readouterr().out


def test_the_command_writes_into_an_empty_table(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text('[project.entry-points."llm_council.providers"]\nmine = "a:B"\n\n[tool.x]\ny = 1\n')
    assert gateways.main(["--write", str(path)]) == 0
    found = tomllib.loads(path.read_text())
    assert set(found["project"]["entry-points"][registry.GROUP]) == {"mine", *NAMES}
    assert found["tool"] == {"x": {"y": 1}}
    path.write_text("[project]\n")
    with pytest.raises(ValueError, match="not in list"):
        gateways.main(["--write", str(path)])


@pytest.mark.parametrize("name", HOSTED)
def test_a_key_and_an_address_are_needed(name):
    row = gateways.rows()[name]
    with pytest.raises(MissingCredentials, match=row.api_key_env):
        get_provider(name, base_url="https://x.example").check()
    provider = get_provider(name, api_key=KEY)
    if row.base_url:
        provider.check()
        assert provider.base_url == row.base_url
    else:
        with pytest.raises(InvalidOption, match=row.base_url_env):
            provider.check()


def test_an_address_without_a_path_gets_the_gateways_own(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://house.openai.azure.com/")
    monkeypatch.setenv("OLLAMA_BASE_URL", "https://gpu.example.com")
    assert get_provider("azure-openai").base_url == "https://house.openai.azure.com/openai/v1"
    assert get_provider("ollama-openai").base_url == "https://gpu.example.com/v1"
    assert (
        get_provider("azure-openai", base_url="https://proxy.example/azure").base_url == "https://proxy.example/azure"
    )
    assert get_provider("groq", base_url="https://proxy.example").base_url == "https://proxy.example"


def test_a_token_for_another_purpose_seats_nobody(monkeypatch):
    for name in HOSTED:
        monkeypatch.setenv(gateways.rows()[name].api_key_env, KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    assert registry.with_keys() == ()
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    assert registry.with_keys() == ("openrouter",)


def test_choosing_seats_does_not_import_the_gateways(python):
    script = """
        import os, sys
        os.environ["OPENAI_API_KEY"] = "house-key-0123456789"
        from llm_council.providers import registry
        assert registry.with_keys()[-1] == "openai", registry.with_keys()
        assert "llm_council.providers.gateways" not in sys.modules
        """
    assert python(script).stderr == ""


@pytest.mark.slow
def test_the_module_is_a_command(python):
    script = """
        import runpy, sys
        sys.argv = ["gateways", "--check", sys.argv[1]]
        runpy.run_module("llm_council.providers.gateways", run_name="__main__")
        """
    assert importlib.util.find_spec("llm_council.providers.gateways")
    done = python(script, str(PROJECT))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.anyio
@pytest.mark.parametrize("name", NAMES)
async def test_a_gateway_is_called_as_it_wants(name, vendor, monkeypatch, ask):
    row = gateways.rows()[name]
    monkeypatch.setenv(row.api_key_env, KEY)
    async with get_provider(name, base_url=vendor.url, default_model="m") as provider:
        assert (await call(provider, attrs.evolve(ask, max_tokens=9))).text == "42"
        token_field = {"groq", "cerebras", "azure-openai"} & {name}
        assert vendor.body["max_completion_tokens" if token_field else "max_tokens"] == 9
        sent = vendor.headers
        if row.key_header:
            assert (sent[row.key_header], sent["Authorization"]) == (KEY, None)
        else:
            assert sent["Authorization"] == f"Bearer {KEY}"
        assert "".join([chunk.text async for chunk in stream(provider, ask)]) == "42"
        assert ("stream_options" in vendor.body) is row.stream_usage
        assert (await examine(provider)).ok
        assert KEY not in repr(provider)
    assert {exchange.path for exchange in vendor.seen} == {"/v1/chat/completions", "/v1/models"}


@pytest.mark.anyio
async def test_azure_takes_a_token_of_entra_id(vendor, ask):
    signed = {"Authorization": f"Bearer {KEY}"}
    async with get_provider(
        "azure-openai", base_url=vendor.url, default_model="gpt-5-mini", headers=signed
    ) as provider:
        await call(provider, attrs.evolve(ask, temperature=0.5))
    assert (vendor.headers["Authorization"], vendor.headers["api-key"]) == (signed["Authorization"], None)
    assert "temperature" not in vendor.body  # a deployment that is named after its model is known by it


SHAPE = StructuredOutput(json_schema={"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "model", "kind", "strict"),
    [
        ("groq", "llama-3.3-70b-versatile", "json_object", None),
        ("groq", "openai/gpt-oss-120b", "json_schema", True),
        ("deepseek", "deepseek-flash", "json_object", None),
        ("together", "openai/gpt-oss-20b", "json_schema", True),
    ],
)
async def test_a_schema_goes_as_far_as_the_vendor_takes_it(name, model, kind, strict, vendor):
    vendor.script = lambda exchange: exchange.answer('{"a": 1}')
    async with get_provider(name, base_url=vendor.url, api_key=KEY) as provider:
        await call(provider, GenerateRequest(prompt="x", model=model, structured_output=SHAPE))
    wanted = vendor.body["response_format"]
    assert wanted["type"] == kind
    assert wanted.get("json_schema", {}).get("strict") is strict
    assert ("JSON Schema" in vendor.body["messages"][0]["content"]) is (kind == "json_object")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "model", "effort", "sent"),
    [
        ("xai", "grok-4.3", "max", "high"),
        ("xai", "grok-4.20-reasoning", "low", None),
        ("deepseek", "deepseek-flash", "none", None),
        ("deepseek", "deepseek-flash", "max", "max"),
        ("cerebras", "gpt-oss-120b", "low", "low"),
        ("groq", "openai/gpt-oss-120b", "max", "high"),
        ("groq", "qwen/qwen3-32b", "none", "none"),
        ("groq", "qwen/qwen3-32b", "low", None),
        ("groq", "llama-3.3-70b-versatile", "low", None),
        ("mistral", "mistral-small-latest", "medium", "high"),
        ("mistral", "mistral-medium-latest", "none", "none"),
        ("mistral", "mistral-large-latest", "high", None),
        ("mistral", "magistral-medium-latest", "high", None),
    ],
)
async def test_words_of_effort(name, model, effort, sent, vendor):
    asked = GenerateRequest(prompt="x", model=model, reasoning=ReasoningConfig(effort=effort))
    async with get_provider(name, base_url=vendor.url, api_key=KEY) as provider:
        response = await call(provider, asked)
    assert vendor.body.get("reasoning_effort") == sent
    assert bool(response.adjustments) is (sent != effort)


@pytest.mark.anyio
@pytest.mark.parametrize("name", NAMES)
async def test_a_budget_of_reasoning_that_is_not_sent_is_told(name, vendor):
    asked = GenerateRequest(prompt="x", model="m", reasoning=ReasoningConfig(budget_tokens=2048))
    async with get_provider(name, base_url=vendor.url, api_key=KEY) as provider:
        response = await call(provider, asked)
    assert "2048" not in str(vendor.body)
    assert [(change.field, change.action) for change in response.adjustments] == [("reasoning", "dropped")]


@pytest.mark.anyio
@pytest.mark.parametrize(("model", "sent"), [("grok-4.3", None), ("grok-4.20-non-reasoning", ["a", "b", "c", "d"])])
async def test_stop_texts_go_to_the_models_of_xai_that_take_them(model, sent, vendor):
    asked = GenerateRequest(prompt="x", model=model, stop=["a", "b", "c", "d", "e"])
    async with get_provider("xai", base_url=vendor.url, api_key=KEY) as provider:
        response = await call(provider, asked)
    assert vendor.body.get("stop") == sent
    assert [adjustment.field for adjustment in response.adjustments] == ["stop"]


@pytest.mark.anyio
async def test_groqs_raw_reasoning_is_told_from_the_answer(vendor):
    vendor.script = lambda exchange: exchange.answer("<think>hm</think>42")
    async with get_provider("groq", base_url=vendor.url, api_key=KEY, default_model="qwen/qwen3-32b") as provider:
        response = await call(provider, GenerateRequest(prompt="x"))
    assert (response.text, response.reasoning) == ("42", "hm")


@pytest.mark.anyio
async def test_deepseek_gets_its_reasoning_back_and_no_image(vendor):
    message = {"role": "assistant", "content": "42", "reasoning_content": "hm"}
    vendor.script = lambda exchange: exchange.answer(choices=[{"message": message, "finish_reason": "stop"}])
    async with get_provider("deepseek", base_url=vendor.url, api_key=KEY, default_model="m") as provider:
        first = await call(provider, GenerateRequest(prompt="x"))
        await call(provider, GenerateRequest(messages=[Message("user", "x"), first.to_message(), Message("user", "y")]))
        assert vendor.body["messages"][1]["reasoning_content"] == "hm"
        picture = Message("user", [ImagePart(data="AAAA", media_type="image/png")])
        with pytest.raises(CapabilityMissing):
            await call(provider, GenerateRequest(messages=[picture]))
        assert not await provider.supports("multimodal")


def thought(*words, **more):
    return {"type": "thinking", "thinking": [{"type": "text", "text": word} for word in words], **more}


async def told_again(provider, first):
    """The assistant's turn that a provider makes of its own answer."""
    again = [Message("user", "x"), first.to_message(), Message("user", "y")]
    await call(provider, GenerateRequest(messages=again))


@pytest.mark.anyio
async def test_mistral_gets_its_thoughts_back_as_they_came(vendor):
    thinking = thought("Let me see.", closed=True, signature="sig-1")
    thinking["thinking"].append({"type": "tool_reference", "tool": "web_search", "title": "t"})
    content = [thinking, {"type": "text", "text": "42"}]
    requested = {"id": "D681PevKs", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": content, "tool_calls": [requested]}
    vendor.script = lambda exchange: exchange.answer(choices=[{"message": message, "finish_reason": "tool_calls"}])
    async with get_provider("mistral", base_url=vendor.url, api_key=KEY, default_model="m") as provider:
        first = await call(provider, GenerateRequest(prompt="x"))
        assert (first.text, first.reasoning) == ("42", "Let me see.")
        assert [part.signature for part in first.reasoning_parts] == ["sig-1"]
        await told_again(provider, first)
    turn = vendor.body["messages"][1]
    assert turn["content"] == content
    assert [call["id"] for call in turn["tool_calls"]] == ["D681PevKs"]
    assert turn.keys() == {"role", "content", "tool_calls"}


@pytest.mark.anyio
async def test_mistral_gets_the_thoughts_of_a_stream_back_in_one_piece(vendor):
    def script(exchange):
        exchange.begin_stream()
        for piece in ([thought("Let me")], [thought(" see.")], [thought(closed=True, signature="sig-1")], "4", "2"):
            exchange.piece(piece)
        exchange.piece(finish="stop")
        exchange.end_stream()

    vendor.script = lambda exchange: script(exchange) if exchange.body.get("stream") else exchange.answer()
    async with get_provider("mistral", base_url=vendor.url, api_key=KEY, default_model="m") as provider:
        first = join([chunk async for chunk in stream(provider, GenerateRequest(prompt="x"))])
        assert (first.text, first.reasoning) == ("42", "Let me see.")
        await told_again(provider, first)
    sent = vendor.body["messages"][1]["content"]
    assert sent == [thought("Let me see.", closed=True, signature="sig-1"), {"type": "text", "text": "42"}]


@pytest.mark.anyio
@pytest.mark.parametrize("name", [name for name in NAMES if gateways.rows()[name].echo is None])
async def test_other_gateways_get_no_thoughts_back(name, vendor):
    message = {"role": "assistant", "content": [thought("hm"), {"type": "text", "text": "42"}]}
    vendor.script = lambda exchange: exchange.answer(choices=[{"message": message, "finish_reason": "stop"}])
    async with get_provider(name, base_url=vendor.url, api_key=KEY, default_model="m") as provider:
        first = await call(provider, GenerateRequest(prompt="x"))
        assert (first.text, first.reasoning, first.reasoning_parts) == ("42", "hm", ())
        foreign = ReasoningPart(text="hm", vendor="mistral", data=thought("hm"))
        turns = [Message("user", "x"), Message("assistant", [foreign, TextPart(text="42")]), Message("user", "y")]
        await call(provider, GenerateRequest(messages=turns))
    assert vendor.body["messages"][1] == {"role": "assistant", "content": "42"}
