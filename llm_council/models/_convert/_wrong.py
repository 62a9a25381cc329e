"""What is wrong with data that does not fit, and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
from cattrs import BaseValidationError, ClassValidationError
from cattrs.errors import ForbiddenExtraKeysError

from llm_council.errors import CouncilError, InvalidOption, UnknownOption, near

__all__ = ["CAUGHT", "Expected", "Hook", "Wrong", "below", "expected", "explain"]

Hook: TypeAlias = Callable[[Any, Any], Any]


class Wrong(Exception):
    """A value below this step of the path is wrong."""

    def __init__(self, step: str, cause: Exception) -> None:
        self.step = step
        self.cause = cause


class Expected(Exception):
    """A value is of the wrong kind."""


CAUGHT = (Wrong, Expected, BaseValidationError, CouncilError, ValueError, TypeError, RecursionError)


def expected(what: str, value: object) -> Expected:
    """Build the error for a value of the wrong kind."""
    return Expected(f"expected {what}, got {value!r:.80}")


def explain(error: BaseException) -> tuple[str, str, type[CouncilError]]:
    """Return the path, the reason and the class for the first thing that is wrong."""
    if isinstance(error, Wrong):
        path, reason, kind = explain(error.cause)
        return error.step + path, reason, kind
    if isinstance(error, ClassValidationError):
        noted, others = error.group_exceptions()
        if noted:
            inner, note = noted[0]
            path, reason, kind = explain(inner)
            if isinstance(inner, KeyError):
                return f".{note.name}", "is missing", InvalidOption
            return f".{note.name}{path}", reason, kind
        return explain(others[0])
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)]
        word = min(error.extra_fields)
        return f".{word}", f"is not known{near(word, known)}", UnknownOption
    if isinstance(error, RecursionError):
        return "", "is nested too deeply", InvalidOption
    return "", str(error), UnknownOption if isinstance(error, UnknownOption) else InvalidOption


def below(step: str, hook: Hook, value: Any, kind: Any) -> Any:
    """Structure a value; what is wrong with it is wrong below this step of the path."""
    try:
        return hook(value, kind)
    except CAUGHT as error:
        raise Wrong(step, error) from None
