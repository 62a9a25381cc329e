"""Progress of a run on stderr: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from llm_council.cli._output import print_note, visible
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

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["progress"]


@contextmanager
def progress(*, quiet: bool, words: bool) -> Iterator[Callable[[Event], None]]:
    """Yield a listener that shows the progress of a run until the block ends.

    Args:
        quiet: show nothing.
        words: show the text of the seats while it arrives, instead of the table.
    """
    if quiet:
        yield lambda event: None
    elif words:
        yield _StreamedText()
    elif sys.stderr.isatty():
        with _live_table() as listener:
            yield listener
    else:
        yield _lines


def _lines(event: Event) -> None:
    """Print a line for the start, for each finished seat, and for the end."""
    if isinstance(event, RunStarted):
        seats = ", ".join(seat.name for seat in event.plan.seats)
        print_note(f"council: {event.plan.subagent} with {seats}")
    elif isinstance(event, SeatFinished):
        outcome = f"failed: {event.error}" if event.error else "done"
        print_note(f"  {event.phase} {event.seat}: {outcome} ({event.elapsed:.1f} s)")
    elif isinstance(event, Degraded):
        print_note(f"  degraded: {event.reason}")
    elif isinstance(event, RunFinished):
        print_note(f"council: {event.status} after {event.elapsed:.1f} s")


class _StreamedText:
    """Prints the text of the seats as it arrives, one seat at a time; events of the other seats wait for their turn."""

    def __init__(self) -> None:
        self._current: tuple[str, str] | None = None  # phase and seat
        self._waiting: dict[tuple[str, str], list[Event]] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, TextDelta | SeatReset | SeatFinished):
            # Seats answer at once: their texts would be mixed up, so one is shown and the others are stored.
            key = (event.phase, event.seat)
            if self._current in (None, key):
                self._show(event, key)
            else:
                self._waiting.setdefault(key, []).append(event)
            while self._current is None and self._waiting:
                self._show_waiting(next(iter(self._waiting)))
        elif isinstance(event, RunFinished):
            while self._waiting:
                self._end_line()
                self._show_waiting(next(iter(self._waiting)))
            self._end_line()
            _lines(event)
        elif self._current is not None and isinstance(event, Degraded):
            self._waiting.setdefault(("", ""), []).append(event)  # must not interrupt the line of the current seat
        else:
            _lines(event)

    def _show_waiting(self, key: tuple[str, str]) -> None:
        for event in self._waiting.pop(key):
            self._show(event, key)

    def _show(self, event: Event, key: tuple[str, str]) -> None:
        if isinstance(event, TextDelta):
            if self._current is None:
                print_note(f"\n[{event.phase} {event.seat}]")
                self._current = key
            # Not `print_note`: it would end the line after every piece.
            text = visible(event.text) if sys.stderr.isatty() else event.text
            click.echo(text, nl=False, err=True, color=True)
        elif isinstance(event, SeatReset):
            self._end_line()
            print_note(f"[{event.phase} {event.seat} starts again: {event.reason}]")
        else:
            self._end_line()
            _lines(event)

    def _end_line(self) -> None:
        if self._current:
            click.echo(err=True)
            self._current = None


@contextmanager
def _live_table() -> Iterator[Callable[[Event], None]]:
    # Imported here: without a terminal, Rich is not needed.
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    cells: dict[tuple[str, str], str] = {}
    phases: list[str] = []
    seats: list[str] = []
    notes: list[str] = []

    def listener(event: Event) -> None:
        if isinstance(event, RunStarted):
            seats.extend(seat.name for seat in event.plan.seats)
            phases.extend(event.plan.phases)
        elif isinstance(event, PhaseStarted) and event.phase not in phases:
            phases.append(event.phase)
        elif isinstance(event, SeatStarted):
            cells[event.seat, event.phase] = "…"
        elif isinstance(event, SeatFinished):
            mark = "✗" if event.error else "✓"
            cells[event.seat, event.phase] = f"{mark} {event.elapsed:.1f} s"
            if event.error:
                notes.append(f"{event.seat}: {event.error}")
        elif isinstance(event, Degraded):
            notes.append(event.reason)
        live.update(_table(seats, phases, cells, notes))

    with Live(console=console, refresh_per_second=8, transient=False) as live:
        yield listener


_STYLES = {"✓": "green", "✗": "red", "…": "yellow"}


def _table(seats: list[str], phases: list[str], cells: dict[tuple[str, str], str], notes: list[str]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table: Table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("seat", style="bold")
    for phase in phases:
        table.add_column(phase, min_width=9)
    for seat in seats:
        row = [cells.get((seat, phase), "") for phase in phases]
        table.add_row(Text(visible(seat)), *(Text(cell, style=_STYLES.get(cell[:1], "")) for cell in row))
    return Group(table, *(Text(visible(note), style="yellow", overflow="ellipsis", no_wrap=True) for note in notes))
