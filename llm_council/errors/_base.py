"""What every error has: its facts, a message without secrets, and a way through pickle."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, ClassVar, Self

import attrs

from llm_council.errors._secrets import clean

__all__ = ["Attempt", "CouncilError", "near"]

_ID = 256  # characters of a vendor's id that are kept


@attrs.frozen(kw_only=True)
class Attempt:
    """One try of a call: when it started, how long it took, and how it ended.

    Attributes:
        at: seconds since the call was made.
        elapsed: seconds this try took.
        error: the name of the error class, or None for the try that succeeded.
        message: the error's message.
        status: the HTTP status, where there was one.
        request_id: the vendor's id of the request.
        retry_in: seconds waited before the next try; None when there was none.
    """

    at: float
    elapsed: float
    error: str | None = None
    message: str | None = None
    status: int | None = None
    request_id: str | None = None
    retry_in: float | None = None


class CouncilError(Exception):
    """Base of every error of this library.

    Args:
        message: for people; redacted, stripped of control characters and cut to 1,024 characters.
        provider: name of the provider.
        model: name of the model.
        phase: name of the phase of the run.
        run_id: id of the run.
        request_id: the vendor's id of the request.
        attempts: every try of the call, oldest first.
        elapsed: seconds from the call to this error.
        retryable: whether the same call may succeed later; None takes the class's default.
    """

    RETRYABLE: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        provider: str | None = None,
        model: str | None = None,
        phase: str | None = None,
        run_id: str | None = None,
        request_id: str | None = None,
        attempts: Iterable[Attempt] = (),
        elapsed: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(clean(message))
        self.provider = provider
        self.model = model
        self.phase = phase
        self.run_id = run_id
        self.request_id = None if request_id is None else clean(request_id, limit=_ID)
        self.attempts = tuple(attempts)
        self.elapsed = elapsed
        self.retryable = self.RETRYABLE if retryable is None else retryable

    @property
    def message(self) -> str:
        """The text for people."""
        return str(self.args[0]) if self.args else ""

    def fill(self, **facts: Any) -> Self:
        """Set the named facts that are still None or empty, and return this error; what is known stays."""
        for name, value in facts.items():
            known = vars(self)  # looked at here, a partial text stays in its pieces
            if name not in known and not hasattr(self, name):
                raise AttributeError(f"{type(self).__name__} has no fact {name!r}")
            if (known[name] if name in known else getattr(self, name)) in (None, ()):
                setattr(self, name, clean(value, limit=_ID) if name == "request_id" and value else value)
        return self

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args), self.__dict__.copy()


def _restore(cls: type[CouncilError], args: tuple[Any, ...]) -> CouncilError:
    error = cls.__new__(cls, *args)
    error.args = args
    return error


def near(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to this one, or an empty string."""
    matches = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""
