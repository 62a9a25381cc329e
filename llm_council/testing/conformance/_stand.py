"""Where an adapter meets a vendor that plays its part."""

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
from llm_council.testing.conformance._promise import CannotPlay, Player, Stage, broken
from llm_council.testing.servers import Dialect, FakeVendor, Said, dialect, dialects

__all__ = ["ASK", "KEY", "ODD", "TEXT", "Stand", "each_way", "listening", "whole_stream"]

KEY = "canary7key0123456789abcdef"  # of no vendor's shape: only its owner can know that it is a secret
TEXT = "It is so: naïve, 数 😀.\n\nThe end."
ODD = "It is so: naïve, 数 😀, a line\u2028that is none.\n\nThe end."
ASK = GenerateRequest(prompt="What is 6 times 7?")


class Stand:
    """What a conformance class says of its adapter; see ``ProviderConformance``."""

    provider: ClassVar[type[ProviderAdapter] | None] = None
    speaks: ClassVar[str | Dialect | None] = None
    model: ClassVar[str | None] = "fake-model"
    options: ClassVar[Mapping[str, Any]] = {}
    key_variable: ClassVar[str | None] = None
    backends: ClassVar[tuple[str, ...]] = ("asyncio",)
    not_kept: ClassVar[Mapping[str, str]] = {}
    patience: ClassVar[float] = 20.0
    quick: ClassVar[float] = 5.0

    def make(self, url: str, key: str) -> ProviderAdapter:
        """Return the adapter, for a vendor at this address that takes this key; override it for one made otherwise.

        By default the class is called with ``base_url``, ``default_model`` and, unless it reads a variable that is
        known, ``api_key``, as far as it takes these, and with ``options``.
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
        """Put the adapter before a vendor that says this; override for one that is not reached over HTTP.

        Raises:
            CannotPlay: the vendor cannot say it.
        """
        vendor = FakeVendor(self._dialect(), said)
        with vendor.serve(), self.surroundings():
            adapter = self.make(vendor.url, KEY)
            vendor.key = KEY if _takes_key(adapter) else None
            try:
                yield Stage(adapter, vendor)
            finally:
                self._meet(vendor)  # nothing else that was found says as much

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """Set the environment's variables: the key's, and none that sends loopback addresses through a proxy."""
        variable = self._variable()
        said = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        with patch.dict(os.environ, {**said, **({variable: KEY} if variable else {})}):
            yield

    @asynccontextmanager
    async def stage(self, said: Said) -> AsyncIterator[Stage]:
        """Play inside the running event loop; the adapter is closed at the end."""
        with self.playing(said) as stage:
            async with stage.adapter:
                yield stage

    async def left(self, vendor: Player, what: str) -> None:
        """Break the promise unless the vendor sees its client leave."""
        if not await anyio.to_thread.run_sync(vendor.wait_left, self.quick):
            broken(f"{what}, and its connection to the vendor stayed open")

    def _meet(self, vendor: FakeVendor) -> None:
        """Break the promise where the adapter speaks another dialect than the vendor that it was given."""
        for asked in vendor.strange[:1]:
            broken(
                f"it asked for {asked.method} {asked.path}, which no vendor has that speaks {vendor.dialect.name!r}:"
                " say which dialect it speaks, or give one of its own"
            )

    def who(self) -> str:
        """Return the adapter's class, or this one's where it has several."""
        return type(self).__name__ if self.provider is None else self.provider.__name__

    def _variable(self) -> str | None:
        return self.key_variable or getattr(self.provider, "API_KEY_ENV", None)

    def _dialect(self) -> str | Dialect:
        if self.speaks is not None:
            return self.speaks
        names = [vars(base).get("name") for base in (self.provider or object).__mro__]
        return next((name for name in names if isinstance(name, str) and name in dialects()), "openai")

    def _usage_keys(self) -> tuple[str, ...]:
        speaks = self._dialect()
        return (dialect(speaks) if isinstance(speaks, str) else speaks).usage


def _takes_key(adapter: ProviderAdapter) -> bool:
    """Tell whether a key was handed over: a vendor that asks for one is refused by those that have none."""
    parameters = inspect.signature(type(adapter)).parameters.values()
    return any(p.name == "api_key" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


async def whole_stream(adapter: ProviderAdapter, request: GenerateRequest = ASK) -> GenerateResponse:
    """Return what the pieces of a stream join to."""
    return join([piece async for piece in stream(adapter, request)])


async def each_way(adapter: ProviderAdapter, request: GenerateRequest = ASK) -> list[GenerateResponse]:
    """Return the answer as a whole, and what the pieces of its stream join to."""
    return [await call(adapter, request), await whole_stream(adapter, request)]


@contextmanager
def listening(name: str = "", level: int = logging.DEBUG) -> Iterator[list[str]]:
    """Collect what is logged below a name, everything with its arguments."""
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
