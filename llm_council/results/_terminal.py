"""Render parsed Markdown with rich: no hyperlinks, no syntax highlighting, tables that do not break words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.markdown import CodeBlock, Heading, Markdown, TableElement
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from markdown_it.token import Token
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["TerminalMarkdown"]

_MIN_WIDTH = 24  # columns that are left for text inside the deepest list or quotation


class _Heading(Heading):
    """A heading at the left margin; rich centres the first level or draws a box around it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _CodeBlock(CodeBlock):
    """Code without colours: the lexers' expressions can take minutes for a text that is made for it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = Text(self.text.plain.rstrip("\n"), style="cyan", overflow="fold")
        yield Padding(code, (0, 0, 0, 2))


class _Table(TableElement):
    """A table, or its rows as lists of ``heading: cell`` where the columns would be narrower than their words."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        headings = [cell.content for cell in self.header.row.cells] if self.header and self.header.row else []
        rows = [[cell.content for cell in row.cells] for row in self.body.rows] if self.body else []
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for heading in headings:
            title = heading.copy()
            title.stylize("bold")
            table.add_column(title, justify=heading.justify or "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        if Measurement.get(console, options.update(width=10_000), table).minimum <= options.max_width:
            yield table
            return
        for number, row in enumerate(rows):
            if number:
                yield Text()
            for heading, cell in zip(headings, row, strict=False):
                yield Text.assemble((f"{heading.plain}: ", "bold"), cell, overflow="fold")
        if not rows:
            yield Text(", ").join(headings)


class TerminalMarkdown(Markdown):
    """Markdown whose tokens were checked before; see ``markdown_to_terminal``."""

    elements = {  # noqa: RUF012 - the base class declares it
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "table_open": _Table,
    }

    def __init__(self, text: str, tokens: Sequence[Token]) -> None:
        super().__init__("", hyperlinks=False)
        self.markup = text
        self.parsed = list(tokens)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        indent = _deepest_indent(self.parsed)
        if indent and options.max_width - indent < _MIN_WIDTH:
            yield Text(self.markup, overflow="fold")
        else:
            parts = iter(super().__rich_console__(console, options))
            # rich puts an empty line before a list or table that begins the text.
            first = next(parts, None)
            if first is not None and first != Segment.line():
                yield first
            yield from parts


def _deepest_indent(tokens: Sequence[Token]) -> int:
    """Return how many columns the deepest lists and quotations take from the left, at most."""
    indent = deepest = 0
    for token in tokens:
        if token.type.startswith(("bullet_list_", "ordered_list_", "blockquote_")):
            indent += 4 * token.nesting
            deepest = max(deepest, indent)
    return deepest
