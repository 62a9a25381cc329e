"""Tools in plain text, for vendors without a field for them: tools in the prompt, calls in the answer.

The prompt describes the tools, and the model calls them by ending its answer with one JSON object. Only an object of
exactly that form that names offered tools is a call. Everything else stays text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import attrs

from llm_council._wire.payloads import loads, well_formed
from llm_council.errors import MalformedReply
from llm_council.models.limits import Limits
from llm_council.models.messages import Message, Part, Role, TextPart, ToolCall
from llm_council.models.reply import Adjustment, FinishReason, GenerateChunk, GenerateResponse, ToolCallDelta, join
from llm_council.models.request import GenerateRequest, Tool

__all__ = ["CallParser", "callable_tools", "calls_as_text", "describe_tools", "parse_calls"]

_LIMITS = Limits()
_INSTRUCTING = frozenset({Role.SYSTEM, Role.DEVELOPER})
_CALL = (
    "You have tools, which are listed below with the JSON Schema of their arguments. To call some of them, end your"
    " answer with one JSON object of this form, beginning on a line of its own, with nothing after it, whatever form"
    ' the answer must otherwise have:\n{"tool_calls": [{"name": "NAME", "arguments": {}}]}\nThen wait: the next turn'
    ' brings their results, as {"tool_results": [...]}. An answer that calls no tool holds no such object.'
)


# Requests.


def callable_tools(request: GenerateRequest) -> tuple[Tool, ...]:
    """Return the tools that the model may call; none if ``tool_choice`` is ``"none"``."""
    return () if request.tool_choice == "none" else request.tools


def describe_tools(request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Write a request's tools, and the calls and results in its conversation, as text. Pure and idempotent.

    Returns:
        A request without tools (the same object if it has none), and the adjustments that were made.
    """
    turns, adjustments = request.turns(), []
    if any(turn.tool_calls or turn.role == Role.TOOL for turn in turns):
        turns = tuple(_without_calls(turns))
        adjustments.append(_emulated("messages", None, "it has no field for calls of tools: they stand in the text"))
    if request.tools:
        tools, choice, names = callable_tools(request), request.tool_choice, tuple(tool.name for tool in request.tools)
        if tools:
            at = next((at for at, turn in enumerate(turns) if turn.role not in _INSTRUCTING), len(turns))
            turns = (*turns[:at], Message(Role.SYSTEM, _offer(tools, choice)), *turns[at:])
            adjustments.append(_emulated("tools", names, "it has no field for tools: they stand in the prompt"))
        else:
            adjustments.append(
                Adjustment(field="tools", action="dropped", asked=names, reason="none of them may be called")
            )
        if tools and choice not in (None, "auto"):
            adjustments.append(_emulated("tool_choice", choice, "it cannot be enforced: it stands in the prompt"))
    if not adjustments:
        return request, ()
    choice = None if request.tools else request.tool_choice
    return attrs.evolve(request, prompt=None, messages=turns, tools=(), tool_choice=choice), tuple(adjustments)


def _emulated(field: str, asked: Any, reason: str) -> Adjustment:
    return Adjustment(field=field, action="emulated", asked=asked, reason=reason)


def _offer(tools: Iterable[Tool], choice: str | None) -> str:
    rows = [_json({"name": t.name, "description": t.description or "", "parameters": t.parameters}) for t in tools]
    must = "" if choice in (None, "auto") else f"\nIn this answer, you must call the tool {_json(choice)}."
    if choice == "required":
        must = "\nIn this answer, you must call at least one tool."
    return "\n".join([_CALL + must, *rows])


def _json(value: Any) -> str:
    return well_formed(json.dumps(value, ensure_ascii=False, default=dict))


def _without_calls(turns: Sequence[Message]) -> Iterable[Message]:
    """Yield a conversation with calls and results as JSON text; neighbouring results become one turn."""
    names = {call.id: call.name for turn in turns for call in turn.tool_calls}
    results: list[Message] = []
    for turn in turns:
        if results and turn.role != Role.TOOL:
            yield _results(results, names)
            results = []
        if turn.role == Role.TOOL:
            results.append(turn)
        elif turn.tool_calls:
            text = _envelope(turn.tool_calls, ids=True)
            if turn.text:
                text = f"\n{text}"
            content = turn.content + text if isinstance(turn.content, str) else (*turn.content, TextPart(text=text))
            yield attrs.evolve(turn, content=content, tool_calls=())
        else:
            yield turn
    if results:
        yield _results(results, names)


def _results(turns: Iterable[Message], names: dict[str, str]) -> Message:
    rows, beside = [], list[Part]()
    for turn in turns:
        name = turn.name or names.get(turn.tool_call_id or "")
        row = {"id": turn.tool_call_id, "name": name, "content": turn.text}
        rows.append({key: value for key, value in row.items() if value is not None})
        if not isinstance(turn.content, str):
            beside += [part for part in turn.content if not isinstance(part, TextPart)]
    return Message(Role.USER, (TextPart(text=_json({"tool_results": rows})), *beside))


def _envelope(calls: Iterable[ToolCall], *, ids: bool = False) -> str:
    rows = []
    for call in calls:
        arguments: Any = call.arguments  # written unchanged where they are not a JSON object
        with suppress(MalformedReply):
            value = loads(call.arguments or "{}")
            arguments = value if isinstance(value, dict) else arguments
        rows.append({**({"id": call.id} if ids else {}), "name": call.name, "arguments": arguments})
    return _json({"tool_calls": rows})


def calls_as_text(response: GenerateResponse) -> GenerateResponse:
    """Return an answer with its calls written into its text, as a model writes them; fake vendors use it."""
    if not response.tool_calls:
        return response
    text = "\n".join([*([response.text] if response.text else []), _envelope(response.tool_calls)])
    return attrs.evolve(response, text=text, content=text, tool_calls=(), finish_reason=None, raw_finish_reason=None)


# Answers.


def _prefixes(tokens: Sequence[str]) -> str:
    """Return a pattern that matches every beginning of a sequence of tokens."""
    pattern = ""
    for token in reversed(tokens):
        pattern = f"(?:{token}{pattern})?"
    return pattern


_KEY = (r"\{", r"\s*", *'"tool_calls"', r"\s*", ":")
_FENCE = ("`", "`", "`", "[a-zA-Z]*", r"[ \t]*\r?", "\n", r"\s*")
_OPENING = re.compile(rf"\s*(?:{''.join(_FENCE)})?{''.join(_KEY)}")
_MAY_OPEN = re.compile(rf"\s*(?:{_prefixes(_KEY)}|{_prefixes((*_FENCE, *_KEY))})")
_LATER = re.compile(rf"^[ \t]*(?:{''.join(_FENCE)})?{''.join(_KEY)}", re.MULTILINE)
_LONGEST = 256  # characters that may be held back while they could still open an object of calls
_STRUCTURE = re.compile(r'["{}\\]')  # what tells where an object ends
_TRIED = 16  # openings that are parsed at the end of an answer, counted from the last


class _ObjectScanner:
    """Finds the end of a JSON object that arrives in pieces.

    Attributes:
        closed: the object has ended.
    """

    def __init__(self) -> None:
        self.closed = False
        self._depth = 0
        self._in_string = self._escaped = False

    def feed(self, text: str, at: int) -> int:
        """Scan a text from a position on, and return where the object ends in it, or the text."""
        while at < len(text):
            if self._escaped:
                self._escaped, at = False, at + 1
                continue
            found = _STRUCTURE.search(text, at)
            if found is None:
                break
            sign, at = found[0], found.end()
            if sign == '"':
                self._in_string = not self._in_string
            elif sign == "\\":
                self._escaped = self._in_string
            elif not self._in_string:
                self._depth += 1 if sign == "{" else -1
                if self._depth <= 0:
                    self.closed = True
                    return at
        return len(text)


def _next_opening(text: str, end: int) -> int | None:
    """Return where the next object of calls opens after the end of one; -1 if text follows, None if either may."""
    at = end
    while True:
        newline = text.find("\n", at)
        line = text[at : newline if newline >= 0 else len(text)].strip()
        if at > end and _OPENING.match(text, at, at + _LONGEST):
            return at
        if at > end and len(text) - at <= _LONGEST and _MAY_OPEN.fullmatch(text, at):
            return None
        if line not in ("", "```"):
            return None if newline < 0 and line in ("`", "``") else -1
        if newline < 0:
            return None
        at = newline + 1


class CallParser:
    """Separate calls from text in an answer that arrives in pieces.

    Text passes at once, except from a line on that may open an object of calls: that part waits for the answer's end,
    or for text after the object, which shows that it is no call.

    Args:
        request: the request with its tools; without tools, everything passes.
        limits: ``json_depth`` bounds the object.
    """

    def __init__(self, request: GenerateRequest, limits: Limits = _LIMITS) -> None:
        self._names = {tool.name for tool in callable_tools(request)}
        self._choice = request.tool_choice if self._names else None
        self._ids = {call.id for turn in request.messages for call in turn.tool_calls}
        self._ids |= {turn.tool_call_id for turn in request.messages if turn.tool_call_id}
        self._limits = limits
        self._fresh = True  # at the beginning of a line
        self._held: list[str] = []  # from an opening on
        self._object: _ObjectScanner | None = None  # the object of calls that is held back
        self._undecided = ""  # the end of the text, which may open an object, or follows one
        self._end = GenerateChunk()

    def feed(self, piece: GenerateChunk) -> list[GenerateChunk]:
        """Return the part of a piece that is certainly no call."""
        if not self._names:
            return [piece]
        text = self._pass(piece.text) if piece.text else ""
        if piece.finish_reason is not None or piece.raw_finish_reason is not None:
            # The finish reason comes with the last piece, since calls that are found there change it.
            self._end = attrs.evolve(
                self._end,
                finish_reason=piece.finish_reason or self._end.finish_reason,
                raw_finish_reason=piece.raw_finish_reason or self._end.raw_finish_reason,
            )
            piece = attrs.evolve(piece, finish_reason=None, raw_finish_reason=None)
        piece = attrs.evolve(piece, text=text) if text != piece.text else piece
        return [] if piece == _NOTHING else [piece]

    def finish(self) -> list[GenerateChunk]:
        """Return the calls at the answer's end, or the text that was held back."""
        if not self._names:
            return []
        text, calls = "".join(self._held) + self._undecided, list[ToolCallDelta]()
        if self._held and self._end.finish_reason != FinishReason.CONTENT_FILTER:
            text, calls = self._split_calls(text)
        last = attrs.evolve(self._end, text=text, tool_calls=tuple(calls), adjustments=self._unmet(calls))
        if calls:
            last = attrs.evolve(last, finish_reason=FinishReason.TOOL_CALLS)
        return [] if last == _NOTHING else [last]

    def _pass(self, text: str) -> str:
        """Return what is certainly text, and hold back the rest."""
        text, self._undecided = self._undecided + text, ""
        passed: list[str] = []
        at = 0
        while at < len(text):
            at = self._pass_lines(text, at, passed) if self._object is None else self._hold(text, at, passed)
        return "".join(passed)

    def _pass_lines(self, text: str, start: int, passed: list[str]) -> int:
        """Pass text up to an object of calls; return where that begins, or the end of the text."""
        at = start
        while at < len(text):
            if self._fresh:
                if _OPENING.match(text, at, at + _LONGEST):
                    self._object = _ObjectScanner()
                    break
                if len(text) - at <= _LONGEST and _MAY_OPEN.fullmatch(text, at):
                    passed.append(text[start:at])
                    self._undecided = text[at:]
                    return len(text)
            newline = text.find("\n", at)
            self._fresh = newline >= 0
            at = newline + 1 if self._fresh else len(text)
        passed.append(text[start:at])
        return at

    def _hold(self, text: str, at: int, passed: list[str]) -> int:
        """Hold an object and the blank lines after it back; once other text follows, pass what is held."""
        if self._object is not None and not self._object.closed:
            end = self._object.feed(text, at)
            self._held.append(text[at:end])
            return end
        opening = _next_opening(text, at)
        if opening is None:
            last_line = max(text.rfind("\n", at), at)
            self._held.append(text[at:last_line])
            self._undecided = text[last_line:]
            return len(text)
        if opening < 0:
            passed += self._held
            self._held, self._object, self._fresh = [], None, False
            return at
        self._held.append(text[at:opening])
        self._object = _ObjectScanner()
        return opening

    def _split_calls(self, text: str) -> tuple[str, list[ToolCallDelta]]:
        """Split the end of an answer into text and calls; several objects of calls may follow each other."""
        rows: list[dict[str, Any]] = []
        begin = len(text)
        for found in reversed(list(_LATER.finditer(text))[-_TRIED:]):
            before = self._rows(text[found.start() : begin].strip())
            if before:
                rows, begin = before + rows, found.start()
        if not rows:
            return text, []
        return text[:begin].rstrip(), [self._call(index, row) for index, row in enumerate(rows)]

    def _rows(self, text: str) -> list[dict[str, Any]]:
        """Return the rows of an object of calls; none if the text is not such an object."""
        text = text.removesuffix("```")  # one fence may hold several objects
        if text.startswith("```"):
            text = text.partition("\n")[2]
        try:
            value = loads(text.strip(), self._limits)
        except MalformedReply:
            return []
        rows = value["tool_calls"] if isinstance(value, dict) and value.keys() == {"tool_calls"} else None
        return rows if isinstance(rows, list) and all(map(self._is_call, rows)) else []

    def _is_call(self, row: Any) -> bool:
        if not isinstance(row, dict) or not row.keys() <= {"id", "name", "arguments"}:
            return False
        name = row.get("name")
        return isinstance(name, str) and name in self._names and isinstance(row.get("arguments", {}), dict)

    def _call(self, index: int, row: dict[str, Any]) -> ToolCallDelta:
        number = len(self._ids)
        while f"call_{number}" in self._ids:
            number += 1
        self._ids.add(f"call_{number}")
        return ToolCallDelta(
            index=index, id=f"call_{number}", name=row["name"], arguments=_json(row.get("arguments", {}))
        )

    def _unmet(self, calls: Iterable[ToolCallDelta]) -> tuple[Adjustment, ...]:
        """Return an adjustment if the answer does not call the tool that ``tool_choice`` requires."""
        if self._choice in (None, "auto") or any(self._choice in ("required", call.name) for call in calls):
            return ()
        what = "no tool" if self._choice == "required" else "another tool, or none"
        return (_emulated("tool_choice", self._choice, f"the answer does not meet it: it calls {what}"),)


_NOTHING = GenerateChunk()


def parse_calls(response: GenerateResponse, request: GenerateRequest, limits: Limits = _LIMITS) -> GenerateResponse:
    """Separate calls from text in a whole answer; arguments are those of ``CallParser``."""
    parser = CallParser(request, limits)
    found = join([*parser.feed(GenerateChunk.whole(response)), *parser.finish()])
    if not found.tool_calls:
        return attrs.evolve(response, adjustments=found.adjustments)
    return attrs.evolve(
        response,
        text=found.text,
        content=found.text,
        tool_calls=found.tool_calls,
        finish_reason=FinishReason.TOOL_CALLS,
        adjustments=found.adjustments,
    )
