"""What a fake vendor is asked, what it is told to say, and what it therefore sends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias

import attrs

from llm_council.models import GenerateRequest, GenerateResponse

__all__ = ["Asked", "Cut", "Delayed", "Edited", "Ending", "Hang", "Raw", "Refuse", "Said", "Sent"]


@attrs.frozen(kw_only=True, slots=False)
class Asked:
    """One request as it arrived, or whatever else a stand-in of a vendor was asked.

    Attributes:
        method: upper case; ``"RUN"`` where no HTTP is spoken.
        path: of the address, without the query.
        query: what followed the question mark.
        headers: names in lower case.
        body: what was sent.
    """

    method: str = "POST"
    path: str = "/"
    query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""

    @cached_property
    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def holds(self, value: Any) -> bool:
        """Tell whether the request says something, whichever the dialect: a text inside any text, a number as one."""
        if not isinstance(value, str):
            return any(leaf == value and type(leaf) is not bool for leaf in _leaves(self.json))
        if self.json is None:
            return value in self.body.decode("utf-8", "replace")
        return any(isinstance(leaf, str) and value in leaf for leaf in _leaves(self.json))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
        if isinstance(value, str) and value[:1] in "{[":  # JSON inside a text, as arguments of tools are written
            with contextlib.suppress(ValueError):
                yield from _leaves(json.loads(value))


@attrs.frozen(kw_only=True)
class Refuse:
    """An error in the dialect's own shape.

    Attributes:
        status: the HTTP status.
        message: the vendor's words.
        code: the vendor's machine code; None takes the dialect's usual one for the status.
        retry_after: seconds in the ``Retry-After`` header; None sends none.
        after: text that a stream brings first; None refuses with the status, in place of a stream.
    """

    status: int = 500
    message: str = "the server had an error"
    code: str | None = None
    retry_after: float | None = None
    after: str | None = None


@attrs.frozen
class Raw:
    """These very bytes, whichever the dialect.

    Attributes:
        body: the whole body.
        status: the HTTP status.
        media_type: its ``Content-Type``; None follows the dialect, for a reply or a stream.
        headers: further ones.
    """

    body: bytes = b""
    status: int = attrs.field(default=200, kw_only=True)
    media_type: str | None = attrs.field(default=None, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)


@attrs.frozen
class Edited:
    """Something else with its JSON changed: the reply's, or that of each event of a stream."""

    said: Said
    change: Callable[[Any], Any]


@attrs.frozen
class Cut:
    """Something else whose connection ends after this share of the body."""

    said: Said = "The first half of an answer stands here, and the second half is missing."
    share: float = 0.5


@attrs.frozen
class Hang:
    """Silence until the client leaves: at once, or after this share of something else's body."""

    said: Said | None = None
    share: float = 0.5


@attrs.frozen
class Delayed:
    """Something else, some seconds later."""

    said: Said
    seconds: float


Said: TypeAlias = (
    "str | GenerateResponse | Refuse | Raw | Edited | Cut | Hang | Delayed | Callable[[GenerateRequest], Said]"
)
"""What a vendor says to every call: a text, a whole answer, a misbehaviour, or a function of the call that chooses."""


class Ending(StrEnum):
    """What follows the last byte that is sent."""

    WHOLE = "whole"
    CUT = "cut"
    HANG = "hang"


@attrs.frozen(kw_only=True)
class Sent:
    """What goes to the client, whichever the surface.

    Attributes:
        status: the HTTP status.
        headers: names in lower case; the length is the surface's business.
        pieces: the body; that of a stream in the pieces in which it is sent.
        stream: whether the length is not known beforehand.
        ending: what follows.
        length: bytes of the whole body, which may be more than are sent.
        silent: whether not even a head is sent.
        delay: seconds before the head.
    """

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    pieces: tuple[bytes, ...] = ()
    stream: bool = False
    ending: Ending = Ending.WHOLE
    length: int = 0
    silent: bool = False
    delay: float = 0.0

    @classmethod
    def of(cls, body: bytes, *, status: int = 200, media_type: str = "application/json", **headers: str) -> Sent:
        """Return a whole reply; underscores in the names of headers stand for hyphens."""
        said = {"content-type": media_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return cls(status=status, headers=said, pieces=(body,), length=len(body))

    def broken(self, share: float, ending: Ending) -> Sent:
        """Return the same with this share of its body, and then this ending."""
        left = int(sum(map(len, self.pieces)) * share)
        kept = []
        for piece in self.pieces:
            kept.append(piece[:left])
            left -= len(kept[-1])
        return attrs.evolve(self, pieces=tuple(piece for piece in kept if piece), ending=ending)
