"""Whatever an adapter raises becomes a typed error here, and loses what could show a credential."""

from __future__ import annotations

from pathlib import Path

from llm_council._secrets import redact
from llm_council.errors import AdapterFailed, CouncilError
from llm_council.transports import translate

__all__ = ["Anything", "brief", "typed"]

Anything = BaseException
"""What adapters may raise: `SystemExit`, an exception whose `str()` fails, anything but a cancellation is theirs."""


def typed(exc: BaseException) -> CouncilError:
    """Return the typed error that stands for what an adapter raised.

    One of ours is returned as it is, an HTTP library's becomes what it stands for, anything else ``AdapterFailed`` with
    the adapter's own message. The foreign exception stays as the cause, without traceback and causes of its own.
    """
    leaf = exc
    while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
        leaf = leaf.exceptions[0]
    if isinstance(leaf, CouncilError):
        return leaf
    where = _where(leaf)
    error: CouncilError | None
    try:
        error = translate(leaf)
    except Exception:  # an exception that breaks when it is looked at is the adapter's too  # noqa: BLE001
        error = None
    if error is None:
        said, kind = brief(leaf), type(leaf).__name__
        error = AdapterFailed(f"{said} ({kind}{where})" if said else f"{kind} without a message{where}")
        error.__cause__ = _stripped(leaf)
    return error


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


def _stripped(exc: BaseException) -> BaseException:
    try:
        exc.args = tuple(redact(part) if isinstance(part, str) else part for part in exc.args)
        exc.__cause__ = exc.__context__ = None
    except Exception:  # an exception may refuse to be changed  # noqa: BLE001
        return RuntimeError(type(exc).__name__)
    return exc.with_traceback(None)
