"""The conversation that a run goes on from: earlier tasks and answers, above the task of the run.

Earlier answers are models' texts, so they stand in fences, as drafts do. Models that repeat fences (``plain_prompts``)
get them as turns of the assistant. Drafts and reviews of earlier runs are left out; what seats answered that did not
agree is told in a line each.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from llm_council._engine.fences import cut_middle, derive_code, enclose, neutralise, to_bytes, without_codes
from llm_council._engine.plain_prompts import MOST_SHOWN, shown_answer
from llm_council.errors import InvalidOption
from llm_council.models import GenerateRequest, Limits, Message, PastTask, Plan, Role, SeatSpec, Status, TextPart
from llm_council.models._attrs import copy_with
from llm_council.results import CouncilResult
from llm_council.results.plain import split_answer

__all__ = [
    "History",
    "fitting",
    "forget_oldest",
    "history_code",
    "history_parts",
    "history_turns",
    "read_history",
    "shown_tasks",
]

HEADER: Final = "The task goes on from this conversation, the oldest part first."
"""The line above the earlier tasks in a prompt."""

SMALL_TASKS: Final = 2
"""Earlier tasks that a model of a few hundred million parameters is shown: it loses track of long texts."""

_NO_TASK: Final = "(The conversation begins with an answer.)"
_NO_ANSWER: Final = "(There was no answer.)"


@attrs.frozen(kw_only=True)
class History:
    """What a run goes on from.

    Attributes:
        tasks: the earlier tasks with their answers, the oldest first.
        follows: id of the run that gave the last answer; None for turns of the caller.
        left_out: how many still earlier tasks are not among ``tasks``.
    """

    tasks: tuple[PastTask, ...]
    follows: str | None = None
    left_out: int = 0


def read_history(given: CouncilResult[Any] | Sequence[Message]) -> History:
    """Return what the caller gave as ``history``.

    Raises:
        InvalidOption: the run has no answer, or it is neither a result nor turns of user and assistant.
    """
    if isinstance(given, CouncilResult):
        return _of_result(given)
    if isinstance(given, bytes | Mapping) or not isinstance(given, Sequence):
        raise InvalidOption(
            f"history: expected a CouncilResult, the id of a stored run, or a list of Message, got {given!r:.80}"
        )
    return _of_turns(given)


def _of_result(result: CouncilResult[Any]) -> History:
    plan, dissent = result.plan, _dissent(result)
    if not result.success and not (result.status == Status.ABSTAINED and dissent):
        remedy = "ask again, or go on from an earlier run"
        if result.status != Status.ABSTAINED:  # that of a run that has ended
            remedy = f"`council resume {result.run_id}` continues it if it is in a store; else {remedy}"
        raise InvalidOption(f"history: the run {result.run_id} has no answer, it is {result.status}: {remedy}")
    past = PastTask(task=result.task, answer=_answer(result), dissent=dissent, run_id=result.run_id)
    return History(tasks=(*plan.history, past), follows=result.run_id, left_out=plan.history_left_out)


def _answer(result: CouncilResult[Any]) -> str:
    """Return the answer as text: prose as it is, any other value as JSON."""
    if not result.success:
        return "The council gave no answer: the seats did not agree."
    shown, beside = split_answer(result)
    if isinstance(shown, str) and all(isinstance(item, str) for item in beside.values()):
        return "\n\n".join([shown, *map(str, beside.values())])
    from llm_council.models._convert import dump  # imports cattrs, which other runs do not need

    return json.dumps(dump(result.output_value), ensure_ascii=False)


def _dissent(result: CouncilResult[Any]) -> tuple[str, ...]:
    """Return the answers that did not win, in a few words each; never the drafts that gave them."""
    drafts = max(len(result.plan.drafters) * result.plan.samples, 1)
    return tuple(f"{_one_line(one.answer.shown)} ({len(one.seats)} of {drafts})" for one in result.dissent)


def _one_line(text: str) -> str:
    return " ".join(neutralise(text).split())[:300]


def _of_turns(turns: Sequence[Message]) -> History:
    tasks: list[PastTask] = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, Message):
            raise InvalidOption(f"history: expected turns, as Message(role, content), got {turn!r:.80}")
        if turn.role not in (Role.USER, Role.ASSISTANT):
            raise InvalidOption(
                f"history: turn {number} is of the role {turn.role!r}: only turns of user and assistant go on; pass"
                " other text as context=, or in CouncilConfig(system_context=...)"
            )
        if not isinstance(turn.content, str) and any(type(part).__name__ in _OTHERS for part in turn.content):
            raise InvalidOption(f"history: turn {number} holds more than text: pass its files in files=")
        last = tasks[-1] if tasks else None
        if turn.role == Role.USER:
            if last is not None and not last.answer:  # two turns of the user in a row
                tasks[-1] = attrs.evolve(last, task=_joined(last.task, turn.text))
            else:
                tasks.append(PastTask(task=turn.text))
        elif last is None:
            tasks.append(PastTask(task="", answer=turn.text))
        else:
            tasks[-1] = attrs.evolve(last, answer=_joined(last.answer, turn.text))
    return History(tasks=tuple(task for task in tasks if task.task.strip() or task.answer.strip()))


_OTHERS: Final = frozenset({"ImagePart", "DocumentPart", "AudioPart"})


def _joined(before: str, text: str) -> str:
    return f"{before}\n\n{text}" if before else text


def fitting(history: History, limits: Limits) -> History:
    """Return the history with the last task, and as many of those before it as fit into ``limits.history``."""
    if not history.tasks:
        return history
    kept: list[PastTask] = []
    size = 0
    for past in reversed(history.tasks):
        size += len(past.task) + min(len(past.answer), limits.peer_text) + sum(map(len, past.dissent))
        if kept and size > limits.history:
            break
        kept.append(past)
    left_out = history.left_out + len(history.tasks) - len(kept)
    return attrs.evolve(history, tasks=tuple(reversed(kept)), left_out=left_out)


def shown_tasks(history: Sequence[PastTask], seat: SeatSpec) -> tuple[PastTask, ...]:
    """Return the earlier tasks that a seat is shown: all of them, or of a small model the last ones."""
    is_small = seat.plain_prompts or seat.prose_first
    return tuple(history[-SMALL_TASKS:] if is_small else history)


def history_code(plan: Plan) -> list[str]:
    """Return the code of the fences around earlier answers; none without any. It is the same in all calls of a run."""
    return [derive_code(plan, "history")] if plan.history else []


def history_parts(plan: Plan, seat: SeatSpec) -> list[str]:
    """Return the parts of a prompt that hold the conversation: a line about it, and one part for each earlier task."""
    limit = plan.limits.peer_text
    if seat.prose_first:
        limit = min(limit, MOST_SHOWN)
    codes = history_code(plan)
    tasks = shown_tasks(plan.history, seat)
    first = plan.history_left_out + len(plan.history) - len(tasks) + 1
    parts = []
    for number, past in enumerate(tasks, first):
        task = cut_middle(past.task.strip(), limit) if seat.prose_first else past.task.strip()
        lines = [
            f"Earlier task {number}:\n{task or _NO_TASK}",
            _quoted(f"Answer to earlier task {number}", past.answer or _NO_ANSWER, codes, limit),
        ]
        if past.dissent and not seat.prose_first:
            others = "\n".join(f"- {line}" for line in past.dissent)
            title = f"Other answers to earlier task {number}, with which not all agreed"
            lines.append(_quoted(title, others, codes, limit))
        parts.append("\n\n".join(lines))
    return [HEADER, *parts] if parts else []


def _quoted(title: str, text: str, codes: Sequence[str], limit: int) -> str:
    """Put a text of an earlier run into a fence. Lines in it that look like a fence are broken.

    With a fixed seed, an earlier run has seen the codes of this one.
    """
    body = cut_middle(without_codes(neutralise(text), codes), limit)
    return enclose(title, _FENCE.sub(lambda found: " ".join(found[0].strip()), body), codes)


_FENCE: Final = re.compile(r"^[ \t]*\[\[\[|\]\]\][ \t]*$", re.MULTILINE)


def history_turns(plan: Plan, seat: SeatSpec) -> tuple[Message, ...]:
    """Return the conversation for a model that repeats fences: two turns for each earlier task."""
    limit = min(plan.limits.peer_text, MOST_SHOWN)
    turns = []
    for past in shown_tasks(plan.history, seat):
        task, answer = shown_answer(past.task, limit), shown_answer(past.answer, limit)
        turns += [Message("user", task or _NO_TASK), Message("assistant", answer or _NO_ANSWER)]
    return tuple(turns)


def forget_oldest(plan: Plan, seat: SeatSpec, request: GenerateRequest) -> tuple[GenerateRequest, int] | None:
    """Return a request without the older half of its earlier tasks, and how many are left.

    Args:
        plan: the run's plan.
        seat: the seat that was asked.
        request: the request, which was too long for the seat's model.

    Returns:
        None if the request holds no earlier task.
    """
    found = _shorter_turns(plan, seat, request) if seat.plain_prompts else _shorter_text(plan, seat, request)
    if found is None:
        return None
    turns, left = found
    # Another body needs another key: a vendor may answer an equal key with the stored refusal.
    key = hashlib.blake2b(to_bytes(request.idempotency_key or "", "earlier", str(left)), digest_size=16).hexdigest()
    return copy_with(request, messages=turns, idempotency_key=key), left


def _shorter_turns(plan: Plan, seat: SeatSpec, request: GenerateRequest) -> tuple[tuple[Message, ...], int] | None:
    turns = request.messages
    start = 1 if turns and turns[0].role == Role.SYSTEM else 0
    whole = history_turns(plan, seat)
    held = next((n for n in range(len(whole), 0, -2) if turns[start : start + n] == whole[-n:]), 0)
    if not held:
        return None
    left = held // 2 // 2
    return (*turns[:start], *turns[start + held - 2 * left :]), left


def _shorter_text(plan: Plan, seat: SeatSpec, request: GenerateRequest) -> tuple[tuple[Message, ...], int] | None:
    header, *parts = history_parts(plan, seat) or [""]
    # The text with each number of its latest tasks, the most first.
    texts = ["".join(f"{part}\n\n" for part in (header, *parts[first:])) for first in range(len(parts))] + [""]
    for place, turn in enumerate(request.messages):
        pieces = (TextPart(text=turn.content),) if isinstance(turn.content, str) else turn.content
        for index, piece in enumerate(pieces):
            if not isinstance(piece, TextPart) or not piece.text.startswith(header or "\0"):
                continue
            held = next((first for first, text in enumerate(texts[:-1]) if piece.text.startswith(text)), None)
            if held is None:
                continue
            left = (len(parts) - held) // 2
            text = texts[len(parts) - left] + piece.text[len(texts[held]) :]
            changed = (*pieces[:index], attrs.evolve(piece, text=text), *pieces[index + 1 :])
            shorter = attrs.evolve(turn, content=changed)
            return (*request.messages[:place], shorter, *request.messages[place + 1 :]), left
    return None
