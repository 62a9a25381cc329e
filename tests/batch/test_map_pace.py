"""A map over more tasks than a vendor takes at a time: refused calls wait for their turn, and no task fails."""

from __future__ import annotations

import anyio
import pytest

from llm_council import Council, CouncilConfig
from llm_council.errors import RateLimited
from llm_council.models import GenerateRequest, RetryPolicy
from llm_council.providers._call.pace import FIRST_LIMIT
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio


async def test_a_vendor_that_takes_five_calls_at_a_time_answers_all_tasks_of_a_map() -> None:
    busy = refused = most = 0

    async def reply(request: GenerateRequest) -> str:
        nonlocal busy, refused, most
        if busy >= 5:
            refused += 1
            raise RateLimited("slow down", status=429)
        busy += 1
        most = max(most, busy)
        await anyio.sleep(0.002)
        busy -= 1
        return '{"answer": "42", "reasoning": "six times seven"}'

    config = CouncilConfig(retry=RetryPolicy(max_retries=0))
    council = Council([ScriptedProvider(reply)], config=config, strategy="single")
    results = [result async for result in council.map([f"What is 6 times {number}?" for number in range(60)])]
    assert [result.error for result in results if not result.success] == []
    assert len(results) == 60
    assert most == 5
    assert refused <= FIRST_LIMIT + 60 * 0.2
