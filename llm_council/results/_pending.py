"""Results that may be awaited: in a running event loop ``Council.run`` returns one that has not started yet.

A finished result yields itself. A pending one holds the coroutine that will make it: awaiting runs it and fills the
same object in, and until then reading any field raises, naming the ``await`` that is missing. Dropped, it warns as
every coroutine does that was never awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import attrs

from llm_council.errors import CouncilError, InsideEventLoopError

__all__ = ["AwaitableDict", "AwaitableNoun"]

A = TypeVar("A", bound="_Awaitable")
K = TypeVar("K")
V = TypeVar("V")


class Event(Protocol):
    """What several tasks wait for: ``anyio.Event`` is one."""

    def set(self) -> object:
        """Wake them all."""

    async def wait(self) -> object:
        """Wait until it is set."""


class _Start:
    """The start that a pending result still has before it, and how it went."""

    __slots__ = ("coroutine", "done", "error", "event")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], event: Callable[[], Event]) -> None:
        self.coroutine: Coroutine[Any, Any, Any] | None = coroutine
        self.event = event
        self.done: Event | None = None
        self.error: CouncilError | Exception | None = None

    async def settle(self, target: A) -> A:
        """Run the coroutine and fill its result in; whoever awaits at the same time, or later, gets the same."""
        coroutine, self.coroutine = self.coroutine, None
        if coroutine is not None:
            await self._run(coroutine, target)
        elif self.error is None and target._start is self:
            await self._wait()
        if self.error is not None:
            raise self.error
        return target

    async def _run(self, coroutine: Coroutine[Any, Any, Any], target: _Awaitable) -> None:
        try:
            value = await coroutine
        except Exception as error:
            self.error = error
            raise
        except BaseException:
            self.error = CouncilError(f"the task that awaited this {type(target).__name__} first was cancelled")
            raise
        else:
            target._fill(value)
            target._begin(None)
        finally:
            if self.done is not None:
                self.done.set()

    async def _wait(self) -> None:
        if self.done is None:
            self.done = self.event()
        await self.done.wait()


class _Awaitable:
    """A class whose instances may be awaited, and may be made before their contents."""

    __slots__ = ()

    @classmethod
    def _pending(cls, coroutine: Coroutine[Any, Any, Any], event: Callable[[], Event]) -> Self:
        made = cls.__new__(cls)
        made._begin(_Start(coroutine, event))
        return made

    def _begin(self, start: _Start | None) -> None:
        object.__setattr__(self, "_started", start)

    def _fill(self, value: Any) -> None:
        raise NotImplementedError

    @property
    def _start(self) -> _Start | None:
        try:
            start: _Start | None = object.__getattribute__(self, "_started")
        except AttributeError:
            return None
        return start

    def _refuse(self) -> None:
        """Raise if this is pending."""
        start = self._start
        if start is not None:
            name = type(self).__name__
            raise start.error or InsideEventLoopError(
                f"this {name} has not been awaited: in a running event loop, write 'await' before the call that made it"
            )

    def __await__(self) -> Generator[Any, None, Self]:
        start = self._start
        if start is None:
            return self
        return (yield from start.settle(self).__await__())

    def __hash__(self) -> int:
        return id(self) >> 4  # asyncio.gather and wait keep awaitables in sets before there is anything else to hash

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._start is not None:
            raise TypeError(f"cannot copy or pickle a {type(self).__name__} that has not been awaited")
        return super().__reduce_ex__(protocol)

    def _unfinished(self) -> str:
        return f"<{type(self).__name__}, pending: await it>"


class AwaitableNoun(_Awaitable):
    """Base of a frozen attrs class; declare that class with ``eq=False, repr=False`` and take both from here.

    Equality compares the fields of finished instances, pending ones are equal to themselves only; the hash is the
    identity's, because it has to be known before the fields are.
    """

    __slots__ = ("_started",)

    @classmethod
    def pending(cls, coroutine: Coroutine[Any, Any, Self], event: Callable[[], Event]) -> Self:
        """Make an instance that is filled in when it is awaited.

        Args:
            coroutine: what runs then.
            event: makes what further tasks wait on that await it at the same time; ``anyio.Event``.
        """
        return cls._pending(coroutine, event)

    def _fill(self, value: Any) -> None:
        for name in _names(self):
            object.__setattr__(self, name, getattr(value, name))

    if not TYPE_CHECKING:  # a checker that saw it would believe in every attribute

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_"):
                self._refuse()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, AwaitableNoun) or type(self) is not type(other):
            return NotImplemented
        if self._start is not None or other._start is not None:
            return False
        return all(getattr(self, name) == getattr(other, name) for name in _names(self))

    __hash__ = _Awaitable.__hash__

    def __repr__(self) -> str:
        if self._start is not None:
            return self._unfinished()
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in _names(self))})"


def _names(noun: AwaitableNoun) -> list[str]:
    return [field.name for field in attrs.fields(type(noun))]  # type: ignore[arg-type]


class AwaitableDict(_Awaitable, dict[K, V]):
    """A dict that may be awaited; until then every look into it raises."""

    __hash__ = _Awaitable.__hash__  # type: ignore[assignment]

    @classmethod
    def pending(cls, coroutine: Coroutine[Any, Any, dict[K, V]], event: Callable[[], Event]) -> Self:
        """Make an instance that is filled in from any dict when it is awaited."""
        return cls._pending(coroutine, event)

    def _fill(self, value: Any) -> None:
        dict.update(self, value)

    def __eq__(self, other: object) -> bool:
        if self._start is not None or (isinstance(other, AwaitableDict) and other._start is not None):
            return self is other
        return dict.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return self._unfinished() if self._start is not None else dict.__repr__(self)


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: AwaitableDict[Any, Any], *args: Any, **kwargs: Any) -> Any:
        self._refuse()
        return method(self, *args, **kwargs)

    guarded.__name__ = method.__name__
    guarded.__doc__ = method.__doc__
    return guarded


for _name in (
    *("__contains__", "__delitem__", "__getitem__", "__ior__", "__iter__", "__len__", "__or__", "__reversed__"),
    *("__ror__", "__setitem__", "clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault", "update"),
    "values",
):
    setattr(AwaitableDict, _name, _guarded(getattr(dict, _name)))
