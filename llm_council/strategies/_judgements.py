"""Read the replies of judges, and count which draft they prefer: by scores or in pairs. Code counts, never a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from math import inf
from random import Random
from statistics import fmean, median, pstdev

import attrs

from llm_council.models import Judgement, Tally

__all__ = ["PairCount", "ScoreCount", "read_better", "read_scores"]

MOST = 10
"""The best score; 0 is the worst."""

_ROUNDING = 1e-9

# "SCORE A: 7", "**A:** 7/10", "| A | 7 |", "- Text A - 7, 9". Repetitions are bounded, so reading takes linear time.
_SCORE = re.compile(
    r"^[ \t>*_#`|\-]{0,20}(?:score[ \t]{1,4})?(?:text[ \t]{1,4})?(?P<label>[A-Z]{1,3})[ \t*_`]{0,8}[:=|\-][ \t*_`]{0,8}"
    r"(?P<rest>[^\n]{0,200})",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3})?(?![\w.]*\d)")
_OF_TEN = re.compile(r"/[ \t]{0,4}10\b")
_BETTER = re.compile(
    r"^[ \t>*_#`\-]{0,20}better\b[ \t*_`]{0,8}[:=\-][ \t*_`]{0,8}(?P<rest>[^\n]{0,80})", re.IGNORECASE | re.MULTILINE
)


def read_scores(text: str, labels: Collection[str], criteria: int = 1) -> dict[str, float] | None:
    """Return the score of each label, from 0 to 10: the mean over its criteria.

    Args:
        text: the reply of a judge.
        labels: labels of the texts that the judge saw.
        criteria: how many numbers each label must have.

    Returns:
        label -> score; None unless each label has a number for each criterion.
    """
    scores: dict[str, float] = {}
    for line in _SCORE.finditer(text):
        label = line["label"].upper()
        numbers = [float(number) for number in _NUMBER.findall(_OF_TEN.sub("", line["rest"]))][:criteria]
        if label in labels and len(numbers) == criteria and max(numbers) <= MOST:
            scores[label] = fmean(numbers)
    return scores if set(scores) == set(labels) else None


def read_better(text: str, labels: Collection[str]) -> str | None:
    """Return the label on the last line "BETTER:"; empty if the line says "tie", None if it cannot be read."""
    found: str | None = None
    for line in _BETTER.finditer(text):
        found = line["rest"]
    if found is None:
        return None
    named: list[str] = [word for word in re.findall(r"\w+", found) if word in labels]
    if len(set(named)) == 1:
        return named[0]
    return "" if not named and re.search(r"\b(tie|equal|neither|both)\b", found, re.IGNORECASE) else None


class ScoreCount:
    """Counts scores: a draft has the median over judges of its standard score among the drafts that a judge saw.

    A standard score is the score minus the judge's mean, over the judge's standard deviation. It makes a severe and a
    mild judge count alike.

    Args:
        drafts: names of the drafts.
        judges: names of the judges that are to judge.
    """

    def __init__(self, drafts: Sequence[str], judges: Sequence[str]) -> None:
        self.judgements: dict[str, Judgement | None] = {}
        self._drafts = drafts
        self._judges = judges

    def cast(self, judge: str, judgement: Judgement | None) -> None:
        """Count a judgement; None for one that cannot be read, or a judge that failed."""
        self.judgements[judge] = judgement

    def _standard_scores(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in self._drafts}
        for judgement in self.judgements.values():
            if judgement is None or len(judgement.scores) < 2:  # a single draft has nothing to be compared with
                continue
            mean, spread = fmean(judgement.scores.values()), pstdev(judgement.scores.values())
            for name, score in judgement.scores.items():
                found[name].append((score - mean) / spread if spread else 0.0)
        return found

    def raw_median(self, draft: str) -> float | None:
        """Return the median of the scores of a draft as the judges gave them; None without any."""
        given = [
            judgement.scores[draft] for judgement in self.judgements.values() if judgement and draft in judgement.scores
        ]
        return median(given) if given else None

    def is_decided(self) -> bool:
        """Return True once no missing judgement can change the winner."""
        missing = len([judge for judge in self._judges if judge not in self.judgements])
        scores = self._standard_scores()
        if any(not given for given in scores.values()):
            return not missing
        worst = {name: median([*given, *[-inf] * missing]) for name, given in scores.items()}
        best = {name: median([*given, *[inf] * missing]) for name, given in scores.items()}
        leader = max(worst, key=lambda name: worst[name])
        return all(worst[leader] > best[name] + _ROUNDING for name in scores if name != leader)

    def tally(self, chance: Random) -> Tally:
        """Return the count. A tie goes to the draft that more judges scored higher, else ``chance`` decides."""
        points = {name: median(given) if given else 0.0 for name, given in self._standard_scores().items()}
        read = [judgement for judgement in self.judgements.values() if judgement is not None]

        def wins(one: str, other: str) -> float:
            both = [judgement.scores for judgement in read if one in judgement.scores and other in judgement.scores]
            return sum((scores[one] > scores[other]) + (scores[one] == scores[other]) / 2 for scores in both)

        tally = _count(points, wins, chance)
        winner = str(tally.winner)
        seen = [judgement.scores for judgement in read if winner in judgement.scores]
        first = sum(scores[winner] >= max(scores.values()) for scores in seen)
        return attrs.evolve(
            tally,
            rule="scores",
            share=first / max(1, len([judge for judge in self._judges if judge != winner])),
            cast=len(read),
            empty=len(self.judgements) - len(read),
        )


class PairCount:
    """Counts comparisons of pairs: a draft that a judge prefers in both orders gets a point.

    A judge that changes its mind with the order gives half a point to each.

    Args:
        drafts: names of the drafts.
        comparisons: each judge with each pair that it is to compare.
    """

    def __init__(self, drafts: Sequence[str], comparisons: Sequence[tuple[str, frozenset[str]]]) -> None:
        self._drafts = drafts
        self._comparisons = comparisons
        self._choices: dict[tuple[str, frozenset[str]], dict[tuple[str, ...], str | None]] = {}

    def cast(self, judge: str, order: tuple[str, str], choice: str | None) -> None:
        """Count what a judge says of two drafts in one order: the better one, empty for a tie, None if unreadable."""
        self._choices.setdefault((judge, frozenset(order)), {})[order] = choice

    def judgements(self) -> list[Judgement]:
        """Return one judgement for each pair whose two orders could be read."""
        found = []
        for judge, pair in self._comparisons:
            choices = self._choices.get((judge, pair), {})
            if len(choices) < 2 or None in choices.values():
                continue
            first, second = choices.values()
            same = first == second
            one, other = sorted(pair)
            share = float(first == one) if same and first else 0.5
            found.append(Judgement(judge=judge, scores={one: share, other: 1 - share}, consistent=same))
        return found

    def first_slot_rate(self) -> float | None:
        """Return the share of choices that fell on the text that was shown first; None without any.

        Only pairs that were compared in both orders count: those that were ended early would distort it.
        """
        both = [orders for orders in self._choices.values() if len(orders) == 2]
        chosen = [choice == order[0] for orders in both for order, choice in orders.items() if choice]
        return fmean(chosen) if chosen else None

    def points(self) -> dict[str, float]:
        """Return the points of each draft so far."""
        points = dict.fromkeys(self._drafts, 0.0)
        for judgement in self.judgements():
            for name, share in judgement.scores.items():
                points[name] += share
        return points

    def is_decided(self) -> bool:
        """Return True once no missing choice can change the winner."""
        points = self.points()
        open_pairs = [pair for judge, pair in self._comparisons if len(self._choices.get((judge, pair), {})) < 2]
        leader = max(points, key=lambda name: points[name])
        return all(
            points[leader] > points[name] + sum(name in pair for pair in open_pairs) + _ROUNDING
            for name in points
            if name != leader
        )

    def tally(self, chance: Random) -> Tally:
        """Return the count. A tie goes to the draft that more judges preferred in pairs, else ``chance`` decides."""
        read = self.judgements()

        def wins(one: str, other: str) -> float:
            return sum(judgement.scores[one] for judgement in read if set(judgement.scores) == {one, other})

        tally = _count(self.points(), wins, chance)
        most = sum(tally.winner in pair for _, pair in self._comparisons)
        tried = sum(len(choices) == 2 for choices in self._choices.values())
        return attrs.evolve(
            tally,
            rule="pairs",
            share=tally.points[str(tally.winner)] / most if most else 0.0,
            cast=len(read),
            empty=tried - len(read),
        )


def _count(points: Mapping[str, float], wins: Callable[[str, str], float], chance: Random) -> Tally:
    """Return a count by the points of each draft.

    Args:
        points: the points.
        wins: returns how often judges preferred one draft to another; breaks ties.
        chance: breaks the ties that are left.
    """
    ordered = dict(sorted(points.items(), key=lambda entry: (-entry[1], entry[0])))
    first, second, *_ = [*ordered.values(), 0.0]
    tied = sorted(name for name, value in points.items() if value >= first - _ROUNDING)
    direct = dict.fromkeys(tied, 0.0)
    for one, other in combinations(tied, 2):
        direct[one] += wins(one, other)
        direct[other] += wins(other, one)
    level = [name for name in tied if direct[name] >= max(direct.values()) - _ROUNDING]
    is_tied = len(tied) > 1
    return Tally(
        winner=level[0] if len(level) == 1 else chance.choice(level),
        points=ordered,
        margin=first - second,
        tied=tied if is_tied else (),
        broken_by=("pairs" if len(level) == 1 else "seed") if is_tied else None,
    )
