"""Progress of ``council batch`` on stderr: one bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import attrs

from llm_council.cli._output import can_draw, print_note, visible

__all__ = ["Counts", "Display", "Pace", "facts", "showing_progress"]

MOST_NAMED: Final = 10
"""Failed tasks that are named on stderr; all of them are in the results."""

_LINES: Final = 20
"""Plain lines of a whole batch."""


class Pace:
    """How fast tasks end, by the last 30 seconds, or by the last 60 tasks where they take longer.

    Args:
        clock: seconds; only differences count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended = 0
        self._marks = deque([(clock(), 0)], maxlen=60)  # times, at least half a second apart, and the tasks until then

    def add(self) -> None:
        """Note that a task has ended."""
        self._ended += 1
        now = self._clock()
        if now - self._marks[-1][0] >= 0.5:
            self._marks.append((now, self._ended))

    @property
    def rate(self) -> float:
        """Tasks a second; 0 before the first has ended."""
        since, ended = self._marks[0]
        took = self._clock() - since
        return (self._ended - ended) / took if took > 0 else 0.0


@attrs.define(kw_only=True)
class Counts:
    """How far a batch is.

    Attributes:
        total: number of tasks.
        done: tasks that have a result, those of earlier processes included.
        failed: those of them that failed.
        usd: US dollars so far, likewise.
        unpriced: True if the price of some calls is unknown, so that ``usd`` is without them.
        pace: how fast tasks end.
    """

    total: int
    done: int = 0
    failed: int = 0
    usd: float = 0.0
    unpriced: bool = False
    pace: Pace = attrs.field(factory=Pace)

    @property
    def money(self) -> str:
        """What was spent; more than that where a price is unknown."""
        if not self.usd:
            return "cost unknown" if self.unpriced else "$0"
        return f"{'over ' if self.unpriced else ''}${self.usd:.4f}"


def facts(counts: Counts) -> list[str]:
    """Return how fast a batch is, what is left, what failed, and what it cost."""
    rate = counts.pace.rate
    shown = [_rate(rate)] if rate else []
    if rate and counts.done < counts.total:
        shown.append(f"{_time((counts.total - counts.done) / rate)} left")
    if counts.failed:
        shown.append(f"{counts.failed:,} failed")
    return [*shown, counts.money]


def _rate(rate: float) -> str:
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate * seconds >= 1:
            return f"{rate * seconds:.{1 if rate * seconds < 10 else 0}f}/{unit}"
    return f"{rate * 3600:.1f}/h"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display(Protocol):
    """Shows how far a batch is."""

    def update(self) -> None:
        """Show the counts as they are now."""

    def note(self, line: str) -> None:
        """Print a line that stays."""


class _Lines:
    """Plain lines: about ``_LINES`` of them, and the last."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._step = max(1, counts.total // _LINES)
        self._shown = counts.done

    def update(self) -> None:
        counts = self._counts
        if counts.done - self._shown < self._step and counts.done < counts.total:
            return
        self._shown = counts.done
        print_note(f"council: {counts.done:,} of {counts.total:,} tasks, {', '.join(facts(counts))}")

    def note(self, line: str) -> None:
        print_note(line)


@contextmanager
def showing_progress(counts: Counts, *, plain: bool) -> Iterator[Display]:
    """Yield what shows the progress of a batch until the block ends.

    Args:
        counts: how far it is; changed by the caller.
        plain: print lines on a terminal, too.
    """
    if plain or not can_draw(sys.stderr):
        yield _Lines(counts)
        return
    # Imported here: without a terminal, rich is not needed.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task
    from rich.text import Text

    class Facts(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("  ".join(facts(counts)))

    class Bar:
        def update(self) -> None:
            progress.update(bar, completed=counts.done)

        def note(self, line: str) -> None:
            progress.console.print(Text(visible(line)))

    console = Console(stderr=True, highlight=False)
    done = f"{{task.completed:,.0f}}/{counts.total:,}"
    with Progress(done, BarColumn(bar_width=None), Facts(), console=console, expand=True) as progress:
        bar = progress.add_task("", total=counts.total, completed=counts.done)
        yield Bar()
