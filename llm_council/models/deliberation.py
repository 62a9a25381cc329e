"""What a run plans to do, and what its phases bring forth."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from llm_council.errors import CouncilError
from llm_council.models._attrs import as_dict, as_tuple, non_negative, optional, positive_int, strict_init, string
from llm_council.models.limits import Budget, Limits, RetryPolicy
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import ReasoningConfig

__all__ = [
    "Attachment",
    "Critique",
    "Draft",
    "Phase",
    "PhaseTiming",
    "Plan",
    "Problem",
    "Ranking",
    "RolePrompts",
    "SeatSpec",
    "Status",
]


class Status(StrEnum):
    """How a run ended.

    ``degraded`` is an answer with something missing: a seat, the critique, the chair's synthesis.
    """

    COMPLETED = "completed"
    DEGRADED = "degraded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """A step of a run."""

    DRAFT = "draft"
    CRITIQUE = "critique"
    RANK = "rank"
    SYNTHESISE = "synthesise"
    REPAIR = "repair"


@strict_init
@attrs.frozen(kw_only=True)
class Problem:
    """One thing that is wrong with an answer.

    Attributes:
        path: where, as a JSON path: ``$`` is the whole, ``$.issues[0].severity`` a part.
        message: what is wrong there.
    """

    path: str
    message: str


@strict_init
@attrs.frozen(kw_only=True)
class SeatSpec:
    """A seat by its facts: what sits in it is named, never held.

    Attributes:
        name: unique in the run, such as ``"local-2"``.
        provider: the provider's name.
        model: the model's name; None is the provider's default.
        prose_first: the seat's model answers in prose, and shapes it to a schema in a second call.
    """

    name: str
    provider: str
    model: str | None = None
    prose_first: bool = False


@strict_init
@attrs.frozen(kw_only=True)
class RolePrompts:
    """A subagent's own words for each phase; see ``llm_council.subagents``.

    Attributes:
        system: who the model is, and what a good answer looks like.
        critique: what to look for in peers' drafts.
        synthesise: what the final answer must achieve.
        brief: ``system`` in one sentence, for small models; empty takes its first one.
    """

    system: str = ""
    critique: str = ""
    synthesise: str = ""
    brief: str = ""


@strict_init
@attrs.frozen(kw_only=True)
class Attachment:
    """A file that the caller named.

    Attributes:
        name: its name as given.
        text: what is in it.
    """

    name: str
    text: str


@strict_init
@attrs.frozen(kw_only=True)
class Plan:
    """What a run will do: frozen before anything is sent, names and facts only.

    Attributes:
        run_id: the run's id.
        task: what is asked.
        subagent: canonical name of the role.
        mode: the role's variant; None where it has none.
        strategy: how the seats deliberate.
        phases: the phases that will run, in order.
        seats: every seat, in order.
        drafters: names of the seats that draft.
        reviewers: names of the seats that criticise; empty when the critique is skipped.
        chairs: names of the seats that may synthesise, the first choice first.
        chair_by_rank: whether the ranking of the drafts, not that order, says who takes the chair.
        prompts: the role's words.
        schema: the JSON Schema of the answer; None for free text.
        context: further text from the caller.
        system_context: text of the configuration for every seat's system turn.
        files: files that the caller named.
        budget: bounds on the run.
        limits: bounds on sizes.
        retry: when calls are made again.
        max_repairs: repairs asked for after an invalid answer.
        temperature: sampling temperature; None is not sent.
        max_tokens: most tokens of one answer; None is not sent.
        reasoning: how much to think; None is not sent.
        seed: the seed of shuffles, fences and tie-breaks.
        ties_by_seed: whether the seed breaks ties in the ranking. True in every new plan; False in those that were
            stored before this field was added, where the seat that comes first wins.
        notes: what was decided for the caller, such as a skipped critique.
        metadata: the caller's own.
    """

    run_id: str
    task: str
    subagent: str
    mode: str | None = None
    strategy: str = "synthesize"
    phases: tuple[Phase, ...] = attrs.field(default=(), converter=as_tuple)
    seats: tuple[SeatSpec, ...] = attrs.field(default=(), converter=as_tuple)
    drafters: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    reviewers: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    chairs: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    chair_by_rank: bool = False
    prompts: RolePrompts = RolePrompts()
    schema: Mapping[str, Any] | None = attrs.field(default=None, converter=attrs.converters.optional(as_dict))
    context: str | None = attrs.field(default=None, validator=optional(string))
    system_context: str | None = None
    files: tuple[Attachment, ...] = attrs.field(default=(), converter=as_tuple)
    budget: Budget = Budget()
    limits: Limits = Limits()
    retry: RetryPolicy = RetryPolicy()
    max_repairs: int = 2
    temperature: float | None = attrs.field(default=None, validator=optional(non_negative))
    max_tokens: int | None = attrs.field(default=None, validator=optional(positive_int))
    reasoning: ReasoningConfig | None = None
    seed: str = ""
    ties_by_seed: bool = False
    notes: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    metadata: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)

    def seat(self, name: str) -> SeatSpec:
        """Return the seat of this name."""
        return next(seat for seat in self.seats if seat.name == name)


@strict_init
@attrs.frozen(kw_only=True)
class Draft:
    """What one seat brought forth in the draft phase: an answer, or an error.

    Attributes:
        seat: the seat's name.
        response: its answer.
        error: why there is none.
        elapsed: seconds from the call to its end.
    """

    seat: str
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0

    @property
    def text(self) -> str:
        """The draft's text; empty when there is none."""
        return (self.response.text or "") if self.response else ""


@strict_init
@attrs.frozen(kw_only=True)
class Critique:
    """What one seat thinks of the others' drafts.

    Attributes:
        seat: the reviewer's name.
        labels: the drafts it saw, by the label under which it saw them: label to seat name.
        ranking: seat names of those drafts, the best first; empty when it gave none that can be read.
        response: its answer.
        error: why there is none.
        elapsed: seconds from the call to its end.
    """

    seat: str
    labels: Mapping[str, str] = attrs.field(factory=dict, converter=as_dict)
    ranking: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0

    @property
    def text(self) -> str:
        """The critique's text; empty when there is none."""
        return (self.response.text or "") if self.response else ""


@strict_init
@attrs.frozen(kw_only=True)
class Ranking:
    """The tally of all rankings.

    Attributes:
        order: seat names of the drafts, the best first; ties are broken by the run's seed.
        points: Borda points by seat name.
    """

    order: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    points: Mapping[str, float] = attrs.field(factory=dict, converter=as_dict)


@strict_init
@attrs.frozen(kw_only=True)
class PhaseTiming:
    """When a phase ran.

    Attributes:
        phase: which.
        started: seconds since the run's start.
        elapsed: seconds it took.
    """

    phase: Phase
    started: float
    elapsed: float
