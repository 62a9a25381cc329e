"""Read one stream in many spellings and cuts: the answer is always the same. Shared by the vendors' variant tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llm_council._wire.failures import ErrorDecoder
from llm_council._wire.payloads import dumps
from llm_council.errors import AuthenticationFailed, ProviderError, RateLimited, RequestRejected, ServerFailed
from llm_council.models import GenerateResponse, join

ODD_BODIES = [
    b"",
    b"null",
    b"[]",
    b'"busy"',
    b"<html><h1>502</h1></html>",
    b"\xef\xbb\xbf<!DOCTYPE html>",
    b"upstream connect error",
    b"\xff\xfe",
    b'{"error": null}',
    b'{"error": {"message": ["x"]}}',
    b'{"type":"error","error":{}}',
]
STATUSES: dict[int, type[ProviderError]] = {
    401: AuthenticationFailed,
    429: RateLimited,
    502: ServerFailed,
    422: RequestRejected,
}


def named(*values: dict[str, Any], done: bool = False) -> bytes:
    """Write events that are named after their type."""
    frames = [f"event: {value['type']}\n".encode() + b"data: " + dumps(value) + b"\n\n" for value in values]
    return b"".join(frames) + (b"data: [DONE]\n\n" if done else b"")


def read(reader: Callable[[], Any], body: bytes, step: int | None = None) -> GenerateResponse:
    """Read a body, whole or in pieces of ``step`` bytes."""
    pieces = [body] if step is None else [body[at : at + step] for at in range(0, len(body), step)]
    stream = reader()
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    return join([*chunks, *stream.finish()])


def spellings(body: bytes) -> Iterator[bytes]:
    """Yield the same stream as other servers and proxies write it."""
    yield body
    yield b"\xef\xbb\xbf" + body
    yield body.replace(b"\n", b"\r\n")
    yield b": hi\n\n" + body.replace(b"\n\n", b"\n\n: keep-alive\n\n")
    yield body.replace(b"event: ", b"event:").replace(b"data: {", b"data:{")


def read_every_way(reader: Callable[[], Any], body: bytes) -> GenerateResponse:
    """Read a stream in every spelling and in pieces of several sizes; return the answer, which is always the same."""
    answer = read(reader, body)
    for spelling in spellings(body):
        assert read(reader, spelling) == answer
    for step in (1, 2, 3, 7):
        assert read(reader, body, step) == answer
    return answer


def assert_class_of_odd_bodies(decode: ErrorDecoder) -> None:
    """Assert that a refusal with a body of no dialect gets its class from its status."""
    for body in ODD_BODIES:
        for status, cls in STATUSES.items():
            error: Any = decode(status, {"retry-after": "3", "content-type": "text/html"}, body)
            assert (type(error), error.status, error.retry_after) == (cls, status, 3.0), body
            assert "<" not in error.message
