"""Count votes by plurality, and report when the votes that are missing can no longer change the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from random import Random

from llm_council.models import Agreement, AgreementLevel, Tally

__all__ = ["Plurality"]

_ROUNDING = 1e-9  # weights are sums of floats


class Plurality:
    """A count in which the answer with the largest weight wins.

    Args:
        seats: the seats that are to vote. All are in the denominator of a share, whether they answer or not.
        weights: weight of each seat; a seat that it leaves out has 0. None gives each seat 1.
        may_merge: True if different answers may still be found equal.
    """

    def __init__(
        self, seats: Sequence[str], weights: Mapping[str, float] | None = None, *, may_merge: bool = False
    ) -> None:
        self._weights = {seat: 1.0 if weights is None else float(weights.get(seat, 0.0)) for seat in seats}
        self._whole = fsum(self._weights.values())
        self._ballots: dict[str, str | None] = {}
        self._failed: set[str] = set()
        self._may_merge = may_merge

    def cast(self, seat: str, key: str | None) -> None:
        """Count the answer of a seat by its key; None for an answer that cannot be read."""
        self._ballots[seat] = key

    def fail(self, seat: str) -> None:
        """Count a seat that gave no draft."""
        self._failed.add(seat)

    @property
    def failed(self) -> tuple[str, ...]:
        """The seats that gave no draft."""
        return tuple(sorted(self._failed))

    def standing(self) -> dict[str, float]:
        """Return the weight of each answer so far, the largest first."""
        by_key: dict[str, list[float]] = {}
        for seat, key in self._ballots.items():
            if key is not None:
                by_key.setdefault(key, []).append(self._weights[seat])
        points = {key: fsum(weights) for key, weights in by_key.items()}
        return dict(sorted(points.items(), key=lambda entry: (-entry[1], entry[0])))

    def is_open(self, abstain_below: float | None = None) -> bool:
        """Return True while the missing votes can still change the winner, or decide whether there is one.

        A possible tie counts as a change, because chance would break it.

        Args:
            abstain_below: share of all weights, from 0 to 1, below which there is no winner; None sets no limit.
        """
        left = fsum(w for seat, w in self._weights.items() if seat not in self._ballots and seat not in self._failed)
        points: list[float] = [*self.standing().values(), 0.0, 0.0]
        first, others = points[0], points[1:]
        if left <= 0:
            return False
        rivals = fsum(others) if self._may_merge else others[0]
        if first - rivals <= left + _ROUNDING:
            return True
        most = first + left + (rivals if self._may_merge else 0.0)
        return abstain_below is not None and self._share(first) < abstain_below <= self._share(most)

    def least_votes(self, waiting: Sequence[str], abstain_below: float | None = None) -> int:
        """Return the smallest number of further votes that can decide the count.

        Args:
            waiting: the seats that have not voted, in the order in which they will be asked; one or more.
            abstain_below: see ``is_open``.
        """
        leader = next(iter(self.standing()), "")
        agreeing = Plurality((), may_merge=self._may_merge)
        agreeing._weights, agreeing._whole, agreeing._failed = self._weights, self._whole, self._failed
        agreeing._ballots = dict(self._ballots)
        for votes, seat in enumerate(waiting, 1):
            agreeing.cast(seat, leader)
            if not agreeing.is_open(abstain_below):
                return votes
        return len(waiting)

    def _share(self, weight: float) -> float:
        return weight / self._whole if self._whole else 0.0

    def tally(self, chance: Random, *, decided_after: int | None = None) -> Tally:
        """Return the count; ``chance`` breaks a tie, whatever the order in which the seats voted."""
        points = self.standing()
        first, second, *_ = [*points.values(), 0.0, 0.0]
        tied = sorted(key for key, weight in points.items() if weight >= first - _ROUNDING)
        strongest = self._of_the_strongest(tied) if len(tied) > 1 else tied
        winner = chance.choice(strongest) if tied else None
        return Tally(
            winner=winner,
            points=points,
            share=self._share(first),
            margin=self._share(first - second),
            tied=tied if len(tied) > 1 else (),
            broken_by=None if len(tied) < 2 else "weights" if len(strongest) == 1 else "seed",
            cast=sum(key is not None for key in self._ballots.values()),
            empty=sum(key is None for key in self._ballots.values()),
            failed=len(self._failed),
            decided_after=decided_after,
        )

    def _of_the_strongest(self, tied: Sequence[str]) -> list[str]:
        """Return the tied answers whose heaviest seat has the largest weight of all seats that gave a tied answer."""
        most = {
            key: max(weight for seat, weight in self._weights.items() if self._ballots.get(seat) == key) for key in tied
        }
        return [key for key in tied if most[key] >= max(most.values()) - _ROUNDING]

    @staticmethod
    def agreement(tally: Tally) -> Agreement:
        """Return how far the seats agree."""
        if tally.winner is None or tally.tied:
            level = AgreementLevel.SPLIT
        elif tally.share >= 1 - _ROUNDING and len(tally.points) == 1:  # a dissenter may have the weight 0
            level = AgreementLevel.UNANIMOUS
        elif tally.share > 0.5 + _ROUNDING:
            level = AgreementLevel.MAJORITY
        else:
            level = AgreementLevel.PLURALITY
        return Agreement(level=level, share=tally.share, margin=tally.margin)
