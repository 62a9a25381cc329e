"""When to leave a failing provider alone, and when to look at it again."""

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

__all__ = ["Breaker", "State"]

LONGEST = 3600.0
"""Most seconds that a vendor's wish to be left alone is kept; after that, one call asks again."""

_HOPELESS = (AuthenticationFailed, PermissionRefused, OutOfCredit, ConfigurationError)


class State(StrEnum):
    """How a provider stands."""

    CLOSED = "closed"  # calls go through
    OPEN = "open"  # it rests
    HALF_OPEN = "half-open"  # one call looks whether it is well again


class Breaker:
    """Count a provider's failures, and say whether it may be asked. Safe in any number of threads; it reads no clock.

    Args:
        failures: how many in a row open it.
        cool_down: seconds for which it stays open; where the vendor said how long, that counts instead.
    """

    __slots__ = ("_cool_down", "_failures", "_in_a_row", "_lock", "_probing", "_state", "_until")

    def __init__(self, failures: int = 5, cool_down: float = 30.0) -> None:
        if failures < 1 or cool_down < 0:
            raise InvalidOption(f"failures: 1 or more, cool_down: 0 or more; got {failures!r} and {cool_down!r}")
        self._failures = failures
        self._cool_down = cool_down
        self._in_a_row = 0
        self._until = 0.0
        self._state = State.CLOSED
        self._probing = False
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """How the provider stands; one whose rest is over stays open until it is asked."""
        return self._state

    def wait(self, now: float) -> float:
        """Return the seconds until the provider may be asked: 0 when it may, ``cool_down`` while another call looks."""
        if self._state is State.CLOSED:
            return 0.0
        if self._state is State.OPEN:
            return max(0.0, self._until - now)
        return self._cool_down if self._probing else 0.0

    def admit(self, now: float) -> bool:
        """Tell whether a call may be made now; one that may must be followed by exactly one of the three below."""
        if self._state is State.CLOSED:
            return True
        with self._lock:
            if self._state is State.OPEN and now >= self._until:
                self._state, self._probing = State.HALF_OPEN, False
            if self._state is State.HALF_OPEN and not self._probing:
                self._probing = True
                return True
            return self._state is State.CLOSED

    def succeeded(self) -> None:
        """Note an answer. One that comes while the provider rests began before that, and says nothing."""
        if self._state is State.CLOSED and not self._in_a_row:
            return
        with self._lock:
            if self._state is not State.OPEN:
                self._state, self._in_a_row, self._probing = State.CLOSED, 0, False

    def failed(self, error: CouncilError, now: float) -> None:
        """Note a failure; one that is the request's own fault says nothing about the provider."""
        if _is_of_the_request(error):
            self.ended()
            return
        asked = error.retry_after if isinstance(error, ProviderError) else None
        with self._lock:
            self._in_a_row += 1
            if asked is not None and asked > 0:
                self._open(now + min(asked, LONGEST))
            elif (
                self._state is State.HALF_OPEN or self._in_a_row >= self._failures or isinstance(error, _HOPELESS)
            ) and self._state is not State.OPEN:
                self._open(now + self._cool_down)

    def ended(self) -> None:
        """Note a call that says nothing about the provider: it was cancelled, or left."""
        with self._lock:
            self._probing = False

    def _open(self, until: float) -> None:
        self._until = max(until, self._until) if self._state is State.OPEN else until
        self._state, self._probing = State.OPEN, False


def _is_of_the_request(error: CouncilError) -> bool:
    if isinstance(error, TruncatedReply):
        return not error.retryable
    return isinstance(error, RequestRejected | ContentFiltered | CapabilityMissing | NotCached)
