"""An answer is called doomed only when the final reading would refuse it too, however it is cut into pieces."""

import json
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_council import _schema
from llm_council._engine.demand import demand_of
from llm_council._engine.loops import LENGTH
from llm_council._engine.prospect import BLANKS, Doom, Prospect

ROLES = [
    json.loads(path.read_text("utf-8"))
    for path in sorted(files("llm_council.subagents").joinpath("schemas").iterdir(), key=str)
]
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.sampled_from(["a", "b", "value", "odd key", 'q"', "ü", "items"])

REVIEW = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["approve", "reject"]},
        "note": {"type": "string", "maxLength": 40},
        "score": {"type": "integer", "minimum": 0},
        "issues": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/issue"}},
        "extra": {"anyOf": [{"$ref": "#/$defs/issue"}, {"type": "null"}]},
    },
    "required": ["verdict"],
    "additionalProperties": False,
    "$defs": {
        "issue": {
            "type": "object",
            "properties": {"line": {"type": "integer"}, "tags": {"type": "array", "minItems": 1}},
            "required": ["line"],
            "additionalProperties": False,
        }
    },
}


def doom_of(schema: Any, *pieces: str) -> Doom | None:
    prospect = Prospect(demand_of(schema))
    for piece in pieces:
        prospect.feed(piece)
    return prospect.doom


# What schemas look like, and what meets them


@st.composite
def schemas(draw: Any, depth: int = 2) -> dict[str, Any]:
    kinds = ["string", "enum", "integer", "number", "boolean", "nullable"]
    kind = draw(st.sampled_from([*kinds, "object", "array", "choice", "all"] if depth else kinds))
    inner = schemas(depth=depth - 1)
    match kind:
        case "string":
            return draw(st.sampled_from([{"type": "string"}, {"type": "string", "maxLength": 12}]))
        case "enum":
            return {"enum": draw(st.lists(WORDS | st.integers() | st.booleans(), min_size=1, max_size=3))}
        case "nullable":
            return {"type": ["string", "null"]}
        case "array":
            least = draw(st.integers(0, 2))
            return {"type": "array", "items": draw(inner), "minItems": least, "maxItems": least + 2}
        case "choice":
            return {draw(st.sampled_from(["anyOf", "oneOf"])): [draw(inner), {"type": "null"}]}
        case "all":
            return {"allOf": [draw(inner)]}
        case "object":
            properties = draw(st.dictionaries(NAMES, inner, max_size=3))
            return {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if draw(st.booleans())],
                "additionalProperties": draw(st.sampled_from([False, False, True, {"type": "integer"}])),
            }
    return {"type": kind}


def answer_to(draw: Any, schema: dict[str, Any]) -> Any:
    """Draw a value that meets a schema of the kinds above, or one of a role's."""
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return answer_to(draw, draw(st.sampled_from(schema[word])))
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    kind = schema["type"] if isinstance(schema["type"], str) else draw(st.sampled_from(schema["type"]))
    low, high = schema.get("minimum"), schema.get("maximum")
    match kind:
        case "string":
            return draw(WORDS)
        case "integer":
            return draw(st.integers(low, high))
        case "number":
            return draw(st.floats(low, high, allow_nan=False, allow_infinity=False) | st.integers(low, high))
        case "boolean":
            return draw(st.booleans())
        case "null":
            return None
        case "array":
            count = draw(st.integers(schema.get("minItems", 0), schema.get("maxItems", 2)))
            return [answer_to(draw, schema["items"]) for _ in range(count)]
    names = [name for name in schema["properties"] if name in schema["required"] or draw(st.booleans())]
    value = {name: answer_to(draw, schema["properties"][name]) for name in draw(st.permutations(names))}
    others = schema.get("additionalProperties", True)
    if others is not False and draw(st.booleans()):
        value |= {"more": draw(st.integers())}
    return value


def written(draw: Any, value: Any) -> str:
    """Write a value as models write it."""
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 0, 4])))
    before = draw(
        st.sampled_from(["", "\n ", "```json\n", "```\n", "<think>{</think>\n", "[THINK]a[/THINK]", "Sure: "])
    )
    after = "\n```" if "`" in before else draw(st.sampled_from(["", "\n", "\nThat is all."]))
    return before + text + after


def pieces_of(draw: Any, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


# The laws


@pytest.mark.parametrize("source", ["random", "roles"])
@given(data=st.data())
def test_a_valid_answer_is_never_called_doomed(source: str, data: Any) -> None:
    schema = data.draw(schemas() if source == "random" else st.sampled_from(ROLES))
    value = answer_to(data.draw, schema)
    validator = _schema.compile(schema)
    assume(validator.accepts(value))
    if not isinstance(value, dict) and data.draw(st.booleans()):
        value = {_schema.WRAPPER: value}
    elif isinstance(value, dict) and data.draw(st.booleans()):
        value = {name: None for name in schema.get("properties", ()) if name not in value} | value
    text = written(data.draw, value)
    assume(not validator.read(text).problems)
    assert doom_of(schema, *pieces_of(data.draw, text)) is None
    assert doom_of(schema, *text) is None


@pytest.mark.parametrize("source", ["random", "roles"])
@given(data=st.data())
def test_what_is_called_doomed_the_final_reading_refuses(source: str, data: Any) -> None:
    schema = data.draw(schemas() if source == "random" else st.sampled_from(ROLES))
    text = written(data.draw, broken(data.draw, answer_to(data.draw, schema)))
    if source == "roles" and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(["", '"', ",", "}", "]", ":", "\\", "x", "0"])) + text[at + 1 :]
    doom = doom_of(schema, *pieces_of(data.draw, text))
    if doom is not None:
        assert _schema.compile(schema).read(text).problems, (text, doom)


@given(data=st.data())
def test_how_it_is_cut_does_not_matter(data: Any) -> None:
    schema = data.draw(schemas() | st.sampled_from(ROLES))
    text = written(data.draw, broken(data.draw, answer_to(data.draw, schema)))
    verdicts = [doom_of(schema, text), doom_of(schema, *text), doom_of(schema, *pieces_of(data.draw, text))]
    assert len({doom and doom.problem.path for doom in verdicts}) == 1


def broken(draw: Any, value: Any) -> Any:
    """Change one thing, anywhere."""
    junk = draw(st.sampled_from(["junk", 10**9, 1.5, True, [], {}, {"line": "x"}]))
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        if draw(st.booleans()):
            return {**value, name: broken(draw, value[name])}
        return {key: item for key, item in value.items() if key != name}
    if isinstance(value, dict) and draw(st.booleans()):
        return {draw(NAMES): junk, **value}
    if isinstance(value, list) and value and draw(st.booleans()):
        return [*value[:-1], broken(draw, value[-1])]
    return junk


# What is seen, and when


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ('{"summary":', "$", '"summary" is not allowed'),
        ('{"verdict": "maybe"', "$.verdict", "approve"),
        ('{"verdict": ["', None, None),  # an enum may hold a list
        ('{"score": "', "$.score", "must be integer, not string"),
        ('{"score": -1,', "$.score", "minimum"),
        ('{"score": 1.5,', "$.score", "integer"),
        ('{"note": "' + "x" * 41, "$.note", "longer than 40"),
        ('{"issues": {', "$.issues", "must be array, not object"),
        ('{"issues": [{"lime":', "$.issues[0]", '"lime" is not allowed'),
        ('{"issues": [{"line": 1}, {}', "$.issues[1]", '"line" is a required property'),
        ('{"issues": [{"line": 1}, {"line": 2}, ', None, None),
        ('{"issues": [{"line": 1}, {"line": 2}, {', "$.issues", "more than 2 items"),
        ('{"issues": [{"tags": []', "$.issues[0].tags", "less than 1 items"),
        ('{"extra": {"lime":', "$.extra", '"lime" is not allowed'),
        ('{"extra": [', "$.extra", "must be"),
        ('[{"verdict":', "$", "must be object, not array"),
        ('["approve", ', "$", "must be object, not array"),
        ('{"verdict": "approve", }', "$", "broken"),
        ('{"note": "He said "yes', "$.note", "broken"),
        ('{"score": NaN,', "$.score", "broken"),
        ('{"score": 1' + "0" * 1000 + ",", "$.score", "1000 digits"),
        ('```json\n{"summary":', "$", '"summary" is not allowed'),
        ('<think>{"summary":</think> {"summary":', "$", '"summary" is not allowed'),
        ('{"value": {"summary":', "$", '"summary" is not allowed'),
        ('{"value": 1, "verdict":', "$", "must be object"),
        ('{"verdict":' + " " * (BLANKS + 1), "$.verdict", "blanks"),
    ],
)
def test_doom_is_seen_as_soon_as_it_is_certain(text: str, path: str | None, words: str | None) -> None:
    doom = doom_of(REVIEW, *text)
    if path is None or words is None:
        assert doom is None
        return
    assert doom is not None
    assert doom.problem.path == path
    assert words in doom.problem.message


@pytest.mark.parametrize(
    "text",
    [
        'Here it is: {"summary": 1}',  # prose: an answer may follow
        '{"verdict": "approve"} {"summary": 1',  # the value has ended
        "{summary} is",
        "[1] says",
        "[note] says",
        '["quoted" words',
        '{"score": null',  # what may be left out may be null
        '{"extra": null',
        '{"value": {"verdict": "approve"',
        "<think>" + '{"summary": 1}' * 3,
        "```python\nprint()",
        "\n" * (2 * BLANKS),
        "",
    ],
)
def test_what_may_still_become_valid_is_read_on(text: str) -> None:
    assert doom_of(REVIEW, *text) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "patternProperties": {"^x": {}}, "additionalProperties": False},
        {"anyOf": [{"type": "object", "additionalProperties": False}, {"type": "object"}]},
        {"if": {"properties": {"a": {"const": 1}}}, "else": {"required": ["b"]}},
        {"$id": "https://example.com/a", "properties": {"a": {"$id": "b", "additionalProperties": False}}},
        {"properties": {"a": {"$ref": "#"}}, "additionalProperties": False, "$comment": "a tree"},
        {"properties": {"xa": False}},
        {"properties": {"xa": {"prefixItems": [{}], "items": False}}},
        {"properties": {"a": {"prefixItems": [{"type": "object"}], "items": {"type": "string"}}}},
        {},
    ],
)
def test_what_a_schema_says_in_a_way_that_is_not_followed_is_left_to_the_final_reading(schema: Any) -> None:
    assert doom_of(schema, '{"xa": {"b": 1}, "a": {"c": {"d": 1, "a": 2}, "b": [') is None
    assert doom_of(schema, '{"a": [{"b": 1}, ') is None


@pytest.mark.parametrize("before", ['{"note": "', '{"issues": [', "<think>"])
def test_a_model_that_repeats_itself_without_end_is_stopped(before: str) -> None:
    schema = {"type": "object", "properties": {"note": {"type": "string"}, "issues": {"type": "array"}}}
    line = '{"file": "setup", "text": "nothing wrong here"},\n' if "[" in before else "The cat sat on the mat. "
    prospect = Prospect(demand_of(schema))
    fed = prospect.feed(before) or next(filter(None, (prospect.feed(line) for _ in range(2000))))
    assert fed is not None
    assert "repeated" in fed.problem.message
    assert fed.keep is not None
    assert fed.keep <= len(before) + 2 * len(line) + 4096  # from the step in which it was seen


@pytest.mark.parametrize("part", ["0, ", "word word ", "\n", "-----", "AAAA"])
def test_rows_of_the_same_are_no_loop(part: str) -> None:
    prospect = Prospect(demand_of({"type": "object"}))
    assert not any(prospect.feed(part) for part in ('{"note": "', *[part] * (4 * LENGTH // len(part))))


def test_the_work_stays_proportional_to_the_new_text() -> None:
    """Count what is looked at, not seconds: nothing that was read is held but the text that has begun."""
    prospect = Prospect(demand_of(REVIEW))
    prospect.feed('{"verdict": "approve", "issues": [')
    for _ in range(20_000):
        prospect.feed("   ") if prospect._blanks < BLANKS - 9 else None
    assert prospect._token is None
    assert prospect._head == ""
    assert sum(map(len, prospect._loops._fresh)) + len(prospect._loops._tail) <= 2 * LENGTH
