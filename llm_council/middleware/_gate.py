"""The gate before a provider: who may pass, by rates and by how many are inside."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Hashable
from math import inf

import anyio
import attrs

from llm_council.errors import RateLimited
from llm_council.middleware._rates import Entry, Rate, Window
from llm_council.middleware._shared_rates import SharedRates
from llm_council.middleware._turns import Turns, Waiter

__all__ = ["Gate", "Pass"]


@attrs.frozen(kw_only=True)
class Pass:
    """One call's leave to go through.

    Attributes:
        entry: what it took of the window of tokens.
    """

    entry: Entry | None


class Gate:
    """Let calls through, in any number of loops and threads, within rates and up to a number at once.

    Args:
        name: who is named in errors.
        rate: calls.
        tokens: tokens.
        concurrency: calls at the same time.
        shared: the same rates counted together with others; None counts here alone.
        alone: whether to go on counting here alone while the others cannot be reached.
        clock: monotonic seconds.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        rate: Rate | None,
        tokens: Rate | None,
        concurrency: int | None,
        shared: SharedRates | None,
        alone: bool,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._name = name
        self._said = ", ".join(
            f"{r.text}{what}" for r, what in ((rate, " calls"), (tokens, " tokens")) if r is not None
        )
        self._calls = Window(rate) if rate is not None else None
        self._tokens = Window(tokens) if tokens is not None else None
        self._most = inf if concurrency is None else concurrency
        self._shared = shared
        self._alone = alone
        self._clock = clock
        self._sleep = sleep
        self._busy = 0
        self._turns = Turns()
        self._lock = threading.Lock()

    async def enter(self, cost: int, run: Hashable, left: float) -> Pass:
        """Wait until a call may go through; ``leave`` must follow.

        Args:
            cost: the tokens that it is expected to take.
            run: the run that it belongs to: the runs take turns.
            left: most seconds to wait.

        Raises:
            RateLimited: that many are not enough; ``retry_after`` says how many may be.
        """
        with self._lock:
            if self._shared is None and self._turns.head is None and self._busy < self._most:
                now = self._clock()
                if not self._wait(now, cost):
                    return self._pass(now, cost)
            waiter = Waiter(run)
            self._turns.join(waiter)
        try:
            return await self._stand(waiter, cost, self._clock() + left)
        finally:
            with self._lock:
                following = self._turns.leave(waiter)
            if following is not None:
                following.wake()

    def leave(self, ticket: Pass, tokens: int | None) -> None:
        """Note the end of a call.

        Args:
            ticket: what ``enter`` returned.
            tokens: what it really took; None leaves what was expected.
        """
        with self._lock:
            self._busy -= 1
            if tokens is not None and ticket.entry is not None and self._tokens is not None:
                self._tokens.correct(ticket.entry, tokens)
            head = self._turns.head
        if head is not None:
            head.wake()

    def close(self) -> None:
        """Close the connections to those who count along."""
        if self._shared is not None:
            self._shared.close()

    async def _stand(self, waiter: Waiter, cost: int, until: float) -> Pass:
        """Stand in line until it is this one's turn, there is room, and the rates have it."""
        while True:
            with self._lock:
                may_go = self._turns.head is waiter and self._busy < self._most
                woken = waiter.arm()
                seconds = self._wait(self._clock(), cost) if may_go else 0.0
                if may_go and not seconds and self._shared is None:
                    return self._pass(self._clock(), cost)
            if may_go and not seconds and self._shared is not None:
                seconds = await self._ask(self._shared, cost)
                if not seconds:
                    with self._lock:
                        return self._pass(self._clock(), cost)
            left = until - self._clock()
            if seconds > left or left <= 0:
                self._refuse(max(seconds, 0.001), left)
            if may_go:
                await self._sleep(max(seconds, 0.001))  # rounding must not make this a busy loop
            else:
                with anyio.move_on_after(None if left == inf else left):
                    await woken.wait()

    async def _ask(self, shared: SharedRates, cost: int) -> float:
        seconds = await shared.take({"calls": 1, "tokens": cost})
        if seconds is None and not self._alone:
            raise shared.refusal()
        return seconds or 0.0

    def _wait(self, now: float, cost: int) -> float:
        calls = self._calls.wait(now, 1) if self._calls is not None else 0.0
        return max(calls, self._tokens.wait(now, cost)) if self._tokens is not None else calls

    def _pass(self, now: float, cost: int) -> Pass:
        self._busy += 1
        if self._calls is not None:
            self._calls.take(now, 1)
        return Pass(entry=self._tokens.take(now, cost) if self._tokens is not None else None)

    def _refuse(self, seconds: float, left: float) -> None:
        limits = self._said or f"{self._most} at once"
        raise RateLimited(
            f"the limit of {self._name}, {limits}, leaves no room within {max(0.0, left):.3g} s", retry_after=seconds
        )
