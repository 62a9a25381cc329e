"""Telling a model's thoughts from its answer where it writes both into one text, between ``<think>`` tags."""

from __future__ import annotations

__all__ = ["ThoughtSplitter", "split_thoughts"]

_OPEN = "<think>"
_CLOSE = "</think>"
_SPACE = 1000  # characters of space that may stand before a tag: what waits for one must not grow for ever


class ThoughtSplitter:
    """Part a text that arrives in pieces into reasoning and answer.

    Only a tag at the very beginning opens the reasoning; without one the text passes unchanged. The reasoning is what
    stands between the tags; the space around the tags is dropped.
    """

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._held = ""  # what cannot be told yet
        self._state = self._before

    def feed(self, text: str) -> tuple[str, str]:
        """Return the next characters of the reasoning, and of the answer."""
        return self._state(text)

    def finish(self) -> tuple[str, str]:
        """Return what was held back: the text is over."""
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
        # The end may be the beginning of the tag.
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
    """Part a whole text into reasoning and answer."""
    splitter = ThoughtSplitter()
    thoughts, answer = splitter.feed(text)
    late_thoughts, late_answer = splitter.finish()
    return thoughts + late_thoughts, answer + late_answer
