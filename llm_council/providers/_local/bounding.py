"""Bound a JSON Schema for constrained decoding, so that every answer ends within its tokens.

Constrained decoding lets the engine write only text that the schema allows. If the tokens run out first, the answer is
half a JSON value and useless. Small models often go on until they run out, so the schema that is sent has a greatest
length. For example, with 300 tokens ::

    {"type": "object", "properties": {"reason": {"type": "string"}, "tags": {"type": "array", "items": ...}}}

becomes an object in which ``reason`` has a ``maxLength``, ``tags`` has a ``maxItems``, and nothing else may stand.

There are two steps. ``_Reader`` turns the schema into shapes (see ``answer_shapes``): it puts the target of each
``$ref`` in its place, merges ``allOf`` into one node, and reads ``anyOf`` and ``oneOf`` as a choice. ``fit_shape`` then
chooses the bounds: the longest texts and lists with which the longest possible answer has no more characters than the
answer may have tokens, since a token has at least one character.

The result allows only what the original allows, with exceptions: keywords that a grammar cannot express (``not``,
``if``, look-around in a pattern, ...) are left out and listed in ``Bounded.omitted``. The caller validates the answer
against the original schema anyway. No keyword that the engine does not know may be sent: the engine would ignore the
whole schema without an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import attrs

from llm_council._schema import json_path, plain_schema
from llm_council.providers._local.answer_shapes import (
    Choice,
    Fixed,
    Formed,
    Listing,
    Record,
    Shape,
    Text,
    fit_shape,
    number,
)

__all__ = ["Bounded", "bound", "write_grammar"]

Path = tuple[str | int, ...]

_MAX_NODES = 3000  # after each reference was replaced by its target
_MAX_NESTING = 40
_RECURSIONS = 2  # how often a reference may be followed inside its own target
_MAX_PATTERN = 200  # characters

# Keywords that a grammar cannot express; each use is reported in ``omitted``.
_INEXPRESSIBLE = (
    "not if then else contains minContains maxContains dependentSchemas dependencies propertyNames unevaluatedItems "
    "unevaluatedProperties patternProperties $dynamicRef $recursiveRef"
).split()
# Formats that the engine knows, with their greatest length in characters.
_FORMATS = {"date": 10, "time": 20, "date-time": 30, "uuid": 36, "ipv4": 15}
# Keywords from which the type of a node follows that does not name it.
_TYPE_KEYWORDS = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_PYTHON_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
    "integer": int,
}
# Syntax that the engine's regular expressions do not have: look-around, named groups, flags, back-references, some
# classes and anchors.
_UNSUPPORTED_SYNTAX = re.compile(r"\(\?(?!:)|\\[1-9bBAZzGkKpPQEX]|[*+?}]\+|(?<!\\)\[\[:")


@attrs.frozen(kw_only=True)
class Bounded:
    """A bounded schema.

    Attributes:
        schema: the schema to send; None if it allows no value, or is too large.
        omitted: the keywords that were left out, one line per place.
        fits: True if no answer can need more tokens than there are.
    """

    schema: dict[str, Any] | None
    omitted: tuple[str, ...]
    fits: bool


def bound(schema: Mapping[str, Any], tokens: int) -> Bounded:
    """Bound a schema so that every answer to it ends within its tokens.

    Args:
        schema: any JSON Schema.
        tokens: the maximum number of tokens of the answer. Each is assumed to hold one character.

    Raises:
        InvalidOption: the argument is not a JSON object, is too deep or too large.
    """
    reader = _Reader(plain_schema(schema))
    try:
        shape = reader.read(reader.root, (), ())
    except _TooLarge:
        return Bounded(schema=None, omitted=(*reader.omitted, "$: too large to be a grammar"), fits=False)
    if shape is None:
        return Bounded(schema=None, omitted=(*reader.omitted, "$: no value can be described"), fits=False)
    bounds, fits = fit_shape(shape, tokens)
    return Bounded(schema=shape.schema(bounds), omitted=tuple(dict.fromkeys(reader.omitted)), fits=fits)


class _TooLarge(Exception):
    pass


class _Reader:
    """Turns one schema into a shape.

    Attributes:
        root: the whole schema, in which references are looked up.
        omitted: the keywords that the shape does not express, one line per place.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.omitted: list[str] = []
        self._nodes = 0

    def read(self, node: Any, path: Path, refs: tuple[str, ...]) -> Shape | None:
        """Return the shape of a node; None if it allows no value, or none of finite size.

        Args:
            node: the node: an object, or a bool.
            path: where it stands in the schema.
            refs: the references that were followed to it, so that recursion ends.
        """
        self._nodes += 1
        if self._nodes > _MAX_NODES or len(path) > _MAX_NESTING:
            raise _TooLarge
        if node is False:
            return None
        if not isinstance(node, dict) or not node:
            return Text()
        if "$ref" in node:
            target, refs = self._resolve(node, path, refs)
            return None if target is None else self.read(target, path, refs)
        if "allOf" in node:
            rest = {word: value for word, value in node.items() if word != "allOf"}
            for part in node["allOf"]:
                target, refs = self._resolve(part, path, refs)
                if target is None:
                    return None
                merged = self._merge(rest, target, path)
                if merged is None:
                    return None
                rest = merged
            return self.read(rest, path, refs)
        # ``oneOf`` becomes ``anyOf``: a grammar cannot require that no other option matches.
        for word in ("anyOf", "oneOf"):
            if word in node:
                return self._alternatives(node, word, path, refs)
        self._omit(path, (word for word in _INEXPRESSIBLE if word in node and node[word] not in ({}, True)))
        return self._read_types(node, path, refs)

    def _omit(self, path: Path, words: Any) -> None:
        self.omitted.extend(f"{json_path(path)}: {word}" for word in words)

    def _resolve(self, node: Any, path: Path, refs: tuple[str, ...]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        """Follow references; return the node at their end, with the keywords beside them merged in, and ``refs``.

        The node is None if it allows no value, or if following the reference again would never end.
        """
        rest: dict[str, Any] = {}
        while isinstance(node, dict) and "$ref" in node:
            ref = str(node["$ref"])
            if refs.count(ref) >= _RECURSIONS or len(refs) > _MAX_NESTING:
                return None, refs
            refs = (*refs, ref)
            siblings = {word: value for word, value in node.items() if word != "$ref"}
            found = self._merge(rest, siblings, path)
            if found is None:
                return None, refs
            rest = found
            node = self._look_up(ref)
            if node is None:
                self._omit(path, (f"$ref {ref!r:.80}",))
                node = {}
        if node is False:
            return None, refs
        return self._merge(rest, node if isinstance(node, dict) else {}, path), refs

    def _look_up(self, ref: str) -> Any:
        node: Any = self.root
        if ref in ("#", ""):
            return node
        if not ref.startswith("#/"):
            return None
        for part in ref[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list):
                node = node[int(key)] if key.isdigit() and int(key) < len(node) else None
            else:
                node = node.get(key) if isinstance(node, dict) else None
        return node

    def _merge(self, one: dict[str, Any], two: dict[str, Any], path: Path) -> dict[str, Any] | None:
        """Return a node that allows what both nodes allow; None if they exclude each other."""
        merged = dict(one)
        for word, value in two.items():
            if word not in merged or merged[word] == value:
                merged[word] = value
            elif word in ("anyOf", "oneOf"):
                merged["allOf"] = [*merged.get("allOf", ()), {word: value}]
            elif word in _MERGE:
                merged[word] = _MERGE[word](merged[word], value)
                if merged[word] in ([], _EXCLUDED):
                    return None
            elif word not in _ANNOTATIONS:
                self._omit(path, (f"a second {word}",))
        return merged

    def _alternatives(self, node: dict[str, Any], word: str, path: Path, refs: tuple[str, ...]) -> Shape | None:
        rest = {name: value for name, value in node.items() if name != word}
        options: list[Shape] = []
        for index, option in enumerate(node[word]):
            target, inner = self._resolve(option, path, refs)
            merged = None if target is None else self._merge(rest, target, path)
            shape = None if merged is None else self.read(merged, (*path, word, index), inner)
            # An option that allows nothing is left out, and so is one that equals another.
            if shape is not None and shape not in options:
                options.append(shape)
        if word == "oneOf" and len(node[word]) > 1:
            self._omit(path, ("oneOf, sent as anyOf",))
        if not options:
            return None
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _read_types(self, node: dict[str, Any], path: Path, refs: tuple[str, ...]) -> Shape | None:
        kinds = _listed(node["type"]) if "type" in node else []
        if "enum" in node or "const" in node:
            values = [node["const"]] if "const" in node else node["enum"]
            allowed = tuple(value for value in values if not kinds or any(_is(value, kind) for kind in kinds))
            return Fixed(allowed) if allowed else None
        if not kinds:
            implied = [kind for kind, words in _TYPE_KEYWORDS.items() if any(word in node for word in words)]
            kinds = implied[:1] or ["string"]
        shapes = [self._read_type(node, kind, path, refs) for kind in kinds]
        known = tuple(shape for shape in shapes if shape is not None)
        if not known:
            return None
        return known[0] if len(known) == 1 else Choice(known)

    def _read_type(self, node: dict[str, Any], kind: str, path: Path, refs: tuple[str, ...]) -> Shape | None:
        match kind:
            case "object":
                return self._record(node, path, refs)
            case "array":
                return self._listing(node, path, refs)
            case "boolean":
                return Fixed((True, False))
            case "null":
                return Fixed((None,))
            case "number" | "integer":
                bounds = {word: node[word] for word in _TYPE_KEYWORDS["number"] if _finite(node.get(word))}
                return number(bounds, whole=kind == "integer")
            case _:
                return self._text(node, path)

    def _text(self, node: dict[str, Any], path: Path) -> Shape | None:
        pattern, form, most = node.get("pattern"), node.get("format"), node.get("maxLength")
        if pattern is not None and (len(pattern) > _MAX_PATTERN or _UNSUPPORTED_SYNTAX.search(pattern)):
            self._omit(path, (f"pattern {pattern!r:.80}",))
            pattern = None
        if form is not None and (form not in _FORMATS or pattern is not None):
            self._omit(path, (f"format {form!r:.40}",))
            form = None
        least = node.get("minLength", 0)
        if most is not None and most < least:
            return None
        return Text(least, most, pattern) if form is None else Formed(form, _FORMATS[form])

    def _listing(self, node: dict[str, Any], path: Path, refs: tuple[str, ...]) -> Shape | None:
        prefix, rest = node.get("prefixItems", []), node.get("items", True)
        if isinstance(rest, list):  # until draft 2019-09
            prefix, rest = rest, node.get("additionalItems", True)
        least, most = node.get("minItems", 0), node.get("maxItems")
        if node.get("uniqueItems") is True:
            if least > 1:
                self._omit(path, ("uniqueItems",))
            elif most is None or most > 1:
                most = 1  # a grammar cannot compare items, and a list of one item is unique
        first = []
        for index, item in enumerate(prefix if most is None else prefix[:most]):
            shape = self.read(item, (*path, "prefixItems", index), refs)
            if shape is None:
                break
            first.append(shape)
        item_shape = None
        if len(first) == len(prefix) and (most is None or most > len(first)):
            item_shape = self.read(rest, (*path, "items"), refs)
        if (most is not None and most < least) or (item_shape is None and len(first) < least):
            return None
        return Listing(item_shape, tuple(first), least, most)

    def _record(self, node: dict[str, Any], path: Path, refs: tuple[str, ...]) -> Shape | None:
        properties = dict(node.get("properties", {}))
        # Names that must be present: those of ``required``, and enough others to reach ``minProperties``.
        needed = list(dict.fromkeys(node.get("required", ())))
        for names in node.get("dependentRequired", {}).values():
            needed.extend(name for name in names if name not in needed)
        others = node.get("additionalProperties", True)
        for name in needed:
            properties.setdefault(name, others)
        for count in range(1, node.get("minProperties", 0) + 1):
            if len(properties) < node["minProperties"]:  # the schema names too few: invent some
                properties.setdefault(f"item_{count}", others)
        for name in properties:
            if len(needed) < node.get("minProperties", 0) and name not in needed:
                needed.append(name)
        required: dict[str, Shape] = {}
        optional: dict[str, Shape] = {}
        for name, inner in properties.items():
            shape = self.read(inner, (*path, "properties", name), refs)
            if shape is not None:
                (required if name in needed else optional)[name] = shape
            elif name in needed:
                return None
        room = node.get("maxProperties", len(properties)) - len(required)
        if room < 0:
            return None
        optional = dict(list(optional.items())[:room])
        return Record(required, optional, tuple(properties))


_EXCLUDED: Any = object()
_ANNOTATIONS = frozenset(
    ("title", "description", "default", "examples", "$comment", "$defs", "definitions", "$schema", "$id")
)


def _shared_kinds(one: Any, two: Any) -> list[Any]:
    left, right = _listed(one), _listed(two)
    shared = [kind for kind in left if kind in right]
    whole = "integer" in (*left, *right) and "integer" not in shared
    return [*shared, "integer"] if whole and "number" in (*left, *right) else shared


def _properties(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    return {**one, **two, **{name: {"allOf": [one[name], two[name]]} for name in one if name in two}}


def _schemas(one: Any, two: Any) -> Any:
    return False if one is False or two is False else {"allOf": [one, two]}


# How two values of one keyword become one, if both nodes hold.
_MERGE: dict[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
    **dict.fromkeys(("required", "allOf"), lambda one, two: [*one, *(item for item in two if item not in one)]),
    **dict.fromkeys(("items", "additionalProperties"), _schemas),
    "properties": _properties,
    "type": _shared_kinds,
    "enum": lambda one, two: [value for value in one if value in two],
    "const": lambda one, two: _EXCLUDED,
    "uniqueItems": lambda one, two: True,
}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _finite(value: Any) -> bool:
    return _is(value, "number") and isfinite(value)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _PYTHON_TYPES.get(kind, ()))


def write_grammar(schema: Mapping[str, Any]) -> str:
    """Write a bounded schema as a grammar for llguidance.

    The grammar allows one space after colons and commas and no other white space: a small model may otherwise write
    line breaks until its tokens run out.
    """
    layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return "%llguidance {}\nstart: %json " + json.dumps({**schema, "x-guidance": layout})
