"""Answers that a vendor sends in several replies: each but the last one ends with a token that asks for the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from llm_council.models.reply import GenerateChunk, ToolCallDelta, Usage
from llm_council.models.request import GenerateRequest

__all__ = ["MOST_REPLIES", "Continuation", "JoinedReplies"]

MOST_REPLIES = 16
"""The most replies of one answer."""


@attrs.frozen
class Continuation:
    """How a vendor says that an answer goes on.

    Attributes:
        word: the vendor's finish reason of a reply that is not the last one.
        key: the key of the token, in a reply's ``extra`` and in the next request.
        renumber: returns a reply's ``extra`` with its indices counted from the beginning of the answer. It gets the
            ``extra``, the joined one of the replies before, and the length of their text in bytes of UTF-8.
    """

    word: str
    key: str
    renumber: Callable[[Mapping[str, Any], Mapping[str, Any], int], Mapping[str, Any]]


class JoinedReplies:
    """Joins the pieces of several replies to one answer: calls are numbered on, and usage is summed.

    Args:
        rule: how the vendor says that an answer goes on; None if it sends each answer in one reply.
    """

    def __init__(self, rule: Continuation | None) -> None:
        self._rule = rule
        self._replies = 1
        self._token: Any = None
        self._sent: Any = None  # the token of the current request
        self._end: GenerateChunk | None = None  # how the current reply ended, if not as the last one
        self._usage: Usage | None = None  # of the current reply, and of the ones before
        self._usage_before: Usage | None = None
        self._extra: dict[str, Any] = {}
        self._extra_before: dict[str, Any] = {}
        self._text = self._text_before = 0  # bytes of the text so far, and of that of the replies before
        self._calls = 0
        self._ids: dict[str, int] = {}  # the index of the call that has the id
        self._calls_before = 0

    def add(self, piece: GenerateChunk) -> GenerateChunk:
        """Return a piece of the current reply as a piece of the whole answer."""
        rule = self._rule
        if rule is None:
            return piece
        changes: dict[str, Any] = {}
        if piece.extra:
            extra = dict(piece.extra)
            self._token = extra.pop(rule.key, None) or self._token
            self._extra.update(extra)
            changes["extra"] = self._joined_extra(rule, extra)
        self._text += len(piece.text.encode(errors="replace"))
        if piece.usage is not None:
            self._usage = piece.usage
            changes["usage"] = _sum(self._usage_before, piece.usage)
        if piece.tool_calls:
            changes["tool_calls"] = tuple(self._numbered_on(delta) for delta in piece.tool_calls)
        if piece.raw_finish_reason == rule.word:
            self._end = GenerateChunk(finish_reason=piece.finish_reason, raw_finish_reason=rule.word)
            changes.update(finish_reason=None, raw_finish_reason=None)
        return attrs.evolve(piece, **changes) if changes else piece

    def _joined_extra(self, rule: Continuation, extra: Mapping[str, Any]) -> dict[str, Any]:
        before = self._extra_before
        if self._replies > 1:
            extra = rule.renumber(extra, before, self._text_before)
        return {key: _joined(before.get(key), value) for key, value in extra.items()}

    def _numbered_on(self, delta: ToolCallDelta) -> ToolCallDelta:
        index = delta.index + self._calls_before
        self._calls = max(self._calls, index + 1)
        call_id = delta.id
        if call_id and self._ids.setdefault(call_id, index) != index:
            call_id = f"{call_id}_{index}"  # each reply numbers its calls from 0, and results refer to the id
        return attrs.evolve(delta, index=index, id=call_id)

    def next_request(self, asked: GenerateRequest) -> GenerateRequest | None:
        """Return the request for the next reply; None if there is none.

        There is none after ``MOST_REPLIES``, nor for a token that was sent already: it would bring the same reply.

        Args:
            asked: the request of the current reply, which has ended.
        """
        rule = self._rule
        if rule is None or self._end is None or self._replies == MOST_REPLIES:
            return None
        if not self._token or self._token == self._sent:
            return None
        self._replies += 1
        self._sent, self._token, self._end = self._token, None, None
        self._usage_before, self._usage = _sum(self._usage_before, self._usage), None
        self._extra_before, self._extra = {**self._extra_before, **self._joined_extra(rule, self._extra)}, {}
        self._text_before = self._text
        self._calls_before = self._calls
        return attrs.evolve(asked, extra={**asked.extra, rule.key: self._sent})

    def finish(self) -> list[GenerateChunk]:
        """Return the end of an answer that goes on but was not continued, with the token if there is one."""
        if self._end is None or self._rule is None:
            return []
        return [attrs.evolve(self._end, extra={self._rule.key: self._token} if self._token else {})]


def _sum(before: Usage | None, usage: Usage | None) -> Usage | None:
    if before is None or usage is None:
        return usage or before
    return before + usage


def _joined(before: Any, value: Any) -> Any:
    """Return the value for a key that several replies have: lists follow each other, other values replace."""
    if isinstance(before, list) and isinstance(value, list):
        return before + value
    if isinstance(before, Mapping) and isinstance(value, Mapping):
        return {**before, **{key: _joined(before.get(key), item) for key, item in value.items()}}
    return value
