"""Batched with the wires of the vendors: outcomes, expiry, lost replies, and a process that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from batch_vendor import Time

from llm_council import Budget, Council
from llm_council.errors import BatchIncomplete, CouncilError, DeadlineTooShort, RequestRejected
from llm_council.middleware import Batched, Retry
from llm_council.models import GenerateRequest, GenerateResponse, RetryPolicy, StructuredOutput
from llm_council.providers._call import second_way
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.base import ProviderAdapter, call
from llm_council.providers.gateways import MistralProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.testing.servers import Cut, FakeBatchVendor, Hang, Refuse

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PROVIDERS = {
    "openai": (OpenAIProvider, "gpt-4.1"),
    "mistral": (MistralProvider, "mistral-large-2512"),
    "anthropic": (AnthropicProvider, "claude-sonnet-4-5"),
    "gemini": (GeminiProvider, "gemini-2.5-pro"),
}
KEY = "house-key-123456789"


@pytest.fixture(params=sorted(PROVIDERS))
def speaks(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def batched(vendor: FakeBatchVendor, speaks: str, journal: Path, **options: Any) -> Batched:
    cls, model = PROVIDERS[speaks]
    provider = cls(base_url=vendor.url, api_key=KEY, default_model=model, transport=vendor.transport())
    passing = Time()
    return Batched(provider, journal=journal, window=1.0, clock=passing, sleep=passing.sleep, **options)


def number_in(request: GenerateRequest) -> int:
    return int(request.turns()[-1].text.removeprefix("What is ").removesuffix("?"))


def told(request: GenerateRequest) -> str:
    return f"It is {number_in(request)}."


async def ask(provider: ProviderAdapter, count: int) -> list[GenerateResponse | CouncilError]:
    found: list[Any] = [None] * count

    async def one(number: int) -> None:
        try:
            found[number] = await call(provider, GenerateRequest(prompt=f"What is {number}?"))
        except CouncilError as error:
            found[number] = error

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(one, number)
    return found


async def test_each_call_gets_its_own_answer_or_error(speaks: str, tmp_path: Path) -> None:
    def said(request: GenerateRequest) -> Any:
        return Refuse(status=400, message="no") if number_in(request) == 3 else told(request)

    vendor = FakeBatchVendor(speaks, said, polls=2)
    provider = batched(vendor, speaks, tmp_path / "jobs.db")
    found = await ask(provider, 6)
    for number, outcome in enumerate(found):
        if number == 3:
            assert isinstance(outcome, RequestRejected)
        else:
            assert isinstance(outcome, GenerateResponse)
            assert outcome.text == f"It is {number}."
            assert outcome.cost is not None
            assert outcome.cost.share == 0.5
    assert len(vendor.jobs) == 1
    assert not vendor.calls
    assert KEY.encode() not in (tmp_path / "jobs.db").read_bytes()


async def test_a_call_that_expired_is_sent_again_by_retry(speaks: str, tmp_path: Path) -> None:
    asked: list[int] = []

    def said(request: GenerateRequest) -> Any:
        number = number_in(request)
        asked.append(number)
        return Hang() if number == 1 and asked.count(1) <= 2 else told(request)

    vendor = FakeBatchVendor(speaks, said)
    provider = batched(vendor, speaks, tmp_path / "jobs.db")
    found = await ask(provider, 3)
    assert isinstance(found[1], BatchIncomplete)
    asked.clear()
    again = await ask(Retry(provider, RetryPolicy(base=0.0, max_retries=3)), 3)
    assert [outcome.text if isinstance(outcome, GenerateResponse) else outcome for outcome in again] == [
        "It is 0.",
        "It is 1.",
        "It is 2.",
    ]


async def test_a_job_whose_reply_was_lost_is_not_sent_twice(speaks: str, tmp_path: Path) -> None:
    vendor = FakeBatchVendor(speaks, told, hidden=1)
    vendor.on_created = Cut(0.5)
    found = await ask(batched(vendor, speaks, tmp_path / "jobs.db"), 4)
    assert [outcome.text if isinstance(outcome, GenerateResponse) else outcome for outcome in found] == [
        f"It is {number}." for number in range(4)
    ]
    assert len(vendor.jobs) == 1
    assert set(vendor.paid.values()) == {1}


async def test_an_answer_with_a_schema_is_that_of_a_direct_call(speaks: str, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    vendor = FakeBatchVendor(speaks, '{"n": 7}')
    provider = batched(vendor, speaks, tmp_path / "jobs.db")
    wanted = StructuredOutput(json_schema=schema, name="n")
    answer = await call(provider, GenerateRequest(prompt="What is 7?", structured_output=wanted))
    assert json.loads(answer.text or "") == {"n": 7}


async def test_a_refused_schema_stands_in_the_prompt_of_one_more_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_way, "_refused", {})  # what this process remembers

    def said(request: GenerateRequest) -> Any:
        if request.structured_output is not None:
            return Refuse(status=400, message="Invalid schema for response_format: too deep")
        return '{"n": 7}' if "JSON" in str(request.messages) else "no JSON"

    vendor = FakeBatchVendor("openai", said)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "deep": {}}, "required": ["n"]}
    request = GenerateRequest(prompt="Which?", structured_output=StructuredOutput(json_schema=schema, strict=False))
    answer = await call(batched(vendor, "openai", tmp_path / "jobs.db"), request)
    assert answer.text == '{"n": 7}'
    assert [(change.field, change.action) for change in answer.adjustments] == [("structured_output", "emulated")]
    assert len(vendor.jobs) == 2


async def test_a_council_of_a_vendor_runs_in_jobs(speaks: str, tmp_path: Path) -> None:
    vendor = FakeBatchVendor(speaks, "The sky. Ranking: A > B")
    provider = batched(vendor, speaks, tmp_path / "jobs.db")
    with pytest.raises(DeadlineTooShort):
        await Council([provider] * 2).arun("Why blue?", strategy="synthesize")
    assert not vendor.asked
    result = await Council([provider] * 2, budget=Budget(deadline=None)).arun("Why blue?", strategy="synthesize")
    assert result.success
    assert not vendor.calls
    assert len(vendor.jobs) <= 2 * len(result.phases)


PROGRAM = """
import sys, json, anyio
from llm_council import GenerateRequest
from llm_council.middleware import Batched
from llm_council.providers import {module}
from llm_council.providers.base import call

provider = {module}.{cls}(base_url=sys.argv[1], api_key="house-key-123456789", default_model={model!r}, allow_http=True)
batched = Batched(provider, journal=sys.argv[2], window=0.5)
found = {{}}

async def one(number):
    found[number] = (await call(batched, GenerateRequest(prompt=f"What is {{number}}?"))).text

async def main():
    async with anyio.create_task_group() as group:
        for number in range(1000):
            group.start_soon(one, number)
    print(json.dumps(found))

anyio.run(main)
"""


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    programs: list[subprocess.Popen[str]] = []
    yield programs
    for program in programs:
        program.kill()
        program.wait()
        if program.stdout is not None:
            program.stdout.close()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_process_that_is_killed_before_it_read_the_id_of_its_job_pays_nothing_twice(
    speaks: str, tmp_path: Path, started: list[subprocess.Popen[str]], anyio_backend: str
) -> None:
    cls, model = PROVIDERS[speaks]
    source = PROGRAM.format(module=cls.__module__.rpartition(".")[2], cls=cls.__name__, model=model)
    vendor = FakeBatchVendor(speaks, told, polls=2)
    vendor.on_created = Hang()  # the job goes on, and its id never arrives
    with vendor.serve():

        def start() -> subprocess.Popen[str]:
            words = [sys.executable, "-c", source, vendor.url, str(tmp_path / "jobs.db")]
            environment = {**os.environ, "LLM_COUNCIL_ALLOW_HTTP": "1"}
            program = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
            started.append(program)
            return program

        first = start()
        with anyio.fail_after(60):
            while not vendor.jobs:
                await anyio.sleep(0.05)
        first.kill()
        first.wait()
        vendor.on_created = None
        second = start()
        with anyio.fail_after(100):
            output, _ = await anyio.to_thread.run_sync(second.communicate)
    assert json.loads(output) == {str(number): f"It is {number}." for number in range(1000)}
    assert len(vendor.jobs) == 1
    assert len(vendor.paid) == 1000
    assert set(vendor.paid.values()) == {1}
