"""``Escalate``: cheap seats answer first; expensive seats are asked only if these disagree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import fsum
from typing import Any, ClassVar

import attrs

from llm_council.errors import InvalidOption, QuorumLost, near
from llm_council.models import Agreement, AgreementLevel, AnswerKind, Draft, Phase, Rung
from llm_council.models._attrs import as_tuple, must_be, strict_init
from llm_council.strategies._answer_form import form_of
from llm_council.strategies._ballots import Ballots, reason_to_abstain
from llm_council.strategies._default_seats import default_chairs, default_drafters
from llm_council.strategies._plurality import Plurality
from llm_council.strategies.base import Roster, Steps, Strategy, Table, Verdict
from llm_council.strategies.revise import Revise

__all__ = ["Escalate"]

_FIRST = 2
"""Seats of the first rung: one seat cannot agree with anybody."""


def _as_rungs(value: Iterable[Any] | None) -> tuple[tuple[Any, ...], ...]:
    return tuple(as_tuple(rung) for rung in as_tuple(value))


_settle = must_be("'unanimous' or 'majority'", lambda value: value in ("unanimous", "majority"))
_last = must_be("'poll' or 'revise'", lambda value: value in ("poll", "revise"))


@strict_init
@attrs.frozen(kw_only=True)
class Escalate(Strategy):
    """Ask the seats in groups, the cheap ones first, and stop once a group agrees.

    The drafts of earlier groups stay votes. This bounds the cost. If the first seats make the same mistake, no further
    seat is asked. What is compared follows from the schema, as in ``Poll``. Within a group every seat is waited for,
    because its draft is a vote in the next one.

    Attributes:
        rungs: names of seats in groups, in the order in which they are asked, the cheapest first. Empty makes the first
            two seats one group and all others the next.
        settle: when no further group is asked: ``"unanimous"`` if all seats so far give the same answer,
            ``"majority"`` if more than half do.
        last: what happens if the last group does not agree: ``"poll"`` counts all drafts, ``"revise"`` lets the seats
            see each other's answers first, as ``Revise`` does.
        vote_on: parts of the answer that are compared, as paths: ``("$.verdict",)``.
    """

    name: ClassVar[str] = "escalate"

    rungs: tuple[tuple[str, ...], ...] = attrs.field(default=(), converter=_as_rungs)
    settle: str = attrs.field(default="unanimous", validator=_settle)
    last: str = attrs.field(default="poll", validator=_last)
    vote_on: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)

    def plan(self, roster: Roster) -> Steps:
        """Divide the seats into groups."""
        rungs = self._rungs(default_drafters(roster, roster.names))
        drafters = tuple(name for name in roster.names if any(name in rung for rung in rungs))
        form = form_of(roster.schema, self.vote_on)
        is_shaped = roster.schema is not None and form.kind == AnswerKind.TEXT
        revising = drafters if self.last == "revise" else ()
        return Steps(
            phases=(
                Phase.DRAFT,
                *((Phase.REVISE,) if revising else ()),
                *((Phase.SYNTHESISE,) if is_shaped else ()),
                *(roster.repairs if is_shaped else ()),
            ),
            most_calls=len(drafters) + len(revising) + (roster.most_writing_calls if is_shaped else 0),
            drafters=drafters,
            drafts_by_schema=form.kind == AnswerKind.JSON,
            chairs=default_chairs(roster, drafters),
            chair_by_rank=True,
            asks={Phase.REVISE: revising} if revising else {},
            notes=(f"the seats vote on {form.subject}", *_notes(roster, rungs)),
        )

    def _rungs(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the groups.

        Raises:
            InvalidOption: they cannot be used with these seats.
        """
        rungs = [rung for rung in self.rungs if rung] or [tuple(names[:_FIRST]), tuple(names[_FIRST:])]
        asked = [name for rung in rungs for name in rung]
        for name in asked:
            if name not in names:
                raise InvalidOption(f"rungs: no seat that drafts is named {name!r:.80}{near(str(name), names)}")
            if asked.count(name) > 1:
                raise InvalidOption(f"rungs: {name} is in two groups: drafts of earlier groups are votes in later ones")
        if len(rungs) < 2 or not rungs[1] or len(rungs[0]) < _FIRST:
            raise InvalidOption(
                "the strategy 'escalate' needs a first group of two seats or more, and a further one: add seats, or use"
                " 'poll'"
            )
        return rungs

    async def deliberate(self, table: Table) -> Verdict:
        """Ask group after group until one agrees, and count."""
        form = form_of(table.plan.schema, self.vote_on)
        vote = Ballots(form, ())
        drafts: tuple[Draft, ...] = ()
        climbed: list[Rung] = []
        tally = vote.count(drafts).tally(table.random("tie"))
        rungs = self._rungs(table.plan.drafters)
        for number, rung in enumerate(rungs, 1):
            vote.seats = [*vote.seats, *rung]
            try:
                drafts = await table.draft(vote.seats, instructions=form.instruction)
            except QuorumLost:  # of the seats so far; the next ones may answer
                if number == len(rungs):
                    raise
            given = {draft.seat for draft in drafts}
            count = vote.count(drafts, [seat for seat in vote.seats if seat not in given])
            tally = count.tally(table.random("tie"))
            agreement = Plurality.agreement(tally)
            is_settled = self._is_settled(agreement) and len(drafts) >= (table.budget.quorum or 1)
            climbed.append(_rung(rung, drafts, agreement, is_settled=is_settled, is_last=number == len(rungs)))
            table.record(climbed[-1])
            if is_settled:
                break
        if self.last == "revise" and not climbed[-1].is_settled:
            table.report(tally, agreement=climbed[-1].agreement)
            verdict = await Revise(vote_on=self.vote_on).deliberate(table.child("last"))
            return attrs.evolve(verdict, rungs=climbed)
        if len(climbed) < len(rungs):
            tally = attrs.evolve(tally, decided_after=len(vote.seats))
        facts = vote.facts(tally, drafts) | {
            "rungs": tuple(climbed),
            "spared": self._spared([name for rung in rungs[len(climbed) :] for name in rung], table.plan.drafters),
        }
        table.report(tally, agreement=facts["agreement"], dissent=facts["dissent"])
        reason = reason_to_abstain(tally, None)
        if reason is not None:
            return attrs.evolve(table.abstain(reason), **facts)
        winner = vote.spokesman(tally.winner, drafts)
        # A text that stands for an object is brought into the form of the schema; any other value has it already.
        value = None if form.kind == AnswerKind.TEXT else vote.answers[winner.name].value
        return attrs.evolve(await table.finish(winner, value=value), **facts)

    def _spared(self, not_asked: Sequence[str], drafters: Sequence[str]) -> tuple[str, ...]:
        """Return the calls that were not needed: the drafts of later groups, and with them the last revision."""
        return (*not_asked, *(drafters if self.last == "revise" else ()))

    def _is_settled(self, agreement: Agreement) -> bool:
        if self.settle == "majority":
            return agreement.level in (AgreementLevel.MAJORITY, AgreementLevel.UNANIMOUS)
        return agreement.level == AgreementLevel.UNANIMOUS


def _rung(
    seats: Sequence[str], drafts: Sequence[Draft], agreement: Agreement, *, is_settled: bool, is_last: bool
) -> Rung:
    """Return the report on a group: ``drafts`` are all so far, ``agreement`` is that of all seats so far."""
    costs = [draft.response.cost for draft in drafts if draft.seat in seats and draft.response is not None]
    known = [cost.usd for cost in costs if cost is not None and cost.usd is not None]
    share = f"{agreement.level}, with a share of {agreement.share:.2f}"
    if is_settled:
        reason = f"the seats so far agree: {share}"
    else:
        then = "no group is left" if is_last else "the next group is asked"
        reason = f"the seats so far do not agree: {share}; {then}"
    usd = fsum(known) if known and len(known) == len(costs) else None
    return Rung(seats=seats, agreement=agreement, usd=usd, is_settled=is_settled, reason=reason)


def _notes(roster: Roster, rungs: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"{', then '.join(' and '.join(rung) for rung in rungs)}, until the seats agree"
    provider = {seat.name: (seat.provider, seat.model) for seat in roster.seats}
    if len({provider[name] for name in rungs[0]}) == 1:
        yield "the first seats are of one model: they may be wrong together"
