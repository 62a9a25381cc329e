"""Separate reasoning from the answer in a text that holds both, with the reasoning in ``<think>`` tags."""

from __future__ import annotations

import re

__all__ = ["LONE_TAG", "ThoughtSplitter", "split_thoughts"]

LONE_TAG = "the text before </think> was reasoning"
"""Why a stream starts again after a closing tag that no opening tag preceded; see ``ThoughtSplitter.restarted``."""

_OPEN = "<think>"
_CLOSE = "</think>"
_SPACE = 1000  # characters of white space that are held back while a tag may follow
_LONGEST = 1 << 20  # characters of text after which a closing tag alone is not looked for
_QUOTES = "`\"'"  # a tag beside one of them is spoken about


class ThoughtSplitter:
    """Splits a text that arrives in pieces into reasoning and answer.

    A tag at the very beginning opens the reasoning. White space around the tags is dropped. Chat templates that write
    the opening tag into the prompt, such as DeepSeek-R1's, leave the closing tag alone in the answer: all text before
    it was reasoning, unless it stands in quotes or in code. Text that has been returned cannot be taken back, so
    ``restarted`` tells the caller.

    Attributes:
        restarted: True after the call to ``feed`` or ``finish`` that found a closing tag alone: the text of all calls
            before was reasoning, and the returned pair begins anew.
    """

    def __init__(self) -> None:
        self.restarted = False
        self._held = ""  # the beginning of what may be a tag
        self._shown: list[str] = []  # the answer so far, until a lone tag is ruled out
        self._size = 0  # of what was shown
        self._state = self._before

    def feed(self, text: str) -> tuple[str, str]:
        """Return the next characters of the reasoning, and of the answer."""
        self.restarted = False
        return self._state(text)

    def finish(self) -> tuple[str, str]:
        """Return the text that was held back, at the end of the whole text."""
        self.restarted = False
        held, self._held = self._held, ""
        if self._state == self._inside:
            return held, ""
        if self._state == self._alone:
            return self._alone(held, ended=True)
        return ("", "") if self._state == self._between else ("", held)

    def _before(self, text: str) -> tuple[str, str]:
        self._held += text
        start = self._held.lstrip()
        if len(self._held) - len(start) > _SPACE:
            start = self._held
        if start.startswith(_OPEN):
            self._held = ""
            self._state = self._inside
            return self._inside(start[len(_OPEN) :])
        if _OPEN.startswith(start):
            return "", ""
        self._state = self._alone
        held, self._held = self._held, ""
        return self._alone(held)

    def _inside(self, text: str) -> tuple[str, str]:
        text = self._held + text
        thoughts, tag, answer = text.partition(_CLOSE)
        if tag:
            self._held = ""
            self._state = self._between
            return thoughts, self._between(answer)[1]
        cut = len(text) - _beginning_of_tag(text)
        self._held = text[cut:]
        return text[:cut], ""

    def _alone(self, text: str, *, ended: bool = False) -> tuple[str, str]:
        """Return text of an answer that began without a tag, and look for a closing tag in it."""
        text = self._held + text
        self._held = ""
        place = text.find(_CLOSE)
        while place >= 0:
            end = place + len(_CLOSE)
            if end == len(text) and not ended:  # the character after the tag tells whether it is quoted
                break
            before = "".join(self._shown) + text[:place]
            if _OPEN in before or len(before) > _LONGEST:
                self._state = self._after
                return "", text
            if not _is_quoted(before, text[end : end + 1]):
                self._shown.clear()
                self._state = self._between
                self.restarted = True
                return before.strip(), self._between(text[end:])[1]
            place = text.find(_CLOSE, end)
        cut = len(text) if ended else (place if place >= 0 else len(text) - _beginning_of_tag(text))
        self._held = text[cut:]
        self._shown.append(text[:cut])
        self._size += cut
        if self._size > _LONGEST:
            self._shown.clear()
            self._state = self._after
            held, self._held = self._held, ""
            return "", text[:cut] + held
        return "", text[:cut]

    def _between(self, text: str) -> tuple[str, str]:
        answer = text.lstrip()
        if answer:
            self._state = self._after
        return "", answer

    def _after(self, text: str) -> tuple[str, str]:
        return "", text


def _beginning_of_tag(text: str) -> int:
    """Return the number of characters at the end of a text that may begin a closing tag."""
    for length in range(min(len(_CLOSE) - 1, len(text)), 0, -1):
        if text.endswith(_CLOSE[:length]):
            return length
    return 0


def _is_quoted(before: str, following: str) -> bool:
    """Return True for a tag in quotes, or in code: the text speaks about it."""
    if (before[-1:] and before[-1] in _QUOTES) or (following and following in _QUOTES):
        return True
    line = before.rpartition("\n")[2]
    return len(re.findall(r"^\s*(?:```|~~~)", before, re.MULTILINE)) % 2 == 1 or line.count("`") % 2 == 1


def split_thoughts(text: str) -> tuple[str, str]:
    """Split a whole text into reasoning and answer."""
    if _CLOSE not in text and not text.lstrip().startswith(_OPEN):
        return "", text
    splitter = ThoughtSplitter()
    thoughts, answer = splitter.feed(text)
    late_thoughts, late_answer = splitter.finish()
    if splitter.restarted:
        return late_thoughts, late_answer
    return thoughts + late_thoughts, answer + late_answer
