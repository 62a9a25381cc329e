"""What each seat is asked in each phase: pure functions from a plan and earlier results to a request.

Order inside every request, for the sake of vendors' prompt caches: the system turn (role, rules), the task, context and
files, the same for all phases of a run; then the peers' fenced texts; then what to do with them.

Drafts and critiques are free text for every seat: models deliberate better, and cheaper, in prose, and people can read
it. The schema stands in the last phase alone, both as ``structured_output`` and in the prompt, since an adapter may
ignore the former. A seat whose model answers in prose first is never shown the schema: its adapter shapes its prose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from random import Random
from string import ascii_uppercase

import attrs

from llm_council._engine.fences import RULE, derive, joined, masked, neutral, quoted
from llm_council._schema import drop_thinking
from llm_council.models import (
    Critique,
    Draft,
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    Message,
    Phase,
    Plan,
    Problem,
    Ranking,
    SeatSpec,
    StructuredOutput,
    TextPart,
)
from llm_council.models._attrs import copy_with

__all__ = ["critique", "draft", "labelled", "repair", "shorter", "synthesise"]

# Models that answer in prose first are small: short answers, short quotations. Tokens, and characters of one quotation.
_SMALL_TOKENS = {Phase.DRAFT: 120, Phase.CRITIQUE: 60, Phase.RANK: 40, Phase.SYNTHESISE: 160, Phase.REPAIR: 160}
_SMALL_QUOTE = 900

_CRITIQUE = """\
For each draft, check every claim and calculation yourself, and name what is wrong and what is right. \
That drafts agree proves nothing."""

_PROBLEMS = 12  # told in one repair


def draft(plan: Plan, seat: SeatSpec) -> GenerateRequest:
    """Ask for an answer of the seat's own."""
    codes = _codes(plan, seat, Phase.DRAFT)
    if seat.prose_first:
        return _small(plan, seat, Phase.DRAFT, codes, (), plan.task.strip())
    words = f"Answer the task in plain text, completely and briefly.{_fields(plan)} Say where you are unsure."
    return _request(plan, seat, Phase.DRAFT, codes, (words,))


def labelled(plan: Plan, seat: SeatSpec, drafts: Sequence[Draft]) -> dict[str, Draft]:
    """Give the finished drafts of others their labels for one reviewer, in the order in which it will see them.

    Order and labels are shuffled afresh for each reviewer. No two reviewers share a label, so that a reviewer's words
    mean the same draft wherever they are quoted.

    Returns:
        Drafts by label; without the reviewer's own, since nobody reviews itself.
    """
    others = [draft for draft in drafts if draft.error is None and draft.seat != seat.name]
    _chance(plan, "order", seat.name).shuffle(others)
    first = [spec.name for spec in plan.seats].index(seat.name) * len(plan.seats)
    return {_letters(first + index): draft for index, draft in enumerate(others)}


def _letters(index: int) -> str:
    """Number labels as spreadsheets number columns: A to Z, then AA."""
    label = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        label = ascii_uppercase[rest] + label
    return label


def critique(
    plan: Plan, seat: SeatSpec, shown: Mapping[str, Draft], *, phase: Phase = Phase.CRITIQUE
) -> GenerateRequest:
    """Ask for a critique of drafts whose authors are hidden, and for their ranking; in the rank phase for that one."""
    codes = _codes(plan, seat, phase)
    peers = [_quote(plan, seat, codes, f"Draft {label}", draft) for label, draft in shown.items()]
    words = [plan.prompts.critique, _CRITIQUE]
    if phase == Phase.RANK:
        words = ["Work out which draft answers the task best. That drafts agree proves nothing. Give one short reason."]
    elif seat.prose_first:
        words = ["Say what is right and what is wrong in each draft, in one short sentence each."]
    if len(shown) > 1:
        words.append('End with one line: "RANKING:" and all labels, the best draft first, with ">" between them.')
    if seat.prose_first:
        return _small(plan, seat, phase, codes, peers, "\n".join((*words, f"The task was: {plan.task.strip()}")))
    return _request(plan, seat, phase, codes, (*peers, "\n".join(filter(None, words))))


def shorter(plan: Plan, request: GenerateRequest) -> Plan:
    """Return the plan with quotations cut so that a request that was too long becomes a quarter of its length."""
    longest = max(len(turn.text) for turn in request.turns())
    quotations = 2 * len(plan.seats)  # at most a draft and a review from each
    most = max(200, min(plan.limits.peer_text, longest // quotations) // 4)
    return attrs.evolve(plan, limits=attrs.evolve(plan.limits, peer_text=most))


def synthesise(
    plan: Plan, seat: SeatSpec, drafts: Sequence[Draft], critiques: Sequence[Critique], ranking: Ranking
) -> GenerateRequest:
    """Ask for the final answer: what is right in the drafts, without what the reviews showed to be wrong."""
    finished = [draft for draft in drafts if draft.error is None]
    _chance(plan, "chair", seat.name).shuffle(finished)  # the order among equals
    finished.sort(key=lambda draft: -ranking.points.get(draft.seat, 0.0))
    reviews = [review for review in critiques if review.error is None and review.text]
    _chance(plan, "reviews", seat.name).shuffle(reviews)
    codes = _codes(plan, seat, Phase.SYNTHESISE)
    quotes = []
    for number, draft in enumerate(finished, 1):
        names = [label for review in reviews for label, author in review.labels.items() if author == draft.seat]
        called = f" (in reviews: Draft {', '.join(names)})" if names else ""
        quotes.append(_quote(plan, seat, codes, f"Draft {number}{called}", draft))
    for number, review in enumerate(reviews, 1):
        quotes.append(_quote(plan, seat, codes, f"Review {number}", review))
    words = [plan.prompts.synthesise]
    if any(ranking.points.values()) and len(finished) > 1:
        words.append("The drafts stand in the order of the reviewers' ranking, the best first.")
    words.append(
        "Now give the final answer to the task. Keep what is right; leave out what is wrong or was shown to be wrong."
        " Do not mention drafts or reviews."
    )
    if seat.prose_first:
        request = _small(plan, seat, Phase.SYNTHESISE, codes, quotes, plan.task.strip())
        return copy_with(request, structured_output=_structured(plan))
    if plan.schema is not None:
        words.append(f"Answer with one JSON value that meets this JSON Schema, and nothing else:\n{_compact(plan)}")
    request = _request(plan, seat, Phase.SYNTHESISE, codes, (*quotes, "\n".join(filter(None, words))))
    return copy_with(request, structured_output=_structured(plan))


def repair(
    plan: Plan,
    seat: SeatSpec,
    request: GenerateRequest,
    response: GenerateResponse,
    problems: Sequence[Problem],
    *,
    number: int,
) -> GenerateRequest:
    """Ask for a corrected answer: the same conversation, the previous answer, and what is wrong with it.

    Args:
        plan: the run's plan.
        seat: who is asked.
        request: the request that led to the previous answer.
        response: the previous answer.
        problems: what is wrong with it.
        number: which repair of the run this is, from 1.
    """
    text = response.text or ""
    if response.structured is not None:
        text = json.dumps(response.structured, ensure_ascii=False, default=str)
    previous = text[: plan.limits.peer_text]
    told = "\n".join(f"- {_line(problem.path)}: {_line(problem.message)}" for problem in problems[:_PROBLEMS])
    more = f"\n- and {len(problems) - _PROBLEMS} more" if len(problems) > _PROBLEMS else ""
    cut = " It was cut off at the end: be shorter." if response.finish_reason == FinishReason.LENGTH else ""
    ask = "Give the whole answer again, corrected."
    if not seat.prose_first:
        ask = "Reply with the whole corrected JSON value and nothing else."
    turns = (
        *request.messages,
        Message("assistant", (*response.reasoning_parts, TextPart(text=previous))),
        Message("user", f"That answer does not meet the schema:\n{told}{more}\n{cut}\n{ask}".replace("\n\n", "\n")),
    )
    facts = {**request.metadata, "phase": str(Phase.REPAIR), "seat": seat.name}
    key = _key(plan, Phase.REPAIR, seat.name, str(number))
    return attrs.evolve(request, model=seat.model, messages=turns, idempotency_key=key, metadata=facts)


def _small(
    plan: Plan, seat: SeatSpec, phase: Phase, codes: Sequence[str], material: Sequence[str], ask: str
) -> GenerateRequest:
    """Ask a small model: one sentence on who it is, the material in a turn of its own, the question alone at the end.

    Models of a few hundred million parameters answer the last words they read. Asked in the middle of instructions and
    quotations, they go on with those; asked like this, the same model answers the question.
    """
    read = [*_stable(plan, codes)[1:], *material]
    rules = (_brief(plan), (plan.system_context or "").strip(), RULE if read else "")
    turns = [Message("system", "\n".join(filter(None, rules)))]
    if read:
        turns += [Message("user", "\n\n".join(read)), Message("assistant", "I have read it.")]
    return _asked(plan, seat, phase, (*turns, Message("user", ask)))


def _brief(plan: Plan) -> str:
    """Return the role in one sentence."""
    first, dot, _ = " ".join(plan.prompts.system.split()).partition(". ")
    return plan.prompts.brief.strip() or first + dot.strip()


def _request(plan: Plan, seat: SeatSpec, phase: Phase, codes: Sequence[str], parts: Sequence[str]) -> GenerateRequest:
    system = "\n\n".join(filter(None, (plan.prompts.system.strip(), (plan.system_context or "").strip(), RULE)))
    user = "\n\n".join((*_stable(plan, codes), *parts))
    return _asked(plan, seat, phase, (Message("system", system), Message("user", user)))


def _asked(plan: Plan, seat: SeatSpec, phase: Phase, turns: Sequence[Message]) -> GenerateRequest:
    most = plan.max_tokens
    if seat.prose_first:
        most = min(plan.max_tokens or _SMALL_TOKENS[phase], _SMALL_TOKENS[phase])
    return GenerateRequest(
        model=seat.model,
        messages=turns,
        max_tokens=most,
        temperature=plan.temperature,
        reasoning=plan.reasoning,
        idempotency_key=_key(plan, phase, seat.name, str(plan.limits.peer_text)),
        metadata={"run_id": plan.run_id, "phase": str(phase), "seat": seat.name},
    )


def _key(plan: Plan, *call: str) -> str:
    """Name one call: the same on every retry of it, and on no other call of any run."""
    return hashlib.blake2b(joined(plan.seed, plan.run_id, *call), digest_size=16).hexdigest()


def _chance(plan: Plan, *purpose: str) -> Random:
    """Return chance that depends on the run's seed and the purpose alone."""
    return Random(joined(plan.seed, *purpose))


def _codes(plan: Plan, seat: SeatSpec, phase: Phase) -> list[str]:
    """Return the codes of all fences in one request: that of the peers' texts, then those of the files."""
    return [derive(plan, "fence", phase, seat.name), *(derive(plan, "file", str(n)) for n in range(len(plan.files)))]


def _stable(plan: Plan, codes: Sequence[str]) -> list[str]:
    """Write what is the same in every request of a run, the files' codes included."""
    parts = [f"Task:\n{plan.task.strip()}"]
    if plan.context:
        parts.append(f"Context:\n{plan.context.strip()}")
    for file in plan.files:
        codes = [*codes[1:], codes[0]]  # its own first
        parts.append(quoted(f"File {_line(file.name)}", file.text, codes))
    return parts


def _quote(plan: Plan, seat: SeatSpec, codes: Sequence[str], title: str, peer: Draft | Critique) -> str:
    limit = min(plan.limits.peer_text, _SMALL_QUOTE) if seat.prose_first else plan.limits.peer_text
    # Far beyond the limit nothing will be shown: bound the work on an echo bomb first.
    text = masked(plan, _bounded(drop_thinking(peer.text), 4 * limit))
    cut = peer.response is not None and peer.response.finish_reason == FinishReason.LENGTH
    title = f"{title}, incomplete: it was cut off at its end" if cut else title
    return quoted(title, text, codes, limit=limit)


def _bounded(text: str, limit: int) -> str:
    return text if len(text) <= 2 * limit else text[:limit] + text[-limit:]


def _fields(plan: Plan) -> str:
    properties = plan.schema.get("properties") if plan.schema else None
    if not isinstance(properties, Mapping):
        return ""
    names = [str(name).replace("_", " ") for name in properties if name != "reasoning"]
    return f" Cover: {', '.join(names[:12])}." if names else ""


def _compact(plan: Plan) -> str:
    return json.dumps(plan.schema, ensure_ascii=False, separators=(",", ":"))


def _structured(plan: Plan) -> StructuredOutput | None:
    return StructuredOutput(json_schema=plan.schema) if plan.schema is not None else None


def _line(text: str) -> str:
    """Keep a foreign word on its line, and short."""
    return " ".join(neutral(text).split())[:300]
