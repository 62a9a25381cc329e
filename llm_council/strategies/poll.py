"""``Poll``: every seat answers alone, and the answer that most of them give wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs

from llm_council.errors import InvalidOption, near
from llm_council.models import Answer, AnswerKind, Dissent, Draft, Phase, Tally
from llm_council.models._attrs import as_dict, as_tuple, fraction, is_number, must_be, optional, strict_init
from llm_council.strategies._plurality import Plurality
from llm_council.strategies._reading import AnswerForm, form_of, with_common_keys
from llm_council.strategies._roles import chairs_of, drafters_of
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
        drafters = drafters_of(roster, names)
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
            chairs=chairs_of(roster, drafters),
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
        vote = _Vote(form_of(table.plan.schema, self.vote_on), table.plan.drafters, self.weights)
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
        answers = vote.answers
        reason = self._reason_to_abstain(tally)
        if reason is not None:
            return attrs.evolve(table.abstain(reason), **_facts(tally, answers, drafts))
        winner = self._spokesman([draft for draft in drafts if _key(answers, draft) == tally.winner])
        # A text that stands for an object is brought into the form of the schema; any other value has it already.
        value = None if vote.form.kind == AnswerKind.TEXT else answers[winner.seat].value
        return attrs.evolve(await table.finish(winner, value=value), **_facts(tally, answers, drafts))

    def _reason_to_abstain(self, tally: Tally) -> str | None:
        if tally.winner is None:
            return "no seat gave an answer that could be read"
        if self.abstain_below is not None and tally.share < self.abstain_below:
            return (
                f"the seats do not agree: the first answer has a share of {tally.share:.2f}, and abstain_below is"
                f" {self.abstain_below:g}"
            )
        return None

    def _spokesman(self, drafts: Sequence[Draft]) -> Draft:
        """Return the draft that speaks for an answer: that of the largest weight, then the nearest to the others."""
        weights = {draft.seat: (self.weights or {}).get(draft.seat, 0.0) for draft in drafts}
        heaviest = [draft for draft in drafts if weights[draft.seat] == max(weights.values())]
        words = [Counter(draft.text.casefold().split()) for draft in heaviest]
        nearness = [sum(_overlap(one, other) for other in words) for one in words]
        return heaviest[nearness.index(max(nearness))]


class _Vote:
    """Reads drafts, each once, and counts them."""

    def __init__(self, form: AnswerForm, seats: Sequence[str], weights: Mapping[str, float] | None) -> None:
        self.form = form
        self.seats = seats
        self._weights = weights
        self._read: dict[str, Answer | None] = {}

    @property
    def answers(self) -> dict[str, Answer]:
        """The answers that could be read, by seat, with one key for those that are equal."""
        return with_common_keys({seat: answer for seat, answer in self._read.items() if answer is not None})

    def count(self, drafts: Sequence[Draft], failed: Sequence[str] = ()) -> Plurality:
        """Return the count of these drafts, and of further seats that gave none."""
        count = Plurality(self.seats, self._weights)
        for draft in drafts:
            if draft.error is None and draft.seat not in self._read:
                self._read[draft.seat] = self.form.read(draft)
        answers = self.answers
        for draft in drafts:
            if draft.error is None:
                count.cast(draft.seat, _key(answers, draft))
            else:
                count.fail(draft.seat)
        for seat in failed:
            count.fail(seat)
        return count


def _key(answers: Mapping[str, Answer], draft: Draft) -> str | None:
    return answers[draft.seat].key if draft.seat in answers else None


def _facts(tally: Tally, answers: Mapping[str, Answer], drafts: Sequence[Draft]) -> dict[str, Any]:
    """Return the fields of a verdict that tell about the vote."""
    dissent = []
    for key in tally.points:
        voters = [draft for draft in drafts if _key(answers, draft) == key]
        if key != tally.winner:
            seats = [draft.seat for draft in voters]
            dissent.append(Dissent(answer=answers[seats[0]], seats=seats, text=voters[0].text))
    winning = [answer.shown for answer in answers.values() if answer.key == tally.winner]
    return {
        "answers": dict(answers),
        "tally": tally,
        "agreement": Plurality.agreement(tally),
        "dissent": tuple(dissent),
        "otherwise": {
            **{f"single:{seat}": answer.shown for seat, answer in answers.items()},
            "poll": winning[0] if winning else None,
        },
    }


def _overlap(one: Counter[str], other: Counter[str]) -> float:
    """Return the F1 of the words that two texts share, from 0 to 1."""
    whole = one.total() + other.total()
    return 2 * (one & other).total() / whole if whole else 1.0
