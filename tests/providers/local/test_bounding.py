"""Bounded schemas: each value they allow is valid under the original, except as reported, and ends in time."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._schema import compile as compiled
from llm_council.errors import InvalidOption
from llm_council.providers._local.bounding import bound, write_grammar

NAMES = st.sampled_from(["a", "b", "c", "é d", 'q"'])


def sample(schema, rng):
    """Draw a value that a bounded schema allows, likely one of the longest."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema:
        return sample(rng.choice(schema["anyOf"]), rng)
    match schema["type"]:
        case "string" if "format" in schema:
            return {"date": "2026-01-31", "uuid": "0" * 8 + "-0000-4000-8000-" + "0" * 12}.get(schema["format"], "")
        case "string":
            assert "pattern" not in schema
            low, high = schema.get("minLength", 0), schema["maxLength"]
            return "".join(rng.choice("ab c") for _ in range(rng.choice([low, high, rng.randint(low, high)])))
        case "integer" | "number":
            return rng.choice([schema["minimum"], schema["maximum"]])
        case "array":
            first = schema.get("prefixItems", [])
            if first:
                return [sample(item, rng) for item in first]
            count = rng.choice([schema.get("minItems", 0), schema["maxItems"]])
            return [sample(schema["items"], rng) for _ in range(count)]
        case "object":
            assert schema["additionalProperties"] is False
            offered = schema["properties"].items()
            return {name: sample(s, rng) for name, s in offered if name in schema["required"] or rng.random() < 0.8}
    raise AssertionError(schema)


def sized(draw, word, most=4):
    low = draw(st.integers(0, most))
    facts = {f"min{word}": low, f"max{word}": low + draw(st.integers(0, most))}
    return {name: value for name, value in facts.items() if draw(st.booleans())}


@st.composite
def texts(draw):
    return {"type": "string", **sized(draw, "Length", 30)}


@st.composite
def numbers(draw):
    kind = draw(st.sampled_from(["integer", "number"]))
    low = draw(st.integers(-200_000, 200_000) | st.sampled_from([-0.5, 0.001, 0.5, -3.25]))
    lower, upper = draw(st.sampled_from([("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")]))
    facts = {lower: low, upper: low + draw(st.integers(1, 1000) | st.sampled_from([0.002, 0.5]))}
    facts["multipleOf"] = draw(st.sampled_from([1, 3, 0.25, 0.01]))
    return {"type": kind, **{name: value for name, value in facts.items() if draw(st.booleans())}}


def shapes():
    flat = st.one_of(
        texts(),
        numbers(),
        st.sampled_from([{}, True, {"type": "boolean"}, {"type": "null"}, {"const": 5}, {"type": ["string", "null"]}]),
        st.sampled_from(
            [{"enum": ["x", 1, None, {"y": []}]}, {"type": "string", "enum": ["x", 3]}, {"$ref": "#/$defs/t"}]
        ),
    )
    return st.recursive(flat, deeper, max_leaves=8)


def deeper(inner):
    @st.composite
    def lists(draw):
        facts = {"items": draw(inner), "uniqueItems": draw(st.booleans()), **sized(draw, "Items")}
        return {"type": "array", **facts}

    @st.composite
    def tuples(draw):
        first = draw(st.lists(inner, min_size=1, max_size=3))
        return {"type": "array", "prefixItems": first, "items": draw(st.sampled_from([False, {"type": "null"}]))}

    @st.composite
    def objects(draw):
        properties = draw(st.dictionaries(NAMES, inner, max_size=4))
        required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
        node = {"type": "object", "properties": properties, "required": required}
        closed = draw(st.sampled_from([None, False, {"type": "boolean"}]))
        if closed is not None:
            node["additionalProperties"] = closed
        if closed is not False and draw(st.booleans()):
            node["minProperties"] = draw(st.integers(0, 5))
        if draw(st.booleans()) and properties:
            node["dependentRequired"] = {next(iter(properties)): [draw(st.sampled_from(sorted(properties)))]}
        return node

    choices = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        lists(), tuples(), objects(), choices.map(lambda c: {"anyOf": c}), choices.map(lambda c: {"oneOf": c})
    )


@given(shapes(), st.integers(50, 3000), st.integers(0, 2**32))
def test_every_allowed_value_is_valid_under_the_original_and_ends(schema, tokens, seed):
    schema = {"$defs": {"t": {"type": "string", "minLength": 1}}, **schema} if isinstance(schema, dict) else {}
    result = bound(schema, tokens)
    if result.schema is None:
        return
    rng = random.Random(seed)
    value = sample(result.schema, rng)
    if not result.omitted:
        assert compiled(schema).problems(value) == ()
    if result.fits:
        assert len(json.dumps(value, ensure_ascii=False).encode()) <= tokens


ONE = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "string"}}}}


def test_texts_and_lists_share_the_tokens():
    wide, narrow = bound(ONE, 2000).schema, bound(ONE, 300).schema
    assert wide["properties"]["b"]["maxItems"] == 3
    assert wide["properties"]["a"]["maxLength"] > narrow["properties"]["a"]["maxLength"] >= 80
    assert bound({**ONE, "required": ["a"]}, 90).schema["properties"].keys() == {"a"}
    assert bound(ONE, 10**6).schema["properties"]["a"]["maxLength"] == 600


def test_a_schema_that_cannot_fit_is_reported():
    listing = {"type": "array", "items": {"type": "string", "minLength": 50}, "minItems": 10}
    assert not bound(listing, 100).fits
    assert bound(listing, 1000).fits


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        ({"type": "string", "not": {"const": "a"}}, "$: not"),
        ({"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}, "$: then"),
        ({"type": "object", "properties": {"a": {"pattern": "^(?=x)y"}}}, "$.a: pattern '^(?=x)y'"),
        ({"type": "string", "pattern": r"(a)\1"}, r"$: pattern '(a)\\1'"),
        ({"type": "string", "format": "email"}, "$: format 'email'"),
        ({"type": "array", "items": {"contains": {"const": 1}}}, "$.items: contains"),
        ({"type": "array", "items": {}, "uniqueItems": True, "minItems": 2}, "$: uniqueItems"),
        ({"type": "object", "propertyNames": {"pattern": "^x"}}, "$: propertyNames"),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, "$: oneOf, sent as anyOf"),
        ({"$ref": "https://example.invalid/x.json"}, "$: $ref 'https://example.invalid/x.json'"),
        ({"$ref": "#/$defs/none"}, "$: $ref '#/$defs/none'"),
        ({"allOf": [{"type": "string", "pattern": "a"}, {"pattern": "b"}]}, "$: a second pattern"),
    ],
)
def test_omitted_keywords_are_listed(schema, line):
    result = bound(schema, 500)
    assert any(omitted.replace(".properties", "") == line for omitted in result.omitted), result.omitted
    words = json.dumps(result.schema)
    assert not any(f'"{word}"' in words for word in ("not", "if", "contains", "uniqueItems", "$ref", "oneOf", "email"))


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": "boolean"}, {"enum": [True, False]}),
        ({"type": "string", "enum": ["a", 1]}, {"enum": ["a"]}),
        ({"type": "string", "pattern": "^[a-z]+$", "maxLength": 9, "title": "x"},
         {"type": "string", "pattern": "^[a-z]+$", "maxLength": 9}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date", "maxLength": 10}),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 9, "default": 1},
         {"type": "integer", "minimum": 1, "maximum": 9}),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
         {"type": "number", "minimum": 0.01, "maximum": 0.99, "multipleOf": 0.01}),
        ({"type": "number", "minimum": 0.001, "maximum": 0.003}, {"enum": [0.002]}),
        ({"type": "number", "maximum": -3.5, "minimum": -5}, {"type": "integer", "minimum": -5, "maximum": -4}),
        ({"type": "number", "maximum": -3.5, "minimum": -3.52}, {"enum": [-3.5, -3.51, -3.52]}),
        ({"type": "integer", "maximum": -3, "minimum": -9, "multipleOf": 3}, {"enum": [-3, -6, -9]}),
        ({"type": "integer", "multipleOf": 2.5, "minimum": 0, "maximum": 20},
         {"type": "integer", "minimum": 0, "maximum": 20, "multipleOf": 5}),
        ({"type": "integer", "minimum": 10**9}, {"type": "integer", "minimum": 10**9, "maximum": 10**9 + 99_999}),
        ({"minLength": 0, "maxLength": 0}, {"type": "string", "maxLength": 0}),
        ({"type": "number", "minimum": 0, "maximum": 1},
         {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.01}),
        ({"allOf": [{"type": "number"}, {"type": "integer", "minimum": 1}, {"maximum": 2}]},
         {"type": "integer", "minimum": 1, "maximum": 2}),
        ({"anyOf": [{"type": "null"}, False]}, {"enum": [None]}),
        ({"minItems": 1, "items": {"type": "null"}, "maxItems": 1},
         {"type": "array", "items": {"enum": [None]}, "minItems": 1, "maxItems": 1}),
        ({"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"enum": [1, 2]}}, "enum": [2, 3]}, {"enum": [2]}),
    ],
)  # fmt: skip
def test_each_schema_is_bounded_as_expected(schema, sent):
    assert bound(schema, 500).schema == sent


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {"type": "object", "additionalProperties": False, "required": ["a"]},
        {"$ref": "#"},
        {
            "$ref": "#/$defs/x",
            "$defs": {"x": {"type": "object", "properties": {"x": {"$ref": "#/$defs/x"}}, "required": ["x"]}},
        },
        {"const": 1, "type": "string"},
        {"type": "integer", "minimum": 0.1, "maximum": 0.9},
        {"type": "number", "minimum": 1, "exclusiveMaximum": 1},
        {"type": "number", "minimum": 1, "maximum": 9, "multipleOf": 10},
        {"type": "array", "minItems": 3, "maxItems": 2},
        {"type": "array", "prefixItems": [{}], "items": False, "minItems": 2},
        {"type": "string", "minLength": 5, "maxLength": 4},
    ],
)
def test_a_schema_that_no_value_meets_is_not_sent(schema):
    assert bound(schema, 500).schema is None


def test_recursive_schemas_are_bounded():
    tree = {
        "$defs": {"node": {"type": "object", "required": ["name", "kids"],
                           "properties": {"name": {"type": "string"}, "kids": {"$ref": "#/$defs/kids"}}},
                  "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        "$ref": "#/$defs/node",
    }  # fmt: skip
    result = bound(tree, 2000)
    assert result.fits
    assert compiled(tree).accepts(sample(result.schema, random.Random(1)))
    wide = {"$defs": {"n": {"type": "object", "properties": {f"p{i}": {"$ref": "#/$defs/n"} for i in range(60)}}}}
    assert bound({**wide, "$ref": "#/$defs/n"}, 2000).schema is None


def test_the_grammar_is_compact():
    text = write_grammar(bound(ONE, 500).schema)
    head, _, body = text.partition("\nstart: %json ")
    assert head == "%llguidance {}"
    assert json.loads(body)["x-guidance"]["whitespace_flexible"] is False


def test_a_value_that_is_not_a_schema_is_refused():
    with pytest.raises(InvalidOption):
        bound([], 100)
