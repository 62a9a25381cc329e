"""The description of a vendor's format: answers, streams, refusals and errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

__all__ = ["Dialect", "chunk", "compact", "data_line", "named"]


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def data_line(value: Any) -> bytes:
    return b"data: " + compact(value) + b"\n\n"


def named(value: dict[str, Any]) -> bytes:
    return b"event: " + value["type"].encode() + b"\n" + data_line(value)


@attrs.frozen(kw_only=True, repr=False)
class Dialect:
    """One API of a vendor.

    Attributes:
        id: the id in tests and in ``exempt``.
        title: the name in the table.
        name: the name of the provider.
        kin: the id of the dialect whose refusals it shares.
        cls: the class of the provider.
        options: arguments of the class in addition to those that ``VendorUnderTest`` sets.
        model: the model of the requests.
        reply: the JSON of a whole answer, from a text or any value in its place.
        pieces: the frames of a stream up to its end, from the pieces of a text.
        end: the frames that end a stream.
        cut_end: the frames that end a stream whose answer reached its limit.
        refusal: the JSON of a refusal: status, machine code or None, message.
        broken: the frame of an error in the middle of a stream: the vendor is overloaded.
        news: a frame of a stream with an unknown event; empty if the vendor cannot have one.
        finished: the JSON of a whole answer, from a text and a finish reason.
        cut: the finish reason of an answer that reached its limit; empty if the vendor has none.
        filtered: the finish reason of an answer that was withheld.
        empties: replies that contain no answer.
        misfits: replies in which something has the wrong type.
        ndjson: whether streams are lines of JSON.
        once: True if a request that may have arrived is not sent again, because it may be billed.
        around: returns the JSON for requests other than the one under test, from method, path and origin; None for it.
    """

    id: str
    title: str
    name: str = attrs.field(default=attrs.Factory(lambda self: self.id, takes_self=True))
    kin: str = attrs.field(default=attrs.Factory(lambda self: self.id, takes_self=True))
    cls: type[Any]
    options: Mapping[str, Any] = {}
    model: str = "m-1"
    reply: Callable[[Any], dict[str, Any]]
    pieces: Callable[[Sequence[str]], list[bytes]]
    end: list[bytes]
    cut_end: list[bytes]
    refusal: Callable[[int, str | None, str], Any]
    broken: bytes
    news: bytes = b""
    finished: Callable[[str, str], dict[str, Any]]
    cut: str
    filtered: str
    empties: list[Any]
    misfits: list[Any]
    ndjson: bool = False
    once: bool = False
    around: Callable[[str, str, str], bytes | None] = lambda method, path, origin: None

    def make(self, url: str, *, api_key: str | None, **options: Any) -> Any:
        """Return a provider; on Google's cloud, with a token in place of a key."""
        if self.name == "vertex":
            options["credentials"] = None if api_key is None else Signed(api_key)
        else:
            options["api_key"] = api_key
        return self.cls(base_url=url, **{**self.options, **options})

    def body(self, text: Any = "fine") -> bytes:
        return compact(self.reply(text))

    def stream(self, *texts: str) -> list[bytes]:
        return [*self.pieces(texts or ("fi", "ne")), *self.end]

    @property
    def stream_type(self) -> str:
        return "application/x-ndjson" if self.ndjson else "text/event-stream"

    def head(self, extra: bytes = b"") -> bytes:
        """Return the head of a stream in chunks."""
        kind = self.stream_type.encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%bTransfer-Encoding: chunked\r\n\r\n" % (kind, extra)

    def __repr__(self) -> str:
        return self.id


class Signed:
    """Google credentials with a token that never expires."""

    valid = True
    project_id = "p-1"

    def __init__(self, token: str) -> None:
        self._token = token

    def apply(self, headers: dict[str, str]) -> None:
        headers["authorization"] = f"Bearer {self._token}"

    def refresh(self, request: Any) -> None:
        """Keep the token."""
