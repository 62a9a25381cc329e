"""The turns of a conversation with a model that repeats what it is shown.

A model of a few hundred million parameters copies fences, labels such as "Draft A" and names of roles into its answer.
So its prompts have none of them: context, files and the answers of other seats are plain text above the question, and a
review is one more turn of the conversation. ``prompts`` turns these conversations into requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_council._engine.fences import neutralise
from llm_council.models import Message, Plan

__all__ = ["ask", "ask_about", "ask_again", "ask_to_rank", "ask_to_review", "role_sentence", "shown_answer"]

MOST_SHOWN = 900
"""Characters of one answer that is shown: models of this size lose track of long texts."""


def role_sentence(plan: Plan) -> str:
    """Return who the model is, in one sentence."""
    first, dot, _ = " ".join(plan.prompts.system.split()).partition(". ")
    return plan.prompts.brief.strip() or first + dot.strip()


def shown_answer(text: str, limit: int) -> str:
    """Return an answer of another seat as it is shown: without control characters, and cut after a word."""
    text = neutralise(text)
    if len(text) <= limit:
        return text
    head, space, _ = text[:limit].rpartition(" ")
    return head if space else text[:limit]


def ask(plan: Plan, instructions: str = "") -> tuple[Message, ...]:
    """Ask the question, below the context, the files and what a strategy adds to it."""
    parts = filter(None, (*_material(plan), instructions, plan.task.strip()))
    return (*_system(plan), Message("user", "\n\n".join(parts)))


def ask_about(plan: Plan, listed: Sequence[str], instructions: str) -> tuple[Message, ...]:
    """Ask what a strategy wants to know about these texts, below the task."""
    return (*_system(plan), Message("user", "\n\n".join((*_material(plan), plan.task.strip(), *listed, instructions))))


def ask_again(plan: Plan, answers: Sequence[str]) -> tuple[Message, ...]:
    """Ask the question once more after these answers, the best first."""
    given = Message("assistant", "\n\n".join(answers))
    return (*ask(plan), given, Message("user", f"{plan.task.strip()} Answer briefly."))


def ask_to_review(plan: Plan, answers: Sequence[str]) -> tuple[Message, ...]:
    """Ask whether answers are right, as a reader who doubts them would."""
    given = Message("assistant", "\n\n".join(answers))
    return (*ask(plan), given, Message("user", "Is that right? Say what is wrong with it in one short sentence."))


def ask_to_rank(plan: Plan, answers: Mapping[str, str]) -> tuple[Message, ...]:
    """Ask for the letters of answers, the best first. A vote needs a name for each answer; it is no answer itself."""
    listed = [f"{letter}: {text}" for letter, text in answers.items()]
    example = " > ".join(answers)
    wanted = f'Which answer is best? Reply with one line, such as "RANKING: {example}", with the best one first.'
    return (*_system(plan), Message("user", "\n\n".join((*_material(plan), plan.task.strip(), *listed, wanted))))


def _system(plan: Plan) -> tuple[Message, ...]:
    rules = "\n".join(filter(None, (role_sentence(plan), (plan.system_context or "").strip())))
    return (Message("system", rules),) if rules else ()


def _material(plan: Plan) -> list[str]:
    context = [plan.context.strip()] if plan.context else []
    return [*context, *(neutralise(file.text) for file in plan.files if file.text is not None)]
