"""Reading and tallying rankings. Code counts, never a model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from llm_council._engine.fences import joined
from llm_council.models import Plan, Ranking

__all__ = ["decided", "read_ranking", "tally", "tie_order"]

_LINE = re.compile(r"^[\s>*_#\-]*(?:final\s+)?ranking\b[\s*_]*[:=\-]+(?P<rest>.*)$", re.IGNORECASE | re.MULTILINE)
_LIST = re.compile(r'"ranking"\s*:\s*(\[[^\[\]]*\])', re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")


def read_ranking(text: str, labels: Collection[str]) -> tuple[str, ...]:
    """Find the ranking in a reviewer's words: the last one that can be read.

    A JSON ``"ranking": [...]`` is taken, and so is a line such as ``RANKING: B > A``. Words that are no label are
    skipped, a label counts where it stands first, and labels may be missing: a partial ranking is one.

    Args:
        text: what the reviewer said, without its thinking.
        labels: the labels of the drafts that it saw.

    Returns:
        Labels, the best first; empty when there is no ranking that can be read.
    """
    for found in reversed([*_LIST.finditer(text)]):
        try:
            items = json.loads(found[1])
        except ValueError:
            continue
        if order := _known((str(item) for item in items), labels):
            return order
    for line in reversed([*_LINE.finditer(text)]):
        rest = line["rest"] if line["rest"].strip(" *_") else _next_line(text, line.end())
        if order := _known((rest,), labels):
            return order
    return ()


def _next_line(text: str, start: int) -> str:
    return text[start:].lstrip().partition("\n")[0]


def _known(texts: Iterable[str], labels: Collection[str]) -> tuple[str, ...]:
    order = dict.fromkeys(word for text in texts for word in _WORD.findall(text) if word in labels)
    return tuple(order)


def tie_order(plan: Plan, seats: Iterable[str]) -> list[str]:
    """Sort seats so that the first of tied ones wins the tie: by the run's seed, whatever order they are given in.

    A seat's place depends on the seed and the names alone, so two seats keep their order whichever others are ranked. A
    plan that was stored before ties were broken by the seed keeps the given order, so that its run can be replayed.
    """
    if not plan.ties_by_seed:
        return list(seats)
    return sorted(seats, key=lambda seat: hashlib.blake2b(joined(plan.seed, "tie", seat), digest_size=16).digest())


def tally(rankings: Iterable[Sequence[str]], seats: Sequence[str]) -> Ranking:
    """Add up rankings by Borda's count.

    In a ranking of ``n`` seats the first gets ``n - 1`` points, the next one less, down to 0. A ranking may leave seats
    out, its author for one; so a seat's points are divided by the most it could have got from the rankings that hold
    it, and a seat that nobody reviewed neither gains nor loses by it. Ties go to the seat that comes first in
    ``seats``.

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


def decided(
    rankings: Iterable[Sequence[str]], seats: Sequence[str], missing: Mapping[str, Collection[str]]
) -> str | None:
    """Name the seat that leads whatever the missing reviewers say, or None while the lead can change.

    Args:
        rankings: the rankings so far.
        seats: the seats to rank, in the order of ``tie_order``.
        missing: for each reviewer that has not answered, the seats that it was shown.

    Returns:
        The leader's name once no ranking of the missing reviewers, partial and empty ones included, can change it.
    """
    if not seats:
        return None
    won, possible = _count(rankings, seats)
    low, high = {}, {}
    for seat in seats:
        most = sum(len(shown) - 1 for shown in missing.values() if seat in shown)
        total = possible[seat] + most
        # Worst: every missing reviewer puts it last. Best: first. A partial or unreadable ranking lies between the two.
        low[seat] = won[seat] / total if total else 0.0
        high[seat] = (won[seat] + most) / total if total else 0.0
    for place, seat in enumerate(seats):
        before, after = seats[:place], seats[place + 1 :]
        if all(low[seat] > high[other] for other in before) and all(low[seat] >= high[other] for other in after):
            return seat
    return None
