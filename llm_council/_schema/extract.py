"""Finding the JSON answer in what a model said: prose, fences and thinking around it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

import attrs

from llm_council.errors import InvalidOutput
from llm_council.models.deliberation import Problem

__all__ = ["MAX_CANDIDATES", "MAX_DEPTH", "MAX_DIGITS", "Extracted", "drop_thinking", "extract_json"]

MAX_DEPTH = 64
"""Levels of nesting in an answer."""

MAX_DIGITS = 1000
"""Digits of one whole number in an answer."""

MAX_CANDIDATES = 1000
"""JSON values looked at in one text."""

_THINK = r"(?:think|thinking|thought|reasoning)"
_OPENING = re.compile(rf"\s*(?:<{_THINK}>|\[THINK\])", re.IGNORECASE)
_CLOSING = re.compile(rf"</{_THINK}>|\[/THINK\]", re.IGNORECASE)
_CLOSING_LINE = re.compile(rf"^[ \t]*(?:</{_THINK}>|\[/THINK\])[ \t]*$", re.IGNORECASE | re.MULTILINE)
_LANDMARK = re.compile(
    rf"(?P<open><{_THINK}>|\[THINK\])|(?P<close></{_THINK}>|\[/THINK\])"
    # a text or a number, alone in a fence
    r"|(?P<fenced>(?:```|~~~)json[ \t]*+\n\s*+(?P<word>[^\s`~{\[][^\n`~{\[]*+)\n\s*+(?:```|~~~))"
    r"|\{(?=\s*[\"}])|\[(?=\s*[\[\]{\"\-0-9tfnNI])",
    re.IGNORECASE,
)
_FENCE_BEFORE = re.compile(r"(?:```|~~~)[^\n`~]*\n\s*\Z")
# What only JSON starts with: a key and its colon, or a list of texts or of such objects.
_BEGUN = re.compile(r'(?:\[\s*)*+\{\s*"(?:[^"\\]|\\.)*+"\s*:|(?:\[\s*)++"(?:[^"\\]|\\.)*+"\s*,', re.DOTALL)
_SURROGATES = re.compile("[\ud800-\udfff]")


@attrs.frozen(kw_only=True)
class Extracted:
    """A JSON value and where it stands.

    Attributes:
        value: the value.
        start: index of its first character in the text.
        end: index after its last.
    """

    value: Any
    start: int
    end: int


def extract_json(text: str, *, accepts: Callable[[Any], bool] | None = None) -> Extracted:
    """Find the JSON answer in a text.

    A text that is JSON as it stands is taken whole. Otherwise thinking is skipped, and of several values one that
    ``accepts`` takes wins, then a fenced one, then an object, then the later. A part of JSON that is broken or cut is
    never passed off as the answer, unless ``accepts`` takes it.

    Args:
        text: what the model said. Lone surrogates are read as U+FFFD.
        accepts: tells whether a value will do; None knows nothing about it.

    Returns:
        The value and its span.

    Raises:
        InvalidOutput: there is none, or it is broken, cut, too deep, or has a number that JSON cannot carry; its one
            problem says which and where.
    """
    text = _SURROGATES.sub("\ufffd", text)
    start = len(text) - len(text.lstrip())
    length = len(text.rstrip())
    whole = _decode(text, start, length)
    if isinstance(whole, Extracted) and whole.end >= length:
        return whole
    scan = _Scan(text, accepts or (lambda value: False))
    scan.run()
    return scan.best()


def drop_thinking(text: str) -> str:
    """Remove the thinking that some models write before their answer; all of the text when it never ends.

    Only what stands before the answer is removed: an answer that speaks about such tags keeps them.
    """
    while opening := _OPENING.match(text):
        closing = _CLOSING.search(text, opening.end())
        if closing is None:
            return ""
        text = text[closing.end() :].lstrip()
    # Templates that write the opening tag into the prompt leave only the closing one.
    lonely = _CLOSING_LINE.search(text)
    if lonely and not re.search(rf"<{_THINK}>|\[THINK\]", text[: lonely.start()], re.IGNORECASE):
        return text[lonely.end() :].lstrip()
    return text


@attrs.frozen
class _Broken:
    """Why no value starts at an index, and how far it was looked at."""

    reason: str
    reached: int
    begun: bool


class _Refused(ValueError):
    """A number that Python reads and JSON cannot carry."""


def _constant(word: str) -> NoReturn:
    raise _Refused(f"{word} is not a JSON number")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Refused(f"a number has more than {MAX_DIGITS} digits")
    return int(digits)


def _fraction(digits: str) -> float:
    value = float(digits)
    if value - value != 0:
        raise _Refused("a number is too large")
    return value


# Not strict: line breaks inside a JSON string are common, and can mean only one thing.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_constant, parse_int=_whole, parse_float=_fraction)


def _decode(text: str, start: int, length: int) -> Extracted | _Broken:
    """Decode the value that starts at an index; ``length`` is that of the text without the whitespace at its end."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        begun = _BEGUN.match(text, start) is not None
        if error.pos >= length or error.msg.startswith("Unterminated"):
            begun = begun or start + 1 < length <= error.pos
            return _Broken("the JSON ends before it is complete", length, begun)
        where = f"line {error.lineno}, column {error.colno}"
        return _Broken(f"not valid JSON at {where}: {error.msg}", error.pos, begun)
    except _Refused as error:
        return _Broken(str(error), length, begun=True)
    except RecursionError:
        return _Broken(f"nested deeper than {MAX_DEPTH} levels", length, begun=True)
    if _too_deep(text[start:end]):
        return _Broken(f"nested deeper than {MAX_DEPTH} levels", length, begun=True)
    return Extracted(value=_whole_text(value) if "\\u" in text[start:end] else value, start=start, end=end)


def _too_deep(source: str) -> bool:
    if source.count("[") + source.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', source, re.DOTALL):
        if token[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token[0] in "]}":
            depth -= 1
    return False


def _whole_text(value: Any) -> Any:
    r"""Replace the lone surrogates that escapes such as ``\ud800`` leave: no file and no socket takes them."""
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole_text(item) for item in value]
    if isinstance(value, dict):
        return {_whole_text(key): _whole_text(item) for key, item in value.items()}
    return value


@attrs.frozen
class _Candidate:
    found: Extracted
    accepted: bool
    inner: bool
    fenced: bool

    @property
    def rank(self) -> tuple[bool, bool, bool, int]:
        return self.accepted, self.fenced, isinstance(self.found.value, dict), self.found.start


class _Scan:
    """One pass over a text, its work bounded however hostile the text is."""

    def __init__(self, text: str, accepts: Callable[[Any], bool]) -> None:
        self._text = text
        self._length = len(text.rstrip())
        self._accepts = accepts
        self._candidates: list[_Candidate] = []
        self._broken: _Broken | None = None
        self._broken_until = 0
        self._left = 4 * len(text) + (1 << 20)  # characters that failed attempts may still look at
        self._thinking = True  # nothing but thinking so far
        self._unclosed = False  # no closing tag comes after this point

    def run(self) -> None:
        position = 0
        while self._left > 0 and len(self._candidates) < MAX_CANDIDATES:
            mark = _LANDMARK.search(self._text, position)
            if mark is None:
                return
            self._thinking = self._thinking and not self._text[position : mark.start()].strip()
            if mark["open"]:
                closing = None if self._unclosed else _CLOSING.search(self._text, mark.end())
                self._unclosed = closing is None
                if closing is None and self._thinking:
                    self._broken = _Broken("the text ends while the model is still thinking", self._length, begun=True)
                    return
                position = closing.end() if closing else mark.end()
            elif mark["close"]:
                # Its opening stood in the prompt: all before it was thinking.
                self._candidates.clear()
                self._broken, self._broken_until, self._thinking = None, 0, True
                position = mark.end()
            else:
                self._thinking = False
                position = self._value_at(mark)

    def _value_at(self, mark: re.Match[str]) -> int:
        start = mark.start("word") if mark["fenced"] else mark.start()
        outcome = _decode(self._text, start, self._length)
        if isinstance(outcome, _Broken):
            # The decoder counts lines up to where it failed: attempts late in a long text cost more.
            self._left -= max(64, outcome.reached - start) + outcome.reached // 64
            if outcome.begun:
                self._broken_until = max(self._broken_until, outcome.reached)
            if self._broken is None or (outcome.begun and not self._broken.begun):
                self._broken = outcome
            return mark.end() if mark["fenced"] else start + 1
        self._candidates.append(
            _Candidate(
                outcome,
                accepted=self._accepts(outcome.value),
                inner=start < self._broken_until,
                fenced=_FENCE_BEFORE.search(self._text[max(0, start - 64) : start]) is not None,
            )
        )
        return outcome.end

    def best(self) -> Extracted:
        eligible = [candidate for candidate in self._candidates if candidate.accepted or not candidate.inner]
        if eligible:
            return max(eligible, key=lambda candidate: candidate.rank).found
        reason = self._broken.reason if self._broken else "no JSON value was found in the answer"
        problem = Problem(path="$", message=reason)
        raise InvalidOutput(reason, problems=(problem,), text=self._text)
