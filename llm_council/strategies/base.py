"""The contract between a strategy and the engine.

A strategy says in ``plan`` what it will do, and does it in ``deliberate`` on a ``Table``. The table asks the seats: it
keeps the deadline, the quorum and the budget, quotes texts of seats under anonymous labels, stores every call, replays
stored ones, and reports events. The strategies of this package use nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, ClassVar

import attrs

from llm_council.errors import CouncilError, RunError
from llm_council.models import (
    Agreement,
    Answer,
    Budget,
    Check,
    Critique,
    Dissent,
    Draft,
    GenerateResponse,
    Judgement,
    Phase,
    Plan,
    Problem,
    Ranking,
    Round,
    Rung,
    SeatSpec,
    Tally,
)
from llm_council.models._attrs import as_dict, as_tuple, non_negative_int, positive_int, strict_init

__all__ = ["Ask", "Reply", "Roster", "Steps", "Strategy", "Table", "Verdict"]


@strict_init
@attrs.frozen(kw_only=True)
class Roster:
    """What a strategy knows when it plans a run.

    Attributes:
        seats: every seat, in order.
        chair: name of the seat that the caller wants to write the answer; None leaves the choice to the strategy.
        drafters: names of the seats that the caller wants to draft; None likewise.
        quorum: seats that must answer; None means one.
        critique: False if the role skips the critique of drafts.
        subagent: name of the role.
        schema: JSON Schema of the answer; None for free text.
        max_repairs: how often a seat is asked to repair an answer that does not match its schema.
    """

    seats: tuple[SeatSpec, ...] = attrs.field(converter=as_tuple)
    chair: str | None = None
    drafters: tuple[str, ...] | None = None
    quorum: int | None = None
    critique: bool = True
    subagent: str = ""
    schema: Mapping[str, Any] | None = None
    max_repairs: int = 2

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the seats, in order."""
        return tuple(seat.name for seat in self.seats)

    @property
    def repairs(self) -> tuple[Phase, ...]:
        """The phase ``repair`` if an answer may be repaired, to be added to ``Steps.phases``."""
        return (Phase.REPAIR,) if self.schema is not None and self.max_repairs else ()

    @property
    def most_writing_calls(self) -> int:
        """The most calls of ``Table.synthesise``, and of ``Table.finish`` with a schema.

        Each seat may take the chair once, and is asked a second time if the drafts exceed its context.
        """
        # A failed repair hands the chair on in place of a new answer, so only the last one adds a call.
        return 2 * len(self.seats) + (self.max_repairs + 1 if self.repairs else 0)


@strict_init
@attrs.frozen(kw_only=True)
class Steps:
    """What a strategy will do in a run: who is asked in which phase.

    Attributes:
        phases: the phases that will run, in order.
        most_calls: the most calls of the run, with repairs and every change of the chair. Retries are attempts of a
            call, and do not count. A call beyond this number fails the run.
        drafters: names of the seats that draft.
        samples: the most drafts of each of them.
        drafts_by_schema: True if drafts have the form of the schema already; False if they are prose.
        reviewers: names of the seats that review drafts.
        chairs: names of the seats that may write the answer, the first choice first; another one replaces a seat that
            fails.
        chair_by_rank: True if the ranking of the drafts chooses the chair.
        asks: phase -> names of the seats that ``Table.ask`` asks in it if nothing fails, once for each call.
        notes: decisions that the caller should know.
    """

    phases: tuple[Phase, ...] = attrs.field(converter=as_tuple)
    most_calls: int = attrs.field(validator=positive_int)
    drafters: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    samples: int = attrs.field(default=1, validator=positive_int)
    drafts_by_schema: bool = False
    reviewers: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    chairs: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    chair_by_rank: bool = False
    asks: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, converter=as_dict)
    notes: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)


@strict_init
@attrs.frozen(kw_only=True)
class Ask:
    """A question to one seat, for ``Table.ask_all``.

    Attributes:
        seat: name of the seat.
        instructions: what the seat is to do, in the user's turn below the task and the texts.
        show: texts of seats, which it sees under anonymous labels.
        phase: the phase; one of ``Steps.phases``.
        in_order: True shows the texts in the order of ``show``; False in an order of the seat's own.
        round: number of the round, for strategies that ask in several; from 0.
        schema: True asks for an answer in the form of the run's schema.
    """

    seat: str
    instructions: str
    show: tuple[Draft | Critique | Reply, ...] = attrs.field(default=(), converter=as_tuple)
    phase: Phase
    in_order: bool = False
    round: int = attrs.field(default=0, validator=non_negative_int)
    schema: bool = False


@strict_init
@attrs.frozen(kw_only=True)
class Reply:
    """The answer of a seat to an ``Ask``, or the reason why there is none.

    Attributes:
        seat: name of the seat.
        call: name of the call in the journal, such as ``"judge/local-1/1"``.
        labels: the texts that it was shown: anonymous label to name of the author.
        response: the answer; None after an error.
        error: why the seat did not answer.
        elapsed: seconds that the call took.
    """

    seat: str
    call: str
    labels: Mapping[str, str] = attrs.field(factory=dict, converter=as_dict)
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0

    @property
    def text(self) -> str:
        """The text of the answer; empty if there is none."""
        return (self.response.text or "") if self.response else ""


@strict_init
@attrs.frozen(kw_only=True)
class Verdict:
    """The final answer of a run. ``Table.finish`` and ``Table.synthesise`` return it.

    Attributes:
        chair: name of the seat that wrote it; None if the run abstains.
        text: the text as the seat wrote it.
        output: the value, valid by the schema; without a schema, the text without its thinking.
        problems: how the answer still violates the schema.
        error: set if the run has failed for these problems, or abstains.
        answers: answers of seats, as they were counted, by seat name.
        tally: the count.
        agreement: how far the seats agree.
        dissent: the answers that did not win.
        otherwise: what other strategies would have answered with the same drafts: ``"single:ann"`` is the answer of ann
            alone.
        judgements: what judges said of the drafts.
        bias: how far judgements depend on what they should not: ``"first_slot_rate"``, the share of choices for the
            first of two texts; ``"flip_rate"``, the share of pairs in which the order decided;
            ``"own_family_margin"``, by how much drafts of the judge's own provider score higher than others.
        rounds: what the seats said in each round, the drafts first, where they may change their minds.
        rungs: the groups of seats that were asked one after the other, until one agreed.
        checks: claims of the answer that were checked by seats that had not seen it.
        overruled: True if the chair gave another answer than more than half of the drafts; None if that cannot be told.
        spared: names of the seats that were not asked because the answer was settled, once for each call.
    """

    chair: str | None
    text: str | None
    output: Any = None
    problems: tuple[Problem, ...] = attrs.field(default=(), converter=as_tuple)
    error: RunError | None = None
    answers: Mapping[str, Answer] = attrs.field(factory=dict, converter=as_dict)
    tally: Tally | None = None
    agreement: Agreement | None = None
    dissent: tuple[Dissent, ...] = attrs.field(default=(), converter=as_tuple)
    otherwise: Mapping[str, str | None] = attrs.field(factory=dict, converter=as_dict)
    judgements: tuple[Judgement, ...] = attrs.field(default=(), converter=as_tuple)
    bias: Mapping[str, float] = attrs.field(factory=dict, converter=as_dict)
    rounds: tuple[Round, ...] = attrs.field(default=(), converter=as_tuple)
    rungs: tuple[Rung, ...] = attrs.field(default=(), converter=as_tuple)
    checks: tuple[Check, ...] = attrs.field(default=(), converter=as_tuple)
    overruled: bool | None = None
    spared: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)


class Table(ABC):
    """The seats of one run, as its strategy sees them.

    Every call has a name made of phase, seat, round and number. A resumed run finds the answers of its first process by
    these names, so a strategy must ask the same questions again: decide by the answers and ``random`` alone.
    """

    @property
    @abstractmethod
    def plan(self) -> Plan:
        """The plan of the run."""

    @property
    def seats(self) -> tuple[str, ...]:
        """Names of the seats, in order."""
        return tuple(seat.name for seat in self.plan.seats)

    @property
    def budget(self) -> Budget:
        """The limits of the run."""
        return self.plan.budget

    @property
    @abstractmethod
    def time_left(self) -> float:
        """Seconds until the deadline of the run; infinite without one. Do not decide by it: see the class."""

    @property
    @abstractmethod
    def drafts(self) -> tuple[Draft, ...]:
        """The successful drafts so far, in the order of the seats, then of their numbers."""

    @abstractmethod
    async def draft(
        self,
        seats: Sequence[str] | None = None,
        *,
        samples: int = 1,
        instructions: str = "",
        enough: Callable[[Sequence[Draft]], bool] | None = None,
    ) -> tuple[Draft, ...]:
        """Ask seats for drafts, all at once. A draft that has been asked for before is not asked for again.

        Until the quorum is reached, drafts may take all of the run's time, and reserves replace seats that fail.

        Args:
            seats: names of the seats; None means the drafters of the plan, whom the other seats may replace.
            samples: drafts of each seat in the whole run: with 3, a seat that has drafted once is asked for two more.
            instructions: what to add to the question.
            enough: called with the drafts of this call so far, failed ones included, once the quorum is there; True
                cancels those that are still being written.

        Returns:
            The successful drafts of the run, in the order of the seats.

        Raises:
            RunError: there are too few drafts.
        """

    @abstractmethod
    async def draft_and_review(
        self, phase: Phase = Phase.CRITIQUE, *, enough: Callable[[Sequence[Critique]], bool] | None = None
    ) -> tuple[Critique, ...]:
        """Let the drafters of the plan draft, and its reviewers judge the drafts of others.

        A reviewer starts as soon as the drafts that it will see have arrived. Without reviewers, this only drafts.

        Args:
            phase: ``Phase.CRITIQUE`` for critiques that end with a ranking, ``Phase.RANK`` for rankings alone.
            enough: called with the reviews so far after each one, once every draft has arrived or failed; True cancels
                the reviews that are still being written.

        Returns:
            The reviews, failed ones included, in the order of the reviewers.

        Raises:
            RunError: there are too few drafts.
        """

    @abstractmethod
    def ranking(self) -> Ranking:
        """Return the order of the drafts by the reviews so far; the run's seed breaks ties."""

    @abstractmethod
    def is_decided(self, reviews: Sequence[Critique]) -> bool:
        """Return True once no missing review can change the first place of the ranking; for ``enough``."""

    async def ask(
        self,
        seat: str,
        instructions: str,
        *,
        show: Sequence[Draft | Critique | Reply] = (),
        phase: Phase,
        round: int = 0,  # noqa: A002 - the word for it
        schema: bool = False,
    ) -> Reply:
        """Ask one seat; see ``Ask`` for the arguments. An error is in the reply, not raised."""
        asked = Ask(seat=seat, instructions=instructions, show=show, phase=phase, round=round, schema=schema)
        (reply,) = await self.ask_all([asked])
        return reply

    @abstractmethod
    async def ask_all(
        self, asks: Iterable[Ask], *, enough: Callable[[Sequence[Reply]], bool] | None = None
    ) -> tuple[Reply, ...]:
        """Ask several seats at once; all in one phase.

        Args:
            asks: the questions.
            enough: called with the replies so far, in the order in which they came; True cancels the other calls.

        Returns:
            The replies in the order of the questions. A reply without an answer has its error, and degrades the run
            unless the call was cancelled by ``enough``.
        """

    @abstractmethod
    async def synthesise(
        self, drafts: Sequence[Draft] | None = None, reviews: Sequence[Critique] | None = None
    ) -> Verdict:
        """Let the chair write the final answer. Another seat takes the chair if it fails.

        Args:
            drafts: the drafts that it is shown; None means all.
            reviews: the reviews that it is shown; None means all.

        Returns:
            The answer; the best draft if no seat could write one.
        """

    @abstractmethod
    async def finish(self, answer: Draft | Reply, *, value: Any = None) -> Verdict:
        """Return a text of a seat as the final answer.

        With a schema, an answer that was asked for in its form is validated and repaired. Any other text is brought
        into the form of the schema by its author, or by another seat if that fails.

        Args:
            answer: the text.
            value: what the strategy has read from it. If the schema accepts it, it is the output, and nobody is asked.
        """

    @abstractmethod
    def abstain(self, reason: str) -> Verdict:
        """Return the verdict of a run that ends without an answer; ``reason`` is for people."""

    @abstractmethod
    def report(self, tally: Tally, *, agreement: Agreement | None = None, dissent: Sequence[Dissent] = ()) -> None:
        """Tell the listeners of the run about the count of a vote, with the event ``Tallied``.

        Args:
            tally: the count.
            agreement: how far the seats agree; None if that cannot be told.
            dissent: the answers that did not win.
        """

    @abstractmethod
    def record(self, fact: Round | Rung | Judgement | Check) -> None:
        """Tell the listeners of the run what became known, with ``RoundFinished``, ``RungFinished`` and the like.

        The facts of the result are those of the verdict.
        """

    @abstractmethod
    def random(self, name: str) -> Random:
        """Return a generator that depends on the run's seed and the name alone."""

    @abstractmethod
    def child(self, name: str) -> Table:
        """Return a table for a strategy inside a strategy; names of calls and ``random`` are its own."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Add a sentence for the caller to the warnings of the result."""


class Strategy(ABC):
    """How seats deliberate.

    A subclass is a frozen attrs class whose fields are its options: plain JSON values, which the plan of a run holds so
    that another process can resume it. It must not store the state of a run.

    Attributes:
        name: the name by which users choose it; that of its entry point.
    """

    name: ClassVar[str]

    @abstractmethod
    def plan(self, roster: Roster) -> Steps:
        """Return what the strategy will do with these seats. Nothing is sent.

        Raises:
            InvalidOption: it cannot work with them; the message names the remedy.
        """

    @abstractmethod
    async def deliberate(self, table: Table) -> Verdict:
        """Ask the seats, and return the final answer.

        Raises:
            RunError: the run has failed. Any other exception fails the run too, with ``StrategyFailed``.
        """
