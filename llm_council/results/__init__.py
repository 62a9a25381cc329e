"""The result of a run, with a report on each seat and each call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Self

import attrs

from llm_council.errors import Attempt, CouncilError, RunError
from llm_council.models._attrs import as_dict, as_tuple, strict_init
from llm_council.models.deliberation import Phase, PhaseTiming, Plan, Problem, Ranking, Status
from llm_council.models.reply import Adjustment, Cost, GenerateResponse, Usage
from llm_council.models.votes import Agreement, Answer, Check, Dissent, Judgement, Round, Rung, Tally
from llm_council.results._awaitable import AwaitableRecord

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    OutputT = TypeVar("OutputT", default=Any)  # a bare ``CouncilResult`` is one of any output
else:
    from typing import TypeVar

    OutputT = TypeVar("OutputT")

__all__ = ["CallReport", "CouncilResult", "OutputT", "SeatReport", "TypedOutput"]


@strict_init
@attrs.frozen(kw_only=True)
class CallReport:
    """One call of a seat.

    Attributes:
        phase: the phase of the run.
        response: the answer; None after an error.
        error: why there is no answer.
        elapsed: seconds that the call took.
        stopped: deprecated. None for every new call. Reports stored by 0.1.0 may say why an answer was stopped early.
    """

    phase: Phase
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0
    stopped: str | None = None


@strict_init
@attrs.frozen(kw_only=True)
class SeatReport:
    """The calls of one seat and their sums.

    Attributes:
        name: the seat's name.
        provider: the provider's name.
        model: the model that answered, else the requested one.
        calls: every call of the run, in the order of the phases.
    """

    name: str
    provider: str
    model: str | None = None
    calls: tuple[CallReport, ...] = attrs.field(default=(), converter=as_tuple)

    @property
    def response(self) -> GenerateResponse | None:
        """The first answer; for a seat that drafts, its draft."""
        return next((call.response for call in self.calls if call.response is not None), None)

    @property
    def error(self) -> CouncilError | None:
        """The first error."""
        return next((call.error for call in self.calls if call.error is not None), None)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts of all calls."""
        outcomes = [call.response or call.error for call in self.calls]
        return tuple(attempt for outcome in outcomes if outcome is not None for attempt in outcome.attempts)

    @property
    def elapsed(self) -> float:
        """Seconds that all calls took together."""
        return sum(call.elapsed for call in self.calls)

    @property
    def usage(self) -> Usage:
        """Tokens of all calls; a count is None if no call reported it."""
        return sum((call.response.usage for call in self.calls if call.response and call.response.usage), Usage())

    @property
    def cost(self) -> Cost:
        """Cost of all calls; not complete if the cost of a call is unknown."""
        return total_cost(self.calls)

    @property
    def adjustments(self) -> tuple[Adjustment, ...]:
        """Changes that were made to the requests."""
        return tuple(adjustment for call in self.calls if call.response for adjustment in call.response.adjustments)


def total_cost(calls: tuple[CallReport, ...]) -> Cost:
    """Return the cost of all calls. It is not complete if the cost of a call is unknown, as for one that failed."""
    # A call that failed may have cost money too, and nobody reports how much.
    known = [call.response.cost for call in calls if call.response and call.response.cost]
    if not known:
        return Cost()
    total = sum(known[1:], known[0])
    return total if len(known) == len(calls) else attrs.evolve(total, complete=False)


@attrs.frozen
class TypedOutput:
    """An output of a type that the caller gave.

    Attributes:
        output: the instance.
        value: the JSON value that the council answered.
    """

    output: Any
    value: Any


@strict_init
@attrs.frozen(kw_only=True, eq=False, repr=False)
class CouncilResult(AwaitableRecord, Generic[OutputT]):
    """The result of one run, also of a failed one. It may be awaited, which returns the result itself.

    Attributes:
        run_id: the run's id.
        task: the task.
        subagent: name of the subagent.
        mode: mode of the subagent.
        status: completed, degraded (an answer with something missing), failed, cancelled or abstained.
        output: the answer, valid against the schema; None if there is none. With ``output_type``, it is of that type;
            ``output_value`` is the same as JSON.
        text: the text of the chair, even if it is not a valid answer.
        drafts: finished drafts by seat name; further drafts of a seat as ``"ann#2"``.
        critiques: finished critiques by seat name; the names of the authors follow their anonymous labels.
        ranking: the combined ranking of the reviewers.
        answers: the answers of the seats as they were counted, by seat name, where the strategy counts answers.
        tally: the count; None where nothing was counted.
        agreement: how far the seats agree; None likewise.
        dissent: the answers that did not win.
        otherwise: what other strategies would have said of the same drafts: ``"single:ann"`` is the answer of ann
            alone, ``"poll"`` that of most seats.
        judgements: what judges said of the drafts.
        bias: how far judgements depend on what they should not: ``"first_slot_rate"``, the share of choices for the
            first of two texts; ``"flip_rate"``, the share of pairs in which the order decided;
            ``"own_family_margin"``, by how much drafts of the judge's own provider score higher than others.
        rounds: what the seats said in each round, the drafts first, where they may change their minds.
        rungs: the groups of seats that were asked one after the other, until one agreed.
        checks: claims of the answer that were checked by seats that had not seen it.
        overruled: True if the answer is another one than that of more than half of the drafts; None if that cannot be
            told.
        spared_calls: calls that the plan allows for and that were not made, because the answer was settled before.
        spared_usd: what these calls would have cost in US dollars, if they had been as long as the drafts of the run;
            None if no price is known, or nothing was spared.
        seats: a report on each seat.
        chair: name of the seat that wrote the answer.
        error: why the run failed.
        problems: where an invalid answer does not match the schema.
        errors: the first error of each seat that had one, by seat name.
        warnings: messages for people.
        usage: tokens of all calls.
        cost: cost of all calls.
        phases: when each phase ran.
        duration: seconds that the run took.
        plan: the plan of the run.
        metadata: the caller's data.
    """

    run_id: str
    task: str
    subagent: str
    mode: str | None = None
    status: Status = attrs.field(converter=Status)
    output: OutputT | None = None
    text: str | None = None
    drafts: dict[str, str] = attrs.field(factory=dict, converter=as_dict)
    critiques: dict[str, str] = attrs.field(factory=dict, converter=as_dict)
    ranking: Ranking = Ranking()
    answers: dict[str, Answer] = attrs.field(factory=dict, converter=as_dict)
    tally: Tally | None = None
    agreement: Agreement | None = None
    dissent: tuple[Dissent, ...] = attrs.field(default=(), converter=as_tuple)
    otherwise: dict[str, str | None] = attrs.field(factory=dict, converter=as_dict)
    judgements: tuple[Judgement, ...] = attrs.field(default=(), converter=as_tuple)
    bias: dict[str, float] = attrs.field(factory=dict, converter=as_dict)
    rounds: tuple[Round, ...] = attrs.field(default=(), converter=as_tuple)
    rungs: tuple[Rung, ...] = attrs.field(default=(), converter=as_tuple)
    checks: tuple[Check, ...] = attrs.field(default=(), converter=as_tuple)
    overruled: bool | None = None
    spared_calls: int = 0
    spared_usd: float | None = None
    seats: tuple[SeatReport, ...] = attrs.field(default=(), converter=as_tuple)
    chair: str | None = None
    error: RunError | None = None
    problems: tuple[Problem, ...] = attrs.field(default=(), converter=as_tuple)
    errors: dict[str, CouncilError] = attrs.field(factory=dict, converter=as_dict)
    warnings: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    usage: Usage = Usage()
    cost: Cost = Cost()
    phases: tuple[PhaseTiming, ...] = attrs.field(default=(), converter=as_tuple)
    duration: float = 0.0
    plan: Plan
    metadata: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)
    _typed: TypedOutput | None = attrs.field(default=None, alias="typed")

    @property
    def output_value(self) -> Any:
        """The output as a JSON value, as ``to_dict`` and a store hold it."""
        if self._typed is not None and self._typed.output is self.output:
            return self._typed.value
        return self.output

    @property
    def task_id(self) -> str | None:
        """The id of the task that this is the result of, in a map; None for a run of its own."""
        return self.plan.task_id

    @property
    def success(self) -> bool:
        """True if there is an answer, complete or degraded."""
        return self.status in (Status.COMPLETED, Status.DEGRADED)

    def raise_for_failure(self) -> Self:
        """Return this result; raise the error of a run that failed or abstained.

        Raises:
            RunError: why the run failed; ``Abstained`` if it gives no answer.
        """
        if self.error is not None:
            raise self.error
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values; ``from_dict`` reads them back."""
        from llm_council.models._convert import dump  # imports cattrs, which a run does not need

        plain = self if self._typed is None else attrs.evolve(self, output=self.output_value, typed=None)
        data: dict[str, Any] = dump(plain)
        del data["_typed"]
        return {**data, "success": self.success}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CouncilResult:
        """Return the result that ``to_dict`` wrote; its output is a JSON value.

        Raises:
            InvalidOption: the data does not fit; the message names the path.
        """
        from llm_council.models._convert import load

        return load(cls, {key: value for key, value in data.items() if key != "success"})

    def to_markdown(self) -> str:
        """Return a Markdown report for people. Text from models is escaped."""
        from llm_council.results.markdown import report

        return report(self)

    def __repr__(self) -> str:
        """Return a one-line summary; ``to_dict`` returns everything."""
        if self._pending_state is not None:
            return self._pending_repr()
        by = ", ".join(seat.name for seat in self.seats) or "nobody"
        return f"<CouncilResult {self.run_id}: {self.subagent} by {by}, {self.status} in {self.duration:.1f} s>"

    def __str__(self) -> str:
        """Return the answer as text, with control characters made visible; for a failed run, its error."""
        if self._pending_state is not None:
            return self._pending_repr()
        from llm_council.results.plain import answer

        return answer(self)

    def _repr_html_(self) -> str | None:
        """Return the card that notebooks show; None for a pending result, which makes them show its ``repr``."""
        if self._pending_state is not None:
            return None
        from llm_council.results.card import card

        return card(self)

    def _repr_markdown_(self) -> str | None:
        """Return the report for notebooks; None for a pending result, which makes the notebook show its ``repr``."""
        return self.to_markdown() if self._pending_state is None else None

    def to_html(self) -> str:
        """Return an HTML report for people: one page without scripts that loads nothing."""
        from llm_council.results.html import report

        return report(self)
