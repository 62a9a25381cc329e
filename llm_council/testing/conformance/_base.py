"""The base of the conformance tests: their settings, and an adapter that is connected to a fake vendor."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar
from unittest.mock import patch

import anyio.to_thread

from llm_council.models import GenerateRequest, GenerateResponse, join
from llm_council.providers.base import ProviderAdapter, call, stream
from llm_council.testing.conformance._promises import CannotPlay, Player, Stage, WrongDialect, fail
from llm_council.testing.servers import Dialect, FakeVendor, Said, dialect, dialects

__all__ = ["ASK", "KEY", "ODD_TEXT", "TEXT", "ConformanceBase", "both_ways", "call_streamed", "captured_logs"]

# Not of the shape of any vendor's keys, so that masking by pattern cannot find it: the adapter itself must mask it.
KEY = "canary7key0123456789abcdef"
# Characters of two, three and four bytes in UTF-8, and an empty line: what careless decoding and splitting break.
TEXT = "It is so: naïve, 数 😀.\n\nThe end."
# ``str.splitlines`` and httpx's ``aiter_lines`` split at U+2028; JSON and server-sent events do not.
ODD_TEXT = "It is so: naïve, 数 😀, a line\u2028that is none.\n\nThe end."
ASK = GenerateRequest(prompt="What is 6 times 7?")


class ConformanceBase:
    """The settings of a conformance class, and what its tests share; see ``ProviderConformance``."""

    provider: ClassVar[type[ProviderAdapter] | None] = None
    speaks: ClassVar[str | Dialect | None] = None
    model: ClassVar[str | None] = "fake-model"
    options: ClassVar[Mapping[str, Any]] = {}
    key_variable: ClassVar[str | None] = None
    backends: ClassVar[tuple[str, ...]] = ("asyncio",)
    not_kept: ClassVar[Mapping[str, str]] = {}
    patience: ClassVar[float] = 20.0
    quick: ClassVar[float] = 5.0

    # On the class, since pytest makes an instance for each test; with that class, since a subclass may set another
    # dialect.
    _understood_by: ClassVar[type | None] = None
    _stopped: ClassVar[tuple[type | None, str | None]] = (None, None)

    def make(self, url: str, key: str) -> ProviderAdapter:
        """Return the adapter, for a vendor at this address that accepts this key.

        By default the class is called with ``options`` and with those of ``base_url``, ``default_model`` and
        ``api_key`` that it takes. ``api_key`` is left out if the adapter reads an environment variable.
        """
        if self.provider is None:
            raise CannotPlay(f"{type(self).__name__} names no provider")
        offered = {"base_url": url, "default_model": self.model, "api_key": None if self._variable() else key}
        parameters = inspect.signature(self.provider).parameters.values()
        takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
        names = {parameter.name for parameter in parameters}
        given = {name: value for name, value in offered.items() if value is not None and (takes_all or name in names)}
        return self.provider(**{**given, **self.options})

    @contextmanager
    def playing(self, said: Said) -> Iterator[Stage]:
        """Connect the adapter to a fake vendor that gives this reply; override it if the adapter does not speak HTTP.

        Raises:
            CannotPlay: the stand-in cannot give this reply.
        """
        vendor = FakeVendor(self._dialect(), said)
        with vendor.serve(), self.surroundings():
            adapter = self.make(vendor.url, KEY)
            vendor.key = KEY if _takes_key(adapter) else None
            try:
                yield Stage(adapter, vendor)
            finally:
                # In ``finally``: a wrong dialect explains every other error, so it is reported in their place.
                strange = vendor.strange
                if any(asked not in strange and asked.method == "POST" for asked in vendor.calls):
                    type(self)._understood_by = type(self)
                if strange:
                    raise WrongDialect(
                        f"the adapter requested {strange[0].method} {strange[0].path}, which the dialect"
                        f" {vendor.dialect.name!r} does not have: set `speaks` to its dialect, or to one of your own"
                    )

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """Set the environment variable of the key, and let no proxy take loopback addresses."""
        variable = self._variable()
        variables = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        if variable:
            variables[variable] = KEY
        with patch.dict(os.environ, variables):
            yield

    @asynccontextmanager
    async def stage(self, said: Said) -> AsyncIterator[Stage]:
        """Connect the adapter to a fake vendor, inside the running event loop; the adapter is closed at the end."""
        with self.playing(said) as stage:
            async with stage.adapter:
                yield stage

    async def left(self, vendor: Player, what: str) -> None:
        """Fail unless the vendor sees its client leave within ``quick`` seconds."""
        if not await anyio.to_thread.run_sync(vendor.wait_left, self.quick):
            fail(f"{what}, but its connection to the vendor stayed open")

    def note_failure(self, name: str, error: BaseException) -> None:
        """Remember that the whole dialect is wrong: the vendor understood no call yet, so no check can say more."""
        if isinstance(error, WrongDialect) and self._understood_by is not type(self):
            type(self)._stopped = (type(self), name)

    def stopped_by(self) -> str | None:
        """Return the promise whose check found that the whole dialect is wrong; None if none did."""
        found_in, name = self._stopped
        return name if found_in is type(self) else None

    def who(self) -> str:
        """Return the name of the adapter's class, or of this class if it makes several adapters."""
        return type(self).__name__ if self.provider is None else self.provider.__name__

    def _variable(self) -> str | None:
        return self.key_variable or getattr(self.provider, "API_KEY_ENV", None)

    def _dialect(self) -> str | Dialect:
        if self.speaks is not None:
            return self.speaks
        # Only names that a class sets itself: a subclass of ``OpenAIProvider`` with another name speaks its dialect.
        names = [vars(base).get("name") for base in (self.provider or object).__mro__]
        return next((name for name in names if isinstance(name, str) and name in dialects()), "openai")

    def _usage_keys(self) -> tuple[str, ...]:
        speaks = self._dialect()
        return (dialect(speaks) if isinstance(speaks, str) else speaks).usage


def _takes_key(adapter: ProviderAdapter) -> bool:
    """Return True if the adapter takes a key: the vendor asks for it only then."""
    parameters = inspect.signature(type(adapter)).parameters.values()
    return any(p.name == "api_key" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


async def call_streamed(adapter: ProviderAdapter, request: GenerateRequest = ASK) -> GenerateResponse:
    """Call in a stream; return the answer that its chunks join to."""
    return join([chunk async for chunk in stream(adapter, request)])


async def both_ways(adapter: ProviderAdapter, request: GenerateRequest = ASK) -> list[GenerateResponse]:
    """Call twice, without and with a stream; return both answers."""
    return [await call(adapter, request), await call_streamed(adapter, request)]


@contextmanager
def captured_logs(name: str = "", level: int = logging.DEBUG) -> Iterator[list[str]]:
    """Collect what is logged below a name: each message with its arguments."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.getMessage()} {record.args!r}")

    logger, handler = logging.getLogger(name or None), Collect(level)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
