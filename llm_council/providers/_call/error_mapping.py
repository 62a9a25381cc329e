"""Map what an adapter raises to typed errors, and remove from them what could show a credential."""

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
from llm_council.errors import (
    AdapterFailed,
    AuthenticationFailed,
    ConnectFailed,
    CouncilError,
    ModelNotFound,
    ProviderError,
    failed_attempt,
)
from llm_council.errors._foreign import message_of, strip_secrets
from llm_council.errors._shortage import shortage
from llm_council.transports import translate

F = TypeVar("F", bound=Callable[..., None])

_VENDOR_WORDS = 800  # characters of a vendor's message that stand before an advice

__all__ = [
    "advise",
    "annotate",
    "as_council_error",
    "error_for_caller",
    "hide_frames",
    "message_of",
    "strip_secrets",
]


def as_council_error(exc: BaseException) -> CouncilError:
    """Return the typed error for what an adapter raised.

    A ``CouncilError`` is returned as it is, an HTTP library's exception as the error class that stands for it, anything
    else as ``AdapterFailed`` with the adapter's own message. The original is the cause, without traceback and causes.
    """
    # A task group wraps even a single error of its tasks.
    leaf = exc
    while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
        leaf = leaf.exceptions[0]
    # PEP 479: Python wraps these two into a RuntimeError when they leave a coroutine or a generator.
    if isinstance(leaf, RuntimeError) and isinstance(leaf.__cause__, StopIteration | StopAsyncIteration):
        leaf = leaf.__cause__
    if isinstance(leaf, CouncilError):
        return _without_foreign_context(leaf)
    place = _raised_at(leaf)
    error: CouncilError | None
    try:
        error = translate(leaf)
    except Exception:  # noqa: BLE001 - the attributes of an author's exception may raise when they are read
        error = None
    if error is None:
        message, kind = shortage(leaf) or message_of(leaf), type(leaf).__name__
        error = AdapterFailed(f"{message} ({kind}{place})" if message else f"{kind} without a message{place}")
        error.__cause__ = strip_secrets(leaf)
    return error


def _without_foreign_context(error: CouncilError) -> CouncilError:
    """Strip what the error was raised from: a JSON decoder's exception, for one, holds all that it read."""
    error.__context__ = None
    cause = error.__cause__
    if cause is not None and not isinstance(cause, CouncilError):
        error.__cause__ = strip_secrets(cause)
    return error


def error_for_caller(exc: BaseException) -> BaseException:
    """Return what a caller gets for an adapter's exception, with the frames of the adapter's author only.

    A cancellation and ``KeyboardInterrupt`` are returned as they are.
    """
    # An event loop that has ended throws GeneratorExit into the coroutines that it leaves.
    finalised = isinstance(exc, GeneratorExit) and not _runtime.running_inside_loop()
    if finalised or isinstance(exc, (KeyboardInterrupt, anyio.get_cancelled_exc_class())):
        return exc
    error = as_council_error(exc)
    # Python is about to set the context to ``exc``, whose frames may show a key; ``annotate`` removes it.
    error.__suppress_context__ = True
    return error.with_traceback(user_traceback(error))


def annotate(error: CouncilError, name: str, request: Any, began: float, partial: Callable[[], object] | None) -> None:
    """Write the facts of a call into its error. A fact that the error already has stays.

    Args:
        error: the error.
        name: the provider's name.
        request: the request.
        began: the start of the call, in monotonic seconds.
        partial: returns the text that had arrived; called only if the error has none.
    """
    if error.__suppress_context__:  # Python does not print a suppressed context, but its frames could still be read
        error.__context__ = None
    elapsed = time.monotonic() - began
    model = getattr(request, "model", None)
    error.fill(provider=name, model=model, run_id=call_context.current().run_id, elapsed=elapsed)
    if isinstance(error, ProviderError):
        error.fill(attempts=(failed_attempt(error, at=0.0, elapsed=elapsed),))
        if partial is not None and vars(error).get("partial", "") is None:
            error.fill(partial=partial())


def advise(
    error: CouncilError, on_key: Callable[[], str], on_model: Callable[[], str], on_address: Callable[[], str]
) -> None:
    """Add to an error about the key, the model or the address what to check; other errors stay as they are.

    Args:
        error: the error.
        on_key: returns the words about a key, such as "check the key in OPENAI_API_KEY"; called only if needed.
        on_model: returns the words about the name of a model; likewise.
        on_address: returns the words about an address at which no server listens; likewise.
    """
    words = ""
    if isinstance(error, AuthenticationFailed):
        words = on_key()
    elif isinstance(error, ModelNotFound):
        words = on_model()
    elif isinstance(error, ConnectFailed) and error.kind == "refused":
        words = on_address()
    if words and words not in error.message:
        # A message is cut at its end, and the advice must stay.
        error._reword(f"{error.message[:_VENDOR_WORDS]} ({words})")


def hide_frames(init: F) -> F:
    """Make a constructor raise its errors without its own frames, which hold the key that it was given."""

    @wraps(init)
    def constructor(self: Any, *args: Any, **options: Any) -> None:
        try:
            init(self, *args, **options)
        except CouncilError as error:
            del self, args, options  # this frame stays in the traceback, and the options may hold a key
            raise error.with_traceback(None) from error.__cause__

    return cast("F", constructor)


def _raised_at(exc: BaseException) -> str:
    """Return `` in file.py:12`` for the line that raised, or nothing if it is not known.

    The caller does not get the traceback of a foreign exception, but should learn this one line of it.
    """
    traceback = exc.__traceback__
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f" in {Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"
