"""Bounds, and how they combine."""

from __future__ import annotations

import strategies
from hypothesis import given

from llm_council.models import Budget


@given(strategies.budgets(), strategies.budgets())
def test_the_tightest_budget_satisfies_both(a: Budget, b: Budget) -> None:
    both = a.tightest(b)
    assert both == b.tightest(a)
    assert both.tightest(a) == both
    for name in ("deadline", "grace", "usd", "tokens", "calls"):
        known = [value for value in (getattr(a, name), getattr(b, name)) if value is not None]
        assert getattr(both, name) == min(known, default=None)
    quorums = [value for value in (a.quorum, b.quorum) if value is not None]
    assert both.quorum == max(quorums, default=None)


@given(strategies.budgets())
def test_an_overlay_replaces_limits_that_differ_from_the_default(budget: Budget) -> None:
    assert budget.overlaid(None) == budget
    assert budget.overlaid(Budget()) == budget
    assert Budget().overlaid(budget) == budget
    assert budget.overlaid(Budget(usd=1.5)).usd == 1.5
    assert budget.overlaid(Budget(usd=1.5)).deadline == budget.deadline
