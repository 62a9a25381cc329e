"""Directives that write parts of the reference from the code: the fields of a class, and the messages of an error."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import llm_council

_SOURCES = Path(llm_council.__file__).parent


class Fields(SphinxDirective):
    """``{fields} module.Class``: a table of the fields of a class, from the section ``Attributes`` of its docstring."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        module, _, name = self.arguments[0].rpartition(".")
        cls = getattr(import_module(module), name)
        about = described(cls)
        rows = []
        for field in attrs.fields(cls):
            if field.name.startswith("_"):
                continue
            if field.name not in about:
                raise self.error(f"{self.arguments[0]}: {field.name} is not in the section Attributes of the docstring")
            rows.append(f"| `{field.name}` | {_type(field.type)} | {_default(field)} | {about[field.name]} |")
        return self.parse_text_to_nodes("\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows]))


class Messages(SphinxDirective):
    """``{messages}``: for each class of error, what its messages say, with ``...`` where a value stands."""

    def run(self) -> list[nodes.Node]:
        """Return a section of messages for each class."""
        lines = []
        for name, messages in sorted(all_messages().items()):
            lines += [f"**{name}**", "", *(f"- `{message}`" for message in sorted(messages)), ""]
        return self.parse_text_to_nodes("\n".join(lines))


def described(cls: type) -> dict[str, str]:
    """Return the text of each attribute in the docstring of a class, and of those that it inherits."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        doc = inspect.cleandoc(base.__doc__ or "")
        # What an attribute is comes after, and in place of, what is passed for it.
        for heading in ("Args", "Attributes"):
            section = re.search(rf"^{heading}:\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
            entries = section[1] if section else ""
            for entry in re.finditer(r"^    (\w+): ((?:.*\n?(?:        .*\n?)*))", entries, re.MULTILINE):
                found[entry[1]] = re.sub(r"\s+", " ", entry[2]).strip().replace("``", "`").replace("|", "\\|")
    return found


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return f"`{text}`".replace("|", "\\|")


def _default(field: attrs.Attribute[Any]) -> str:
    if field.default is attrs.NOTHING:
        return "required"
    if isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
        return "empty" if field.default.factory in (list, dict, tuple) else "made"  # type: ignore[union-attr]
    return f"`{field.default!r}`".replace("|", "\\|")


@cache
def all_messages() -> dict[str, set[str]]:
    """Return the messages that the code raises, by the name of the class of error."""
    errors = import_module("llm_council.errors")
    classes = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    found: dict[str, set[str]] = {}
    for path in _SOURCES.rglob("*.py"):
        if "testing" in path.relative_to(_SOURCES).parts:
            continue
        for name, message in _made_in(ast.parse(path.read_text(encoding="utf-8"))):
            if name in classes and len(message) > 12:
                found.setdefault(name, set()).add(message.replace("`", "'"))
    return found


def _made_in(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            text = _text(node.args[0])
            if text is not None:
                yield node.func.id, re.sub(r"\s+", " ", text).strip()


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)  # type: ignore[misc]
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("fields", Fields)
    app.add_directive("messages", Messages)
    return {"parallel_read_safe": True}
