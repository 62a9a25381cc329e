"""Charts as inline SVG: scatter plots with lines, and intervals. Colours are classes of the page's style sheet.

A plot library would add 105 to 173 MB of packages, or scripts inside the page. These charts need a linear and a
logarithmic axis, marks, lines and labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor, isfinite, log10
from typing import Final

import attrs

from llm_council.results._markup import Markup, tag

__all__ = ["Axis", "Forest", "Mark", "Series", "forest", "scatter"]

WIDTH: Final = 720
HEIGHT: Final = 380
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 46


@attrs.frozen(kw_only=True)
class Axis:
    """An axis.

    Attributes:
        title: what it measures, with the unit.
        low: its lowest value.
        high: its highest value, above the lowest.
        log: True for a logarithmic axis, whose values are above 0.
        percent: True labels shares in per cent.
    """

    title: str
    low: float
    high: float
    log: bool = False
    percent: bool = False

    @classmethod
    def over(
        cls, values: Sequence[float], title: str, *, log: bool = False, percent: bool = False, zero: bool = False
    ) -> Axis:
        """Return an axis that covers all values, with a margin on both sides."""
        known = [value for value in values if isfinite(value) and (value > 0 or not log)]
        if zero:
            known.append(0.0)
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        if log:
            if not known or low == high:
                low, high = (low or 1.0) / 2, (high or 1.0) * 2
            return cls(title=title, low=low / 1.3, high=high * 1.3, log=True)
        room = (high - low) * 0.08 or 0.05
        low, high = low - room, high + room
        if percent:
            low, high = max(0.0, low), min(1.0, high)
        return cls(title=title, low=low, high=high if high > low else low + 1.0, percent=percent)

    def place(self, value: float) -> float:
        """Return where a value stands, from 0 to 1."""
        if self.log:
            value = max(value, self.low)
            return (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Yield round values with their labels."""
        if self.log:
            found = [
                factor * 10.0**power
                for power in range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
                for factor in (1, 2, 5)
            ]
            for value in found:
                if self.low <= value <= self.high:
                    yield value, f"{value:g}"
            return
        step = _round_step((self.high - self.low) / 5)
        value = ceil(self.low / step - 1e-9) * step
        while value <= self.high + step * 1e-9:
            yield value, f"{100 * value:g} %" if self.percent else f"{_plain(value):g}"
            value += step


def _round_step(step: float) -> float:
    power = 10.0 ** floor(log10(step))
    return next((factor * power for factor in (1, 2, 5) if step <= factor * power), 10 * power)


def _plain(value: float) -> float:
    return round(value, 10) + 0.0


@attrs.frozen(kw_only=True)
class Mark:
    """A point with a name.

    Attributes:
        x: where.
        y: where.
        name: shown beside it, and as its title.
        kind: class of the style sheet.
        low: lower end of the interval of y; None without one.
        high: upper end.
    """

    x: float
    y: float
    name: str
    kind: str
    low: float | None = None
    high: float | None = None


@attrs.frozen(kw_only=True)
class Series:
    """A line through points.

    Attributes:
        points: x and y.
        name: its title.
        kind: class of the style sheet.
        steps: True draws steps, as for a frontier.
    """

    points: Sequence[tuple[float, float]]
    name: str
    kind: str
    steps: bool = False


def scatter(x: Axis, y: Axis, marks: Sequence[Mark], lines: Sequence[Series], title: str) -> Markup:
    """Return a plot of marks and lines; ``title`` describes it for screen readers."""

    def across(value: float) -> float:
        return LEFT + x.place(value) * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)

    parts = [tag("title", title)]
    for value, label in y.ticks():
        parts.append(_line(LEFT, down(value), WIDTH - RIGHT, down(value), "grid"))
        parts.append(_text(LEFT - 8, down(value) + 4, label, "tick", "end"))
    for value, label in x.ticks():
        parts.append(_line(across(value), HEIGHT - BOTTOM, across(value), HEIGHT - BOTTOM + 5, "axis"))
        parts.append(_text(across(value), HEIGHT - BOTTOM + 18, label, "tick", "middle"))
    parts.append(_line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x.title, "label", "middle"))
    for series in lines:
        path = []
        for number, (a, b) in enumerate(series.points):
            if series.steps and number:
                path.append(f"{across(a):.1f},{down(series.points[number - 1][1]):.1f}")
            path.append(f"{across(a):.1f},{down(b):.1f}")
        if path:
            parts.append(
                tag(
                    "g", tag("title", series.name), tag("polyline", points=" ".join(path)), class_=f"line {series.kind}"
                )
            )
    # The marks themselves: a name must not cover them.
    placed = [(across(mark.x) - 7, across(mark.x) + 7, down(mark.y) + 4) for mark in marks]
    for mark in sorted(marks, key=lambda one: (one.x, -one.y)):
        left, top = across(mark.x), down(mark.y)
        inner = [tag("title", mark.name)]
        if mark.low is not None and mark.high is not None:
            inner.append(_line(left, down(mark.low), left, down(mark.high), "whisker"))
        inner.append(tag("circle", cx=f"{left:.1f}", cy=f"{top:.1f}", r="5"))
        inner.append(_label(left, top, mark.name, placed))
        parts.append(tag("g", *inner, class_=f"mark {mark.kind}"))
    return _svg(parts, HEIGHT)


def _label(left: float, top: float, name: str, placed: list[tuple[float, float, float]]) -> Markup:
    """Return a name beside a mark, moved up or down until it covers no other name and no mark."""
    width = 6.6 * len(name)
    to_left = left + 10 + width > WIDTH - RIGHT
    start = left - 10 - width if to_left else left + 10
    rooms = [top + 4 + 7 * step for step in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, 8, -8)]
    height = next((room for room in rooms if _is_free(start, start + width, room, placed)), top + 4)
    placed.append((start, start + width, height))
    return _text(left - 10 if to_left else left + 10, height, name, "name", "end" if to_left else "start")


def _is_free(start: float, end: float, height: float, placed: Sequence[tuple[float, float, float]]) -> bool:
    if not TOP + 8 <= height <= HEIGHT - BOTTOM - 2:
        return False
    return all(abs(height - other) >= 13 or start > right or end < left for left, right, other in placed)


@attrs.frozen(kw_only=True)
class Forest:
    """A row of a forest plot.

    Attributes:
        name: what it is about.
        estimate: the estimate.
        low: lower end of its interval; None without one.
        high: upper end.
        kind: class of the style sheet.
        band_low: lower end of the simultaneous interval, drawn thinner; None without one.
        band_high: upper end.
    """

    name: str
    estimate: float
    low: float | None
    high: float | None
    kind: str
    band_low: float | None = None
    band_high: float | None = None


def forest(rows: Sequence[Forest], margin: float, title: str) -> Markup:
    """Return paired differences with their intervals, a row each; zero and the margin are lines.

    Args:
        rows: the differences, in points.
        margin: the gain that is worth having, in points.
        title: describes the plot for screen readers.
    """
    ends = [end for row in rows for end in (row.estimate, row.low, row.high, row.band_low, row.band_high)]
    axis = Axis.over([*(end for end in ends if end is not None), 0.0, margin], "points")
    left, height = 190, 26 * len(rows) + 60

    def across(value: float) -> float:
        return left + axis.place(value) * (WIDTH - left - RIGHT)

    bottom = height - BOTTOM
    parts = [tag("title", title)]
    for value, label in axis.ticks():
        parts.append(_line(across(value), TOP, across(value), bottom, "grid"))
        parts.append(_text(across(value), bottom + 18, label, "tick", "middle"))
    parts.append(_line(across(0.0), TOP, across(0.0), bottom, "axis"))
    parts.append(_line(across(margin), TOP, across(margin), bottom, "margin"))
    parts.append(_text((left + WIDTH - RIGHT) / 2, height - 8, "points gained", "label", "middle"))
    for number, row in enumerate(rows):
        top = TOP + 18 + 26 * number
        inner = [tag("title", row.name), _text(left - 10, top + 4, row.name, "name", "end")]
        if row.band_low is not None and row.band_high is not None:
            inner.append(_line(across(row.band_low), top, across(row.band_high), top, "band"))
        if row.low is not None and row.high is not None:
            inner.append(_line(across(row.low), top, across(row.high), top, "whisker"))
        inner.append(tag("circle", cx=f"{across(row.estimate):.1f}", cy=f"{top:.1f}", r="5"))
        parts.append(tag("g", *inner, class_=f"mark {row.kind}"))
    return _svg(parts, height)


def _svg(parts: Sequence[Markup], height: float) -> Markup:
    drawing = tag("svg", *parts, viewBox=f"0 0 {WIDTH} {height:g}", role="img", class_="chart")
    # Text of a chart would be too small to read on a phone: below its width, the chart is scrolled.
    return tag("div", drawing, class_="scroll", tabindex="0")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> Markup:
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)
