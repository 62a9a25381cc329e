"""Answers that seats vote on, and what a vote came to."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from llm_council.models._attrs import as_dict, as_tuple, strict_init

__all__ = [
    "Agreement",
    "AgreementLevel",
    "Answer",
    "AnswerKind",
    "Check",
    "CheckVerdict",
    "Dissent",
    "Flip",
    "Judgement",
    "Round",
    "Rung",
    "Tally",
]


class AnswerKind(StrEnum):
    """What two answers are compared as."""

    CHOICE = "choice"  # one of the values that the schema lists
    NUMBER = "number"
    BOOL = "bool"
    JSON = "json"  # parts of a JSON value
    TEXT = "text"


@strict_init
@attrs.frozen(kw_only=True)
class Answer:
    """What a seat answers, as it is counted. Answers are equal if their keys are.

    Attributes:
        kind: what it is compared as.
        value: the value.
        key: decides equality.
        shown: the answer in a few words, for people.
    """

    kind: AnswerKind = attrs.field(converter=AnswerKind)
    value: Any = None
    key: str
    shown: str


@strict_init
@attrs.frozen(kw_only=True)
class Tally:
    """The count of a vote. Every seat that was to vote is in the denominator, whether it answered or not.

    Where judges choose between drafts, "answer" below means a draft, whose key is its author's name.

    Attributes:
        rule: ``"plurality"``: the answer with the largest weight wins. ``"scores"``: the draft with the largest median
            over judges of its standard score. ``"pairs"``: the draft that judges prefer most often. ``"anchor"``: the
            answer with the largest weight before seats saw those of the others, which not enough of them left.
            ``"borda"``, ``"copeland"``, ``"approval"``: the draft that reviewers rank highest, or call good most often.
            ``"fields"``: the parts of an object with the largest weights, each counted by itself; share and margin are
            those of the part on which the seats agree least.
        winner: key of the winning answer; None if no seat gave a readable one.
        points: weight of each answer by key, the largest first; standard scores or won pairs of drafts.
        share: weight of the winner among the weights of all seats, from 0 to 1. For scores, the share of judges
            other than its author that scored no draft higher; for pairs and Copeland, the share of its pairs that it
            won; for Borda, of the points that it could have; for approvals, of all reviewers but its author.
        margin: the share by which it leads the next answer; for drafts, the points.
        tied: keys of the answers that share the first place; empty if there is one.
        broken_by: what decided between them: ``"pairs"``, how judges compared them; ``"second choices"``, which draft
            has more second places; ``"weights"``, which answer the seat with the largest weight gave; ``"seed"``, the
            run's; None without a tie.
        cast: seats with a readable answer.
        empty: seats whose answer could not be read.
        failed: seats that gave no draft.
        decided_after: drafts, or reviews of drafts, after which the vote was decided, and the others were cancelled or
            not asked for; None if all were counted.
        grouping: what found answers in different words equal: ``"code"``, or ``"model"`` if a seat was asked.
        order: keys of drafts, the best first, where drafts were ranked or approved.
        pairwise: how many reviewers put each draft before each other one: ``pairwise["ann"]["bob"]`` put ann's before
            bob's. A diagnostic.
        condorcet: True if more reviewers put the winning draft before each other one than behind it; None if none was
            compared. A diagnostic.
        fields: with the rule ``"fields"``, the count of each part of the answer by its path.
        composed: True if the parts that won stood in no seat's answer together: the council elected what nobody
            proposed.
    """

    rule: str = "plurality"
    winner: str | None = None
    points: Mapping[str, float] = attrs.field(factory=dict, converter=as_dict)
    share: float = 0.0
    margin: float = 0.0
    tied: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    broken_by: str | None = None
    cast: int = 0
    empty: int = 0
    failed: int = 0
    decided_after: int | None = None
    grouping: str = "code"
    order: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    pairwise: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict, converter=as_dict)
    condorcet: bool | None = None
    fields: Mapping[str, Tally] = attrs.field(factory=dict, converter=as_dict)
    composed: bool = False


class AgreementLevel(StrEnum):
    """How far the seats agree: of all seats that were to vote, not of those that answered."""

    UNANIMOUS = "unanimous"  # all
    MAJORITY = "majority"  # more than half
    PLURALITY = "plurality"  # the most
    SPLIT = "split"  # no answer has the most


@strict_init
@attrs.frozen(kw_only=True)
class Agreement:
    """How far the seats agree on the answer.

    Attributes:
        level: the level.
        share: weight of the winner among the weights of all seats, from 0 to 1.
        margin: the share by which it leads the next answer.
    """

    level: AgreementLevel = attrs.field(converter=AgreementLevel)
    share: float
    margin: float


@strict_init
@attrs.frozen(kw_only=True)
class Dissent:
    """An answer that did not win.

    Attributes:
        answer: the answer.
        seats: names of the seats that gave it.
        text: the draft of the first of them.
    """

    answer: Answer
    seats: tuple[str, ...] = attrs.field(converter=as_tuple)
    text: str


@strict_init
@attrs.frozen(kw_only=True)
class Judgement:
    """What a judge says of drafts that it compared, with their authors hidden.

    Attributes:
        judge: name of the seat.
        scores: score of each draft by its author's name: from 0 to 10, or of a pair 1 for the better one, and 0.5 each
            for drafts that are level.
        consistent: of a pair, whether the judge said the same in both orders; None for scores.
    """

    judge: str
    scores: Mapping[str, float] = attrs.field(factory=dict, converter=as_dict)
    consistent: bool | None = None


@strict_init
@attrs.frozen(kw_only=True)
class Flip:
    """A seat that changed its answer.

    Attributes:
        seat: name of the seat.
        old: what it said before; None if that could not be read.
        new: what it says now.
    """

    seat: str
    old: str | None = None
    new: str


@strict_init
@attrs.frozen(kw_only=True)
class Round:
    """What the seats said in one round of a strategy in which they may change their minds.

    Attributes:
        number: 0 for the drafts, then 1 and up.
        answers: the answers that could be read, by seat name.
        flips: the seats that changed their answers in this round.
    """

    number: int
    answers: Mapping[str, Answer] = attrs.field(factory=dict, converter=as_dict)
    flips: tuple[Flip, ...] = attrs.field(default=(), converter=as_tuple)

    @property
    def is_stable(self) -> bool:
        """True if no seat changed its answer."""
        return not self.flips


@strict_init
@attrs.frozen(kw_only=True)
class Rung:
    """A group of seats that was asked because those before it did not agree.

    Attributes:
        seats: names of the seats of the group.
        agreement: how far all seats so far agree.
        usd: cost of the group's drafts in US dollars; None if it is unknown for one of them.
        is_settled: True if no further group was asked.
        reason: why, in one sentence.
    """

    seats: tuple[str, ...] = attrs.field(converter=as_tuple)
    agreement: Agreement
    usd: float | None = None
    is_settled: bool
    reason: str


class CheckVerdict(StrEnum):
    """What became of a claim that was checked."""

    CONFIRMED = "confirmed"  # a seat that had not seen it says the same
    CONTRADICTED = "contradicted"  # none says the same, and one says something else
    CORRECTED = "corrected"  # it was contradicted, and the answer does not claim it any more
    UNKNOWN = "unknown"  # nobody could say


@strict_init
@attrs.frozen(kw_only=True)
class Check:
    """A claim of an answer, and what seats that had not seen the answer say of it.

    Attributes:
        claim: what the answer says.
        question: the question that it answers.
        answers: the answers of the other seats by name; a seat that failed is left out.
        verdict: what became of it.
    """

    claim: str
    question: str
    answers: Mapping[str, str] = attrs.field(factory=dict, converter=as_dict)
    verdict: CheckVerdict = attrs.field(converter=CheckVerdict)
