"""The pace of one provider: how many calls it may have at a time, and when the next may be sent.

The rule is additive increase and multiplicative decrease, as in TCP's congestion control (RFC 5681) and in the
``AIMDLimit`` of Netflix's concurrency-limits. A call that the vendor refuses for its rate (429) or because it is
overloaded (503, 529) lowers the limit to 95 % of what was in flight beside it; answers raise it again. Three things
differ, because a vendor is no network:

- A refusal says how many calls there was no room beside, so the limit is never above that number.
- The increase starts at one call for each round of answers, and doubles with each round without a refusal. So the pace
  finds a limit quickly that the vendor has raised, and stays just below one that stands.
- Vendors say when to go on. ``Retry-After`` stops all calls until then, and so does a limit that is used up according
  to the headers of a reply.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

import attrs

__all__ = ["FIRST_LIMIT", "MAX_HEADER_WAIT", "MAX_PAUSE", "Pace", "SentCall"]

FIRST_LIMIT: Final = 24
"""Calls at a time before anything is known of the vendor; it doubles with each round of answers at first."""

DECREASE: Final = 0.95
"""The factor of a decrease. Netflix's ``AIMDLimit`` has 0.9 and RFC 5681 a half, because they do not know how many
calls there was no room beside. With room for 100, 0.95 takes 4 % less time than 0.9; with room for 10 it is refused
1 % more often."""

MAX_PAUSE: Final = 3600.0
"""Most seconds that a vendor's Retry-After is followed; then one call tries again."""

MAX_HEADER_WAIT: Final = 60.0
"""Most seconds without calls because of a limit in a reply's headers. A limit by the day may be full again tomorrow
only, and has room for single calls much earlier."""

_SHORTEST_ROUND: Final = 10.0
"""Answers that make a round where fewer calls are in flight. At a limit of three calls, rounds of three answers would
end in a refusal of every fourth call."""

_FIRST_BACKOFF, _MAX_BACKOFF = 0.25, 30.0  # seconds


@attrs.frozen(eq=False)
class SentCall:
    """A call that was sent: its number, counted from 1."""

    number: int


@attrs.define(eq=False)
class _Allowance:
    """The rest of a limit that headers have reported.

    Attributes:
        last: the number of the last call that fits into it.
        until: when the limit is full again.
    """

    last: float
    until: float


class Pace:
    """Counts the calls of one provider, and learns its limit. It does no I/O: the caller passes the time.

    Each ``send`` must be followed by exactly one of ``answered``, ``refused`` and ``ended``.

    Args:
        jitter: returns a random number from 0 to 1.

    Attributes:
        limit: most calls at a time; at least 1.
        in_flight: calls that were sent and have not ended.
        sent: all calls that were sent.
        refused_in_a_row: refusals since the last answer; those of calls that were sent together count once.
        paused_until: no call may be sent before.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self.limit = float(FIRST_LIMIT)
        self.in_flight = 0
        self.sent = 0
        self.refused_in_a_row = 0
        self.paused_until = -inf
        self._step = float(FIRST_LIMIT)  # by how many calls the limit grows in this round
        self._round = float(FIRST_LIMIT)  # answers that make a round
        self._answers = 0  # in this round
        self._peak = 0  # most calls in flight since the last refusal
        self._refused_at = 0  # calls up to this number were sent before the last decrease
        self._tokens_per_call = 0.0
        self._allowances: dict[str, _Allowance] = {}

    def wait(self, now: float) -> float:
        """Return the seconds until a call may be sent; 0 if it may be sent now, infinity until another call ends."""
        if now < self.paused_until:
            return self.paused_until - now
        if self.in_flight >= int(self.limit):
            return inf
        return self._wait_for_allowance(now) if self._allowances else 0.0

    def send(self) -> SentCall:
        """Count a call that is sent now, after ``wait`` has returned 0."""
        self.sent += 1
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)
        return SentCall(self.sent)

    def answered(self, tokens: int | None = None) -> None:
        """Count an answer.

        Args:
            tokens: the tokens of the call, in and out; None if they are unknown.
        """
        self.in_flight -= 1
        self.refused_in_a_row = 0
        if tokens is not None:
            # A moving average over about ten calls.
            self._tokens_per_call += (tokens - self._tokens_per_call) * (0.1 if self._tokens_per_call else 1.0)
        # A limit far above what is used would say nothing about the vendor.
        self.limit = max(self.limit, min(self.limit + self._step / self._round, 2.0 * self._peak))
        self._answers += 1
        if self._answers >= self._round:
            self._step = min(2 * self._step, self.limit)
            self._begin_round()

    def refused(self, call: SentCall, now: float, retry_after: float | None = None) -> bool:
        """Count a call that the vendor refused for its rate, or because it is overloaded.

        Args:
            call: the call.
            now: the time.
            retry_after: seconds that the vendor asks to wait; None if it names none.

        Returns:
            True if this is news: the call was sent after the last decrease.
        """
        self.in_flight -= 1
        beside = max(1.0, float(self.in_flight))
        is_news = call.number > self._refused_at
        if is_news:
            self._refused_at = self.sent
            self.refused_in_a_row += 1
            self.limit = max(1.0, min(self.limit, beside) * DECREASE)
        self.limit = min(self.limit, beside)
        self._step, self._peak = 1.0, self.in_flight
        self._begin_round()
        if retry_after is not None and retry_after > 0:
            self._pause(now + min(retry_after, MAX_PAUSE))
        elif not self.in_flight:
            # Nothing else will end, and tell by its answer that there is room again.
            backoff = min(_MAX_BACKOFF, _FIRST_BACKOFF * 2.0 ** (self.refused_in_a_row - 1))
            self._pause(now + backoff * (0.5 + self._jitter() / 2))
        return is_news

    def ended(self) -> None:
        """Count the end of a call that says nothing about the vendor's limit: another failure, or a cancellation."""
        self.in_flight -= 1

    def learn(self, name: str, unit: str, left: int, seconds: float, now: float) -> None:
        """Take what a reply says is left of a limit, before its call is counted as ended.

        The vendor may or may not have counted the other calls in flight, so all of them are taken off. Within one
        period of a limit the smallest number counts: a slow reply may be older than it looks.

        Args:
            name: the name of the limit.
            unit: ``"calls"`` or ``"tokens"``.
            left: how many calls or tokens the vendor still accepts.
            seconds: the time until the limit is full again.
            now: the time.
        """
        calls = float(left)
        if unit == "tokens":
            calls = left // max(1.0, self._tokens_per_call) if left else 0.0
        last = self.sent - max(0, self.in_flight - 1) + calls
        known = self._allowances.get(name)
        if known is None or now >= known.until or last <= known.last:
            self._allowances[name] = _Allowance(last, now + min(seconds, MAX_HEADER_WAIT))

    def _wait_for_allowance(self, now: float) -> float:
        waits = [limit.until - now for limit in self._allowances.values() if self.sent >= limit.last]
        return max(0.0, max(waits, default=0.0))

    def _pause(self, until: float) -> None:
        self.paused_until = max(self.paused_until, until)

    def _begin_round(self) -> None:
        self._answers, self._round = 0, max(_SHORTEST_ROUND, self.limit)
