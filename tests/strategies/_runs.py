"""Errors, plans, and the data of a run."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llm_council import errors as err
from llm_council import events as ev
from llm_council import models as m
from strategies._models import (
    attempts,
    budgets,
    limits,
    reasoning_configs,
    responses,
    retry_policies,
)
from strategies._values import (
    counts,
    json_objects,
    json_values,
    maybe,
    schemas,
    seconds,
    texts,
    words,
)


@cache
def phases() -> SearchStrategy[m.Phase]:
    """Return steps of runs."""
    return st.sampled_from(list(m.Phase))


@cache
def problems() -> SearchStrategy[m.Problem]:
    """Return problems of answers."""
    return st.builds(m.Problem, path=words, message=texts)


@cache
def attachments() -> SearchStrategy[m.Attachment]:
    """Return files that a caller named: text, and pictures."""
    pictures = st.binary(max_size=9).map(lambda data: b"\x89PNG\r\n\x1a\n\0" + data)
    return st.builds(m.Attachment, name=words, text=texts) | st.builds(m.Attachment, pictures, name=words)


@cache
def role_prompts() -> SearchStrategy[m.RolePrompts]:
    """Return the prompts of a role."""
    return st.builds(m.RolePrompts, system=texts, critique=texts, synthesise=texts)


@cache
def timings() -> SearchStrategy[m.PhaseTiming]:
    """Return when phases ran."""
    return st.builds(m.PhaseTiming, phase=phases(), started=seconds, elapsed=seconds)


_FACTS: dict[str, SearchStrategy[Any]] = {
    "retry_after": maybe(seconds),
    "kind": st.sampled_from(["refused", "dns", "tls", "proxy", "other"]),
    "partial": maybe(texts),
    "exit_code": maybe(st.integers(-64, 255)),
    "stderr_tail": texts,
    "status": maybe(st.integers(100, 599)),
    "code": maybe(words),
    "body": texts,
    "path": maybe(words),
    "limit": maybe(counts),
    "capability": maybe(words),
    "text": maybe(texts),
    "spent": st.dictionaries(words, seconds, max_size=3),
    "problems": st.lists(problems(), max_size=3),
    "faults": st.lists(st.tuples(counts, words), max_size=2),
}


def _error_classes(base: type[err.CouncilError]) -> list[type[err.CouncilError]]:
    return [base, *(cls for child in base.__subclasses__() for cls in _error_classes(child))]


@cache
def errors(base: type[err.CouncilError] = err.CouncilError, depth: int = 2) -> SearchStrategy[Any]:
    """Return errors of every class at and below ``base``, with any of their facts.

    Args:
        base: the class at which to begin.
        depth: how deep errors may hold errors.
    """
    known = [cls for cls in _error_classes(base) if cls.__module__ == err.__name__]
    return st.sampled_from(known).flatmap(lambda cls: _errors_of(cls, depth))


@cache
def _errors_of(cls: type[err.CouncilError], depth: int) -> SearchStrategy[err.CouncilError]:
    facts: dict[str, SearchStrategy[Any]] = {
        name: maybe(words) for name in ("provider", "model", "phase", "run_id", "request_id")
    }
    facts["attempts"] = st.lists(attempts(), max_size=2)
    facts["elapsed"] = maybe(seconds)
    facts["retryable"] = maybe(st.booleans())
    if issubclass(cls, err.TimedOut):
        facts["phase"] = st.sampled_from(["connect", "read", "idle", "pool", "deadline"])
    bare = vars(cls())
    facts.update({name: strategy for name, strategy in _FACTS.items() if name in bare})
    if "outcomes" in bare:
        inner = st.none() if depth <= 0 else maybe(errors(depth=depth - 1))
        facts["outcomes"] = st.dictionaries(words, inner, max_size=2)
    return st.builds(cls, texts, **facts)


@cache
def seat_specs() -> SearchStrategy[m.SeatSpec]:
    """Return specifications of seats."""
    return st.builds(
        m.SeatSpec,
        name=words,
        provider=words,
        model=maybe(words),
        prose_first=st.booleans(),
        instructions=texts,
        temperature=maybe(seconds),
    )


@cache
def past_tasks() -> SearchStrategy[m.PastTask]:
    """Return earlier tasks of conversations."""
    return st.builds(m.PastTask, task=texts, answer=texts, dissent=st.lists(texts, max_size=2), run_id=maybe(words))


@cache
def plans() -> SearchStrategy[m.Plan]:
    """Return plans of runs."""
    return st.builds(
        m.Plan,
        run_id=words,
        task=texts,
        subagent=words,
        mode=maybe(words),
        strategy=words,
        strategy_options=json_objects(),
        phases=st.lists(phases(), max_size=5),
        seats=st.lists(seat_specs(), max_size=3),
        drafters=st.lists(words, max_size=3),
        reviewers=st.lists(words, max_size=3),
        chairs=st.lists(words, max_size=3),
        drafts_by_schema=st.booleans(),
        asks=st.dictionaries(words, st.lists(words, max_size=2).map(tuple), max_size=2),
        most_calls=maybe(st.integers(1, 10**6)),
        prompts=role_prompts(),
        schema=maybe(schemas()),
        context=maybe(texts),
        system_context=maybe(texts),
        files=st.lists(attachments(), max_size=2),
        sitting_out=st.dictionaries(words, texts, max_size=2),
        follows=maybe(words),
        history=st.lists(past_tasks(), max_size=2),
        history_left_out=st.integers(0, 5),
        budget=budgets(),
        limits=limits(),
        retry=retry_policies(),
        max_repairs=st.integers(0, 5),
        temperature=maybe(seconds),
        max_tokens=maybe(st.integers(min_value=1, max_value=10**6)),
        reasoning=maybe(reasoning_configs()),
        seed=words,
        notes=st.lists(texts, max_size=2),
        metadata=json_objects(),
        task_id=maybe(words),
    )


@cache
def tasks() -> SearchStrategy[m.Task]:
    """Return tasks of a map."""
    return st.builds(
        m.Task,
        words,
        id=maybe(words),
        subagent=maybe(words),
        context=maybe(texts),
        files=st.lists(attachments(), max_size=2),
        metadata=json_objects(),
    )


@cache
def drafts() -> SearchStrategy[m.Draft]:
    """Return drafts."""
    return st.builds(m.Draft, seat=words, response=maybe(responses()), error=maybe(errors()), elapsed=seconds)


@cache
def critiques() -> SearchStrategy[m.Critique]:
    """Return critiques."""
    return st.builds(
        m.Critique,
        seat=words,
        labels=st.dictionaries(words, words, max_size=3),
        ranking=st.lists(words, max_size=3),
        response=maybe(responses()),
        error=maybe(errors()),
        elapsed=seconds,
    )


@cache
def rankings() -> SearchStrategy[m.Ranking]:
    """Return tallies."""
    return st.builds(m.Ranking, order=st.lists(words, max_size=3), points=st.dictionaries(words, seconds, max_size=3))


@cache
def answers() -> SearchStrategy[m.Answer]:
    """Return answers that are counted."""
    return st.builds(m.Answer, kind=st.sampled_from(list(m.AnswerKind)), value=json_values(), key=texts, shown=texts)


@cache
def tallies() -> SearchStrategy[m.Tally]:
    """Return counts of votes."""
    return _tallies(st.dictionaries(words, _tallies(st.just({})), max_size=1))


def _tallies(fields: SearchStrategy[dict[str, m.Tally]]) -> SearchStrategy[m.Tally]:
    return st.builds(
        m.Tally,
        fields=fields,
        composed=st.booleans(),
        order=st.lists(words, max_size=2),
        pairwise=st.dictionaries(words, st.dictionaries(words, seconds, max_size=1), max_size=1),
        condorcet=maybe(st.booleans()),
        winner=maybe(texts),
        points=st.dictionaries(texts, seconds, max_size=3),
        share=st.floats(0, 1),
        margin=st.floats(0, 1),
        tied=st.lists(texts, max_size=2),
        broken_by=maybe(words),
        cast=counts,
        empty=counts,
        failed=counts,
        decided_after=maybe(counts),
    )


@cache
def agreements() -> SearchStrategy[m.Agreement]:
    """Return levels of agreement."""
    levels = st.sampled_from(list(m.AgreementLevel))
    return st.builds(m.Agreement, level=levels, share=st.floats(0, 1), margin=st.floats(0, 1))


@cache
def dissents() -> SearchStrategy[m.Dissent]:
    """Return answers that did not win."""
    return st.builds(m.Dissent, answer=answers(), seats=st.lists(words, max_size=2), text=texts)


@cache
def judgements() -> SearchStrategy[m.Judgement]:
    """Return what judges say of drafts."""
    scores = st.dictionaries(words, st.floats(0, 10), max_size=3)
    return st.builds(m.Judgement, judge=words, scores=scores, consistent=maybe(st.booleans()))


@cache
def flips() -> SearchStrategy[m.Flip]:
    """Return seats that changed their answers."""
    return st.builds(m.Flip, seat=words, old=maybe(texts), new=texts)


@cache
def rounds() -> SearchStrategy[m.Round]:
    """Return rounds of a strategy in which seats may change their minds."""
    said = st.dictionaries(words, answers(), max_size=2)
    return st.builds(m.Round, number=st.integers(0, 3), answers=said, flips=st.lists(flips(), max_size=2))


@cache
def rungs() -> SearchStrategy[m.Rung]:
    """Return groups of seats that were asked one after the other."""
    return st.builds(
        m.Rung,
        seats=st.lists(words, max_size=2),
        agreement=agreements(),
        usd=maybe(seconds),
        is_settled=st.booleans(),
        reason=texts,
    )


@cache
def checks() -> SearchStrategy[m.Check]:
    """Return claims that were checked."""
    said = st.dictionaries(words, texts, max_size=2)
    return st.builds(m.Check, claim=texts, question=texts, answers=said, verdict=st.sampled_from(m.CheckVerdict))


@cache
def events() -> SearchStrategy[ev.Event]:
    """Return events of runs."""
    base: dict[str, SearchStrategy[Any]] = {"run_id": words, "at": seconds}
    phase = phases()
    seat = {**base, "phase": phase, "seat": words}
    return st.one_of(
        st.builds(ev.RunStarted, plan=plans(), **base),
        st.builds(ev.PhaseStarted, phase=phase, **base),
        st.builds(ev.SeatStarted, **seat),
        st.builds(ev.TextDelta, text=texts, **seat),
        st.builds(ev.AttemptFailed, error=errors(), retry_in=maybe(seconds), **seat),
        st.builds(ev.SeatFinished, response=maybe(responses()), error=maybe(errors()), elapsed=seconds, **seat),
        st.builds(ev.SeatReset, reason=texts, **seat),
        st.builds(ev.PhaseFinished, phase=phase, elapsed=seconds, **base),
        st.builds(ev.Degraded, reason=texts, seats=st.lists(words, max_size=2).map(tuple), **base),
        st.builds(
            ev.Tallied, tally=tallies(), agreement=maybe(agreements()), dissent=st.lists(dissents(), max_size=1), **base
        ),
        st.builds(ev.Ranked, ranking=rankings(), **base),
        st.builds(ev.RoundFinished, round=rounds(), **base),
        st.builds(ev.RungFinished, rung=rungs(), **base),
        st.builds(ev.Judged, judgement=judgements(), **base),
        st.builds(ev.Checked, check=checks(), **base),
        st.builds(ev.PartialOutput, value=json_values(), **base),
        st.builds(
            ev.RunFinished,
            status=st.sampled_from(list(m.Status)),
            elapsed=seconds,
            answers=st.dictionaries(words, answers(), max_size=2),
            overruled=maybe(st.booleans()),
            otherwise=st.dictionaries(words, json_values(), max_size=2),
            **base,
        ),
    )
