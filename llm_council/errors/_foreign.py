"""Show the exceptions of other people's code safely."""

from __future__ import annotations

from llm_council.errors._secrets import redact

__all__ = ["message_of", "strip_secrets"]


def message_of(exc: BaseException) -> str:
    """Return the message of an exception, or a substitute if its ``__str__`` raises."""
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - the author's __str__ may raise anything
        return "its message cannot be shown"


def strip_secrets(exc: BaseException) -> BaseException:
    """Return an exception without what could show a credential: its traceback, its causes, keys in its arguments."""
    try:
        if isinstance(exc, UnicodeError):  # its arguments are the bytes that could not be decoded
            return ValueError(f"{type(exc).__name__}: {getattr(exc, 'reason', 'no reason given')}")
        exc.args = tuple(redact(part) if isinstance(part, str) else part for part in exc.args)
        exc.__cause__ = exc.__context__ = None
        # ``doc`` is the text that a JSON decoder read; the others hold the headers that an HTTP library sent.
        for name in ("doc", "request", "response", "_request"):
            if vars(exc).get(name) is not None:
                setattr(exc, name, "" if name == "doc" else None)
    except Exception:  # noqa: BLE001 - an author's exception may refuse to be changed
        return RuntimeError(type(exc).__name__)
    return exc.with_traceback(None)
