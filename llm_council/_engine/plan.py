"""Make the plan of a run before any call. Pure functions; no other module of the engine reads the configuration."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import attrs

from llm_council import _schema
from llm_council.config import CouncilConfig
from llm_council.errors import InvalidOption, near
from llm_council.models import Attachment, Budget, Phase, Plan, SeatSpec
from llm_council.models._attrs import must_be, optional, strict_init
from llm_council.subagents import Subagent

__all__ = ["RunRequest", "make_plan"]

T = TypeVar("T")

_mapping = must_be("a mapping", lambda value: isinstance(value, Mapping))

# The store accepts the same ids: see ``llm_council.store._queries``.
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

# The review phase of each strategy.
_REVIEWS = {"synthesize": Phase.CRITIQUE, "vote": Phase.RANK}

_SEATS_FOR_PURE_CHAIR = 3  # with fewer seats, the chair drafts too
_SEATS_FOR_VOTE = 3  # with fewer seats, each reviewer sees one draft, and there is nothing to rank


@strict_init
@attrs.frozen(kw_only=True)
class RunRequest:
    """The options of one run.

    Attributes:
        context: further text for the prompts.
        files: files with their content.
        schema: JSON Schema of the answer; None is the subagent's.
        budget: limits of this run; they override those of the configuration.
        strategy: name of the strategy; None is the configuration's.
        drafters: names of the seats that draft; None leaves the choice to ``make_plan``.
        temperature: sampling temperature; None is the configuration's, then the subagent's.
        max_tokens: most tokens of one answer; None likewise.
        metadata: values of the caller, copied into the result.
        run_id: the run's id, up to 64 of ``A-Z a-z 0-9 _ -``; None is a random one.
    """

    context: str | None = None
    files: Sequence[Attachment] = ()
    schema: Mapping[str, Any] | None = attrs.field(default=None, validator=optional(_mapping))
    budget: Budget | None = None
    strategy: str | None = None
    drafters: Sequence[str] | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    metadata: Mapping[str, Any] | None = attrs.field(default=None, validator=optional(_mapping))
    run_id: str | None = None


def make_plan(
    task: str, subagent: Subagent, config: CouncilConfig, seats: Sequence[SeatSpec], options: RunRequest = RunRequest()
) -> Plan:
    """Make the plan of a run.

    The roles of the seats with the strategy ``synthesize``:

    - Three seats or more: the chair is ``config.chair`` or the last seat, and does not draft; the others draft. All
      seats criticise the drafts of others, the chair too: with two drafts only the chair can compare both.
    - Two seats: both draft, and each criticises the other's draft.
    - One seat: it drafts, and finishes its own answer; the critique is skipped.

    If no chair is named and all seats draft, the author of the best-ranked draft takes the chair; the run's seed breaks
    ties. The chair drafts, too, if the quorum needs its draft or ``drafters`` names it.
    With the strategy ``vote`` all seats draft and rank, and there is no chair.

    Args:
        task: the task.
        subagent: the subagent, in its mode.
        config: the configuration, overridden by the council's own arguments.
        seats: the seats, in order.
        options: the options of the run.

    Raises:
        InvalidOption: an invalid value; the message names the remedy.
    """
    strategy = options.strategy or config.strategy
    budget = config.budget.overlaid(options.budget)
    names = _seat_names(seats)
    _check(task, options.run_id, names, strategy, budget)
    schema = _schema_of(options, subagent)
    roles = _roles(names, config.chair, budget.quorum, options.drafters, voting=strategy == "vote")
    if not subagent.preferences.critique and strategy == "synthesize" and roles["reviewers"]:
        roles["reviewers"] = ()
        roles["notes"].append(f"{subagent.name} goes without a critique")
    reviews = (_REVIEWS[strategy],) if roles["reviewers"] else ()
    repairs = (Phase.REPAIR,) if schema is not None and config.max_repairs else ()
    # Without a schema, a vote returns the winning draft unchanged: nobody writes an answer.
    writes = (Phase.SYNTHESISE,) if strategy == "synthesize" or schema is not None else ()
    return Plan(
        # 64 random bits, because the processes that share a store do not agree on ids.
        run_id=options.run_id or secrets.token_hex(8),
        task=task,
        subagent=subagent.name,
        mode=subagent.mode,
        strategy=strategy,
        phases=(Phase.DRAFT, *reviews, *writes, *repairs),
        seats=seats,
        **roles,
        prompts=subagent.prompts,
        schema=schema,
        headings=subagent.headings and options.schema is None,
        context=options.context,
        system_context=config.system_context,
        files=options.files,
        budget=budget,
        limits=config.limits,
        retry=config.retry,
        max_repairs=config.max_repairs,
        temperature=_first_set(options.temperature, config.temperature, subagent.preferences.temperature),
        max_tokens=_first_set(options.max_tokens, config.max_tokens, subagent.preferences.max_tokens),
        reasoning=config.reasoning,
        # The codes of the fences are derived from the seed too, so no model may be able to guess it.
        seed=config.seed or secrets.token_hex(16),
        # A plan that 0.1.0 stored lacks this field, and its replay must break ties as 0.1.0 did.
        ties_by_seed=True,
        rules=1,
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        metadata=options.metadata or {},
    )


def _schema_of(options: RunRequest, subagent: Subagent) -> dict[str, Any] | None:
    """Return the schema of the answer after a check."""
    schema = options.schema if options.schema is not None else subagent.schema
    if schema is None:
        return None
    plain = _schema.plain_schema(schema)
    _schema.compile(plain)  # raises before the run starts, not after its drafts are paid for
    return plain


def _check(task: str, run_id: str | None, names: list[str], strategy: str, budget: Budget) -> None:
    if not isinstance(task, str):
        several = "; call run once for each task" if isinstance(task, list | tuple) else ""  # type: ignore[unreachable]
        raise InvalidOption(f"a task is text, got {type(task).__name__}: {task!r:.80}{several}")
    if not task.strip():
        raise InvalidOption("the task is empty: say what the council is to do")
    if run_id is not None and not _RUN_ID.fullmatch(run_id):
        raise InvalidOption(f"run_id: 1 to 64 letters, digits, '_' or '-', got {run_id!r:.80}")
    if strategy not in _REVIEWS:
        raise InvalidOption(
            f"no strategy {strategy!r:.80}{near(str(strategy), _REVIEWS)}; known: {', '.join(_REVIEWS)}"
        )
    if strategy == "vote" and len(names) < _SEATS_FOR_VOTE:
        raise InvalidOption(
            f"the strategy 'vote' needs {_SEATS_FOR_VOTE} seats or more to rank drafts, got {len(names)}"
        )
    if budget.quorum is not None and budget.quorum > len(names):
        raise InvalidOption(
            f"a quorum of {budget.quorum} is more than there are seats ({len(names)}): lower it, or add seats"
        )


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


def _roles(
    names: list[str], chair: str | None, quorum: int | None, drafters: Sequence[str] | None, *, voting: bool
) -> dict[str, Any]:
    for name in (*(drafters or ()), *((chair,) if chair is not None else ())):
        if name not in names:
            raise InvalidOption(f"no seat is named {name!r:.80}{near(name, names)}; seats: {', '.join(names)}")
    if drafters is not None:
        drafting = [name for name in names if name in set(drafters)]
    elif voting or len(names) < _SEATS_FOR_PURE_CHAIR or (quorum or 0) >= len(names):
        drafting = list(names)
    else:
        drafting = [name for name in names if name != (chair or names[-1])]
    if len(drafting) < (quorum or 1):
        raise InvalidOption(f"drafters: a quorum of {quorum or 1} needs as many, got {len(drafting)}")
    # A seat that has not drafted judges without defending its own draft, so it is the first choice for the chair.
    resting = [name for name in names if name not in drafting]
    first = chair or (resting[-1] if resting else names[0])
    by_rank = voting or (chair is None and not resting)
    return {
        "drafters": drafting,
        "reviewers": names if len(names) > 1 else (),
        "chairs": [first, *(name for name in names if name != first)],
        "chair_by_rank": by_rank,
        "notes": [_note(names, first, voting=voting, by_rank=by_rank, rests=first in resting)],
    }


def _note(names: list[str], chair: str, *, voting: bool, by_rank: bool, rests: bool) -> str:
    if len(names) == 1:
        return "one seat: nobody else can review its draft, so the critique is skipped"
    if voting:
        return "all seats draft and rank; there is no chair"
    if by_rank:
        return "the author of the best-ranked draft takes the chair; the run's seed breaks ties"
    return f"{chair} takes the chair and {'does not draft' if rests else 'drafts too'}"
