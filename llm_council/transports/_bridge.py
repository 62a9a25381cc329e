"""Our pools behind a client of httpx, or of a library of its shape: vendors' own clients are built on either."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import lru_cache
from types import ModuleType
from typing import Any

from llm_council.transports._base import DEFAULT_LIMITS
from llm_council.transports._client import PooledTransport
from llm_council.transports._decompress import BadEncoding, Overflow, unpacked
from llm_council.transports._exchange import unwind

__all__ = ["bridged"]


def bridged(library: ModuleType) -> Any:
    """Return a transport for an ``AsyncClient`` of ``httpx`` or ``httpx2``.

    It raises what our own pools raise: proxies, TLS, stale connections and limits on headers are theirs. The body of a
    redirect or an error is unpacked and cut, for such clients read it whole.

    Args:
        library: the module whose ``Request`` and ``Response`` the client takes.
    """
    return _transport_class(library)()


@lru_cache(maxsize=2)
def _transport_class(library: ModuleType) -> type[Any]:
    class Arriving(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        def __init__(self, source: Any) -> None:
            self._source = source

        def __aiter__(self) -> AsyncIterator[bytes]:
            return aiter(self._source)

        async def aclose(self) -> None:
            await self._source.aclose()

    class Bridge(library.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self._pools = PooledTransport()

        async def handle_async_request(self, request: Any) -> Any:
            timeout = request.extensions.get("timeout", {})
            status, headers, body = await self._pools.inner.open(
                request.method,
                str(request.url),
                [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw],
                await request.aread(),
                connect=timeout.get("connect"),
                read=timeout.get("read"),
            )
            said = library.Headers(list(headers))
            source = body if status < 300 else _Cut(body, said.pop("content-encoding", ""))
            return library.Response(status, headers=said, stream=Arriving(source))

        async def aclose(self) -> None:
            await self._pools.aclose()

    return Bridge


class _Cut:
    """The beginning of a body, unpacked; one that does not unpack ends early."""

    def __init__(self, source: Any, encoding: str) -> None:
        self._source = source
        self._encoding = encoding
        self._reading: list[Any] = []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        arriving = aiter(self._source)
        pieces = unpacked(arriving, self._encoding, DEFAULT_LIMITS.error_body)
        self._reading = [pieces, arriving]
        with suppress(Overflow, BadEncoding):
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        await unwind(*self._reading, close=self._source.aclose)
