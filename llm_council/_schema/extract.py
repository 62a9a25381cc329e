"""Find the JSON answer in a model's text, among prose, code fences and thinking."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from math import isfinite
from typing import Any, NoReturn

import attrs

from llm_council.errors import InvalidOutput
from llm_council.models._lenient_json import is_long_and_plain, mend, replace_surrogates
from llm_council.models.deliberation import Problem

__all__ = ["MAX_CANDIDATES", "MAX_DEPTH", "MAX_DIGITS", "Extracted", "drop_thinking", "extract_json"]

MAX_DEPTH = 64
"""Maximum levels of nesting in an answer."""

MAX_DIGITS = 1000
"""Maximum digits of an integer in an answer; the time to convert one grows with the square of its length."""

MAX_CANDIDATES = 1000
"""Maximum number of JSON values that are decoded from one text."""

# Tags around the reasoning of open models: <think> of DeepSeek-R1 and Qwen3, [THINK] of Magistral, and their variants.
_THINK = r"(?:think|thinking|thought|reasoning)"
_OPENING = re.compile(rf"\s*(?:<{_THINK}>|\[THINK\])", re.IGNORECASE)
_CLOSING = re.compile(rf"</{_THINK}>|\[/THINK\]", re.IGNORECASE)
_CLOSING_LINE = re.compile(rf"^[ \t]*(?:</{_THINK}>|\[/THINK\])[ \t]*$", re.IGNORECASE | re.MULTILINE)
# A thinking tag, or a place where a JSON answer may start.
_MARK = re.compile(
    rf"(?P<open><{_THINK}>|\[THINK\])|(?P<close></{_THINK}>|\[/THINK\])"
    # a string or a number, alone in a code fence
    r"|(?P<fenced>(?:```|~~~)json[ \t]*+\n\s*+(?P<word>[^\s`~{\[][^\n`~{\[]*+)\n\s*+(?:```|~~~))"
    r"|\{(?=\s*[\"}])|\[(?=\s*[\[\]{\"\-0-9tfnNI])",
    re.IGNORECASE,
)
_FENCE_BEFORE = re.compile(r"(?:```|~~~)[^\n`~]*\n\s*\Z")
# A start that prose does not have: a key and its colon, or a list of strings or of such objects.
_SURELY_JSON = re.compile(r'(?:\[\s*)*+\{\s*"(?:[^"\\]|\\.)*+"\s*:|(?:\[\s*)++"(?:[^"\\]|\\.)*+"\s*,', re.DOTALL)
_SURROGATES = re.compile("[\ud800-\udfff]")


@attrs.frozen(kw_only=True)
class Extracted:
    """A JSON value and its span.

    Attributes:
        value: the value.
        start: the index of its first character in the text.
        end: the index after its last character.
    """

    value: Any
    start: int
    end: int


def extract_json(text: str, *, accepts: Callable[[Any], bool] | None = None) -> Extracted:
    """Return the JSON answer in a text.

    If the whole text is JSON, it is the answer. Otherwise thinking is skipped. Of several values, one that ``accepts``
    accepts is preferred, then one in a code fence, then an object, then the last one. A value inside invalid or
    incomplete JSON is returned only if ``accepts`` accepts it.

    Args:
        text: the model's text. Lone surrogates are read as U+FFFD.
        accepts: returns True for a suitable value; None has no preference.

    Returns:
        The value and its span.

    Raises:
        InvalidOutput: the text contains no JSON, or the JSON is invalid, incomplete, nested too deeply, or has a number
            that JSON does not allow. Its one problem names the reason and the place.
    """
    text = _SURROGATES.sub("\ufffd", text)
    start = len(text) - len(text.lstrip())
    length = len(text.rstrip())
    decoder = _QUICK if is_long_and_plain(text) else _CAREFUL
    whole = _decode(text, start, length, decoder)
    if isinstance(whole, Extracted) and whole.end >= length:
        return whole
    scanner = _Scanner(text, accepts or (lambda value: False), decoder)
    scanner.run()
    return scanner.best()


def drop_thinking(text: str) -> str:
    """Remove the thinking that some models write before their answer. If it does not end, the result is empty.

    Tags inside the answer are not removed, since an answer may be about such tags.
    """
    while opening := _OPENING.match(text):
        closing = _CLOSING.search(text, opening.end())
        if closing is None:
            return ""
        text = text[closing.end() :].lstrip()
    # Some chat templates, such as DeepSeek-R1's, put the opening tag into the prompt. The text then has no opening tag.
    closing = _CLOSING_LINE.search(text) if "</" in text or "[/" in text else None
    if closing and not re.search(rf"<{_THINK}>|\[THINK\]", text[: closing.start()], re.IGNORECASE):
        return text[closing.end() :].lstrip()
    return text


@attrs.frozen
class _DecodeFailure:
    """Why no value could be decoded at an index.

    Attributes:
        reason: the reason, for the user and the repair prompt.
        reached: the index up to which the text was read.
        surely_json: the text at the index can only be JSON, so its failure is worth reporting.
        work: what an attempt to mend it cost, in characters that the decoder reads in the same time.
    """

    reason: str
    reached: int
    surely_json: bool
    work: int = 0


class _InvalidNumber(ValueError):
    """A number that Python's decoder accepts and JSON does not allow."""


def _reject_constant(word: str) -> NoReturn:
    raise _InvalidNumber(f"{word} is not a JSON number")


def _parse_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _InvalidNumber(f"a number has more than {MAX_DIGITS} digits")
    return int(digits)


def _parse_float(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise _InvalidNumber("a number is too large")
    return value


# What the decoder says of a lone backslash, and of a trailing comma.
_MENDABLE = ("Invalid \\", "Illegal trailing comma", "Expecting property name", "Expecting value")
# Not strict: models often write line breaks inside JSON strings, and their meaning is clear.
_CAREFUL = json.JSONDecoder(
    strict=False, parse_constant=_reject_constant, parse_int=_parse_int, parse_float=_parse_float
)
_QUICK = json.JSONDecoder(strict=False, parse_constant=_reject_constant)  # for long texts with plain numbers


def _decode(text: str, start: int, length: int, decoder: json.JSONDecoder) -> Extracted | _DecodeFailure:
    """Decode the value at an index; ``length`` is that of the text without trailing whitespace."""
    try:
        value, end = decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        surely_json = _SURELY_JSON.match(text, start) is not None
        work = 0
        if surely_json and error.msg.startswith(_MENDABLE):
            mended = _decode_mended(text, start)
            if mended is not None:
                return mended
            work = 4 * (length - start)  # it reads slower than the decoder
        if error.pos >= length or error.msg.startswith("Unterminated"):
            surely_json = surely_json or start + 1 < length <= error.pos
            return _DecodeFailure("the JSON ends before it is complete", length, surely_json)
        where = f"line {error.lineno}, column {error.colno}"
        return _DecodeFailure(f"not valid JSON at {where}: {error.msg}", error.pos, surely_json, work)
    except _InvalidNumber as error:
        return _DecodeFailure(str(error), length, surely_json=True)
    except RecursionError:
        return _DecodeFailure(f"nested deeper than {MAX_DEPTH} levels", length, surely_json=True)
    source = text[start:end]
    if _is_too_deep(source):
        return _DecodeFailure(f"nested deeper than {MAX_DEPTH} levels", length, surely_json=True)
    return Extracted(value=replace_surrogates(value) if "\\u" in source else value, start=start, end=end)


def _decode_mended(text: str, start: int) -> Extracted | None:
    """Decode a value with lone backslashes or trailing commas; None if there is another fault, or two meanings."""
    mended = mend(text, start)
    if mended is None or _is_too_deep(mended[0]):
        return None
    try:
        value = _CAREFUL.decode(mended[0])
    except (ValueError, RecursionError):
        return None
    return Extracted(value=replace_surrogates(value), start=start, end=mended[1])


def _is_too_deep(source: str) -> bool:
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


class _Scanner:
    """Collect the candidates of a text in one pass. The work is bounded for any text."""

    def __init__(self, text: str, accepts: Callable[[Any], bool], decoder: json.JSONDecoder) -> None:
        self._text = text
        self._decoder = decoder
        self._length = len(text.rstrip())
        self._accepts = accepts
        self._candidates: list[tuple[tuple[bool, bool, bool, int], Extracted]] = []  # with their ranks
        self._decoded = 0
        self._failure: _DecodeFailure | None = None
        self._invalid_until = 0  # the end of the JSON that failed to decode
        self._budget = 4 * len(text) + (1 << 20)  # characters that failing attempts may read
        self._only_thinking = True  # so far
        self._no_more_closings = False  # no closing tag follows

    def run(self) -> None:
        position = 0
        while self._budget > 0 and self._decoded < MAX_CANDIDATES:
            mark = _MARK.search(self._text, position)
            if mark is None:
                return
            self._only_thinking = self._only_thinking and not self._text[position : mark.start()].strip()
            if mark["open"]:
                closing = None if self._no_more_closings else _CLOSING.search(self._text, mark.end())
                self._no_more_closings = closing is None
                if closing is None and self._only_thinking:
                    self._failure = _DecodeFailure(
                        "the text ends while the model is still thinking", self._length, surely_json=True
                    )
                    return
                position = closing.end() if closing else mark.end()
            elif mark["close"]:
                # The opening tag was part of the prompt, so all the text up to here is thinking.
                self._candidates, self._decoded = [], 0
                self._failure, self._invalid_until, self._only_thinking = None, 0, True
                position = mark.end()
            else:
                self._only_thinking = False
                position = self._decode_at(mark)

    def _decode_at(self, mark: re.Match[str]) -> int:
        """Decode the value at a mark, and return the index at which to go on."""
        start = mark.start("word") if mark["fenced"] else mark.start()
        outcome = _decode(self._text, start, self._length, self._decoder)
        if isinstance(outcome, _DecodeFailure):
            # JSONDecodeError counts the lines before its position, so late failures in a long text take longer.
            self._budget -= max(64, outcome.reached - start) + outcome.reached // 64 + outcome.work
            if outcome.surely_json:
                self._invalid_until = max(self._invalid_until, outcome.reached)
            if self._failure is None or (outcome.surely_json and not self._failure.surely_json):
                self._failure = outcome
            return mark.end() if mark["fenced"] else start + 1
        self._decoded += 1
        accepted = self._accepts(outcome.value)
        if accepted or start >= self._invalid_until:
            fenced = _FENCE_BEFORE.search(self._text[max(0, start - 64) : start]) is not None
            rank = (accepted, fenced, isinstance(outcome.value, dict), start)
            self._candidates.append((rank, outcome))
        return outcome.end

    def best(self) -> Extracted:
        if self._candidates:
            return max(self._candidates, key=lambda candidate: candidate[0])[1]
        reason = self._failure.reason if self._failure else "no JSON value was found in the answer"
        raise InvalidOutput(reason, problems=(Problem(path="$", message=reason),), text=self._text)
