"""What the page knows of a run, from its events (tox -e serve)."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council import errors, events
from llm_council.models import Cost, GenerateResponse, Phase, Plan, Ranking, SeatSpec, Status, Tally, Usage
from llm_council.serve.page import board as board_module
from llm_council.serve.page.board import Board, Card, Words

pytestmark = pytest.mark.serve

PLAN = Plan(run_id="r", task="Where?", subagent="advisor", seats=[SeatSpec(name="a", provider="p", model="m")])


def event(kind: type[events.Event], **fields: Any) -> Any:
    """Return an event of the run."""
    return kind(run_id="r", at=fields.pop("at", 1.0), **fields)


def started(*seats: str, phase: Phase = Phase.DRAFT) -> Board:
    """Return the board of a run in which these seats were asked."""
    board = Board()
    board.take(event(events.RunStarted, plan=PLAN))
    board.take(event(events.PhaseStarted, phase=phase))
    for seat in seats:
        board.take(event(events.SeatStarted, phase=phase, seat=seat))
    return board


def say(board: Board, seat: str, text: str) -> list[Any]:
    """Let a seat write."""
    return board.take(event(events.TextDelta, phase=Phase.DRAFT, seat=seat, text=text))


def finish(board: Board, seat: str, **fields: Any) -> list[Any]:
    """Let a seat end its draft."""
    return board.take(event(events.SeatFinished, phase=Phase.DRAFT, seat=seat, elapsed=2.0, **fields))


def test_words_go_to_the_card_of_their_seat() -> None:
    board = started("a", "b")
    (change,) = say(board, "b", "Hello")
    assert isinstance(change, Words)
    assert (change.card.seat, change.text) == ("b", "Hello")
    assert [card.text for card in board.cards] == ["", "Hello"]
    assert board.cards[0].model == "m"


def test_words_of_a_seat_that_writes_twice_at_once_come_at_the_end() -> None:
    board = started("a", "a")
    assert say(board, "a", "whose?") == []
    finish(board, "a", response=GenerateResponse(text="first"))
    finish(board, "a", response=GenerateResponse(text="second"))
    assert [(card.state, card.text) for card in board.cards] == [("done", "first"), ("done", "second")]


def test_an_answer_that_begins_again_loses_its_words() -> None:
    board = started("a")
    say(board, "a", "Wrong")
    (card,) = board.take(event(events.SeatReset, phase=Phase.DRAFT, seat="a", reason="another model"))
    assert isinstance(card, Card)
    assert (card.text, card.notes) == ("", ["begun again: another model"])


def test_an_attempt_that_is_repeated_is_noted_and_the_last_one_is_the_error() -> None:
    board = started("a")
    late = errors.TimedOut("too slow")
    board.take(event(events.AttemptFailed, phase=Phase.DRAFT, seat="a", error=late, retry_in=0.5))
    board.take(event(events.AttemptFailed, phase=Phase.DRAFT, seat="a", error=late))
    finish(board, "a", error=late)
    (card,) = board.cards
    assert card.notes == ["TimedOut: too slow; asked again in 0.5 s"]
    assert (card.state, card.error) == ("failed", "TimedOut: too slow")


def test_time_money_and_tokens_add_up_and_an_unknown_price_is_not_0() -> None:
    board = started("a", "b")
    cost = Cost(usd=0.25, source="reported", complete=True)
    usage = Usage(input_tokens=3, output_tokens=4)
    assert "facts" in finish(board, "a", response=GenerateResponse(text="x", cost=cost, usage=usage))
    assert (board.usd, board.is_usd_complete, board.tokens, board.calls) == (0.25, True, 7, 1)
    finish(board, "b", response=GenerateResponse(text="x"))
    assert (board.usd, board.is_usd_complete, board.calls) == (0.25, False, 2)
    board.take(event(events.RunFinished, at=3.0, status=Status.COMPLETED, elapsed=3.0))
    assert (board.status, board.elapsed) == ("completed", 3.0)


def test_what_is_counted_is_shown_once() -> None:
    board = started("a")
    ranking = Ranking(order=["a", "b"], points={"a": 1.0, "b": 0.0})
    assert board.take(event(events.Ranked, ranking=ranking)) == ["votes"]
    assert board.show_ranking
    board.take(event(events.Tallied, tally=Tally(winner="a", points={"a": 1.0, "b": 0.0})))
    assert not board.show_ranking


def test_phases_stand_in_order_and_the_one_that_writes_the_answer_first() -> None:
    board = started("a")
    for phase in (Phase.CRITIQUE, Phase.SYNTHESISE):
        board.take(event(events.PhaseStarted, phase=phase))
    assert [title for _, title, _ in board.phases()] == ["Synthesis", "Drafts", "Reviews"]


def test_what_is_kept_of_a_run_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "MOST_WORDS", 10)
    monkeypatch.setattr(board_module, "MOST_TEXT", 25)
    monkeypatch.setattr(board_module, "MOST_CARDS", 3)
    board = started("a", "b", "c", "d")
    for seat in "abcd":
        for _ in range(5):
            say(board, seat, "word ")
        finish(board, seat, response=GenerateResponse(text="word " * 5))
    assert [len(card.text) for card in board.cards] == [10, 10, 5]
    assert all("too long" in card.notes[-1] for card in board.cards)
    assert board.calls == 4


def test_calls_that_were_cut_off_do_not_go_on_writing() -> None:
    board = started("a", "b")
    finish(board, "a", response=GenerateResponse(text="x"))
    (cut,) = board.stop_writing()
    assert (cut.seat, cut.state) == ("b", "failed")
