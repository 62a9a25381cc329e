"""The circuit breaker of one provider: when it gets no calls, and when one call tests it again."""

from __future__ import annotations

import threading
from enum import StrEnum

from llm_council.errors import (
    AuthenticationFailed,
    CapabilityMissing,
    ConfigurationError,
    ContentFiltered,
    CouncilError,
    InvalidOption,
    NotCached,
    OutOfCredit,
    PermissionRefused,
    ProviderError,
    RequestRejected,
    TruncatedReply,
)
from llm_council.providers._call.pacing import is_refusal

__all__ = ["Breaker", "State"]

MAX_RETRY_AFTER = 3600.0
"""Most seconds that a vendor's Retry-After is followed; then one call tests the provider."""

# Errors that a second call meets again: they open the breaker at once.
_PERMANENT = (AuthenticationFailed, PermissionRefused, OutOfCredit, ConfigurationError)


class State(StrEnum):
    """The state of a breaker."""

    CLOSED = "closed"  # calls go through
    OPEN = "open"  # no calls
    HALF_OPEN = "half-open"  # one call tests the provider


class Breaker:
    """Counts a provider's failures, and decides whether it may be called. Thread-safe; the caller passes the time.

    Args:
        failures: failures in a row that open it.
        cool_down: seconds that it stays open, unless the vendor's Retry-After is set.
    """

    def __init__(self, failures: int = 5, cool_down: float = 30.0) -> None:
        if failures < 1 or cool_down < 0:
            raise InvalidOption(f"failures: 1 or more, cool_down: 0 or more; got {failures!r} and {cool_down!r}")
        self._failures = failures
        self._cool_down = cool_down
        self._in_a_row = 0
        self._until = 0.0
        self._state = State.CLOSED
        self._testing = False
        self._was_refused = False
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """The state; an open breaker stays open after its time until the next call."""
        return self._state

    @property
    def was_refused(self) -> bool:
        """True if the last failure was a refusal for the rate of calls, or of an overloaded server."""
        return self._was_refused

    def wait(self, now: float) -> float:
        """Return the seconds until the provider may be called; ``cool_down`` while another call tests it."""
        if self._state is State.CLOSED:
            return 0.0
        if self._state is State.OPEN:
            return max(0.0, self._until - now)
        return self._cool_down if self._testing else 0.0

    def admit(self, now: float) -> bool:
        """Return True if a call may be made now. The caller must then call exactly one of the three methods below."""
        if self._state is State.CLOSED:  # the usual case needs no lock
            return True
        with self._lock:
            if self._state is State.OPEN and now >= self._until:
                self._state, self._testing = State.HALF_OPEN, False
            if self._state is State.HALF_OPEN and not self._testing:
                self._testing = True
                return True
            return self._state is State.CLOSED

    def succeeded(self) -> None:
        """Record an answer. One that arrives while the breaker is open began before it opened, and changes nothing."""
        if self._state is State.CLOSED and not self._in_a_row:
            return
        with self._lock:
            if self._state is not State.OPEN:
                self._state, self._in_a_row, self._testing = State.CLOSED, 0, False

    def failed(self, error: CouncilError, now: float) -> None:
        """Record a failure; an error that the request has caused does not count."""
        if _is_request_error(error):
            self.ended()
            return
        retry_after = error.retry_after if isinstance(error, ProviderError) else None
        with self._lock:
            self._in_a_row += 1
            self._was_refused = is_refusal(error)
            # An open breaker is not opened again: late failures of calls from before would keep it open.
            opens = self._state is State.HALF_OPEN or self._in_a_row >= self._failures or isinstance(error, _PERMANENT)
            if retry_after is not None and retry_after > 0:
                self._open(now + min(retry_after, MAX_RETRY_AFTER))
            elif opens and self._state is not State.OPEN:
                self._open(now + self._cool_down)

    def ended(self) -> None:
        """Record a call without an outcome: it was cancelled, or its stream was closed."""
        with self._lock:
            self._testing = False

    def _open(self, until: float) -> None:
        self._until = max(until, self._until) if self._state is State.OPEN else until
        self._state, self._testing = State.OPEN, False


def _is_request_error(error: CouncilError) -> bool:
    if isinstance(error, TruncatedReply):
        return not error.retryable
    return isinstance(error, RequestRejected | ContentFiltered | CapabilityMissing | NotCached)
