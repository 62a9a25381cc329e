"""The answer of a run as plain text, for ``print`` and the command line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llm_council.errors._visible import visible

if TYPE_CHECKING:
    from llm_council.models import Tally
    from llm_council.results import CouncilResult

__all__ = ["answer", "as_text", "split_answer", "vote_line", "vote_rows"]


_OF_REVIEWERS = {"borda": "the Borda count", "copeland": "pairs won", "approval": "approvals"}
"""Rules by which reviewers choose a draft, in words."""

_BROKEN_BY = {
    "seed": "the run's seed broke the tie",
    "pairs": "their pairs broke the tie",
    "second choices": "second places broke the tie",
    "weights": "the seat with the largest weight broke the tie",
}
"""What decided between answers that were level, in words."""


def answer(result: CouncilResult) -> str:
    """Return the answer of a run, with control characters made visible; the error of a run that has none.

    Args:
        result: the run's result. Of an object with a text named ``answer``, as the role ``advisor`` gives, only that
            text is returned.
    """
    if not result.success:
        why = f"{type(result.error).__name__}: {result.error}" if result.error is not None else f"run {result.run_id}"
        return visible(f"{result.status}: {why}")
    shown, _ = split_answer(result)
    return visible("" if shown is None else as_text(shown))


def split_answer(result: CouncilResult) -> tuple[Any, Mapping[str, Any]]:
    """Return the answer of a run and the fields that stand beside it, such as ``reasoning`` unless it is empty.

    Only an object with a text named ``answer`` is split; any other answer is whole, and no field is beside it. Without
    a valid answer, it is the text of the chair; None if there is none either.
    """
    output = result.output_value if result.output is not None else result.text
    if isinstance(output, Mapping) and isinstance(output.get("answer"), str):
        # A model may give no reasons: a title without text below it would look like a fault.
        left_out = {"answer"} if output.get("reasoning") else {"answer", "reasoning"}
        return output["answer"], {name: item for name, item in output.items() if name not in left_out}
    return output, {}


def vote_line(result: CouncilResult) -> str | None:
    """Return the count of a vote in one line, such as "2 of 3 agree; bob dissents: 390"; None without a vote."""
    tally = result.tally
    if tally is None:
        return " ".join(visible("; ".join(_beside_the_chair(result))).split()) or None
    if tally.rule in _OF_REVIEWERS:
        parts = _reviewed(tally) + _dissenters(result)
    elif tally.rule in ("scores", "pairs"):
        parts = _judged(result, tally) + _dissenters(result)
    elif tally.rule == "fields":
        parts = _counted_by_field(result, tally)
    else:
        parts = _counted(result, tally)
    return " ".join(visible("; ".join(parts)).split())


def _beside_the_chair(result: CouncilResult) -> list[str]:
    """Return who dissents from an answer that was not counted, where that can be told; empty if it cannot."""
    if not result.answers:
        return []
    against = {seat for dissent in result.dissent for seat in dissent.seats}
    asked = len(result.plan.drafters)
    agreeing = len(result.answers) - len(against)
    parts = [f"{agreeing} of {asked} drafts {'agrees' if agreeing == 1 else 'agree'} with the answer"]
    if result.overruled:
        parts.append("most drafts were overruled")
    return parts + _dissenters(result)


def _dissenters(result: CouncilResult) -> list[str]:
    """Return who gave another answer, one sentence for each answer."""
    said = []
    for dissent in result.dissent:
        verb = "dissents" if len(dissent.seats) == 1 else "dissent"
        said.append(f"{' and '.join(dissent.seats)} {verb}: {dissent.answer.shown}")
    return said


def _counted(result: CouncilResult, tally: Tally) -> list[str]:
    """Return how many seats gave the answer, and who gave another one."""
    agreeing = [name for name, answer in result.answers.items() if answer.key == tally.winner]
    counted = tally.cast + tally.empty + tally.failed
    planned = len(result.plan.drafters) * result.plan.samples
    # Samples may end by an estimate, and groups by agreement: those that were not asked are no part of the count.
    asked = counted if result.plan.samples > 1 or result.rungs else planned
    what = "seats" if result.plan.samples == 1 else "samples"
    parts = [f"{len(agreeing)} of {asked} agree" if len(agreeing) > 1 else f"no two of {asked} {what} agree"]
    if tally.rule == "anchor":
        parts[0] = f"{len(agreeing)} of {asked} agreed before they saw the other answers"
    parts += _dissenters(result)
    flips = sum(len(one.flips) for one in result.rounds)
    if len(result.rounds) > 1:
        parts.append(f"answers changed: {flips}")
    parts += _uncounted(tally)
    left = planned - counted
    if left > 0 and asked == planned:
        parts.append(f"{left} more could not have changed it")
    elif left > 0:
        parts.append(f"{left} of {planned} were not asked for")
    if result.spared_usd:
        parts.append(f"which spared about {result.spared_usd:.4f} USD")
    return parts


def _counted_by_field(result: CouncilResult, tally: Tally) -> list[str]:
    """Return the count of each part of an answer."""
    parts = [
        f"{path} is {_shown_key(one.winner)} for {one.share:.0%} of all seats" for path, one in tally.fields.items()
    ]
    parts += _dissenters(result)
    if tally.composed:
        parts.append("no seat proposed this combination")
    return parts + _uncounted(tally)


def _uncounted(tally: Tally) -> list[str]:
    """Return how many seats have no answer in a count, and what broke its tie."""
    parts = []
    if tally.empty:
        parts.append(f"{tally.empty} could not be read")
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    if tally.broken_by:
        parts.append(_BROKEN_BY[tally.broken_by])
    return parts


def _shown_key(key: str | None) -> str:
    """Return the key of a part of an answer, which is JSON, for people."""
    return "not given" if key is None else key.strip('"')


def _reviewed(tally: Tally) -> list[str]:
    """Return what reviewers said of drafts."""
    if not tally.cast:
        return [f"no review of a draft could be read: the run's seed chose {tally.winner}'s"]
    reviews = f"{tally.cast} {'ranking' if tally.cast == 1 else 'rankings'}"
    if tally.rule == "approval":
        parts = [f"{tally.share:.0%} of its reviewers call {tally.winner}'s draft good"]
    else:
        parts = [f"{tally.winner}'s draft is the first of {reviews} by {_OF_REVIEWERS[tally.rule]}"]
    if tally.condorcet is False and tally.rule != "approval":
        parts.append("no majority puts it before each other draft")
    return parts + _uncounted(tally)


def _judged(result: CouncilResult, tally: Tally) -> list[str]:
    """Return what judges said of drafts."""
    judges = len({judgement.judge for judgement in result.judgements})
    what = "in pairs" if tally.rule == "pairs" else "by scores"
    parts = [f"{tally.winner}'s draft is the best {what} of {judges} judge{'' if judges == 1 else 's'}"]
    if tally.empty:
        parts.append(f"{tally.empty} could not be read")
    if tally.broken_by:
        parts.append(_BROKEN_BY[tally.broken_by])
    return parts


def vote_rows(result: CouncilResult) -> list[tuple[str, str]]:
    """Return a vote as two columns, their titles first: the answer of each seat, or the points of each draft."""
    if result.tally is not None and result.tally.rule in ("scores", "pairs", *_OF_REVIEWERS):
        return [("draft", "points"), *((name, f"{points:.4g}") for name, points in result.tally.points.items())]
    # Of several drafts of one seat, those that were not asked for have no row.
    names = result.plan.drafters if result.plan.samples == 1 else tuple(result.drafts)
    shown = {name: answer.shown for name, answer in result.answers.items()}
    return [("seat", "answer"), *((name, shown.get(name, "none")) for name in names)]


def as_text(value: Any) -> str:
    """Return a JSON value or one of our data types as indented plain text, without quotes and braces."""
    from llm_council.models._convert import dump

    return value if isinstance(value, str) else "\n".join(_lines(dump(value)))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _entry(f"{str(name).replace('_', ' ')}:", item)
    elif isinstance(value, list | tuple):
        for item in value:
            first, *rest = list(_lines(item)) or ["-"]
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield from _scalar(value).splitlines() or [""]


def _entry(label: str, item: Any) -> Iterator[str]:
    if isinstance(item, Mapping | list | tuple) and item:
        yield label
        yield from (f"  {line}" for line in _lines(item))
        return
    text = _scalar(item)
    if "\n" in text:
        yield label
        yield from textwrap.indent(text, "  ").splitlines()
    else:
        yield f"{label} {text}".rstrip()


def _scalar(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # Only empty ones reach this function: an answer without findings reads "findings: none".
    if isinstance(value, Mapping | list | tuple):
        return "none"
    return str(value)
