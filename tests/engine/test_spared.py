"""Calls that a run did not need: how many they are, and about what they would have cost."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council.models import GenerateResponse, SeatSpec, Usage
from llm_council.results import CouncilResult
from llm_council.results.plain import vote_line
from llm_council.strategies import Escalate, Poll, Revise, Sample
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

NUMBER = {"type": "number"}
DEAR = {"ann": 1e-6, "bob": 1e-6, "cid": 5e-5, "dot": 5e-5}


def council_of(table: Any, *answers: int) -> Any:
    usage = Usage(input_tokens=100, output_tokens=20)
    seats = zip(DEAR, answers, strict=False)
    texts = {name: GenerateResponse(text=f"ANSWER: {answer}", usage=usage) for name, answer in seats}
    return table(**{name: ScriptedProvider(text) for name, text in texts.items()})


def price(seat: SeatSpec, usage: Usage) -> float | None:
    return DEAR[seat.name] * ((usage.input_tokens or 0) + (usage.output_tokens or 0))


@pytest.mark.parametrize(
    ("strategy", "answers", "calls", "usd"),
    [
        (Escalate(), (7, 7, 7, 7), 2, 2 * 120 * 5e-5),
        (Escalate(), (7, 8, 7, 7), 0, None),
        (Escalate(last="revise"), (7, 7, 7), 1 + 3, 120 * 5e-5 + 120 * (2e-6 + 5e-5)),
        (Poll(hurry=False), (7, 7, 9), 1, 120 * 5e-5),
        (Poll(), (7, 7, 7), 0, None),
        (Sample(), (7,), 2, 2 * 120 * 1e-6),
        (Revise(rounds=2), (7, 7), 4, 120 * 4e-6),
    ],
)
async def test_calls_that_were_not_needed_are_counted_and_priced(table, strategy, answers, calls, usd):
    result = await council_of(table, *answers).run(strategy=strategy, schema=NUMBER, price=price)
    assert result.spared_calls == calls
    assert result.spared_usd == (None if usd is None else pytest.approx(usd))
    again = CouncilResult.from_dict(result.to_dict())
    assert (again.spared_calls, again.spared_usd) == (result.spared_calls, result.spared_usd)


async def test_without_a_price_the_calls_are_counted_alone(table):
    result = await council_of(table, 7, 7, 7).run(strategy=Escalate(), schema=NUMBER)
    assert (result.spared_calls, result.spared_usd) == (1, None)
    assert vote_line(result) == "2 of 2 agree; 1 of 3 were not asked for"


async def test_the_line_about_the_vote_tells_what_was_spared(table):
    result = await council_of(table, 7, 7, 7).run(strategy=Escalate(), schema=NUMBER, price=price)
    assert (vote_line(result) or "").endswith("1 of 3 were not asked for; which spared about 0.0060 USD")


async def test_a_failed_run_spares_nothing(table):
    result = await table(ann=ScriptedProvider("x"), bob=ScriptedProvider("y"), cid=ScriptedProvider("z")).run(
        strategy=Poll(abstain_below=1.0), schema=NUMBER
    )
    assert (result.success, result.spared_calls, result.spared_usd) == (False, 0, None)
