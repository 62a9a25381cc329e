"""The card of a result in a notebook: at most one screen, with folds for the rest.

A notebook is a page of others: the card's style sheet applies inside the card only and takes colours from the notebook,
and the card has no script, link or image. Two of its classes keep the notebook from typesetting mathematics in a
model's words, which could make links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING

from llm_council.results._markup import Markup, block, fold, markdown, tag, value
from llm_council.results.html import answer, deliberation, differences, facts, title, votes_table
from llm_council.results.plain import as_text, split_answer, vote_line

if TYPE_CHECKING:
    from llm_council.results import CouncilResult

__all__ = ["card"]

_LINES = 12  # of the answer that are shown at once, about 80 characters each
_MORE_ROWS = 6  # lines of a table that are shown beyond these
_WIDTH = 80
_ROW = re.compile(r"\s*\|")
_FENCE = re.compile(r"^\s{0,3}(```+|~~~+)", re.MULTILINE)


def card(result: CouncilResult) -> str:
    """Return the card of a result as an HTML fragment.

    Args:
        result: the run's result.
    """
    style = resources.files(__package__).joinpath("card.css").read_text(encoding="utf-8")
    return tag("div", tag("style", Markup(style)), *_parts(result), class_="llm-council mathjax_ignore tex2jax_ignore")


def _parts(result: CouncilResult) -> Iterator[Markup]:
    yield tag("p", title(result), class_="task", dir="auto")
    yield tag("ul", *(tag("li", *fact) for fact in facts(result)), class_="facts")
    if result.error is not None:
        yield tag("p", _start(f"{type(result.error).__name__}: {result.error}")[0], class_="error", dir="auto")
    yield from _answer(result)
    folds = []
    votes = vote_line(result)
    if votes is not None:
        yield tag("p", _start(votes)[0], class_="votes", dir="auto")
        folds.append(fold("Votes", votes_table(result)))
    folds += [fold(heading, table) for heading, table in deliberation(result)]
    if len(result.drafts) > 1:
        folds.append(fold("Where the drafts differ", *differences(result.drafts)))
    for name, texts in (("Drafts", result.drafts), ("Reviews", result.critiques)):
        if texts:
            folds.append(fold(f"{name} ({len(texts)})", *(fold(seat, markdown(text)) for seat, text in texts.items())))
    notes = [*(f"{problem.path}: {problem.message}" for problem in result.problems), *result.warnings]
    notes += [f"{seat}: {type(error).__name__}: {error}" for seat, error in result.errors.items()]
    if notes:
        folds.append(fold(f"Notes ({len(notes)})", tag("ul", *(tag("li", note, dir="auto") for note in notes))))
    if folds:
        yield tag("div", *folds, class_="folds")


def _answer(result: CouncilResult) -> Iterator[Markup]:
    """Yield the answer if it is short; else its start, and a fold with all of it."""
    output, rest = split_answer(result)
    if output is None:
        return
    text = output if isinstance(output, str) else as_text(output)
    start, is_cut = _start(text)
    shown = markdown(_closed(start)) if isinstance(output, str) else block(start)
    yield tag("div", shown, class_="answer")
    if is_cut:
        yield tag("div", fold("The whole answer", answer(result)), class_="folds")
    elif rest:
        names = ", ".join(str(name).replace("_", " ") for name in rest)
        yield tag("div", fold(names, value(rest)), class_="folds")


def _start(text: str) -> tuple[str, bool]:
    """Return the first lines of a text, and whether there are more."""
    left = _LINES
    lines = text.strip("\n").splitlines()
    for place, line in enumerate(lines):
        needed = _height(line)
        if needed > left:
            if place == 0:  # one long paragraph
                return f"{line[: left * _WIDTH].rsplit(' ', 1)[0]}…", True
            end = _end_outside_table(lines, place)
            return "\n".join(lines[:end]), end < len(lines)
        left -= needed
    return text, False


def _height(line: str) -> int:
    return max(1, -(-len(line) // _WIDTH))


def _end_outside_table(lines: list[str], place: int) -> int:
    """Return where to cut instead of inside a table: after its last rows if they are few, or before a mere header."""
    first = last = place
    while first > 0 and _ROW.match(lines[first - 1]):
        first -= 1
    while last < len(lines) and _ROW.match(lines[last]):
        last += 1
    if sum(map(_height, lines[place:last])) <= _MORE_ROWS:
        return last
    return first if first > 0 and place - first <= 2 else place  # a header has two lines


def _closed(text: str) -> str:
    """Return the start of a Markdown text with its last code block closed, or without it if it is empty."""
    fences = list(_FENCE.finditer(text))
    if len(fences) % 2 == 0:
        return text
    last = fences[-1]
    is_empty = not text[last.end() :].partition("\n")[2].strip()
    return text[: last.start()] if is_empty else f"{text}\n{last[1]}"
