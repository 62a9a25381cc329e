r"""Read JSON as models write it: with lone backslashes, trailing commas, and a placeholder before a call's arguments.

Only what has one meaning is read. A backslash before ``(``, ``d`` or ``W`` can only mean itself, as LaTeX, a regular
expression or a Windows path has it. Beside such a backslash, ``\n`` before a letter may be a line break or the
beginning of ``\nu``: such a string is refused.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

__all__ = ["STRICT", "is_long_and_plain", "mend", "read_arguments", "replace_surrogates", "well_formed"]

_STRING = r'"(?:[^"\\]|\\.)*+"'
_TOKEN = re.compile(rf'{_STRING}|[\[\]{{}}]|,(?=\s*[\]}}])|"', re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PLACEHOLDER = re.compile(r'\s*(?:\{\s*\}|null|"")\s*(?=\{)')
_MAX_TEXT = 1 << 20  # characters


def _refuse_constant(word: str) -> NoReturn:
    # RFC 8259, section 6, excludes NaN and Infinity, which Python's decoder accepts by default.
    raise ValueError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):  # "1e999" is valid JSON, and float() reads it as infinity
        raise ValueError("a number is out of range")
    return value


_CAREFUL = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_QUICK = json.JSONDecoder(parse_constant=_refuse_constant)

_EXPONENT = re.compile(r"[eE]\+?[0-9]{3}")
_BLOCK = 100  # digits: a number of 199 digits holds such a block at a multiple of its length
_LONG = 1 << 16  # characters; the search takes longer than it saves in a shorter text


def is_long_and_plain(text: str) -> bool:
    """Return True for a long JSON text whose numbers have fewer than 200 digits and exponents below 100.

    All of them are finite, so that the decoder need not call Python for each, which would take three times as long as
    the decoding.
    """
    if len(text) < _LONG:
        return False
    blocks = (text[start : start + _BLOCK].isdecimal() for start in range(0, len(text) - _BLOCK + 1, _BLOCK))
    return not any(blocks) and _EXPONENT.search(text) is None


class _StrictDecoder:
    """Decodes JSON with finite numbers only."""

    def decode(self, text: str) -> Any:
        """Return the value.

        Raises:
            ValueError: the text is not such JSON.
        """
        return (_QUICK if is_long_and_plain(text) else _CAREFUL).decode(text)


STRICT = _StrictDecoder()
"""Decodes JSON with finite numbers only; raises ``ValueError`` for any other text."""


def well_formed(text: str) -> str:
    """Return the text with lone surrogates replaced by U+FFFD; two halves of a pair become one character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        # In UTF-16 two halves of a pair are one character, and a half without its partner cannot be decoded.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def replace_surrogates(value: Any) -> Any:
    r"""Return a JSON value with every text ``well_formed``: an escape such as ``\ud800`` may stand alone."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): replace_surrogates(item) for key, item in value.items()}
    return value


def mend(text: str, start: int = 0) -> tuple[str, int] | None:
    """Return the object or list that begins at an index as strict JSON, and the index after its end.

    Returns:
        None if it has no end, nothing to mend, or a place with more than one meaning.
    """
    pieces: list[str] = []
    depth = 0
    done = start
    is_mended = False
    for token in _TOKEN.finditer(text, start, start + _MAX_TEXT):
        word = token[0]
        pieces.append(text[done : token.start()])
        done = token.end()
        if word in "[{":
            depth += 1
        elif word in "]}":
            depth -= 1
        elif word == ",":
            word, is_mended = "", True
        elif word == '"':  # a string that has no end
            return None
        elif "\\" in word:
            mended = _mend_string(word)
            if mended is None:
                return None
            is_mended = is_mended or mended != word
            word = mended
        pieces.append(word)
        if depth == 0:
            break
    return ("".join(pieces), done) if is_mended and depth == 0 and pieces else None


def _mend_string(literal: str) -> str | None:
    """Return a string literal with its lone backslashes doubled; None if it can be read in two ways."""
    is_alone = is_ambiguous = False

    def write(found: re.Match[str]) -> str:
        nonlocal is_alone, is_ambiguous
        word = found[1]
        if word in '"\\/' or len(word) > 1:
            return found[0]
        if word == "'":  # no escape of JSON, but of every language that models write beside it
            return word
        following = literal[found.end() : found.end() + 1]
        if word in "bfnrt":
            is_ambiguous = is_ambiguous or (following.isascii() and following.isalpha())
            return found[0]
        if word in "\n\r" or (word == "x" and re.match("[0-9a-fA-F]{2}", literal[found.end() :])):
            is_ambiguous = True  # a continued line, and the code of a character, in other languages
        is_alone = True
        return f"\\\\{word}"

    mended = _ESCAPE.sub(write, literal)
    return None if is_alone and is_ambiguous else mended


def read_arguments(text: str) -> dict[str, Any]:
    """Return the arguments of a tool call; empty text, and null, are no arguments.

    Servers write ``{}`` or ``null`` as a placeholder before the arguments of a call that arrives in pieces, or encode
    the arguments twice.

    Raises:
        ValueError: the text is not a JSON object, or more than one.
    """
    if not text.strip():
        return {}
    try:
        value = STRICT.decode(text)
    except ValueError:
        value = _read_mended(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if value is None:
        return {}
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = STRICT.decode(value)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _read_mended(text: str) -> Any:
    while placeholder := _PLACEHOLDER.match(text):
        text = text[placeholder.end() :]
    try:
        return STRICT.decode(text)
    except ValueError as error:
        start = len(text) - len(text.lstrip())
        mended = mend(text, start) if text[start : start + 1] == "{" else None
        if mended is None or text[mended[1] :].strip():
            raise error from None
        return STRICT.decode(mended[0])
