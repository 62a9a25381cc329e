"""Batched under councils: whole councils run in a handful of jobs, phase after phase, at the share of the price."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from batch_vendor import ANSWER_USAGE, BatchProvider, Vendor

from llm_council import Budget, Council, CouncilConfig, pricing
from llm_council.errors import CouncilError, DeadlineTooShort, ServerFailed
from llm_council.middleware import Batched
from llm_council.models import GenerateRequest, GenerateResponse, Usage
from llm_council.results import CouncilResult

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

DAY = Budget(deadline=86_400)


async def hurry(seconds: float) -> None:
    """Sleep as long as between two looks at the gathered calls, but not for looks at a job."""
    await anyio.sleep(seconds if seconds <= 0.1 else 0.01)


def batched(vendor: Vendor, journal: Path, **options: Any) -> Batched:
    return Batched(BatchProvider(vendor), journal=journal, **{"sleep": hurry, "window": 600.0, **options})


async def run_all(council: Council, count: int, **options: Any) -> list[CouncilResult[Any]]:
    results: list[Any] = [None] * count

    async def one(number: int) -> None:
        results[number] = await council.arun(f"Task {number}: name a colour.", strategy="synthesize", **options)

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(one, number)
    return results


def answer_a_council(request: GenerateRequest) -> GenerateResponse | CouncilError:
    return GenerateResponse(text="Blue, because of the sky. Ranking: A > B", finish_reason="stop")


async def test_runs_at_once_need_one_job_a_phase_without_waiting_for_the_window(tmp_path: Path) -> None:
    vendor = Vendor(answer_a_council)
    council = Council([batched(vendor, tmp_path / "jobs.db")] * 3, budget=DAY)
    results = await run_all(council, 12)
    assert [result.status for result in results] == ["completed"] * 12
    phases = len(results[0].phases)
    assert phases >= 2
    assert len(vendor.jobs) <= 2 * phases
    assert vendor.paid.total() == sum(len(job.calls) for job in vendor.jobs.values())


async def test_a_council_in_jobs_costs_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def price(address: str, model: str, usage: Usage) -> float:
        return (usage.total_tokens or 0) / 1e6

    monkeypatch.setattr(pricing, "look_up", price)
    provider = batched(Vendor(answer_a_council), tmp_path / "jobs.db")
    provider.inner.base_url = "https://vendor.example/v1"  # type: ignore[attr-defined]
    provider.inner.default_model = "m"  # type: ignore[attr-defined]
    (result,) = await run_all(Council([provider] * 3, budget=DAY), 1)
    calls = sum(len(seat.calls) for seat in result.seats)
    assert result.cost.usd == pytest.approx(0.5 * calls * (ANSWER_USAGE.total_tokens or 0) / 1e6)
    assert result.cost.share == 0.5


async def test_calls_that_fail_are_gathered_into_one_more_job(tmp_path: Path) -> None:
    failed: set[str] = set()

    def answer(request: GenerateRequest) -> GenerateResponse | CouncilError:
        prompt = request.turns()[-1].text
        if "Task 3" in prompt and prompt not in failed:
            failed.add(prompt)
            return ServerFailed("overloaded", status=503)
        return answer_a_council(request)

    vendor = Vendor(answer)
    council = Council([batched(vendor, tmp_path / "jobs.db")], budget=DAY)
    results = await run_all(council, 8)
    assert [result.status for result in results] == ["completed"] * 8
    assert failed


async def test_a_council_that_runs_again_with_its_journal_pays_nothing_twice(tmp_path: Path) -> None:
    vendor = Vendor(answer_a_council)
    config = CouncilConfig(seed="seven")  # else the next run shows the drafts in another order, and asks something else
    first = await run_all(Council([batched(vendor, tmp_path / "jobs.db")] * 2, config=config, budget=DAY), 4)
    paid, jobs = vendor.paid.total(), len(vendor.jobs)
    again = await run_all(Council([batched(vendor, tmp_path / "jobs.db")] * 2, config=config, budget=DAY), 4)
    assert [result.text for result in again] == [result.text for result in first]
    assert (vendor.paid.total(), len(vendor.jobs)) == (paid, jobs)


async def test_the_tasks_of_a_map_share_the_jobs_of_their_phases(tmp_path: Path) -> None:
    vendor = Vendor(answer_a_council)
    council = Council([batched(vendor, tmp_path / "jobs.db")] * 3, budget=DAY)
    tasks = [f"Task {number}: name a colour." for number in range(150)]  # more than a map starts of direct calls
    results = [result async for result in council.map(tasks, strategy="synthesize")]
    assert [str(result.status) for result in results] == ["completed"] * 150
    assert len(vendor.jobs) <= 2 * len(results[0].phases)


async def test_a_job_waits_for_the_tasks_that_an_iterator_is_about_to_bring(tmp_path: Path) -> None:
    vendor = Vendor(answer_a_council)
    council = Council([batched(vendor, tmp_path / "jobs.db")], budget=DAY)

    async def tasks() -> AsyncIterator[str]:
        for number in range(3):
            await anyio.sleep(0.3)  # a job is sent after two looks without a change, 0.1 s apart
            yield f"Task {number}: name a colour."

    results = [result async for result in council.map(tasks(), strategy="single")]
    assert all(result.success for result in results)
    assert len(vendor.jobs) == 1


async def test_a_map_with_a_short_deadline_is_refused_before_a_task_is_taken(tmp_path: Path) -> None:
    council = Council([batched(Vendor(), tmp_path / "jobs.db")])
    with pytest.raises(DeadlineTooShort):
        council.map(["a", "b"])


async def test_a_streamed_run_shows_each_answer_at_once(tmp_path: Path) -> None:
    from llm_council.events import TextDelta

    council = Council([batched(Vendor(answer_a_council), tmp_path / "jobs.db")] * 2, budget=DAY)
    stream = council.stream("Name a colour.", strategy="synthesize")
    shown = [event.text async for event in stream if isinstance(event, TextDelta)]
    assert shown
    assert all(text.startswith("Blue") for text in shown)


SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}


def answer_by_schema(request: GenerateRequest) -> GenerateResponse:
    """Answer by the schema, save that one chair in fifty has to be asked again."""
    prompt = request.turns()[-1].text
    number = re.search(r"Task (\d+):", "".join(turn.text for turn in request.turns()))
    is_bad = number is not None and int(number[1]) % 50 == 3 and request.metadata.get("phase") == "synthesise"
    text = "I cannot decide." if is_bad else '{"colour": "blue"}'
    return GenerateResponse(text=text if prompt else "", finish_reason="stop")


class DirectProvider(BatchProvider):
    """The same vendor, called directly."""

    base_url = "https://vendor.example/v1"
    default_model = "m"

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        return attrs.evolve(answer_by_schema(request), usage=ANSWER_USAGE)


async def check_many_councils(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(pricing, "look_up", lambda address, model, usage: (usage.total_tokens or 0) / 1e6)
    vendor = Vendor(answer_by_schema)
    provider = Batched(DirectProvider(vendor), journal=tmp_path / "jobs.db", sleep=hurry, window=600.0)
    results = await run_all(Council([provider] * 3, budget=DAY), count, schema=SCHEMA)
    assert {str(result.status) for result in results} == {"completed"}
    phases = {timing.phase for result in results for timing in result.phases}
    assert "repair" in phases
    assert len(vendor.jobs) <= 2 * len(phases)
    assert vendor.paid.total() == sum(len(seat.calls) for result in results for seat in result.seats)
    direct = await run_all(Council([DirectProvider()] * 3, budget=DAY), count, schema=SCHEMA)
    paid, full = (sum(result.cost.usd or 0.0 for result in each) for each in (results, direct))
    assert paid == pytest.approx(full / 2)
    assert full > 0


async def test_councils_with_repairs_need_a_handful_of_jobs_and_half_the_money(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check_many_councils(tmp_path, monkeypatch, 6)


@pytest.mark.slow
async def test_a_thousand_councils_need_a_handful_of_jobs_and_half_the_money(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check_many_councils(tmp_path, monkeypatch, 1000)
