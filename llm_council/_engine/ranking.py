"""Count the reviewers' rankings by the Borda count, and break ties. How a ranking is read: ``reading_rankings``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence

from llm_council._engine.fences import to_bytes
from llm_council._engine.reading_rankings import find_ranking
from llm_council.models import Plan, Ranking

__all__ = ["BordaCount", "read_ranking", "tally", "tie_order"]

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


class BordaCount:
    """Adds up rankings, one after the other, by the Borda count.

    In a ranking of ``n`` seats the first gets ``n - 1`` points, the next one less, down to 0. A ranking may leave seats
    out, such as its author. So a seat's points are divided by the most it could have got from the rankings that hold
    it. Ties go to the seat that comes first in ``seats``.

    Args:
        seats: the seats to rank, in the order of ``tie_order``.
    """

    def __init__(self, seats: Sequence[str]) -> None:
        self._won = dict.fromkeys(seats, 0)
        self._possible = dict.fromkeys(seats, 0)
        self._outstanding = dict.fromkeys(seats, 0)  # points that a seat may still get
        self._expected: dict[str, tuple[str, ...]] = {}

    def expect(self, reviewer: str, shown: Iterable[str]) -> None:
        """Register a reviewer that is asked to rank the seats ``shown``."""
        self._expected[reviewer] = tuple(shown)
        self._expect(reviewer, 1)

    def cast(self, reviewer: str, ranking: Iterable[str]) -> None:
        """Count the ranking of a reviewer, the best seat first; an empty one if it gave none."""
        self._expect(reviewer, -1)
        self._expected.pop(reviewer, None)
        order = [seat for seat in dict.fromkeys(ranking) if seat in self._won]
        for place, seat in enumerate(order):
            self._won[seat] += len(order) - 1 - place
            self._possible[seat] += len(order) - 1

    def _expect(self, reviewer: str, sign: int) -> None:
        shown = self._expected.get(reviewer, ())
        for seat in shown:
            if seat in self._outstanding:
                self._outstanding[seat] += sign * (len(shown) - 1)

    def standing(self) -> Ranking:
        """Return the order by the rankings so far, and each seat's share of its possible points, from 0 to 1."""
        points = {seat: self._won[seat] / self._possible[seat] if self._possible[seat] else 0.0 for seat in self._won}
        return Ranking(order=sorted(points, key=lambda seat: -points[seat]), points=points)

    def decided(self) -> str | None:
        """Return the seat that wins whatever the expected reviewers answer; None while the winner can change."""
        low, high = {}, {}
        for seat, won in self._won.items():
            most = self._outstanding[seat]
            total = self._possible[seat] + most
            # At worst every missing reviewer puts the seat last, at best first. Partial rankings lie between the two.
            low[seat] = won / total if total else 0.0
            high[seat] = (won + most) / total if total else 0.0
        if not low:
            return None
        leader = max(low, key=lambda seat: low[seat])  # of equal ones, the first
        is_before = True
        for other in low:
            if other == leader:
                is_before = False
            elif high[other] > low[leader] or (is_before and high[other] == low[leader]):
                return None
        return leader


def tally(rankings: Iterable[Sequence[str]], seats: Sequence[str]) -> Ranking:
    """Return the ``BordaCount`` of these rankings, one sequence of seats for each reviewer, the best seat first."""
    count = BordaCount(seats)
    for number, ranking in enumerate(rankings):
        count.cast(str(number), ranking)
    return count.standing()
