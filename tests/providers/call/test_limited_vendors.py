"""Many runs against vendors with limits of their own, on real sockets: no task fails, and few calls are refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import pytest

from llm_council import Council, CouncilConfig
from llm_council.models import RetryPolicy
from llm_council.providers._call.pace import Pace
from llm_council.providers._call.pacing import Pacer
from llm_council.providers.compatible import OpenAICompatibleProvider

pytestmark = [pytest.mark.slow, pytest.mark.anyio]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield import_module("limited")
    sys.modules.pop("limited", None)


async def run_all(url: str, tasks: int) -> tuple[list[Any], Pace]:
    """Run many tasks on one seat without retries; return the results, and the pace at the end."""
    provider = OpenAICompatibleProvider(name="vendor", base_url=f"{url}/v1", default_model="m")
    config = CouncilConfig(retry=RetryPolicy(max_retries=0))
    results, pacer = [], Pacer()
    async with Council([provider], config=config, strategy="single") as council:

        async def one(number: int) -> None:
            results.append(await council.arun(f"What is 6 times {number}?"))

        with pacer.active():
            async with anyio.create_task_group() as group:
                for number in range(tasks):
                    group.start_soon(one, number)
    return results, pacer.pace_of(provider)


@pytest.mark.parametrize("status", [429, 529])
async def test_a_vendor_that_takes_ten_calls_at_a_time_answers_many_more(limited: Any, status: int) -> None:
    with limited.serving(limited.Slots(10, status), 0.1) as vendor:
        results, _ = await run_all(vendor.url, 150)
    assert [result.error for result in results if not result.success] == []
    assert vendor.served == 150
    # 14 of the first 24, which are sent before anything is known; then one in about fifteen.
    assert vendor.refused <= 14 + 150 * 0.15


async def test_a_rate_per_second_with_a_retry_after_is_kept(limited: Any) -> None:
    with limited.serving(limited.Bucket(20), 0.05) as vendor:
        results, _ = await run_all(vendor.url, 60)
    assert [result.error for result in results if not result.success] == []
    assert vendor.served == 60
    assert vendor.refused <= 14 + 60 * 0.3


async def test_a_vendor_that_says_in_headers_alone_what_is_left_refuses_only_at_first(limited: Any) -> None:
    with limited.serving(limited.Window(20, 0.5), 0.05) as vendor:
        results, _ = await run_all(vendor.url, 100)
    assert [result.error for result in results if not result.success] == []
    assert vendor.served == 100
    assert vendor.refused <= 14 + 100 * 0.1


async def test_a_limit_that_drops_and_grows_back_is_followed(limited: Any) -> None:
    with limited.serving(limited.Slots(lambda accepted: 4 if 60 < accepted < 100 else 20), 0.1) as vendor:
        results, pace = await run_all(vendor.url, 200)
    assert [result.error for result in results if not result.success] == []
    assert vendor.served == 200
    assert vendor.refused <= 14 + 200 * 0.25
    assert pace.limit > 8
