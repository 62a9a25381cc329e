"""Show the Markdown of models, which is untrusted, as HTML and in a terminal.

Control characters are replaced first, so that neither a terminal nor a page obeys them. Raw HTML and images stay text.
A link becomes its words and its address: nobody follows it by a click, and the reader sees where it leads. Text whose
rendering would lose words is shown as it came: text that is nested too deeply, or a cell beyond a table's columns.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import cache
from html import escape
from typing import TYPE_CHECKING

from llm_council.errors._secrets import redact
from llm_council.errors._visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from rich.console import RenderableType

__all__ = ["markdown_to_html", "markdown_to_terminal", "parse"]

_MAX_LENGTH = 64_000  # characters; the slowest text of this length takes less than a second
_MAX_CELLS = 20_000  # the parser fills up short rows, so a small text can make a table of millions of cells
_MAX_TOKENS = 12_000  # ordinary text of the greatest length has about 3,000
_MAX_NESTING = 20

_TAGS = {
    *("p", "br", "hr", "h3", "h4", "h5", "h6", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES = {"table": {"tabindex"}, "ol": {"start"}, "th": {"align"}, "td": {"align"}}

_ENTITY = re.compile(r"&(?:#[xX][0-9a-fA-F]{1,6}|#[0-9]{1,7}|[A-Za-z][A-Za-z0-9]{1,31});")
_LANGUAGE = re.compile(r"[\w+#.\-]{0,30}")
_NO_WORDS = str.maketrans("", "", string.punctuation + string.whitespace)


def markdown_to_html(text: str) -> str:
    """Return Markdown of a model as an HTML fragment that loads, links and runs nothing.

    Headings begin at ``h3``, below those of the page. Keys are masked.

    Args:
        text: Markdown from a model. Text that cannot be rendered without losing words becomes one ``pre``.
    """
    import nh3

    text = visible(redact(text))
    tokens = parse(text)
    if tokens is None:
        return f"<pre>{escape(text)}</pre>\n"
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + 2)}"
        if token.type == "table_open":  # a wide one is scrolled, with the keyboard too
            token.attrs["tabindex"] = "0"
        style = token.attrs.pop("style", None)
        if isinstance(style, str):  # a cell's alignment; a strict policy of the page blocks style attributes
            token.attrs["align"] = style.removeprefix("text-align:")
    parser = _parser()
    markup = parser.renderer.render(tokens, parser.options, {})
    # The renderer escapes all text already. A second library checks its output, so that one defect opens nothing.
    return nh3.clean(markup, tags=_TAGS, attributes=_ATTRIBUTES)


def markdown_to_terminal(text: str) -> RenderableType:
    """Return Markdown of a model as a renderable of rich: styled text without hyperlinks.

    Args:
        text: Markdown from a model. Text that cannot be rendered without losing words is shown as it came.
    """
    from rich.text import Text

    text = visible(text)
    tokens = parse(text)
    if tokens is None:
        return Text(text, overflow="fold")
    from llm_council.results._terminal import TerminalMarkdown

    return TerminalMarkdown(text, tokens)


@cache  # takes milliseconds, and parsing does not change it
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_NESTING})
    parser.enable(["table", "strikethrough"])
    # A definition of a reference would vanish from the text, and an image asks another host.
    parser.disable(["image", "reference", "html_block", "html_inline"])
    # Links are shown as text, so no target is dangerous, and none is rewritten.
    parser.validateLink = lambda url: True  # type: ignore[method-assign]
    parser.normalizeLink = lambda url: url  # type: ignore[method-assign]
    parser.normalizeLinkText = lambda link: link  # type: ignore[method-assign]
    return parser


def parse(text: str) -> list[Token] | None:
    """Return the tokens of a text, without links; None if its rendering would lose words or take too long."""
    if len(text) > _MAX_LENGTH:
        return None
    lines = text.split("\n")
    if len(lines) * max(line.count("|") for line in lines) > _MAX_CELLS:
        return None
    tokens = _parser().parse(text)
    if len(tokens) > _MAX_TOKENS:
        return None
    for token in tokens:
        if token.children:
            token.children = list(_without_links(token.children))
        elif token.type == "fence" and not _LANGUAGE.fullmatch(token.info.strip()):
            # Words after the backticks are no language. They would not be shown.
            token.content = f"{token.info.strip()}\n{token.content}"
            token.info = ""
    return tokens if _is_complete(text, tokens) and _numbers_stay(tokens) else None


def _without_links(tokens: Sequence[Token]) -> Iterator[Token]:
    """Yield inline tokens; a link becomes its words, followed by its address unless the words are the address."""
    from markdown_it.token import Token

    address = title = ""
    words: list[str] = []
    for token in tokens:
        if token.type == "link_open":
            address, title, words = str(token.attrs.get("href", "")), str(token.attrs.get("title", "")), []
        elif token.type == "link_close":
            target = f'{address} "{title}"' if title else address
            if target and "".join(words) not in (target, target.removeprefix("mailto:")):
                yield Token("text", "", 0, content=f" ({target})")
        else:
            words.append(token.content)
            yield token


def _is_complete(text: str, tokens: Sequence[Token]) -> bool:
    """Return True if the tokens show every character of a text except blanks, markup and entities."""
    shown: list[str] = []
    for token in tokens:
        shown.append(token.info)  # a fence's language and a list item's number
        shown.extend(child.content for child in token.children or ())
        if not token.children:
            shown.append(token.content)
    source = _ENTITY.sub("", text).translate(_NO_WORDS)
    missing = Counter("".join(source.split())) - Counter("".join(shown))
    return not missing


def _numbers_stay(tokens: Sequence[Token]) -> bool:
    """Return True if numbered lists count up from their first number, or repeat it: they are numbered anew."""
    lists: list[list[int]] = []
    for token in tokens:
        if token.type in ("ordered_list_open", "bullet_list_open"):
            lists.append([])
        elif token.type == "list_item_open" and token.info:
            lists[-1].append(int(token.info))
        elif token.type in ("ordered_list_close", "bullet_list_close"):
            numbers = lists.pop()
            counted = [number - numbers[0] for number in numbers]
            if counted != list(range(len(counted))) and any(counted):
                return False
    return True
