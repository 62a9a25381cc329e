"""Dividing a run's time among its phases, and counting what it spends before it is spent."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import attrs

from llm_council.errors import BudgetExceeded
from llm_council.models import Budget, GenerateRequest, GenerateResponse, Phase, Plan, SeatSpec

__all__ = ["Ledger", "Price", "Reservation", "chair_end", "estimate_tokens", "phase_ends", "quorum_of"]

SHARES = {Phase.DRAFT: 0.40, Phase.CRITIQUE: 0.20, Phase.SYNTHESISE: 0.30, Phase.REPAIR: 0.10}
"""Each phase's share of the run's time. A phase ends by the sum of its own and all earlier shares: what an earlier
phase leaves unused flows to the later ones, and no earlier phase can take what is kept for the chair."""

CHAIR_SHARE = 2 / 3
"""Of the time that is left, what a chair may use while another could still follow it."""

ANSWER_TOKENS = 1000
"""Tokens an answer is taken to have where a request sets no limit."""

Price = Callable[[SeatSpec, int, int], float | None]
"""US dollars of a call by seat, tokens in and tokens out; None is unknown."""


def phase_ends(plan: Plan, start: float) -> dict[Phase, float]:
    """Return when each phase of a plan must end, on the clock of which ``start`` is a reading."""
    deadline = plan.budget.deadline
    if deadline is None:
        return dict.fromkeys(plan.phases, inf)
    whole = sum(SHARES.get(phase, 0.0) for phase in plan.phases)
    ends, used = {}, 0.0
    for phase in plan.phases:
        used += SHARES.get(phase, 0.0)
        ends[phase] = start + deadline * (used / whole if whole else 1.0)
    return ends


def chair_end(now: float, end: float, *, others: int) -> float:
    """Return until when a chair may take: two thirds of what is left while others could follow, else all of it."""
    return end if not others else now + (end - now) * CHAIR_SHARE


def quorum_of(plan: Plan, seats: int) -> int:
    """Return how many of so many seats must answer a phase: at least one, at most all of them."""
    return max(1, min(plan.budget.quorum or 1, seats))


def estimate_tokens(request: GenerateRequest) -> tuple[int, int]:
    """Estimate a request's tokens in and out: four characters a token, and the whole of ``max_tokens``."""
    characters = sum(len(turn.text) for turn in request.turns())
    return characters // 4 + 1, request.max_tokens or ANSWER_TOKENS


@attrs.frozen
class Reservation:
    """What one call was counted with before it was made."""

    seat: SeatSpec
    tokens_in: int
    tokens_out: int
    usd: float


@attrs.define
class Ledger:
    """What one run spends. Calls are reserved before they are made, so concurrent ones cannot overshoot together.

    A call without reported usage is counted with its estimate, and ``estimated`` says so. Money of a call whose cost
    nobody knows cannot be counted; ``unpriced`` says so.
    """

    _budget: Budget
    _price: Price | None = None
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    estimated: bool = False
    unpriced: bool = False
    _held_calls: int = 0
    _held_tokens: int = 0
    _held_usd: float = 0.0

    @property
    def spent(self) -> dict[str, float]:
        """What is spent so far, by the budget's words."""
        return {"usd": self.usd, "tokens": self.tokens, "calls": self.calls}

    def reserve(self, seat: SeatSpec, request: GenerateRequest, *, keep: int = 0) -> Reservation:
        """Count a call before it is made.

        Args:
            seat: who is asked.
            request: what is asked.
            keep: calls to leave over for whoever comes later, the chair for one.

        Raises:
            BudgetExceeded: the call does not fit; nothing is reserved.
        """
        tokens_in, tokens_out = estimate_tokens(request)
        usd = (self._price(seat, tokens_in, tokens_out) if self._price else None) or 0.0
        refusal = self._refusal(tokens_in + tokens_out, usd, keep)
        if refusal is not None:
            raise refusal
        self._held_calls += 1
        self._held_tokens += tokens_in + tokens_out
        self._held_usd += usd
        return Reservation(seat, tokens_in, tokens_out, usd)

    def affords_another(self, seat: SeatSpec, request: GenerateRequest) -> bool:
        """Tell whether a call could be followed by another of its size, should its answer be worth nothing."""
        tokens_in, tokens_out = estimate_tokens(request)
        usd = (self._price(seat, tokens_in, tokens_out) if self._price else None) or 0.0
        calls = self._budget.calls
        fits = calls is None or self.calls + self._held_calls + 2 <= calls
        return fits and self._refusal(2 * (tokens_in + tokens_out), 2 * usd, 0) is None

    def _refusal(self, tokens: int, usd: float, keep: int) -> BudgetExceeded | None:
        budget = self._budget
        if budget.calls is not None and self.calls + self._held_calls + 1 + min(keep, budget.calls - 1) > budget.calls:
            return self._exceeded(f"{budget.calls} calls")
        if budget.tokens is not None and self.tokens + self._held_tokens + tokens > budget.tokens:
            return self._exceeded(f"{budget.tokens} tokens; this call was estimated at {tokens}")
        if budget.usd is not None and (
            self.usd + self._held_usd + usd > budget.usd or (self.usd >= budget.usd and self.usd > 0)
        ):
            return self._exceeded(f"{budget.usd:g} US dollars; this call was estimated at {usd:.4g}")
        return None

    def settle(self, held: Reservation, response: GenerateResponse | None, *, sent: bool = True) -> None:
        """Replace a reservation by what the call really took.

        Args:
            held: the reservation.
            response: the answer; None when there is none.
            sent: whether a call without an answer may have been billed: one that was cut has.
        """
        self._held_calls -= 1
        self._held_tokens -= held.tokens_in + held.tokens_out
        self._held_usd -= held.usd
        self.calls += max(1, len(response.attempts)) if response else 1
        if response is None:
            if sent:
                self.estimated = True
                self.tokens += held.tokens_in
                self.usd += self._priced(held.seat, held.tokens_in, 0)
            return
        usage = response.usage
        if usage is None or usage.total_tokens is None:
            self.estimated = True
            tokens_in, tokens_out = held.tokens_in, len(response.text or "") // 4 + 1
        else:
            tokens_in, tokens_out = usage.input_tokens or 0, usage.output_tokens or 0
        self.tokens += tokens_in + tokens_out
        if response.cost is not None and response.cost.usd is not None:
            self.usd += response.cost.usd
        else:
            self.usd += self._priced(held.seat, tokens_in, tokens_out)

    def _priced(self, seat: SeatSpec, tokens_in: int, tokens_out: int) -> float:
        usd = self._price(seat, tokens_in, tokens_out) if self._price else None
        if usd is None:
            self.unpriced = True
        return usd or 0.0

    def _exceeded(self, limit: str) -> BudgetExceeded:
        return BudgetExceeded(f"the budget of this run is {limit}", spent=self.spent)
