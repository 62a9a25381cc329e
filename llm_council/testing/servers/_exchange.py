"""The data of one exchange with a fake vendor: the request, what the script says to it, and what is sent."""

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
    """One request as it arrived over HTTP, or one run of a fake program.

    Attributes:
        method: upper case; ``"RUN"`` for a program.
        path: the path of the URL, without the query.
        query: what followed the question mark.
        headers: names in lower case.
        body: the bytes of the body.
    """

    method: str = "POST"
    path: str = "/"
    query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""

    @cached_property
    def json(self) -> Any:
        """The body as JSON; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def holds(self, value: Any) -> bool:
        """Return True if the request contains a value, in any dialect: a text as part of a text, a number as a number.

        >>> Asked(body=b'{"messages": [{"content": "Say hello."}], "max_tokens": 77}').holds("hello")
        True
        """
        if not isinstance(value, str):
            return any(leaf == value and type(leaf) is not bool for leaf in _leaves(self.json))
        if self.json is None:
            return value in self.body.decode("utf-8", "replace")
        return any(isinstance(leaf, str) and value in leaf for leaf in _leaves(self.json))


def _leaves(value: Any) -> Iterator[Any]:
    """Yield every key, text, number, bool and null inside a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
        # OpenAI's dialects write the arguments of a tool call as JSON inside a string.
        if isinstance(value, str) and value[:1] in "{[":
            with contextlib.suppress(ValueError):
                yield from _leaves(json.loads(value))


@attrs.frozen(kw_only=True)
class Refuse:
    """Reply with an error in the dialect's own shape.

    Attributes:
        status: the HTTP status.
        message: the vendor's message.
        code: the vendor's machine code; None takes the dialect's usual one for the status.
        retry_after: seconds in the ``Retry-After`` header; None sends no header.
        after: text that a stream brings before the error; None replies with the status instead of a stream.
    """

    status: int = 500
    message: str = "the server had an error"
    code: str | None = None
    retry_after: float | None = None
    after: str | None = None


@attrs.frozen
class Raw:
    """Reply with these bytes, in every dialect.

    Attributes:
        body: the whole body.
        status: the HTTP status.
        media_type: the ``Content-Type``; None takes the dialect's, for a reply or a stream.
        headers: further headers.
    """

    body: bytes = b""
    status: int = attrs.field(default=200, kw_only=True)
    media_type: str | None = attrs.field(default=None, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)


@attrs.frozen
class Edited:
    """Another reply, with a function applied to its JSON, or to the JSON of each event of a stream."""

    said: Said
    change: Callable[[Any], Any]


@attrs.frozen
class Cut:
    """Another reply whose connection ends after this share (0 to 1) of the body."""

    said: Said = "The first half of an answer stands here, and the second half is missing."
    share: float = 0.5


@attrs.frozen
class Hang:
    """Silence until the client leaves: at once, or after this share (0 to 1) of another reply's body."""

    said: Said | None = None
    share: float = 0.5


@attrs.frozen
class Delayed:
    """Another reply, after some seconds."""

    said: Said
    seconds: float


Said: TypeAlias = (
    "str | GenerateResponse | Refuse | Raw | Edited | Cut | Hang | Delayed | Callable[[GenerateRequest], Said]"
)
"""The script of a fake vendor: a text, a whole answer, a misbehaviour, or a function of the request that chooses."""


class Ending(StrEnum):
    """What follows the last byte that is sent."""

    WHOLE = "whole"
    CUT = "cut"
    HANG = "hang"


@attrs.frozen(kw_only=True)
class Sent:
    """The reply as it goes to the client, over a socket or a mock.

    Attributes:
        status: the HTTP status.
        headers: names in lower case, without the length of the body.
        pieces: the body; that of a stream in the pieces in which it is sent.
        stream: True for a body whose length is not announced.
        ending: what follows the body.
        length: bytes of the whole body; more than the sum of ``pieces`` if the reply is cut.
        silent: True if not even the status line is sent.
        delay: seconds before the status line.
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
        """Return a whole reply; underscores in the names of headers become hyphens."""
        named = {"content-type": media_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return cls(status=status, headers=named, pieces=(body,), length=len(body))

    def broken(self, share: float, ending: Ending) -> Sent:
        """Return the same reply with this share (0 to 1) of its body, and this ending."""
        # ``length`` stays that of the whole body: the client is told of bytes that never come.
        left = int(sum(map(len, self.pieces)) * share)
        pieces = []
        for piece in self.pieces:
            pieces.append(piece[:left])
            left -= len(pieces[-1])
        return attrs.evolve(self, pieces=tuple(piece for piece in pieces if piece), ending=ending)
