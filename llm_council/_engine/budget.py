"""Dividing a run's time among its phases, and counting what it spends before it is spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import fsum, inf
from typing import Any

import attrs

from llm_council.errors import BudgetExceeded, ConnectionLost, CouncilError, ReplyError, TimedOut
from llm_council.models import Budget, Cost, CostSource, GenerateRequest, GenerateResponse, Phase, Plan, SeatSpec, Usage
from llm_council.models._attrs import copy_with

__all__ = ["Ledger", "Price", "Reservation", "chair_end", "may_be_billed", "phase_ends", "quorum_of"]

SHARES = {Phase.DRAFT: 0.40, Phase.CRITIQUE: 0.20, Phase.SYNTHESISE: 0.30, Phase.REPAIR: 0.10}
"""Each phase's share of the run's time. A phase ends by the sum of its own and all earlier shares: what an earlier
phase leaves unused flows to the later ones, and no earlier phase can take what is kept for the chair."""

CHAIR_SHARE = 2 / 3
"""Of the time that is left, what a chair may use while another could still follow it."""

ANSWER_TOKENS = 1000
"""Tokens an answer is taken to have where a request sets no limit; a seat that once wrote more is taken to again."""

ASSUMED = (5.0, 15.0)
"""US dollars of a million tokens in and out, where nobody knows the price and a budget in dollars must hold all the
same: nine of ten models that the price table had for the larger vendors in November 2026 cost no more."""

_ROUNDING = 1e-9  # US dollars: ten calls of 0.1 fit into a budget of 1

Price = Callable[[SeatSpec, Usage], float | None]
"""US dollars of a seat's call by its tokens; None is unknown."""


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


def may_be_billed(error: CouncilError | None) -> bool:
    """Tell whether a call that failed like this may have been answered, and billed, all the same."""
    if isinstance(error, TimedOut):
        return error.phase not in ("connect", "pool")
    return isinstance(error, ConnectionLost | ReplyError)


@attrs.define(eq=False)
class Reservation:
    """What one call was counted with before it was made.

    Attributes:
        seat: who is asked.
        usage: the tokens it was estimated at.
        usd: the money it was estimated at.
        tries: how often it was made again.
    """

    seat: SeatSpec
    usage: Usage
    usd: float
    tries: int = 0

    @property
    def tokens(self) -> int:
        """Tokens in and out."""
        return self.usage.total_tokens or 0


@attrs.define
class Ledger:
    """What one run spends. Calls are reserved before they are made, so concurrent ones cannot overshoot together.

    An answer without reported usage is counted with its estimate, and a call that was cut, or whose answer was lost,
    with the whole of it, since it may have been billed: ``estimated`` says so. Money is what the provider reports, else
    what the price says, else what ``ASSUMED`` makes of the tokens: ``unpriced`` says for whom.
    """

    _budget: Budget
    _price: Price | None = None
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    estimated: bool = False
    unpriced: set[str] = attrs.field(factory=set)
    _held: list[Reservation] = attrs.field(factory=list)
    _longest: dict[tuple[str, str | None], int] = attrs.field(factory=dict)
    _dearest: dict[tuple[str, str | None], float] = attrs.field(factory=dict)
    _silent: set[tuple[str, str | None]] = attrs.field(factory=set)

    @property
    def spent(self) -> dict[str, float]:
        """What is spent so far, by the budget's words."""
        return {"usd": self.usd, "tokens": self.tokens, "calls": self.calls}

    def snapshot(self) -> dict[str, Any]:
        """Return what is spent, and how sure that is, as plain values for ``restore``."""
        return {**self.spent, "estimated": self.estimated, "unpriced": sorted(self.unpriced)}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from a snapshot; one that is older than what is known changes nothing."""
        self.calls = max(self.calls, snapshot.get("calls", 0))
        self.tokens = max(self.tokens, snapshot.get("tokens", 0))
        self.usd = max(self.usd, snapshot.get("usd", 0.0))
        self.estimated = self.estimated or snapshot.get("estimated", False)
        self.unpriced.update(snapshot.get("unpriced", ()))

    def is_blind(self, seat: SeatSpec) -> bool:
        """Tell whether a budget in dollars cannot say what a seat's call may cost, since none has come back yet.

        Such calls are made one after another: nothing but what the first one reports can keep the others in bounds.
        """
        key = _key(seat)
        known = self._budget.usd is None or key in self._dearest or key in self._silent
        return not known and self._priced(seat, Usage(input_tokens=1, output_tokens=1)) is None

    def reserve(self, seat: SeatSpec, request: GenerateRequest, *, keep: int = 0) -> Reservation:
        """Count a call before it is made.

        Args:
            seat: who is asked.
            request: what is asked.
            keep: calls of this size to leave over for whoever comes later, the chair for one; the first call of a run
                needs to leave none.

        Raises:
            BudgetExceeded: the call does not fit; nothing is reserved.
        """
        held = self._estimated(seat, request)
        times = 1 + keep if self._begun() else 1
        if self.is_blind(seat):  # an assumption refuses nobody while there is money
            held.usd = min(held.usd, max(0.0, self._left()) / times)
        refusal = self._refusal(held, times)
        if refusal is not None:
            raise refusal
        self._held.append(held)
        return held

    def again(self, held: Reservation, *, billed: bool) -> bool:
        """Count another try of a call, unless it does not fit.

        Args:
            held: the call's reservation, which holds for the next try.
            billed: whether the try that failed may have been billed.
        """
        if self._budget.calls is not None and self.calls + len(self._held) + 1 > self._budget.calls:
            return False
        if billed and self._refusal(held, 1) is not None:
            return False
        held.tries += 1
        self.calls += 1
        if billed:
            self._lose(held)
        return True

    def settle(
        self, held: Reservation, response: GenerateResponse | None, *, billed: bool = True, tries: int = 1
    ) -> Cost | None:
        """Replace a reservation by what the call really took.

        Args:
            held: the reservation.
            response: the answer; None when there is none.
            billed: whether a call without an answer may have been billed: one that was cut has.
            tries: how often the call was made in all, as far as its attempts tell.

        Returns:
            What the answer cost by the price table; None where it says so itself, or nobody knows.
        """
        self._held.remove(held)
        self.calls += max(1, tries - held.tries)
        if response is None:
            if billed:
                self._lose(held)
            return None
        usage = response.usage
        if usage is None or usage.total_tokens is None:
            self.estimated = True
            usage = Usage(input_tokens=held.usage.input_tokens, output_tokens=len(response.text or "") // 4 + 1)
        key = _key(held.seat)
        self.tokens += usage.total_tokens or 0
        self._longest[key] = max(self._longest.get(key, 0), usage.output_tokens or 0)
        return self._pay(held, response, usage)

    def _pay(self, held: Reservation, response: GenerateResponse, usage: Usage) -> Cost | None:
        key = _key(held.seat)
        reported = None if response.cost is None else response.cost.usd
        if reported is not None and 0 <= reported < inf:  # no vendor pays us, and no number is no cost
            self.usd += reported
            if reported or "cache" not in response.extra:  # what a cache served says nothing of the next call
                rate = reported / max(1, held.tokens)
                self._dearest[key] = max(self._dearest.get(key, 0.0), rate)
            return None
        self._silent.add(key)
        usd = None
        if response.model and response.model != held.seat.model:
            usd = self._priced(copy_with(held.seat, model=response.model), usage)
        if usd is None:
            usd = self._priced(held.seat, usage)
        if usd is None:
            self.unpriced.add(held.seat.name)
            self.usd += _assumed(usage)
            return None
        self.usd += usd
        counted = usd > 0 and response.usage is not None
        return Cost(usd=usd, source=CostSource.TABLE, complete=True) if counted else None

    def _lose(self, held: Reservation) -> None:
        """Count a call whose answer nobody has."""
        self.estimated = True
        self.tokens += held.tokens
        self.usd += held.usd

    def _begun(self) -> bool:
        return bool(self.calls or self._held)

    def _estimated(self, seat: SeatSpec, request: GenerateRequest) -> Reservation:
        """Estimate a call: four characters a token in; all of ``max_tokens`` out, else as much as it wrote before."""
        characters = sum(len(turn.text) for turn in request.turns())
        out = request.max_tokens or max(ANSWER_TOKENS, self._longest.get(_key(seat), 0))
        usage = Usage(input_tokens=characters // 4 + 1, output_tokens=out)
        if self._budget.usd is None:  # a price is looked up where it decides
            return Reservation(seat, usage, 0.0)
        seen = self._dearest.get(_key(seat))
        said = self._priced(seat, usage)
        if seen is None and said is None:
            return Reservation(seat, usage, _assumed(usage))
        return Reservation(seat, usage, max(said or 0.0, (seen or 0.0) * (usage.total_tokens or 0)))

    def _refusal(self, call: Reservation, times: int) -> BudgetExceeded | None:
        """Say which limit so many calls of this size would break."""
        budget = self._budget
        if budget.calls is not None and self.calls + len(self._held) + times > budget.calls:
            return self._exceeded(f"{budget.calls} calls")
        tokens = self.tokens + sum(one.tokens for one in self._held) + times * call.tokens
        if budget.tokens is not None and tokens > budget.tokens:
            return self._exceeded(f"{budget.tokens} tokens; this call was estimated at {call.tokens}")
        left = self._left()
        if times * call.usd > left + _ROUNDING or (left <= 0 and self.is_blind(call.seat)):
            return self._exceeded(f"{budget.usd:g} US dollars; this call was estimated at {call.usd:.4g}")
        return None

    def _left(self) -> float:
        """Return the US dollars that are neither spent nor held."""
        limit = self._budget.usd
        return inf if limit is None else fsum((limit, -self.usd, *(-one.usd for one in self._held)))

    def _priced(self, seat: SeatSpec, usage: Usage) -> float | None:
        return None if self._price is None else self._price(seat, usage)

    def _exceeded(self, limit: str) -> BudgetExceeded:
        return BudgetExceeded(f"the budget of this run is {limit}", spent=self.spent)


def _key(seat: SeatSpec) -> tuple[str, str | None]:
    return seat.provider, seat.model


def _assumed(usage: Usage) -> float:
    dollars_in, dollars_out = ASSUMED
    return ((usage.input_tokens or 0) * dollars_in + (usage.output_tokens or 0) * dollars_out) / 1e6
