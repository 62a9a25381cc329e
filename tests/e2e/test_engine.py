"""The embedded engine itself: answers follow their schemas, streams work, processes end, errors are clear."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from strategies import number_of_examples

from llm_council import subagents
from llm_council._schema import compile as compiled
from llm_council.errors import CommandFailed, ContextTooLong
from llm_council.models import FinishReason, GenerateRequest, StructuredOutput
from llm_council.providers._local import engine as local_engine
from llm_council.providers._local.weights import ENV
from llm_council.providers.base import call, examine, stream
from llm_council.providers.local import LocalProvider

SEEDS = range(20)


def roles():
    """Return the schema of every subagent and mode, each once."""
    found = {}
    for info in subagents.names():
        for mode in (None, *info.modes):
            schema = subagents.load(info.name, mode).schema
            if schema is not None:
                found.setdefault(json.dumps(schema), pytest.param(schema, id=f"{info.name} {mode or ''}".strip()))
    return list(found.values())


def asked(schema=None, **facts):
    wanted = StructuredOutput(json_schema=schema) if schema else None
    return GenerateRequest(**{"prompt": "Do it.", "structured_output": wanted, **facts})


def in_loop(function):
    """Run ``function(provider)`` with a new provider."""

    async def main():
        async with LocalProvider() as provider:
            return await function(provider)

    return anyio.run(main)


@pytest.mark.parametrize("schema", roles())
def test_a_model_that_writes_noise_meets_every_schema_at_the_first_try(tiny, schema):
    check = compiled(schema)

    async def every_seed(provider):
        for seed in SEEDS:
            response = await call(provider, asked(schema, extra={"seed": seed}))
            assert response.finish_reason is FinishReason.STOP, seed
            assert check.problems(response.structured) == (), seed
            assert check.read(response.text).value == response.structured

    in_loop(every_seed)


@pytest.mark.parametrize("schema", roles()[:3])
def test_prose_first_returns_the_prose_and_its_json(tiny_models, monkeypatch, schema):
    monkeypatch.setenv(ENV, str(tiny_models("smollm2-noise", seed=3)))
    check = compiled(schema)

    async def some_seeds(provider):
        for seed in range(4):
            response = await call(provider, asked(schema, max_tokens=40, extra={"seed": seed}))
            assert check.problems(response.structured) == ()
            assert check.read(response.text).value != response.structured
            assert response.usage.output_tokens > 40  # of both calls

    in_loop(some_seeds)


def test_the_engine_obeys_every_bounded_schema(tiny):
    """The engine ignores a schema with an unknown keyword without an error, so none may be sent."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "providers" / "local"))
    try:
        from test_bounding import shapes
    finally:
        sys.path.pop(0)

    with anyio.from_thread.start_blocking_portal() as portal:
        provider = LocalProvider()

        @settings(
            max_examples=number_of_examples(150),
            deadline=None,
            database=None,
            derandomize=settings().derandomize,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(shapes())
        def obeyed(schema):
            if not isinstance(schema, dict) or "é" in json.dumps(schema, ensure_ascii=False):
                return  # a name that noise has no bytes for
            schema = {"$defs": {"t": {"type": "string", "minLength": 1}}, **schema}
            response = portal.call(call, provider, asked(schema, extra={"seed": 1}))
            reasons = [change.reason for change in response.adjustments]
            if not any("no value can be described" in reason for reason in reasons):
                json.loads(response.text)
                assert reasons or compiled(schema).problems(response.structured) == ()

        try:
            obeyed()
        finally:
            portal.call(provider.aclose)


def test_omitted_keywords_are_reported(tiny):
    schema = {"type": "object", "properties": {"a": {"type": "string", "not": {"const": "x"}}}, "required": ["a"]}

    async def one(provider):
        (adjustment,) = (await call(provider, asked(schema))).adjustments
        assert (adjustment.field, adjustment.action) == ("structured_output", "projected")
        assert "$.properties.a: not" in adjustment.reason

    in_loop(one)


def test_a_stream_equals_the_whole_answer(tiny):
    schema = subagents.load("advisor").schema

    async def both(provider):
        for wanted in (None, schema):
            request = asked(wanted, max_tokens=200, temperature=0.0)
            whole = await call(provider, request)
            pieces = [piece async for piece in stream(provider, request)]
            assert "".join(piece.text for piece in pieces) == whole.text
            # Words that come while the reader is busy come as one piece: of how many, a busy machine decides.
            assert len([piece for piece in pieces if piece.text]) > 1
            assert [piece.structured for piece in pieces if piece.structured] == ([whole.structured] if wanted else [])

    in_loop(both)


def test_calls_run_at_the_same_time(tiny):
    async def many(provider):
        async def one(number):
            answers[number] = (await call(provider, asked(prompt=f"Say {number}.", max_tokens=30))).text

        answers = {}
        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(one, number)
        assert len(answers) == 12
        assert len(local_engine._engines) == 1

    in_loop(many)


def test_a_prompt_that_is_too_long_is_refused(tiny):
    async def one(provider):
        with pytest.raises(ContextTooLong):
            await call(provider, asked(prompt="risk " * 6000))

    in_loop(one)


def test_a_file_that_is_not_a_model_is_reported(tmp_path, monkeypatch):
    path = tmp_path / "junk.gguf"
    path.write_bytes(b"GGUF" + bytes(200))
    monkeypatch.setenv(ENV, str(path))

    async def one(provider):
        with pytest.raises(CommandFailed, match=r"could not load .*junk\.gguf") as caught:
            await call(provider, asked())
        assert "error loading model" in caught.value.stderr_tail

    in_loop(one)


def test_an_engine_killed_during_an_answer_is_reported_and_restarted(tiny):
    async def one(provider):
        await call(provider, asked(max_tokens=5))
        (engine,) = local_engine._engines.values()

        async def kill():
            await anyio.sleep(0.05)
            os.kill(engine.pid, signal.SIGKILL)

        async with anyio.create_task_group() as group:
            group.start_soon(kill)
            with pytest.raises(CommandFailed, match="signal 9") as caught:
                await call(provider, asked(max_tokens=3000, extra={"ignore_eos": True}))
        assert caught.value.retryable
        assert (await call(provider, asked(max_tokens=5))).text

    in_loop(one)


def test_the_engine_refuses_calls_without_its_key(tiny):
    import httpx

    async def one(provider):
        await call(provider, asked(max_tokens=5))
        (engine,) = local_engine._engines.values()
        assert httpx.get(f"{engine.address}/v1/models", trust_env=False).status_code == 401
        assert httpx.get(f"{engine.address}/props", trust_env=False).status_code == 401

    in_loop(one)


def test_blocking_calls_and_the_doctor_work(tiny):
    with LocalProvider() as provider:
        assert provider.doctor_sync().ok
        assert "not started" in provider.doctor_sync().message
        assert provider.generate_sync(asked(max_tokens=5)).text
        assert "running at" in provider.doctor_sync().message
        assert provider.doctor_sync(deep=True).ok
    assert not local_engine._engines
    assert anyio.run(examine, LocalProvider()).ok


@pytest.mark.parametrize("how", ["kill", "leave"])
def test_the_engine_ends_with_the_program(tiny, how):
    code = """
        import sys
        from llm_council.models import GenerateRequest
        from llm_council.providers._local import engine as local_engine
        from llm_council.providers.local import LocalProvider

        provider = LocalProvider()
        provider.generate_sync(GenerateRequest(prompt="x", max_tokens=3))
        (engine,) = local_engine._engines.values()
        print(engine.pid, flush=True)
        sys.stdin.read()
    """
    # Not -X dev: it logs a line for every step of asyncio over 0.1 s, which a busy machine takes now and then.
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pid = int(process.stdout.readline())
    if how == "kill":
        process.kill()
    _, err = process.communicate(timeout=30)
    assert how == "kill" or (process.returncode, err) == (0, "")
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_builds_without_llguidance_get_the_schema_in_the_request(tiny, monkeypatch):
    """Some builds know only their own grammar; they get the schema as any server of the dialect does."""
    schema = subagents.load("router").schema
    monkeypatch.setattr("llm_council.providers.local.LLGUIDANCE", "another")

    async def some(provider):
        for seed in range(5):
            response = await call(provider, asked(schema, max_tokens=3000, extra={"seed": seed}))
            assert compiled(schema).problems(response.structured) == ()

    in_loop(some)
