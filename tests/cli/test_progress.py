"""The board on a terminal: every seat and phase, notes of what went wrong, and nothing that a terminal would obey."""

from __future__ import annotations

import io
import re

import attrs
import pytest
from rich.console import Console

from llm_council.cli._board import Board
from llm_council.cli._progress import progress
from llm_council.errors import ServerFailed
from llm_council.events import (
    AttemptFailed,
    Degraded,
    Event,
    PhaseStarted,
    RunFinished,
    RunStarted,
    SeatFinished,
    SeatReset,
    SeatStarted,
    TextDelta,
)
from llm_council.models import Cost, GenerateResponse, Phase, Plan, SeatSpec, Status, Usage

SEATS = ("local-1", "local-2", "evil\x1b]52;c;aGk=\x07")


def events() -> list[Event]:
    phases = (Phase.DRAFT, Phase.SYNTHESISE)
    seats = [SeatSpec(name=name, provider="local") for name in SEATS]
    plan = Plan(run_id="r", task="t", subagent="advisor", seats=seats, phases=phases)
    answer = GenerateResponse(text="Paris")
    error = ServerFailed("busy \x1b[31mnow")
    happened: list[Event] = [RunStarted(run_id="r", at=0.0, plan=plan)]
    for phase in (*phases, Phase.REPAIR):
        happened.append(PhaseStarted(run_id="r", at=0.0, phase=phase))
        happened.append(SeatStarted(run_id="r", at=0.0, phase=phase, seat=SEATS[0]))
        happened.append(SeatFinished(run_id="r", at=1.0, phase=phase, seat=SEATS[0], response=answer, elapsed=1.25))
    happened.append(SeatFinished(run_id="r", at=1.0, phase=Phase.DRAFT, seat=SEATS[1], error=error, elapsed=2.5))
    happened.append(Degraded(run_id="r", at=1.0, reason="local-2 gave no draft", seats=("local-2",)))
    happened.append(RunFinished(run_id="r", at=2.0, status=Status.DEGRADED, elapsed=2.0))
    return happened


def board(*happened: Event, width: int = 100, words: bool = False) -> str:
    """Return what a terminal shows 2.5 seconds after these events."""
    now = [0.0]
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=30, color_system=None)
    shown = Board(console, words=words, clock=lambda: now[0])
    for event in happened:
        shown.receive(event)
    now[0] = 2.5
    with console.capture() as capture:
        console.print(shown.picture())
    return capture.get()


def test_a_terminal_shows_a_line_for_each_seat() -> None:
    last = board(*events())
    assert re.search(r"local-1\s+✓ 1\.2 s\s+✓ 1\.2 s\s+✓ 1\.2 s", last)
    assert re.search(r"local-2\s+✗ 2\.5 s", last)
    assert "repair" in last
    assert "evil␛]52;c;aGk=␇" in last
    assert "\x1b]52" not in last
    assert "busy" not in last, "why a seat failed is printed once, after the run"


def test_the_clock_the_tokens_and_the_money_of_a_seat_are_shown() -> None:
    usage, cost = Usage(input_tokens=1000, output_tokens=500), Cost(usd=0.02, source="reported")
    answer = GenerateResponse(text="Paris", usage=usage, cost=cost)
    begun, _, started, finished = events()[:4]
    finished = attrs.evolve(finished, response=answer)
    word = TextDelta(run_id="r", at=0.0, phase=Phase.DRAFT, seat=SEATS[0], text="w" * 400)
    assert re.search(r"local-1\s+\S 2\.5 s\s+~100\s*\n", board(begun, started, word))
    assert re.search(r"local-1\s+✓ 1\.2 s\s+1,500\s+\$0\.0200", board(begun, started, word, finished))
    assert "1,500 tokens · $0.0200" in board(begun, started, word, finished)
    reset = SeatReset(run_id="r", at=0.0, phase=Phase.DRAFT, seat=SEATS[0], reason="cut off")
    assert "~" not in board(begun, started, word, reset)


def test_a_narrow_terminal_shows_the_latest_phase_of_each_seat() -> None:
    shown = board(*events(), width=50)
    assert re.search(r"local-1\s+✓ 1\.2 s repair", shown)
    assert max(map(len, shown.splitlines())) <= 50
    assert board(*events(), width=10)


def test_an_attempt_that_is_made_again_is_shown_while_it_waits() -> None:
    begun, _, started = events()[:3]
    again = AttemptFailed(
        run_id="r", at=0.0, phase=Phase.DRAFT, seat=SEATS[0], error=ServerFailed("busy"), retry_in=3.0
    )
    assert "local-1: ServerFailed, next attempt in 3 s" in board(begun, started, again)
    word = TextDelta(run_id="r", at=0.0, phase=Phase.DRAFT, seat=SEATS[0], text="word")
    assert "next attempt" not in board(begun, started, again, word)


@pytest.mark.parametrize(("width", "rows"), [(80, 1), (70, 2)])
def test_words_stand_side_by_side_where_there_is_room(width: int, rows: int) -> None:
    begun = events()[0]
    happened: list[Event] = [begun]
    for seat in SEATS[:2]:
        happened.append(SeatStarted(run_id="r", at=0.0, phase=Phase.DRAFT, seat=seat))
        text = "\x1b[2Jword " * 300 + f"end-of-{seat}"
        happened.append(TextDelta(run_id="r", at=0.0, phase=Phase.DRAFT, seat=seat, text=text))
    shown = board(*happened, width=width, words=True)
    assert len([line for line in shown.splitlines() if "draft local-" in line]) == rows
    assert "end-of-local-1" in shown
    assert "end-of-local-2" in shown
    assert len(shown.splitlines()) <= 30
    assert "\x1b[2J" not in shown


def test_the_boxes_of_words_grow_with_the_words() -> None:
    def height(words: int) -> int:
        happened: list[Event] = [events()[0]]
        for seat in SEATS[:2]:
            happened.append(SeatStarted(run_id="r", at=0.0, phase=Phase.DRAFT, seat=seat))
        happened.append(TextDelta(run_id="r", at=0.0, phase=Phase.DRAFT, seat=SEATS[0], text="word " * words))
        shown = board(*happened, width=120, words=True).splitlines()
        boxes = [line for line in shown if line.startswith(("╭", "│", "╰"))]
        assert all(line.count("│") == 4 for line in boxes[1:-1]), "two boxes of one height side by side"
        return len(boxes)

    assert (height(0), height(5), height(20)) == (3, 3, 4)
    assert height(20) < height(60) < height(3000) == height(6000)


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=False, words=False) as listener:
        for event in events():
            listener(event)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "  draft local-1: done (1.2 s)"
    assert "  draft local-2: failed (2.5 s)" in lines
    assert not [line for line in lines if "busy" in line or "gave no draft" in line], "the result says it once"
    assert lines[-1] == "council: degraded after 2.0 s"


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=True, words=False) as listener:
        for event in events():
            listener(event)
    assert capsys.readouterr() == ("", "")


def test_streamed_text_of_two_seats_is_not_mixed(capsys: pytest.CaptureFixture[str]) -> None:
    def word(seat: str, text: str) -> Event:
        return TextDelta(run_id="r", at=0.0, phase=Phase.DRAFT, seat=seat, text=text)

    def done(seat: str) -> Event:
        answer = GenerateResponse(text="said")
        return SeatFinished(run_id="r", at=1.0, phase=Phase.DRAFT, seat=seat, response=answer, elapsed=1.0)

    reset = SeatReset(run_id="r", at=0.0, phase=Phase.DRAFT, seat="b", reason="cut off")
    slow = Degraded(run_id="r", at=0.5, reason="a is slow", seats=("a",))
    happened = [word("a", "one "), word("b", "no"), word("a", "two "), reset, slow, word("b", "four "), done("b")]
    happened += [word("c", "six"), word("a", "three"), done("a"), word("c", " seven"), word("d", "eight")]
    happened.append(RunFinished(run_id="r", at=2.0, status=Status.CANCELLED, elapsed=2.0))
    with progress(quiet=False, words=True) as listener:
        for event in happened:
            listener(event)
    assert capsys.readouterr().err.splitlines() == [
        *["", "[draft a]", "one two three", "  draft a: done (1.0 s)"],
        *["", "[draft b]", "no", "[draft b starts again: cut off]"],
        *["", "[draft b]", "four ", "  draft b: done (1.0 s)"],
        *["", "[draft c]", "six seven"],
        *["", "[draft d]", "eight", "council: cancelled after 2.0 s"],
    ]


def test_the_streamed_text_of_the_chair_is_left_to_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=False, words=True) as listener:
        listener(TextDelta(run_id="r", at=0.0, phase=Phase.SYNTHESISE, seat="a", text="the final words"))
        listener(RunFinished(run_id="r", at=2.0, status=Status.COMPLETED, elapsed=2.0))
    assert capsys.readouterr().err.splitlines() == ["council: completed after 2.0 s"]
