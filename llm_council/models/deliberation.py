"""The plan of a run and the results of its phases."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from llm_council.errors import CouncilError
from llm_council.models._attrs import as_dict, as_tuple, non_negative, optional, positive_int, strict_init, string
from llm_council.models.attachments import Attachment
from llm_council.models.limits import Budget, Limits, RetryPolicy
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import ReasoningConfig

__all__ = [
    "Attachment",
    "Critique",
    "Draft",
    "PastTask",
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

    ``degraded`` means that there is an answer, but something is missing: a seat, the critique, the chair's synthesis.
    ``abstained`` means that the seats were asked and did not agree on an answer.
    """

    # Stored in run files and printed by --json: the words are an interface.
    COMPLETED = "completed"
    DEGRADED = "degraded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABSTAINED = "abstained"


class Phase(StrEnum):
    """A step of a run."""

    DRAFT = "draft"
    CRITIQUE = "critique"
    RANK = "rank"
    GROUP = "group"
    JUDGE = "judge"
    REVISE = "revise"
    SYNTHESISE = "synthesise"  # the strategy is spelled "synthesize"; stored runs hold both words
    REPAIR = "repair"
    VERIFY = "verify"


@strict_init
@attrs.frozen(kw_only=True)
class Problem:
    """One way in which an answer does not match its schema.

    Attributes:
        path: where, as a JSON path: ``$`` is the whole answer, ``$.issues[0].severity`` a part.
        message: what is wrong.
    """

    path: str
    message: str


@strict_init
@attrs.frozen(kw_only=True, slots=False)
class SeatSpec:
    """A seat as plain data, without its adapter.

    Attributes:
        name: unique in the run, such as ``"local-2"``.
        provider: the provider's name.
        model: the model's name; None means the provider's default.
        prose_first: the seat answers in prose first, and converts it to the schema in a second call.
        plain_prompts: the seat's prompts hold no fences, labels or names of roles, which its model would repeat.
        grammar: its provider writes no answer that does not meet the schema.
        warning: a sentence about its model for the warnings of the result; empty for none.
        instructions: a part of its system turn that no other seat is shown; empty for none.
        temperature: its sampling temperature; None takes that of the plan.
    """

    name: str
    provider: str
    model: str | None = None
    prose_first: bool = False
    plain_prompts: bool = False
    grammar: bool = False
    warning: str = ""
    instructions: str = ""
    temperature: float | None = attrs.field(default=None, validator=optional(non_negative))


@strict_init
@attrs.frozen(kw_only=True)
class RolePrompts:
    """A subagent's prompts for each phase; see ``llm_council.subagents``.

    Attributes:
        system: who the model is, and what a good answer looks like.
        critique: what to look for in peers' drafts.
        synthesise: what the final answer must achieve.
        brief: ``system`` in one sentence, for small models; if empty, the first sentence of ``system``.
    """

    system: str = ""
    critique: str = ""
    synthesise: str = ""
    brief: str = ""


@strict_init
@attrs.frozen(kw_only=True)
class PastTask:
    """An earlier task of a conversation, and what was answered.

    Attributes:
        task: the task; empty if the conversation begins with an answer.
        answer: the answer as text; empty if there was none.
        dissent: other answers that seats had given, in a few words each.
        run_id: the run that gave the answer; None for turns that the caller gave.
    """

    task: str
    answer: str = ""
    dissent: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    run_id: str | None = None


@strict_init
@attrs.frozen(kw_only=True, slots=False)
class Plan:
    """What a run will do. It is fixed before anything is sent, and contains plain data only.

    Attributes:
        run_id: the run's id.
        task: the task.
        subagent: canonical name of the subagent.
        mode: the subagent's mode; None if it has none.
        strategy: name of the strategy: how the seats deliberate.
        strategy_options: the options of the strategy that are not its defaults.
        phases: the phases that will run, in order.
        seats: every seat, in order.
        drafters: names of the seats that draft.
        samples: the most drafts of each of them.
        reviewers: names of the seats that criticise; empty if the critique is skipped.
        chairs: names of the seats that may synthesise, the first choice first.
        chair_by_rank: True if the ranking of the drafts selects the chair instead of that order.
        drafts_by_schema: True if drafts have the form of the schema already; False if they are prose.
        asks: names of the seats that the strategy asks in further phases, by phase, once for each call.
        most_calls: the most calls of the run, repairs and every change of the chair included; None in plans that were
            stored before this field existed.
        prompts: the subagent's prompts.
        schema: the JSON Schema of the answer; None for free text.
        headings: True if the chair writes prose under a heading for each property of the schema, and code builds the
            object. False if the chair writes JSON, also in plans that were stored before this field existed.
        output_type: name of the type of the output, from which the schema was made; None if the caller gave none.
        context: further text from the caller.
        system_context: text from the configuration for every seat's system message.
        files: files that the caller attached: text, and images, documents and sound without their bytes where the plan
            is written as JSON.
        sitting_out: why seats of the council take no part, by name: they cannot take the files. They are not among
            ``seats``.
        follows: id of the run that this one goes on from; None for a run of its own.
        history: the earlier tasks that it goes on from, with their answers, the oldest first.
        history_left_out: how many still earlier tasks of the conversation are not in ``history``.
        budget: limits on the run.
        limits: limits on sizes.
        retry: when failed calls are retried.
        max_repairs: how often the chair is asked to repair an invalid answer.
        temperature: sampling temperature; None is not sent.
        max_tokens: maximum tokens of one answer; None is not sent.
        reasoning: how much to think; None is not sent.
        seed: the seed of shuffles, fences and tie-breaks.
        ties_by_seed: True if the seed breaks ties in the ranking, as in every new plan. False in plans that were stored
            before this field existed: there the first seat wins.
        rules: the version of the rules by which rankings are read, authors are hidden and a chair is replaced: 1 in
            every new plan. 0 in plans that were stored before this field existed, which are replayed as they ran.
        notes: decisions that the caller should know, such as a skipped critique.
        created: when the plan was made, as ``2026-11-30T12:29:02Z``; None in plans that were stored before this field
            existed.
        metadata: the caller's data.
        task_id: the id of the task among those of a map; None for a run of its own.
        warnings: what the caller should know before the run; they are in the result too.
    """

    run_id: str
    task: str
    subagent: str
    mode: str | None = None
    strategy: str = "synthesize"
    strategy_options: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)
    phases: tuple[Phase, ...] = attrs.field(default=(), converter=as_tuple)
    seats: tuple[SeatSpec, ...] = attrs.field(default=(), converter=as_tuple)
    drafters: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    samples: int = attrs.field(default=1, validator=positive_int)
    reviewers: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    chairs: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    chair_by_rank: bool = False
    drafts_by_schema: bool = False
    asks: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, converter=as_dict)
    most_calls: int | None = None
    prompts: RolePrompts = RolePrompts()
    schema: Mapping[str, Any] | None = attrs.field(default=None, converter=attrs.converters.optional(as_dict))
    headings: bool = False
    output_type: str | None = None
    context: str | None = attrs.field(default=None, validator=optional(string))
    system_context: str | None = None
    files: tuple[Attachment, ...] = attrs.field(default=(), converter=as_tuple)
    sitting_out: Mapping[str, str] = attrs.field(factory=dict, converter=as_dict)
    follows: str | None = None
    history: tuple[PastTask, ...] = attrs.field(default=(), converter=as_tuple)
    history_left_out: int = 0
    budget: Budget = Budget()
    limits: Limits = Limits()
    retry: RetryPolicy = RetryPolicy()
    max_repairs: int = 2
    temperature: float | None = attrs.field(default=None, validator=optional(non_negative))
    max_tokens: int | None = attrs.field(default=None, validator=optional(positive_int))
    reasoning: ReasoningConfig | None = None
    seed: str = ""
    ties_by_seed: bool = False  # a stored plan without this field must be replayed as it ran
    rules: int = 0  # likewise
    notes: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    created: str | None = None
    metadata: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)
    task_id: str | None = None
    warnings: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)

    def seat(self, name: str) -> SeatSpec:
        """Return the seat of this name."""
        return next(seat for seat in self.seats if seat.name == name)

    def temperature_of(self, seat: SeatSpec) -> float | None:
        """Return the sampling temperature of a seat's calls; None is not sent."""
        return self.temperature if seat.temperature is None else seat.temperature


@strict_init
@attrs.frozen(kw_only=True, slots=False)
class Draft:
    """The result of one seat in the draft phase: an answer or an error.

    Attributes:
        seat: the seat's name.
        number: which of the seat's drafts it is, from 1.
        response: the answer; None after an error.
        error: why the seat did not answer.
        elapsed: seconds that the call took.
    """

    seat: str
    number: int = 1
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0

    @property
    def name(self) -> str:
        """Unique in the run: the seat's name, such as ``"ann"``, and ``"ann#2"`` for its second draft."""
        return self.seat if self.number == 1 else f"{self.seat}#{self.number}"

    @property
    def text(self) -> str:
        """The text of the draft; empty if there is none."""
        return (self.response.text or "") if self.response else ""


@strict_init
@attrs.frozen(kw_only=True)
class Critique:
    """The result of one seat in the critique phase.

    Attributes:
        seat: the reviewer's name.
        labels: the drafts that it was shown: anonymous label to seat name.
        ranking: seat names of those drafts, the best first; empty if the critique contains no readable ranking.
        response: the answer; None after an error.
        error: why the seat did not answer.
        elapsed: seconds that the call took.
    """

    seat: str
    labels: Mapping[str, str] = attrs.field(factory=dict, converter=as_dict)
    ranking: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0

    @property
    def text(self) -> str:
        """The text of the critique; empty if there is none."""
        return (self.response.text or "") if self.response else ""


@strict_init
@attrs.frozen(kw_only=True)
class Ranking:
    """The combined ranking of all reviewers.

    Attributes:
        order: seat names of the drafts, the best first; ties are broken by the run's seed.
        points: Borda points by seat name.
    """

    order: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    points: Mapping[str, float] = attrs.field(factory=dict, converter=as_dict)


@strict_init
@attrs.frozen(kw_only=True, slots=False)
class PhaseTiming:
    """When a phase ran.

    Attributes:
        phase: the phase.
        started: seconds from the start of the run to the start of the phase.
        elapsed: seconds that the phase took.
    """

    phase: Phase
    started: float
    elapsed: float
