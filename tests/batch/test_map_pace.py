"""A map whose vendor refuses calls: they wait for their turn, and no task fails."""

from __future__ import annotations

import pytest

from llm_council import Council, CouncilConfig
from llm_council.errors import RateLimited
from llm_council.models import GenerateRequest, RetryPolicy
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio


async def test_calls_that_a_vendor_refuses_are_sent_again_without_a_retry() -> None:
    refused = 0

    def reply(request: GenerateRequest) -> str | Exception:
        nonlocal refused
        if refused < 20:
            refused += 1
            return RateLimited("slow down", status=429, retry_after=0.01)
        return '{"answer": "42", "reasoning": "six times seven"}'

    provider = ScriptedProvider(reply)
    config = CouncilConfig(retry=RetryPolicy(max_retries=0))
    council = Council([provider], config=config, strategy="single")
    results = [result async for result in council.map([f"What is 6 times {number}?" for number in range(60)])]
    assert [result.error for result in results if not result.success] == []
    assert len(results) == 60
    assert len(provider.requests) == 80
