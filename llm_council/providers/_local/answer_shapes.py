"""Shapes of answers, each of which knows how long it can get: what a schema becomes before it is sent to the engine.

Constrained decoding stops in mid-sentence when the tokens run out, and half a JSON value is none. Every shape here has
a greatest length in characters, therefore, and ``fitted`` chooses bounds under which the whole answer ends in time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor
from typing import Any, Protocol

import attrs

__all__ = ["Choice", "Fit", "Fixed", "Formed", "Listing", "Number", "Record", "Shape", "Text", "fitted", "number"]

COMFORT = 100
"""Characters in which a sentence fits: below this, fewer items and no optional properties are better."""

LONGEST = 600
"""Characters beyond which a text is not stretched, however much room there is."""

LEAST = 30
"""Characters of a text where nothing fits."""

PATTERN_ROOM = 64
"""Characters for a text with a pattern and no declared length: cut shorter, the pattern may have no word left."""

_ESCAPES = 1.25  # characters that JSON writes as two, such as quotes and line breaks
_GREATEST = 99_999  # of numbers without bounds: digits go on for ever otherwise
_STEP = Fraction(1, 100)
_NAMED = 20  # values named one by one, where nothing shorter says them


@attrs.frozen
class Fit:
    """Bounds under which a shape is sent.

    Attributes:
        text: most characters of a text that does not say it itself.
        items: most items of a list that does not need more.
        optional: whether properties that may be left out are offered.
    """

    text: int
    items: int
    optional: bool


class Shape(Protocol):
    """Part of an answer."""

    def width(self, fit: Fit) -> float:
        """Return its greatest length in characters."""
        ...

    def schema(self, fit: Fit) -> dict[str, Any]:
        """Return it as the engine's grammar takes it."""
        ...


@attrs.frozen
class Fixed:
    """One of these values."""

    values: tuple[Any, ...]

    def width(self, fit: Fit) -> float:
        """Return the length of the longest."""
        return max(_written(value) for value in self.values)

    def schema(self, fit: Fit) -> dict[str, Any]:
        """Return an enumeration."""
        return {"enum": list(self.values)}


@attrs.frozen
class Number:
    """A number between two bounds that it may reach; without them its digits go on for ever."""

    low: float
    high: float
    whole: bool
    step: float | None = None

    def width(self, fit: Fit) -> float:
        """Return the length of the longer bound, with a sign and decimals."""
        decimals = 0 if self.step is None else 1 + len(f"{self.step:.10f}".rstrip("0").partition(".")[2])
        return max(len(f"{end:.0f}") for end in (self.low, self.high)) + 1 + decimals

    def schema(self, fit: Fit) -> dict[str, Any]:
        """Return a bounded number."""
        step = {} if self.step is None else {"multipleOf": self.step}
        return {"type": "integer" if self.whole else "number", "minimum": self.low, "maximum": self.high, **step}


def number(bounds: Mapping[str, float], *, whole: bool) -> Shape | None:
    """Return the shape of a number; None when there is none between the bounds.

    A number that needs no step of its own gets one of a hundredth, since the engine bounds digits by that alone. Steps
    below zero are beyond it: such numbers become whole ones, or a few of them are named.

    Args:
        bounds: the schema's own words, such as ``minimum`` and ``multipleOf``.
        whole: whether it has no decimals.
    """
    own = bounds.get("multipleOf")
    exact = {word: Fraction(str(value)) for word, value in bounds.items()}
    low, high = _ends(exact)
    step = exact.get("multipleOf", Fraction(1) if whole else _STEP)
    if whole and step.denominator > 1:
        step = Fraction(step.numerator)
    first = ceil(low / step) * step
    last = floor(high / step) * step
    first += step if first == exact.get("exclusiveMinimum") else 0
    last -= step if last == exact.get("exclusiveMaximum") else 0
    if first > last:
        middle = (low + high) / 2
        inside = low < high or (low == high and not {"exclusiveMinimum", "exclusiveMaximum"} & exact.keys())
        return Fixed((float(middle),)) if own is None and not whole and inside else None
    if last >= 0 or (whole and own is None):
        return Number(_plain(first), _plain(last), whole, None if whole and own is None else _plain(step))
    if own is None and floor(last) >= first:
        return Number(ceil(first), floor(last), whole=True)
    count = min(_NAMED, int((last - first) / step) + 1)
    return Fixed(tuple(_plain(last - index * step) for index in range(count)))


def _ends(exact: Mapping[str, Fraction]) -> tuple[Fraction, Fraction]:
    lows = [exact[word] for word in ("minimum", "exclusiveMinimum") if word in exact]
    highs = [exact[word] for word in ("maximum", "exclusiveMaximum") if word in exact]
    low = max(lows) if lows else min(Fraction(-_GREATEST), min(highs, default=Fraction(0)) - _GREATEST)
    high = min(highs) if highs else max(Fraction(_GREATEST), max(lows, default=Fraction(0)) + _GREATEST)
    return low, high


def _plain(value: Fraction) -> float:
    return int(value) if value.denominator == 1 else float(value)


@attrs.frozen
class Text:
    """A text."""

    least: int = 0
    most: int | None = None
    pattern: str | None = None

    def _most(self, fit: Fit) -> int:
        if self.pattern is not None:
            return max(self.least, fit.text, PATTERN_ROOM) if self.most is None else self.most
        room = max(self.least, fit.text)
        return room if self.most is None else min(room, self.most)

    def width(self, fit: Fit) -> float:
        """Return the length with quotes and escapes."""
        return self._most(fit) * _ESCAPES + 2

    def schema(self, fit: Fit) -> dict[str, Any]:
        """Return a text of bounded length."""
        most = self._most(fit)
        # An empty text says nothing; a small model that is allowed one will write it.
        least = max(self.least, min(1, most)) if self.pattern is None else self.least
        return {"type": "string", **_said({"minLength": least or None, "pattern": self.pattern}), "maxLength": most}


@attrs.frozen
class Formed:
    """A text of a format that the engine knows, such as a date."""

    format: str
    most: int

    def width(self, fit: Fit) -> float:
        """Return the length with quotes."""
        return self.most + 2

    def schema(self, fit: Fit) -> dict[str, Any]:
        """Return a text of this format."""
        return {"type": "string", "format": self.format, "maxLength": self.most}


@attrs.frozen
class Listing:
    """A list: some first items with shapes of their own, then items of one shape, or none."""

    item: Shape | None
    first: tuple[Shape, ...] = ()
    least: int = 0
    most: int | None = None

    def _more(self, fit: Fit) -> int:
        """Return how many items of the one shape there are at most."""
        if self.item is None:
            return 0
        wanted = max(self.least, fit.items)
        most = wanted if self.most is None else min(wanted, self.most)
        return max(0, most - len(self.first))

    def width(self, fit: Fit) -> float:
        """Return the length with brackets and commas."""
        inner = sum(shape.width(fit) for shape in self.first)
        if self.item is not None:
            inner += self._more(fit) * self.item.width(fit)
        return 2 + inner + 2 * (len(self.first) + self._more(fit))

    def schema(self, fit: Fit) -> dict[str, Any]:
        """Return a list of bounded length."""
        more = self._more(fit)
        count = len(self.first) + more
        if not self.first:
            items = self.item.schema(fit) if self.item is not None and more else {"type": "null"}
            return {"type": "array", "items": items, **_said({"minItems": self.least or None}), "maxItems": count}
        first = [shape.schema(fit) for shape in self.first]
        if self.item is not None:
            first += [self.item.schema(fit)] * more
        return {
            "type": "array",
            "prefixItems": first,
            "items": False,
            "minItems": max(self.least, len(self.first)),
            "maxItems": count,
        }


@attrs.frozen
class Record:
    """An object of named properties, closed: what is not named is not offered."""

    required: Mapping[str, Shape]
    optional: Mapping[str, Shape]
    order: tuple[str, ...]

    def _offered(self, fit: Fit) -> dict[str, Shape]:
        known = {**self.required, **self.optional} if fit.optional else dict(self.required)
        return {name: known[name] for name in self.order if name in known}

    def width(self, fit: Fit) -> float:
        """Return the length with braces, names and commas."""
        offered = self._offered(fit).items()
        return 2 + sum(_written(name) + 2 + shape.width(fit) + 2 for name, shape in offered)

    def schema(self, fit: Fit) -> dict[str, Any]:
        """Return a closed object."""
        return {
            "type": "object",
            "properties": {name: shape.schema(fit) for name, shape in self._offered(fit).items()},
            "required": [name for name in self.order if name in self.required],
            "additionalProperties": False,
        }


@attrs.frozen
class Choice:
    """One of these shapes."""

    options: tuple[Shape, ...]

    def width(self, fit: Fit) -> float:
        """Return the length of the longest."""
        return max(option.width(fit) for option in self.options)

    def schema(self, fit: Fit) -> dict[str, Any]:
        """Return the alternatives."""
        return {"anyOf": [option.schema(fit) for option in self.options]}


def fitted(shape: Shape, characters: int) -> tuple[Fit, bool]:
    """Choose bounds for a shape.

    Lists of three are tried first, then shorter ones, then going without optional properties, until a sentence fits
    into every text.

    Args:
        shape: the whole answer.
        characters: its greatest length.

    Returns:
        The bounds, and whether the answer cannot get longer than asked under them.
    """
    best: Fit | None = None
    for items, optional in ((3, True), (2, True), (1, True), (2, False), (1, False)):
        room = _room(shape, characters, items=items, optional=optional)
        if room >= COMFORT:
            return Fit(room, items, optional), True
        if room and (best is None or room > best.text):
            best = Fit(room, items, optional)
    return (best, True) if best is not None else (Fit(LEAST, 1, optional=False), False)


def _room(shape: Shape, characters: int, *, items: int, optional: bool) -> int:
    """Return the longest text under which a shape fits; 0 when none does."""
    low, high = 0, LONGEST
    while low < high:
        middle = (low + high + 1) // 2
        if shape.width(Fit(middle, items, optional)) <= characters:
            low = middle
        else:
            high = middle - 1
    return low


def _written(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
