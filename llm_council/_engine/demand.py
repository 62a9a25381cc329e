"""What a JSON Schema demands at each place of an answer, as far as it can be said before the answer is whole.

Nothing is demanded that is not certain: ``patternProperties``, conditions, choices with more than one way left, and
references that are not plain names under ``$defs`` are passed over. The final validation knows them all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import attrs

from llm_council import _schema
from llm_council.errors import InvalidOption

__all__ = ["Demand", "demand_of"]

_DEFINITIONS = ("$defs", "definitions")
_PLAIN = tuple(f"#/{word}/" for word in _DEFINITIONS)
_REBASING = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef")
_SILENT = frozenset("type title description default examples deprecated readOnly writeOnly $comment".split())
_HOPS = 8  # references and choices that are followed from one place


def demand_of(schema: Mapping[str, Any]) -> Demand:
    """Return what a schema demands of a whole answer; the last 128 are kept."""
    return _demand(json.dumps(schema))


@lru_cache(maxsize=128)
def _demand(text: str) -> Demand:
    schema = json.loads(text)
    if any(map(_is_odd, _mappings(schema))) or _rebased(schema):
        return Demand(root=schema, schemas=())
    return Demand(root=schema, schemas=tuple(_resolved(schema, schema)))


@attrs.frozen(kw_only=True)
class Demand:
    """The schemas that the value at one place must meet, all of them; without any, nothing is demanded.

    Attributes:
        root: the whole schema, for its definitions.
        schemas: plain schemas, references followed.
    """

    root: Mapping[str, Any] = attrs.field(repr=False)
    schemas: tuple[Mapping[str, Any], ...]

    def nothing(self) -> Demand:
        """Return what demands nothing."""
        return attrs.evolve(self, schemas=())

    def admits(self, kind: str, hops: int = 0) -> bool:
        """Tell whether a value of a JSON type may stand here; ``"number"`` covers whole ones."""
        if hops > _HOPS:
            return True
        for schema in self.schemas:
            kinds = _kinds(schema)
            if kinds is not None and kind not in kinds and not (kind == "number" and "integer" in kinds):
                return False
            if any(not ways for ways in self._ways(schema, kind, hops)):
                return False
        return True

    def kinds(self) -> str:
        """Name the types that may stand here, for people."""
        found = [kinds for kinds in map(_kinds, self.schemas) if kinds]
        return " or ".join(found[0]) if found else "another type"

    def narrowed(self, kind: str) -> Demand:
        """Add what follows from the type that has begun: of several choices, the only one that takes it."""
        only = [
            way for schema in self.schemas for ways in self._ways(schema, kind, 0) if len(ways) == 1 for way in ways[0]
        ]
        return attrs.evolve(self, schemas=(*self.schemas, *only)) if only else self

    def at(self, key: str) -> Demand | None:
        """Return what is demanded of a property; None for one that is not allowed."""
        found: list[Mapping[str, Any]] = []
        for schema in self.schemas:
            properties = schema.get("properties")
            if isinstance(properties, Mapping) and key in properties:
                found += _resolved(self.root, properties[key])
            elif "patternProperties" not in schema:
                others = schema.get("additionalProperties")
                if others is False:
                    return None
                found += _resolved(self.root, others)
        return attrs.evolve(self, schemas=tuple(found))

    def of_items(self) -> Demand:
        """Return what is demanded of every item of an array."""
        lists = (schema for schema in self.schemas if "prefixItems" not in schema)
        return attrs.evolve(
            self, schemas=tuple(found for schema in lists for found in _resolved(self.root, schema.get("items")))
        )

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the properties that a whole object lacks."""
        there = set(keys)
        lists = [schema.get("required") for schema in self.schemas]
        return [key for words in lists if isinstance(words, list | tuple) for key in words if key not in there]

    def most(self, word: str) -> float | None:
        """Return the lowest upper bound, such as that of ``"maxItems"``; None when there is none."""
        return min((schema[word] for schema in self.schemas if _is_number(schema.get(word))), default=None)

    def fewest(self) -> float:
        """Return how many items an array must have."""
        return max((schema["minItems"] for schema in self.schemas if _is_number(schema.get("minItems"))), default=0)

    def fault(self, value: str | float) -> str | None:
        """Say what is wrong with a text, a number or a truth value; None when nothing is."""
        for schema in self.schemas:
            if schema.keys() <= _SILENT and not (isinstance(value, float) and "integer" in (_kinds(schema) or ())):
                continue  # its type was looked at when it began
            validator = self._validator(schema)
            problems = validator.problems(value) if validator else ()
            if problems:
                return problems[0].message
        return None

    def _validator(self, schema: Mapping[str, Any]) -> _schema.Validator | None:
        shared = {word: self.root[word] for word in ("$schema", *_DEFINITIONS) if word in self.root}
        own = {word: value for word, value in schema.items() if word not in ("$id", "id")}
        try:
            return _schema.compile({**own, **shared})
        except InvalidOption:  # a part that says nothing on its own
            return None

    def _ways(self, schema: Mapping[str, Any], kind: str, hops: int) -> Iterator[list[tuple[Mapping[str, Any], ...]]]:
        """Yield, for each choice in a schema, its alternatives that take a type."""
        for word in ("anyOf", "oneOf"):
            if not isinstance(schema.get(word), list | tuple):
                continue
            ways = [tuple(_resolved(self.root, choice)) for choice in schema[word] if choice is not False]
            yield [way for way in ways if attrs.evolve(self, schemas=way).admits(kind, hops + 1)]


def _resolved(root: Mapping[str, Any], schema: Any, hops: int = 0) -> list[Mapping[str, Any]]:
    """Return the schemas that hold where one holds: itself, what it refers to, and the parts of its ``allOf``."""
    if not isinstance(schema, Mapping) or hops > _HOPS:
        return []
    if "$ref" in schema:  # what stands beside it counts in some drafts only
        return _resolved(root, _target(root, schema["$ref"]), hops + 1)
    parts = schema.get("allOf")
    more = [found for part in parts for found in _resolved(root, part, hops + 1)] if isinstance(parts, list) else []
    return [schema, *more]


def _target(root: Mapping[str, Any], reference: str) -> Any:
    value: Any = root
    for part in reference.split("/")[1:]:
        if not isinstance(value, Mapping):
            return None
        value = value.get(part.replace("~1", "/").replace("~0", "~"))
    return value


def _kinds(schema: Mapping[str, Any]) -> list[str] | None:
    kind = schema.get("type")
    if isinstance(kind, str):
        return [kind]
    return list(kind) if isinstance(kind, list | tuple) else None


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _mappings(item)


def _is_odd(schema: Mapping[str, Any]) -> bool:
    """Tell whether a schema refers to anything but a plain name, or changes what references mean."""
    reference = schema.get("$ref")
    if isinstance(reference, str) and (not reference.startswith(_PLAIN) or "%" in reference):
        return True
    return any(isinstance(schema.get(word), str | bool) for word in _REBASING)


def _rebased(schema: Mapping[str, Any]) -> bool:
    """Tell whether a part of a schema has an address of its own, against which references would count."""
    parts = _mappings(list(schema.values()))
    return any(isinstance(part.get(word), str) for part in parts for word in ("$id", "id"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
