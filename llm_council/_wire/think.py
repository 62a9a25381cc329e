"""Separate reasoning from the answer in a text that holds both, with the reasoning in ``<think>`` tags."""

from __future__ import annotations

__all__ = ["ThoughtSplitter", "split_thoughts"]

_OPEN = "<think>"
_CLOSE = "</think>"
_SPACE = 1000  # characters of white space that are held back while a tag may follow


class ThoughtSplitter:
    """Splits a text that arrives in pieces into reasoning and answer.

    Only a tag at the very beginning opens the reasoning; without it the text passes unchanged. White space around the
    tags is dropped.
    """

    def __init__(self) -> None:
        self._held = ""  # the beginning of what may be a tag
        self._state = self._before

    def feed(self, text: str) -> tuple[str, str]:
        """Return the next characters of the reasoning, and of the answer."""
        return self._state(text)

    def finish(self) -> tuple[str, str]:
        """Return the text that was held back, at the end of the whole text."""
        held, self._held = self._held, ""
        if self._state == self._inside:
            return held, ""
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
        self._state = self._after
        held, self._held = self._held, ""
        return "", held

    def _inside(self, text: str) -> tuple[str, str]:
        text = self._held + text
        thoughts, tag, answer = text.partition(_CLOSE)
        if tag:
            self._held = ""
            self._state = self._between
            return thoughts, self._between(answer)[1]
        # Hold back an end of the text that may begin the closing tag.
        cut = len(text)
        for length in range(min(len(_CLOSE) - 1, len(text)), 0, -1):
            if text.endswith(_CLOSE[:length]):
                cut -= length
                break
        self._held = text[cut:]
        return text[:cut], ""

    def _between(self, text: str) -> tuple[str, str]:
        answer = text.lstrip()
        if answer:
            self._state = self._after
        return "", answer

    def _after(self, text: str) -> tuple[str, str]:
        return "", text


def split_thoughts(text: str) -> tuple[str, str]:
    """Split a whole text into reasoning and answer."""
    splitter = ThoughtSplitter()
    thoughts, answer = splitter.feed(text)
    late_thoughts, late_answer = splitter.finish()
    return thoughts + late_thoughts, answer + late_answer
