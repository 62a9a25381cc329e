"""Results that may be awaited: in a running event loop, ``Council.run`` returns a result that is still pending.

Awaiting a pending result runs its coroutine and fills the same object in. Reading a field before that raises
``InsideEventLoopError``, which names the missing ``await``. A pending result that is dropped warns, and the warning
names the line that made it. Awaiting a finished result returns it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import attrs

from llm_council.errors import CouncilError, InsideEventLoopError
from llm_council.errors._callers import find_caller, is_under_ipython, thread_remedy

__all__ = ["AwaitableDict", "AwaitableRecord"]

A = TypeVar("A", bound="_Awaitable")
K = TypeVar("K")
V = TypeVar("V")


class Event(Protocol):
    """An event that several tasks wait for, such as ``anyio.Event``. This package does not import anyio."""

    def set(self) -> object:
        """Wake all waiting tasks."""

    async def wait(self) -> object:
        """Wait until the event is set."""


class _Pending:
    """The coroutine of a pending result and its outcome."""

    __slots__ = ("call", "caller", "coroutine", "done", "error", "event")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], event: Callable[[], Event], call: str) -> None:
        self.coroutine: Coroutine[Any, Any, Any] | None = coroutine
        self.event = event
        self.call = call
        self.caller = find_caller()
        self.done: Event | None = None  # made by the second task that awaits, in the event loop
        self.error: CouncilError | Exception | None = None

    @property
    def place(self) -> str:
        """Where the call was made."""
        return f"{PurePath(self.caller.file).name}, line {self.caller.line}"

    def remedy(self) -> str:
        """Return what to write instead: what fits the place of the call, and the one where this is asked."""
        if not (self.caller.can_await or find_caller().can_await):
            return thread_remedy(self.caller)
        call = self.call if "." in self.call else f"council.{self.call}"
        blocking = f", or '{call}_sync(...)'" if is_under_ipython() else ""
        return f"write 'await {call}(...)'{blocking}"

    def __del__(self) -> None:
        if self.coroutine is not None:
            name = getattr(self.coroutine, "__qualname__", "run")
            self.coroutine.close()  # it would warn too, with the line that happened to run when it was collected
            message = f"coroutine '{name}' was never awaited: {self.place}, has started no run; {self.remedy()}"
            warnings.warn_explicit(message, RuntimeWarning, self.caller.file, self.caller.line, self.caller.module)

    async def finish(self, target: A) -> A:
        """Run the coroutine and fill the target in. Tasks that await at the same time or later get the same outcome."""
        # A coroutine can be awaited once: the first task takes it, further tasks wait for its event.
        coroutine, self.coroutine = self.coroutine, None
        if coroutine is not None:
            await self._run(coroutine, target)
        elif self.error is None and target._pending_state is self:
            if self.done is None:
                self.done = self.event()
            await self.done.wait()
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
            # Cancellation of the first task, or the end of the program: other tasks wait for this one.
            self.error = CouncilError(f"the task that awaited this {type(target).__name__} first was cancelled")
            raise
        else:
            target._fill(value)
            target._set_state(None)
        finally:
            if self.done is not None:
                self.done.set()


class _Awaitable:
    """Base of classes whose instances may be awaited, and may exist before their content."""

    __slots__ = ()

    @classmethod
    def pending(cls, coroutine: Coroutine[Any, Any, Self], event: Callable[[], Event], call: str = "run") -> Self:
        """Return an instance that is filled in when it is awaited.

        Args:
            coroutine: returns the content.
            event: makes the event on which further tasks wait that await at the same time; ``anyio.Event``.
            call: the name of the method of a council that was called, or of a function with its module, for messages.
        """
        instance = cls.__new__(cls)
        instance._set_state(_Pending(coroutine, event, call))
        return instance

    def _set_state(self, state: _Pending | None) -> None:
        object.__setattr__(self, "_state", state)  # subclasses are frozen

    def _fill(self, value: Any) -> None:
        raise NotImplementedError

    @property
    def _pending_state(self) -> _Pending | None:
        """The state of a pending instance; None once it is finished, or if it was never pending."""
        # Not `self._state`: a missing attribute would lead to `__getattr__`, which reads this property.
        try:
            state: _Pending | None = object.__getattribute__(self, "_state")
        except AttributeError:
            return None
        return state

    def _require_finished(self) -> None:
        """Raise an error if this instance is pending."""
        state = self._pending_state
        if state is not None:
            raise state.error or InsideEventLoopError(
                f"this {type(self).__name__} is not ready: an event loop runs in this thread, so the call in"
                f" {state.place}, has not started; {state.remedy()}"
            )

    def __await__(self) -> Generator[Any, None, Self]:
        state = self._pending_state
        if state is None:
            return self
        return (yield from state.finish(self).__await__())

    def __hash__(self) -> int:
        # By identity: asyncio.gather and asyncio.wait put awaitables into sets before there is content to hash.
        return id(self) >> 4  # CPython aligns objects at 16 bytes, so the lowest bits of an id are always 0

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._pending_state is not None:
            raise TypeError(f"cannot copy or pickle a {type(self).__name__} that has not been awaited")
        return super().__reduce_ex__(protocol)

    def _pending_repr(self) -> str:
        state = self._pending_state
        remedy = "" if state is None else f": {state.remedy()}"
        return f"<{type(self).__name__}, not started{remedy}>"


class AwaitableRecord(_Awaitable):
    """Base of a frozen attrs class, which must be declared with ``eq=False, repr=False`` and takes both from here.

    Finished instances are equal if their fields are. A pending instance is equal to itself only.
    """

    __slots__ = ("_state",)

    def _fill(self, value: Any) -> None:
        for name in _field_names(self):
            object.__setattr__(self, name, getattr(value, name))

    if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every attribute

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_"):
                self._require_finished()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, AwaitableRecord) or type(self) is not type(other):
            return NotImplemented
        if self._pending_state is not None or other._pending_state is not None:
            return False
        return all(getattr(self, name) == getattr(other, name) for name in _field_names(self))

    __hash__ = _Awaitable.__hash__  # Python drops the inherited one where __eq__ is defined

    def __repr__(self) -> str:
        if self._pending_state is not None:
            return self._pending_repr()
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in _field_names(self))})"


def _field_names(record: AwaitableRecord) -> list[str]:
    return [field.name for field in attrs.fields(type(record))]  # type: ignore[arg-type]


class AwaitableDict(_Awaitable, dict[K, V]):
    """A dict that may be awaited. Every access to a pending one raises ``InsideEventLoopError``."""

    __hash__ = _Awaitable.__hash__  # type: ignore[assignment]

    def _fill(self, value: Any) -> None:
        dict.update(self, value)

    def __eq__(self, other: object) -> bool:
        if self._pending_state is not None or (isinstance(other, AwaitableDict) and other._pending_state is not None):
            return self is other
        return dict.__eq__(self, other)

    def __ne__(self, other: object) -> bool:  # dict has one of its own, which does not call `__eq__`
        return not self == other

    def __repr__(self) -> str:
        return self._pending_repr() if self._pending_state is not None else dict.__repr__(self)


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def guarded(self: AwaitableDict[Any, Any], *args: Any, **kwargs: Any) -> Any:
        self._require_finished()
        return method(self, *args, **kwargs)

    return guarded


# Python looks these up on the class and not on the instance, so each needs a method here. `dict` is written in C: its
# own methods would read the empty dict of a pending result.
for _name in (
    *("__contains__", "__delitem__", "__getitem__", "__ior__", "__iter__", "__len__", "__or__", "__reversed__"),
    *("__ror__", "__setitem__", "clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault", "update"),
    "values",
):
    setattr(AwaitableDict, _name, _guarded(getattr(dict, _name)))
