"""Read the reviewers' rankings and tally them. Code counts the votes, never a model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from llm_council._engine.fences import to_bytes
from llm_council._engine.reading_rankings import find_ranking
from llm_council.models import Plan, Ranking

__all__ = ["decided_winner", "read_ranking", "tally", "tie_order"]

# The forms that 0.1.0 read.
_LINE = re.compile(r"^[\s>*_#\-]*(?:final\s+)?ranking\b[\s*_]*[:=\-]+(?P<rest>.*)$", re.IGNORECASE | re.MULTILINE)
_LIST = re.compile(r'"ranking"\s*:\s*(\[[^\[\]]*\])', re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")


def read_ranking(plan: Plan, text: str, labels: Collection[str]) -> tuple[str, ...]:
    """Find the last readable ranking in a review, by the rules of the run's plan.

    Args:
        plan: the run's plan.
        text: the review, without its thinking.
        labels: the labels of the drafts that the reviewer saw.

    Returns:
        Labels, the best first; empty if there is no readable ranking. Of two drafts, naming the better one is enough.
    """
    if not plan.rules:
        return _read_by_0_1_0(text, labels)
    order = find_ranking(text, labels)
    if len(labels) == 2 and len(order) == 1:
        return (*order, *(label for label in labels if label not in order))
    return order


def _read_by_0_1_0(text: str, labels: Collection[str]) -> tuple[str, ...]:
    """Read JSON ``"ranking": [...]`` or a line such as ``RANKING: B > A``, as 0.1.0 did, so that its runs replay."""
    for found in reversed([*_LIST.finditer(text)]):
        try:
            items = json.loads(found[1])
        except ValueError:
            continue
        if order := _labels_in((str(item) for item in items), labels):
            return order
    for line in reversed([*_LINE.finditer(text)]):
        rest = line["rest"]
        if not rest.strip(" *_"):  # the ranking stands on the next line
            rest = text[line.end() :].lstrip().partition("\n")[0]
        if order := _labels_in((rest,), labels):
            return order
    return ()


def _labels_in(texts: Iterable[str], labels: Collection[str]) -> tuple[str, ...]:
    order = dict.fromkeys(word for text in texts for word in _WORD.findall(text) if word in labels)
    return tuple(order)


def tie_order(plan: Plan, seats: Iterable[str]) -> list[str]:
    """Sort seats by a hash of the run's seed and the seat's name. Of tied seats, the first in this order wins.

    The order in which the seats are given does not matter, nor which other seats are ranked. A plan from before this
    rule keeps the given order, so that its run can be replayed.
    """
    if not plan.ties_by_seed:
        return list(seats)
    return sorted(seats, key=lambda seat: hashlib.blake2b(to_bytes(plan.seed, "tie", seat), digest_size=16).digest())


def tally(rankings: Iterable[Sequence[str]], seats: Sequence[str]) -> Ranking:
    """Add up rankings by the Borda count.

    In a ranking of ``n`` seats the first gets ``n - 1`` points, the next one less, down to 0. A ranking may leave seats
    out, such as its author. So a seat's points are divided by the most it could have got from the rankings that hold
    it. Ties go to the seat that comes first in ``seats``.

    Args:
        rankings: names of seats, the best first, one sequence for each reviewer.
        seats: the seats to rank, in the order of ``tie_order``.

    Returns:
        The order, and each seat's share of its possible points, from 0 to 1.
    """
    won, possible = _count(rankings, seats)
    points = {seat: won[seat] / possible[seat] if possible[seat] else 0.0 for seat in seats}
    return Ranking(order=sorted(seats, key=lambda seat: -points[seat]), points=points)


def _count(rankings: Iterable[Sequence[str]], seats: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    won = dict.fromkeys(seats, 0)
    possible = dict.fromkeys(seats, 0)
    for ranking in rankings:
        order = [seat for seat in dict.fromkeys(ranking) if seat in won]
        for place, seat in enumerate(order):
            won[seat] += len(order) - 1 - place
            possible[seat] += len(order) - 1
    return won, possible


def decided_winner(
    rankings: Iterable[Sequence[str]], seats: Sequence[str], missing: Mapping[str, Collection[str]]
) -> str | None:
    """Return the seat that wins whatever the missing reviewers answer; None while the winner can change.

    Args:
        rankings: the rankings so far.
        seats: the seats to rank, in the order of ``tie_order``.
        missing: for each reviewer that has not answered, the seats that it was shown.
    """
    if not seats:
        return None
    won, possible = _count(rankings, seats)
    low, high = {}, {}
    for seat in seats:
        most = sum(len(shown) - 1 for shown in missing.values() if seat in shown)
        total = possible[seat] + most
        # At worst every missing reviewer puts the seat last, at best first. Partial rankings lie between the two.
        low[seat] = won[seat] / total if total else 0.0
        high[seat] = (won[seat] + most) / total if total else 0.0
    for place, seat in enumerate(seats):
        before, after = seats[:place], seats[place + 1 :]
        if all(low[seat] > high[other] for other in before) and all(low[seat] >= high[other] for other in after):
            return seat
    return None
