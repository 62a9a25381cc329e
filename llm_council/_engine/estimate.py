"""Estimate the calls, tokens and cost of a plan before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

import attrs

from llm_council._engine import prompts
from llm_council._engine.budget import ANSWER_TOKENS, Price
from llm_council._engine.ranking import tally
from llm_council._engine.request_tokens import input_tokens
from llm_council._engine.seat_texts import SeatTexts
from llm_council.models import Critique, Draft, GenerateRequest, GenerateResponse, Phase, Plan, Problem, SeatSpec, Usage
from llm_council.models._attrs import as_dict
from llm_council.strategies.base import Ask

__all__ = ["Estimate", "estimate", "needs"]


@attrs.frozen(kw_only=True)
class Estimate:
    """What a run may take if every call succeeds at once, with the answers as long as ``answer_tokens``.

    Attributes:
        calls: calls by phase; those of the phase ``repair`` are made only if an answer does not match its schema.
        input_tokens: tokens in, all repairs included; four characters count as a token, and attached files by
            rough figures.
        output_tokens: tokens out, all repairs included.
        answer_tokens: the assumed length of one answer: ``max_tokens``, else 1,000. Answers without a limit may be
            longer.
        is_limited: True if every request limits its answer, so that ``output_tokens`` is a bound.
        usd: the cost of these tokens in US dollars; None if no price is known.
        unpriced: seats whose price is unknown; ``usd`` is without them.
    """

    calls: Mapping[str, int] = attrs.field(factory=dict, converter=as_dict)
    input_tokens: int = 0
    output_tokens: int = 0
    answer_tokens: int = ANSWER_TOKENS
    is_limited: bool = False
    usd: float | None = None
    unpriced: tuple[str, ...] = ()


def estimate(plan: Plan, price: Price) -> Estimate:
    """Estimate a plan by building its prompts with answers of the assumed length.

    Args:
        plan: the plan.
        price: returns the price of a seat's call.
    """
    calls: dict[str, int] = {}
    is_limited = True
    tokens_in = tokens_out = 0
    usd: float | None = None
    unpriced: dict[str, None] = {}
    for phase, seats, request in _requests(plan):
        calls[phase] = calls.get(phase, 0) + 1
        is_limited = is_limited and request.max_tokens is not None
        usage = Usage(input_tokens=input_tokens(request), output_tokens=request.max_tokens or _answer_tokens(plan))
        tokens_in += usage.input_tokens or 0
        tokens_out += usage.output_tokens or 0
        # Where a ranking chooses the seat, the dearest one counts.
        prices = {seat.name: price(seat, usage) for seat in seats}
        unpriced.update(dict.fromkeys(name for name, found in prices.items() if found is None))
        known = [found for found in prices.values() if found is not None]
        if known:
            usd = (usd or 0.0) + max(known)
    return Estimate(
        calls=calls,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        answer_tokens=_answer_tokens(plan),
        is_limited=is_limited,
        usd=usd,
        unpriced=tuple(unpriced),
    )


def needs(plan: Plan, price: Price) -> dict[str, float]:
    """Return what a plan may use, by the names of a budget's limits. An unknown price may be all of the budget."""
    found = estimate(plan, price)
    calls = sum(number for phase, number in found.calls.items() if phase != Phase.REPAIR)
    usd = inf if found.usd is None or found.unpriced else found.usd
    return {"usd": usd, "tokens": found.input_tokens + found.output_tokens, "calls": calls}


def _answer_tokens(plan: Plan) -> int:
    return plan.max_tokens or ANSWER_TOKENS


def _requests(plan: Plan) -> Iterator[tuple[Phase, list[SeatSpec], GenerateRequest]]:
    """Yield the requests of a plan in order, each with the seats that may get it."""
    words = GenerateResponse(text="word " * (_answer_tokens(plan) * 4 // 5))
    drafts = [Draft(seat=name, response=words) for name in plan.drafters]
    for name in plan.drafters * plan.samples:
        yield Phase.DRAFT, [plan.seat(name)], prompts.draft_request(plan, plan.seat(name))
    reviews, texts = [], SeatTexts(plan)
    phase = Phase.RANK if Phase.RANK in plan.phases else Phase.CRITIQUE
    for name in plan.reviewers:
        shown = prompts.label_drafts(plan, plan.seat(name), drafts)
        if shown:
            request = prompts.critique_request(plan, plan.seat(name), shown, phase=phase, texts=texts)
            yield phase, [plan.seat(name)], request
            labels = {label: draft.seat for label, draft in shown.items()}
            reviews.append(Critique(seat=name, labels=labels, response=words))
    for asked, names in plan.asks.items():
        phase = Phase(asked)
        for number, name in enumerate(names, 1):
            question = Ask(seat=name, instructions="", show=drafts, phase=phase)
            call = f"{phase}/{name}/{number}"
            shown_texts = prompts.label_texts(plan, call, drafts)
            request = prompts.question_request(plan, plan.seat(name), question, shown_texts, name=call, texts=texts)
            yield phase, [plan.seat(name)], request
    if Phase.SYNTHESISE not in plan.phases:
        if Phase.REPAIR in plan.phases and plan.drafters:
            seat = plan.seat(plan.drafters[0])
            yield from _repairs(plan, [seat], prompts.draft_request(plan, seat), words)
        return
    chairs = [plan.seat(name) for name in (plan.chairs if plan.chair_by_rank else plan.chairs[:1])]
    ranking = tally((), list(plan.drafters))
    # After a vote, the chair sees the winning draft alone.
    seen = (drafts[:1], []) if Phase.RANK in plan.phases else (drafts, reviews)
    request = prompts.synthesis_request(plan, chairs[0], *seen, ranking, texts=texts)
    yield Phase.SYNTHESISE, chairs, request
    yield from _repairs(plan, chairs, request, words)


def _repairs(
    plan: Plan, seats: list[SeatSpec], request: GenerateRequest, answer: GenerateResponse
) -> Iterator[tuple[Phase, list[SeatSpec], GenerateRequest]]:
    """Yield the repairs of an invalid answer to a request."""
    problem = Problem(path="$", message="is missing a required property")
    for number in range(1, plan.max_repairs + 1 if Phase.REPAIR in plan.phases else 1):
        request = prompts.repair_request(plan, seats[0], request, answer, [problem], number=number)
        yield Phase.REPAIR, seats, request
