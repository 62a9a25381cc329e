"""The prompts of all phases: pure functions from a plan and earlier results to a request.

Every request has the same order, so that vendors' prompt caches work. The system turn (role, rules) comes first. Task,
context and files follow, which are the same in all phases of a run. The fenced texts of other seats and the instruction
come last.

Drafts and critiques are free text: models deliberate better, and at less cost, in prose, and people can read it. Only
the last phase has the schema, both as ``structured_output`` and in the prompt, because an adapter may ignore the
former. The prompt for a small model (``prose_first``) never holds the schema: its adapter converts its prose. Models
that repeat the marks in a prompt (``plain_prompts``) get none; a stored run from before that rule is asked as it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from random import Random
from string import ascii_uppercase

import attrs

from llm_council._engine import plain_prompts as plain
from llm_council._engine.fences import RULE, derive_code, hide_names, neutralise, quote, to_bytes
from llm_council._schema import drop_thinking, heading_of
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

__all__ = [
    "critique_request",
    "draft_request",
    "label_drafts",
    "repair_request",
    "shorten_quotations",
    "synthesis_request",
]

# Models that answer in prose first are small, and lose track of long texts.
_SMALL_TOKENS = {Phase.DRAFT: 120, Phase.CRITIQUE: 60, Phase.RANK: 40, Phase.SYNTHESISE: 160, Phase.REPAIR: 160}

_CRITIQUE = """\
For each draft, check every claim and calculation yourself, and name what is wrong and what is right. \
That drafts agree proves nothing."""

_MAX_PROBLEMS = 12  # in one repair prompt


def draft_request(plan: Plan, seat: SeatSpec) -> GenerateRequest:
    """Ask a seat for its own answer."""
    if seat.plain_prompts:
        return _build(plan, seat, Phase.DRAFT, plain.ask(plan))
    codes = _codes(plan, seat, Phase.DRAFT)
    if seat.prose_first:
        return _small_request(plan, seat, Phase.DRAFT, codes, (), plan.task.strip())
    words = f"Answer the task in plain text, completely and briefly.{_cover_sentence(plan)} Say where you are unsure."
    return _request(plan, seat, Phase.DRAFT, codes, (words,))


def label_drafts(plan: Plan, seat: SeatSpec, drafts: Sequence[Draft]) -> dict[str, Draft]:
    """Label the successful drafts of other seats for one reviewer, in the order in which it sees them.

    Each reviewer has its own order and its own labels: a label means the same draft wherever a review is quoted.

    Returns:
        Drafts by label, without the reviewer's own.
    """
    others = [draft for draft in drafts if draft.error is None and draft.seat != seat.name]
    _random(plan, "order", seat.name).shuffle(others)
    # A reviewer's range begins after that of the seat before it.
    first = [spec.name for spec in plan.seats].index(seat.name) * len(plan.seats)
    return {_label(first + index): draft for index, draft in enumerate(others)}


def _label(index: int) -> str:
    """Return a label as spreadsheets name their columns: A to Z, then AA."""
    label = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        label = ascii_uppercase[rest] + label
    return label


def critique_request(
    plan: Plan, seat: SeatSpec, shown: Mapping[str, Draft], *, phase: Phase = Phase.CRITIQUE
) -> GenerateRequest:
    """Ask for a critique and a ranking of drafts with hidden authors; in the rank phase for the ranking only."""
    if seat.plain_prompts:
        answers = {label: _plain_answer(plan, draft) for label, draft in shown.items()}
        if phase == Phase.RANK:
            return _build(plan, seat, phase, plain.ask_to_rank(plan, answers))
        return _build(plan, seat, phase, plain.ask_to_review(plan, tuple(answers.values())))
    codes = _codes(plan, seat, phase)
    peers = [_quote_seat(plan, seat, codes, f"Draft {label}", draft) for label, draft in shown.items()]
    words = [plan.prompts.critique, _CRITIQUE]
    if phase == Phase.RANK:
        words = ["Work out which draft answers the task best. That drafts agree proves nothing. Give one short reason."]
    elif seat.prose_first:
        words = ["Say what is right and what is wrong in each draft, in one short sentence each."]
    if len(shown) > 1:
        words.append('End with one line: "RANKING:" and all labels, the best draft first, with ">" between them.')
    if seat.prose_first:
        return _small_request(
            plan, seat, phase, codes, peers, "\n".join((*words, f"The task was: {plan.task.strip()}"))
        )
    return _request(plan, seat, phase, codes, (*peers, "\n".join(filter(None, words))))


def shorten_quotations(plan: Plan, request: GenerateRequest) -> Plan:
    """Return the plan with a lower limit of quotations, which makes a request about a quarter as long."""
    longest = max(len(turn.text) for turn in request.turns())
    quotations = 2 * len(plan.seats)  # at most a draft and a review from each
    most = max(200, min(plan.limits.peer_text, longest // quotations) // 4)
    return attrs.evolve(plan, limits=attrs.evolve(plan.limits, peer_text=most))


def synthesis_request(
    plan: Plan, seat: SeatSpec, drafts: Sequence[Draft], critiques: Sequence[Critique], ranking: Ranking
) -> GenerateRequest:
    """Ask the chair for the final answer from drafts and reviews."""
    finished = [draft for draft in drafts if draft.error is None]
    _random(plan, "chair", seat.name).shuffle(finished)  # the order of equally ranked drafts
    finished.sort(key=lambda draft: -ranking.points.get(draft.seat, 0.0))
    if seat.plain_prompts:
        # Without the reviews: those of such models are noise, and others' name drafts by their labels.
        answers = [_plain_answer(plan, draft) for draft in finished]
        return _with_schema(plan, seat, _build(plan, seat, Phase.SYNTHESISE, plain.ask_again(plan, answers)))
    reviews = [review for review in critiques if review.error is None and review.text]
    _random(plan, "reviews", seat.name).shuffle(reviews)
    codes = _codes(plan, seat, Phase.SYNTHESISE)
    quotes = []
    for number, draft in enumerate(finished, 1):
        names = [label for review in reviews for label, author in review.labels.items() if author == draft.seat]
        called = f" (in reviews: Draft {', '.join(names)})" if names else ""
        quotes.append(_quote_seat(plan, seat, codes, f"Draft {number}{called}", draft))
    for number, review in enumerate(reviews, 1):
        quotes.append(_quote_seat(plan, seat, codes, f"Review {number}", review))
    words = [plan.prompts.synthesise]
    if any(ranking.points.values()) and len(finished) > 1:
        words.append("The drafts stand in the order of the reviewers' ranking, the best first.")
    words.append(
        "Now give the final answer to the task. Keep what is right; leave out what is wrong or was shown to be wrong."
        " Do not mention drafts or reviews."
    )
    if seat.prose_first:
        request = _small_request(plan, seat, Phase.SYNTHESISE, codes, quotes, plan.task.strip())
    else:
        if _writes_headings(plan, seat):
            words.append(_headings_sentence(plan))
        elif plan.schema is not None:
            schema = json.dumps(plan.schema, ensure_ascii=False, separators=(",", ":"))
            words.append(f"Answer with one JSON value that meets this JSON Schema, and nothing else:\n{schema}")
        request = _request(plan, seat, Phase.SYNTHESISE, codes, (*quotes, "\n".join(filter(None, words))))
    return _with_schema(plan, seat, request)


def _with_schema(plan: Plan, seat: SeatSpec, request: GenerateRequest) -> GenerateRequest:
    if plan.schema is None or _writes_headings(plan, seat):
        return request
    return copy_with(request, structured_output=StructuredOutput(json_schema=plan.schema))


def _plain_answer(plan: Plan, draft: Draft) -> str:
    limit = min(plan.limits.peer_text, plain.MOST_SHOWN)
    return plain.shown_answer(hide_names(plan, _ends_of(drop_thinking(draft.text), limit)), limit)


def repair_request(
    plan: Plan,
    seat: SeatSpec,
    request: GenerateRequest,
    response: GenerateResponse,
    problems: Sequence[Problem],
    *,
    number: int,
) -> GenerateRequest:
    """Ask for a corrected answer: the same conversation, the previous answer, and its problems.

    Args:
        plan: the run's plan.
        seat: the seat that is asked.
        request: the request of the previous answer.
        response: the previous answer.
        problems: how it violates the schema.
        number: number of this repair in the run, from 1.
    """
    text = response.text or ""
    # An adapter that returns a parsed value may leave the text empty.
    if response.structured is not None:
        text = json.dumps(response.structured, ensure_ascii=False, default=str)
    previous = text[: plan.limits.peer_text]
    listed = "\n".join(
        f"- {_one_line(problem.path)}: {_one_line(problem.message)}" for problem in problems[:_MAX_PROBLEMS]
    )
    more = f"\n- and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
    cut = " It was cut off at the end: be shorter." if response.finish_reason == FinishReason.LENGTH else ""
    ask = "Give the whole answer again, corrected."
    headings = _writes_headings(plan, seat)
    if headings:
        ask = _headings_sentence(plan)
    elif not seat.prose_first:
        ask = "Reply with the whole corrected JSON value and nothing else."
    fault = "lacks a part" if headings else "does not meet the schema"
    turns = (
        *request.messages,
        # Anthropic refuses signed thinking that was changed, so it goes back as it came.
        Message("assistant", (*response.reasoning_parts, TextPart(text=previous))),
        # ``cut`` may be empty, which would leave an empty line.
        Message("user", f"That answer {fault}:\n{listed}{more}\n{cut}\n{ask}".replace("\n\n", "\n")),
    )
    facts = {**request.metadata, "phase": str(Phase.REPAIR), "seat": seat.name}
    key = _key(plan, Phase.REPAIR, seat.name, str(number))
    return attrs.evolve(request, model=seat.model, messages=turns, idempotency_key=key, metadata=facts)


def _small_request(
    plan: Plan, seat: SeatSpec, phase: Phase, codes: Sequence[str], material: Sequence[str], ask: str
) -> GenerateRequest:
    """Return a request for a small model: one sentence of role, a turn with the material, a turn with the question.

    Models of a few hundred million parameters respond to the last words of the prompt. If the question is followed by
    instructions or quotations, they continue those.
    """
    # Without the task, which the last turn holds.
    read = [*_common_parts(plan, codes)[1:], *material]
    rules = (plain.role_sentence(plan), (plan.system_context or "").strip(), RULE if read else "")
    turns = [Message("system", "\n".join(filter(None, rules)))]
    if read:
        # The chat templates of Gemma and Mistral refuse two turns of the user in a row.
        turns += [Message("user", "\n\n".join(read)), Message("assistant", "I have read it.")]
    return _build(plan, seat, phase, (*turns, Message("user", ask)))


def _request(plan: Plan, seat: SeatSpec, phase: Phase, codes: Sequence[str], parts: Sequence[str]) -> GenerateRequest:
    system = "\n\n".join(filter(None, (plan.prompts.system.strip(), (plan.system_context or "").strip(), RULE)))
    user = "\n\n".join((*_common_parts(plan, codes), *parts))
    return _build(plan, seat, phase, (Message("system", system), Message("user", user)))


def _build(plan: Plan, seat: SeatSpec, phase: Phase, turns: Sequence[Message]) -> GenerateRequest:
    most = plan.max_tokens
    if seat.prose_first:
        most = min(plan.max_tokens or _SMALL_TOKENS[phase], _SMALL_TOKENS[phase])
    return GenerateRequest(
        model=seat.model,
        messages=turns,
        max_tokens=most,
        temperature=plan.temperature,
        reasoning=plan.reasoning,
        # A request with shorter quotations is another call, so their limit is part of the key.
        idempotency_key=_key(plan, phase, seat.name, str(plan.limits.peer_text)),
        metadata={"run_id": plan.run_id, "phase": str(phase), "seat": seat.name},
    )


def _key(plan: Plan, *call: str) -> str:
    """Return the idempotency key of one call: retries share it, no other call does."""
    return hashlib.blake2b(to_bytes(plan.seed, plan.run_id, *call), digest_size=16).hexdigest()


def _random(plan: Plan, *purpose: str) -> Random:
    """Return a random generator that depends only on the run's seed and the purpose."""
    return Random(to_bytes(plan.seed, *purpose))


def _codes(plan: Plan, seat: SeatSpec, phase: Phase) -> list[str]:
    """Return the codes of all fences in one request: that of the seats' texts, then those of the files."""
    return [
        derive_code(plan, "fence", phase, seat.name),
        *(derive_code(plan, "file", str(n)) for n in range(len(plan.files))),
    ]


def _common_parts(plan: Plan, codes: Sequence[str]) -> list[str]:
    """Return the parts that are the same in every request of a run."""
    parts = [f"Task:\n{plan.task.strip()}"]
    if plan.context:
        parts.append(f"Context:\n{plan.context.strip()}")
    for file in plan.files:
        codes = [*codes[1:], codes[0]]  # the file's own code first
        parts.append(quote(f"File {_one_line(file.name)}", file.text, codes))
    return parts


def _quote_seat(plan: Plan, seat: SeatSpec, codes: Sequence[str], title: str, peer: Draft | Critique) -> str:
    limit = min(plan.limits.peer_text, plain.MOST_SHOWN) if seat.prose_first else plan.limits.peer_text
    text = hide_names(plan, _ends_of(drop_thinking(peer.text), limit))
    cut = peer.response is not None and peer.response.finish_reason == FinishReason.LENGTH
    title = f"{title}, incomplete: it was cut off at its end" if cut else title
    return quote(title, text, codes, limit=limit)


def _ends_of(text: str, limit: int) -> str:
    """Return the ends of a very long text, of which no more is quoted, to bound the work on it."""
    return text[: 4 * limit] + text[-4 * limit :] if len(text) > 8 * limit else text


def _cover_sentence(plan: Plan) -> str:
    properties = plan.schema.get("properties") if plan.schema else None
    if not isinstance(properties, Mapping):
        return ""
    names = [str(name).replace("_", " ") for name in properties if name != "reasoning"]
    return f" Cover: {', '.join(names[:12])}." if names else ""


def _writes_headings(plan: Plan, seat: SeatSpec) -> bool:
    """Return True for a seat that writes under headings where the role allows it: whose adapter cannot do better."""
    return plan.headings and not (seat.prose_first or seat.grammar)


def _headings_sentence(plan: Plan) -> str:
    properties = plan.schema.get("properties", {}) if plan.schema else {}
    parts = "\n".join(
        f"{heading_of(name)}\n({described.get('description') or name})" for name, described in properties.items()
    )
    return f"Write prose, not JSON, under these headings, each once, on a line of its own and worded as here:\n{parts}"


def _one_line(text: str) -> str:
    """Return an untrusted text as one line of at most 300 characters."""
    return " ".join(neutralise(text).split())[:300]
