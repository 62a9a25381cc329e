"""Whatever an adapter raises becomes a typed error here, and loses what could show a credential."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio

from llm_council import _runtime
from llm_council._runtime import call_context
from llm_council._runtime.frames import user_traceback
from llm_council.errors import AdapterFailed, Attempt, CouncilError, ProviderError
from llm_council.errors._secrets import redact
from llm_council.transports import translate

F = TypeVar("F", bound=Callable[..., None])

__all__ = ["brief", "error_for_caller", "guarded", "stripped", "tell", "typed"]


def typed(exc: BaseException) -> CouncilError:
    """Return the typed error that stands for what an adapter raised.

    One of ours is returned as it is, an HTTP library's becomes what it stands for, anything else ``AdapterFailed`` with
    the adapter's own message. The foreign exception stays as the cause, without traceback and causes of its own.
    """
    leaf = exc
    while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
        leaf = leaf.exceptions[0]
    if isinstance(leaf, RuntimeError) and isinstance(leaf.__cause__, StopIteration | StopAsyncIteration):
        leaf = leaf.__cause__  # which Python does not let out of a coroutine (PEP 479)
    if isinstance(leaf, CouncilError):
        return _alone(leaf)
    where = _where(leaf)
    error: CouncilError | None
    try:
        error = translate(leaf)
    except Exception:  # an exception that breaks when it is looked at is the adapter's too  # noqa: BLE001
        error = None
    if error is None:
        said, kind = brief(leaf), type(leaf).__name__
        error = AdapterFailed(f"{said} ({kind}{where})" if said else f"{kind} without a message{where}")
        error.__cause__ = stripped(leaf)
    return error


def _alone(error: CouncilError) -> CouncilError:
    """Take from an error of ours what it was raised from: a decoder's exception holds the whole of what it read."""
    error.__context__ = None
    cause = error.__cause__
    if cause is not None and not isinstance(cause, CouncilError):
        error.__cause__ = stripped(cause)
    return error


def error_for_caller(exc: BaseException) -> BaseException:
    """Return what a caller gets for an adapter's exception, with the frames of the adapter's author only.

    A cancellation and ``KeyboardInterrupt`` are returned as they are.
    """
    # An event loop that has ended throws GeneratorExit into the coroutines that it leaves.
    finalised = isinstance(exc, GeneratorExit) and not _runtime.running_inside_loop()
    if finalised or isinstance(exc, (KeyboardInterrupt, anyio.get_cancelled_exc_class())):
        return exc
    error = typed(exc)
    error.__suppress_context__ = True  # Python is about to set the context to ``exc``, whose frames may show a key
    return error.with_traceback(user_traceback(error))


def tell(error: CouncilError, name: str, request: Any, began: float, partial: Callable[[], object] | None) -> None:
    """Write the facts of a call into its error; what the error knows already stays.

    Args:
        error: the error.
        name: the provider's name.
        request: what was asked.
        began: the call's start, monotonic seconds.
        partial: returns the text that had arrived; asked only where the error does not know it.
    """
    if error.__suppress_context__:  # hidden from whoever prints it, but held: the frames of a call that was cut
        error.__context__ = None
    elapsed = time.monotonic() - began
    model = getattr(request, "model", None)
    error.fill(provider=name, model=model, run_id=call_context.current().run_id, elapsed=elapsed)
    if isinstance(error, ProviderError):
        tried = Attempt(
            at=0.0,
            elapsed=elapsed,
            error=type(error).__name__,
            message=error.message,
            status=getattr(error, "status", None),
            request_id=error.request_id,
        )
        error.fill(attempts=(tried,))
        if partial is not None and vars(error).get("partial", "") is None:
            error.fill(partial=partial())


def guarded(init: F) -> F:
    """Make a constructor that is given keys raise its errors without its frames: a key stands there as it was given."""

    @wraps(init)
    def constructor(self: Any, *args: Any, **options: Any) -> None:
        try:
            init(self, *args, **options)
        except CouncilError as error:
            del self, args, options
            raise error.with_traceback(None) from error.__cause__

    return cast("F", constructor)


def brief(exc: BaseException) -> str:
    """Return the message of an exception, however broken it is."""
    try:
        return str(exc)
    except Exception:  # __str__ is the adapter's  # noqa: BLE001
        return "its message cannot be shown"


def _where(exc: BaseException) -> str:
    """Return `` in file.py:12`` for the line that raised, where it is known: the traceback itself does not leave."""
    traceback = exc.__traceback__
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f" in {Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"


def stripped(exc: BaseException) -> BaseException:
    """Take from an exception what could show a credential: traceback, causes, keys in its arguments."""
    try:
        if isinstance(exc, UnicodeError):  # it is made of what could not be read
            return ValueError(f"{type(exc).__name__}: {getattr(exc, 'reason', 'no reason given')}")
        exc.args = tuple(redact(part) if isinstance(part, str) else part for part in exc.args)
        exc.__cause__ = exc.__context__ = None
        for name in ("doc", "request", "response", "_request"):
            if vars(exc).get(name) is not None:
                setattr(exc, name, "" if name == "doc" else None)
    except Exception:  # an exception may refuse to be changed  # noqa: BLE001
        return RuntimeError(type(exc).__name__)
    return exc.with_traceback(None)
