"""Make the plan of a run before any call. Pure functions; no other module of the engine reads the configuration."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from llm_council import _schema
from llm_council._engine.history import History, fitting, shown_tasks
from llm_council.config import CouncilConfig
from llm_council.errors import CouncilError, InvalidOption, near
from llm_council.models import Attachment, Budget, Limits, Phase, Plan, SeatSpec
from llm_council.models._attrs import copy_with, must_be, optional, strict_init
from llm_council.strategies._find import ALIASES, configured, options_of
from llm_council.strategies.base import Roster, Steps, Strategy
from llm_council.subagents import Subagent

if TYPE_CHECKING:
    from llm_council._schema.typed import OutputType

__all__ = ["RunRequest", "make_plan", "plan_for"]

T = TypeVar("T")

_mapping = must_be("a mapping", lambda value: isinstance(value, Mapping))

_PHASES = frozenset(Phase)

# The store accepts the same ids: see ``llm_council.store._queries``.
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@strict_init
@attrs.frozen(kw_only=True)
class RunRequest:
    """The options of one run.

    Attributes:
        context: further text for the prompts.
        files: files with their content.
        sitting_out: why seats cannot take the files, by name; these seats take no part.
        history: what the run goes on from; None for a run of its own.
        schema: JSON Schema of the answer; None is the subagent's.
        output_type: type of the output, whose schema takes the place of the subagent's; None for none.
        budget: limits of this run; they override those of the configuration.
        strategy: a strategy, or the name of one; None is the configuration's.
        drafters: names of the seats that draft; None leaves the choice to the strategy.
        temperature: sampling temperature; None is the configuration's, then the subagent's.
        max_tokens: most tokens of one answer; None likewise.
        metadata: values of the caller, copied into the result.
        run_id: the run's id, up to 64 of ``A-Z a-z 0-9 _ -``; None is a random one.
        task_id: the id of the task among those of a map; None for a run of its own.
    """

    context: str | None = None
    files: Sequence[Attachment] = ()
    sitting_out: Mapping[str, str] = attrs.field(factory=dict)
    history: History | None = None
    schema: Mapping[str, Any] | None = attrs.field(default=None, validator=optional(_mapping))
    output_type: OutputType | None = None
    budget: Budget | None = None
    strategy: str | Strategy | None = None
    drafters: Sequence[str] | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    metadata: Mapping[str, Any] | None = attrs.field(default=None, validator=optional(_mapping))
    run_id: str | None = None
    task_id: str | None = None


def make_plan(
    task: str, subagent: Subagent, config: CouncilConfig, seats: Sequence[SeatSpec], options: RunRequest = RunRequest()
) -> Plan:
    """Make the plan of a run.

    Args:
        task: the task.
        subagent: the subagent, in its mode.
        config: the configuration, overridden by the council's own arguments.
        seats: the seats, in order.
        options: the options of the run.

    Raises:
        InvalidOption: an invalid value; the message names the remedy.
    """
    chosen = config.strategy if options.strategy is None else options.strategy
    strategy = configured(chosen, config.strategies)
    budget = config.budget.overlaid(options.budget)
    names = _seat_names(seats)
    _check(task, options.run_id, names, budget)
    _check_names(names, (*(options.drafters or ()), *((config.chair,) if config.chair is not None else ())))
    absent = options.sitting_out
    seats = [seat for seat in seats if seat.name not in absent]
    _check_enough(len(names), len(seats), budget.quorum or 1, absent)
    schema = _schema_of(options, subagent)
    roster = Roster(
        seats=seats,
        chair=None if config.chair in absent else config.chair,
        drafters=None if options.drafters is None else tuple(name for name in options.drafters if name not in absent),
        quorum=budget.quorum,
        critique=subagent.preferences.critique,
        subagent=subagent.name,
        schema=schema,
        max_repairs=config.max_repairs,
    )
    history = fitting(options.history or History(tasks=()), config.limits)
    try:
        steps = _steps_of(strategy, roster)
    except InvalidOption as error:  # a strategy may name a seat in its options
        raise error._reword(f"{error.message}; {_listed(absent)}") if absent else error from None
    warnings = [f"{name} sits out: it {reason}" for name, reason in absent.items()]
    if config.chair in absent:
        warnings.append(f"another seat writes the answer, because the chair {config.chair} sits out")
    return Plan(
        run_id=options.run_id or _new_id(),
        task=task,
        subagent=subagent.name,
        mode=subagent.mode,
        strategy=chosen if isinstance(chosen, str) and chosen in ALIASES else strategy.name,
        strategy_options=options_of(strategy),
        phases=steps.phases,
        seats=seats,
        drafters=steps.drafters,
        samples=steps.samples,
        reviewers=steps.reviewers,
        chairs=steps.chairs,
        chair_by_rank=steps.chair_by_rank,
        drafts_by_schema=steps.drafts_by_schema,
        asks=steps.asks,
        most_calls=steps.most_calls,
        notes=(*warnings, *steps.notes, *(() if options.output_type is None else options.output_type.notes)),
        warnings=(*warnings, *_left_out(history, seats, config.limits)),
        prompts=subagent.prompts,
        schema=schema,
        headings=subagent.headings and options.schema is None and options.output_type is None,
        output_type=None if options.output_type is None else options.output_type.name,
        context=options.context,
        system_context=config.system_context,
        files=options.files,
        sitting_out=absent,
        follows=history.follows,
        history=history.tasks,
        history_left_out=history.left_out,
        budget=budget,
        limits=config.limits,
        retry=config.retry,
        max_repairs=config.max_repairs,
        temperature=_first_set(options.temperature, config.temperature, subagent.preferences.temperature),
        max_tokens=_first_set(options.max_tokens, config.max_tokens, subagent.preferences.max_tokens),
        reasoning=config.reasoning,
        seed=config.seed or _new_seed(),
        # A plan that 0.1.0 stored lacks this field, and its replay must break ties as 0.1.0 did.
        ties_by_seed=True,
        rules=1,
        created=_now(),
        metadata=options.metadata or {},
        task_id=options.task_id,
    )


def plan_for(
    task: str, like: Plan, *, context: str | None, metadata: Mapping[str, Any], task_id: str | None, seed: str | None
) -> Plan:
    """Return the plan of one more task, which is in all else like another one.

    Args:
        task: the task, which is not empty.
        like: the plan of the other task.
        context: further text for the prompts.
        metadata: values of the caller.
        task_id: the id of the task among those of a map.
        seed: the seed of the configuration; None is a random one.
    """
    return copy_with(
        like,
        run_id=_new_id(),
        task=task,
        context=context,
        metadata=metadata,
        task_id=task_id,
        seed=seed or _new_seed(),
        created=_now(),
    )


def _new_id() -> str:
    return secrets.token_hex(8)  # 64 random bits, because the processes that share a store do not agree on ids


def _new_seed() -> str:
    return secrets.token_hex(16)  # the codes of the fences are derived from it, so no model may be able to guess it


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _check_enough(seats: int, left: int, need: int, absent: Mapping[str, str]) -> None:
    """Refuse a run for which too many seats cannot take the files."""
    if absent and left < need:
        raise InvalidOption(
            f"files: {left} of {seats} seats can take the files, and the quorum is {need}: {_listed(absent)}; add a"
            " seat that can, or leave the file out"
        )


def _listed(absent: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {reason}" for name, reason in absent.items())


def _left_out(history: History, seats: Sequence[SeatSpec], limits: Limits) -> tuple[str, ...]:
    """Return a warning for what the seats will not see of the conversation."""
    warnings = []
    if history.left_out:
        tasks = "task is" if history.left_out == 1 else f"{history.left_out} tasks are"
        warnings.append(
            f"the oldest {tasks} left out of this conversation: its prompts hold at most {limits.history:,} characters"
            " of earlier tasks and answers (limits.history)"
        )
    few = [seat.name for seat in seats if len(shown_tasks(history.tasks, seat)) < len(history.tasks)]
    if few:
        shown = len(shown_tasks(history.tasks, next(seat for seat in seats if seat.name == few[0])))
        warnings.append(
            f"{', '.join(few)}: the small model is shown the last {shown} of {len(history.tasks)} earlier tasks"
        )
    return tuple(warnings)


def _schema_of(options: RunRequest, subagent: Subagent) -> dict[str, Any] | None:
    """Return the schema of the answer after a check."""
    schema = options.schema if options.schema is not None else subagent.schema
    if options.output_type is not None:
        if options.schema is not None:
            raise InvalidOption("output_type: the schema is made of the type: leave out schema, or output_type")
        schema = options.output_type.schema
    if schema is None:
        return None
    plain = _schema.plain_schema(schema)
    _schema.compile_plain(plain)  # raises before the run starts, not after its drafts are paid for
    return plain


def _steps_of(strategy: Strategy, roster: Roster) -> Steps:
    """Return what a strategy will do after a check.

    Raises:
        InvalidOption: the strategy cannot work with these seats, or its plan is wrong.
    """
    name = strategy.name
    try:
        steps = strategy.plan(roster)
    except CouncilError:
        raise
    except Exception as error:
        raise InvalidOption(f"the strategy {name!r} cannot plan: {type(error).__name__}: {error}") from error
    if not isinstance(steps, Steps):
        raise InvalidOption(f"the strategy {name!r}: plan() must return Steps, got {type(steps).__name__}")
    for phase in (*steps.phases, *steps.asks):
        if phase not in _PHASES:
            raise InvalidOption(f"the strategy {name!r} plans a phase {phase!r:.80}; known: {', '.join(Phase)}")
    asked = [seat for seats in steps.asks.values() for seat in seats]
    _check_names(roster.names, (*steps.drafters, *steps.reviewers, *steps.chairs, *asked))
    need = roster.quorum or 1
    if Phase.DRAFT in steps.phases and len(steps.drafters) < need:
        raise InvalidOption(f"drafters: a quorum of {need} needs as many, got {len(steps.drafters)}")
    return steps


def _check(task: str, run_id: str | None, names: list[str], budget: Budget) -> None:
    if not isinstance(task, str):
        several = "; call run once for each task" if isinstance(task, list | tuple) else ""  # type: ignore[unreachable]
        raise InvalidOption(f"a task is text, got {type(task).__name__}: {task!r:.80}{several}")
    if not task.strip():
        raise InvalidOption("the task is empty: say what the council is to do")
    if run_id is not None and not _RUN_ID.fullmatch(run_id):
        raise InvalidOption(f"run_id: 1 to 64 letters, digits, '_' or '-', got {run_id!r:.80}")
    if budget.quorum is not None and budget.quorum > len(names):
        raise InvalidOption(
            f"a quorum of {budget.quorum} is more than there are seats ({len(names)}): lower it, or add seats"
        )


def _check_names(names: Sequence[str], used: Sequence[str]) -> None:
    for name in used:
        if name not in names:
            raise InvalidOption(f"no seat is named {name!r:.80}{near(name, names)} (seats: {', '.join(names)})")


def _first_set(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)


def _seat_names(seats: Sequence[SeatSpec]) -> list[str]:
    names = [seat.name for seat in seats]
    if not names:
        raise InvalidOption("a council needs a seat: name a provider, such as Council(['local:3'])")
    # Everything after the plan identifies a seat by its name: results, events and the journal.
    for name in names:
        if names.count(name) > 1:
            raise InvalidOption(f"two seats are named {name!r:.80}: names must differ; 'name:2' seats a provider twice")
    return names
