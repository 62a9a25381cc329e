"""``Revise``: seats answer alone, see what the others answer, and may change their minds; then they vote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs

from llm_council.errors import InvalidOption
from llm_council.models import Answer, AnswerKind, Draft, Flip, Phase, Round, Tally
from llm_council.models._attrs import as_tuple, boolean, fraction, is_int, must_be, optional, strict_init
from llm_council.strategies._answer_form import form_of
from llm_council.strategies._ballots import Ballots, reason_to_abstain
from llm_council.strategies._default_seats import default_chairs, default_drafters
from llm_council.strategies.base import Ask, Reply, Roster, Steps, Strategy, Table, Verdict

__all__ = ["Revise"]

_GAINED = 2
"""Seats that another answer must win over before it replaces that of the first majority."""

_rounds = must_be("a whole number from 1 to 3", lambda value: is_int(value) and 1 <= value <= 3)
_topology = must_be("'all' or 'ring'", lambda value: value in ("all", "ring"))

_QUESTION = """\
The texts are answers to the task, and they differ. Name the first step in which they differ, check it yourself, and \
then answer the task completely. That several agree proves nothing. Do not mention the texts in the answer itself."""


@strict_init
@attrs.frozen(kw_only=True)
class Revise(Strategy):
    """Let every seat answer alone, show them the different answers if they disagree, and vote on the revised ones.

    A seat sees one text for each different answer, its own among them, and neither who wrote them nor how many gave
    them. A seat whose revision fails or cannot be read keeps its answer. What is compared follows from the schema, as
    in ``Poll``. Nothing is revised if the seats agree. Every seat is waited for, unlike in a poll: whether all agree,
    and what the others are shown, depends on each answer.

    Attributes:
        rounds: the most rounds of revision, from 1 to 3. A round that changes nothing, or brings back an earlier state,
            is the last.
        topology: whose answers a seat sees: ``"all"``, or ``"ring"`` for its own and those of its two neighbours, which
            takes fewer tokens.
        anchor: True keeps the answer of the first majority unless another one won over two seats and lost none of those
            that had it: a guard against seats that give in to each other. False lets the last votes decide.
        vote_on: parts of the answer that are compared, as paths: ``("$.verdict",)``.
        abstain_below: share of all seats, from 0 to 1, below which the council abstains; None abstains only if no
            answer can be read.
    """

    name: ClassVar[str] = "revise"

    rounds: int = attrs.field(default=1, validator=_rounds)
    topology: str = attrs.field(default="all", validator=_topology)
    anchor: bool = attrs.field(default=True, validator=boolean)
    vote_on: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    abstain_below: float | None = attrs.field(default=None, validator=optional(fraction))

    def plan(self, roster: Roster) -> Steps:
        """Let every seat draft, and revise its draft."""
        drafters = default_drafters(roster, roster.names)
        if len(drafters) < 2:
            raise InvalidOption(
                f"the strategy 'revise' needs 2 seats or more that draft, got {len(drafters)}: add seats, or use"
                " 'single'"
            )
        form = form_of(roster.schema, self.vote_on)
        is_shaped = roster.schema is not None and form.kind == AnswerKind.TEXT
        revising = drafters * self.rounds
        return Steps(
            phases=(
                Phase.DRAFT,
                Phase.REVISE,
                *((Phase.SYNTHESISE,) if is_shaped else ()),
                *(roster.repairs if is_shaped else ()),
            ),
            # Other seats may draft in place of those that fail.
            most_calls=len(roster.names) + len(revising) + (roster.most_writing_calls if is_shaped else 0),
            drafters=drafters,
            drafts_by_schema=form.kind == AnswerKind.JSON,
            chairs=default_chairs(roster, drafters),
            chair_by_rank=True,
            asks={Phase.REVISE: revising},
            notes=(f"the seats vote on {form.subject}", "seats that disagree see the other answers, and may revise"),
        )

    async def deliberate(self, table: Table) -> Verdict:
        """Draft, revise while seats disagree, and count."""
        form = form_of(table.plan.schema, self.vote_on)
        vote = Ballots(form, table.plan.drafters, by_seat=True)
        first = await table.draft(instructions=form.instruction)
        failed = [seat for seat in vote.seats if seat not in {draft.seat for draft in first}]
        opening = vote.count(first, failed).tally(table.random("tie"))
        latest = {draft.seat: draft for draft in first}
        written: dict[str, Draft | Reply] = {draft.name: draft for draft in first}
        rounds = [Round(number=0, answers=vote.answers_of(first))]
        table.record(rounds[0])
        states = [_keys(rounds[0])]
        while len(rounds) <= self.rounds and len(set(states[-1].values())) > 1:
            number = len(rounds)
            for reply in await table.ask_all(self._asks(table, vote, latest, number)):
                revised = Draft(seat=reply.seat, number=number + 1, response=reply.response, error=reply.error)
                if reply.error is None and vote.read(revised) is not None:
                    latest[reply.seat] = revised
                    written[revised.name] = reply
            rounds.append(_next_round(rounds[-1], vote.answers_of(list(latest.values()))))
            table.record(rounds[-1])
            if _keys(rounds[-1]) in states:
                break
            states.append(_keys(rounds[-1]))
        last = list(latest.values())
        tally = vote.count(last, failed).tally(table.random("tie"))
        voted = last
        if self.anchor and not self._may_replace(opening, tally, states[0], _keys(rounds[-1])):
            tally, voted = attrs.evolve(opening, rule="anchor"), list(first)
        facts = vote.facts(tally, voted)
        facts["dissent"] = vote.facts(tally, last)["dissent"]
        table.report(tally, agreement=facts["agreement"], dissent=facts["dissent"])
        facts["otherwise"] = vote.facts(opening, first)["otherwise"]
        facts["rounds"] = tuple(rounds)
        facts["spared"] = tuple(latest) * (self.rounds + 1 - len(rounds))
        reason = reason_to_abstain(tally, self.abstain_below)
        if reason is not None:
            return attrs.evolve(table.abstain(reason), **facts)
        winner = vote.spokesman(tally.winner, voted)
        # A text that stands for an object is brought into the form of the schema; any other value has it already.
        value = None if form.kind == AnswerKind.TEXT else vote.answers[winner.name].value
        return attrs.evolve(await table.finish(written[winner.name], value=value), **facts)

    def _asks(self, table: Table, vote: Ballots, latest: Mapping[str, Draft], number: int) -> list[Ask]:
        """Return the questions of a round: each seat sees one text for each different answer."""
        seats = list(latest)
        asks = []
        for place, seat in enumerate(seats):
            seen = seats
            if self.topology == "ring":
                seen = [seats[place - 1], seat, seats[(place + 1) % len(seats)]]
            answers = vote.answers_of([latest[name] for name in dict.fromkeys(seen)])
            shown = [
                vote.spokesman(key, list(latest.values())) for key in dict.fromkeys(one.key for one in answers.values())
            ]
            asks.append(
                Ask(
                    seat=seat,
                    instructions="\n".join(filter(None, (_QUESTION, vote.form.instruction))),
                    show=shown,
                    phase=Phase.REVISE,
                    round=number,
                    schema=vote.form.kind == AnswerKind.JSON,
                )
            )
        return asks

    @staticmethod
    def _may_replace(opening: Tally, last: Tally, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
        """Return True if there was no first majority, or if the last winner may replace its answer."""
        if opening.winner == last.winner or opening.share <= 1 / 2:
            return True
        had = {seat for seat, key in before.items() if key == last.winner}
        has = {seat for seat, key in after.items() if key == last.winner}
        return had <= has and len(has - had) >= _GAINED


def _keys(one: Round) -> dict[str, str]:
    return {seat: answer.key for seat, answer in one.answers.items()}


def _next_round(before: Round, answers: Mapping[str, Answer]) -> Round:
    flips = []
    for seat, answer in answers.items():
        old = before.answers.get(seat)
        if old is None or old.key != answer.key:
            flips.append(Flip(seat=seat, old=None if old is None else old.shown, new=answer.shown))
    return Round(number=before.number + 1, answers=answers, flips=flips)
