"""What a terminal shows during a run: a live line for each seat, and with ``--stream`` the words of the seats."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from llm_council.cli._output import visible
from llm_council.events import (
    AttemptFailed,
    Event,
    PhaseFinished,
    PhaseStarted,
    RunFinished,
    RunStarted,
    SeatFinished,
    SeatReset,
    SeatStarted,
    TextDelta,
)
from llm_council.models import Phase

__all__ = ["Board", "live_board"]

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_REFRESHES = 8  # a second
_CHARACTERS_PER_TOKEN = 4  # of English text; only for a count while an answer arrives
_PANEL_WIDTH = 38  # columns; two panels stand side by side on a terminal of 80
_PANEL_LINES = 3  # at least
_SHOWN = 4000  # characters of a text that is still arriving, from its end
_ANSWER = (Phase.SYNTHESISE, Phase.REPAIR)  # their text is the final answer, which is printed after the run


@attrs.define
class _Call:
    """A call of one seat in one phase."""

    started: float
    elapsed: float | None = None
    failed: bool = False
    retry: str = ""
    pieces: list[str] = attrs.field(factory=list)
    length: int = 0


@attrs.define
class _Seat:
    calls: dict[str, _Call] = attrs.field(factory=dict)
    tokens: int = 0
    usd: float | None = None


class Board:
    """The state of a run as its events report it, and its picture.

    The terminal is drawn by another thread than the one that receives the events.

    Args:
        console: the terminal.
        words: show the text of the seats too.
        clock: seconds, for tests.
    """

    def __init__(self, console: Console, *, words: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._words = words
        self._clock = clock
        self._lock = threading.Lock()
        self._started = clock()
        self._finished: float | None = None
        self._seats: dict[str, _Seat] = {}
        self._phases: list[str] = []
        self._texts: dict[tuple[str, str], _Call] = {}  # what is shown in panels, by phase and seat

    def receive(self, event: Event) -> None:
        """Note an event."""
        with self._lock:
            self._receive(event)

    def _receive(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._seats = {seat.name: _Seat() for seat in event.plan.seats}
            # A repair is rare: its column comes when it does.
            self._phases = [phase for phase in event.plan.phases if phase != Phase.REPAIR]
        elif isinstance(event, PhaseStarted) and event.phase not in self._phases:
            self._phases.append(event.phase)
        elif isinstance(event, RunFinished):
            self._finished = event.elapsed
        elif isinstance(event, SeatStarted):
            call = _Call(started=self._clock())
            self._seat(event.seat).calls[event.phase] = call
            self._texts[event.phase, event.seat] = call
        elif isinstance(event, TextDelta | SeatReset | AttemptFailed | SeatFinished):
            self._receive_call(event)

    def _receive_call(self, event: TextDelta | SeatReset | AttemptFailed | SeatFinished) -> None:
        seat = self._seat(event.seat)
        call = seat.calls.setdefault(event.phase, _Call(started=self._clock()))
        if isinstance(event, TextDelta):
            call.retry = ""
            call.pieces.append(event.text)
            call.length += len(event.text)
        elif isinstance(event, SeatReset):
            call.pieces, call.length = [], 0
        elif isinstance(event, AttemptFailed):
            if event.retry_in is not None:
                call.retry = f"{event.seat}: {type(event.error).__name__}, next attempt in {event.retry_in:.0f} s"
        else:
            call.retry, call.elapsed, call.failed = "", event.elapsed, event.error is not None
            call.length = 0
            if event.response is not None:
                if not call.pieces:
                    call.pieces = [event.response.text or ""]
                seat.tokens += (event.response.usage and event.response.usage.total_tokens) or 0
                if event.response.cost is not None and event.response.cost.usd is not None:
                    seat.usd = (seat.usd or 0.0) + event.response.cost.usd

    def _seat(self, name: str) -> _Seat:
        return self._seats.setdefault(name, _Seat())

    # Pictures

    def picture(self) -> RenderableType:
        """Return what the terminal shows now."""
        with self._lock:
            if not self._seats:  # the plan is not known yet
                return Text()
            table = Group(self._table(), *self._notes(), self._sum())
            if not self._words:
                return table
            active = {key: call for key, call in self._texts.items() if call.pieces or call.elapsed is None}
            if not active or self._finished is not None:
                return table
            columns = max(1, min(len(active), self._console.width // _PANEL_WIDTH))
            rows = -(-len(active) // columns)
            free = self._console.height - len(self._seats) - 4
            lines = max(_PANEL_LINES, free // rows - 2)
            return Group(self._panels(active, columns, lines=lines), table)

    def finished_texts(self, phase: str | None = None) -> RenderableType | None:
        """Return the texts of a phase, or of all, to stay above the live picture; None if there are none.

        The final answer is not among them: it is printed once, after the run.
        """
        with self._lock:
            keys = [key for key in self._texts if phase in (None, key[0])]
            found = {key: self._texts.pop(key) for key in keys}
            shown = {key: call for key, call in found.items() if call.pieces and key[0] not in _ANSWER}
            if not self._words or not shown:
                return None
            return self._panels(shown, max(1, min(len(shown), self._console.width // _PANEL_WIDTH)))

    def _panels(self, calls: dict[tuple[str, str], _Call], columns: int, *, lines: int | None = None) -> RenderableType:
        """Return texts side by side; with ``lines``, the end of each in at most so many lines."""
        grid = Table.grid(expand=True)
        for _ in range(columns):
            grid.add_column(ratio=1)
        width = self._console.width // columns - 4  # a panel's border and padding
        texts = [visible("".join(call.pieces)).strip("\n") for call in calls.values()]
        bodies = [Text(text if lines is None else text[-_SHOWN:], overflow="fold") for text in texts]
        heights: list[int] = []
        if lines is not None:
            ends = [body.wrap(self._console, max(1, width))[-lines:] for body in bodies]
            heights = [len(end) for end in ends]
            bodies = [Text("\n").join(end) for end in ends]
        panels = []
        for place, ((phase, seat), call) in enumerate(calls.items()):
            first = place - place % columns
            # Panels grow with their words; those side by side are of one height.
            height = 2 + max(1, *heights[first : first + columns]) if heights else None
            body = bodies[place]
            title = Text(visible(f"{phase} {seat}"), style="bold", overflow="ellipsis")
            style = "red" if call.failed else "green" if call.elapsed is not None else "dim"
            panels.append(Panel(body, title=title, title_align="left", border_style=style, height=height))
        for first in range(0, len(panels), columns):
            grid.add_row(*panels[first : first + columns])
        return grid

    def _table(self) -> RenderableType:
        wide = self._console.width >= 36 + 12 * len(self._phases)
        columns = self._phases if wide else ["phase"]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("seat", style="bold", no_wrap=True, overflow="ellipsis", max_width=24)
        for column in columns:
            table.add_column(column, min_width=9, no_wrap=True, overflow="ellipsis")
        table.add_column("tokens", justify="right", no_wrap=True)
        table.add_column("cost", justify="right", no_wrap=True)
        for name, seat in self._seats.items():
            cells = [self._cell(seat.calls.get(phase)) for phase in self._phases]
            if not wide:
                cells = [self._latest(seat)]
            arriving = sum(call.length for call in seat.calls.values()) // _CHARACTERS_PER_TOKEN
            table.add_row(Text(visible(name)), *cells, _tokens(seat.tokens, arriving), _money(seat.usd))
        return table

    def _latest(self, seat: _Seat) -> Text:
        if not seat.calls:
            return Text()
        phase, call = next(reversed(seat.calls.items()))
        return self._cell(call).append(f" {phase}")

    def _cell(self, call: _Call | None) -> Text:
        if call is None:
            return Text()
        if call.elapsed is not None:
            mark, style = ("✗", "red") if call.failed else ("✓", "green")
            return Text(f"{mark} {call.elapsed:.1f} s", style=style)
        passed = self._clock() - call.started
        mark = "↻" if call.retry else _SPINNER[int(passed * 10) % len(_SPINNER)]
        return Text(f"{mark} {passed:.1f} s", style="yellow")

    def _notes(self) -> Iterator[Text]:
        for seat in self._seats.values():
            for call in seat.calls.values():
                if call.retry:
                    yield Text(visible(call.retry), style="yellow", overflow="ellipsis", no_wrap=True)

    def _sum(self) -> Text:
        seats = self._seats.values()
        elapsed = self._clock() - self._started if self._finished is None else self._finished
        arriving = sum(call.length for seat in seats for call in seat.calls.values()) // _CHARACTERS_PER_TOKEN
        facts = [f"{elapsed:.1f} s", _tokens(sum(seat.tokens for seat in seats), arriving) + " tokens"]
        known = [seat.usd for seat in seats if seat.usd is not None]
        if known:
            facts.append(_money(sum(known)))
        return Text(" · ".join(facts), style="dim", overflow="ellipsis", no_wrap=True)


def _tokens(known: int, arriving: int) -> str:
    return f"~{known + arriving:,}" if arriving else f"{known:,}"


def _money(usd: float | None) -> str:
    return "" if usd is None else "$0" if usd == 0 else f"${usd:.4f}"


@contextmanager
def live_board(*, words: bool) -> Iterator[Callable[[Event], None]]:
    """Yield a listener whose events are shown on stderr, which must be a terminal, until the block ends.

    Args:
        words: show the text of the seats too.
    """
    console = Console(stderr=True, highlight=False)
    board = Board(console, words=words)

    def listener(event: Event) -> None:
        board.receive(event)
        if words and isinstance(event, PhaseFinished):
            keep(board.finished_texts(event.phase))

    def keep(texts: RenderableType | None) -> None:
        if texts is not None:
            live.console.print(texts)

    live = Live(console=console, get_renderable=board.picture, refresh_per_second=_REFRESHES, redirect_stdout=False)
    with live:
        try:
            yield listener
        finally:
            keep(board.finished_texts())
    console.print()  # sets the answer apart
