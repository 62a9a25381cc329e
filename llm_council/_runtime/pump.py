"""One task that advances one async iterator, an item for each demand.

The task is the iterator's own from its first item to its clean-up, so a cancel scope or a task group may be held across
a ``yield``. Nothing is read ahead: closing between two items finds the iterator at rest, and its clean-up runs in full.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeVar

import anyio

__all__ = ["Pump", "Source"]

T = TypeVar("T")

Source = Callable[[], AsyncIterator[T] | Awaitable[AsyncIterator[T]]]


class Pump(Generic[T]):
    """The task that advances one async iterator. All of it runs in the iterator's event loop.

    Args:
        source: makes the iterator; called in the task.
        deliver: takes each item.
    """

    __slots__ = ("_closing", "_deliver", "_reading", "_scope", "_source", "_wake", "_wanted")

    def __init__(self, source: Source[T], deliver: Callable[[T], None]) -> None:
        self._source, self._deliver = source, deliver
        self._wanted = self._reading = self._closing = False
        self._wake: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    def demand(self) -> None:
        """Ask for one item."""
        self._wanted = True
        self._nudge()

    def close(self) -> None:
        """End the iterator: between items its clean-up runs in peace, in the middle of one it is cancelled."""
        self._closing = True
        if self._reading and self._scope is not None:
            self._scope.cancel()
        self._nudge()

    def _nudge(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def cancel(self) -> None:
        """End the iterator at once: what its clean-up awaits is cancelled too, unless it is shielded."""
        self.close()
        if self._scope is not None:
            self._scope.cancel()

    async def _demanded(self) -> bool:
        while not (self._wanted or self._closing):
            wake = self._wake = anyio.Event()
            await wake.wait()
        self._wanted = False
        return not self._closing

    async def run(self) -> None:
        """Serve demands until the iterator ends, fails or is closed; its clean-up is done when this returns."""
        if not await self._demanded():
            return
        with anyio.CancelScope() as self._scope:
            self._reading = True
            opened = self._source()
            del self._source  # whoever made this pump is held by it, in a cycle: not what the source keeps, too
            iterator = await opened if inspect.isawaitable(opened) else opened
            try:
                while True:
                    item = await anext(iterator)
                    self._reading = False
                    self._deliver(item)
                    if not await self._demanded():
                        break
                    self._reading = True
            except StopAsyncIteration:
                pass
            except BaseException:  # no scope around this: it would tear those that the iterator holds
                await _aclose(iterator)
                raise
            self._reading = False
            await _aclose(iterator)


async def _aclose(iterator: AsyncIterator[Any]) -> None:
    aclose = getattr(iterator, "aclose", None)
    if aclose is not None:
        try:
            await aclose()
        except BaseExceptionGroup as group:
            if group.split(GeneratorExit)[1] is not None:  # a task group held across a yield wraps the sign to end
                raise
