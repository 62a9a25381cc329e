"""Progress of a run on stderr: a live board on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llm_council.cli._output import can_draw, print_note
from llm_council.events import Event, RunFinished, RunStarted, SeatFinished, SeatReset, TextDelta
from llm_council.models import Phase

__all__ = ["progress"]


@contextmanager
def progress(*, quiet: bool, words: bool) -> Iterator[Callable[[Event], None]]:
    """Yield a listener that shows the progress of a run until the block ends.

    Args:
        quiet: show nothing.
        words: show the text of the seats while it arrives.
    """
    if quiet:
        yield lambda event: None
    elif can_draw(sys.stderr):
        # Imported here: without a terminal, rich is not needed.
        from llm_council.cli._board import live_board

        with live_board(words=words) as listener:
            yield listener
    else:
        yield _StreamedText() if words else _lines


def _lines(event: Event) -> None:
    """Print a line for the start, for each finished seat, and for the end. The result says why a seat failed."""
    if isinstance(event, RunStarted):
        seats = ", ".join(seat.name for seat in event.plan.seats)
        print_note(f"council: {event.plan.subagent} with {seats}")
    elif isinstance(event, SeatFinished):
        outcome = "failed" if event.error else "done"
        print_note(f"  {event.phase} {event.seat}: {outcome} ({event.elapsed:.1f} s)")
    elif isinstance(event, RunFinished):
        print_note(f"council: {event.status} after {event.elapsed:.1f} s")


class _StreamedText:
    """Prints the text of the seats as it arrives, one seat at a time; events of the other seats wait for their turn."""

    def __init__(self) -> None:
        self._current: tuple[str, str] | None = None  # phase and seat
        self._waiting: dict[tuple[str, str], list[Event]] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, TextDelta | SeatReset) and event.phase in (Phase.SYNTHESISE, Phase.REPAIR):
            return  # the final answer, which is printed once, after the run
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
            print_note(event.text, newline=False)
        elif isinstance(event, SeatReset):
            self._end_line()
            print_note(f"[{event.phase} {event.seat} starts again: {event.reason}]")
        else:
            self._end_line()
            _lines(event)

    def _end_line(self) -> None:
        if self._current:
            print_note("")
            self._current = None
