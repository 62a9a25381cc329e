"""Projection to each vendor's subset, and the way back: golden schemas by vendor, and the law of the inverse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import _schema
from llm_council._schema import SUBSETS, project_strict

VENDORS = ["openai", "anthropic", "gemini", "cohere"]
Pair = tuple[dict[str, Any], st.SearchStrategy[Any]]


def shape(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """Return the schema of an object."""
    found: dict[str, Any] = {"type": "object", "properties": properties}
    return {**found, "required": list(required)} if required else found


def circle(required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a schema whose definition refers to itself."""
    return {"$ref": "#/$defs/n", "$defs": {"n": shape(required, n={"$ref": "#/$defs/n"})}}


STRING = {"type": "string"}
INTEGER = {"type": "integer"}
CLOSED_PLACE = {**shape(("name",), name=STRING), "additionalProperties": False}


# The inverse. A strategy draws a schema together with the strategy of its values; ``written`` stands for the vendor.

texts = st.text("abc ", max_size=4)
leaves: st.SearchStrategy[Pair] = st.sampled_from(
    [
        ({"type": "string", "maxLength": 9}, texts),
        ({"type": "integer", "minimum": -5}, st.integers(-5, 5)),
        ({"type": ["string", "null"]}, texts | st.none()),
        ({"type": "string", "enum": ["x", "y"]}, st.sampled_from(["x", "y"])),
        ({"type": ["string", "null"], "enum": ["x", None]}, st.sampled_from(["x", None])),
        ({"enum": ["x", 1, None]}, st.sampled_from(["x", 1, None])),
        ({"const": "k"}, st.just("k")),
        ({"$ref": "#/$defs/point", "description": "a place"}, st.deferred(lambda: points)),
        ({"allOf": [{"type": "boolean"}]}, st.booleans()),
    ]
)
POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "required": ["x"]}
points = st.fixed_dictionaries({"x": st.integers(0, 9)}, optional={"y": st.integers(0, 9)})


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Pair]) -> Pair:
    properties = draw(st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    kind = draw(st.sampled_from(["object", ["object", "null"]]))
    schema = {
        "type": kind,
        "properties": {name: found for name, (found, _) in properties.items()},
        "required": required,
    }
    values: st.SearchStrategy[Any] = st.fixed_dictionaries(
        {name: properties[name][1] for name in required},
        optional={name: found for name, (_, found) in properties.items() if name not in required},
    )
    return schema, values if kind == "object" else values | st.none()


@st.composite
def unions(draw: st.DrawFn, inner: st.SearchStrategy[Pair]) -> Pair:
    """Unions of objects that a constant tells apart."""
    word = draw(st.sampled_from(["anyOf", "oneOf"]))
    branches: list[dict[str, Any]] = []
    values: list[st.SearchStrategy[Any]] = []
    for index in range(draw(st.integers(1, 3))):
        schema, found = draw(inner)
        properties = {"kind": {"const": f"k{index}"}, "of": schema}
        branches.append({"type": "object", "properties": properties, "required": ["kind"]})
        values.append(st.fixed_dictionaries({"kind": st.just(f"k{index}")}, optional={"of": found}))
    if draw(st.booleans()):
        branches.append({"type": "null"})
        values.append(st.none())
    return {word: branches}, st.one_of(values)


def lists(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    return inner.map(lambda pair: ({"type": "array", "items": pair[0]}, st.lists(pair[1], max_size=3)))


pairs = st.recursive(leaves, lambda inner: objects(inner) | unions(inner) | lists(inner), max_leaves=8)


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], Any]:
    schema, values = draw(pairs)
    return {**schema, "$defs": {"point": POINT}}, draw(values)


def written(value: Any, original: dict[str, Any], projected: dict[str, Any], root: dict[str, Any]) -> Any:
    """Return a value as a vendor writes it that enforces the projection: every required property is there."""
    if "allOf" in original:
        original = original["allOf"][0]
    words = ("anyOf", "oneOf")
    branches = next((original[word] for word in words if word in original), None)
    choices = next((projected[word] for word in words if word in projected), None)
    if branches is not None:
        for branch, choice in zip(branches, choices or [projected] * len(branches), strict=False):
            if _schema.compile({**branch, "$defs": {"point": POINT}}).accepts(value):
                return written(value, branch, choice, root)
    if choices is not None:  # a wrapped reference, a null beside it, or an enumeration in branches
        projected = choices[0]
    if "$ref" in original:
        return written(value, POINT, root["$defs"]["point"] if "$ref" in projected else projected, root)
    if isinstance(value, dict):
        found = {name: written(item, original["properties"][name], projected["properties"][name], root)
                 for name, item in value.items()}  # fmt: skip
        return {**dict.fromkeys(projected.get("required", ())), **found}
    if isinstance(value, list):
        return [written(item, original["items"], projected["items"], root) for item in value]
    return value


def without_nulls(value: Any, schema: dict[str, Any]) -> Any:
    """Return a value without the nulls of optional properties, which may be absent instead."""
    if "$ref" in schema:
        schema = POINT
    for branch in schema.get("anyOf", schema.get("oneOf", [])):
        if _schema.compile({**branch, "$defs": {"point": POINT}}).accepts(value):
            return without_nulls(value, branch)
    if isinstance(value, dict):
        properties, required = schema["properties"], schema["required"]
        kept = {name: item for name, item in value.items() if item is not None or name in required}
        return {name: without_nulls(item, properties[name]) for name, item in kept.items()}
    if isinstance(value, list):
        return [without_nulls(item, schema["items"]) for item in value]
    return value


@pytest.mark.slow
@pytest.mark.parametrize("vendor", VENDORS)
def test_an_answer_comes_back_valid_and_equal(vendor: str) -> None:
    @given(cases())
    @examples(60)
    def law(case: tuple[dict[str, Any], Any]) -> None:
        schema, value = case
        projection = project_strict(schema, SUBSETS[vendor])
        if not projection.strict:
            return  # the schema goes into the prompt
        root = projection.schema
        is_wrapped = root.get("properties", {}).keys() == {_schema.WRAPPER} and "$defs" in root
        inner = root["properties"][_schema.WRAPPER] if is_wrapped else root
        wire = written(value, schema, inner, root)
        wire = {_schema.WRAPPER: wire} if is_wrapped else wire
        assert _schema.compile(root).problems(wire) == ()
        back = projection.restore(wire)
        assert _schema.compile(schema).problems(back) == ()
        assert without_nulls(back, schema) == without_nulls(value, schema)
        # Without knowledge of the projection, for answers that were stored, the answer is read as valid too.
        assert _schema.compile(schema).read(json.dumps(wire)).problems == ()
        assert projection.adds_nothing is False or back is wire

    law()


def test_absence_is_told_from_null_where_the_vendor_can_tell() -> None:
    schema = {"type": "object", "properties": {"a": {"type": ["string", "null"]}, "b": {"type": "integer"}}}
    claude = project_strict(schema, SUBSETS["anthropic"])
    assert claude.restore({"a": None}) == {"a": None}
    openai = project_strict(schema, SUBSETS["openai"])
    assert openai.restore({"a": None, "b": None}) == {}


def test_any_number_of_nulls_is_removed_at_any_depth() -> None:
    item = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "note": {"type": "string"}},
        "required": ["name"],
    }
    tree = {
        "type": ["object", "null"],
        "properties": {"item": {"anyOf": [item, {"type": "null"}]}, "items": {"type": "array", "items": item}},
        "required": ["items"],
    }
    schema = {"type": "object", "properties": {"tree": tree}, "required": ["tree"]}
    one = {"name": "x", "note": None}
    wire = {"tree": {"item": one, "items": [one] * 200}}
    expected = {"tree": {"item": {"name": "x"}, "items": [{"name": "x"}] * 200}}
    assert project_strict(schema).restore(wire) == expected
    assert _schema.compile(schema).read(json.dumps(wire)).value == expected


def test_a_branch_is_chosen_by_what_the_vendor_wrote_and_by_what_is_left() -> None:
    cat = {"type": "object", "properties": {"paws": {"type": "integer"}, "name": {"type": "string"}}}
    fish = {
        "type": "object",
        "properties": {"fins": {"type": "integer"}, "name": {"type": "string"}},
        "required": ["fins"],
    }
    projection = project_strict({"anyOf": [cat, fish]})
    assert projection.restore({"value": {"fins": 2, "name": None}}) == {"fins": 2}
    assert projection.restore({"value": {"paws": None, "name": "Tom"}}) == {"name": "Tom"}


def test_a_recursive_answer_is_restored_all_the_way_down() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}},
        "required": ["n"],
    }
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    wire = {"n": 1, "next": {"n": 2, "next": {"n": 3, "next": None}}}
    assert project_strict(schema).restore(wire) == {"n": 1, "next": {"n": 2, "next": {"n": 3}}}


# Golden schemas

MOOD = {
    "type": "object",
    "title": "Mood",
    "properties": {
        "mood": {"type": "string", "enum": ["calm", "tense"]},
        "level": {"type": "integer", "minimum": 0, "maximum": 9},
        "note": {"type": ["string", "null"], "enum": ["a", None]},
        "place": {"$ref": "#/$defs/place", "description": "where"},
    },
    "required": ["level"],
    "$defs": {"place": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}


def test_openai_requires_everything_and_takes_null_for_what_may_be_left_out() -> None:
    assert project_strict(MOOD).schema == {
        "type": "object",
        "title": "Mood",
        "properties": {
            "mood": {"type": ["string", "null"], "enum": ["calm", "tense", None]},
            "level": {"type": "integer", "minimum": 0, "maximum": 9},
            "note": {"type": ["string", "null"], "enum": ["a", None]},
            "place": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}], "description": "where"},
        },
        "required": ["mood", "level", "note", "place"],
        "additionalProperties": False,
        "$defs": {"place": CLOSED_PLACE},
    }


def test_claude_may_leave_properties_out_and_gets_no_list_of_types_beside_an_enum() -> None:
    projection = project_strict(MOOD, SUBSETS["anthropic"])
    assert projection.schema == {
        "type": "object",
        "title": "Mood",
        "properties": {
            "mood": {"type": "string", "enum": ["calm", "tense"]},
            "level": {"type": "integer"},
            "note": {"enum": ["a", None]},
            "place": {"$ref": "#/$defs/place"},
        },
        "required": ["level"],
        "additionalProperties": False,
        "$defs": {"place": CLOSED_PLACE},
    }
    assert projection.adds_nothing


def test_gemini_gets_its_own_keywords_and_references_that_stand_alone() -> None:
    place = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    assert project_strict(MOOD, SUBSETS["gemini"]).schema == {
        "type": "object",
        "title": "Mood",
        "properties": {
            "mood": {"type": "string", "enum": ["calm", "tense"]},
            "level": {"type": "integer", "minimum": 0, "maximum": 9},
            "note": {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]},
            "place": {"anyOf": [{"$ref": "#/$defs/place"}], "description": "where"},
        },
        "required": ["level"],
        "$defs": {"place": place},
    }


def test_cohere_requires_a_property_of_every_object() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^x$"}, "b": {"type": "integer", "minimum": 0}},
    }
    projection = project_strict(schema, SUBSETS["cohere"])
    assert projection.schema == {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}, "b": {"type": "integer"}},
        "required": ["a"],
    }
    assert projection.restore({"a": None, "b": 1}) == {"b": 1}
    assert not project_strict({"type": "object"}, SUBSETS["cohere"]).strict


def test_claude_takes_24_optional_properties_then_16_unions() -> None:
    def of(count: int) -> _schema.Projection:
        properties = {f"p{index}": {"type": "string"} for index in range(count)}
        return project_strict({"type": "object", "properties": properties}, SUBSETS["anthropic"])

    assert of(24).schema["required"] == []
    more = of(40)
    assert (more.optional, more.unions) == (24, 16)
    assert more.schema["required"] == [f"p{index}" for index in range(24, 40)]
    assert more.restore({"p24": None, "p25": "x"}) == {"p25": "x"}
    assert not of(41).strict


@pytest.mark.parametrize(
    ("vendor", "schema"),
    [
        ("openai", shape(a={"enum": ["x" * 61 + f"{index:03}" for index in range(251)]})),
        ("openai", shape(**{f"{index:03}" + "n" * 400: STRING for index in range(300)})),
        ("openai", shape(a={"enum": [str(index) for index in range(1001)]})),
        ("anthropic", shape(a={"enum": ["x", {}]})),
        ("anthropic", circle()),
        ("gemini", circle(required=("n",))),
    ],
)
def test_a_schema_beyond_a_documented_limit_is_not_sent(vendor: str, schema: dict[str, Any]) -> None:
    projection = project_strict(schema, SUBSETS[vendor])
    assert not projection.strict
    assert projection.schema == schema
    assert projection.restore({"a": None}) == {"a": None}


def test_gemini_takes_a_circle_below_a_property_that_may_be_left_out() -> None:
    assert project_strict(circle(), SUBSETS["gemini"]).strict


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_projection_projects_to_itself(vendor: str) -> None:
    once = project_strict(MOOD, SUBSETS[vendor]).schema
    assert project_strict(once, SUBSETS[vendor]).schema == once
