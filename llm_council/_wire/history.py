"""Make a conversation legal for the vendor that gets it: ids of calls, blank texts, places of instructions.

A conversation may hold turns of other vendors, of servers without ids, and of the caller's own making. Each dialect's
``request.py`` encodes what ``fit_history`` returns; its rules stand beside it, with their sources.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import takewhile
from typing import Any

import attrs

from llm_council.errors import InvalidOption
from llm_council.models.messages import Message, Part, ReasoningPart, Role, TextPart, ToolCall

__all__ = [
    "INSTRUCTIONS",
    "CallIds",
    "InstructionPlace",
    "drop_empty_answers",
    "fit_history",
    "is_blank",
    "is_instruction",
    "join_instructions",
    "move_instructions",
]

INSTRUCTIONS = frozenset({Role.SYSTEM, Role.DEVELOPER})

_DIGEST = 9  # characters of the hash in an id that was shortened


class InstructionPlace(StrEnum):
    """Where a vendor takes instructions (system and developer turns).

    ``anywhere``; ``after-user`` (Anthropic's newer models: between a user's turn and the answer to it); ``first``,
    where they are one field of the request, or must begin the conversation.
    """

    ANYWHERE = "anywhere"
    AFTER_USER = "after-user"
    FIRST = "first"


@attrs.frozen(kw_only=True)
class CallIds:
    """The ids of tool calls that a vendor takes. The defaults take any text.

    Attributes:
        refused: the characters that it refuses, as the inside of a character class.
        longest: the most characters; None is unlimited.
        exactly: the only number of characters that it takes.
        may_be_empty: a call needs no id.
        echoed: by the type of a block that goes back unchanged, the key of the id of the call that it holds.
    """

    refused: str = ""
    longest: int | None = None
    exactly: int | None = None
    may_be_empty: bool = False
    echoed: Mapping[str, str] = attrs.field(factory=dict)

    def legal(self, call_id: str, again: int = 0) -> str:
        """Return an id that the vendor takes, the same one for the same arguments.

        Args:
            call_id: the id as the conversation has it.
            again: how often the id, or one that becomes the same, was used before: each number gives another id.
        """
        found = (re.sub(f"[{self.refused}]", "_", call_id) if self.refused else call_id) or "call"
        if again:
            found = f"{found}_{again + 1}"
        if self.exactly is not None:
            plain = found.isascii() and found.isalnum() and len(found) == self.exactly
            return found if plain else _digest(f"{call_id} {again}", self.exactly)
        if self.longest is not None and len(found) > self.longest:
            digest = _digest(f"{call_id} {again}", _DIGEST)
            return f"{found[: self.longest - len(digest) - 1]}_{digest}"
        return found


def _digest(text: str, length: int) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()[:length]


def is_instruction(turn: Message) -> bool:
    """Return True for a system or developer turn."""
    return turn.role in INSTRUCTIONS


def is_blank(text: str) -> bool:
    """Return True for a text without a visible character. Anthropic and Bedrock refuse such texts."""
    return not text.strip()


def fit_history(turns: Iterable[Message], *, vendor: str, ids: CallIds = CallIds()) -> tuple[Message, ...]:
    """Return the turns of a conversation as this vendor takes them.

    Reasoning of other vendors, blank texts of a model, and its turns in which nothing is left are dropped. Every call
    gets an id that is unique in the conversation: servers that count their calls anew in each turn repeat them. A
    result belongs to the latest call of its id that has no result yet.

    Args:
        turns: the turns.
        vendor: whose blocks are sent back unchanged; ids in these are changed as those of the calls are.
        ids: the ids that it takes.
    """
    kept = tuple(shown for turn in turns if (shown := _without_empty(turn, vendor)) is not None)
    return _with_unique_ids(kept, vendor, ids) if any(map(_may_hold_ids, kept)) else kept


def drop_empty_answers(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the encoded messages without the model's that say nothing: all it held was reasoning that is not sent.

    Raises:
        InvalidOption: no message is left. OpenAI refuses an empty list ("Invalid 'messages': empty array"); Ollama
            answers it by loading the model (its API reference, "Load a model").
    """
    kept = []
    for message in messages:
        facts = [value for key, value in message.items() if key not in ("role", "name")]
        if message["role"] != Role.ASSISTANT or any(facts):
            kept.append(message)
    if not kept:
        raise InvalidOption("the request holds nothing but empty turns: it needs a user's turn")
    return kept


def _without_empty(turn: Message, vendor: str) -> Message | None:
    """Return a turn without empty texts and foreign reasoning; None for a model's turn that holds nothing else."""
    content = turn.content
    if not isinstance(content, str):
        kept = tuple(part for part in content if not _is_left_out(part, vendor))
        if len(kept) < len(content):
            turn = attrs.evolve(turn, content=kept)
    if turn.role != Role.ASSISTANT or not is_blank(turn.text):
        return turn
    parts = () if isinstance(turn.content, str) else turn.content
    others = tuple(part for part in parts if not isinstance(part, TextPart))
    if not others and not turn.tool_calls:
        return None
    return attrs.evolve(turn, content=others) if turn.text else turn


def _is_left_out(part: Part, vendor: str) -> bool:
    if isinstance(part, ReasoningPart):
        return part.vendor != vendor or not (part.text or part.signature or part.data)
    return isinstance(part, TextPart) and not part.text


def _may_hold_ids(turn: Message) -> bool:
    """Return True for a turn that may hold the id of a call: a tool's, one with calls, or one with blocks."""
    return turn.role == Role.TOOL or bool(turn.tool_calls) or not isinstance(turn.content, str)


def _with_unique_ids(turns: Sequence[Message], vendor: str, ids: CallIds) -> tuple[Message, ...]:
    used: set[str] = set()
    answers: dict[str, list[str]] = {}  # the new ids by the old one, in the order in which results arrive

    def rename(old: str) -> str:
        if not old and ids.may_be_empty:
            return old
        again = 0
        while (new := ids.legal(old, again)) in used:
            again += 1
        used.add(new)
        return new

    fitted = []
    for turn in turns:
        if turn.role == Role.TOOL:
            fitted.append(_renamed_result(turn, ids, answers))
            continue
        parts = () if isinstance(turn.content, str) else turn.content
        echoed = [old for part in parts if (old := _echoed_id(part, vendor, ids)) is not None]
        renamed = {old: rename(old) for old in dict.fromkeys(echoed)}
        # A call that stands in a block as well is one call, and has one id.
        new_ids = [renamed[call.id] if call.id in renamed else rename(call.id) for call in turn.tool_calls]
        fresh: dict[str, list[str]] = {old: [new] for old, new in renamed.items()}
        for call, new in zip(turn.tool_calls, new_ids, strict=True):
            if call.id not in renamed:
                fresh.setdefault(call.id, []).append(new)
        answers.update(fresh)
        fitted.append(_renamed_calls(turn, vendor, ids, renamed, new_ids))
    return tuple(fitted)


def _renamed_result(turn: Message, ids: CallIds, answers: Mapping[str, list[str]]) -> Message:
    old = turn.tool_call_id
    if not old:
        return turn
    open_ids = answers.get(old)
    new = ids.legal(old)
    if open_ids:
        new = open_ids[0] if len(open_ids) == 1 else open_ids.pop(0)
    return turn if new == old else attrs.evolve(turn, tool_call_id=new)


def _renamed_calls(
    turn: Message, vendor: str, ids: CallIds, renamed: Mapping[str, str], new_ids: Sequence[str]
) -> Message:
    changes: dict[str, Any] = {}
    if any(old != new for old, new in renamed.items()) and not isinstance(turn.content, str):
        changes["content"] = tuple(_renamed_block(part, vendor, ids, renamed) for part in turn.content)
    if any(call.id != new for call, new in zip(turn.tool_calls, new_ids, strict=True)):
        calls: list[ToolCall] = [attrs.evolve(call, id=new) for call, new in zip(turn.tool_calls, new_ids, strict=True)]
        changes["tool_calls"] = calls
    return attrs.evolve(turn, **changes) if changes else turn


def _echoed_id(part: Part, vendor: str, ids: CallIds) -> str | None:
    """Return the id of the client's call in a block that goes back unchanged."""
    if not isinstance(part, ReasoningPart) or part.vendor != vendor or part.data is None:
        return None
    found = part.data.get(ids.echoed.get(str(part.data.get("type")), ""))
    return found if isinstance(found, str) else None


def _renamed_block(part: Part, vendor: str, ids: CallIds, renamed: Mapping[str, str]) -> Part:
    old = _echoed_id(part, vendor, ids)
    if old is None or not isinstance(part, ReasoningPart) or part.data is None:
        return part
    key = ids.echoed[str(part.data["type"])]
    return attrs.evolve(part, data={**part.data, key: renamed[old]})


def move_instructions(turns: Sequence[Message], place: InstructionPlace) -> tuple[Message, ...]:
    """Return the turns with every instruction where the vendor takes it; the same turns if all stand there.

    With ``after-user``, an instruction waits for the end of the user's turns and the results around it. One that no
    user's turn precedes or follows goes to the beginning, as every instruction does with ``first``.
    """
    if place is InstructionPlace.ANYWHERE:
        return tuple(turns)
    first = [turn for turn in turns if is_instruction(turn)]
    others = [turn for turn in turns if not is_instruction(turn)]
    if place is InstructionPlace.FIRST:
        return (*first, *others)
    front: list[Message] = []
    rest: list[Message] = []
    waiting: list[Message] = []
    for turn in turns:
        if is_instruction(turn):
            (waiting if rest else front).append(turn)
            continue
        if turn.role == Role.ASSISTANT:
            _place(waiting, front, rest)
            waiting = []
        rest.append(turn)
    _place(waiting, front, rest)
    return (*front, *rest)


def _place(waiting: list[Message], front: list[Message], rest: list[Message]) -> None:
    follows_user = bool(rest) and rest[-1].role != Role.ASSISTANT
    (rest if follows_user else front).extend(waiting)


def join_instructions(turns: Sequence[Message]) -> tuple[Message, ...]:
    """Return the turns with the instructions at the beginning as one turn, for templates that take no second one."""
    leading = list(takewhile(is_instruction, turns))
    if len(leading) < 2:
        return tuple(turns)
    text = "\n\n".join(turn.text for turn in leading if turn.text)
    return (Message(Role.SYSTEM, text), *turns[len(leading) :])
