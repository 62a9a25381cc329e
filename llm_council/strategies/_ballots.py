"""The ballots of a vote: the answers of drafts, their count, and the draft that stands for the winning answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from llm_council.models import Answer, Dissent, Draft, Tally
from llm_council.strategies._answer_form import AnswerForm, with_common_keys
from llm_council.strategies._plurality import Plurality

__all__ = ["Ballots", "reason_to_abstain"]


class Ballots:
    """Reads drafts, each once, and counts the answers that they give.

    Args:
        form: what is compared.
        seats: the seats that are to vote; where a seat drafts several times, the names of its drafts.
        weights: weight of each seat by name; None gives each the same.
        may_merge: True if ``merge`` will be called.
        by_seat: True if each draft is the vote of its seat, whatever its number; False if each is a vote of its own.
    """

    def __init__(
        self,
        form: AnswerForm,
        seats: Sequence[str],
        weights: Mapping[str, float] | None = None,
        *,
        may_merge: bool = False,
        by_seat: bool = False,
    ) -> None:
        self.form = form
        self.seats = seats
        self._weights = weights
        self._may_merge = may_merge
        self._by_seat = by_seat
        self._read: dict[str, Answer | None] = {}
        self._merged: dict[str, str] = {}

    @property
    def answers(self) -> dict[str, Answer]:
        """The answers that could be read, by the name of the draft, with one key for those that are equal."""
        read = with_common_keys({seat: answer for seat, answer in self._read.items() if answer is not None})
        if not self._merged:
            return read
        return {
            seat: attrs.evolve(answer, key=self._merged.get(answer.key, answer.key)) for seat, answer in read.items()
        }

    def read(self, draft: Draft) -> Answer | None:
        """Return the answer of a successful draft; None if it cannot be read."""
        if draft.name not in self._read:
            self._read[draft.name] = self.form.read(draft)
        return self._read[draft.name]

    def answers_of(self, drafts: Sequence[Draft]) -> dict[str, Answer]:
        """Return the answers of these drafts that could be read, by seat or by draft, as ``by_seat`` says."""
        answers = self.answers
        return {self._vote(draft): answers[draft.name] for draft in drafts if draft.name in answers}

    def _vote(self, draft: Draft) -> str:
        return draft.seat if self._by_seat else draft.name

    def merge(self, groups: Sequence[Sequence[str]]) -> None:
        """Count the answers of each group as one: all keys of the group are replaced by its first."""
        self._merged = {key: group[0] for group in groups for key in group}
        self._may_merge = False

    def count(self, drafts: Sequence[Draft], failed: Sequence[str] = ()) -> Plurality:
        """Return the count of these drafts, and of further seats that gave none."""
        count = Plurality(self.seats, self._weights, may_merge=self._may_merge)
        for draft in drafts:
            if draft.error is None:
                self.read(draft)
        answers = self.answers
        for draft in drafts:
            if draft.error is None:
                count.cast(self._vote(draft), _key(answers, draft))
            else:
                count.fail(self._vote(draft))
        for seat in failed:
            count.fail(seat)
        return count

    def spokesman(self, key: str | None, drafts: Sequence[Draft]) -> Draft:
        """Return the draft that stands for an answer.

        Of the drafts that give the answer, it is the one of the largest weight, then the one that shares most words
        with the others.

        Args:
            key: key of the answer; at least one draft gives it.
            drafts: the drafts.
        """
        answers, weights = self.answers, self._weights or {}
        voters = [draft for draft in drafts if _key(answers, draft) == key]
        most = max(weights.get(draft.name, 0.0) for draft in voters)
        heaviest = [draft for draft in voters if weights.get(draft.name, 0.0) == most]
        words = [Counter(draft.text.casefold().split()) for draft in heaviest]
        nearness = [sum(_overlap(one, other) for other in words) for one in words]
        return heaviest[nearness.index(max(nearness))]

    def dissent(
        self, winner: str | None, answers: Mapping[str, Answer], drafts: Sequence[Draft]
    ) -> tuple[Dissent, ...]:
        """Return the answers that did not win, the one of the largest weight first."""
        voters: dict[str, list[Draft]] = {}
        for draft in drafts:
            answer = answers.get(self._vote(draft))
            if answer is not None and answer.key != winner:
                voters.setdefault(answer.key, []).append(draft)
        found = []
        for key in sorted(voters, key=lambda key: (-self._weight(voters[key]), key)):
            seats = [self._vote(draft) for draft in voters[key]]
            found.append(Dissent(answer=answers[seats[0]], seats=seats, text=voters[key][0].text))
        return tuple(found)

    def _weight(self, drafts: Sequence[Draft]) -> float:
        return sum(1.0 if self._weights is None else self._weights.get(self._vote(draft), 0.0) for draft in drafts)

    def facts(self, tally: Tally, drafts: Sequence[Draft]) -> dict[str, Any]:
        """Return the fields of ``Verdict`` about the vote: answers, tally, agreement, dissent and otherwise."""
        answers = self.answers_of(drafts)
        winning = [answer.shown for answer in answers.values() if answer.key == tally.winner]
        return {
            "answers": answers,
            "tally": tally,
            "agreement": Plurality.agreement(tally),
            "dissent": self.dissent(tally.winner, answers, drafts),
            "otherwise": {
                **{f"single:{seat}": answer.shown for seat, answer in answers.items()},
                "poll": winning[0] if winning else None,
            },
        }


def reason_to_abstain(tally: Tally, abstain_below: float | None) -> str | None:
    """Return why a vote has no answer; None if it has one.

    Args:
        tally: the count.
        abstain_below: share of all seats, from 0 to 1, below which there is no answer; None sets no limit.
    """
    if tally.winner is None:
        return "no seat gave an answer that could be read"
    if abstain_below is not None and tally.share < abstain_below:
        return (
            f"the seats do not agree: the first answer has a share of {tally.share:.2f}, and abstain_below is"
            f" {abstain_below:g}"
        )
    return None


def _key(answers: Mapping[str, Answer], draft: Draft) -> str | None:
    return answers[draft.name].key if draft.name in answers else None


def _overlap(one: Counter[str], other: Counter[str]) -> float:
    """Return the F1 of the words that two texts share, from 0 to 1."""
    whole = one.total() + other.total()
    return 2 * (one & other).total() / whole if whole else 1.0
