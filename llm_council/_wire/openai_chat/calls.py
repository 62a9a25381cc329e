"""Tool calls of the OpenAI chat dialect: whole ones, and the pieces of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llm_council._wire.payloads import get_text, loads, malformed, need_object
from llm_council.errors import MalformedReply
from llm_council.models.messages import ToolCall
from llm_council.models.reply import ToolCallDelta

__all__ = ["CUSTOM", "CallPieces", "arguments_text", "call_extra", "call_id", "read_calls"]

CUSTOM = "custom"
"""The type of calls whose argument is free text; they are asked for, and answered, under this word."""

_OURS = ("id", "type", "function", "index", CUSTOM)


def read_calls(values: Iterable[Any], path: str) -> tuple[ToolCall, ...]:
    """Read whole calls; those of the server's own kinds, which nobody here answers, are left out.

    Args:
        values: the calls.
        path: where they stand in the reply.

    Raises:
        MalformedReply: one is no call, or has no name.
    """
    found = (_read_call(value, index, f"{path}[{index}]") for index, value in enumerate(values))
    return tuple(call for call in found if call is not None)


def _read_call(value: Any, index: int, path: str) -> ToolCall | None:
    call = need_object(value, path)
    if _is_foreign(call):
        return None
    key = _key(call)
    inner = need_object(call.get(key), f"{path}.{key}")
    name = get_text(inner, "name", f"{path}.{key}")
    if not name:
        raise malformed(f"{path}.{key}.name", "a name", inner.get("name"))
    return ToolCall(
        id=call_id(call.get("id"), index), name=name, arguments=_said(inner, key, f"{path}.{key}"), extra=_extra(call)
    )


def _key(call: Mapping[str, Any]) -> str:
    return CUSTOM if call.get("type") == CUSTOM or (CUSTOM in call and "function" not in call) else "function"


def _is_foreign(call: Mapping[str, Any]) -> bool:
    """Tell whether a call is of a kind of the server's own, such as a search that it made by itself."""
    return call.get("type") not in (None, "", "function", CUSTOM) and call.get("function") is None


def _said(inner: Mapping[str, Any], key: str, path: str) -> str:
    if key == CUSTOM:
        return get_text(inner, "input", path) or ""
    return arguments_text(inner.get("arguments"), f"{path}.arguments")


def _extra(call: Mapping[str, Any]) -> dict[str, Any]:
    return {**call_extra(call), "type": CUSTOM} if _key(call) == CUSTOM else call_extra(call)


def call_id(value: Any, index: int) -> str:
    """Return the id of a call, or one of our own where the server gave none."""
    return str(value) if isinstance(value, str | int) and value != "" else f"call_{index}"


def arguments_text(value: Any, path: str) -> str:
    """Return a call's arguments as JSON text; some servers send the object itself."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    raise malformed(path, "a string", value)


def call_extra(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the vendor's own keys of a call, such as Google's thought signature."""
    return {key: value for key, value in call.items() if key not in _OURS}


class _Call:
    """A call on its way.

    Attributes:
        number: the server's index of it.
        id: its id, as the server says it.
        place: which of our calls it is; None for a kind of the server's own.
        is_custom: its argument is free text.
        is_named: its name has come.
        said: the pieces of its arguments.
    """

    __slots__ = ("id", "is_custom", "is_named", "number", "place", "said")

    def __init__(self, number: Any, own_id: str, place: int | None, *, is_custom: bool) -> None:
        self.number = number
        self.id = own_id
        self.place = place
        self.is_custom = is_custom
        self.is_named = False
        self.said: list[str] = []

    def is_whole(self) -> bool:
        """Tell whether its arguments are an object that has ended."""
        try:
            return isinstance(loads("".join(self.said)), dict)
        except MalformedReply:
            return False


class CallPieces:
    """Find the call that each piece of a stream belongs to.

    Servers count from 0 or 1, leave the index out, or write 0 for each of several calls; some leave out the ids, some
    repeat id and name in every piece.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._count = 0  # of the calls that are ours

    def __len__(self) -> int:
        return self._count

    def add(self, values: Iterable[Any], path: str) -> tuple[ToolCallDelta, ...]:
        """Return what the pieces of one event add.

        Raises:
            MalformedReply: one is no piece of a call.
        """
        deltas: list[ToolCallDelta] = []
        begun: set[int] = set()
        for index, value in enumerate(values):
            delta = self._add(need_object(value, f"{path}[{index}]"), f"{path}[{index}]", begun)
            if delta is not None:
                deltas.append(delta)
        return tuple(deltas)

    def is_named(self) -> bool:
        """Tell whether every call has a name."""
        return all(call.is_named or call.place is None for call in self._calls)

    def _add(self, piece: dict[str, Any], path: str, begun: set[int]) -> ToolCallDelta | None:
        found = piece.get("id")
        own_id = str(found) if isinstance(found, str | int) and found != "" else ""
        key = _key(piece)
        inner = piece.get(key)
        inner = {} if inner is None else need_object(inner, f"{path}.{key}")
        name = get_text(inner, "name", f"{path}.{key}") or None
        said = _said(inner, key, f"{path}.{key}")
        call = self._find(piece.get("index"), own_id, name, said, begun)
        is_new = call is None
        if call is None:
            place = None if _is_foreign(piece) else self._count
            self._count += place is not None
            call = _Call(piece.get("index"), own_id, place, is_custom=key == CUSTOM)
            self._calls.append(call)
            begun.add(id(call))
        if call.place is None:
            return None
        if call.is_named:
            name = None  # some servers repeat it in every piece
        call.is_named = call.is_named or name is not None
        call.said.append(said)
        return ToolCallDelta(
            index=call.place,
            id=(own_id or f"call_{call.place}") if is_new else None,
            name=name,
            arguments=said,
            extra=_extra(piece) if is_new or not call.is_custom else call_extra(piece),
        )

    def _find(self, number: Any, own_id: str, name: str | None, said: str, begun: set[int]) -> _Call | None:
        """Return the call that a piece belongs to; None where it begins one.

        Another id together with a name begins another call, and so does a name without an id once the call before it
        was begun by the same event, or is whole.
        """
        numbered = [call for call in reversed(self._calls) if number is None or number == call.number]
        known = next((call for call in numbered if own_id and call.id == own_id), None)
        if known is not None:
            return known
        call = numbered[0] if numbered else None
        if call is None or name is None:
            return call
        if own_id:
            return None
        again = call.is_named and (id(call) in begun or (bool(said.strip()) and call.is_whole()))
        return None if again else call
