"""Validate the chair's answer against its schema, and ask for repairs until it is valid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from llm_council import _schema
from llm_council._engine import prompts
from llm_council._engine.calls import ask
from llm_council._engine.phases import ChairAnswer, chair_deadline
from llm_council._engine.state import RunState
from llm_council.errors import InvalidOutput, RunError
from llm_council.models import FinishReason, GenerateResponse, Phase, Problem

__all__ = ["FinalAnswer", "read", "until_valid"]


@attrs.frozen(kw_only=True)
class FinalAnswer:
    """The final answer of a run.

    Attributes:
        chair: the seat that wrote it.
        text: the text as the seat wrote it.
        output: the value, valid by the schema; without a schema, the text without its thinking.
        problems: how the answer still violates the schema.
        error: set if the run has failed for these problems.
    """

    chair: str
    text: str | None
    output: Any = None
    problems: tuple[Problem, ...] = ()
    error: RunError | None = None


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


async def until_valid(state: RunState, written: ChairAnswer) -> FinalAnswer:
    """Validate the chair's answer, and ask for a repair while it does not meet the schema.

    The seat that wrote the answer is asked to repair it. If that call fails, the next seat that could take the chair is
    shown the same conversation. At most ``max_repairs`` repaired answers are read, and no more than the budget allows.
    """
    plan = state.plan
    validator = _schema.compile(plan.schema) if plan.schema is not None else None
    headings = _schema.heading_names(plan.schema) if plan.headings else ()
    name, response, request = written.seat, written.response, written.request
    left = list(written.left)
    output, problems = read(validator, response, headings)
    repairs = calls = 0
    while problems and repairs < plan.max_repairs:
        state.open(Phase.REPAIR)
        calls += 1
        seat = plan.seat(name)
        request = prompts.repair_request(plan, seat, request, response, problems, number=calls)
        outcome = await ask(state, Phase.REPAIR, seat, request, chair_deadline(state, len(left)))
        if outcome.response is None:
            state.warnings.append(f"{name} could not repair the answer: {outcome.error}")
            if not left:
                break
            name = left.pop(0)
            state.degrade(f"{name} took the chair", seat.name)
            # Drop the failed repair's two turns; the next seat's repair request adds its own.
            request = attrs.evolve(request, messages=request.messages[:-2])
            continue
        repairs += 1
        response = outcome.response
        output, problems = read(validator, response, headings)
    state.close(Phase.REPAIR)
    error = None
    if problems:
        first = problems[0]
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        message = f"the answer does not meet its schema after {repairs} repairs: {first.path}: {first.message}{more}"
        error = InvalidOutput(message, problems=problems, text=response.text, run_id=plan.run_id)
    elif response.finish_reason == FinishReason.LENGTH and validator is None:
        state.degrade("the answer was cut off at max_tokens", name)
    return FinalAnswer(chair=name, text=response.text, output=output, problems=problems, error=error)
