"""Count the reviews of drafts: rankings by Borda or Copeland, or approvals. Code counts, never a model.

A count is decided once no missing review can change the first place, whatever that review says. While a tie for the
first place is possible, the count is not decided.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from llm_council.models import Tally

__all__ = ["ApprovalCount", "BordaCount", "CopelandCount", "RankCount", "read_approved"]

_ROUNDING = 1e-9

_APPROVED = re.compile(
    r"^[ \t>*_#`\-]{0,20}approved\b[ \t*_`]{0,8}[:=\-][ \t*_`]{0,8}(?P<rest>[^\n]{0,400})", re.IGNORECASE | re.MULTILINE
)


def read_approved(text: str, labels: Collection[str]) -> tuple[str, ...] | None:
    """Return the labels on the last line "APPROVED:"; empty if it says "none", None if it cannot be read."""
    found: str | None = None
    for line in _APPROVED.finditer(text):
        found = line["rest"]
    if found is None:
        return None
    named = dict.fromkeys(word for word in re.findall(r"\w+", found) if word in labels)
    if re.search(r"\bnone\b", found, re.IGNORECASE):
        return None if named else ()  # "none but A" may mean either
    return tuple(named) or None


class RankCount(ABC):
    """A count of reviews, each of which judges the drafts of others.

    Args:
        drafts: names of the drafts.
        reviewers: names of the seats that are to review; none sees its own draft.
    """

    rule: ClassVar[str]

    def __init__(self, drafts: Sequence[str], reviewers: Sequence[str]) -> None:
        self.drafts = tuple(drafts)
        self.reviewers = tuple(reviewers)
        self.said: dict[str, tuple[str, ...] | None] = {}

    def cast(self, reviewer: str, order: Sequence[str] | None) -> None:
        """Count the drafts that a reviewer names, the best first; None if its review cannot be read."""
        self.said[reviewer] = None if order is None else tuple(name for name in order if name in self.drafts)

    @property
    def waiting(self) -> list[str]:
        """The reviewers that have not said anything."""
        return [reviewer for reviewer in self.reviewers if reviewer not in self.said]

    @abstractmethod
    def points(self) -> dict[str, float]:
        """Return the points of each draft so far."""

    @abstractmethod
    def worst_case(self, leader: str, rival: str) -> tuple[float, float]:
        """Return the points of both drafts if every missing review is as bad as possible for the leader.

        Each missing review then has the rival first and the leader last: no other reviews bring the rival nearer to the
        leader, or further past it.

        Returns:
            The points of the leader, and those of the rival.
        """

    @abstractmethod
    def share(self, draft: str) -> float:
        """Return the points of a draft as a share of the most that it could have, from 0 to 1."""

    def is_decided(self) -> bool:
        """Return True once no missing review can change the first place."""
        points = self.points()
        if not self.waiting or not points:
            return True
        leader = max(points, key=lambda name: points[name])
        return all(low > high + _ROUNDING for low, high in self._worst_cases(leader))

    def _worst_cases(self, leader: str) -> list[tuple[float, float]]:
        return [self.worst_case(leader, rival) for rival in self.drafts if rival != leader]

    def pairwise(self) -> dict[str, dict[str, float]]:
        """Return draft -> other draft -> number of reviewers that put the first before the other."""
        wins = {one: {other: 0.0 for other in self.drafts if other != one} for one in self.drafts}
        for reviewer, order in self.said.items():
            for one, other in self._preferences(reviewer, order or ()):
                wins[one][other] += 1
        return wins

    def _preferences(self, reviewer: str, order: Sequence[str]) -> list[tuple[str, str]]:
        """Return the pairs of which a reviewer prefers the first draft to the second."""
        return [(one, other) for place, one in enumerate(order) for other in order[place + 1 :]]

    def second_places(self) -> dict[str, float]:
        """Return the share of its rankings in which a draft is second."""
        orders = [order for order in self.said.values() if order]
        seen = {name: [order for order in orders if name in order] for name in self.drafts}
        return {
            name: sum(order.index(name) == 1 for order in found) / len(found) if found else 0.0
            for name, found in seen.items()
        }

    def tally(self, by_seed: Sequence[str], *, decided_after: int | None = None, failed: int = 0) -> Tally:
        """Return the count.

        Args:
            by_seed: the drafts in an order that the run's seed decides; it breaks the ties that second places do not.
            decided_after: reviews after which the count was decided, if it ended early.
            failed: reviewers that gave no review.
        """
        points, seconds = self.points(), self.second_places()
        order = sorted(self.drafts, key=lambda name: (-points[name], -seconds[name], by_seed.index(name)))
        winner, *others = order
        tied = [name for name in order if points[name] >= points[winner] - _ROUNDING]
        level = [name for name in tied if seconds[name] >= seconds[winner] - _ROUNDING]
        wins = self.pairwise()
        is_compared = any(count for rivals in wins.values() for count in rivals.values())
        read = [said for said in self.said.values() if said is not None]
        return Tally(
            rule=self.rule,
            winner=winner,
            order=order,
            points={name: points[name] for name in order},
            share=self.share(winner),
            margin=points[winner] - points[others[0]] if others else points[winner],
            tied=sorted(tied) if len(tied) > 1 else (),
            broken_by=None if len(tied) == 1 else "second choices" if len(level) == 1 else "seed",
            cast=len(read),
            empty=len(self.said) - len(read),
            failed=failed,
            decided_after=decided_after,
            pairwise=wins,
            condorcet=all(wins[winner][other] > wins[other][winner] for other in others) if is_compared else None,
        )


class BordaCount(RankCount):
    """The first of n drafts in a ranking gets n - 1 points, the next one less; the largest share of points wins."""

    rule = "borda"

    def points(self) -> dict[str, float]:
        """Return each draft's share of the points that it could have won in the rankings that hold it."""
        counted = self._counted()
        return {name: won / possible if possible else 0.0 for name, (won, possible) in counted.items()}

    def _counted(self) -> dict[str, tuple[int, int]]:
        counted = dict.fromkeys(self.drafts, (0, 0))
        for order in self.said.values():
            for place, name in enumerate(order or ()):
                won, possible = counted[name]
                counted[name] = won + len(order or ()) - 1 - place, possible + len(order or ()) - 1
        return counted

    def worst_case(self, leader: str, rival: str) -> tuple[float, float]:
        """Every missing ranking has the rival first, and the leader last."""
        counted = self._counted()
        (low, low_of), (high, high_of) = counted[leader], counted[rival]
        for reviewer in self.waiting:
            most = len([name for name in self.drafts if name != reviewer]) - 1
            low_of += most if leader != reviewer else 0
            high += most if rival != reviewer else 0
            high_of += most if rival != reviewer else 0
        return low / low_of if low_of else 0.0, high / high_of if high_of else 0.0

    def share(self, draft: str) -> float:
        """Return the share of the points that it could have won."""
        return self.points()[draft]


class CopelandCount(RankCount):
    """A draft gets a point for each other one that fewer reviewers put before it, and half a point for a draw."""

    rule = "copeland"

    def points(self) -> dict[str, float]:
        """Return the pairs that each draft has won, draws as halves."""
        wins = self.pairwise()
        return {name: self._won(wins, name) for name in self.drafts}

    @staticmethod
    def _won(wins: Mapping[str, Mapping[str, float]], name: str) -> float:
        pairs = [(count, wins[other][name]) for other, count in wins[name].items()]
        return sum(1.0 if mine > theirs else 0.5 if mine == theirs else 0.0 for mine, theirs in pairs)

    def worst_case(self, leader: str, rival: str) -> tuple[float, float]:
        """Every missing ranking has the rival first, and the leader last."""
        wins = self.pairwise()
        for reviewer in self.waiting:
            shown = [name for name in self.drafts if name != reviewer]
            for other in shown:
                if rival in shown and other != rival:
                    wins[rival][other] += 1
                if leader in shown and other not in (leader, rival):
                    wins[other][leader] += 1
        return self._won(wins, leader), self._won(wins, rival)

    def share(self, draft: str) -> float:
        """Return the share of its pairs that it has won."""
        return self.points()[draft] / max(1, len(self.drafts) - 1)


class ApprovalCount(RankCount):
    """A draft gets a point from each reviewer that calls it good; all drafts may be bad."""

    rule = "approval"

    def points(self) -> dict[str, float]:
        """Return how many reviewers call each draft good."""
        said = [order or () for order in self.said.values()]
        return {name: float(sum(name in order for order in said)) for name in self.drafts}

    def _preferences(self, reviewer: str, order: Sequence[str]) -> list[tuple[str, str]]:
        others = [name for name in self.drafts if name not in order and name != reviewer]
        return [(one, other) for one in order for other in others]

    def worst_case(self, leader: str, rival: str) -> tuple[float, float]:
        """Every missing reviewer calls the rival good, and the leader bad."""
        points = self.points()
        return points[leader], points[rival] + sum(reviewer != rival for reviewer in self.waiting)

    def second_places(self) -> dict[str, float]:
        """Return 0 for each draft: approvals have no order."""
        return dict.fromkeys(self.drafts, 0.0)

    def share(self, draft: str) -> float:
        """Return the share of all reviewers but its author that call it good."""
        return self.points()[draft] / max(1, sum(reviewer != draft for reviewer in self.reviewers))

    def is_settled(self, abstain_below: float | None) -> bool:
        """Return True once no missing review can change the first place, or whether it has enough approvals.

        Args:
            abstain_below: share of a draft's reviewers, from 0 to 1, that must call it good; None sets no limit.
        """
        if not self.waiting:
            return True
        if abstain_below is None:
            return self.is_decided()
        asked = {name: max(1, sum(reviewer != name for reviewer in self.reviewers)) for name in self.drafts}
        left = {name: sum(reviewer != name for reviewer in self.waiting) for name in self.drafts}
        points = self.points()
        if all((points[name] + left[name]) / asked[name] < abstain_below for name in self.drafts):
            return True  # no draft can have enough
        return self.is_decided() and max(self.share(name) for name in self.drafts) >= abstain_below
