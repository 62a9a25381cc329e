"""Compare the answer of a run with its drafts in prose: who dissents, and whether most drafts are overruled."""

from __future__ import annotations

import attrs

from llm_council.errors import Abstained
from llm_council.models import AnswerKind
from llm_council.strategies._answer_form import form_of, with_common_keys
from llm_council.strategies._ballots import Ballots
from llm_council.strategies.base import Table, Verdict

__all__ = ["with_answers_of_drafts"]


def with_answers_of_drafts(table: Table, verdict: Verdict, who: str) -> Verdict:
    """Return the verdict with the answers of the drafts, the dissent, and whether most drafts were overruled.

    The drafts are prose, so only numbers, yes or no, and choices can be read from them. For other schemas, and without
    one, the verdict is returned unchanged.

    Args:
        table: the table of the run.
        verdict: the answer of the run. If it abstains, all drafts dissent.
        who: who gave the answer, for the warning, such as "the chair".
    """
    form = form_of(table.plan.schema)
    is_abstained = isinstance(verdict.error, Abstained)
    if (verdict.output is None and not is_abstained) or form.kind in (AnswerKind.TEXT, AnswerKind.JSON):
        return verdict
    vote = Ballots(form, table.plan.drafters)
    drafts = [draft for draft in table.drafts if draft.seat in table.plan.drafters]
    tally = vote.count(drafts).tally(table.random("tie"))
    facts = vote.facts(tally, drafts)
    otherwise = {**verdict.otherwise, **(facts["otherwise"] if tally.winner is not None else {})}
    if is_abstained:
        dissent = vote.dissent(None, facts["answers"], drafts)
        return attrs.evolve(verdict, answers=facts["answers"], dissent=dissent, otherwise=otherwise)
    final = "the final answer"  # no name of a seat has a space
    answers = with_common_keys({**facts["answers"], final: form.answer_of(verdict.output)})
    chosen = answers.pop(final)
    dissent = vote.dissent(chosen.key, answers, drafts)
    overruled = None
    if tally.share > 1 / 2 and len(vote.seats) > 1:
        winner = next(answer for seat, answer in answers.items() if facts["answers"][seat].key == tally.winner)
        overruled = winner.key != chosen.key
        if overruled:
            table.note(f"{who} overruled the answer of most drafts: {winner.shown}")
    return attrs.evolve(
        verdict,
        answers=answers,
        dissent=dissent,
        otherwise=otherwise,
        overruled=overruled,
    )
