"""Read an answer in prose that stands under headings, and return its sections."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_council._schema.extract import drop_thinking

__all__ = ["heading_names", "heading_of", "read_sections"]

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[ \t]*")  # Markdown's second form of a heading


def heading_of(name: str) -> str:
    """Return the heading of a property: ``## Reasoning`` for ``reasoning``."""
    words = name.replace("_", " ")
    return f"## {words[:1].upper()}{words[1:]}"


def heading_names(schema: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the properties of a schema, if each of them is text, so that an answer can be written under headings.

    Returns:
        The names in order; empty if the schema has others, or none.
    """
    properties = schema.get("properties") if schema else None
    if not isinstance(properties, Mapping):
        return ()
    for described in properties.values():
        if not isinstance(described, Mapping) or described.get("type") != "string":
            return ()
    return tuple(properties)


def read_sections(text: str, names: Sequence[str]) -> dict[str, str]:
    """Return the sections of a text by name.

    A heading is a line of its own, such as ``## Answer``, ``**Answer**`` or ``Answer:``; after the colon the text may
    follow on the same line. If all names stand as ``## Answer`` does, no other line is a heading. The first heading of
    each name counts, and none inside a code fence. Text before the first heading belongs to the first name if that has
    no heading; otherwise it introduces the answer and is left out.

    Args:
        text: a model's answer, with or without its thinking.
        names: the names of the sections.
    """
    lines = list(_lines(drop_thinking(text)))
    words = "|".join(re.escape(name.replace("_", " ")) for name in names)
    marked = re.compile(rf" {{0,3}}\#{{1,6}}[ \t]+(?P<name>{words})(?P<rest>)[ \t]*\#*", re.IGNORECASE)
    before, sections = _split(lines, marked, names)
    if len(sections) < len(names):
        before, sections = _split(lines, _any_heading(words), names)
    if sections and names[0] not in sections and before:
        sections[names[0]] = before
    return {name: sections[name] for name in names if name in sections}


def _any_heading(words: str) -> re.Pattern[str]:
    # Linear in the length of a line: no two repeats that match the same characters stand side by side.
    return re.compile(
        rf" {{0,3}}(?:\#{{1,6}}[ \t]*)?(?P<bold>\*\*|__)?(?P<name>{words})(?(bold):?(?P=bold):?|:?)"
        rf"(?:[ \t]*\#*|(?<=[:*_])[ \t]+(?P<rest>.*))",
        re.IGNORECASE,
    )


def _split(
    lines: Sequence[tuple[str, bool]], heading: re.Pattern[str], names: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Return the text before the first heading, and the sections by name."""
    by_words = {name.replace("_", " ").lower(): name for name in names}
    sections: dict[str, list[str]] = {}
    before: list[str] = []
    current = before
    for line, fenced in lines:
        found = None if fenced else heading.fullmatch(line.rstrip())
        name = by_words[found["name"].lower()] if found else ""
        if found and name not in sections:
            current = sections[name] = [found["rest"] or ""]
        else:
            current.append(line)
    return _joined(before), {name: _joined(section) for name, section in sections.items()}


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each line, and whether it is inside a code fence."""
    fence = ""
    for line in text.strip().replace("\r\n", "\n").split("\n"):
        found = _FENCE.match(line)
        yield line, bool(fence)
        if fence:
            if found and found[1].startswith(fence) and not line.strip(" \t`~"):
                fence = ""
        elif found:
            fence = found[1]


def _joined(lines: list[str]) -> str:
    first = lines[1] if len(lines) > 1 and not lines[0] else ""
    if _UNDERLINE.fullmatch(first):
        lines = lines[2:]
    return "\n".join(lines).strip()
