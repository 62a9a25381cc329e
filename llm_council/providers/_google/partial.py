"""A call whose arguments arrive in pieces, each with the place where it belongs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from llm_council._wire.payloads import get_text, malformed
from llm_council.errors import MalformedReply

__all__ = ["PartialCall"]

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,9})\]|\['([^']*)'\]|\["([^"]*)"\]""")
_DEEPEST = 100  # steps of a path; no schema of a tool is as deep
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")


class PartialCall:
    """One call on its way.

    Attributes:
        index: which call of the answer it is, from 0.
        id: the vendor's id, or one of our own.
        name: the tool's.
        extra: the vendor's own additions.
        args: the arguments so far; None when there are none.
    """

    def __init__(self, index: int, call_id: str, name: str, extra: dict[str, Any]) -> None:
        self.index = index
        self.id = call_id
        self.name = name
        self.extra = extra
        self.args: dict[str, Any] | None = None

    def take(self, args: Mapping[str, Any]) -> None:
        """Take arguments that are whole."""
        self.args = {**(self.args or {}), **args}

    def put(self, piece: Mapping[str, Any], path: str) -> None:
        """Put a piece at its place; text beside text at one place is one text.

        Args:
            piece: its ``jsonPath`` and its value.
            path: where the piece stands in the reply.

        Raises:
            MalformedReply: there is no such place.
        """
        place = get_text(piece, "jsonPath", path) or ""
        steps = _steps(place, f"{path}.jsonPath")
        key = next((key for key in _VALUES if key in piece), None)
        if key is None:
            return
        value = None if key == "nullValue" else piece[key]
        if self.args is None:
            self.args = {}
        inside: Any = self.args
        for step, following in pairwise(steps):
            inside = _reach(inside, step, {} if isinstance(following, str) else [], path)
        known = _reach(inside, steps[-1], value, path)
        if known is not value:
            both = isinstance(known, str) and isinstance(value, str)
            inside[steps[-1]] = known + value if both else value


def _steps(place: str, path: str) -> list[str | int]:
    steps: list[str | int] = []
    at = 1
    while place[:1] == "$" and at < len(place) and len(steps) < _DEEPEST:
        found = _STEP.match(place, at)
        if found is None:
            break
        name, number, *quoted = found.groups()
        steps.append(int(number) if number is not None else next(w for w in (name, *quoted) if w is not None))
        at = found.end()
    if not steps or at < len(place):
        raise MalformedReply(f"{path}: {place!r:.80} is no place in arguments", path=path)
    return steps


def _reach(inside: Any, step: str | int, new: Any, path: str) -> Any:
    """Return what stands at a step, putting ``new`` there where nothing does."""
    if isinstance(step, str) and isinstance(inside, dict):
        return inside.setdefault(step, new)
    if isinstance(step, int) and isinstance(inside, list) and step <= len(inside):
        if step == len(inside):
            inside.append(new)
        return inside[step]
    raise malformed(path, "an object" if isinstance(step, str) else "a list with the items before it", inside)
