"""What seats did beyond drafts and critiques, as tables for reports: rounds, groups, judgements, other ways, checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from llm_council.results import CouncilResult

__all__ = ["ReportTable", "deliberation_tables"]

_BIAS = {
    "first_slot_rate": "share of choices for the text that was shown first",
    "flip_rate": "share of pairs in which the order decided",
    "own_family_margin": "by how much drafts of the judge's own provider score higher",
}


@attrs.frozen
class ReportTable:
    """A table of a report; all cells are untrusted text.

    Attributes:
        heading: what it shows.
        titles: the titles of its columns.
        rows: its rows, each as long as ``titles``.
    """

    heading: str
    titles: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def deliberation_tables(result: CouncilResult) -> Iterator[ReportTable]:
    """Yield a table for each part of a result that has something to show."""
    if len(result.rounds) > 1:
        yield ReportTable("Rounds", ("round", "seat", "answer", "before"), _rounds(result))
    if result.rungs:
        rows = [
            (", ".join(rung.seats), rung.reason, "" if rung.usd is None else f"{rung.usd:.4f} USD")
            for rung in result.rungs
        ]
        yield ReportTable("Groups of seats", ("seats", "what came of them", "cost"), rows)
    if result.judgements:
        yield ReportTable("Judgements", ("judge", "scores", "same in both orders"), _judgements(result))
    if result.bias:
        bias = [(_BIAS.get(name, name), f"{value:.2f}") for name, value in result.bias.items()]
        yield ReportTable("Bias of the judges", ("what", "value"), bias)
    if result.otherwise:
        ways = [(_other_way(name), said or "nothing") for name, said in result.otherwise.items()]
        yield ReportTable("What others would have said", ("who", "answer or draft"), ways)
    if result.checks:
        yield ReportTable("Checks", ("verdict", "question", "claim", "answers"), _checks(result))


def _other_way(name: str) -> str:
    """Return the key of ``otherwise`` in words."""
    way, _, seat = name.partition(":")
    words = {"single": f"{seat} alone", "judge": f"the draft that {seat} alone would choose"}
    words |= {"poll": "most drafts", "borda": "the Borda count", "copeland": "a count of pairs"}
    return words.get(way, name)


def _rounds(result: CouncilResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one in result.rounds:
        before = {flip.seat: flip.old or "none" for flip in one.flips}
        rows += [(str(one.number), seat, answer.shown, before.get(seat, "")) for seat, answer in one.answers.items()]
    return rows


def _judgements(result: CouncilResult) -> list[tuple[str, ...]]:
    words = {None: "", True: "yes", False: "no"}
    rows: list[tuple[str, ...]] = []
    for judgement in result.judgements:
        scores = ", ".join(f"{author} {score:g}" for author, score in judgement.scores.items())
        rows.append((judgement.judge, scores, words[judgement.consistent]))
    return rows


def _checks(result: CouncilResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for check in result.checks:
        answers = "; ".join(f"{seat}: {said}" for seat, said in check.answers.items())
        rows.append((str(check.verdict), check.question, check.claim, answers))
    return rows
