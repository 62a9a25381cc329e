"""``Sample``: one seat answers several times, and the answer that it gives most often wins."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import ClassVar

import attrs

from llm_council.errors import InvalidOption, QuorumLost
from llm_council.models import AnswerKind, Draft, Phase
from llm_council.models._attrs import as_tuple, is_int, is_number, must_be, strict_init
from llm_council.strategies._answer_form import form_of
from llm_council.strategies._ballots import Ballots, reason_to_abstain
from llm_council.strategies._default_seats import default_drafters, resting
from llm_council.strategies.base import Roster, Steps, Strategy, Table, Verdict

__all__ = ["Sample"]

_several = must_be("a whole number of 2 or more", lambda value: is_int(value) and value >= 2)
_probability = must_be("a number above 0.5, at most 1", lambda value: is_number(value) and 0.5 < value <= 1)


@strict_init
@attrs.frozen(kw_only=True)
class Sample(Strategy):
    """Ask one seat the same question several times, and return the answer that it gives most often.

    This is self-consistency (Wang et al. 2022, arXiv 2203.11171). It needs a temperature above 0, which is the default
    of most vendors. The seat is the chair that the caller names, else the first one; the next one replaces it if it
    gives no draft at all. What is compared follows from the schema, as in ``Poll``.

    Attributes:
        k: the most drafts, 2 or more.
        stop: no more drafts are asked for once the leading answer stays ahead of the second with this probability
            (Adaptive-Consistency, arXiv 2305.11860): with 0.95, after four equal answers. 1 ends only where the drafts
            that are left cannot change the winner.
        vote_on: parts of the answer that are compared, as paths: ``("$.verdict",)``.
    """

    name: ClassVar[str] = "sample"

    k: int = attrs.field(default=5, validator=_several)
    stop: float = attrs.field(default=0.95, validator=_probability)
    vote_on: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)

    def plan(self, roster: Roster) -> Steps:
        """Choose the seat."""
        if (roster.quorum or 1) > 1:
            raise InvalidOption(
                f"the strategy 'sample' asks one seat, so a quorum of {roster.quorum} cannot be reached: lower it, or"
                " choose another strategy"
            )
        form = form_of(roster.schema, self.vote_on)
        chosen = default_drafters(roster, (roster.chair or roster.names[0],))[:1]
        is_shaped = roster.schema is not None and form.kind == AnswerKind.TEXT
        # Each other seat may replace one that fails; a seat is given up if none of its first drafts succeeds.
        most_drafts = self.k + (len(roster.names) - 1) * self._next_drafts([], self.k)
        return Steps(
            phases=(
                Phase.DRAFT,
                *((Phase.SYNTHESISE,) if is_shaped else ()),
                *(roster.repairs if is_shaped else ()),
            ),
            most_calls=most_drafts + (roster.most_writing_calls if is_shaped else 0),
            drafters=chosen,
            samples=self.k,
            drafts_by_schema=form.kind == AnswerKind.JSON,
            chairs=(*chosen, *resting(roster, chosen)),
            notes=(f"{chosen[0]} drafts up to {self.k} times; its drafts vote on {form.subject}",),
        )

    async def deliberate(self, table: Table) -> Verdict:
        """Ask the seat until its answers are settled, and count."""
        plan = table.plan
        if plan.temperature_of(plan.seat(plan.chairs[0])) == 0:
            table.note("the drafts of one seat hardly differ with a temperature of 0")
        for seat in plan.chairs:
            try:
                return await self._ask(table, seat)
            except QuorumLost:
                if seat == plan.chairs[-1]:
                    raise
        raise AssertionError("a plan has a seat")

    async def _ask(self, table: Table, seat: str) -> Verdict:
        vote = Ballots(form_of(table.plan.schema, self.vote_on), ())
        names = [Draft(seat=seat, number=number).name for number in range(1, self.k + 1)]
        asked, more = 0, self._next_drafts([], self.k)
        drafts: tuple[Draft, ...] = ()
        count = vote.count(drafts)
        while more:
            asked += more
            drafts = await table.draft([seat], samples=asked, instructions=vote.form.instruction)
            given = {draft.name for draft in drafts}
            vote.seats = names[:asked]
            count = vote.count(drafts, [name for name in vote.seats if name not in given])
            more = self._next_drafts(list(count.standing().values()), self.k - asked)
        tally = count.tally(table.random("tie"), decided_after=asked if asked < self.k else None)
        facts = vote.facts(tally, drafts) | {"spared": (seat,) * (self.k - asked)}
        table.report(tally, agreement=facts["agreement"], dissent=facts["dissent"])
        reason = reason_to_abstain(tally, None)
        if reason is not None:
            return attrs.evolve(table.abstain(reason), **facts)
        winner = vote.spokesman(tally.winner, drafts)
        # A text that stands for an object is brought into the form of the schema; any other value has it already.
        value = None if vote.form.kind == AnswerKind.TEXT else vote.answers[winner.name].value
        return attrs.evolve(await table.finish(winner, value=value), **facts)

    def _next_drafts(self, votes: Sequence[float], left: int) -> int:
        """Return how many drafts to ask for at once; 0 if the answers are settled.

        It is the smallest number of drafts that can settle the answers. Asking one by one would take as many drafts.

        Args:
            votes: drafts of each answer, the largest first.
            left: drafts that may still be asked for.
        """
        first, second, *_ = [*map(int, votes), 0, 0]
        for more in range(left):
            if self._is_settled(first + more, second, left - more):
                return more
        return left

    def _is_settled(self, first: int, second: int, left: int) -> bool:
        if first - second > left:
            return True
        # The probability that a fair draw of the two answers' shares, given their counts, has the first one ahead.
        trials = first + second + 1
        chance: float = sum(comb(trials, ahead) for ahead in range(first + 1)) / 2**trials
        return chance >= self.stop
