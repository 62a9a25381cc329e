"""``Poll``: every seat answers alone, and the answer that most of them give wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs

from llm_council.errors import InvalidOption, near
from llm_council.models import AnswerKind, Draft, Phase
from llm_council.models._attrs import as_dict, as_tuple, fraction, is_number, must_be, optional, strict_init
from llm_council.strategies._answer_form import form_of
from llm_council.strategies._ballots import Ballots, reason_to_abstain
from llm_council.strategies._default_seats import default_chairs, default_drafters
from llm_council.strategies.base import Roster, Steps, Strategy, Table, Verdict

__all__ = ["Poll"]

_SEATS = 2  # one seat has nobody to agree with

_weights = must_be(
    "weights of seats by name, each a number of 0 or more, and one above 0",
    lambda weights: all(is_number(w) and w >= 0 for w in weights.values()) and any(weights.values()),
)


@strict_init
@attrs.frozen(kw_only=True)
class Poll(Strategy):
    """Let every seat answer alone, and return the answer that most of them give.

    What is compared follows from the schema: a number, yes or no, one of listed values; parts of an object that
    ``vote_on`` names; else the line "ANSWER:" that each draft ends with. The seats that have not answered are cancelled
    once they cannot change the outcome.

    Attributes:
        vote_on: parts of the answer that are compared, as paths: ``("$.verdict",)``. The seats then answer by the
            schema at once, and the winner's whole answer is returned.
        weights: weight of each seat by name; from measured accuracy, never from a model's own confidence. A seat that
            is left out has 0. None gives each seat the same.
        abstain_below: share of all seats below which the council abstains; None never abstains while an answer can be
            read.
    """

    name: ClassVar[str] = "poll"

    vote_on: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    weights: Mapping[str, float] | None = attrs.field(
        default=None, converter=attrs.converters.optional(as_dict), validator=optional(_weights)
    )
    abstain_below: float | None = attrs.field(default=None, validator=optional(fraction))

    def plan(self, roster: Roster) -> Steps:
        """Let every seat draft."""
        names = roster.names
        if len(names) < _SEATS:
            raise InvalidOption(
                f"the strategy 'poll' needs {_SEATS} seats or more, got {len(names)}: add seats, or use 'single'"
            )
        for name in self.weights or ():
            if name not in names:
                raise InvalidOption(f"weights: no seat is named {name!r:.80}{near(name, names)}")
        form = form_of(roster.schema, self.vote_on)
        drafters = default_drafters(roster, names)
        by_schema = form.kind == AnswerKind.JSON
        is_shaped = roster.schema is not None and form.kind == AnswerKind.TEXT
        return Steps(
            phases=(
                Phase.DRAFT,
                *((Phase.SYNTHESISE,) if is_shaped else ()),
                *(roster.repairs if is_shaped else ()),
            ),
            most_calls=len(names) + (roster.most_writing_calls if is_shaped else 0),
            drafters=drafters,
            drafts_by_schema=by_schema,
            chairs=default_chairs(roster, drafters),
            chair_by_rank=True,
            notes=(f"the seats vote on {form.subject}", *self._weight_notes()),
        )

    def _weight_notes(self) -> tuple[str, ...]:
        if self.weights is None:
            return ()
        strongest = max(self.weights, key=lambda name: self.weights[name] if self.weights else 0.0)
        if self.weights[strongest] > sum(self.weights.values()) - self.weights[strongest]:
            return (f"these weights make {strongest} the only voter",)
        return ()

    async def deliberate(self, table: Table) -> Verdict:
        """Ask all seats, and count."""
        vote = Ballots(form_of(table.plan.schema, self.vote_on), table.plan.drafters, self.weights)
        decided_after: int | None = None
        failed_before: set[str] = set()

        def is_decided(settled: Sequence[Draft]) -> bool:
            nonlocal decided_after
            count = vote.count(settled)
            if count.is_open(self.abstain_below):
                return False
            decided_after = len(settled) if len(settled) < len(vote.seats) else None
            failed_before.update(draft.seat for draft in settled if draft.error is not None)
            return True

        drafts = await table.draft(instructions=vote.form.instruction, enough=is_decided)
        missing = [seat for seat in vote.seats if seat not in {draft.seat for draft in drafts}]
        if not missing:
            decided_after = None
        # After an early end, the other missing seats were cancelled: they are no failures.
        failed = missing if decided_after is None else [seat for seat in missing if seat in failed_before]
        tally = vote.count(drafts, failed).tally(table.random("tie"), decided_after=decided_after)
        table.report(tally)
        reason = reason_to_abstain(tally, self.abstain_below)
        if reason is not None:
            return attrs.evolve(table.abstain(reason), **vote.facts(tally, drafts))
        winner = vote.spokesman(tally.winner, drafts)
        # A text that stands for an object is brought into the form of the schema; any other value has it already.
        value = None if vote.form.kind == AnswerKind.TEXT else vote.answers[winner.name].value
        return attrs.evolve(await table.finish(winner, value=value), **vote.facts(tally, drafts))
