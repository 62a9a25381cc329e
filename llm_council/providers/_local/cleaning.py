"""Remove from an answer what the model repeated of its prompt: marks of quotations, and the name of a speaker.

A small model copies what surrounds a question, and some go on with the conversation in the next speaker's name. An
answer is cleaned while it arrives, so that a stream and the whole answer are the same text.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from llm_council.models import GenerateRequest

__all__ = ["AnswerCleaner", "clean", "clean_value", "fence_codes"]

# The lines of ``_engine/fences.py``: "[[[ code title" and "code ]]]". A model may copy a code incompletely.
_OPENING = re.compile(r"\[\[\[ (?P<code>[0-9a-f]{16})\b")
_FENCE_LINE = re.compile(r"\s*\[\[\[\s+[0-9a-f]{4,}\b.*|.*\b[0-9a-f]{4,}\s+\]\]\]\s*")
_SPEAKER = re.compile(r"\s*(?:system|user|human|assistant)\s*:[ \t]*", re.IGNORECASE)
_SPEAKER_LENGTH = 16
"""Characters of a line after which it does not begin with a speaker's name any more."""
_LABEL = re.compile(r"\s*(?:Draft|Review) [A-Z0-9]{1,3}\s*:[ \t]*")


def fence_codes(request: GenerateRequest) -> frozenset[str]:
    """Return the codes of the fences in a request."""
    return frozenset(found["code"] for turn in request.turns() for found in _OPENING.finditer(turn.text))


class AnswerCleaner:
    """Cleans an answer piece by piece.

    Lines that open or close a fence are left out, and codes are removed. A speaker's name at the beginning is removed;
    where a later line begins with one, the answer ends.

    Args:
        codes: the codes of the fences in the prompt. If there are any, an answer arrives line by line.
    """

    def __init__(self, codes: Collection[str] = ()) -> None:
        self._codes = re.compile("|".join(map(re.escape, codes)), re.IGNORECASE) if codes else None
        self._line = ""  # of the current line, what was not yielded yet
        self._released = False  # True once the beginning of the current line was yielded
        self._begun = False  # True once the answer has more than white space
        self._ended = False

    def feed(self, text: str) -> str:
        """Add a piece of the answer; return what can be yielded of it."""
        if self._ended:
            return ""
        self._line += text
        cleaned = ""
        while "\n" in self._line:
            line, _, self._line = self._line.partition("\n")
            taken = self._take(line, "\n")
            self._released = False
            if taken is None:
                return cleaned
            cleaned += taken
        if self._codes is None and (self._released or len(self._line) >= _SPEAKER_LENGTH):
            cleaned += self._take(self._line, "") or ""
            self._line, self._released = "", True
        return cleaned

    def rest(self) -> str:
        """Return the end of the answer."""
        line, self._line = self._line, ""
        return "" if self._ended else self._take(line, "") or ""

    def _take(self, line: str, end: str) -> str | None:
        """Return what is left of a line, or of the rest of a line; None if the answer has ended before it."""
        if self._codes is not None:
            if _FENCE_LINE.fullmatch(line):
                return ""
            line = self._codes.sub("", line)
        speaker = None if self._released else _SPEAKER.match(line)
        if speaker is not None and self._begun:
            self._ended = True
            return None
        if speaker is not None:
            line = line[speaker.end() :]
        self._begun = self._begun or bool(line.strip())
        return line + end if self._begun else ""


def clean(text: str, codes: Collection[str] = ()) -> str:
    """Return a whole answer as ``AnswerCleaner`` yields it."""
    cleaner = AnswerCleaner(codes)
    return cleaner.feed(text) + cleaner.rest()


def clean_value(value: Any, codes: Collection[str] = ()) -> Any:
    """Clean every text in a JSON value.

    If the prompt had fences, their texts had labels: "Draft A:" at the beginning of a text is removed too.
    """
    if isinstance(value, dict):
        return {key: clean_value(item, codes) for key, item in value.items()}
    if isinstance(value, list):
        return [clean_value(item, codes) for item in value]
    if not isinstance(value, str):
        return value
    text = clean(value, codes)
    label = _LABEL.match(text) if codes else None
    return (text[label.end() :] if label else text) or value
