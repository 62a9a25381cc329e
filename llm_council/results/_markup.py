"""Make HTML elements. Only ``tag`` and ``markdown`` make markup; every other string is escaped as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from llm_council.errors._secrets import redact
from llm_council.errors._visible import visible
from llm_council.results._untrusted import markdown_to_html

__all__ = ["Markup", "block", "fold", "markdown", "tag", "value"]

_DEPTH = 8  # deeper levels of an answer are shown as JSON


class Markup(str):
    """Escaped markup."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str) -> Markup:
    """Return an element. Children that are not markup, and values of attributes, are escaped.

    Args:
        name: the element's name.
        *children: its content.
        **attributes: its attributes; ``class_`` is ``class``, and ``data_label`` is ``data-label``.
    """
    shown = "".join(f' {key.rstrip("_").replace("_", "-")}="{_text(item)}"' for key, item in attributes.items())
    if name == "meta":  # HTML allows no end tag here; SVG requires one for `rect`
        return Markup(f"<meta{shown}>")
    return Markup(f"<{name}{shown}>{''.join(map(_text, children))}</{name}>")


def _text(text: str) -> str:
    """Return text as HTML: secrets masked, control characters visible, markup escaped."""
    return text if isinstance(text, Markup) else escape(visible(redact(text)))


def markdown(text: str) -> Markup:
    """Return Markdown of a model as markup that loads, links and runs nothing."""
    return tag("div", Markup(markdown_to_html(text)), class_="md", dir="auto")


def block(text: str) -> Markup:
    """Return text as it is, with its line breaks."""
    return tag("pre", text.strip("\n"), dir="auto")


def fold(title: str, *content: str) -> Markup:
    """Return content that a click on its title shows."""
    return tag("details", tag("summary", title, dir="auto"), *content)


def value(item: Any, depth: int = 0) -> Markup:
    """Return a JSON value: an object as a list of terms, a list as a list, text as Markdown."""
    if isinstance(item, Mapping | list) and item:
        if depth >= _DEPTH:
            return block(json.dumps(item, ensure_ascii=False, indent=2))
        if isinstance(item, list):
            return tag("ul", *(tag("li", value(part, depth + 1)) for part in item))
        terms = (
            (tag("dt", str(name).replace("_", " "), dir="auto"), tag("dd", value(part, depth + 1)))
            for name, part in item.items()
        )
        return tag("dl", *(part for pair in terms for part in pair))
    if isinstance(item, str):
        return markdown(item)
    if isinstance(item, bool):  # as on the terminal
        return tag("p", "yes" if item else "no")
    return tag("p", "—" if item is None else json.dumps(item, ensure_ascii=False))
