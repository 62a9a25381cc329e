"""The answer as a terminal shows it: Markdown rendered, an object with its keys as titles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from llm_council.errors._visible import visible
from llm_council.results._untrusted import markdown_to_terminal
from llm_council.results.plain import as_text, split_answer

if TYPE_CHECKING:
    from llm_council.results import CouncilResult

__all__ = ["render"]

_MAX_LENGTH = 200_000  # characters; a longer answer is printed as it is
_DEPTH = 6  # deeper levels of an answer are shown as plain text
_SHORT = 60  # characters of a text that stands on the line of its title

# Without backgrounds, which are hard to read on a light terminal.
_THEME = Theme({"markdown.code": "cyan", "markdown.h1": "bold", "markdown.h2": "bold", "markdown.h3": "bold"})
_PADDING = re.compile(r" +(?=(?:\x1b\[0m)?\n)")  # rich fills lines up with blanks


def render(result: CouncilResult, text: str) -> str | None:
    """Return the answer of a run for the terminal on stdout, without a line break at its end.

    Args:
        result: a run with an answer.
        text: the same as plain text.

    Returns:
        The text with styles; None if it is too long to be rendered.
    """
    if len(text) > _MAX_LENGTH:
        return None
    console = Console(theme=_THEME, highlight=False)
    with console.capture() as capture:
        console.print(_answer(*split_answer(result)))
    return _PADDING.sub("", capture.get()).rstrip("\n")


def _answer(shown: Any, fields: Mapping[str, Any]) -> RenderableType:
    parts: list[RenderableType] = []
    if isinstance(shown, Mapping):
        fields = shown
    else:
        parts.append(_value("" if shown is None else shown, 0))
    for name, item in fields.items():
        if item in ("", None) and name == "reasoning":
            continue
        if parts:
            parts.append(Text())
        parts.extend(_entry(name, item, 0))
    return Group(*parts)


def _entry(name: object, item: Any, depth: int) -> Iterator[RenderableType]:
    words = str(name).replace("_", " ")
    title = Text(visible(f"{words[:1].upper()}{words[1:]}"), style="bold")
    is_short = not isinstance(item, Mapping | list | tuple) or not item
    if is_short and (not isinstance(item, str) or (len(item) <= _SHORT and "\n" not in item)):
        shown = visible(item) if isinstance(item, str) else as_text(item or "none" if item in ({}, [], ()) else item)
        yield Text.assemble(title, ": ", shown, overflow="fold")
    else:
        yield title
        yield Padding(_value(item, depth + 1), (0, 0, 0, 2))


def _value(value: Any, depth: int) -> RenderableType:
    if isinstance(value, str):
        return markdown_to_terminal(value)
    if depth >= _DEPTH or not isinstance(value, Mapping | list | tuple) or not value:
        return Text(visible(as_text(value)), overflow="fold")
    if isinstance(value, Mapping):
        return Group(*(part for name, item in value.items() for part in _entry(name, item, depth)))
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    for item in value:
        grid.add_row("•", _value(item, depth + 1))
    return grid
