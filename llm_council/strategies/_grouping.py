"""Ask a seat which answers say the same; its reply counts only if each answer is in exactly one group."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from llm_council.models import Answer, Draft, GenerateResponse, Phase
from llm_council.strategies.base import Table

__all__ = ["MOST_CALLS", "group_answers", "read_groups"]

MOST_CALLS = 2
"""Seats that are asked at most: a second one if the first fails, or its groups cannot be read."""

_QUESTION = """\
The texts are answers to the task. Which of them say the same in other words? \
End with one line: "GROUPS:" and all labels, with "," between labels that say the same, and "|" between groups."""

_LINE = re.compile(r"^[ \t>*_#`\-]{0,20}groups\b[ \t*_`]{0,8}[:=\-](?P<rest>[^\n]*)$", re.IGNORECASE | re.MULTILINE)
_LABEL = re.compile(r"\b[A-Z]{1,3}\b")


async def group_answers(table: Table, answers: Mapping[str, Answer]) -> list[list[str]] | None:
    """Return the keys of these answers, grouped by meaning; None if no seat could group them.

    Args:
        table: the seats of the run.
        answers: key -> an answer with that key. Keys in a group have the same order.
    """
    # Only the answers are shown, not the drafts: a seat is to compare what they say, and not how well.
    texts = {key: Draft(seat=key, response=GenerateResponse(text=answer.shown)) for key, answer in answers.items()}
    for seat in _groupers(table)[:MOST_CALLS]:
        reply = await table.ask(seat, _QUESTION, show=list(texts.values()), phase=Phase.GROUP)
        groups = read_groups(reply.text, reply.labels)
        if groups is not None:
            found = [[reply.labels[label] for label in group] for group in groups]
            return [sorted(group, key=list(answers).index) for group in found]
    table.note("no seat could say which answers are the same: they were compared word for word")
    return None


def _groupers(table: Table) -> list[str]:
    """Return the seats that may be asked: those that did not draft, then authors by chance."""
    drafted = [draft.seat for draft in table.drafts]
    resting = [seat for seat in table.seats if seat not in table.plan.drafters and seat not in drafted]
    return [*resting, *table.random("grouper").sample(drafted, len(drafted))]


def read_groups(text: str, labels: Collection[str]) -> list[Sequence[str]] | None:
    """Return the groups of labels on the last line "GROUPS:"; None unless each label is in exactly one group."""
    found = None
    for line in _LINE.finditer(text):
        found = line
    if found is None:
        return None
    groups = [[label for label in _LABEL.findall(part) if label in labels] for part in re.split(r"[|;]", found["rest"])]
    named = [label for group in groups for label in group]
    if sorted(named) != sorted(labels):
        return None
    return [group for group in groups if group]
