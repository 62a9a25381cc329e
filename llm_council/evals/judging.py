"""Scores by a judge, where no target decides: its requests, its replies, and its agreement with known scores.

Nothing here calls a model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

import attrs

from llm_council._engine.fences import RULE, quote
from llm_council.errors import InvalidOption
from llm_council.evals.scorers import Score, ScorerKind
from llm_council.evals.tasks import EvalTask
from llm_council.models import Message
from llm_council.models._attrs import strict_init
from llm_council.strategies._judgements import MOST, read_better, read_scores

__all__ = [
    "VALIDATED_BY",
    "JudgeAgreement",
    "JudgeFacts",
    "agreement",
    "grade_request",
    "kin",
    "pair_requests",
    "read_grade",
    "read_pair",
]

VALIDATED_BY = 50
"""Tasks with a key or a human label that a judge must have scored before its agreement says something."""

_ROLE = f"You judge answers to tasks by a rubric, strictly and without regard to length or style. {RULE}"
_GRADE = (
    "Judge the answer by the rubric. Check its claims and calculations yourself. Give it a whole number from 0 (fails"
    ' the rubric) to 10 (meets all of it). End with one line, such as "SCORE A: 6".'
)
_PAIR = (
    "Which answer meets the rubric better? Check the claims and calculations of both yourself; the order means nothing."
    ' End with one line: "BETTER:" and the label of the better answer, or TIE.'
)


def grade_request(task: EvalTask, answer: str, *, code: str) -> tuple[Message, ...]:
    """Return the messages that ask a judge for the score of an answer.

    Args:
        task: the task; its rubric says what is good, and its target, if it has one, is shown as a reference.
        answer: the text of a model, which may say anything: it is fenced.
        code: of the fences, which the answer cannot know, such as a hash of the seed and the task.

    Raises:
        InvalidOption: the scorer of the task is no judge.
    """
    return _messages(task, {"A": answer}, _GRADE, code)


def read_grade(text: str) -> Score:
    """Return the score of a judge's reply, from 0 to 1; its value is None if there is none to read."""
    scores = read_scores(text, ["A"])
    return Score(value=None if scores is None else scores["A"] / MOST)


def pair_requests(
    task: EvalTask, first: str, second: str, *, code: str
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Return the messages that ask a judge which of two answers is better, in both orders.

    Judges tend to prefer an answer because of its place. Arguments are those of ``grade_request``.
    """
    return (
        _messages(task, {"A": first, "B": second}, _PAIR, code),
        _messages(task, {"A": second, "B": first}, _PAIR, code),
    )


def read_pair(forth: str, back: str) -> float | None:
    """Return the share of the first answer: 1 if it wins in both orders, 0 if it loses in both, else between.

    Args:
        forth: the reply to the first order.
        back: the reply to the second one, in which the labels are exchanged.

    Returns:
        The share; None if a reply cannot be read.
    """
    chosen, turned = read_better(forth, ["A", "B"]), read_better(back, ["A", "B"])
    if chosen is None or turned is None:
        return None
    return fmean([{"A": 1.0, "B": 0.0}.get(chosen, 0.5), {"A": 0.0, "B": 1.0}.get(turned, 0.5)])


def _messages(task: EvalTask, answers: dict[str, str], asked: str, code: str) -> tuple[Message, ...]:
    if task.scorer.kind != ScorerKind.JUDGE:
        raise InvalidOption(f"task {task.id!r:.80}: its scorer is {task.scorer.kind}, which needs no judge: use score")
    question = task.input if isinstance(task.input, str) else "\n\n".join(message.text for message in task.input)
    codes = [code]
    parts = [quote("the task", question, codes), f"Rubric:\n{task.scorer.rubric}"]
    if task.target is not None:
        parts.append(quote("a reference answer", str(task.target), codes))
    parts += [quote(f"answer {label}", text, codes) for label, text in answers.items()]
    return Message("system", _ROLE), Message("user", "\n\n".join([*parts, asked]))


# The family of a judge, and its agreement with known scores


def kin(judge: tuple[str, str | None], seat: tuple[str, str | None]) -> bool:
    """Return True if a judge is of the family of a seat: of its provider, or of models with the same first word.

    Judges favour texts of their own family and of models like themselves (arXiv 2502.04313).

    Args:
        judge: provider and model of the judge.
        seat: provider and model of the seat.
    """
    return judge[0] == seat[0] or (_family(judge[1]) == _family(seat[1]) != "")


def _family(model: str | None) -> str:
    """Return the first word of a model's name: ``claude`` for ``anthropic/claude-opus-4-5``."""
    found = re.match(r"[a-z]+", (model or "").rpartition("/")[2].casefold())
    return found[0] if found else ""


@strict_init
@attrs.frozen(kw_only=True)
class JudgeAgreement:
    """How far a judge agrees with known scores.

    Attributes:
        kappa: Cohen's kappa, 0 for chance and 1 for full agreement; None if it is undefined.
        observed: share of tasks on which both say the same.
        items: tasks that have both.
    """

    kappa: float | None
    observed: float
    items: int

    @property
    def is_validated(self) -> bool:
        """True if there are enough tasks, 50 or more, to measure how good the judge is."""
        return self.items >= VALIDATED_BY


@strict_init
@attrs.frozen(kw_only=True)
class JudgeFacts:
    """What is known of the judge of an evaluation.

    Attributes:
        name: its name.
        provider: the provider's name.
        model: the model that was asked for; None is the provider's default.
        grades: how many grades it was asked for.
        failed: how many of them it did not give; these answers count as 0.
        usd: what they cost, in US dollars; an assumed price counts where none is known.
        agreement: with keys and with people; None if no task has either.
    """

    name: str
    provider: str
    model: str | None = None
    grades: int = 0
    failed: int = 0
    usd: float = 0.0
    agreement: JudgeAgreement | None = None

    def warnings(self) -> list[str]:
        """Return how far the scores can be trusted, a sentence each."""
        found = [f"judged, not measured: the scores are those of {self.name}, which is a model"]
        if self.agreement is None:
            found.append("the judge is not validated: no task has a key, or answers that people graded")
        else:
            kappa = "undefined" if self.agreement.kappa is None else f"{self.agreement.kappa:.2f}"
            words = f"with keys and people it agrees on {100 * self.agreement.observed:.0f} % of {self.agreement.items}"
            found.append(f"{words} answers (kappa {kappa})")
            if not self.agreement.is_validated:
                found.append(f"the judge is not validated: that takes {VALIDATED_BY} such answers")
        if self.failed:
            found.append(f"the judge gave no grade to {self.failed} answers; they count as 0")
        return found


def agreement(judged: Sequence[float], known: Sequence[float], *, good: float = 0.5) -> JudgeAgreement:
    """Compare scores of a judge with known ones.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales".

    Args:
        judged: scores of the judge, from 0 to 1.
        known: scores by a key or by people, on the same tasks.
        good: the smallest score that counts as good.

    Raises:
        InvalidOption: there is no task, or the lengths differ.
    """
    if not judged or len(judged) != len(known):
        raise InvalidOption("agreement needs the scores of both on one task or more")
    ours, theirs = [score >= good for score in judged], [score >= good for score in known]
    observed = fmean([one == other for one, other in zip(ours, theirs, strict=True)])
    p, q = fmean(ours), fmean(theirs)
    chance = p * q + (1 - p) * (1 - q)
    kappa = None if chance > 1 - 1e-12 else (observed - chance) / (1 - chance)
    return JudgeAgreement(kappa=kappa, observed=observed, items=len(ours))
