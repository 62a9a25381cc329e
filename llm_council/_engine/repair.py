"""From the chair's words to an answer that meets its schema."""

from __future__ import annotations

from typing import Any

import attrs

from llm_council import _schema
from llm_council._engine import prompts
from llm_council._engine.asking import ask
from llm_council._engine.phases import Written, chair_bound, prospect_of
from llm_council._engine.prospect import Doom
from llm_council._engine.sitting import Sitting
from llm_council.errors import InvalidOutput, RunError
from llm_council.models import FinishReason, GenerateResponse, Phase, Problem

__all__ = ["Final", "read", "until_valid"]


@attrs.frozen(kw_only=True)
class Final:
    """What the run answers.

    Attributes:
        chair: whose answer it is.
        text: its own words.
        output: the answer, valid by the schema; the text without thinking where there is no schema.
        problems: what is still wrong.
        error: why this is no answer.
    """

    chair: str
    text: str | None
    output: Any = None
    problems: tuple[Problem, ...] = ()
    error: RunError | None = None


def read(validator: _schema.Validator | None, response: GenerateResponse) -> tuple[Any, tuple[Problem, ...]]:
    """Read the answer out of a response and validate it against the original schema.

    What the adapter itself shaped to the schema comes first, then JSON in the text.

    Returns:
        The answer, None for an invalid one, and what is wrong with it.
    """
    if validator is None:
        return _schema.drop_thinking(response.text or "").strip(), ()
    if response.structured is not None and validator.accepts(response.structured):
        return response.structured, ()
    answer = validator.read(response.text or "")
    if not answer.problems:
        return answer.value, ()
    if response.structured is not None and not answer.found:
        return None, validator.problems(response.structured)
    return None, answer.problems


async def until_valid(sitting: Sitting, written: Written) -> Final:
    """Validate the chair's answer; while it does not meet the schema, ask again with what is wrong.

    A repair goes to the seat that wrote the answer; when that fails, to the next seat that could take the chair, which
    sees the same conversation. There are at most ``max_repairs`` answers to repairs, and no more than the budget pays.
    """
    plan = sitting.plan
    validator = _schema.compile(plan.schema) if plan.schema is not None else None
    name, response, request = written.seat, written.response, written.request
    left = list(written.left)
    doom = written.doom
    output, problems = read(validator, response) if doom is None else (None, (doom.problem,))
    repairs = calls = 0
    while problems and repairs < plan.max_repairs:
        sitting.open(Phase.REPAIR)
        calls += 1
        seat = plan.seat(name)
        request = prompts.repair(
            plan, seat, request, _worth_showing(response, doom), problems, number=calls, stopped=doom is not None
        )
        prospect = prospect_of(sitting, seat, request, repairs=plan.max_repairs - repairs - 1)
        outcome = await ask(sitting, Phase.REPAIR, seat, request, chair_bound(sitting, len(left)), prospect=prospect)
        if outcome.response is None:
            sitting.warnings.append(f"{name} could not repair the answer: {outcome.error}")
            if not left:
                break
            name = left.pop(0)
            sitting.degrade(f"{name} took the chair", seat.name)
            request = attrs.evolve(request, messages=request.messages[:-2])
            continue
        repairs += 1
        response, doom = outcome.response, outcome.doom
        output, problems = read(validator, response) if doom is None else (None, (doom.problem,))
    sitting.close(Phase.REPAIR)
    error = None
    if problems:
        first = problems[0]
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        words = f"the answer does not meet its schema after {repairs} repairs: {first.path}: {first.message}{more}"
        error = InvalidOutput(words, problems=problems, text=response.text, run_id=plan.run_id)
    elif response.finish_reason == FinishReason.LENGTH and validator is None:
        sitting.degrade("the answer was cut off at max_tokens", name)
    return Final(chair=name, text=response.text, output=output, problems=problems, error=error)


def _worth_showing(response: GenerateResponse, doom: Doom | None) -> GenerateResponse:
    """Return an answer without the rounds of a loop: shown them, a model goes on with them."""
    if doom is None or doom.keep is None:
        return response
    text = (response.text or "")[: doom.keep]
    return attrs.evolve(response, text=text, content=text)
