"""What a run brought forth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import attrs

from llm_council.errors import Attempt, CouncilError, RunError
from llm_council.models._attrs import as_dict, as_tuple, strict_init
from llm_council.models.deliberation import Phase, PhaseTiming, Plan, Problem, Ranking, Status
from llm_council.models.reply import Adjustment, Cost, GenerateResponse, Usage
from llm_council.results._pending import AwaitableNoun

__all__ = ["CallReport", "CouncilResult", "SeatReport"]


@strict_init
@attrs.frozen(kw_only=True)
class CallReport:
    """One call of a seat.

    Attributes:
        phase: in which phase.
        response: the answer.
        error: why there is none.
        elapsed: seconds from the call to its end.
        stopped: deprecated, and None for every new call: answers are no longer stopped early. Reports stored by 0.1.0
            may hold the reason.
    """

    phase: Phase
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0
    stopped: str | None = None


@strict_init
@attrs.frozen(kw_only=True)
class SeatReport:
    """What became of one seat.

    Attributes:
        name: the seat.
        provider: its provider.
        model: the model that answered, else the one that was asked for.
        calls: every call of the run, in the order of the phases.
    """

    name: str
    provider: str
    model: str | None = None
    calls: tuple[CallReport, ...] = attrs.field(default=(), converter=as_tuple)

    @property
    def response(self) -> GenerateResponse | None:
        """The seat's first answer: its draft, for a drafter."""
        return next((call.response for call in self.calls if call.response is not None), None)

    @property
    def error(self) -> CouncilError | None:
        """The seat's first error."""
        return next((call.error for call in self.calls if call.error is not None), None)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every try of every call."""
        return tuple(attempt for call in self.calls for attempt in (call.response or call.error or _none).attempts)

    @property
    def elapsed(self) -> float:
        """Seconds spent waiting for this seat."""
        return sum(call.elapsed for call in self.calls)

    @property
    def usage(self) -> Usage:
        """Tokens of all its calls; None where no call said."""
        return sum((call.response.usage for call in self.calls if call.response and call.response.usage), Usage())

    @property
    def cost(self) -> Cost:
        """Money of all its calls; incomplete where a call did not say."""
        return total_cost(self.calls)

    @property
    def adjustments(self) -> tuple[Adjustment, ...]:
        """What was sent otherwise than asked."""
        return tuple(adjustment for call in self.calls if call.response for adjustment in call.response.adjustments)


_none = CouncilError()


def total_cost(calls: tuple[CallReport, ...]) -> Cost:
    """Add up what calls cost: a call that failed or did not say makes the sum incomplete."""
    known = [call.response.cost for call in calls if call.response and call.response.cost]
    if not known:
        return Cost()
    total = known[0]
    for cost in known[1:]:
        total = total + cost
    return total if len(known) == len(calls) else attrs.evolve(total, complete=False)


@strict_init
@attrs.frozen(kw_only=True, eq=False, repr=False)
class CouncilResult(AwaitableNoun):
    """The result of one run. A failed run has one too. It may be awaited, and yields itself.

    Attributes:
        run_id: the run.
        task: what was asked.
        subagent: the role that was played.
        mode: its variant.
        status: completed, degraded (an answer with something missing), failed or cancelled.
        output: the answer, valid by the role's schema; None when there is none.
        text: the chair's own words, kept whatever became of them.
        drafts: finished drafts by seat name.
        critiques: finished critiques by seat name, the authors' names put beside the labels that hid them.
        ranking: the tally of the reviewers' rankings.
        seats: what became of each seat.
        chair: the seat whose answer this is.
        error: why the run failed.
        problems: what is still wrong with an invalid answer.
        errors: the first error of each seat that had one.
        warnings: what a person should know.
        usage: tokens of all calls.
        cost: money of all calls.
        phases: when each phase ran.
        duration: seconds.
        plan: what the run set out to do.
        metadata: the caller's own.
    """

    run_id: str
    task: str
    subagent: str
    mode: str | None = None
    status: Status = attrs.field(converter=Status)
    output: Any = None
    text: str | None = None
    drafts: dict[str, str] = attrs.field(factory=dict, converter=as_dict)
    critiques: dict[str, str] = attrs.field(factory=dict, converter=as_dict)
    ranking: Ranking = Ranking()
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

    @property
    def success(self) -> bool:
        """Whether there is an answer, be it a degraded one."""
        return self.status in (Status.COMPLETED, Status.DEGRADED)

    def raise_for_failure(self) -> Self:
        """Return this result, or raise the error of a failed one.

        Raises:
            RunError: why the run failed.
        """
        if self.error is not None:
            raise self.error
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values; ``from_dict`` reads it back."""
        from llm_council.models._convert import dump

        data: dict[str, Any] = dump(self)
        return {**data, "success": self.success}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CouncilResult:
        """Read back what ``to_dict`` wrote.

        Raises:
            InvalidOption: the data is not of that form; the message names the path.
        """
        from llm_council.models._convert import load

        return load(cls, {key: value for key, value in data.items() if key != "success"})

    def to_markdown(self) -> str:
        """Return a report for people, in Markdown that shows the models' words and does nothing with them."""
        from llm_council.results.markdown import report

        return report(self)

    def __repr__(self) -> str:
        """Say in a line what became of the run; ``attrs.asdict`` and ``to_dict`` have all of it."""
        if self._start is not None:
            return self._unfinished()
        by = ", ".join(seat.name for seat in self.seats) or "nobody"
        return f"<CouncilResult {self.run_id}: {self.subagent} by {by}, {self.status} in {self.duration:.1f} s>"

    def _repr_markdown_(self) -> str | None:
        """Show a notebook the report; one that was not awaited shows its ``repr``."""
        return self.to_markdown() if self._start is None else None

    def to_html(self) -> str:
        """Return a report for people as one HTML page, which loads nothing and runs nothing."""
        from llm_council.results.html import report

        return report(self)
