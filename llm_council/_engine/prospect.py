"""Whether an answer that is still arriving can meet its schema: a doomed one need not be read to its end.

What is judged is an answer of one piece: a JSON value that stands at the start, bare, in a fence or after thinking. As
long as it can still become valid, nothing is said. Prose before it ends all judgement, and so does the value's own end:
what follows may hold another, which the final reading finds. Only a model that would have begun a second value, or
written a property twice, after a first that was already wrong, is stopped too early; hence nobody is stopped who could
not be asked again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import attrs

from llm_council._engine.demand import Demand
from llm_council._engine.loops import Loops
from llm_council._schema import WRAPPER, json_path
from llm_council._schema.extract import MAX_DEPTH, MAX_DIGITS
from llm_council.errors._secrets import clean
from llm_council.models import Problem

__all__ = ["Doom", "Prospect"]

BLANKS = 4096
"""Blanks in a row between the parts of a JSON value after which nothing is expected any more."""

_HEAD = 64  # characters within which an opening tag or a fence must be whole
_TAG = r"(?:think|thinking|thought|reasoning)"
_OPENING = re.compile(rf"<{_TAG}>|\[THINK\]", re.IGNORECASE)
_CLOSING = re.compile(rf"</{_TAG}>|\[/THINK\]", re.IGNORECASE)
_FENCE = re.compile(r"(?:```|~~~)[^\n`~]*\n")
_UNDECIDED = re.compile(r"<[a-z]*\Z|\[(?:T(?:H(?:I(?:NK?)?)?)?)?\Z|`{1,3}[^\n`~]*\Z|~{1,3}[^\n`~]*\Z", re.IGNORECASE)
_CLOSING_LENGTH = 12
_SPACE = re.compile(r"[ \t\n\r]*")
_RUN = re.compile(r'[^"\\]*')
_LITERAL = re.compile(r"[-+.0-9A-Za-z]*")
_KINDS = {"{": "object", "[": "array", '"': "string"}


@attrs.frozen
class Doom:
    """Why an answer cannot become valid.

    Attributes:
        problem: what is wrong, and where.
        keep: characters of the answer worth showing to whoever writes it again; None is all that came.
    """

    problem: Problem
    keep: int | None = None


@attrs.define
class _Open:
    """An object or array that has begun."""

    kind: str
    demand: Demand
    path: tuple[str | int, ...]
    keys: list[str] = attrs.field(factory=list)
    count: int = 0
    child: Demand | None = None  # what is demanded of the property whose key was read
    step: tuple[str | int, ...] = ()
    wraps: bool = False  # the one key around an answer, which the final reading takes off


class Prospect:
    """Read one answer as it arrives. Work and memory stay proportional to the new text, whatever came before.

    Attributes:
        doom: why the answer cannot become valid; None while it can, or while nothing is certain.
    """

    def __init__(self, demand: Demand) -> None:
        self.doom: Doom | None = None
        self._demand = demand
        self._loops = Loops()
        self._read: Callable[[str], None] = self._lead
        self._over = False  # nothing is judged any more
        self._head = ""
        self._fenced = False
        self._stack: list[_Open] = []
        self._want = "value"
        self._token: list[str] | None = None  # the pieces of the text that has begun
        self._literal: list[str] | None = None  # likewise of the number or word
        self._escaped = False
        self._size = 0
        self._escapes = 0
        self._blanks = 0
        self._begun = False  # only JSON starts like this: a key and its colon, or a list of texts
        self._listed = False  # the value before this place is a text in a list
        self._suspected: Doom | None = None

    def fresh(self) -> Prospect:
        """Return one that has read nothing: for an answer that begins again."""
        return Prospect(self._demand)

    def feed(self, text: str) -> Doom | None:
        """Take the next characters, and return ``doom``."""
        if self.doom is None and not self._over:
            self._read(text)
        if self.doom is None and not self._over:
            again = self._loops.feed(text)
            if again is not None:
                self.doom = Doom(Problem(path="$", message="the same words are repeated without end"), again)
        return self.doom

    # What stands before the value

    def _lead(self, text: str) -> None:
        head = self._head = (self._head + text).lstrip()
        opening = _OPENING.match(head)
        fence = None if self._fenced else _FENCE.match(head)
        if opening or fence:
            self._head = ""
            self._fenced = fence is not None
            self._read = self._think if opening else self._lead
            self._read(head[(opening or fence).end() :])  # type: ignore[union-attr]
        elif head and not (len(head) < _HEAD and _UNDECIDED.match(head)):
            self._head = ""
            self._over = head[0] not in "{["
            self._read = self._json
            self._json(head)

    def _think(self, text: str) -> None:
        head = self._head + text
        closing = _CLOSING.search(head)
        if closing is None:
            self._head = head[-_CLOSING_LENGTH:]
            return
        self._head = ""
        self._read = self._lead
        self._lead(head[closing.end() :])

    # The value

    def _json(self, text: str) -> None:
        index = 0
        while index < len(text) and self.doom is None and not self._over:
            if self._token is not None:
                index = self._string(text, index)
            elif self._literal is not None:
                index = self._word(text, index)
            else:
                index = self._between(text, index)

    def _between(self, text: str, index: int) -> int:
        end = _SPACE.match(text, index).end()  # type: ignore[union-attr]
        self._blanks += end - index
        if self._blanks > BLANKS and self._begun:
            self._condemn(self._path(), "nothing but blanks follows")
        if end == len(text):
            return end
        self._blanks = 0
        mark = text[end]
        want = self._want
        if mark in "}]" and self._stack and mark == ("}" if self._stack[-1].kind == "object" else "]"):
            self._close()
        elif mark == "," and want == "comma":
            self._want = "key" if self._stack[-1].kind == "object" else "value"
            if self._listed:
                self._begin()
        elif mark == ":" and want == "colon":
            self._want = "value"
            self._begin()
            self._keyed()
        elif mark == '"' and want in ("key", "key or end"):
            self._token, self._size, self._escapes = [], 0, 0
        elif want in ("value", "value or end"):
            return self._value(text, end)
        else:
            self._malformed()
        return end + 1

    def _value(self, text: str, index: int) -> int:
        mark = text[index]
        kind = _KINDS.get(mark)
        self._item()
        demand = self._due()
        if kind is None:
            if mark not in "-0123456789tfn":
                self._malformed()
            self._literal = []
            return index
        if not self._stack:
            self._root(kind)
        elif not demand.admits(kind):
            self._condemn(self._path(), f"it must be {demand.kinds()}, not {kind}")
        if kind == "string":
            self._token, self._size, self._escapes = [], 0, 0
        elif len(self._stack) >= MAX_DEPTH:
            self._condemn("$", f"nested deeper than {MAX_DEPTH} levels")
        else:
            self._stack.append(_Open(kind, demand.narrowed(kind), self._steps()))
            self._want = "key or end" if kind == "object" else "value or end"
        return index + 1

    def _root(self, kind: str) -> None:
        # An object may be the one-key wrapper, whatever the schema wants: its first key will tell.
        if kind != "object" and not self._demand.admits(kind):
            self._condemn("$", f"it must be {self._demand.kinds()}, not {kind}")

    def _item(self) -> None:
        """Count the item that begins, where it is one."""
        if self._stack and self._stack[-1].kind == "array":
            array = self._stack[-1]
            most = array.demand.most("maxItems")
            array.step = (array.count,)
            array.count += 1
            array.child = array.child or array.demand.of_items()
            if most is not None and array.count > most:
                self._condemn(json_path(array.path), f"it has more than {most:g} items")

    def _keyed(self) -> None:
        """Look at the key that was read."""
        here = self._stack[-1]
        key = here.keys[-1]
        here.step = (key,)
        here.child = here.demand.at(key)
        if len(self._stack) == 1:
            allowed = here.demand.admits("object")
            if len(here.keys) == 1 and key == WRAPPER:
                here.wraps = here.child is None or not allowed
                # Where both readings are open, nothing is demanded.
                here.child = self._demand if here.wraps else here.demand.nothing()
                here.step = () if here.wraps else here.step
                return
            if not allowed:
                self._condemn("$", f"it must be {here.demand.kinds()}, not object")
            if here.wraps:
                self._condemn("$", f'the property "{WRAPPER}" is not allowed')
        if here.child is None:
            here.child = here.demand.nothing()
            self._condemn(json_path(here.path), f"the property {json.dumps(clean(key, limit=80))} is not allowed")

    def _close(self) -> None:
        here = self._stack.pop()
        if self._want in ("key", "value", "colon"):  # after a comma, or in the middle of a property
            self._malformed()
        elif not self._stack:
            self._over = True
        elif here.kind == "object" and (missing := here.demand.missing(here.keys)):
            self._condemn(json_path(here.path), f"{json.dumps(missing[0])} is a required property")
        elif here.kind == "array" and here.count < here.demand.fewest():
            self._condemn(json_path(here.path), f"it has less than {here.demand.fewest():g} items")
        self._want = "comma"
        self._listed = False

    def _string(self, text: str, index: int) -> int:
        assert self._token is not None  # noqa: S101 - for the type checker
        if self._escaped:
            self._escaped = False
            self._token.append(text[index])
            return index + 1
        end = _RUN.match(text, index).end()  # type: ignore[union-attr]
        self._token.append(text[index:end])
        self._size += end - index
        if end == len(text):
            self._measure()
            return end
        if text[end] == "\\":
            self._escaped = True
            self._escapes += 1
            self._token.append("\\")
        else:
            raw, self._token = "".join(self._token), None
            self._finish(f'"{raw}"', "string")
        return end + 1

    def _measure(self) -> None:
        """Look at the length of a text that has not ended: an escape stands for one character, of six at most."""
        most = self._due().most("maxLength") if self._want.startswith("value") else None
        if most is not None and self._size - 6 * self._escapes > most:
            self._condemn(self._path(), f"it is longer than {most:g} characters")

    def _word(self, text: str, index: int) -> int:
        assert self._literal is not None  # noqa: S101 - for the type checker
        end = _LITERAL.match(text, index).end()  # type: ignore[union-attr]
        self._literal.append(text[index:end])
        if end < len(text):
            word, self._literal = "".join(self._literal), None
            kind = {"t": "boolean", "f": "boolean", "n": "null"}.get(word[:1], "number")
            if len(word) > MAX_DIGITS and word.lstrip("-").isdigit():
                self._condemn(self._path(), f"a number has more than {MAX_DIGITS} digits")
            else:
                self._finish(word, kind)
        return end

    def _finish(self, source: str, kind: str) -> None:
        """Look at a text, number or word that is whole."""
        try:
            value: Any = json.loads(source, strict=False)
        except ValueError:
            self._malformed()
            return
        if value != value or value in (float("inf"), float("-inf")):
            self._condemn(self._path(), "it is no number that JSON can carry")
        elif self._want in ("key", "key or end"):
            self._stack[-1].keys.append(value)
            self._want = "colon"
        else:
            self._judge(value, kind)
            self._listed = kind == "string" and self._stack[-1].kind == "array"
            self._want = "comma"

    def _judge(self, value: Any, kind: str) -> None:
        demand = self._due()
        if value is None or not demand.schemas:  # a null may be left out by the final reading
            return
        if not demand.admits(kind):
            self._condemn(self._path(), f"it must be {demand.kinds()}, not {kind}")
            return
        fault = demand.fault(_sound(value) if isinstance(value, str) else value)
        if fault is not None:
            self._condemn(self._path(), fault)

    # Verdicts

    def _due(self) -> Demand:
        """Return what is demanded of the value that stands, or begins, here."""
        if not self._stack:
            return self._demand
        return self._stack[-1].child or self._demand.nothing()

    def _steps(self) -> tuple[str | int, ...]:
        return (*self._stack[-1].path, *self._stack[-1].step) if self._stack else ()

    def _path(self) -> str:
        return json_path(self._steps())

    def _begin(self) -> None:
        self._begun = True
        if self._suspected is not None:
            self.doom = self._suspected

    def _condemn(self, path: str, message: str) -> None:
        doom = Doom(Problem(path=path, message=message))
        if self._begun:
            self.doom = self.doom or doom
        else:
            self._suspected = self._suspected or doom

    def _malformed(self) -> None:
        if self._begun:
            self._condemn(self._path(), "the JSON is broken here")
        else:  # prose that begins with a bracket
            self._over = True


def _sound(text: str) -> str:
    """Replace lone surrogates as the final reading does."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
