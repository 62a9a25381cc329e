"""Resources kept per event loop and owner: HTTP clients above all, which fail in any loop but their own.

A resource is made when first asked for, and closed by whichever comes first: ``close`` or ``aclose`` of its owner,
the owner's end, or the end of its loop (an async generator waits for that in each loop). Nothing is kept on the owner,
which may be frozen, slotted, unhashable, copied and pickled.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import RunVar

from llm_council import _runtime
from llm_council._runtime import loops

__all__ = ["aclose", "close", "get"]

T = TypeVar("T")

CLOSING = 2.0  # seconds that one resource may take to close

_log = logging.getLogger(__name__)


class _Holding:
    """What one owner has in one loop."""

    __slots__ = ("owner", "resources")

    def __init__(self, owner: Callable[[], object]) -> None:
        self.owner = owner
        self.resources: dict[Hashable, tuple[Any, Callable[[Any], Awaitable[None]]]] = {}

    async def aclose(self) -> None:
        """Close everything, the youngest first; what fails to close is logged and does not keep the rest open."""
        while self.resources:
            key, (resource, close) = self.resources.popitem()
            try:
                with anyio.move_on_after(CLOSING, shield=True):
                    await _close(resource, close)
            except BaseException:  # this task ends with its loop, whose keeper tries again
                self.resources[key] = resource, close
                raise


async def _close(resource: Any, close: Callable[[Any], Awaitable[None]]) -> None:
    try:
        await close(resource)
    except Exception:  # noqa: BLE001 - whatever a foreign library raises when its peer or its loop is gone
        _log.debug("closing %r failed", resource, exc_info=True)


class _Table:
    """What all owners have in one loop."""

    __slots__ = ("__weakref__", "_closing", "_holdings", "_keeper", "loop")

    def __init__(self) -> None:
        self.loop = loops.current()
        self._holdings: dict[int, _Holding] = {}
        self._closing: set[_Holding] = set()  # of owners that are no more
        self._keeper: AsyncGenerator[None, None] | None = _keep(self)
        with suppress(StopIteration):
            self._keeper.asend(None).send(None)  # its first step awaits nothing; the loop now knows it

    def find(self, owner: object) -> _Holding | None:
        """Return what the owner has; an old owner's number may have passed to a new object."""
        holding = self._holdings.get(id(owner))
        return holding if holding is not None and holding.owner() is owner else None

    def open(self, owner: object) -> _Holding:
        """Return what the owner has, or an empty holding."""
        holding = self.find(owner)
        if holding is None:
            holding = self._holdings[id(owner)] = _Holding(self._remember(owner))
        return holding

    def _remember(self, owner: object) -> Callable[[], object]:
        try:
            return weakref.ref(owner, partial(_bury, weakref.ref(self), id(owner)))
        except TypeError:  # no weak references: kept until it is closed or the loop ends
            return lambda: owner

    def take(self, owner: object) -> _Holding | None:
        """Remove and return what the owner has."""
        return self._holdings.pop(id(owner), None) if self.find(owner) is not None else None

    def bury(self, number: int) -> None:
        """Close, in a task, what an owner that is no more had."""
        holding = self._holdings.get(number)
        if holding is not None and holding.owner() is None:
            self._closing.add(self._holdings.pop(number))
            with suppress(RuntimeError):  # trio takes no more tasks at its end; the keeper comes next
                self.loop.spawn(holding.aclose, partial(self._forget, holding))

    def _forget(self, holding: _Holding) -> None:
        if not holding.resources:
            self._closing.discard(holding)

    async def aclose(self) -> None:
        """Close everything, at the end of the loop."""
        self._keeper = None  # it holds the loop, and the loop is what this is kept for
        while self._holdings or self._closing:
            holding = self._holdings.popitem()[1] if self._holdings else self._closing.pop()
            await holding.aclose()

    def abandon(self) -> None:
        """Let go of everything; its loop has ended without a chance to close it."""
        self._keeper = None
        self._holdings.clear()
        self._closing.clear()


_table: RunVar[_Table] = RunVar("llm_council._runtime.per_loop")
_tables: weakref.WeakSet[_Table] = weakref.WeakSet()


async def _keep(table: _Table) -> AsyncGenerator[None, None]:
    """Wait for the end of the loop: asyncio.run and trio.run close the async generators that are left."""
    try:
        yield
    finally:
        await table.aclose()


def _bury(table: weakref.ref[_Table], number: int, _: object) -> None:
    """Tell a table that an owner is no more. Runs in whatever thread dropped it, so the loop does the work."""
    living = table()
    if living is not None:
        living.loop.soon(partial(living.bury, number))


async def get(owner: object, key: Hashable, factory: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> T:
    """Return the owner's resource of this name in the running event loop; make it when there is none.

    Args:
        owner: whose it is. Compared by identity; neither ``close`` nor the resource may refer to it, or it never ends.
        key: the name.
        factory: makes the resource; called inside the loop.
        close: closes it, in the same loop.
    """
    table = _table.get(None)
    if table is None:
        for other in list(_tables):
            if other.loop.is_over():
                other.abandon()
        table = _Table()
        _table.set(table)
        _tables.add(table)
    resources = table.open(owner).resources
    if key not in resources:
        resources[key] = factory(), close
    resource: T = resources[key][0]
    return resource


async def aclose(owner: object) -> None:
    """Close what the owner has in the running event loop; it may make new ones afterwards."""
    table = _table.get(None)
    holding = table.take(owner) if table is not None else None
    if holding is not None:
        await holding.aclose()


def close(owner: object) -> None:
    """Close what the owner has in the loop behind blocking calls; it may make new ones afterwards.

    Raises:
        InsideEventLoopError: an event loop runs in this thread.
    """
    if _runtime.is_started():
        _runtime.call(aclose, owner)
