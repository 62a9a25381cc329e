"""Read a reviewer's ranking in the forms that models commonly write.

The prompt asks for a line such as ``RANKING: B > A``. Models also write lists, tables, headings and JSON. A ranking is
read where its form is one of these and its items are labels; a sentence is not searched for letters, since "A" and "I"
are words too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["find_ranking"]

_JSON_KEY = re.compile(r'"(?:final[_ ]?)?(?:ranking|ranked[_ ]order|rank[_ ]order)s?"\s*:\s*', re.IGNORECASE)
_PLACE_KEYS = ("rank", "place", "position", "ranking")
_LABEL_KEYS = ("label", "draft", "id", "name", "answer", "response", "option", "candidate")

# "RANKING:", "## Final ranking", "My ranking (best to worst):", "The final ranking is:", "Ranked from best to worst:".
_MARKER = re.compile(
    r"^[ \t>*_#`\-]{0,40}(?:(?!not\b|no\b)[\w']+,?[ ]+){0,4}?(?:ranking|ranked)\b(?P<about>[^\n:=|]{0,60}?)[ \t*_`]*"
    r"(?:[:=]|[\-\u2013\u2014](?!\w)|$)(?P<rest>[^\n]*)$",
    re.IGNORECASE | re.MULTILINE,
)
_WORST_FIRST = re.compile(r"worst (?:to|->|first)|from (?:the )?worst|ascending", re.IGNORECASE)
_ARROWS = re.compile(r"&gt;|&rarr;|\\succ|[\u2192\u227b\u21d2\u226b\u203a\u00bb]|(?<![=\-])[=\-]+>|>+")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_NUMBERED = re.compile(
    r"^\s*(?:[-*+\u2022]\s+)?[*_`(\[]*(?:#\s?)?(?:no\.? ?)?(?P<place>\d{1,3})(?:st|nd|rd|th)?(?:[.):\]]|(?= place)|\b)"
    r"(?: place)?[*_`\s]*(?:[:\-\u2013\u2014]\s*)?(?P<item>.*)$",
    re.IGNORECASE,
)
_ORDINAL = re.compile(rf"^\W*(?P<word>{'|'.join(_ORDINALS)})\b(?: place| is)?\W*(?P<item>.*)$", re.IGNORECASE)
_BULLET = re.compile(r"^\s*[-*+\u2022]\s+(?P<item>.*)$")
_NOUN = r"(?:drafts?|answers?|responses?|options?|candidates?|texts?|labels?|submissions?|proposals?)"
_WORDS = frozenset({"A", "I"})  # labels that are words of a sentence too
_MOST_TRIED = 20  # the last ones: a text of nothing but markers must not take seconds
_INLINE_NUMBER = re.compile(r"(?:^|(?<=\s))\(?#?\d{1,2}[.):]\s*(?=\S)")  # of "1. B 2. A"


def find_ranking(text: str, labels: Collection[str]) -> tuple[str, ...]:
    """Find the last readable ranking in a review.

    Args:
        text: the review, without its thinking.
        labels: the labels of the drafts that the reviewer saw.

    Returns:
        Labels, the best first, each once; labels may be missing. Empty if no ranking can be read.
    """
    reader = _Labels(labels)
    for found in reversed([*_JSON_KEY.finditer(text)][-_MOST_TRIED:]):
        if order := _in_json(text[found.end() :], reader):
            return order
    text = _ARROWS.sub(">", text)
    for marker in reversed([*_MARKER.finditer(text)][-_MOST_TRIED:]):
        order = _in_line(marker["rest"], reader)
        if not order and not marker["rest"].strip(" *_`"):
            order = _in_block(text[marker.end() :].splitlines(), reader)
        if order:
            worst_first = _WORST_FIRST.search(marker["about"]) or _WORST_FIRST.search(marker["rest"])
            return order[::-1] if worst_first else order
    # Without a word about it, a line that is nothing but labels in an order.
    for line in reversed(text.splitlines()):
        order = _in_line(line.rpartition(":")[2], reader) if ">" in line else ()
        if len(order) > 1:
            return order
    return ()


class _Labels:
    """Finds the label that an item of a ranking consists of."""

    def __init__(self, labels: Collection[str]) -> None:
        self._by_word = {label.upper(): label for label in labels}
        listed = "|".join(sorted(map(re.escape, labels), key=len, reverse=True)) or r"(?!)"
        # An item that is a label, perhaps with a remark behind a bracket, a dash, a colon or a comma.
        self._item = re.compile(
            rf"^\W*(?:the\s+)?(?:{_NOUN}\W+)?(?P<label>{listed})(?=[\W_]*$|[*_`\"'\])]*\s*(?:[(\-\u2013\u2014:,;.|]))",
            re.IGNORECASE,
        )
        self._named = re.compile(rf"\b{_NOUN}[\s*_`\"'(\[]+(?P<label>{listed})(?![\w'])", re.IGNORECASE)
        self._first = re.compile(rf"^[\W_]*(?P<label>{listed})(?![\w'\u2019])")
        self._last = re.compile(rf"(?<!\w)(?P<label>{listed})[\W_]*$")

    def in_item(self, text: str) -> str | None:
        """Return the label that an item is, or names as "Draft B"; None if it is neither."""
        found = self._item.search(text) or self._named.search(text)
        return None if found is None else self._by_word[found["label"].upper()]

    def in_list_item(self, text: str) -> str | None:
        """Return the label of an item in a list, where it may begin a sentence: "1. B is right"."""
        found = self.in_item(text)
        if found is None:
            first = self._first.search(text)
            found = first["label"] if first is not None and first["label"] not in _WORDS else None
        if found is None and ":" in text:  # "Best: B"
            found = self.in_item(text.rpartition(":")[2])
        return found

    def at_end(self, text: str) -> str | None:
        """Return the label that ends a text."""
        found = self._last.search(text)
        return None if found is None else found["label"]

    def at_start(self, text: str) -> str | None:
        """Return the label that begins a text."""
        found = self._first.search(text)
        return None if found is None else found["label"]


def _once(found: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for label in found if label is not None))


def _in_line(line: str, reader: _Labels) -> tuple[str, ...]:
    """Read labels in one line: "B > A", "B, A and C", "B A C", "Draft B is best, then draft A"."""
    line = _INLINE_NUMBER.sub(", ", line)
    if ">" in line:
        items = re.split(r"[>=]", line)
        found = [reader.in_item(item) for item in items]
        # A sentence may lead to the first label, or go on after the last one.
        found[0] = found[0] or reader.at_end(items[0])
        found[-1] = found[-1] or reader.at_start(items[-1])
        return _once(found)
    if "<" in line:
        return _once([reader.in_item(item) for item in line.split("<")])[::-1]
    pieces = re.split(r"[,;=/]|\bthen\b|\band\b", line)
    if len(pieces) == 1 and len(line.split()) > 1 and not re.match(rf"\W*{_NOUN}\b", line, re.IGNORECASE):
        pieces = line.split()
        found = [reader.in_item(piece) for piece in pieces]
        return _once(found) if None not in found else ()
    found = [reader.in_item(piece) for piece in pieces if piece.strip(" *_`.")]
    order = _once(found)
    # A sentence may name one draft beside other things; two are an order.
    return order if None not in found or len(order) > 1 else ()


def _in_block(lines: Sequence[str], reader: _Labels) -> tuple[str, ...]:
    """Read the lines behind a heading: one line with all labels, a list, a table, or a label on each line."""
    placed: list[tuple[int | None, str]] = []
    for line in lines:
        if not line.strip(" *_`"):
            continue
        if not placed and not _is_list_line(line) and len(order := _in_line(line, reader)) > 1:
            return order
        item = _item_of(line, reader)
        if item is None:
            if placed:
                break
            if line.lstrip().startswith("|") or line.strip().startswith("```"):
                continue  # the head of a table, or the fence of a block
            return ()
        placed.append(item)
    if placed and all(place is not None for place, _ in placed):
        placed.sort(key=lambda item: item[0] or 0)
    return _once(label for _, label in placed)


def _is_list_line(line: str) -> bool:
    return line.lstrip().startswith("|") or bool(_BULLET.match(line) or _NUMBERED.match(line) or _ORDINAL.match(line))


def _item_of(line: str, reader: _Labels) -> tuple[int | None, str] | None:
    """Return the place that a line names, if any, and its label; None for a line without one."""
    if line.lstrip().startswith("|"):
        cells = [cell.strip(" *_`") for cell in line.strip().strip("|").split("|")]
        label = next((found for cell in cells if (found := reader.in_item(cell))), None)
        place = next((int(cell) for cell in cells if re.fullmatch(r"[1-9]\d{0,2}", cell)), None)
        return None if label is None else (place, label)
    if numbered := _NUMBERED.match(line):
        label = reader.in_list_item(numbered["item"])
        return None if label is None else (int(numbered["place"]), label)
    if ordinal := _ORDINAL.match(line):
        label = reader.in_list_item(ordinal["item"])
        return None if label is None else (_ORDINALS.index(ordinal["word"].lower()) + 1, label)
    bullet = _BULLET.match(line)
    label = reader.in_list_item(bullet["item"]) if bullet else reader.in_item(line)
    return None if label is None else (None, label)


def _in_json(text: str, reader: _Labels) -> tuple[str, ...]:
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return ()
    return _once(_in_value(value, reader))


def _in_value(value: Any, reader: _Labels) -> Iterator[str | None]:
    if isinstance(value, str):
        yield from _in_line(_ARROWS.sub(">", value), reader)
    elif isinstance(value, Mapping):
        yield from _in_object(value, reader)
    elif isinstance(value, list):
        rows = [row for row in value if isinstance(row, Mapping)]
        places = [_number(row, _PLACE_KEYS) for row in rows]
        if rows and len(rows) == len(value) and None not in places:
            value = [row for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0] or 0)]
        for item in value:
            if isinstance(item, Mapping):
                yield next((found for key in _LABEL_KEYS if (found := _label_at(item, key, reader))), None)
            elif isinstance(item, list):  # tied drafts
                yield from _in_value(item, reader)
            else:
                yield reader.in_item(str(item))


def _in_object(value: Mapping[Any, Any], reader: _Labels) -> Iterator[str | None]:
    """Read places by label, {"A": 2, "B": 1}, or labels by place, {"1": "B", "2": "A"}.

    Numbers that are no places from 1 on are scores or something else: which end is better is unknown.
    """
    labels = {key: reader.in_item(str(key)) for key in value}
    numbers = [number for number in value.values() if isinstance(number, int) and not isinstance(number, bool)]
    if all(labels.values()) and len(numbers) == len(value):
        if min(numbers, default=0) == 1 and max(numbers) <= len(numbers):
            yield from (labels[key] for key in sorted(value, key=lambda key: value[key]))
        return
    places = {key: re.search(r"\d+", str(key)) for key in value}
    words = {key: _ORDINALS.index(word) if (word := str(key).lower()) in _ORDINALS else None for key in value}
    if all(places.values()):
        ordered = sorted(value, key=lambda key: int(places[key][0]))  # type: ignore[index]
    elif None not in words.values():
        ordered = sorted(value, key=lambda key: words[key] or 0)
    else:
        return
    for key in ordered:
        yield reader.in_item(str(value[key]))


def _number(row: Mapping[Any, Any], keys: Iterable[str]) -> float | None:
    for key in keys:
        found = row.get(key)
        if isinstance(found, int | float) and not isinstance(found, bool):
            return found
    return None


def _label_at(row: Mapping[Any, Any], key: str, reader: _Labels) -> str | None:
    found = row.get(key)
    return reader.in_item(found) if isinstance(found, str) else None
