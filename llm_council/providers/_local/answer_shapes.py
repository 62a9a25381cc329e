"""Shapes of answers: what ``bounding`` makes of a schema before it is sent to the engine.

A shape computes its greatest length in characters under given bounds (``width``), and writes itself as a JSON Schema
with these bounds (``schema``). ``fit_shape`` searches for bounds under which the whole answer has no more characters
than it may have.

For example, an object with one required text ``reason`` and an optional list ``tags`` of texts, in 300 characters: with
three tags, four texts have to fit, and each would get about 50 characters, which is less than ``COMFORT``. With two
tags each would get 70, with one tag 107. That is enough: lists have at most one item, texts at most 107
characters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor
from typing import Any, Protocol

import attrs

__all__ = ["Bounds", "Choice", "Fixed", "Formed", "Listing", "Number", "Record", "Shape", "Text", "fit_shape", "number"]

COMFORT = 100
"""Characters of a sentence. If texts would be shorter, fewer items and no optional properties are better."""

LONGEST = 600
"""The maximum characters of a text, even if there is room for more."""

LEAST = 30
"""Characters of a text if no bounds fit."""

PATTERN_ROOM = 64
"""Characters for a text with a pattern and no ``maxLength``: with fewer, the pattern might match nothing."""

_ESCAPES = 1.25  # JSON writes quotes and line breaks as two characters; this assumes one in four
_GREATEST = 99_999  # for numbers without bounds, whose digits would never have to end
_STEP = Fraction(1, 100)
_MAX_ENUMERATED = 20  # values of a number that only an enumeration can express


@attrs.frozen
class Bounds:
    """The bounds that are given to a shape.

    Attributes:
        text: the maximum characters of a text; a smaller ``maxLength`` or a greater ``minLength`` wins.
        items: the maximum items of a list; a smaller ``maxItems`` or a greater ``minItems`` wins.
        optional: False if properties that are not required are left out of the schema.
    """

    text: int
    items: int
    optional: bool


class Shape(Protocol):
    """The shape of a value in an answer."""

    def width(self, bounds: Bounds) -> float:
        """Return the greatest length of the value as JSON, in characters."""
        ...

    def schema(self, bounds: Bounds) -> dict[str, Any]:
        """Return the JSON Schema to send, with keywords that the engine knows."""
        ...


@attrs.frozen
class Fixed:
    """One of some values."""

    values: tuple[Any, ...]

    def width(self, bounds: Bounds) -> float:
        """Return the length of the longest one."""
        return max(_json_length(value) for value in self.values)

    def schema(self, bounds: Bounds) -> dict[str, Any]:
        """Return an enumeration."""
        return {"enum": list(self.values)}


@attrs.frozen
class Number:
    """A number from ``low`` to ``high``, both included; without ``step`` it has no decimals."""

    low: float
    high: float
    whole: bool
    step: float | None = None

    def width(self, bounds: Bounds) -> float:
        """Return the length of the longer bound, with a sign and decimals."""
        decimals = 0 if self.step is None else 1 + len(f"{self.step:.10f}".rstrip("0").partition(".")[2])
        return max(len(f"{end:.0f}") for end in (self.low, self.high)) + 1 + decimals

    def schema(self, bounds: Bounds) -> dict[str, Any]:
        """Return a bounded number."""
        step = {} if self.step is None else {"multipleOf": self.step}
        return {"type": "integer" if self.whole else "number", "minimum": self.low, "maximum": self.high, **step}


def number(bounds: Mapping[str, float], *, whole: bool) -> Shape | None:
    """Return the shape of a number; None if no number is within the bounds.

    Without ``multipleOf``, a number gets a step of 0.01: the engine limits the decimals by nothing else. It supports no
    steps in a range of negative numbers: such numbers become integers, or an enumeration of at most 20 values.

    Args:
        bounds: the numeric keywords of the schema, such as ``minimum`` and ``multipleOf``.
        whole: True for an integer.
    """
    own = bounds.get("multipleOf")
    exact = {word: Fraction(str(value)) for word, value in bounds.items()}
    low, high = _range(exact)
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
    count = min(_MAX_ENUMERATED, int((last - first) / step) + 1)
    return Fixed(tuple(_plain(last - index * step) for index in range(count)))


def _range(exact: Mapping[str, Fraction]) -> tuple[Fraction, Fraction]:
    lows = [exact[word] for word in ("minimum", "exclusiveMinimum") if word in exact]
    highs = [exact[word] for word in ("maximum", "exclusiveMaximum") if word in exact]
    low = max(lows) if lows else min(Fraction(-_GREATEST), min(highs, default=Fraction(0)) - _GREATEST)
    high = min(highs) if highs else max(Fraction(_GREATEST), max(lows, default=Fraction(0)) + _GREATEST)
    return low, high


def _plain(value: Fraction) -> float:
    return int(value) if value.denominator == 1 else float(value)


@attrs.frozen
class Text:
    """A text of bounded length, with or without a pattern."""

    least: int = 0
    most: int | None = None
    pattern: str | None = None

    def _most(self, bounds: Bounds) -> int:
        """Return the maximum characters."""
        if self.pattern is not None:
            return max(self.least, bounds.text, PATTERN_ROOM) if self.most is None else self.most
        room = max(self.least, bounds.text)
        return room if self.most is None else min(room, self.most)

    def width(self, bounds: Bounds) -> float:
        """Return the length with quotes and escapes."""
        return self._most(bounds) * _ESCAPES + 2

    def schema(self, bounds: Bounds) -> dict[str, Any]:
        """Return a text of bounded length."""
        most = self._most(bounds)
        # Without a minimum, small models write an empty text.
        least = max(self.least, min(1, most)) if self.pattern is None else self.least
        pattern = {} if self.pattern is None else {"pattern": self.pattern}
        return {"type": "string", **({"minLength": least} if least else {}), **pattern, "maxLength": most}


@attrs.frozen
class Formed:
    """A text in a format that the engine knows, such as a date."""

    format: str
    most: int

    def width(self, bounds: Bounds) -> float:
        """Return the length with quotes."""
        return self.most + 2

    def schema(self, bounds: Bounds) -> dict[str, Any]:
        """Return a text of this format."""
        return {"type": "string", "format": self.format, "maxLength": self.most}


@attrs.frozen
class Listing:
    """A list: first items with a shape each, then items of one shape (none if ``item`` is None)."""

    item: Shape | None
    first: tuple[Shape, ...] = ()
    least: int = 0
    most: int | None = None

    def _further(self, bounds: Bounds) -> int:
        """Return the maximum number of items after the first ones."""
        if self.item is None:
            return 0
        wanted = max(self.least, bounds.items)
        most = wanted if self.most is None else min(wanted, self.most)
        return max(0, most - len(self.first))

    def width(self, bounds: Bounds) -> float:
        """Return the length with brackets and commas."""
        inner = sum(shape.width(bounds) for shape in self.first)
        if self.item is not None:
            inner += self._further(bounds) * self.item.width(bounds)
        return 2 + inner + 2 * (len(self.first) + self._further(bounds))

    def schema(self, bounds: Bounds) -> dict[str, Any]:
        """Return a list of bounded length."""
        further = self._further(bounds)
        count = len(self.first) + further
        if not self.first:
            items = self.item.schema(bounds) if self.item is not None and further else {"type": "null"}
            minimum = {"minItems": self.least} if self.least else {}
            return {"type": "array", "items": items, **minimum, "maxItems": count}
        first = [shape.schema(bounds) for shape in self.first]
        if self.item is not None:
            first += [self.item.schema(bounds)] * further
        return {
            "type": "array",
            "prefixItems": first,
            "items": False,
            "minItems": max(self.least, len(self.first)),
            "maxItems": count,
        }


@attrs.frozen
class Record:
    """An object with these properties and no others."""

    required: Mapping[str, Shape]
    optional: Mapping[str, Shape]
    order: tuple[str, ...]

    def _properties(self, bounds: Bounds) -> dict[str, Shape]:
        known = {**self.required, **self.optional} if bounds.optional else dict(self.required)
        return {name: known[name] for name in self.order if name in known}

    def width(self, bounds: Bounds) -> float:
        """Return the length with braces, names and commas."""
        offered = self._properties(bounds).items()
        return 2 + sum(_json_length(name) + 2 + shape.width(bounds) + 2 for name, shape in offered)

    def schema(self, bounds: Bounds) -> dict[str, Any]:
        """Return a closed object."""
        return {
            "type": "object",
            "properties": {name: shape.schema(bounds) for name, shape in self._properties(bounds).items()},
            "required": [name for name in self.order if name in self.required],
            "additionalProperties": False,
        }


@attrs.frozen
class Choice:
    """One of some shapes."""

    options: tuple[Shape, ...]

    def width(self, bounds: Bounds) -> float:
        """Return the length of the longest one."""
        return max(option.width(bounds) for option in self.options)

    def schema(self, bounds: Bounds) -> dict[str, Any]:
        """Return the alternatives."""
        return {"anyOf": [option.schema(bounds) for option in self.options]}


def fit_shape(shape: Shape, characters: int) -> tuple[Bounds, bool]:
    """Choose bounds for a shape.

    Tries lists of three items, two and one, first with and then without optional properties, and takes the first in
    which every text has room for a sentence. If there is none, takes the one with the longest texts.

    Args:
        shape: the whole answer.
        characters: the maximum length of the answer.

    Returns:
        The bounds, and True if no answer within them is longer than ``characters``.
    """
    best: Bounds | None = None
    for items, optional in ((3, True), (2, True), (1, True), (2, False), (1, False)):
        room = _longest_text(shape, characters, items=items, optional=optional)
        if room >= COMFORT:
            return Bounds(room, items, optional), True
        if room and (best is None or room > best.text):
            best = Bounds(room, items, optional)
    return (best, True) if best is not None else (Bounds(LEAST, 1, optional=False), False)


def _longest_text(shape: Shape, characters: int, *, items: int, optional: bool) -> int:
    """Return the greatest ``text`` bound with which a shape fits, by binary search; 0 if it fits with none."""
    low, high = 0, LONGEST
    while low < high:
        middle = (low + high + 1) // 2
        if shape.width(Bounds(middle, items, optional)) <= characters:
            low = middle
        else:
            high = middle - 1
    return low


def _json_length(value: Any) -> int:
    """Return the length as JSON in bytes: a character that is rare may take one token per byte."""
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
