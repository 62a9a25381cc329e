"""Resources per event loop and owner: HTTP clients above all, which fail in any loop but their own.

A resource is made on first use. It is closed by ``close`` or ``aclose`` of its owner, when the owner is collected, or
when its loop ends (an async generator in each loop waits for that), whichever comes first. Nothing is stored on the
owner, which may be frozen, slotted, unhashable, copied and pickled.
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

CLOSE_TIMEOUT = 2.0  # seconds that one resource may take to close

_log = logging.getLogger(__name__)


class _OwnerResources:
    """The resources of one owner in one loop."""

    def __init__(self, owner: Callable[[], object]) -> None:
        self.owner = owner
        self.resources: dict[Hashable, tuple[Any, Callable[[Any], Awaitable[None]]]] = {}

    async def aclose(self) -> None:
        """Close everything, the newest first; a failure is logged and does not keep the rest open."""
        while self.resources:
            key, (resource, close) = self.resources.popitem()
            try:
                with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                    await close(resource)
            except Exception:  # noqa: BLE001 - a library may raise anything when its peer or its loop is gone
                _log.debug("closing %r failed", resource, exc_info=True)
            except BaseException:  # cancelled because the loop ends: ``_close_at_loop_end`` tries again
                self.resources[key] = resource, close
                raise


class _Table:
    """The resources of all owners in one loop."""

    def __init__(self) -> None:
        self.loop = loops.current()
        self._by_owner: dict[int, _OwnerResources] = {}
        self._closing: set[_OwnerResources] = set()  # their owners have been collected
        self._end_watcher: AsyncGenerator[None, None] | None = _close_at_loop_end(self)
        with suppress(StopIteration):
            # The first step awaits nothing, and registers the generator with the loop.
            self._end_watcher.asend(None).send(None)

    def find(self, owner: object) -> _OwnerResources | None:
        """Return the owner's resources, or None."""
        # A new object may have got the id of a collected owner.
        owned = self._by_owner.get(id(owner))
        return owned if owned is not None and owned.owner() is owner else None

    def open(self, owner: object) -> _OwnerResources:
        """Return the owner's resources; there may be none yet."""
        owned = self.find(owner)
        if owned is None:
            owned = self._by_owner[id(owner)] = _OwnerResources(self._remember(owner))
        return owned

    def _remember(self, owner: object) -> Callable[[], object]:
        try:
            return weakref.ref(owner, partial(_owner_collected, weakref.ref(self), id(owner)))
        except TypeError:  # the owner takes no weak references: it lives until it is closed or the loop ends
            return lambda: owner

    def take(self, owner: object) -> _OwnerResources | None:
        """Remove and return the owner's resources."""
        return self._by_owner.pop(id(owner), None) if self.find(owner) is not None else None

    def close_orphan(self, number: int) -> None:
        """Close, in a task, the resources of a collected owner."""
        owned = self._by_owner.get(number)
        if owned is not None and owned.owner() is None:
            self._closing.add(self._by_owner.pop(number))
            with suppress(RuntimeError):  # an ending trio loop starts no tasks; then ``_close_at_loop_end`` closes them
                self.loop.spawn(owned.aclose, partial(self._forget, owned))

    def _forget(self, owned: _OwnerResources) -> None:
        if not owned.resources:
            self._closing.discard(owned)

    async def aclose(self) -> None:
        """Close everything, at the end of the loop."""
        self._end_watcher = None  # the generator refers to the loop, whose RunVar refers to this table
        while self._by_owner or self._closing:
            owned = self._by_owner.popitem()[1] if self._by_owner else self._closing.pop()
            await owned.aclose()

    def abandon(self) -> None:
        """Drop everything; the loop has ended and can close nothing."""
        self._end_watcher = None
        self._by_owner.clear()
        self._closing.clear()


# A RunVar, unlike a ContextVar, has one value per event loop, whatever the context of the task.
_table: RunVar[_Table] = RunVar("llm_council._runtime.per_loop")
_tables: weakref.WeakSet[_Table] = weakref.WeakSet()


async def _close_at_loop_end(table: _Table) -> AsyncGenerator[None, None]:
    """Wait for the end of the loop: asyncio.run and trio.run close all remaining async generators."""
    try:
        yield
    finally:
        await table.aclose()


def _owner_collected(reference: weakref.ref[_Table], number: int, _: object) -> None:
    """Have the loop close the resources of a collected owner; this runs in the thread that dropped the owner."""
    table = reference()
    if table is not None:
        table.loop.call_soon(partial(table.close_orphan, number))


async def get(owner: object, key: Hashable, factory: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> T:
    """Return the owner's resource in the running event loop; make it on first use.

    Args:
        owner: the object that the resource belongs to, compared by identity. Neither ``close`` nor the resource may
            refer to it, or it is never collected.
        key: the resource's name.
        factory: returns a new resource; called inside the loop.
        close: closes the resource, in the same loop.
    """
    table = _table.get(None)
    if table is None:
        for other in list(_tables):
            if other.loop.is_closed():
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
    """Close the owner's resources in the running event loop; it may make new ones afterwards."""
    table = _table.get(None)
    owned = table.take(owner) if table is not None else None
    if owned is not None:
        await owned.aclose()


def close(owner: object) -> None:
    """Close the owner's resources in the loop behind blocking calls; it may make new ones afterwards.

    Raises:
        InsideEventLoopError: an event loop runs in this thread.
    """
    if _runtime.is_started():
        _runtime.call(aclose, owner)
