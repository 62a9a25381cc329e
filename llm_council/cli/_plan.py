"""What ``council run --dry-run`` prints: a few lines about a plan, or everything as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_council._engine.estimate import Estimate
    from llm_council.models import Plan, SeatSpec
    from llm_council.providers.base import ProviderAdapter

__all__ = ["as_json_value", "as_lines", "calls_line", "cost_line", "tokens_line"]

_SHOWN = 70  # characters of a task, or of instructions, that are shown


def as_json_value(plan: Plan, estimate: Estimate) -> dict[str, Any]:
    """Return the whole plan and its estimate as JSON values."""
    from llm_council.models._convert import dump

    return {**dump(plan), "estimate": dump(estimate)}


def as_lines(plan: Plan, estimate: Estimate, adapters: Mapping[str, ProviderAdapter]) -> str:
    """Return the task, the seats, their personas, the calls, the tokens and a bound of the cost, one line each.

    Args:
        plan: the plan.
        estimate: its estimate.
        adapters: the adapter of each seat, by the seat's name.
    """
    lines = [
        ("task", _task(plan)),
        ("seats", "; ".join((_names(seat.name for seat in plan.seats), *plan.notes))),
        *([("follows", _history(plan))] if plan.history else []),
        *(("persona", text) for text in map(_persona, plan.seats) if text),
        ("calls", calls_line(plan, estimate)),
        ("tokens", tokens_line(estimate)),
        ("cost", cost_line(plan, estimate, adapters)),
    ]
    return "\n".join(f"{name:<8}{line}" for name, line in lines)


def _history(plan: Plan) -> str:
    tasks = "1 earlier task" if len(plan.history) == 1 else f"{len(plan.history)} earlier tasks"
    left_out = f", {plan.history_left_out} more left out" if plan.history_left_out else ""
    return f"{plan.follows or 'turns of a conversation'} ({tasks}{left_out})"


def _persona(seat: SeatSpec) -> str:
    """Return what a seat has of its own; empty for a seat that is like any other of its model."""
    if not seat.instructions and seat.temperature is None:
        return ""
    place = f"{seat.provider}/{seat.model}" if seat.model else seat.provider
    temperature = "" if seat.temperature is None else f", temperature {seat.temperature:g}"
    instructions = f": {_cut(seat.instructions)}" if seat.instructions else ""
    return f"{seat.name} ({place}{temperature}){instructions}"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return f"{line[:_SHOWN]}..." if len(line) > _SHOWN else line


def _names(seats: Iterable[str]) -> str:
    """Return names in a list; more than three numbered ones in a row become ``a-1 to a-9``."""
    groups: list[list[str]] = []
    for name in seats:
        stem, _, number = name.rpartition("-")
        if number.isdecimal() and groups and groups[-1][-1] == f"{stem}-{int(number) - 1}":
            groups[-1].append(name)
        else:
            groups.append([name])
    shown = [f"{group[0]} to {group[-1]}" if len(group) > 3 else ", ".join(group) for group in groups]
    return ", ".join(shown)


def _task(plan: Plan) -> str:
    role = f"{plan.subagent} {plan.mode}" if plan.mode else plan.subagent
    files = f", with {len(plan.files)} file{'s' if len(plan.files) > 1 else ''}" if plan.files else ""
    return f"{_cut(plan.task)} (for {role}{files})"


_WORDS = {
    "draft": ("draft", "drafts"),
    "critique": ("critique", "critiques"),
    "rank": ("ranking", "rankings"),
    "group": ("grouping", "groupings"),
    "judge": ("judgement", "judgements"),
    "revise": ("revision", "revisions"),
    "synthesise": ("synthesis", "syntheses"),
    "verify": ("check", "checks"),
}
"""What a call of each phase brings: one, and several."""


def calls_line(plan: Plan, estimate: Estimate) -> str:
    """Return the number of calls, by what they bring."""
    counts = {str(phase): number for phase, number in estimate.calls.items()}
    repairs = counts.pop("repair", 0)
    parts = []
    for phase, number in counts.items():
        one, several = _WORDS[phase]
        parts.append(f"{number} {one if number == 1 else several}")
    text = f"{sum(counts.values())}: {', '.join(parts)}"
    if repairs:
        text += f"; up to {repairs} repairs"
    if plan.retry.max_retries:
        text += f"; up to {plan.retry.max_retries} retries of a failed call"
    return text


def tokens_line(estimate: Estimate) -> str:
    """Return the number of tokens, and whether it is a bound."""
    counts = f"up to {estimate.input_tokens:,} in and {estimate.output_tokens:,} out"
    if estimate.is_limited:
        return counts
    return f"{counts}, if no answer is longer than {estimate.answer_tokens:,} tokens (max_tokens would limit them)"


def cost_line(plan: Plan, estimate: Estimate, adapters: Mapping[str, ProviderAdapter], *, what: str = "run") -> str:
    """Return a bound of the cost, the seats without a price, and the spending limit of the plan.

    Args:
        plan: the plan.
        estimate: its estimate.
        adapters: the adapter of each seat, by the seat's name.
        what: what the limit is of.
    """
    from llm_council import pricing

    parts = []
    if estimate.usd:
        parts.append(f"at most ${_rounded_up(estimate.usd)} for these tokens")
    elif estimate.usd == 0:
        parts.append("nothing for seats on your own machines")
    if estimate.unpriced:
        helps = pricing.load() is None and any(pricing.may_be_in_table(adapters[name]) for name in estimate.unpriced)
        table = ": pip install 'llm-council-sdk[prices]'" if helps else ""
        parts.append(f"unknown for {_names(estimate.unpriced)} (no price is known{table})")
    if plan.budget.usd is not None:
        parts.append(f"the {what} stops at ${plan.budget.usd:g}")
    elif estimate.usd or estimate.unpriced:
        parts.append("--budget-usd would set a limit")
    return "; ".join(parts)


def _rounded_up(usd: float) -> str:
    """Return an amount with two significant digits or more, never less than the amount itself."""
    for digits in range(2, 9):
        rounded = f"{usd + 0.5 / 10**digits:.{digits}f}"
        if float(rounded) > 0 and usd * 10**digits >= 10:
            return rounded
    return f"{usd:.8f}"
