"""``Judge``: seats judge drafts of others, by scores or in pairs, and the best draft is the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb
from statistics import fmean
from typing import Any, ClassVar

import attrs

from llm_council.errors import InvalidOption, near
from llm_council.models import Draft, Judgement, Phase
from llm_council.models._attrs import as_tuple, is_number, must_be, optional, strict_init
from llm_council.strategies._compared import with_answers_of_drafts
from llm_council.strategies._default_seats import default_chairs, default_drafters, resting
from llm_council.strategies._judgements import PairCount, ScoreCount, read_better, read_scores
from llm_council.strategies.base import Ask, Reply, Roster, Steps, Strategy, Table, Verdict

__all__ = ["Judge"]

_MOST_IN_PAIRS = 4
"""Drafts that are compared in pairs at most: the calls grow with their square."""

_mode = must_be("'score' or 'pair'", lambda value: value in ("score", "pair"))
_score = must_be("a number from 0 to 10", lambda value: is_number(value) and 0 <= value <= 10)

_SCORE = """\
Judge each text as an answer to the task. Check its claims and calculations yourself; length and style are no merits. \
Give it a whole number from 0 (wrong or useless) to 10 (right and complete){criteria}. Several texts may be bad. \
End with one line for each text, such as "SCORE A: {example}"."""

_PAIR = """\
Which text answers the task better? Check the claims and calculations of both yourself; length, style and order are no \
merits. End with one line: "BETTER:" and the label of the better text, or TIE."""


@strict_init
@attrs.frozen(kw_only=True)
class Judge(Strategy):
    """Let seats judge the drafts of others, and return the best draft unchanged.

    All seats draft, and each judges the drafts of the others, unless ``judges`` names seats that judge alone. They do
    not see who wrote a draft. With a schema, the author of the best draft brings it into that form.

    Attributes:
        mode: ``"score"`` asks each judge once for a score of each draft, and takes the median over judges of standard
            scores. ``"pair"`` asks each judge for the better draft of every pair, in both orders; a judge whose choice
            depends on the order gives half a point to each. It takes more calls, and no draft gains by being first.
        judges: names of seats that judge and do not draft, if possible of another vendor than those that draft. Empty
            lets all seats draft and judge.
        criteria: what each draft gets a score from 0 to 10 for; its score is their mean. Empty asks for one score.
        floor: median score of the best draft below which the council abstains, with ``mode="score"``; from 0 to 10.
    """

    name: ClassVar[str] = "judge"

    mode: str = attrs.field(default="score", validator=_mode)
    judges: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    criteria: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    floor: float | None = attrs.field(default=None, validator=optional(_score))

    def plan(self, roster: Roster) -> Steps:
        """Let seats draft, and those that rest judge; if none rests, all."""
        for name in self.judges:
            if name not in roster.names:
                raise InvalidOption(f"judges: no seat is named {name!r:.80}{near(str(name), roster.names)}")
        drafters = default_drafters(roster, tuple(name for name in roster.names if name not in self.judges))
        judges = resting(roster, drafters) or drafters
        seen = len(drafters) - (judges == drafters)
        if seen < 2:
            raise InvalidOption(
                f"the strategy 'judge' needs a judge that sees two drafts of others, and of {len(roster.names)} seats"
                f" {len(drafters)} draft: use three seats or more, or name fewer judges"
            )
        if self.mode == "pair" and len(drafters) > _MOST_IN_PAIRS:
            raise InvalidOption(
                f"judge: mode 'pair' compares up to {_MOST_IN_PAIRS} drafts, got {len(drafters)} drafters: name fewer"
                " drafters, or use the mode 'score'"
            )
        if self.mode == "pair" and self.floor is not None:
            raise InvalidOption("judge: pairs have no score, so 'floor' needs the mode 'score'")
        each = 1 if self.mode == "score" else 2 * comb(seen, 2)
        asked = tuple(name for name in judges for _ in range(each))
        writes = (Phase.SYNTHESISE,) if roster.schema is not None else ()
        return Steps(
            phases=(Phase.DRAFT, Phase.JUDGE, *writes, *roster.repairs),
            # A seat that rests may draft in place of another one.
            most_calls=len(roster.names) + len(asked) + (roster.most_writing_calls if writes else 0),
            drafters=drafters,
            chairs=default_chairs(roster, drafters),
            chair_by_rank=True,
            asks={Phase.JUDGE: asked},
            notes=tuple(_notes(roster, drafters, judges)),
        )

    async def deliberate(self, table: Table) -> Verdict:
        """Draft, judge and finish the best draft."""
        drafts = await table.draft()
        failed = [seat for seat in table.plan.drafters if seat not in {draft.seat for draft in drafts}]
        judges = dict.fromkeys(table.plan.asks[Phase.JUDGE])
        # A seat whose draft failed would fail again.
        able = [seat for seat in judges if seat not in failed] or list(judges)
        if self.mode == "score":
            scored = await self._score(table, drafts, able)
            count: ScoreCount | PairCount = scored
            judgements = [judgement for judgement in scored.judgements.values() if judgement is not None]
        else:
            count = await self._compare(table, drafts, able)
            judgements = count.judgements()
        for judgement in judgements:
            table.record(judgement)
        tally = count.tally(table.random("tie"))
        table.report(tally)
        facts: dict[str, Any] = {
            "otherwise": _by_single_judges(able, judgements),
            "tally": tally,
            "judgements": tuple(judgements),
            "bias": _bias(table, judgements),
        }
        if isinstance(count, PairCount):
            first = count.first_slot_rate()
            if first is not None:
                facts["bias"]["first_slot_rate"] = first
        elif self.floor is not None:
            best = max((count.raw_median(draft.seat) or 0.0 for draft in drafts), default=0.0)
            if best < self.floor:
                reason = f"the best draft has the median score {best:g}, and floor is {self.floor:g}"
                return with_answers_of_drafts(table, attrs.evolve(table.abstain(reason), **facts), "the judges")
        if not judgements and len(drafts) > 1:
            table.note("no draft was judged: the run's seed chose one")
        (winner,) = [draft for draft in drafts if draft.seat == tally.winner]
        return with_answers_of_drafts(table, attrs.evolve(await table.finish(winner), **facts), "the judges")

    async def _score(self, table: Table, drafts: Sequence[Draft], judges: Sequence[str]) -> ScoreCount:
        """Ask each judge for a score of each draft but its own."""
        count = ScoreCount([draft.seat for draft in drafts], judges)
        named = f", one each for {', '.join(self.criteria)}, in this order" if self.criteria else ""
        example = ", ".join(["7", "9", *["8"] * len(self.criteria)][: max(1, len(self.criteria))])
        asks = []
        for judge in judges:
            others = [draft for draft in drafts if draft.seat != judge]
            words = _SCORE.format(criteria=named, example=example)
            if len(others) > 1:
                asks.append(Ask(seat=judge, instructions=words, show=others, phase=Phase.JUDGE))

        def is_decided(replies: Sequence[Reply]) -> bool:
            for reply in replies:
                if reply.seat not in count.judgements:
                    scores = read_scores(reply.text, reply.labels, max(1, len(self.criteria)))
                    by_author = {reply.labels[label]: score for label, score in (scores or {}).items()}
                    count.cast(reply.seat, Judgement(judge=reply.seat, scores=by_author) if by_author else None)
            return self.floor is None and count.is_decided()

        await table.ask_all(asks, enough=is_decided)
        return count

    async def _compare(self, table: Table, drafts: Sequence[Draft], judges: Sequence[str]) -> PairCount:
        """Ask each judge for the better draft of every pair of drafts of others, in both orders."""
        asks, comparisons = [], []
        for judge in judges:
            others = [draft for draft in drafts if draft.seat != judge]
            for one, other in combinations(others, 2):
                comparisons.append((judge, frozenset((one.seat, other.seat))))
                asks += [
                    Ask(seat=judge, instructions=_PAIR, show=shown, phase=Phase.JUDGE, in_order=True)
                    for shown in ((one, other), (other, one))
                ]
        count = PairCount([draft.seat for draft in drafts], comparisons)

        def is_decided(replies: Sequence[Reply]) -> bool:
            for reply in replies:
                first, second = reply.labels.values()
                label = read_better(reply.text, reply.labels)
                count.cast(reply.seat, (first, second), reply.labels.get(label, "") if label is not None else None)
            return count.is_decided()

        await table.ask_all(asks, enough=is_decided)
        return count


def _notes(roster: Roster, drafters: Sequence[str], judges: Sequence[str]) -> Iterator[str]:
    yield f"{', '.join(judges)} judge{'s' if len(judges) == 1 else ''} the drafts of {', '.join(drafters)}"
    provider = {seat.name: seat.provider for seat in roster.seats}
    if any(provider[judge] == provider[author] for judge in judges for author in drafters if judge != author):
        yield "judges and authors share a provider: models prefer texts of their own family"


def _by_single_judges(judges: Sequence[str], judgements: Sequence[Judgement]) -> dict[str, str | None]:
    """Return the author of the draft that each judge alone would choose; None if it prefers none."""
    found: dict[str, str | None] = {}
    for judge in judges:
        sums: dict[str, float] = {}
        for judgement in judgements:
            if judgement.judge == judge:
                for author, score in judgement.scores.items():
                    sums[author] = sums.get(author, 0.0) + score
        best = [author for author, score in sums.items() if score == max(sums.values())]
        found[f"judge:{judge}"] = best[0] if len(best) == 1 else None
    return found


def _bias(table: Table, judgements: Sequence[Judgement]) -> dict[str, float]:
    """Return how far judgements depend on order and provider of drafts; what cannot be computed is left out."""
    found: dict[str, float] = {}
    pairs = [judgement.consistent for judgement in judgements if judgement.consistent is not None]
    if pairs:
        found["flip_rate"] = fmean(not same for same in pairs)
    provider = {seat.name: seat.provider for seat in table.plan.seats}
    own: list[float] = []
    others: list[float] = []
    for judgement in judgements:
        for author, score in judgement.scores.items():
            (own if provider[author] == provider[judgement.judge] else others).append(score)
    if own and others:
        found["own_family_margin"] = fmean(own) - fmean(others)
    return found
