"""The text that had arrived before an error: in memory once, though it came in pieces that others hold as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self, overload

from llm_council.errors._secrets import StreamMask, masked

__all__ = ["Partial", "Words"]


class Words:
    """A text in pieces, without keys. A long one would be in memory twice, were it joined while its call ends."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: Iterable[str]) -> None:
        veil = StreamMask()
        self._pieces = [*map(veil.feed, pieces), veil.rest()]

    def __str__(self) -> str:
        return "".join(self._pieces)

    def __bool__(self) -> bool:
        return any(self._pieces)

    def __repr__(self) -> str:
        return repr(str(self))

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class Partial:
    """An error's attribute for such a text: a string without keys, or None; pieces are joined where it is read."""

    @overload
    def __get__(self, error: None, owner: type) -> Self: ...

    @overload
    def __get__(self, error: Any, owner: type | None = None) -> str | None: ...

    def __get__(self, error: Any, owner: type | None = None) -> Self | str | None:
        if error is None:
            return self
        known: str | Words | None = vars(error).get("partial")
        if isinstance(known, Words):
            known = vars(error)["partial"] = str(known) or None
        return known

    def __set__(self, error: Any, value: str | Words | None) -> None:
        vars(error)["partial"] = masked(value) if isinstance(value, str) and value else value
