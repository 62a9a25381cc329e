"""The board on a terminal: every seat and phase, notes of what went wrong, and nothing that a terminal would obey."""

from __future__ import annotations

import re
import sys

import pytest

from llm_council.cli._progress import progress
from llm_council.errors import ServerFailed
from llm_council.events import (
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
from llm_council.models import GenerateResponse, Phase, Plan, SeatSpec, Status

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


def test_a_terminal_shows_a_table_of_seats_and_phases(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress(quiet=False, words=False) as listener:
        for event in events():
            listener(event)
    out, err = capsys.readouterr()
    assert out == ""
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err).rpartition("seat ")[2]
    assert re.search(r"local-1\s+✓ 1\.2 s\s+✓ 1\.2 s\s+✓ 1\.2 s", last)
    assert re.search(r"local-2\s+✗ 2\.5 s", last)
    assert "repair" in last
    assert "local-2 gave no draft" in last
    assert "evil␛]52;c;aGk=␇" in last
    assert "\x1b]52" not in err


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=False, words=False) as listener:
        for event in events():
            listener(event)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "  draft local-1: done (1.2 s)"
    assert "  draft local-2: failed: busy [31mnow (2.5 s)" in lines
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
        *["  degraded: a is slow", "", "[draft c]", "six seven"],
        *["", "[draft d]", "eight", "council: cancelled after 2.0 s"],
    ]
