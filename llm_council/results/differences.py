"""Where drafts differ: the statements of each draft that no other draft makes, found by comparing words.

Two statements count as the same if most of their words are the same, and all numbers and negations. A different wording
therefore counts as a difference, and nothing is judged by a model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import attrs

__all__ = ["Differences", "compare"]

_MOST = 200  # statements of a draft that are compared; fewer if there are many drafts
_COMPARISONS = 400_000  # of two statements; takes about a second
_MOST_TEXT = 100_000  # characters of a draft that are read
_LONGEST = 600  # characters of a statement that are kept
_ALIKE = 0.6  # share of common words from which two statements count as the same

_HEADING = re.compile(r"\s{0,3}#{1,6}\s")
_MARK = re.compile(r"^\s*(?:(?:[-*+>]|\d{1,3}[.)])\s+)+")  # of a list item or a quotation
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\sa-z])|(?<=[\u3002\uff01\uff1f])")
_EMPHASIS = re.compile(r"\*\*|__|`")
# Chinese and Japanese put no spaces between words, so each character counts as one.
_WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\W\u3040-\u30ff\u4e00-\u9fff]+(?:['\u2019]\w+)?")
_DECISIVE = re.compile(r"\d.*|not|no|never|none|nothing|without|cannot|.*n['\u2019]t")


@attrs.frozen(kw_only=True)
class Differences:
    """How drafts differ.

    Attributes:
        shared: the number of statements of the first draft that every other draft makes too.
        only: for each seat, in the order of the drafts, the statements that no other draft makes.
    """

    shared: int
    only: Mapping[str, tuple[str, ...]]


@attrs.frozen
class _Statement:
    text: str
    words: frozenset[str]
    decisive: frozenset[str]

    def is_like(self, other: _Statement) -> bool:
        """Return True if both have most words in common, and the same numbers and negations."""
        if self.decisive != other.decisive:
            return False
        common = len(self.words & other.words)
        return common >= _ALIKE * (len(self.words) + len(other.words) - common)


def compare(drafts: Mapping[str, str]) -> Differences:
    """Return where drafts differ.

    Args:
        drafts: texts by seat name.
    """
    pairs = max(1, len(drafts) * (len(drafts) - 1))
    most = min(_MOST, int((_COMPARISONS / pairs) ** 0.5))
    statements = {seat: _statements(text[:_MOST_TEXT], most) for seat, text in drafts.items()}
    found = Counter[tuple[str, int]]()  # in how many other drafts a statement is
    for seat, mine in statements.items():
        for other, theirs in statements.items():
            if other != seat:
                found.update((seat, place) for place, made in enumerate(mine) if any(made.is_like(t) for t in theirs))
    only = {
        seat: tuple(made.text for place, made in enumerate(mine) if not found[seat, place])
        for seat, mine in statements.items()
    }
    first = next(iter(statements), "")
    others = len(statements) - 1
    shared = sum(found[first, place] == others for place in range(len(statements.get(first, ()))))
    return Differences(shared=shared if others > 0 else 0, only=only)


def _statements(text: str, most: int) -> list[_Statement]:
    """Return the first sentences, list items and lines of code of a draft, each once."""
    made: dict[frozenset[str], _Statement] = {}
    is_code = False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            is_code = not is_code
            continue
        if not is_code and _HEADING.match(line):
            continue
        plain = line.strip() if is_code else _EMPHASIS.sub("", _MARK.sub("", line)).strip()
        for sentence in [plain] if is_code else _SENTENCE_END.split(plain):
            words = frozenset(word.casefold() for word in _WORD.findall(sentence[: 4 * _LONGEST]))
            if not words or (len(words) == 1 and sentence.endswith(":")):
                continue
            short = sentence if len(sentence) <= _LONGEST else f"{sentence[: _LONGEST - 1]}…"
            decisive = frozenset(word for word in words if _DECISIVE.fullmatch(word))
            made.setdefault(words, _Statement(short, words, decisive))
            if len(made) == most:
                return list(made.values())
    return list(made.values())
