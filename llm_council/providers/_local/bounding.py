"""Bounding a JSON Schema for constrained decoding: what is sent is never wider than what was asked.

References are put in place, alternatives merged, every text, list and number bounded, so that the answer ends within
the tokens it has. What a grammar cannot say (``not``, ``if``, look-around in patterns, ...) is left out and listed: the
answer is validated against the original schema in any case. The engine ignores a whole schema that holds one word it
does not know, without an error, so nothing but known words is ever sent.
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
    fitted,
    number,
)

__all__ = ["Bounded", "bounded", "grammar"]

Path = tuple[str | int, ...]

_MAX_READ = 3000  # nodes, references put in place
_MAX_NESTING = 40
_RECURSIONS = 2  # how often a reference may stand inside itself
_MAX_PATTERN = 200

# Words that say nothing which a grammar should hear, or which are dealt with where their type is read.
_UNSAID = (
    "not if then else contains minContains maxContains dependentSchemas dependencies propertyNames unevaluatedItems "
    "unevaluatedProperties patternProperties $dynamicRef $recursiveRef"
).split()
_FORMATS = {"date": 10, "time": 20, "date-time": 30, "uuid": 36, "ipv4": 15}
_KIND_WORDS = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
    "integer": int,
}
# Look-around, named and flag groups, back-references, classes and anchors that the engine's expressions do not have.
_ODD = re.compile(r"\(\?(?!:)|\\[1-9bBAZzGkKpPQEX]|[*+?}]\+|(?<!\\)\[\[:")


@attrs.frozen(kw_only=True)
class Bounded:
    """A schema as it is sent.

    Attributes:
        schema: what to send; None when no answer can be described, or the schema is too large.
        unsaid: what was left out, one line per place.
        fits: whether an answer cannot need more tokens than there are.
    """

    schema: dict[str, Any] | None
    unsaid: tuple[str, ...]
    fits: bool


def bounded(schema: Mapping[str, Any], tokens: int) -> Bounded:
    """Bound a schema so that every answer to it ends.

    Args:
        schema: any JSON Schema.
        tokens: most tokens of the answer; a token is taken to hold one character at least.

    Returns:
        The schema to send, and what it does not say.

    Raises:
        InvalidOption: the argument is not a JSON object, is too deep or too large.
    """
    reader = _Reader(plain_schema(schema))
    try:
        shape = reader.read(reader.root, (), ())
    except _TooLarge:
        return Bounded(schema=None, unsaid=(*reader.notes, "$: too large to be a grammar"), fits=False)
    if shape is None:
        return Bounded(schema=None, unsaid=(*reader.notes, "$: no value can be described"), fits=False)
    fit, fits = fitted(shape, tokens)
    return Bounded(schema=shape.schema(fit), unsaid=tuple(dict.fromkeys(reader.notes)), fits=fits)


class _TooLarge(Exception):
    pass


class _Reader:
    """Reads one schema into a shape, noting what the shape does not say."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.notes: list[str] = []
        self._read = 0

    def read(self, node: Any, path: Path, refs: tuple[str, ...]) -> Shape | None:
        """Return the shape of a node; None when no value, or none of finite size, is allowed there."""
        self._read += 1
        if self._read > _MAX_READ or len(path) > _MAX_NESTING:
            raise _TooLarge
        if node is False:
            return None
        if not isinstance(node, dict) or not node:
            return Text()
        if "$ref" in node:
            return self._follow(node, path, refs)
        if "allOf" in node:
            rest = {word: value for word, value in node.items() if word != "allOf"}
            for part in node["allOf"]:
                target, refs = self._resolved(part, path, refs)
                if target is None:
                    return None
                merged = self._merged(rest, target, path)
                if merged is None:
                    return None
                rest = merged
            return self.read(rest, path, refs)
        for word in ("anyOf", "oneOf"):
            if word in node:
                return self._alternatives(node, word, path, refs)
        self._note(path, (word for word in _UNSAID if word in node and node[word] not in ({}, True)))
        return self._of_kind(node, path, refs)

    def _note(self, path: Path, words: Any) -> None:
        self.notes.extend(f"{json_path(path)}: {word}" for word in words)

    def _follow(self, node: dict[str, Any], path: Path, refs: tuple[str, ...]) -> Shape | None:
        target, refs = self._resolved({"$ref": node["$ref"]}, path, refs)
        rest = {word: value for word, value in node.items() if word != "$ref"}
        if target is None:
            return None
        merged = self._merged(rest, target, path)
        return None if merged is None else self.read(merged, path, refs)

    def _resolved(self, node: Any, path: Path, refs: tuple[str, ...]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        """Follow references until something else stands there; None for a value that cannot be."""
        rest: dict[str, Any] = {}
        while isinstance(node, dict) and "$ref" in node:
            ref = str(node["$ref"])
            if refs.count(ref) >= _RECURSIONS or len(refs) > _MAX_NESTING:
                return None, refs
            refs = (*refs, ref)
            beside = {word: value for word, value in node.items() if word != "$ref"}
            found = self._merged(rest, beside, path)
            if found is None:
                return None, refs
            rest = found
            node = self._at(ref)
            if node is None:
                self._note(path, (f"$ref {ref!r:.80}",))
                node = {}
        if node is False:
            return None, refs
        return self._merged(rest, node if isinstance(node, dict) else {}, path), refs

    def _at(self, ref: str) -> Any:
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

    def _merged(self, one: dict[str, Any], two: dict[str, Any], path: Path) -> dict[str, Any] | None:
        """Return a node that says what both say; None when they exclude each other."""
        merged = dict(one)
        for word, value in two.items():
            if word not in merged or merged[word] == value:
                merged[word] = value
            elif word in ("anyOf", "oneOf"):
                merged["allOf"] = [*merged.get("allOf", ()), {word: value}]
            elif word in _BOTH:
                merged[word] = _BOTH[word](merged[word], value)
                if merged[word] in ([], _EXCLUDED):
                    return None
            elif word not in _REMARKS:
                self._note(path, (f"a second {word}",))
        return merged

    def _alternatives(self, node: dict[str, Any], word: str, path: Path, refs: tuple[str, ...]) -> Shape | None:
        rest = {name: value for name, value in node.items() if name != word}
        options: list[Shape] = []
        for index, option in enumerate(node[word]):
            target, inner = self._resolved(option, path, refs)
            merged = None if target is None else self._merged(rest, target, path)
            shape = None if merged is None else self.read(merged, (*path, word, index), inner)
            if shape is not None and shape not in options:
                options.append(shape)
        if word == "oneOf" and len(node[word]) > 1:
            self._note(path, ("oneOf, sent as anyOf",))
        if not options:
            return None
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _of_kind(self, node: dict[str, Any], path: Path, refs: tuple[str, ...]) -> Shape | None:
        kinds = _listed(node["type"]) if "type" in node else []
        if "enum" in node or "const" in node:
            values = [node["const"]] if "const" in node else node["enum"]
            allowed = tuple(value for value in values if not kinds or any(_is(value, kind) for kind in kinds))
            return Fixed(allowed) if allowed else None
        if not kinds:
            kinds = [kind for kind, words in _KIND_WORDS.items() if any(word in node for word in words)][:1] or [
                "string"
            ]
        shapes = [self._single(node, kind, path, refs) for kind in kinds]
        known = tuple(shape for shape in shapes if shape is not None)
        if not known:
            return None
        return known[0] if len(known) == 1 else Choice(known)

    def _single(self, node: dict[str, Any], kind: str, path: Path, refs: tuple[str, ...]) -> Shape | None:
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
                bounds = {word: node[word] for word in _KIND_WORDS["number"] if _finite(node.get(word))}
                return number(bounds, whole=kind == "integer")
            case _:
                return self._text(node, path)

    def _text(self, node: dict[str, Any], path: Path) -> Shape | None:
        pattern, form, most = node.get("pattern"), node.get("format"), node.get("maxLength")
        if pattern is not None and (len(pattern) > _MAX_PATTERN or _ODD.search(pattern)):
            self._note(path, (f"pattern {pattern!r:.80}",))
            pattern = None
        if form is not None and (form not in _FORMATS or pattern is not None):
            self._note(path, (f"format {form!r:.40}",))
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
                self._note(path, ("uniqueItems",))
            elif most is None or most > 1:
                most = 1  # one item cannot repeat another
        first = []
        for index, item in enumerate(prefix if most is None else prefix[:most]):
            shape = self.read(item, (*path, "prefixItems", index), refs)
            if shape is None:
                break
            first.append(shape)
        whole = len(first) == len(prefix)
        item_shape = self.read(rest, (*path, "items"), refs) if whole and (most is None or most > len(first)) else None
        if (most is not None and most < least) or (item_shape is None and len(first) < least):
            return None
        return Listing(item_shape, tuple(first), least, most)

    def _record(self, node: dict[str, Any], path: Path, refs: tuple[str, ...]) -> Shape | None:
        properties = dict(node.get("properties", {}))
        needed = list(dict.fromkeys(node.get("required", ())))
        for names in node.get("dependentRequired", {}).values():
            needed.extend(name for name in names if name not in needed)
        others = node.get("additionalProperties", True)
        for name in needed:
            properties.setdefault(name, others)
        for count in range(1, node.get("minProperties", 0) + 1):
            if len(properties) < node["minProperties"]:
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
_REMARKS = frozenset(
    ("title", "description", "default", "examples", "$comment", "$defs", "definitions", "$schema", "$id")
)


def _union(one: list[Any], two: list[Any]) -> list[Any]:
    return [*one, *(item for item in two if item not in one)]


def _shared_kinds(one: Any, two: Any) -> list[Any]:
    left, right = _listed(one), _listed(two)
    shared = [kind for kind in left if kind in right]
    whole = "integer" in (*left, *right) and "integer" not in shared
    return [*shared, "integer"] if whole and "number" in (*left, *right) else shared


def _properties(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    return {**one, **two, **{name: {"allOf": [one[name], two[name]]} for name in one if name in two}}


def _schemas(one: Any, two: Any) -> Any:
    return False if one is False or two is False else {"allOf": [one, two]}


# How two nodes that hold at once say a word together.
_BOTH: dict[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
    **dict.fromkeys(("required", "allOf"), _union),
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
    return isinstance(value, _KINDS.get(kind, ()))


def grammar(schema: Mapping[str, Any]) -> str:
    """Write a bounded schema as the engine's grammar, one space after colons and commas and no other white space."""
    layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return "%llguidance {}\nstart: %json " + json.dumps({**schema, "x-guidance": layout})
