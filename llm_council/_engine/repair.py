"""Validate the chair's answer against its schema, and ask for repairs until it is valid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from llm_council import _schema
from llm_council._engine import prompts
from llm_council._engine.calls import ask
from llm_council._engine.phases import ChairAnswer, chair_deadline, replace_chair
from llm_council._engine.state import RunState
from llm_council._runtime.large_work import run_large
from llm_council.errors import InvalidOutput
from llm_council.models import FinishReason, GenerateResponse, Phase, Problem
from llm_council.strategies.base import Verdict

__all__ = ["read", "until_valid"]


def read(
    validator: _schema.Validator | None, response: GenerateResponse, headings: Sequence[str] = ()
) -> tuple[Any, tuple[Problem, ...]]:
    """Extract the answer from a response, and validate it against the original schema.

    The adapter's structured value is preferred to sections under headings, and these to JSON in the text.

    Args:
        validator: the compiled schema; None for free text.
        response: the answer.
        headings: the properties that the answer has as sections of prose; empty if it is JSON.

    Returns:
        The value, None if it is invalid, and its problems.
    """
    if validator is None:
        return _schema.drop_thinking(response.text or "").strip(), ()
    if response.structured is not None and validator.accepts(response.structured):
        return response.structured, ()
    if headings:
        return _read_prose(validator, response, headings)
    answer = validator.read(response.text or "")
    if not answer.problems:
        return answer.value, ()
    if response.structured is not None and not answer.found:
        return None, validator.problems(response.structured)
    return None, answer.problems


def _read_prose(
    validator: _schema.Validator, response: GenerateResponse, headings: Sequence[str]
) -> tuple[Any, tuple[Problem, ...]]:
    """Return the sections of an answer. Prose without headings is the first section, and the others are empty."""
    text = _schema.drop_thinking(response.text or "").strip()
    sections = _schema.read_sections(text, headings)
    if not sections and text.startswith(("{", "```json")):  # JSON all the same
        answer = validator.read(text)
        return (None, answer.problems) if answer.problems else (answer.value, ())
    if not sections and text:
        sections = {headings[0]: text}
    complete = {name: sections.get(name, "") for name in headings}
    if not complete[headings[0]]:
        message = f"there is no text under the heading '{_schema.heading_of(headings[0])}'"
        return None, (Problem(path=f"$.{headings[0]}", message=message),)
    # An answer that ended by itself is good without its reasons; one that was cut off may lack more.
    missing = [name for name in headings if name not in sections]
    if missing and response.finish_reason == FinishReason.LENGTH:
        message = f"there is no heading '{_schema.heading_of(missing[0])}'"
        return None, (Problem(path=f"$.{missing[0]}", message=message),)
    problems = validator.problems(complete)
    return (None, problems) if problems else (complete, ())


async def until_valid(state: RunState, written: ChairAnswer) -> Verdict:
    """Validate the chair's answer, and ask for a repair while it does not meet the schema.

    The seat that wrote the answer is asked to repair it. If that call fails, the next seat that could take the chair is
    shown the same conversation. At most ``max_repairs`` repaired answers are read, and no more than the budget allows.
    If the answer is invalid after them, the seats that are left write it anew, one after the other, until one is valid.
    """
    plan = state.plan
    validator = _schema.compile_plain(plan.schema) if plan.schema is not None else None
    headings = _schema.heading_names(plan.schema) if plan.headings else ()
    answer = _Answer(written, *await _read_checked(state, validator, written.response, headings))
    while answer.problems and answer.repairs < plan.max_repairs:
        state.open(Phase.REPAIR)
        repaired = await _repair(state, answer)
        if repaired is None:
            break
        if repaired:
            answer.output, answer.problems = await _read_checked(state, validator, answer.written.response, headings)
    while answer.problems and plan.rules:  # a run that 0.1.0 stored ended here
        another = await replace_chair(state, answer.written)
        if another is None:
            break
        answer.written = another
        answer.output, answer.problems = await _read_checked(state, validator, another.response, headings)
    state.close(Phase.REPAIR)
    name, response, problems = answer.written.seat, answer.written.response, answer.problems
    error = None
    if problems:
        first = problems[0]
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        message = f"the answer does not meet its schema after {answer.repairs} repairs: {first.path}: "
        message += f"{first.message}{more}"
        error = InvalidOutput(message, problems=problems, text=response.text, run_id=plan.run_id)
    elif response.finish_reason == FinishReason.LENGTH and validator is None:
        state.degrade("the answer was cut off at max_tokens", name)
    return Verdict(chair=name, text=response.text, output=answer.output, problems=problems, error=error)


async def _read_checked(
    state: RunState, validator: _schema.Validator | None, response: GenerateResponse, headings: Sequence[str]
) -> tuple[Any, tuple[Problem, ...]]:
    """Return what ``read`` returns, with the problems of the output's type; a large answer is read in a thread."""

    def work() -> tuple[Any, tuple[Problem, ...], tuple[Problem, ...]]:
        value, problems = read(validator, response, headings)
        refusals = state.output_type.problems(value) if state.output_type is not None and not problems else ()
        return value, problems, refusals

    value, problems, refusals = await run_large(len(response.text or ""), work)
    if not problems:
        problems = state.record_type_problems(refusals)
    return (None if problems else value), problems


@attrs.define
class _Answer:
    """The final answer while it is repaired.

    Attributes:
        written: the answer, with the conversation that led to it.
        output: the value; None if it is invalid.
        problems: how it violates the schema.
        repairs: how many repaired answers were read.
        calls: how many repairs were asked for.
    """

    written: ChairAnswer
    output: Any
    problems: tuple[Problem, ...]
    repairs: int = 0
    calls: int = 0


async def _repair(state: RunState, answer: _Answer) -> bool | None:
    """Ask for one repair.

    Returns:
        True if there is a new text; False if the call failed and the next seat has the chair; None if no seat is left.
    """
    written = answer.written
    answer.calls += 1
    seat = state.plan.seat(written.seat)
    request = prompts.repair_request(
        state.plan, seat, written.request, written.response, answer.problems, number=answer.calls
    )
    outcome = await ask(state, Phase.REPAIR, seat, request, chair_deadline(state, len(written.left)))
    if outcome.response is not None:
        answer.repairs += 1
        answer.written = attrs.evolve(written, request=request, response=outcome.response)
        return True
    state.warnings.append(f"{seat.name} could not repair the answer: {outcome.error}")
    if not written.left:
        return None
    # Without the failed repair's two turns: the next seat's repair request adds its own.
    request = attrs.evolve(request, messages=request.messages[:-2])
    name, *left = written.left
    state.degrade(f"{name} took the chair", seat.name)
    answer.written = attrs.evolve(written, seat=name, request=request, left=tuple(left))
    return False
