"""Divide a run's time among its phases, and account for its budget of calls, tokens and dollars."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import anyio
import attrs

from llm_council._engine.request_tokens import input_tokens
from llm_council.errors import BatchIncomplete, BudgetExceeded, ConnectionLost, CouncilError, ReplyError, TimedOut
from llm_council.models import Budget, Cost, CostSource, GenerateRequest, GenerateResponse, Phase, Plan, SeatSpec, Usage
from llm_council.models._attrs import copy_with

__all__ = ["Ledger", "Price", "Reservation", "chair_end", "may_be_billed", "phase_ends", "quorum_of"]

SHARES = {
    Phase.DRAFT: 0.40,
    Phase.CRITIQUE: 0.20,
    Phase.RANK: 0.20,
    Phase.GROUP: 0.10,
    Phase.JUDGE: 0.30,
    Phase.REVISE: 0.40,
    Phase.SYNTHESISE: 0.30,
    Phase.REPAIR: 0.10,
    Phase.VERIFY: 0.30,
}
"""Each phase's share of the run's time. A phase must end by the sum of its own and all earlier shares, so later phases
get the time that earlier ones leave, and no earlier phase can use the chair's share."""

CHAIR_SHARE = 2 / 3
"""Share of the remaining time that a chair may use while another seat could still replace it."""

ANSWER_TOKENS = 1000
"""Estimated tokens of an answer if the request sets no limit. A longer answer of the same model replaces it."""

ASSUMED = (5.0, 15.0)
"""US dollars per million tokens in and out if the price is unknown and the budget is in dollars. Nine of ten models of
the larger vendors in the price table of November 2026 cost at most this."""

_ROUNDING = 1e-9  # US dollars: tolerance, so that ten calls of 0.1 fit into a budget of 1

_ONE_TOKEN = Usage(input_tokens=1, output_tokens=1)
_MANY_TOKENS = Usage(input_tokens=1_000_000, output_tokens=1_000_000)

Price = Callable[[SeatSpec, Usage], float | None]
"""Returns the expected price of a seat's call in US dollars by its tokens; None if unknown. It may have a method
``direct``, which returns the price of a call outside of batch jobs."""


def phase_ends(plan: Plan, start: float) -> dict[Phase, float]:
    """Return when each phase of a plan must end, on the same clock as ``start``."""
    deadline = plan.budget.deadline
    if deadline is None:
        return dict.fromkeys(plan.phases, inf)
    whole = sum(SHARES[phase] for phase in plan.phases)
    ends, used = {}, 0.0
    for phase in plan.phases:
        used += SHARES[phase]
        ends[phase] = start + deadline * (used / whole)
    return ends


def chair_end(now: float, end: float, *, others: int) -> float:
    """Return when a chair must end: after ``CHAIR_SHARE`` of the remaining time if other seats could replace it."""
    return end if not others else now + (end - now) * CHAIR_SHARE


def quorum_of(plan: Plan, seats: int) -> int:
    """Return how many of ``seats`` seats must answer in a phase: at least one, at most all."""
    return max(1, min(plan.budget.quorum or 1, seats))


def may_be_billed(error: CouncilError | None) -> bool:
    """Return True if the vendor may have billed a call that failed with this error."""
    if isinstance(error, TimedOut):
        return error.phase not in ("connect", "pool")
    if isinstance(error, BatchIncomplete):  # vendors bill no call that expired or was cancelled
        return error.reason == "missing"
    return isinstance(error, ConnectionLost | ReplyError)


@attrs.define(eq=False)
class Reservation:
    """The estimate that one call holds of the budget until it ends.

    Attributes:
        seat: the seat.
        input_tokens: estimated tokens in.
        output_tokens: estimated tokens out.
        usd: estimated US dollars.
        retries: how often the call was retried.
        above: what the call holds of the budget of the map that its run belongs to; None outside of a map.
    """

    seat: SeatSpec
    input_tokens: int
    output_tokens: int
    usd: float = 0.0
    retries: int = 0
    above: Reservation | None = None

    @property
    def tokens(self) -> int:
        """Tokens in and out."""
        return self.input_tokens + self.output_tokens


@attrs.define
class Ledger:
    """The account of a run, or of a map. Each call reserves its estimate first, so concurrent calls stay within budget.

    An answer without usage counts as estimated. So does a call that was cut, or whose answer was lost, because the
    vendor may have billed it; ``estimated`` is True then. The cost of a call is what the provider reports, else what
    the price table says, else ``ASSUMED`` for its tokens; ``unpriced`` holds the seats of the last case.

    A run of a map has the account of the map ``above`` its own: each call needs room in both, and the runs share what
    they learn of the seats' prices and of the length of their answers.

    Attributes:
        above: the account of the map; None outside of one.
        owner: what the budget belongs to, for messages.
        unpriced_turn: held by a call whose cost cannot be estimated, so that such calls are made one at a time.
    """

    _budget: Budget
    _price: Price | None = None
    above: Ledger | None = attrs.field(default=None, kw_only=True)
    owner: str = attrs.field(default="run", kw_only=True)
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    estimated: bool = False
    unpriced: set[str] = attrs.field(factory=set)
    unpriced_turn: anyio.Lock = attrs.field(init=False, factory=anyio.Lock)
    # Sums, because the calls of a map are many.
    _held_calls: int = 0
    _held_tokens: int = 0
    _held_usd: float = 0.0
    _longest_answer: dict[tuple[str, str | None], int] = attrs.field(factory=dict)
    _highest_rate: dict[tuple[str, str | None], float] = attrs.field(factory=dict)
    _reports_no_cost: set[tuple[str, str | None]] = attrs.field(factory=set)

    def __attrs_post_init__(self) -> None:
        if self.above is not None:
            self.unpriced_turn = self.above.unpriced_turn
            self._longest_answer = self.above._longest_answer
            self._highest_rate = self.above._highest_rate
            self._reports_no_cost = self.above._reports_no_cost

    @property
    def spent(self) -> dict[str, float]:
        """The amounts spent so far, by the names of the budget's limits."""
        return {"usd": self.usd, "tokens": self.tokens, "calls": self.calls}

    @property
    def most_usd(self) -> float:
        """US dollars that were spent, and those that calls hold which have not ended."""
        return self.usd + self._held_usd

    def snapshot(self) -> dict[str, Any]:
        """Return the account as plain values for ``restore``."""
        return {**self.spent, "estimated": self.estimated, "unpriced": sorted(self.unpriced)}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from a snapshot; one that is older than the account changes nothing."""
        if self.above is not None:
            self.above.calls += max(0, snapshot.get("calls", 0) - self.calls)
            self.above.tokens += max(0, snapshot.get("tokens", 0) - self.tokens)
            self.above.usd += max(0.0, snapshot.get("usd", 0.0) - self.usd)
        self.calls = max(self.calls, snapshot.get("calls", 0))
        self.tokens = max(self.tokens, snapshot.get("tokens", 0))
        self.usd = max(self.usd, snapshot.get("usd", 0.0))
        self.estimated = self.estimated or snapshot.get("estimated", False)
        self.unpriced.update(snapshot.get("unpriced", ()))

    def has_unknown_cost(self, seat: SeatSpec) -> bool:
        """Return True if the budget is in dollars, and the cost of a seat's call cannot be estimated.

        That is so for a seat without a price until its first call has ended. Such calls run one at a time, so that the
        reported cost of the first can keep the others within the budget.
        """
        key = _key(seat)
        limits_usd = self._budget.usd is not None or (self.above is not None and self.above._budget.usd is not None)
        if not limits_usd or key in self._highest_rate or key in self._reports_no_cost:
            return False
        return self.price_of(seat, _ONE_TOKEN) is None

    def reserve(self, seat: SeatSpec, request: GenerateRequest, *, spare_calls: int = 0) -> Reservation:
        """Reserve the estimate of a call before it is made.

        Args:
            seat: the seat.
            request: the request.
            spare_calls: number of calls of this size that must still fit afterwards, such as the chair's. The first
                call of a run is exempt.

        Raises:
            BudgetExceeded: the call does not fit; nothing is reserved.
        """
        held = self._estimated(seat, request)
        times = 1 + spare_calls if self.calls or self._held_calls else 1
        if self.has_unknown_cost(seat):  # an assumed price refuses no call while there is money
            held.usd = min(held.usd, max(0.0, self._left()) / times)
        error = self._budget_error(held, times)
        if error is not None:
            raise error
        if self.above is not None:
            held.above = self.above.reserve(seat, request, spare_calls=times - 1)
        self._held_calls += 1
        self._held_tokens += held.tokens
        self._held_usd += held.usd
        return held

    def retry(self, held: Reservation, *, billed: bool) -> bool:
        """Count a retry of a call if it fits into the budget; return whether it fits.

        Args:
            held: the call's reservation, which the retry keeps.
            billed: True if the failed attempt may have been billed.
        """
        if self._budget.calls is not None and self.calls + self._held_calls + 1 > self._budget.calls:
            return False
        # The failed attempt uses up the reservation, so the retry needs room of its own.
        if billed and self._budget_error(held, 1) is not None:
            return False
        if self.above is not None and held.above is not None and not self.above.retry(held.above, billed=billed):
            return False
        held.retries += 1
        self.calls += 1
        if billed:
            self._count_lost(held)
        return True

    def settle(
        self, held: Reservation, response: GenerateResponse | None, *, billed: bool = True, tries: int = 1
    ) -> Cost | None:
        """Replace a reservation by the real usage and cost of the call.

        Args:
            held: the reservation.
            response: the answer; None if there is none.
            billed: True if a call without an answer may have been billed, such as one that was cut.
            tries: number of attempts of the call, the first included.

        Returns:
            The cost of the answer by the price table; None if the provider reports a cost, or the price is unknown.
        """
        if self.above is not None and held.above is not None:
            self.above.settle(held.above, response, billed=billed, tries=tries)
        self._held_calls -= 1
        self._held_tokens -= held.tokens
        # Sums of fractions drift: they start again when nothing is held.
        self._held_usd = self._held_usd - held.usd if self._held_calls else 0.0
        # ``retry`` has counted the retries that asked for room; attempts within an adapter are known only now.
        self.calls += max(1, tries - held.retries)
        if response is None:
            if billed:
                self._count_lost(held)
            return None
        usage = response.usage
        if usage is None or usage.total_tokens is None:
            self.estimated = True  # four characters a token
            usage = Usage(input_tokens=held.input_tokens, output_tokens=len(response.text or "") // 4 + 1)
        key = _key(held.seat)
        self.tokens += usage.total_tokens or 0
        self._longest_answer[key] = max(self._longest_answer.get(key, ANSWER_TOKENS), usage.output_tokens or 0)
        return self._count_cost(held, response, usage)

    def _count_cost(self, held: Reservation, response: GenerateResponse, usage: Usage) -> Cost | None:
        key = _key(held.seat)
        reported = None if response.cost is None else response.cost.usd
        if reported is not None and 0 <= reported < inf:  # negative and infinite costs are errors of the vendor
            self.usd += reported
            if reported or "cache" not in response.extra:  # a cached answer says nothing about the next call
                rate = reported / held.tokens
                self._highest_rate[key] = max(self._highest_rate.get(key, 0.0), rate)
            return None
        self._reports_no_cost.add(key)
        share = 1.0 if response.cost is None else response.cost.share  # of the price of a direct call
        direct: Price | None = getattr(self._price, "direct", self._price)
        usd = None
        # The model that answered sets the price: routers and aliases choose another than the seat's.
        if direct is not None and response.model and response.model != held.seat.model:
            usd = direct(copy_with(held.seat, model=response.model), usage)
        if direct is not None and usd is None:
            usd = direct(held.seat, usage)
        if usd is None:
            self.unpriced.add(held.seat.name)
            self.usd += _assumed(usage) * share
            return None
        usd *= share
        self.usd += usd
        counted = usd > 0 and response.usage is not None
        return Cost(usd=usd, source=CostSource.TABLE, complete=True, share=share) if counted else None

    def is_free(self, seat: SeatSpec) -> bool:
        """Return True if every call of a seat costs nothing, as those of models on the user's own machine."""
        # With many tokens: a price of zero for zero tokens, which some vendors report for every call, proves nothing.
        return self.price_of(seat, _MANY_TOKENS) == 0

    def _count_lost(self, held: Reservation) -> None:
        """Count the estimate of a call whose answer was lost."""
        self.estimated = True
        self.tokens += held.tokens
        self.usd += held.usd

    def _estimated(self, seat: SeatSpec, request: GenerateRequest) -> Reservation:
        """Estimate a call: ``input_tokens`` in; ``max_tokens`` out, or the seat's longest answer so far."""
        out = request.max_tokens or self._longest_answer.get(_key(seat), ANSWER_TOKENS)
        held = Reservation(seat, input_tokens(request), out)
        if self._budget.usd is None:  # the price does not matter
            return held
        usage = Usage(input_tokens=held.input_tokens, output_tokens=out)
        rate = self._highest_rate.get(_key(seat))
        price = self.price_of(seat, usage)
        if rate is None and price is None:
            held.usd = _assumed(usage)
        else:
            held.usd = max(price or 0.0, (rate or 0.0) * held.tokens)
        return held

    def _budget_error(self, call: Reservation, times: int) -> BudgetExceeded | None:
        """Return the error if ``times`` calls of this size would exceed a limit."""
        budget = self._budget
        if budget.calls is not None and self.calls + self._held_calls + times > budget.calls:
            return self._exceeded(f"{budget.calls} calls")
        tokens = self.tokens + self._held_tokens + times * call.tokens
        if budget.tokens is not None and tokens > budget.tokens:
            return self._exceeded(f"{budget.tokens} tokens; this call was estimated at {call.tokens}")
        left = self._left()
        if times * call.usd > left + _ROUNDING:
            return self._exceeded(f"{budget.usd:g} US dollars; this call was estimated at {call.usd:.4g}")
        if left <= 0 and self.has_unknown_cost(call.seat):
            return self._exceeded(f"{budget.usd:g} US dollars, nothing is left, and the cost of this call is unknown")
        return None

    def _left(self) -> float:
        """Return the US dollars that are neither spent nor reserved."""
        limit = self._budget.usd
        return inf if limit is None else limit - self.usd - self._held_usd

    def price_of(self, seat: SeatSpec, usage: Usage) -> float | None:
        """Return the expected price of a call of a seat in US dollars; None if it is unknown."""
        return None if self._price is None else self._price(seat, usage)

    def _exceeded(self, limit: str) -> BudgetExceeded:
        return BudgetExceeded(f"the budget of this {self.owner} is {limit}", spent=self.spent, scope=self.owner)


def _key(seat: SeatSpec) -> tuple[str, str | None]:
    return seat.provider, seat.model


def _assumed(usage: Usage) -> float:
    dollars_in, dollars_out = ASSUMED
    return ((usage.input_tokens or 0) * dollars_in + (usage.output_tokens or 0) * dollars_out) / 1e6
