"""``Poll``: every seat answers alone, and the answer that most of them give wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import fsum
from os import PathLike
from typing import Any, ClassVar, TypeAlias

import attrs

from llm_council.errors import InvalidOption, QuorumLost, near
from llm_council.models import AnswerKind, Draft, Phase, SeatSpec
from llm_council.models._attrs import as_dict, as_tuple, boolean, fraction, is_number, must_be, optional, strict_init
from llm_council.strategies._answer_form import AnswerForm, form_of
from llm_council.strategies._ballots import Ballots, reason_to_abstain
from llm_council.strategies._default_seats import default_chairs, default_drafters, resting
from llm_council.strategies._field_votes import FieldBallots, countable_fields
from llm_council.strategies._grouping import MOST_CALLS, group_answers
from llm_council.strategies._plurality import Plurality
from llm_council.strategies.base import Roster, Steps, Strategy, Table, Verdict
from llm_council.strategies.seat_accuracy import as_accuracies, read_accuracies, weights_of

__all__ = ["Poll"]

_SEATS = 2  # one seat has nobody to agree with

_numbers = must_be(
    "weights of seats by name, each a number of 0 or more, and one above 0; or the measured accuracy of each",
    lambda weights: all(is_number(w) and w >= 0 for w in weights.values()) and any(weights.values()),
)


def _as_weights(value: Mapping[str, Any] | str | PathLike[str] | None) -> Mapping[str, Any] | None:
    """Return weights as plain values, which the plan of a run holds: a file is read once, when the strategy is made."""
    return read_accuracies(value) if isinstance(value, str | PathLike) else None if value is None else as_dict(value)


def _are_measured(weights: Mapping[str, Any]) -> bool:
    return bool(weights) and all(isinstance(table, Mapping) for table in weights.values())


def _weights(instance: object, field: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, Mapping) and _are_measured(value):
        as_accuracies(value)
    else:
        _numbers(instance, field, value)


_fields = must_be("'whole' or 'each'", lambda value: value in ("whole", "each"))
_grouping = must_be("'code' or 'model'", lambda value: value in ("code", "model"))

_Votes: TypeAlias = tuple[tuple[Draft, ...], Plurality, int | None]
"""The drafts, their count, and the drafts after which it was decided; None if all seats were asked."""


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
        weights: path of a file of measured accuracy that ``council eval --weights`` wrote, or its table of seats: see
            ``llm_council.strategies.seat_accuracy``. It is refused for seats, models and kinds of answers that were not
            measured. Or a weight for each seat by name, 0 or more; a seat that is left out has 0. Derive weights from
            measured accuracy, not from a model's own confidence. None gives each seat the same weight.
        abstain_below: share of all seats, from 0 to 1, below which the council abstains; None abstains only if no
            answer can be read.
        grouping: what finds texts in other words equal: ``"code"`` compares them without case, punctuation and
            articles; ``"model"`` asks a seat, if possible one that has not drafted, which answers say the same. Other
            kinds of answers are always compared by code.
        fields: ``"whole"`` votes on all parts that are compared together. ``"each"`` votes on each part by itself,
            which may elect an object that no seat proposed; the result says so (``tally.composed``). Without
            ``vote_on``, the parts are the properties that can be counted.
        hurry: True asks all seats at once. False asks the first seats that could decide the vote, and the next ones
            only if they did not, which saves calls and takes longer.
    """

    name: ClassVar[str] = "poll"

    vote_on: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    weights: Mapping[str, Any] | None = attrs.field(default=None, converter=_as_weights, validator=optional(_weights))
    abstain_below: float | None = attrs.field(default=None, validator=optional(fraction))
    grouping: str = attrs.field(default="code", validator=_grouping)
    fields: str = attrs.field(default="whole", validator=_fields)
    hurry: bool = attrs.field(default=True, validator=boolean)

    def plan(self, roster: Roster) -> Steps:
        """Let every seat draft."""
        names = roster.names
        if len(names) < _SEATS:
            raise InvalidOption(
                f"the strategy 'poll' needs {_SEATS} seats or more, got {len(names)}: add seats, or use 'single'"
            )
        form = self._form(roster.schema)
        drafters = default_drafters(roster, names)
        weights = self._weights_for(form, roster.seats, drafters)
        is_grouped = self._is_grouped(form)
        is_shaped = roster.schema is not None and form.kind == AnswerKind.TEXT
        return Steps(
            phases=(
                Phase.DRAFT,
                *((Phase.GROUP,) if is_grouped else ()),
                *((Phase.SYNTHESISE,) if is_shaped else ()),
                *(roster.repairs if is_shaped else ()),
            ),
            most_calls=len(names) + (MOST_CALLS if is_grouped else 0) + (roster.most_writing_calls if is_shaped else 0),
            drafters=drafters,
            drafts_by_schema=form.kind == AnswerKind.JSON,
            chairs=default_chairs(roster, drafters),
            chair_by_rank=True,
            asks={Phase.GROUP: (resting(roster, drafters) or names)[:1]} if is_grouped else {},
            notes=(f"the seats vote on {form.subject}", *self._notes(form, weights)),
        )

    def _form(self, schema: Mapping[str, Any] | None) -> AnswerForm:
        """Return what the seats vote on."""
        if self.fields == "whole" or self.vote_on:
            return form_of(schema, self.vote_on)
        return form_of(schema, countable_fields(schema))

    def _is_grouped(self, form: AnswerForm) -> bool:
        return self.grouping == "model" and form.kind == AnswerKind.TEXT

    def _weights_for(
        self, form: AnswerForm, seats: Sequence[SeatSpec], drafters: Sequence[str]
    ) -> Mapping[str, float] | None:
        """Return the weight of each seat that votes; None gives each the same.

        Raises:
            InvalidOption: the weights do not hold for these seats, or this kind of answer.
        """
        if self.weights is None:
            return None
        if _are_measured(self.weights):
            options = {AnswerKind.BOOL: 2, AnswerKind.CHOICE: len(form.options)}.get(form.kind)
            voters = [seat for seat in seats if seat.name in drafters]
            return weights_of(as_accuracies(self.weights), voters, form.kind, options)
        names = [seat.name for seat in seats]
        for name in self.weights:
            if name not in names:
                raise InvalidOption(f"weights: no seat is named {name!r:.80}{near(name, names)}")
        return self.weights

    def _notes(self, form: AnswerForm, weights: Mapping[str, float] | None) -> Iterator[str]:
        if self.fields == "each":
            yield "each part is voted on by itself: the answer may be one that no seat proposed"
        if self._is_grouped(form):
            yield "a seat says which answers are the same"
        if not self.hurry:
            yield "seats are asked in turn, and the last ones only if they can change the outcome"
        if weights is not None:
            yield f"weights: {', '.join(f'{name} {weight:.3g}' for name, weight in weights.items())}"
            strongest = max(weights.values())
            if strongest > fsum(weights.values()) - strongest:
                (only,) = [name for name, weight in weights.items() if weight == strongest]
                yield f"these weights make {only} the only voter"

    async def deliberate(self, table: Table) -> Verdict:
        """Ask the seats, and count."""
        form = self._form(table.plan.schema)
        weights = self._weights_for(form, table.plan.seats, table.plan.drafters)
        vote = Ballots(form, table.plan.drafters, weights, may_merge=self._is_grouped(form))
        if self.fields == "each":
            vote = FieldBallots(form, table.plan.drafters, weights)
        drafts, count, decided_after = await (self._ask_at_once if self.hurry else self._ask_in_turn)(table, vote)
        grouping = "code"
        if self._is_grouped(form):
            spoken = {answer.key: answer for answer in reversed(vote.answers.values())}
            answers = {key: spoken[key] for key in count.standing()}
            groups = await group_answers(table, answers) if len(answers) > 1 else None
            if groups is not None:
                vote.merge(groups)
                count, grouping = vote.count(drafts, count.failed), "model"
        tally = count.tally(table.random("tie"), decided_after=decided_after)
        tally = attrs.evolve(tally, grouping=grouping)
        composed: Any = None
        if isinstance(vote, FieldBallots) and tally.composed:
            tally, composed = vote.compose(tally, drafts)
            if tally.composed:
                table.note("the answer combines parts of several drafts: no seat proposed it as a whole")
            else:
                table.note("the parts that won do not go together by the schema: the draft with most of them won")
        facts = vote.facts(tally, drafts)
        table.report(tally, agreement=facts["agreement"], dissent=facts["dissent"])
        if not self.hurry:
            facts["spared"] = vote.seats[decided_after:] if decided_after is not None else ()
        reason = reason_to_abstain(tally, self.abstain_below)
        if reason is not None:
            return attrs.evolve(table.abstain(reason), **facts)
        winner = vote.spokesman(tally.winner, drafts)
        # A text that stands for an object is brought into the form of the schema; any other value has it already.
        value = None if form.kind == AnswerKind.TEXT else vote.answers[winner.name].value
        if tally.composed:
            value = composed
        return attrs.evolve(await table.finish(winner, value=value), **facts)

    async def _ask_at_once(self, table: Table, vote: Ballots) -> _Votes:
        """Ask all seats, and cancel those that cannot change the outcome any more."""
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
        return drafts, vote.count(drafts, failed), decided_after

    async def _ask_in_turn(self, table: Table, vote: Ballots) -> _Votes:
        """Ask the fewest seats that can decide the vote at once, then the next ones, until it is decided."""
        seats, quorum = list(vote.seats), table.budget.quorum or 1
        drafts: tuple[Draft, ...] = ()
        asked, count = 0, vote.count(())
        while asked < len(seats) and (len(drafts) < quorum or count.is_open(self.abstain_below)):
            asked += count.least_votes(seats[asked:], self.abstain_below)
            try:
                drafts = await table.draft(seats[:asked], instructions=vote.form.instruction)
            except QuorumLost:  # of the seats so far; the next ones may answer
                if asked == len(seats):
                    raise
            given = {draft.seat for draft in drafts}
            count = vote.count(drafts, [seat for seat in seats[:asked] if seat not in given])
        return drafts, count, asked if asked < len(seats) else None
