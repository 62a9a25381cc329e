"""Bytes to and from Claude through the vendor's own Python client, whatever it stands before: its API, a cloud.

The client signs, and knows where each cloud keeps its models; what is said and what the answer means stays ours. It
retries nothing, follows no redirect, and hands its replies over as they came.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from anyio import to_thread

from llm_council._runtime import per_loop
from llm_council._wire.payloads import dumps, get_text, loads, need_object
from llm_council.errors import (
    ConfigurationError,
    ConnectFailed,
    InvalidOption,
    MalformedReply,
    MissingCredentials,
    MissingDependency,
    ProviderError,
)
from llm_council.models import Limits, Timeouts
from llm_council.transports import HttpRequest, ReplyStream
from llm_council.transports._base import build_headers, host_of
from llm_council.transports._client import pooled_transport
from llm_council.transports._pool import ResponseHead, response_head
from llm_council.transports._reply import BaseTransport, close_body, raise_translated, read_body, read_head
from llm_council.transports._translate import translate

__all__ = ["SdkTransport", "address_of", "is_installed", "lists_models", "versions_in_body"]

_SDK = "anthropic"
_CREDENTIALS = ("Authorization", "X-Api-Key")
_VERSIONED_BODIES = frozenset({"anthropic.AsyncAnthropicBedrock", "anthropic.AsyncAnthropicVertex"})
_FRAMED_BY_AWS = "application/vnd.amazon.eventstream"


def is_installed() -> bool:
    """Tell whether a release of the vendor's client that will do is installed, without loading it."""
    try:
        return _will_do(version(_SDK))
    except PackageNotFoundError:
        return False


def _will_do(release: str) -> bool:
    """Tell whether a release lets redirects be refused for one request, which 0.x learnt on its way."""
    major = release.partition(".")[0]
    return major.isdecimal() and int(major) >= 1


def address_of(client: Any) -> str:
    """Return the address of a client of the caller's.

    Raises:
        InvalidOption: it is none of the vendor's asynchronous clients, or one of an old release.
    """
    kinds = _kinds(client)
    if "anthropic.SyncAPIClient" in kinds:
        raise InvalidOption("client: an anthropic.Anthropic blocks; pass an anthropic.AsyncAnthropic")
    if "anthropic.AsyncAPIClient" not in kinds:
        raise InvalidOption(
            "client: an anthropic.AsyncAnthropic, or one of its Bedrock, Vertex and Foundry kin, "
            f"got {type(client).__name__}"
        )
    release = str(import_module(_SDK).__version__)
    if not _will_do(release):
        raise InvalidOption(f"client: of anthropic {release}; 1.0 or later is needed, whose redirects can be refused")
    return str(client.base_url)


def versions_in_body(client: Any) -> bool:
    """Tell whether a client writes the version of the API, one of its cloud's own, into bodies rather than headers."""
    return not _VERSIONED_BODIES.isdisjoint(_kinds(client))


def lists_models(client: Any) -> bool:
    """Tell whether a client knows of a list of models: most clouds have none."""
    return getattr(client, "models", None) is not None


def _kinds(client: Any) -> set[str]:
    return {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(client).__mro__}


class SdkTransport(BaseTransport):
    """Send through a client of the vendor's SDK: the caller's, or one of our own for each event loop.

    Args:
        client: the caller's, which signs for itself, is not closed here and belongs to the event loop it is used in;
            None makes clients that send the credentials of each request and none of their own.
        base_url: what the addresses of all requests begin with.
    """

    def __init__(self, client: Any | None, base_url: str) -> None:
        self._given = client
        self._base = base_url

    async def aclose(self) -> None:
        """Close our own client of the current event loop; the next request makes a new one."""
        await per_loop.aclose(self)

    @asynccontextmanager
    async def _exchange(
        self, request: HttpRequest, limits: Limits, limit: int, timeouts: Timeouts, deadline: float | None
    ) -> AsyncIterator[ReplyStream]:
        sdk = await _loaded()
        client = self._given
        if client is None:
            client = await per_loop.get(self, "client", partial(_new_client, sdk, self._base), _close)
        reply = await self._open(sdk, client, request, timeouts)
        reading: list[AsyncGenerator[bytes, None]] = []
        try:
            head = read_head(request, reply.status, reply.headers, limits)
            arriving = _arriving(reply, request)
            chunks = read_body(head, arriving, limit=limit, error_body=limits.error_body)
            reading = [chunks, arriving]
            if head.content_type == _FRAMED_BY_AWS:
                chunks = _unframed(chunks)
                reading = [chunks, *reading]
            yield ReplyStream(head, chunks)
        finally:
            await close_body(*reading, close=reply.body.aclose)

    async def _open(self, sdk: ModuleType, client: Any, request: HttpRequest, timeouts: Timeouts) -> ResponseHead:
        """Return a reply whose head has come.

        Raises:
            TransportError: bytes could not be moved.
            MissingCredentials: the caller's client has found none, or could not sign with them.
            MissingDependency: it needs a package that is not installed.
        """
        failure: ProviderError | ConfigurationError | None = None
        response: Any = None  # of httpx2, which has httpx's shape
        try:
            response = await self._ask(sdk, client, request, timeouts)
        except sdk.APIStatusError as exc:  # the client has read it
            response = exc.response
        except sdk.APIConnectionError as exc:
            failure = translate(exc.__cause__ or exc, host_of(request.url)) or translate(ConnectionError())
        except getattr(sdk, "CredentialsError", ()) as exc:
            failure = MissingCredentials(f"the client of anthropic has no credentials: {exc}")
        except ImportError as exc:  # the clouds' clients import what they sign with when they sign
            failure = MissingDependency(f"the client of anthropic needs a package that is not installed: {exc}")
        except Exception as exc:  # what signs for a cloud raises what it likes
            failure = _unsigned(exc)
            if failure is None:
                raise
        if failure is not None:  # outside of the handlers: what was caught holds the headers of the request
            raise failure
        return response_head(response)

    async def _ask(self, sdk: ModuleType, client: Any, request: HttpRequest, timeouts: Timeouts) -> Any:
        given = build_headers(request.headers)
        headers: dict[str, Any] = dict(given)
        if self._given is None:
            said = {name.lower() for name in given}
            headers.update((name, sdk.Omit()) for name in _CREDENTIALS if name.lower() not in said)
        options = {
            "headers": headers,
            "max_retries": 0,
            "follow_redirects": False,
            "timeout": sdk.Timeout(timeouts.read, connect=timeouts.connect, write=None, pool=None),
        }
        kind = _library(sdk).Response
        path = request.url.removeprefix(self._base)
        if request.method == "GET":
            return await client.get(path, cast_to=kind, options=options, stream=True, stream_cls=sdk.AsyncStream)
        body = loads(request.body)
        return await client.post(
            path, cast_to=kind, body=body, options=options, stream=True, stream_cls=sdk.AsyncStream
        )


def _unsigned(exc: Exception) -> ProviderError | ConfigurationError | None:
    """Return the error that it is when a client of the caller's cannot sign; None for what else may go wrong."""
    traceback = exc.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    place = "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__"))
    kind = type(exc)
    if kind.__module__ == "google.auth.exceptions" and kind.__name__ == "TransportError":
        return ConnectFailed(f"Google's sign-in was not reached: {exc}")
    if place.startswith(f"{_SDK}.lib.") or kind.__module__.partition(".")[0] in ("botocore", "boto3", "google"):
        return MissingCredentials(f"the client of anthropic could not sign: {exc}")
    return None


async def _loaded() -> ModuleType:
    """Return the vendor's package; it takes seconds to import, which the event loop does not wait for."""
    known = sys.modules.get(_SDK)
    if known is None or getattr(known.__spec__, "_initializing", False):  # another thread may be at it
        try:
            await to_thread.run_sync(import_module, _SDK, abandon_on_cancel=True)
        except ImportError as exc:
            raise MissingDependency(
                f"anthropic's client cannot be imported ({exc}): install llm-council-sdk[anthropic], or pass transport"
            ) from None
    return import_module(_SDK)


def _new_client(sdk: ModuleType, base_url: str) -> Any:
    """Make a client of our own; every request brings its credentials, so that none of the environment's are sent."""
    http = sdk.DefaultAsyncHttpxClient(base_url=base_url, transport=pooled_transport(_library(sdk)))
    return sdk.AsyncAnthropic(api_key="of-each-request", base_url=base_url, max_retries=0, http_client=http)


async def _close(client: Any) -> None:
    await client.close()


def _library(sdk: ModuleType) -> ModuleType:
    """Return what the SDK is built on: httpx, and from 1.0 or so on httpx2."""
    client = next(cls for cls in sdk.DefaultAsyncHttpxClient.__mro__ if cls.__name__ == "AsyncClient")
    return sys.modules[client.__module__.partition(".")[0]]


async def _arriving(reply: ResponseHead, request: HttpRequest) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in reply.body:
            yield chunk
    except Exception as exc:  # noqa: BLE001 - which library's it is depends on the SDK's version; others pass
        raise_translated(exc, request)


async def _unframed(arriving: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Write the messages of Bedrock's own framing, each with an event in base64, as the events of the API itself."""
    aws = import_module("botocore.eventstream")
    messages = aws.EventStreamBuffer()
    async for chunk in arriving:
        messages.add_data(chunk)
        try:
            found = list(messages)
        except aws.ParserError as exc:
            raise MalformedReply(f"a message of the stream is broken: {exc}", path="$") from None
        for message in found:
            event = _event_in(message)
            yield b"event: %b\ndata: %b\n\n" % (event["type"].encode(), dumps(event))


def _event_in(message: Any) -> dict[str, Any]:
    value = need_object(loads(message.payload), "$")
    if message.headers.get(":message-type") == "event":
        try:
            return need_object(loads(base64.b64decode(get_text(value, "bytes", "$") or "")), "$.bytes")
        except ValueError:
            raise MalformedReply("$.bytes: expected base64", path="$.bytes") from None
    word = str(message.headers.get(":exception-type") or message.headers.get(":error-code") or "api_error")
    return {"type": "error", "error": {"type": word, "message": str(value.get("message") or "")}}
