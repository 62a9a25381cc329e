"""Schema, JSON value and instance agree, for types of every kind; msgspec and pydantic read what is written here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from strategies._types import Typed, typed

from llm_council import _schema
from llm_council._schema.typed import output_type_of


def without_prose(drawn: Typed) -> dict[str, Any]:
    """Return the schema of a type; that of ``str``, whose values are prose in a run, as a part would have it."""
    return output_type_of(drawn.kind).schema or {"type": "string"}


@given(data=st.data())
@examples(25)
def test_an_instance_is_written_validly_and_read_back_as_it_was(data: st.DataObject) -> None:
    drawn = data.draw(typed())
    instance = data.draw(drawn.values)
    kind = output_type_of(drawn.kind)
    value = kind.write(instance)
    text = json.dumps(value, allow_nan=False)
    assert _schema.compile(without_prose(drawn)).problems(json.loads(text)) == ()
    assert kind.problems(json.loads(text)) == ()
    again = kind.read(json.loads(text))
    assert again == instance
    assert type(again) is type(instance)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def damaged(draw: st.DrawFn, value: Any) -> Any:
    """Draw a value in which one part is another, is missing, or has a further key beside it."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        match draw(st.sampled_from(["change", "drop", "add"])):
            case "drop":
                return {name: item for name, item in value.items() if name != key}
            case "add":
                return {**value, "further key": draw(JSON)}
        return {**value, key: draw(damaged(value[key]))}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(damaged(value[place])), *value[place + 1 :]]
    return draw(JSON | st.just(str(value)))


@given(data=st.data())
@examples(25)
def test_what_the_schema_refuses_is_refused_as_an_instance_too(data: st.DataObject) -> None:
    drawn = data.draw(typed())
    kind = output_type_of(drawn.kind)
    value = data.draw(damaged(kind.write(data.draw(drawn.values))))
    problems = kind.problems(value)
    if not _schema.compile(without_prose(drawn)).accepts(value):
        assert problems
    for problem in problems:
        assert problem.path.startswith("$")
        assert problem.message


@given(data=st.data())
@examples(15)
def test_msgspec_reads_the_same_instance(data: st.DataObject) -> None:
    msgspec = pytest.importorskip("msgspec")
    drawn = data.draw(typed().filter(lambda one: not one.by & {"union", "namedtuple"}))
    instance = data.draw(drawn.values)
    value = output_type_of(drawn.kind).write(instance)
    assert msgspec.convert(value, drawn.kind) == instance
    assert _schema.compile(msgspec.json.schema(drawn.kind)).problems(value) == ()


@given(data=st.data())
@examples(15)
def test_pydantic_reads_the_same_instance(data: st.DataObject) -> None:
    pydantic = pytest.importorskip("pydantic")
    drawn = data.draw(typed().filter(lambda one: not one.by & {"attrs", "namedtuple", "typeddict"}))
    instance = data.draw(drawn.values)
    value = output_type_of(drawn.kind).write(instance)
    adapter = pydantic.TypeAdapter(drawn.kind)
    assert adapter.validate_json(json.dumps(value)) == instance
    assert _schema.compile(adapter.json_schema()).problems(value) == ()
