"""How `council batch` tells how far it is."""

from __future__ import annotations

import pytest

from llm_council.cli._batch_progress import Counts, Pace, facts, showing_progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(*gaps: float) -> tuple[Pace, Clock]:
    clock = Clock()
    pace = Pace(clock)
    for gap in gaps:
        clock.now += gap
        pace.add()
    return pace, clock


@pytest.mark.parametrize(
    ("gap", "left", "shown"),
    [
        (0.5, 10, ["2.0/s", "0:05 left", "$0"]),
        (0.01, 100_000, ["100/s", "16:40 left", "$0"]),
        (10.0, 700, ["6.0/min", "1:56:40 left", "$0"]),
        (600.0, 1, ["6.0/h", "10:00 left", "$0"]),
        (0.5, 0, ["2.0/s", "$0"]),
    ],
)
def test_rate_and_time_left_follow_from_the_pace(gap: float, left: int, shown: list[str]) -> None:
    pace, _ = paced(*[gap] * 8)
    assert facts(Counts(total=8 + left, done=8, pace=pace)) == shown


def test_the_rate_is_that_of_the_last_tasks() -> None:
    pace, clock = paced(*[100.0] * 50, *[1.0] * 300)
    assert pace.rate == pytest.approx(1.0)
    clock.now += 59
    assert pace.rate == pytest.approx(0.5)
    fast, _ = paced(*[5.0] * 60, *[0.001] * 50_000)
    assert fast.rate == pytest.approx(1_000, rel=0.1)


def test_nothing_is_said_of_a_pace_before_the_first_task() -> None:
    pace, _ = paced()
    assert facts(Counts(total=8, pace=pace)) == ["$0"]


@pytest.mark.parametrize(
    ("usd", "unpriced", "shown"),
    [(0.0, False, "$0"), (0.0, True, "cost unknown"), (1.25, False, "$1.2500"), (1.25, True, "over $1.2500")],
)
def test_money_says_whether_it_is_all(usd: float, unpriced: bool, shown: str) -> None:
    assert Counts(total=1, usd=usd, unpriced=unpriced).money == shown


def test_failures_are_counted() -> None:
    assert "1,200 failed" in facts(Counts(total=9_000, done=3_000, failed=1_200))


def test_plain_lines_are_few_and_the_last_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    counts = Counts(total=1_000, done=100)
    with showing_progress(counts, plain=True) as display:
        display.note("council: q1 failed")
        for _ in range(900):
            counts.done += 1
            display.update()
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "council: q1 failed"
    assert len(lines) == 18
    assert lines[0].startswith("council: 150 of 1,000 tasks, ")
    assert lines[-1].startswith("council: 1,000 of 1,000 tasks, ")
