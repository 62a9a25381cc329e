"""``Rank``: the seats rank each other's drafts, and the winning draft is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeAlias

import attrs

from llm_council.errors import InvalidOption
from llm_council.models import Critique, Phase
from llm_council.models._attrs import fraction, must_be, optional, strict_init
from llm_council.strategies._compared import with_answers_of_drafts
from llm_council.strategies._default_seats import default_chairs, default_drafters
from llm_council.strategies._rank_counts import ApprovalCount, BordaCount, CopelandCount, RankCount, read_approved
from llm_council.strategies.base import Ask, Reply, Roster, Steps, Strategy, Table, Verdict

__all__ = ["Rank"]

_SEATS = 3  # with fewer seats, each reviewer sees one draft, and there is nothing to rank

_rule = must_be("'borda', 'copeland' or 'approval'", lambda value: value in ("borda", "copeland", "approval"))

_APPROVE = """\
Which texts answer the task well enough to be used as they are? Check their claims and calculations yourself; that \
texts agree proves nothing. All may be good, and all may be bad. End with one line: "APPROVED:" and the labels of all \
good texts, or NONE."""

_Counted: TypeAlias = tuple[RankCount, int | None, int]
"""The count, the reviews after which it was decided (None if all were read), and the reviewers that failed."""


@strict_init
@attrs.frozen(kw_only=True)
class Rank(Strategy):
    """Let the seats rank each other's drafts, and return the winning draft unchanged.

    Reviews are cancelled once they cannot change the first place. Of drafts with equal points, the one with more
    second places wins, then the run's seed decides. With a schema, the author of the winning draft brings it into that
    form. Also known as ``vote``.

    Attributes:
        rule: how reviews are counted. ``"borda"`` counts places; ``"copeland"`` counts the other drafts that fewer
            reviewers put before a draft; ``"approval"`` asks which drafts are good enough, and all may be bad.
        abstain_below: with ``"approval"``, share of the reviewers of a draft below which the council abstains, such as
            0.5; None takes the draft with most approvals, even without any.
    """

    name: ClassVar[str] = "rank"

    rule: str = attrs.field(default="borda", validator=_rule)
    abstain_below: float | None = attrs.field(default=None, validator=optional(fraction))

    def plan(self, roster: Roster) -> Steps:
        """Let every seat draft and rank."""
        names = roster.names
        if len(names) < _SEATS:
            raise InvalidOption(
                f"the strategy 'rank' needs {_SEATS} seats or more to rank drafts, got {len(names)}: add seats, or"
                " choose another strategy"
            )
        approves = self.rule == "approval"
        if self.abstain_below is not None and not approves:
            raise InvalidOption(
                "rank: abstain_below needs rule='approval', where reviewers may call all drafts bad; a ranking always"
                " has a first place"
            )
        drafters = default_drafters(roster, names)
        # Without a schema, nobody writes an answer: the winning draft is it.
        writes = (Phase.SYNTHESISE,) if roster.schema is not None else ()
        does = "says which drafts are good" if approves else "ranks the drafts of others"
        return Steps(
            phases=(Phase.DRAFT, Phase.RANK, *writes, *roster.repairs),
            most_calls=2 * len(names) + (roster.most_writing_calls if writes else 0),
            drafters=drafters,
            reviewers=() if approves else names,
            asks={Phase.RANK: names} if approves else {},
            chairs=default_chairs(roster, drafters),
            chair_by_rank=True,
            notes=(f"every seat drafts and {does}; there is no chair",),
        )

    async def deliberate(self, table: Table) -> Verdict:
        """Draft, review and finish the winning draft."""
        if table.plan.rules == 0:  # a run that 0.1.0 stored ended its vote by another rule
            await table.draft_and_review(Phase.RANK, enough=table.is_decided)
            winner = table.ranking().order[0]
            (draft,) = [draft for draft in table.drafts if draft.seat == winner]
            return await table.finish(draft)
        count, decided_after, failed = await (self._approve if self.rule == "approval" else self._rank)(table)
        by_seed = table.random("tie").sample(sorted(count.drafts), len(count.drafts))
        if self.rule == "borda":  # the ranking of the run breaks ties by the seed, too: the two are to agree
            by_seed = list(table.ranking().order)
        tally = count.tally(by_seed, decided_after=decided_after, failed=failed)
        table.report(tally)
        if self.abstain_below is not None and tally.share < self.abstain_below:
            reason = (
                f"{tally.share:.0%} of its reviewers call the best draft good, and abstain_below is"
                f" {self.abstain_below:g}"
            )
            return with_answers_of_drafts(table, attrs.evolve(table.abstain(reason), tally=tally), "the reviewers")
        if tally.rule == "approval" and not any(tally.points.values()):
            table.note("no reviewer calls a draft good: the run's seed chose one")
        (draft,) = [draft for draft in table.drafts if draft.seat == tally.winner]
        verdict = attrs.evolve(await table.finish(draft), tally=tally, otherwise=_by_other_rules(count, by_seed))
        return with_answers_of_drafts(table, verdict, "the reviewers")

    async def _rank(self, table: Table) -> _Counted:
        """Let reviewers rank the drafts of others."""
        decided_after: int | None = None

        def counted(reviews: Sequence[Critique]) -> RankCount:
            drafts = [draft.seat for draft in table.drafts]
            # A seat whose draft failed is not asked for a ranking.
            absent = [name for name in table.plan.drafters if name not in drafts]
            reviewers = [name for name in table.plan.reviewers if name not in absent]
            count = (BordaCount if self.rule == "borda" else CopelandCount)(drafts, reviewers)
            for review in reviews:
                # A ranking that names one of several drafts compares nothing, and a failed reviewer ranked nothing.
                is_read = len(review.ranking) > 1 or len(review.labels) == 1
                count.cast(review.seat, review.ranking if is_read else None)
            return count

        def is_decided(reviews: Sequence[Critique]) -> bool:
            nonlocal decided_after
            count = counted(reviews)
            if decided_after is None and count.waiting and count.is_decided():
                decided_after = len(reviews)
            return count.is_decided()

        reviews = await table.draft_and_review(Phase.RANK, enough=is_decided)
        count = counted([review for review in reviews if review.error is None])
        failed = len(count.waiting) if decided_after is None else 0
        return count, decided_after, failed

    async def _approve(self, table: Table) -> _Counted:
        """Let reviewers say which drafts of others are good."""
        drafts = await table.draft()
        names = [draft.seat for draft in drafts]
        reviewers = list(dict.fromkeys(table.plan.asks[Phase.RANK]))
        count = ApprovalCount(names, reviewers)
        asks = []
        for reviewer in reviewers:
            others = [draft for draft in drafts if draft.seat != reviewer]
            # A seat whose draft failed would fail again.
            if others and not (reviewer in table.plan.drafters and reviewer not in names):
                asks.append(Ask(seat=reviewer, instructions=_APPROVE, show=others, phase=Phase.RANK))
        decided_after: int | None = None

        def is_decided(replies: Sequence[Reply]) -> bool:
            nonlocal decided_after
            for reply in replies:
                if reply.seat not in count.said and reply.error is None:
                    labels = read_approved(reply.text, reply.labels)
                    count.cast(reply.seat, None if labels is None else [reply.labels[label] for label in labels])
            is_settled = count.is_settled(self.abstain_below)
            if is_settled and decided_after is None and len(replies) < len(asks):
                decided_after = len(replies)
            return is_settled

        await table.ask_all(asks, enough=is_decided)
        return count, decided_after, len(count.waiting) if decided_after is None else 0


def _by_other_rules(count: RankCount, by_seed: Sequence[str]) -> dict[str, str | None]:
    """Return the rule -> author of the draft that wins if the same rankings are counted by the other rules."""
    found: dict[str, str | None] = {}
    for other in (BordaCount, CopelandCount):
        if not isinstance(count, ApprovalCount | other):
            same = other(count.drafts, count.reviewers)
            same.said = count.said
            found[other.rule] = same.tally(by_seed).winner
    return found
