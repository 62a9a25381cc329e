"""The subsets of JSON Schema that vendors enforce, with their limits: one row per vendor, and its source."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

__all__ = ["ANTHROPIC", "ANY", "CODEX", "COHERE", "GEMINI", "OPENAI", "SUBSETS", "Subset"]

_NUMBER = ("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_DATES = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
# Vendors compile patterns to a grammar, which has no look-around and no back-references.
_LOOK_AROUND = ("(?=", "(?!", "(?<", "\\1", "\\2")


@attrs.frozen(kw_only=True, eq=False)
class Subset:
    """What one vendor's structured output takes.

    Attributes:
        name: the vendor's name, for messages.
        has_loose_mode: a schema outside the subset can be sent as it is, not enforced; False refuses it.
        keywords: the constraints that it takes, by the type that they constrain.
        annotations: keywords without effect on values that it takes, which models read.
        formats: the values of ``format`` that it takes.
        refused_in_patterns: parts of a pattern that it refuses.
        most_min_items: the largest ``minItems``; None is unlimited.
        is_closed: every object must have ``additionalProperties: false``.
        takes_optional: properties may be left out; False requires all, and optional ones may be null instead.
        needs_required: every object must require at least one property.
        wraps_root: the root must be an object, and no union.
        takes_types_beside_enum: a list of types may stand beside ``enum``.
        takes_any_value_in_enum: ``enum`` may hold booleans, null, lists and objects; False takes text and numbers.
        takes_null_in_enum: ``enum`` may hold booleans and null, where ``takes_any_value_in_enum`` is False.
        takes_const: ``const`` is taken; False sends an ``enum`` of one value.
        takes_one_of: ``oneOf`` is taken; False sends ``anyOf``.
        recursion: whether a definition may refer to itself: ``"any"``, ``"optional"`` (below a property that may be
            left out) or ``"none"``.
        takes_any_value: a schema may allow any value, or any keys.
        describes_references: a reference with a description is sent as a union of one branch; False drops the
            description, since each union counts.
        max_levels: the most levels of nesting.
        max_properties: the most properties of all objects together.
        max_enum: the most values of all enumerations together.
        max_enum_letters: the most characters of an enumeration of more than 250 texts.
        max_names: the most characters of all names of properties and definitions, values of enumerations and constants.
        max_optional: the most properties that may be left out; further ones are required, and may be null.
        max_unions: the most schemas with ``anyOf`` or a list of types.
        max_strict_tools: the most strict tools of a request.
    """

    name: str
    has_loose_mode: bool = False
    keywords: Mapping[str, tuple[str, ...]]
    annotations: tuple[str, ...] = ("title",)
    formats: frozenset[str] = frozenset(_DATES)
    refused_in_patterns: tuple[str, ...] = _LOOK_AROUND
    most_min_items: int | None = None
    is_closed: bool = True
    takes_optional: bool = True
    needs_required: bool = False
    wraps_root: bool = True
    takes_types_beside_enum: bool = True
    takes_any_value_in_enum: bool = True
    takes_null_in_enum: bool = True
    takes_const: bool = True
    takes_one_of: bool = False
    recursion: str = "any"
    takes_any_value: bool = False
    describes_references: bool = True
    max_levels: int | None = None
    max_properties: int | None = None
    max_enum: int | None = None
    max_enum_letters: int | None = None
    max_names: int | None = None
    max_optional: int | None = None
    max_unions: int | None = None
    max_strict_tools: int | None = None


OPENAI = Subset(
    # OpenAI, "Structured model outputs", sections "Supported schemas" and "Supported properties", August 2026: 5000
    # properties, 10 levels, 120,000 characters of names, 1000 enumerated values, 15,000 characters of an enumeration of
    # more than 250 texts; every property required, optional ones by a union with null; closed objects; no allOf, not,
    # dependentRequired, dependentSchemas, if, then, else.
    name="openai",
    has_loose_mode=True,
    keywords={
        "string": ("pattern", "format"),
        "number": _NUMBER,
        "integer": _NUMBER,
        "array": ("minItems", "maxItems"),
    },
    takes_optional=False,
    max_levels=10,
    max_properties=5000,
    max_enum=1000,
    max_enum_letters=15_000,
    max_names=120_000,
)
CODEX = attrs.evolve(OPENAI, name="codex", has_loose_mode=False)
"""The command-line agent always asks for strict mode."""

ANTHROPIC = Subset(
    # Claude API docs, "Structured outputs", "JSON Schema limitations" and "Schema complexity limits", August 2026: 24
    # optional parameters and 16 parameters with union types (anyOf or lists of types) in all schemas of a request
    # together, 20 strict tools; no recursion, no numerical or length constraints, minItems 0 and 1, patterns without
    # word boundaries; enum of strings, numbers, booleans and nulls. Its values are checked against the type beside it:
    # "Enum value 'low' does not match declared type '['string', 'null']'" (BerriAI/litellm issue 37881); Anthropic's
    # own client leaves the type out (anthropic.lib._parse._transform, 2.14).
    name="anthropic",
    keywords={"string": ("pattern", "format"), "array": ("minItems",)},
    formats=frozenset({*_DATES, "uri"}),
    refused_in_patterns=(*_LOOK_AROUND, "\\b", "\\B"),
    most_min_items=1,
    takes_types_beside_enum=False,
    takes_any_value_in_enum=False,
    recursion="none",
    describes_references=False,
    max_optional=24,
    max_unions=16,
    max_strict_tools=20,
)
GEMINI = Subset(
    # Gemini API reference, GenerationConfig.responseJsonSchema: the keywords below; enum of strings and numbers; oneOf
    # as anyOf; a sub-schema with $ref may hold no other keyword; references in a circle stand in properties that may be
    # left out. Other keywords are ignored.
    name="gemini",
    keywords={
        "string": ("format",),
        "number": ("minimum", "maximum"),
        "integer": ("minimum", "maximum"),
        "array": ("minItems", "maxItems", "prefixItems"),
        "object": ("propertyOrdering",),
    },
    formats=frozenset({"date-time", "date", "time", "duration"}),
    is_closed=False,
    wraps_root=False,
    takes_any_value_in_enum=False,
    takes_null_in_enum=False,
    takes_const=False,
    takes_one_of=True,
    recursion="optional",
    takes_any_value=True,
)
COHERE = Subset(
    # Cohere's docs, "Structured Outputs": the top level is an object, every object requires a property; anyOf, $ref,
    # const, enum, pattern and format; no allOf, oneOf, not, ranges, lengths; no ^, $, ?= and ?! in patterns.
    name="cohere",
    keywords={"string": ("pattern", "format")},
    formats=frozenset({"date-time", "uuid", "date", "time"}),
    refused_in_patterns=(*_LOOK_AROUND, "^", "$"),
    is_closed=False,
    needs_required=True,
    takes_any_value_in_enum=False,
    takes_any_value=True,
)
ANY = attrs.evolve(
    OPENAI,
    name="any",
    is_closed=False,
    takes_any_value=True,
    max_levels=None,
    max_properties=None,
    max_enum=None,
    max_enum_letters=None,
    max_names=None,
)
"""No vendor's: every addition that a projection may make, for reading answers of unknown origin."""

SUBSETS = {subset.name: subset for subset in (OPENAI, CODEX, ANTHROPIC, GEMINI, COHERE)}
"""The rows by the name under which profiles refer to them."""
