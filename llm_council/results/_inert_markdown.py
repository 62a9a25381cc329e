"""Write the Markdown of models, which is untrusted, as Markdown again that links, loads and runs nothing.

Paragraphs, lists, tables, quotes and code stay. A heading becomes a line in bold, so that no model can imitate a
section of the report. The result is parsed again with links and HTML switched on: if it says anything else than the
parsed text, the text is shown as a code block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from llm_council.errors._secrets import redact
from llm_council.errors._visible import visible
from llm_council.results._untrusted import parse

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from markdown_it.tree import SyntaxTreeNode

__all__ = ["code_block", "escape", "rendered"]

# The markup of Markdown and its common dialects. GitHub makes links of `www.` and of URLs, hence the dot and the colon.
_MARKUP = re.compile(r"[\\`*_\[\]{}<>&|~!#$@^=]|:(?=\S)|(?<=www)\.|^[-+]|^\d+(?=[.)](?:\s|$))", re.IGNORECASE)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_DRAWN = {"mermaid", "math", "geojson", "topojson", "stl"}  # GitHub draws these languages instead of showing them
_FOREIGN = {"html_block", "html_inline", "image", "link_open"}


def rendered(text: str) -> tuple[str, bool]:
    """Return Markdown of a model as inert Markdown, and whether it is one paragraph of one line.

    Args:
        text: Markdown from a model. Text that cannot be rendered without losing words becomes a code block.
    """
    from markdown_it.tree import SyntaxTreeNode

    text = visible(redact(text)).strip("\n")
    tokens = parse(text)
    if not tokens:
        return (code_block(text), False) if text else ("", True)
    blocks = SyntaxTreeNode(tokens).children
    written = "\n".join(_blocks(blocks)).strip("\n")
    if not _says_the_same(written, tokens):
        return code_block(text), False
    is_line = len(blocks) == 1 and blocks[0].type == "paragraph" and "\n" not in written
    return written, is_line


def code_block(text: str, language: str = "text") -> str:
    """Return text as a code block. The fence is longer than any run of backticks in the text, which cannot close it."""
    text = visible(redact(text)).strip("\n")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def escape(text: str) -> str:
    """Return text of one line with its markup escaped."""
    return _MARKUP.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    mark = found[0]
    if mark in _ENTITIES:
        return _ENTITIES[mark]
    # "1." begins a list. A backslash before a digit would be shown, so it stands before the dot.
    return f"{mark}\\" if mark.isdigit() else f"\\{mark}"


def _blocks(nodes: Sequence[SyntaxTreeNode]) -> Iterator[str]:
    """Yield the lines of blocks, with an empty line after each."""
    for node in nodes:
        yield from _block(node)
        yield ""


def _block(node: SyntaxTreeNode) -> Iterator[str]:
    if node.type in ("paragraph", "heading"):
        text = _inline(node.children[0].children, in_heading=node.type == "heading")
        yield from (f"**{text}**" if node.type == "heading" and text else text).split("\n")
    elif node.type == "fence":
        language = node.info.strip()
        yield from code_block(node.content, language if language.lower() not in _DRAWN else "text").split("\n")
    elif node.type == "code_block":
        yield from code_block(node.content).split("\n")
    elif node.type == "hr":
        yield "***"
    elif node.type == "blockquote":
        yield from (f"> {line}".rstrip() for line in _blocks(node.children))
    elif node.type in ("bullet_list", "ordered_list"):
        number = int(node.attrs.get("start", 1))
        for place, item in enumerate(node.children, number):
            mark = f"{item.markup} " if node.type == "bullet_list" else f"{place}{item.markup} "
            # The paragraphs of a tight list are hidden: nothing stands between its items.
            tight = all(child.hidden for child in item.children if child.type == "paragraph")
            lines = [line for child in item.children for line in (*_block(child), *([] if tight else [""]))]
            for index, line in enumerate(lines or [""]):
                margin = mark if index == 0 else " " * len(mark)
                yield f"{margin}{line}".rstrip()
    elif node.type == "table":
        yield from _table(node)


def _table(node: SyntaxTreeNode) -> Iterator[str]:
    head, *bodies = node.children
    for row in [*head.children, None, *(row for body in bodies for row in body.children)]:
        if row is None:
            styles = [str(cell.attrs.get("style", "")) for cell in head.children[0].children]
            cells = [_RULES.get(style.removeprefix("text-align:"), "---") for style in styles]
        else:
            texts = [_inline(cell.children[0].children if cell.children else []) for cell in row.children]
            cells = [_PIPE.sub(r"\|", text) for text in texts]  # also in code, where they part cells too
        yield f"| {' | '.join(cells)} |"


_PIPE = re.compile(r"(?<!\\)\|")
_RULES = {"left": ":---", "center": ":---:", "right": "---:"}


def _inline(nodes: Sequence[SyntaxTreeNode], *, in_heading: bool = False) -> str:
    """Return inline text. In a heading, which is in bold already, nothing else is."""
    parts: list[str] = []
    for node in nodes:
        if node.type == "text":
            starts_line = not parts or parts[-1].endswith("\n")
            parts.append(escape(node.content) if starts_line else escape(f"\0{node.content}")[1:])
        elif node.type == "softbreak":
            parts.append("\n" if not in_heading else " ")
        elif node.type == "hardbreak":
            parts.append("\\\n" if not in_heading else " ")
        elif node.type == "code_inline":
            parts.append(_code(node.content))
        elif node.children:
            mark = "" if in_heading and node.type == "strong" else node.markup
            parts.append(f"{mark}{_inline(node.children, in_heading=in_heading)}{mark}")
    return "".join(parts)


def _code(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * (longest + 1)
    pad = " " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


@cache
def _reader() -> MarkdownIt:
    """Return a parser that takes HTML, images and links for what they are."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _says_the_same(written: str, tokens: Sequence[Token]) -> bool:
    """Return True if the written Markdown has the texts and the tables of the tokens, and no link, image or HTML."""
    found = _reader().parse(written)
    if any(token.type in _FOREIGN for token in _flat(found)):
        return False
    return _texts(found) == _texts(tokens)


def _flat(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from token.children or ()


def _texts(tokens: Sequence[Token]) -> tuple[str, list[str]]:
    """Return what is read, without blanks, and the kinds of the blocks; a heading counts as a paragraph."""
    words = "".join(token.content for token in _flat(tokens) if not token.children)
    names = (token.type.replace("heading", "paragraph").replace("code_block", "fence") for token in tokens)
    return "".join(words.split()), [name for name in names if name != "inline"]
