"""Project a JSON Schema to the subset that a vendor enforces, list what is lost, and restore the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import attrs

from llm_council._schema.restore import (
    Branch,
    ListWalk,
    ObjectWalk,
    ReferenceWalk,
    ShapeWalk,
    UnionWalk,
    Walk,
    WrapperWalk,
)
from llm_council._schema.subsets import OPENAI, Subset
from llm_council._schema.validate import WRAPPER, json_path, plain_schema
from llm_council._schema.validate import compile as check
from llm_council.errors import InvalidOption

__all__ = ["Projection", "project_strict"]

Node = dict[str, Any]
Path = tuple[str | int, ...]

_MANY_TEXTS = 250  # an enumeration of more texts has a limit on their characters
# Keywords that constrain nothing. Those that a vendor does not take are left out without an adjustment.
_ANNOTATIONS = frozenset(
    "$schema $id $anchor $comment title default examples deprecated readOnly writeOnly definitions $defs".split()
)
_STRUCTURE = frozenset(
    "$ref type enum const description properties required additionalProperties items anyOf oneOf allOf".split()
)
_DEFINITIONS = ("$defs", "definitions")
_TYPE_NAMES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    type(None): "null",
}
_NULL = {"type": "null"}
_ROOT = "__root"  # a definition that holds the whole schema, where a part of it is compiled


@attrs.frozen(kw_only=True)
class Projection:
    """A schema for structured output, and the way back.

    Attributes:
        schema: the schema to send.
        strict: True if the vendor enforces it; otherwise ``schema`` is the original.
        adjustments: the constraints that the vendor does not enforce, or why it enforces none. Answers are always
            validated against the original schema.
        optional: how many properties of ``schema`` may be left out.
        unions: how many schemas in it have ``anyOf`` or a list of types.
    """

    schema: Node
    strict: bool
    adjustments: tuple[str, ...] = ()
    optional: int = 0
    unions: int = 0
    _walk: Walk = attrs.field(factory=Walk, eq=False, repr=False, alias="walk")

    def restore(self, value: Any) -> Any:
        """Return an answer without what the projection added: nulls that mean absence, and the wrapper.

        An answer to ``schema`` becomes the answer to the original schema. An optional property for which the original
        allows null as well is absent afterwards, since null is the only way to leave it out.
        """
        return self._walk.restore(value)

    @property
    def adds_nothing(self) -> bool:
        """Return True if ``restore`` changes no answer."""
        return type(self._walk) is Walk


class _NotStrict(Exception):
    """The subset cannot express the schema."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"strict mode is off: {json_path(path)}: {reason}")


def project_strict(
    schema: Mapping[str, Any],
    subset: Subset = OPENAI,
    *,
    optional_left: int | None = None,
    unions_left: int | None = None,
) -> Projection:
    """Project a schema to what a vendor enforces.

    Where the vendor wants it, objects get ``additionalProperties: false``, all properties become required, optional
    ones may be null instead, and a root that is not an object is wrapped under ``WRAPPER``. Keywords that the vendor
    does not take are left out and listed. A schema that the subset cannot express, for example because an object may
    have any keys, is returned unchanged with ``strict=False``.

    Args:
        schema: any JSON Schema.
        subset: what the vendor takes.
        optional_left: how many properties may be left out, if other schemas of the request use up ``max_optional``.
        unions_left: how many unions there may be, likewise.

    Returns:
        The projection, which shares no data with the argument.

    Raises:
        InvalidOption: the argument is not a JSON Schema, or is too deep or too large.
    """
    plain = plain_schema(schema)
    check(plain)
    most_optional = subset.max_optional if optional_left is None else optional_left
    most_unions = subset.max_unions if unions_left is None else unions_left
    projector = _Projector(plain, attrs.evolve(subset, max_optional=most_optional, max_unions=most_unions))
    try:
        projected, walk = projector.root()
    except _NotStrict as error:
        return Projection(schema=plain, strict=False, adjustments=(str(error),))
    return Projection(
        schema=projected,
        strict=True,
        adjustments=tuple(dict.fromkeys(projector.adjustments)),
        optional=projector.optional,
        unions=projector.unions,
        walk=walk,
    )


class _Projector:
    """Walk a schema once; collect its projection, the walk of its answers, the limited totals, and the adjustments."""

    def __init__(self, schema: Node, subset: Subset) -> None:
        self._schema = schema
        self._subset = subset
        self._properties = self._enumerated = self._letters = 0
        self._walks: dict[str, Walk] = {}  # by reference
        self._body: Node = {}
        self._definitions: dict[str, dict[str, Node]] = {}
        self._adds_nulls = False
        self.optional = self.unions = 0
        self.adjustments: list[str] = []

    def root(self) -> tuple[Node, Walk]:
        top = self._top()
        self._body, walk = self._node(top, (), 0)
        self._walks["#"] = walk
        for key in _DEFINITIONS:
            listed = self._schema.get(key)
            if isinstance(listed, dict):
                self._definitions[key] = {name: self._definition(key, name, item) for name, item in listed.items()}
        self._count_unions()
        projected: Node = self._body | self._definitions
        if not self._is_recursion_allowed(projected):
            raise _NotStrict((), "a definition refers to itself")
        if self._subset.wraps_root and self._body.get("type") != "object":
            return self._wrapped(), WrapperWalk(walk)
        return projected, walk if self._adds_nulls else Walk()

    def _top(self) -> Node:
        """Return the schema that the root refers to."""
        top = self._schema
        for _hop in range(10):
            if "$ref" not in top:
                break
            target = self._resolve(top["$ref"], ())
            if target is top or target is self._schema:
                raise _NotStrict((), "the root refers to itself")
            top = target
        return top

    def _definition(self, key: str, name: str, item: Any) -> Node:
        self._add_letters((key, name), [name])
        node, self._walks[f"#/{key}/{name}"] = self._node(item, (key, name), 0)
        return node

    def _wrapped(self) -> Node:
        self.adjustments.append(f'$: asked for as {{"{WRAPPER}": ...}}')
        place = f"#/properties/{WRAPPER}"
        wrapper = {
            "type": "object",
            "properties": {WRAPPER: _move_root_references(self._body, place)},
            "required": [WRAPPER],
            "additionalProperties": False,
        }
        return {**wrapper, **_move_root_references(self._definitions, place)}

    def _node(self, node: Any, path: Path, level: int) -> tuple[Node, Walk]:
        most_levels = self._subset.max_levels
        if most_levels is not None and level > most_levels:
            raise _NotStrict(path, f"nested deeper than {most_levels} levels")
        if node is True or node == {}:
            return self._any_value(path)
        if not isinstance(node, dict):
            raise _NotStrict(path, "no value is allowed")
        if "$ref" in node:
            return self._reference(node, path)
        if "allOf" in node:
            node = self._merge_all_of(node, path)
        choices = node.get("anyOf", node.get("oneOf"))
        if choices is not None:
            return self._choice(node, choices, path, level)
        types = _types_of(node)
        if not types:
            self._note_unenforced(path, (word for word in node if word not in _ANNOTATIONS | {"description"}))
            return self._any_value(path)
        if "enum" in node or ("const" in node and not self._subset.takes_const):
            return self._enumeration(node, types, path), Walk()
        return self._typed(node, types, path, level)

    def _typed(self, node: Node, types: tuple[str, ...], path: Path, level: int) -> tuple[Node, Walk]:
        out: Node = {"type": types[0] if len(types) == 1 else list(types)}
        out |= self._described(node)
        if "const" in node:
            out["const"] = node["const"]
            self._add_letters(path, [node["const"]])
            if len(types) > 1 and not self._subset.takes_types_beside_enum:
                del out["type"]
        out |= self._constraints(node, types)
        objects = lists = Walk()
        if "object" in types:
            shape, objects = self._object(node, path, level)
            out |= shape
        if "array" in types:
            shape, lists = self._array(node, path, level)
            out |= shape
        self._note_unenforced(path, (word for word in node if word not in _STRUCTURE | _ANNOTATIONS | out.keys()))
        return out, ShapeWalk(objects, lists)

    def _any_value(self, path: Path) -> tuple[Node, Walk]:
        if not self._subset.takes_any_value:
            raise _NotStrict(path, "any value is allowed")
        return {}, Walk()

    def _described(self, node: Node) -> Node:
        words = ("description", *self._subset.annotations)
        return {word: node[word] for word in words if isinstance(node.get(word), str)}

    def _reference(self, node: Node, path: Path) -> tuple[Node, Walk]:
        reference = node["$ref"]
        self._resolve(reference, path)
        self._note_unenforced(path, (word for word in node if word not in _ANNOTATIONS | {"$ref", "description"}))
        walk = ReferenceWalk(lambda: self._walks[_unescaped(reference)])
        plain = {"$ref": reference}
        described = self._described(node)
        if not described or not self._subset.describes_references:
            return plain, walk
        # Vendors refuse a reference with other keywords beside it, but take those beside a union.
        return {"anyOf": [plain], **described}, walk

    def _enumeration(self, node: Node, types: tuple[str, ...], path: Path) -> Node:
        subset = self._subset
        values = [value for value in node.get("enum", [node.get("const")]) if _is_of(value, types)]
        if not values:
            raise _NotStrict(path, "no value is allowed")
        self._count_values(values, path)
        described = self._described(node)
        self._note_unenforced(path, (word for word in node if word not in _STRUCTURE | _ANNOTATIONS))
        if subset.takes_any_value_in_enum:
            found = tuple(kind for kind in types if any(_is_of(value, (kind,)) for value in values))
            given = types if "type" in node else found
            return {"type": given[0] if len(given) == 1 else list(given), **described, "enum": values}
        if any(isinstance(value, dict | list) for value in values):
            raise _NotStrict(path, "a list or an object is an enumerated value")
        if subset.takes_null_in_enum:
            if len(types) == 1:
                return {"type": types[0], **described, "enum": values}
            return {**described, "enum": values}
        return _enumerated_branches(values, described)

    def _count_values(self, values: list[Any], path: Path) -> None:
        subset = self._subset
        self._enumerated += len(values)
        if subset.max_enum is not None and self._enumerated > subset.max_enum:
            raise _NotStrict(path, f"more than {subset.max_enum} enumerated values")
        texts = [value for value in values if isinstance(value, str)]
        letters = sum(map(len, texts))
        if subset.max_enum_letters is not None and len(texts) > _MANY_TEXTS and letters > subset.max_enum_letters:
            reason = f"more than {subset.max_enum_letters} characters in {len(texts)} enumerated values"
            raise _NotStrict(path, reason)
        self._add_letters(path, values)

    def _add_letters(self, path: Path, words: Iterable[Any]) -> None:
        most = self._subset.max_names
        self._letters += sum(len(word if isinstance(word, str) else str(word)) for word in words)
        if most is not None and self._letters > most:
            raise _NotStrict(path, f"more than {most} characters in names and enumerated values")

    def _constraints(self, node: Node, types: Iterable[str]) -> Node:
        """Return the constraints of a node that the vendor enforces for its types."""
        subset = self._subset
        words = [word for kind in types for word in subset.keywords.get(kind, ()) if word in node]
        enforced = {word: node[word] for word in words if word != "prefixItems"}
        if enforced.get("format") not in (None, *subset.formats):
            del enforced["format"]
        if any(part in enforced.get("pattern", "") for part in subset.refused_in_patterns):
            del enforced["pattern"]
        if subset.most_min_items is not None and enforced.get("minItems", 0) > subset.most_min_items:
            del enforced["minItems"]
        return enforced

    def _object(self, node: Node, path: Path, level: int) -> tuple[Node, Walk]:
        self._require_expressible(node, path)
        subset = self._subset
        properties, required = node.get("properties", {}), node.get("required", [])
        extra = node.get("additionalProperties")
        needs_one = subset.needs_required and not required
        projected: dict[str, Node] = {}
        walks: dict[str, Walk] = {}
        asked: list[str] = []
        nullable: list[str] = []
        for name, item in properties.items():
            projected[name], walks[name] = self._node(item, (*path, "properties", name), level + 1)
            if name in required:
                asked.append(name)
            elif self._may_be_left_out() and not (needs_one and not asked):
                self.optional += 1
            else:
                projected[name] = _with_null(projected[name], subset)
                asked.append(name)
                nullable.append(name)
                self._adds_nulls = True
        asked += [name for name in required if name not in properties]
        out: Node = {"properties": projected} if properties or subset.is_closed else {}
        if asked or subset.is_closed:
            out["required"] = asked
        further = Walk()
        if subset.is_closed:
            out["additionalProperties"] = False
        elif isinstance(extra, dict):
            out["additionalProperties"], further = self._node(extra, (*path, "additionalProperties"), level + 1)
        elif extra is not None:
            out["additionalProperties"] = extra
        return out, ObjectWalk(walks, frozenset(nullable), further)

    def _require_expressible(self, node: Node, path: Path) -> None:
        """Raise ``_NotStrict`` for an object that the subset cannot express; count and note its parts."""
        subset, properties = self._subset, node.get("properties", {})
        required, extra = node.get("required", []), node.get("additionalProperties")
        if subset.is_closed and not properties and extra is not False:
            raise _NotStrict(path, "an object of any keys")
        missing = [name for name in required if name not in properties]
        if subset.is_closed and missing:
            raise _NotStrict(path, f"the required property {missing[0]!r:.80} has no schema")
        if subset.is_closed and extra not in (None, False):
            self.adjustments.append(f"{json_path(path)}: only the named properties are asked for")
        if subset.needs_required and not properties and not required:
            raise _NotStrict(path, "an object that requires no property")
        self._properties += len(properties)
        if subset.max_properties is not None and self._properties > subset.max_properties:
            raise _NotStrict(path, f"more than {subset.max_properties} properties")
        self._add_letters(path, properties)

    def _may_be_left_out(self) -> bool:
        most = self._subset.max_optional
        return self._subset.takes_optional and (most is None or self.optional < most)

    def _array(self, node: Node, path: Path, level: int) -> tuple[Node, Walk]:
        items = node.get("items")
        out: Node = {}
        first: list[Walk] = []
        listed = node.get("prefixItems")
        if isinstance(listed, list) and "prefixItems" in self._subset.keywords.get("array", ()):
            found = [self._node(item, (*path, "prefixItems", index), level + 1) for index, item in enumerate(listed)]
            out["prefixItems"] = [schema for schema, _ in found]
            first = [walk for _, walk in found]
        if isinstance(items, dict):
            out["items"], walk = self._node(items, (*path, "items"), level + 1)
            return out, ListWalk(walk, first)
        if not self._subset.takes_any_value:
            raise _NotStrict(path, "the items of the array have no schema")
        if isinstance(items, bool):
            out["items"] = items
        return out, ListWalk(Walk(), first)

    def _choice(self, node: Node, choices: list[Any], path: Path, level: int) -> tuple[Node, Walk]:
        if "properties" in node or "items" in node:
            raise _NotStrict(path, "a choice that also has a shape of its own")
        word = "oneOf" if "anyOf" not in node and self._subset.takes_one_of else "anyOf"
        if word not in node:  # Validator still checks that one branch alone matches
            self.adjustments.append(f"{json_path(path)}: oneOf is asked for as anyOf")
        shared = {"type": node["type"]} if "type" in node else {}
        schemas: list[Node] = []
        branches: list[Branch] = []
        for index, choice in enumerate(choices):
            original = shared | choice if isinstance(choice, dict) else choice
            schema, walk = self._node(original, (*path, word, index), level + 1)
            schemas.append(schema)
            branches.append(Branch(walk, self._check_of(schema)))
        self._note_unenforced(path, (word for word in node if word not in _STRUCTURE | _ANNOTATIONS))
        return {word: schemas} | self._described(node), UnionWalk(branches, self._check_of(node, original=True))

    def _check_of(self, schema: Node, *, original: bool = False) -> Callable[[], Callable[[Any], bool]]:
        """Return a function that compiles a part of the projection, or of the original, and returns its check."""

        def make() -> Callable[[Any], bool]:
            definitions: Mapping[str, Any] = self._definitions
            body: Node = self._body
            if original:
                body = {key: value for key, value in self._schema.items() if key not in (*_DEFINITIONS, "$id")}
                definitions = {key: self._schema[key] for key in _DEFINITIONS if key in self._schema}
            place = f"#/$defs/{_ROOT}"
            whole = {**schema, **definitions}
            whole["$defs"] = {**definitions.get("$defs", {}), _ROOT: body}
            if original and "$schema" in self._schema:
                whole["$schema"] = self._schema["$schema"]
            try:
                return check(_move_root_references(whole, place)).accepts
            except InvalidOption:  # a reference that resolves in the whole schema only
                return lambda value: True

        return make

    def _merge_all_of(self, node: Node, path: Path) -> Node:
        """Merge an ``allOf`` with one part into its node. Several parts could contradict each other."""
        rest = {key: value for key, value in node.items() if key != "allOf"}
        if len(node["allOf"]) != 1:
            raise _NotStrict(path, "allOf")
        part = node["allOf"][0]
        if isinstance(part, dict) and "$ref" in part:
            part = self._resolve(part["$ref"], path)
        if not isinstance(part, dict) or (part.keys() & rest.keys()) - _ANNOTATIONS - {"description"}:
            raise _NotStrict(path, "allOf")
        merged = part | rest
        if "allOf" in merged:
            raise _NotStrict(path, "allOf")
        return merged

    def _resolve(self, reference: object, path: Path) -> Node:
        """Return the schema that a reference names: the root or a definition. Others could move in the projection."""
        if reference == "#":
            return self._schema
        if isinstance(reference, str):
            parts = _unescaped(reference).split("/", 2)
            if len(parts) == 3 and parts[0] == "#" and parts[1] in _DEFINITIONS:
                target = self._schema.get(parts[1], {}).get(parts[2])
                if isinstance(target, dict):
                    return target
        raise _NotStrict(path, f"the reference {reference!r:.80}")

    def _note_unenforced(self, path: Path, words: Iterable[str]) -> None:
        where = json_path(path)
        self.adjustments.extend(f"{where}: {word} is checked here, not by the vendor" for word in words)

    def _count_unions(self) -> None:
        self.unions = _unions_in([self._body, self._definitions])
        most = self._subset.max_unions
        if most is not None and self.unions > most:
            limits = f"more than {self._subset.max_optional} optional properties and {most} unions"
            raise _NotStrict((), limits)

    def _is_recursion_allowed(self, schema: Node) -> bool:
        """Return True if the vendor takes the references that lead back to themselves, or there are none."""
        if self._subset.recursion == "any":
            return True
        optional_too = self._subset.recursion == "none"
        body = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
        graph = {"#": _references(body, optional_too=optional_too)}
        for key, listed in self._definitions.items():
            for name, item in listed.items():
                graph[f"#/{key}/{name}"] = _references(item, optional_too=optional_too)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError:
            return False
        return True


def _enumerated_branches(values: list[Any], described: Node) -> Node:
    """Return an enumeration for a vendor that enumerates texts and numbers only."""
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    branches: list[Node] = [{"type": "string", "enum": texts}] if texts else []
    if numbers:
        kind = "integer" if all(isinstance(number, int) for number in numbers) else "number"
        branches.append({"type": kind, "enum": numbers})
    if any(isinstance(value, bool) for value in values):
        branches.append({"type": "boolean"})
    if None in values:
        branches.append(_NULL)
    return {**branches[0], **described} if len(branches) == 1 else {"anyOf": branches, **described}


def _types_of(node: Node) -> tuple[str, ...]:
    """Return the types of a node; without ``type``, they follow from its other keywords."""
    named = node.get("type")
    if isinstance(named, str):
        return (named,)
    if isinstance(named, list):
        return tuple(named)
    if "properties" in node:
        return ("object",)
    if "items" in node:
        return ("array",)
    values = node["enum"] if "enum" in node else [node["const"]] if "const" in node else []
    return tuple(sorted({_TYPE_NAMES.get(type(value), "object") for value in values}))


def _is_of(value: Any, types: Iterable[str]) -> bool:
    """Return True if a value has one of the types."""
    own = _TYPE_NAMES.get(type(value), "object")
    is_whole = isinstance(value, float) and value.is_integer()
    fitting = {own, "number"} if own == "integer" else {own, "integer"} if is_whole else {own}
    return not fitting.isdisjoint(types)


def _with_null(node: Node, subset: Subset) -> Node:
    """Allow null as well, which is how an optional property is expressed where all are required."""
    for word in ("anyOf", "oneOf"):
        if word in node:
            return node if _NULL in node[word] else node | {word: [*node[word], _NULL]}
    if not node:
        return node
    if "enum" in node and "type" not in node:
        return node if None in node["enum"] else node | {"enum": [*node["enum"], None]}
    if "enum" in node and not subset.takes_types_beside_enum:
        untyped = {key: value for key, value in node.items() if key != "type"}
        return untyped if None in node["enum"] else untyped | {"enum": [*node["enum"], None]}
    if "$ref" in node or "const" in node or "type" not in node:
        return {"anyOf": [node, _NULL]}
    types = [node["type"]] if isinstance(node["type"], str) else node["type"]
    if "null" not in types:
        node = node | {"type": [*types, "null"]}
    if None not in node.get("enum", [None]):  # an enum without null would still exclude it
        node = node | {"enum": [*node["enum"], None]}
    return node


def _move_root_references(node: Any, place: str) -> Any:
    """Change the references to the root, which is at another place now."""
    if isinstance(node, dict):
        return {
            key: place if key == "$ref" and value == "#" else _move_root_references(value, place)
            for key, value in node.items()
        }
    return [_move_root_references(item, place) for item in node] if isinstance(node, list) else node


def _unescaped(reference: str) -> str:
    return reference.replace("~1", "/").replace("~0", "~")


def _unions_in(node: Any) -> int:
    """Return the number of schemas with ``anyOf``, ``oneOf`` or a list of types."""
    if isinstance(node, list):
        return sum(map(_unions_in, node))
    if not isinstance(node, dict):
        return 0
    own = isinstance(node.get("type"), list) or any(isinstance(node.get(word), list) for word in ("anyOf", "oneOf"))
    return own + sum(_unions_in(value) for key, value in node.items() if key not in ("enum", "const"))


def _references(node: Any, *, optional_too: bool) -> set[str]:
    """Return every ``$ref`` in a schema without definitions, or those alone that no optional property can leave out."""
    if isinstance(node, list):
        return set().union(*(_references(item, optional_too=optional_too) for item in node))
    if not isinstance(node, dict):
        return set()
    found = {_unescaped(node["$ref"])} if isinstance(node.get("$ref"), str) else set()
    required = node.get("required", [])
    for key, value in node.items():
        if key == "properties" and isinstance(value, dict):
            kept = [item for name, item in value.items() if optional_too or name in required]
            found |= _references(kept, optional_too=optional_too)
        elif key not in ("enum", "const"):
            found |= _references(value, optional_too=optional_too)
    return found
