"""A transport that sends through Anthropic's own Python client: to its API, Bedrock, Vertex AI or Foundry.

The client signs requests and knows the URLs of each cloud. This package encodes payloads and decodes replies itself.
The client's retries and redirects are switched off, and its replies are read as raw bytes.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
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
from llm_council.transports._environment import check_key_log
from llm_council.transports._pool import ResponseHead, response_head
from llm_council.transports._reply import BaseTransport, close_body, raise_translated, read_body, read_head
from llm_council.transports._translate import translate

__all__ = ["SdkTransport", "address_of", "is_installed", "version_in_body"]

_SDK = "anthropic"
_CREDENTIALS = ("Authorization", "X-Api-Key")
# Bedrock and Vertex AI take "anthropic_version" as a field of the body, with these values (Anthropic's docs, "Claude on
# Vertex AI"; Amazon Bedrock, "Anthropic Claude Messages API"). From 2.0 on, the clients' own default is 2026-10-21,
# which refuses temperature and top_p for every model, and which Bedrock has for Claude 4.7 and later alone (Claude API
# docs, "Versions").
_VERSIONS_IN_BODY = {
    "anthropic.AsyncAnthropicBedrock": "bedrock-2023-05-31",
    "anthropic.AsyncAnthropicVertex": "vertex-2023-10-16",
}
_FRAMED_BY_AWS = "application/vnd.amazon.eventstream"


def is_installed() -> bool:
    """Return True if a supported release of Anthropic's client is installed, without importing it."""
    try:
        return _is_supported(version(_SDK))
    except PackageNotFoundError:
        return False


def _is_supported(release: str) -> bool:
    """Return True from 1.0 on: some 0.x releases cannot refuse redirects for a single request."""
    major = release.partition(".")[0]
    return major.isdecimal() and int(major) >= 1


def address_of(client: Any) -> str:
    """Return the base URL of the caller's client.

    Raises:
        InvalidOption: the object is not one of Anthropic's asynchronous clients, or its release is too old.
    """
    kinds = _kinds(client)
    if "anthropic.SyncAPIClient" in kinds:
        raise InvalidOption("client: an anthropic.Anthropic blocks; pass an anthropic.AsyncAnthropic")
    if "anthropic.AsyncAPIClient" not in kinds:
        raise InvalidOption(
            "client: expected an anthropic.AsyncAnthropic, or one of the clients for Bedrock, Vertex and Foundry, "
            f"got {type(client).__name__}"
        )
    release = str(import_module(_SDK).__version__)
    if not _is_supported(release):
        raise InvalidOption(f"client: anthropic {release} cannot refuse redirects: install 1.0 or later")
    return str(client.base_url)


def version_in_body(client: Any) -> str | None:
    """Return the API version that a client's cloud requires in the body; None if it stands in a header."""
    kinds = _kinds(client)
    return next((version for name, version in _VERSIONS_IN_BODY.items() if name in kinds), None)


def _kinds(client: Any) -> set[str]:
    return {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(client).__mro__}


class SdkTransport(BaseTransport):
    """Sends through the caller's client, or through one client per event loop.

    Args:
        client: the caller's client. It signs requests itself, and is not closed here. None creates clients that send
            only the credentials in each request's headers.
        base_url: the start of the URL of every request.
    """

    def __init__(self, client: Any | None, base_url: str) -> None:
        self._given = client
        self._base = base_url

    async def aclose(self) -> None:
        """Close the client of the current event loop, unless it is the caller's; the next request creates a new one."""
        await per_loop.aclose(self)

    async def prepare(self) -> None:
        """Import the client and what it signs with, and create it; together this takes seconds."""
        await self._client(await _loaded())
        if self._given is not None and "anthropic.AsyncAnthropicBedrock" in _kinds(self._given):
            with suppress(ImportError):  # reported when the client signs
                await to_thread.run_sync(_import_signing, abandon_on_cancel=True)

    async def _client(self, sdk: ModuleType) -> Any:
        """Return the caller's client, or ours of the current event loop."""
        if self._given is not None:
            return self._given
        return await per_loop.get(self, "client", partial(_new_client, sdk, self._base), _close)

    @asynccontextmanager
    async def _exchange(
        self, request: HttpRequest, limits: Limits, limit: int, timeouts: Timeouts, deadline: float | None
    ) -> AsyncIterator[ReplyStream]:
        sdk = await _loaded()
        client = await self._client(sdk)
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
        """Send a request, and return the reply once its head has arrived.

        Raises:
            TransportError: the request could not be sent, or the reply not be received.
            MissingCredentials: the caller's client has no credentials, or could not sign with them.
            MissingDependency: the client needs a package that is not installed.
        """
        failure: ProviderError | ConfigurationError | None = None
        response: Any = None  # a Response of httpx or httpx2, which have the same attributes
        try:
            response = await self._ask(sdk, client, request, timeouts)
        except sdk.APIStatusError as exc:  # the client has already read the body
            response = exc.response
        except sdk.APIConnectionError as exc:
            failure = translate(exc.__cause__ or exc, host_of(request.url)) or translate(ConnectionError())
        except getattr(sdk, "CredentialsError", ()) as exc:
            failure = MissingCredentials(f"the client of anthropic has no credentials: {exc}")
        except ImportError as exc:  # clients for clouds import their signing packages late
            failure = MissingDependency(f"the client of anthropic needs a package that is not installed: {exc}")
        except Exception as exc:  # the signing libraries of clouds have exceptions of their own
            failure = _signing_error(exc)
            if failure is None:
                raise
        if failure is not None:  # outside the handlers, since __context__ would expose the request's headers
            raise failure
        return response_head(response)

    async def _ask(self, sdk: ModuleType, client: Any, request: HttpRequest, timeouts: Timeouts) -> Any:
        given = build_headers(request.headers)
        headers: dict[str, Any] = dict(given)
        if self._given is None:
            names = {name.lower() for name in given}
            headers.update((name, sdk.Omit()) for name in _CREDENTIALS if name.lower() not in names)
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


def _signing_error(exc: Exception) -> ProviderError | ConfigurationError | None:
    """Return the error for an exception while signing; None for any other exception."""
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
    """Return the package ``anthropic``, imported in a thread, since the import takes seconds."""
    known = sys.modules.get(_SDK)
    if known is None or getattr(known.__spec__, "_initializing", False):  # another thread may be importing it
        check_key_log()  # it imports aiohttp, which makes TLS contexts
        try:
            await to_thread.run_sync(import_module, _SDK, abandon_on_cancel=True)
        except ImportError as exc:
            raise MissingDependency(
                f"anthropic's client cannot be imported ({exc}): install llm-council-sdk[anthropic], or pass transport"
            ) from None
    return import_module(_SDK)


def _import_signing() -> None:
    """Import what signs requests to AWS; the client would do so within its first request."""
    for name in ("boto3", "botocore.auth", "botocore.awsrequest"):
        import_module(name)


def _new_client(sdk: ModuleType, base_url: str) -> Any:
    """Create a client. Each request carries its own credentials, so a placeholder keeps the environment's key out."""
    http = sdk.DefaultAsyncHttpxClient(base_url=base_url, transport=pooled_transport(_library(sdk)))
    return sdk.AsyncAnthropic(api_key="of-each-request", base_url=base_url, max_retries=0, http_client=http)


async def _close(client: Any) -> None:
    await client.close()


def _library(sdk: ModuleType) -> ModuleType:
    """Return the HTTP library of the SDK: httpx or httpx2, depending on the release."""
    client = next(cls for cls in sdk.DefaultAsyncHttpxClient.__mro__ if cls.__name__ == "AsyncClient")
    return sys.modules[client.__module__.partition(".")[0]]


async def _arriving(reply: ResponseHead, request: HttpRequest) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in reply.body:
            yield chunk
    except Exception as exc:  # noqa: BLE001 - the HTTP library depends on the SDK's release; other exceptions are re-raised
        raise_translated(exc, request)


async def _unframed(arriving: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Convert Bedrock's binary event stream, with base64 JSON in each message, to server-sent events."""
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
