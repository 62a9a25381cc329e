"""A JSON answer as plain text for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["as_text"]


def as_text(value: Any) -> str:
    """Lay out a JSON value as indented plain text: no quotes, no braces, long text wrapped by the terminal itself."""
    if isinstance(value, str):
        return value
    return "\n".join(_lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _entry(f"{str(name).replace('_', ' ')}:", item)
    elif isinstance(value, list | tuple):
        for item in value:
            first, *rest = list(_lines(item)) or ["-"]
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield from _scalar(value).splitlines() or [""]


def _entry(label: str, item: Any) -> Iterator[str]:
    if isinstance(item, Mapping | list | tuple) and item:
        yield label
        yield from (f"  {line}" for line in _lines(item))
        return
    text = _scalar(item)
    if "\n" in text:
        yield label
        yield from textwrap.indent(text, "  ").splitlines()
    else:
        yield f"{label} {text}".rstrip()


def _scalar(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping | list | tuple):
        return "none"
    return str(value)
