"""What the page shows of a run: the words of each seat, what was counted, time and money. Filled by events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from llm_council.errors import CouncilError
from llm_council.events import (
    AnyEvent,
    AttemptFailed,
    Checked,
    Degraded,
    Judged,
    PhaseStarted,
    Ranked,
    RoundFinished,
    RunFinished,
    RungFinished,
    RunStarted,
    SeatFinished,
    SeatReset,
    SeatStarted,
    Tallied,
    TextDelta,
)
from llm_council.models import Agreement, Dissent, Phase, Plan, Ranking, Tally
from llm_council.results import CouncilResult
from llm_council.results._markup import Markup

__all__ = ["MOST_WORDS", "PHASES", "Board", "Card", "Change", "Words"]

MOST_WORDS: Final = 200_000
"""Characters of one answer that are shown while it is written. The whole answer is in the result."""

MOST_TEXT: Final = 2 * 2**20
"""Characters of all answers of a run that are shown while it goes on."""

MOST_CARDS: Final = 400
"""Calls whose answers are shown while a run goes on; a run may make thousands."""

PHASES: Final = {
    Phase.DRAFT: "Drafts",
    Phase.CRITIQUE: "Reviews",
    Phase.RANK: "Rankings",
    Phase.GROUP: "Groups of equal answers",
    Phase.JUDGE: "Judgements",
    Phase.REVISE: "Revised answers",
    Phase.SYNTHESISE: "Synthesis",
    Phase.REPAIR: "Repair",
    Phase.VERIFY: "Checks",
}
"""Titles of the phases."""

FIRST: Final = (Phase.SYNTHESISE, Phase.REPAIR)
"""Phases whose words become the answer: the page shows them above the others."""


@attrs.define
class Card:
    """One call of a seat.

    Attributes:
        number: unique in the run.
        phase: the phase.
        seat: the seat's name.
        model: the model; None if it is unknown.
        state: ``writing``, ``done`` or ``failed``.
        text: the answer so far.
        error: why there is no answer.
        notes: attempts that failed, and why the answer was begun again.
        elapsed: seconds that the call took; None while it goes on.
        usd: what it cost in US dollars; None if that is unknown.
        tokens: its tokens; None likewise.
        html: the whole answer as inert markup; None until it was rendered.
    """

    number: int
    phase: Phase
    seat: str
    model: str | None = None
    state: str = "writing"
    text: str = ""
    error: str | None = None
    notes: list[str] = attrs.field(factory=list)
    elapsed: float | None = None
    usd: float | None = None
    tokens: int | None = None
    html: Markup | None = None


@attrs.frozen
class Words:
    """Words that were added to a card."""

    card: Card
    text: str


Change = Card | Words | Phase | str
"""What an event changed: a card, the words of one, a phase that has begun, or the part of the page of that name."""


@attrs.define
class Board:
    """What is known of a run.

    Attributes:
        plan: the plan; None until the run starts.
        cards: the calls, in the order in which they began.
        begun: the phases that have begun, in order.
        tally: the count of the answers.
        ranking: the order in which reviewers put the drafts.
        agreement: how far the seats agree.
        dissent: answers that did not win.
        remarks: what the reader should know: what was judged, checked, or is missing.
        status: ``running``, or how the run ended.
        elapsed: seconds since the start.
        usd: US dollars so far.
        is_usd_complete: False if the price of a call is unknown.
        tokens: tokens so far.
        calls: calls that have ended.
        has_answer: True if the run has ended with an answer, which a further question can go on from.
        can_resume: True if the run has ended without one, and a store knows what was answered.
    """

    plan: Plan | None = None
    cards: list[Card] = attrs.field(factory=list)
    begun: list[Phase] = attrs.field(factory=list)
    tally: Tally | None = None
    ranking: Ranking = Ranking()
    agreement: Agreement | None = None
    dissent: tuple[Dissent, ...] = ()
    remarks: list[str] = attrs.field(factory=list)
    status: str = "running"
    elapsed: float = 0.0
    usd: float = 0.0
    is_usd_complete: bool = True
    tokens: int = 0
    calls: int = 0
    has_answer: bool = False
    can_resume: bool = False
    _models: dict[str, str | None] = attrs.field(factory=dict)
    _length: int = 0  # characters of all cards

    @classmethod
    def of_result(cls, result: CouncilResult[Any]) -> Board:
        """Return the board of a run that has ended, from its result: drafts, reviews, and seats that failed."""
        board = cls(plan=result.plan, status=str(result.status), elapsed=result.duration)
        board.tally, board.agreement, board.dissent = result.tally, result.agreement, result.dissent
        board.ranking, board.remarks = result.ranking, list(result.warnings)
        board.usd, board.is_usd_complete = result.cost.usd or 0.0, result.cost.complete
        board.tokens = result.usage.total_tokens or 0
        models = {seat.name: seat.model for seat in result.seats}
        for phase, texts in ((Phase.DRAFT, result.drafts), (Phase.CRITIQUE, result.critiques)):
            for name, text in texts.items():
                seat = name.partition("#")[0]
                board.cards.append(
                    Card(len(board.cards), phase, name, models.get(name, models.get(seat)), "done", text)
                )
        for report in result.seats:
            board.calls += len(report.calls)
            if report.error is None or report.name in result.drafts:
                continue
            phase = report.calls[-1].phase if report.calls else Phase.DRAFT
            card = Card(len(board.cards), phase, report.name, report.model, "failed")
            card.error, card.elapsed = _words(report.error), report.elapsed
            board.cards.append(card)
        return board

    @property
    def show_ranking(self) -> bool:
        """True if there are points that no count of answers shows."""
        return any(self.ranking.points.values()) and (self.tally is None or not self.tally.points)

    def phases(self) -> Iterator[tuple[Phase, str, list[Card]]]:
        """Yield each phase that has begun, with its title and its cards: the synthesis first, as it is the answer."""
        order = sorted(self.begun, key=lambda phase: phase not in FIRST)
        found: dict[Phase, list[Card]] = {phase: [] for phase in order}
        for card in self.cards:
            found.setdefault(card.phase, []).append(card)
        for phase, cards in found.items():
            yield phase, PHASES.get(phase, str(phase)), cards

    def draft_count(self) -> int:
        """Return the number of finished drafts."""
        return sum(card.phase == Phase.DRAFT and card.state == "done" for card in self.cards)

    def stop_writing(self) -> list[Card]:
        """Note that the run has ended, and return the cards of calls that were cut off."""
        cut = [card for card in self.cards if card.state == "writing"]
        for card in cut:
            card.state, card.error = "failed", "It was cut off."
        return cut

    def take(self, event: AnyEvent) -> list[Change]:
        """Take an event, and return what changes on the page."""
        self.elapsed = max(self.elapsed, event.at)
        match event:
            case RunStarted():
                self.plan = event.plan
                self.remarks += event.plan.warnings
                self._models = {seat.name: seat.model or seat.provider for seat in event.plan.seats}
                return ["facts"]
            case PhaseStarted():
                if event.phase not in self.begun:
                    self.begun.append(event.phase)
                return [event.phase, "facts"]
            case SeatStarted() | TextDelta() | SeatReset() | AttemptFailed() | SeatFinished():
                return self._take_call(event)
            case Tallied():
                self.tally, self.agreement, self.dissent = event.tally, event.agreement, event.dissent
                return ["votes"]
            case Ranked():
                self.ranking = event.ranking
                return ["votes"]
            case Judged() | Checked() | Degraded() | RoundFinished() | RungFinished():
                self.remarks.append(event._summary())
                return ["votes"]
            case RunFinished():
                self.status, self.elapsed = str(event.status), event.elapsed
                return ["facts"]
            case _:
                return []

    def _take_call(self, event: SeatStarted | TextDelta | SeatReset | AttemptFailed | SeatFinished) -> list[Change]:
        if isinstance(event, SeatStarted):
            if len(self.cards) >= MOST_CARDS:
                return []
            card = Card(len(self.cards), event.phase, event.seat, self._models.get(event.seat))
            self.cards.append(card)
            return [card]
        open_cards = [one for one in self.cards if self._is_open(one, event)]
        if isinstance(event, SeatFinished):
            self._count(event)
            if not open_cards:
                return ["facts"]
            self._finish(open_cards[0], event)
            return [open_cards[0], "facts"]
        # A seat that writes several answers at once does not say which one its words belong to: they come at the end.
        if len(open_cards) != 1:
            return []
        (card,) = open_cards
        if isinstance(event, TextDelta):
            text = event.text[: self._room(card)]
            card.text += text
            self._length += len(text)
            return [Words(card, text)] if text else []
        if isinstance(event, SeatReset):
            self._length -= len(card.text)
            card.text = ""
            card.notes.append(f"begun again: {event.reason}")
        elif event.retry_in is not None:  # the error of the last attempt is that of the call
            card.notes.append(f"{_words(event.error)}; asked again in {event.retry_in:.1f} s")
        return [card]

    def _room(self, card: Card) -> int:
        """Return how many characters may be added to a card."""
        return max(0, min(MOST_WORDS - len(card.text), MOST_TEXT - self._length))

    def _finish(self, card: Card, event: SeatFinished) -> None:
        card.elapsed = event.elapsed
        if event.error is not None:
            card.state, card.error = "failed", _words(event.error)
            return
        card.state = "done"
        response = event.response
        if response is None:
            return
        self._length -= len(card.text)
        whole, card.text = response.text or card.text, ""
        card.text = whole[: self._room(card)]
        self._length += len(card.text)
        if len(card.text) < len(whole):
            card.notes.append("The rest of this answer is too long for the page.")
        card.model = response.model or card.model
        card.usd = None if response.cost is None else response.cost.usd
        card.tokens = None if response.usage is None else response.usage.total_tokens

    def _is_open(self, card: Card, event: TextDelta | SeatReset | AttemptFailed | SeatFinished) -> bool:
        return card.state == "writing" and card.phase == event.phase and card.seat == event.seat

    def _count(self, event: SeatFinished) -> None:
        """Add what a call took to the totals."""
        self.calls += 1
        response = event.response
        if response is None:
            return
        if response.cost is not None and response.cost.usd is not None:
            self.usd += response.cost.usd
            self.is_usd_complete &= response.cost.complete
        else:
            self.is_usd_complete = False
        if response.usage is not None:
            self.tokens += response.usage.total_tokens or 0


def _words(error: CouncilError) -> str:
    return f"{type(error).__name__}: {error}"
