"""``Verify``: another strategy answers, and seats that do not see the answer check what it claims."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs

from llm_council.errors import ConfigurationError, InvalidOption
from llm_council.models import Check, CheckVerdict, Draft, GenerateResponse, Phase
from llm_council.models._attrs import is_int, must_be, strict_init
from llm_council.strategies._answer_form import AnswerForm, form_of, same_words
from llm_council.strategies._find import class_of, get_strategy, options_of
from llm_council.strategies.base import Ask, Reply, Roster, Steps, Strategy, Table, Verdict

__all__ = ["Verify", "read_comparison", "read_questions"]

_CHECKERS = 2
"""Seats that answer each question: what one of them contradicts and the other one confirms stays as it is."""

_LIST = """\
List up to {most} facts that the text states, on which the answer depends and which could be wrong, the most important \
first. For each, write a question that has a short answer and can be answered without the text, and what the text says:
QUESTION: In which year was the bridge opened?
CLAIM: 1932
If there is no such fact, write NONE."""

_ANSWER = """\
Answer the question in the text by what you know, and not the task. End with one line: "ANSWER:" and the answer in as \
few words as possible, or UNKNOWN if you are not sure."""

_COMPARE = """\
Each text has a number, a claim and an answer to the same question. Say for each whether the answer supports the \
claim. End with one line for each number, such as "1: SAME", "1: DIFFERENT" or "1: UNKNOWN"."""

_CORRECT = """\
One text is an answer to the task. The others are questions about facts in it, what it claims, and what others who had \
not seen it said instead. Check each. Then give the whole answer again, corrected where it was wrong and otherwise \
unchanged. Do not mention the texts."""

_PAIR = re.compile(
    r"^[ \t>*_#\-\d.]{0,20}question[ \t*_]{0,8}:[ \t*_]{0,8}(?P<question>[^\n]{1,500})\n+"
    r"[ \t>*_#\-]{0,20}claim[ \t*_]{0,8}:[ \t*_]{0,8}(?P<claim>[^\n]{1,500})",
    re.IGNORECASE | re.MULTILINE,
)
_COMPARED = re.compile(
    r"^[ \t>*_#\-]{0,20}(?P<number>\d{1,2})[ \t*_.)]{0,8}:[ \t*_]{0,8}(?P<word>same|different|unknown)\b",
    re.IGNORECASE | re.MULTILINE,
)
_VERDICTS = {
    "same": CheckVerdict.CONFIRMED,
    "different": CheckVerdict.CONTRADICTED,
    "unknown": CheckVerdict.UNKNOWN,
}


def _as_table(value: Any) -> Any:
    """Return a strategy as plain values, which the plan of a run holds: ``{"kind": "judge", "mode": "pair"}``."""
    if isinstance(value, Strategy):
        if not _has_name(value):
            raise InvalidOption(
                f"of: the strategy {value.name!r:.80} is found by no name, and stored runs are resumed by it: give it"
                " an entry point, or name another strategy"
            )
        return {"kind": value.name, **options_of(value)}
    return {"kind": value} if isinstance(value, str) else value


def _has_name(strategy: Strategy) -> bool:
    try:
        return class_of(strategy.name) is type(strategy)
    except ConfigurationError:
        return False


_table = must_be(
    "a strategy, its name, or a table with its 'kind'",
    lambda value: isinstance(value, Mapping) and isinstance(value.get("kind"), str) and value["kind"] != "verify",
)
_count = must_be("a whole number from 1 to 8", lambda value: is_int(value) and 1 <= value <= 8)


@strict_init
@attrs.frozen(kw_only=True)
class Verify(Strategy):
    """Let another strategy answer, and check the facts that its answer claims; for factual prose.

    A seat writes questions about the answer, and two seats other than its author answer each one without having seen
    the answer (factored verification, arXiv 2309.11495). If an answer contradicts a claim and none confirms it, the
    author corrects its answer once. Contradicted claims that the answer still makes are reported in the warnings.

    For q questions this takes up to 2q + 3 calls: one that writes the questions; two answers to each, so that a right
    claim need not be changed because one seat is mistaken; one that compares answers in other words than the claims;
    and the correction.

    Attributes:
        of: the strategy that answers: an object, a name, or a table such as ``{"kind": "judge", "mode": "pair"}``. It
            is stored by name, so a strategy of your own needs an entry point.
        questions: the most questions, from 1 to 8.
    """

    name: ClassVar[str] = "verify"

    of: Mapping[str, Any] = attrs.field(default="synthesize", converter=_as_table, validator=_table)
    questions: int = attrs.field(default=4, validator=_count)

    def _inner(self) -> Strategy:
        options = dict(self.of)
        return get_strategy(options.pop("kind"), **options)

    def plan(self, roster: Roster) -> Steps:
        """Plan the other strategy and the questions."""
        if len(roster.seats) < 2:
            raise InvalidOption("the strategy 'verify' needs 2 seats or more: an author cannot check itself")
        steps = self._inner().plan(roster)
        author = (steps.chairs or roster.names)[0]
        others = [name for name in roster.names if name != author]
        # The largest number possible: the author is only known once the answer is written.
        checks = [others[number % len(others)] for number in range(self.questions * min(_CHECKERS, len(others)))]
        asked = (others[0], *checks, others[0], author)
        return attrs.evolve(
            steps,
            phases=(*(phase for phase in steps.phases if phase != Phase.REPAIR), Phase.VERIFY, *roster.repairs),
            most_calls=steps.most_calls + len(asked) + (roster.most_writing_calls if roster.schema is not None else 0),
            asks={**steps.asks, Phase.VERIFY: asked},
            notes=(*steps.notes, f"seats that have not seen the answer check up to {self.questions} of its claims"),
        )

    async def deliberate(self, table: Table) -> Verdict:
        """Answer, check and correct."""
        verdict = await self._inner().deliberate(table.child("of"))
        if verdict.error is not None or verdict.chair is None or not verdict.text:
            return verdict
        answer = Draft(seat=verdict.chair, response=GenerateResponse(text=verdict.text))
        others = _others(table, verdict.chair)
        listed = await table.ask(
            others[0], _LIST.format(most=self.questions), show=[answer], phase=Phase.VERIFY, round=1
        )
        questions = read_questions(listed.text)[: self.questions]
        if not questions:
            if listed.error is None and "NONE" not in listed.text.upper():
                table.note("no claim was checked: the questions could not be read")
            return verdict
        checks = await self._check(table, questions, others)
        wrong = [check for check in checks if check.verdict == CheckVerdict.CONTRADICTED]
        if wrong:
            corrected, checks = await self._correct(table, verdict, answer, checks)
            verdict = attrs.evolve(
                verdict, **{name: getattr(corrected, name) for name in ("chair", "text", "output", "problems", "error")}
            )
        for check in checks:
            table.record(check)
            if check.verdict == CheckVerdict.CONTRADICTED:
                table.note(f"contradicted by other seats: {check.question} {check.claim}")
        return attrs.evolve(verdict, checks=checks)

    async def _check(self, table: Table, questions: Sequence[tuple[str, str]], others: Sequence[str]) -> list[Check]:
        """Ask each question to two seats, and compare their answers with the claims."""
        asks, asked = [], []
        for number, (question, _) in enumerate(questions):
            shown = Draft(seat=others[0], response=GenerateResponse(text=question))
            for place in range(min(_CHECKERS, len(others))):
                seat = others[(number + place) % len(others)]
                asked.append(number)
                asks.append(Ask(seat=seat, instructions=_ANSWER, show=[shown], phase=Phase.VERIFY, round=2))
        replies = await table.ask_all(asks)
        form = form_of(None)
        answers: list[dict[str, str]] = [{} for _ in questions]
        for number, reply in zip(asked, replies, strict=True):
            said = _answer(form, reply)
            if said is not None:
                answers[number][reply.seat] = said
        checks = []
        for (question, claim), given in zip(questions, answers, strict=True):
            is_same = any(same_words(said, claim) for said in given.values() if _knows(said))
            verdict = CheckVerdict.CONFIRMED if is_same else CheckVerdict.UNKNOWN
            checks.append(Check(claim=claim, question=question, answers=given, verdict=verdict))
        return await self._compare(table, checks, others)

    async def _compare(self, table: Table, checks: list[Check], others: Sequence[str]) -> list[Check]:
        """Let a seat compare the answers that do not have the words of their claims."""
        unsure = [
            place
            for place, check in enumerate(checks)
            if check.verdict == CheckVerdict.UNKNOWN and any(_knows(said) for said in check.answers.values())
        ]
        if not unsure:
            return checks
        shown = []
        for number, place in enumerate(unsure, 1):
            check = checks[place]
            said = "; ".join(said for said in check.answers.values() if _knows(said))
            text = f"{number}. {check.question}\nClaim: {check.claim}\nAnswer: {said}"
            shown.append(Draft(seat=others[0], number=number, response=GenerateResponse(text=text)))
        reply = await table.ask(others[0], _COMPARE, show=shown, phase=Phase.VERIFY, round=3)
        found = read_comparison(reply.text)
        for number, place in enumerate(unsure, 1):
            checks[place] = attrs.evolve(checks[place], verdict=found.get(number, CheckVerdict.UNKNOWN))
        return checks

    async def _correct(
        self, table: Table, verdict: Verdict, answer: Draft, checks: list[Check]
    ) -> tuple[Verdict, list[Check]]:
        """Let the author correct its answer once; an author that fails leaves it as it is."""
        shown = [answer]
        for number, check in enumerate(checks, 2):
            if check.verdict == CheckVerdict.CONTRADICTED:
                said = "; ".join(check.answers.values())
                text = f"Question: {check.question}\nThe answer claims: {check.claim}\nOthers say: {said}"
                shown.append(Draft(seat=answer.seat, number=number, response=GenerateResponse(text=text)))
        has_schema = table.plan.schema is not None
        reply = await table.ask(answer.seat, _CORRECT, show=shown, phase=Phase.VERIFY, round=4, schema=has_schema)
        if reply.error is not None:
            return verdict, checks
        corrected = await table.finish(reply)
        text = corrected.text or ""
        settled = []
        for check in checks:
            if check.verdict == CheckVerdict.CONTRADICTED and not same_words(text, check.claim):
                check = attrs.evolve(check, verdict=CheckVerdict.CORRECTED)
            settled.append(check)
        return corrected, settled


def read_questions(text: str) -> list[tuple[str, str]]:
    """Return the questions of a text, each with what the answer claims."""
    return [(pair["question"].strip(" *_"), pair["claim"].strip(" *_")) for pair in _PAIR.finditer(text)]


def read_comparison(text: str) -> dict[int, CheckVerdict]:
    """Return number -> verdict; of several lines with one number, the last counts."""
    return {int(line["number"]): _VERDICTS[line["word"].lower()] for line in _COMPARED.finditer(text)}


def _others(table: Table, author: str) -> list[str]:
    """Return the seats that may check an answer: those whose drafts did not fail first."""
    drafted = {draft.seat for draft in table.drafts}
    others = [seat for seat in table.seats if seat != author]
    tried = set(table.plan.drafters)
    return sorted(others, key=lambda seat: seat in tried and seat not in drafted)


def _answer(form: AnswerForm, reply: Reply) -> str | None:
    if reply.error is not None:
        return None
    read = form.read(Draft(seat=reply.seat, response=reply.response))
    return None if read is None else read.shown


def _knows(said: str) -> bool:
    return re.fullmatch(r"\W*unknown\W*", said, re.IGNORECASE) is None
