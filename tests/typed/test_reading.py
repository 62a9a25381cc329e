"""Values are read exactly, and what is wrong is named with its path and without the words of the model."""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import attrs
import pytest

from llm_council._schema.typed import output_type_of


class Word(StrEnum):
    YES = "yes"


class Level(IntEnum):
    LOW = 1


class Mixed(Enum):
    ONE = 1
    TRUE = "true"


@attrs.frozen
class Even:
    number: int = attrs.field(validator=attrs.validators.instance_of(int))

    def __attrs_post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("the number must be even")
        if self.number > 100:
            raise LookupError("too large")


@attrs.frozen
class Shelf:
    evens: list[Even]
    by_name: dict[str, Even] = attrs.field(factory=dict)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, "3"),
        (int, True),
        (int, 3.5),
        (float, "3"),
        (float, True),
        (str, 3),
        (str, None),
        (bool, 1),
        (bool, "true"),
        (list[str], "abc"),
        (list[int], {"0": 1}),
        (dict[str, int], [1]),
        (set[int], [1, 1]),
        (tuple[int, int], [1]),
        (tuple[int, int], [1, 2, 3]),
        (Word, "no"),
        (Level, "1"),
        (Level, True),
        (Mixed, "1"),
        (Literal[1], True),
        (Literal["a"], "A"),
        (Even, [2]),
        (Even, {"number": "2"}),
        (Even, {"number": 2, "more": 1}),
        (Even, {}),
        (None, 0),
        (datetime, "2026-11-30"),
        (datetime, 1764460800),
        (date, "2026-11-30T00:00:00"),
        (date, "20261130"),
        (date, "2026-02-30"),
        (time, "25:00"),
        (time, "12"),
        (timedelta, "2 hours"),
        (timedelta, "P"),
        (timedelta, "PT"),
        (Decimal, 1.5),
        (Decimal, "NaN"),
        (Decimal, "1,5"),
        (UUID, "x"),
        (int | None, "3"),
        (int | str, [3]),
    ],
)
def test_nothing_is_converted_into_another_type(kind: Any, value: Any) -> None:
    described = output_type_of(kind)
    from llm_council import _schema

    is_refused = not _schema.compile(described.schema or {"type": "string"}).accepts(value)
    assert is_refused or described.problems(value)


@pytest.mark.parametrize(
    ("kind", "value", "instance"),
    [
        (int, 3.0, 3),  # JSON has one kind of number, and this one is whole
        (float, 3, 3.0),
        (int | float, 3.0, 3.0),
        (int | float, 3, 3),
        (Word, "yes", Word.YES),
        (Literal[Mixed.ONE], 1, Mixed.ONE),
        (datetime, "2026-11-30T12:30:00Z", datetime.fromisoformat("2026-11-30T12:30:00+00:00")),
        (timedelta, "P1DT2H30M", timedelta(days=1, hours=2, minutes=30)),
        (timedelta, "-PT0.5S", timedelta(milliseconds=-500)),
        (timedelta, "P2W", timedelta(weeks=2)),
        (Decimal, "1.10", Decimal("1.10")),
        (date | str, "tomorrow", "tomorrow"),
        (date | str, "2026-11-30", date(2026, 11, 30)),
        (Word | str, "yes", Word.YES),
        (dict[str, int] | Even, {"number": 2}, Even(2)),
        (dict[str, int] | Even, {"number": 3}, {"number": 3}),
    ],
)
def test_a_value_is_read_as_the_narrowest_type_that_takes_it(kind: Any, value: Any, instance: Any) -> None:
    read = output_type_of(kind).read(value)
    assert read == instance
    assert type(read) is type(instance)


def test_the_problems_of_all_parts_are_reported_with_their_paths() -> None:
    found = output_type_of(Shelf).problems(
        {"evens": [{"number": 1}, {"number": 2}, {"number": 102}], "by_name": {"a b": {"number": 3}}}
    )
    assert [(one.path, one.message) for one in found] == [
        ("$.evens[0]", "the number must be even"),
        ("$.evens[2]", "LookupError: too large"),
        ('$.by_name["a b"]', "the number must be even"),
    ]


@pytest.mark.parametrize(("kind", "word"), [(date, "secret word"), (Word, "secret word"), (Decimal, "secret word")])
def test_a_problem_does_not_repeat_the_words_of_the_model(kind: Any, word: str) -> None:
    (problem,) = output_type_of(kind).problems(word)
    assert "secret" not in problem.message
    assert "expected" in problem.message


def test_a_default_that_differs_each_time_is_left_out_of_the_schema() -> None:
    @attrs.frozen
    class Stamped:
        at: float = attrs.field(factory=lambda: math.pi)
        names: list[str] = attrs.field(factory=list)

    schema = output_type_of(Stamped).schema
    assert schema is not None
    assert schema["properties"]["at"] == {"type": "number"}
    assert schema["properties"]["names"]["default"] == []
    assert schema["required"] == []


def test_fields_with_other_names_in_the_constructor_are_read_by_these() -> None:
    @attrs.define
    class Private:
        _size: int
        shown: int = attrs.field(alias="display")
        counted: int = attrs.field(init=False, default=7)

    described = output_type_of(Private)
    assert described.schema is not None
    assert list(described.schema["properties"]) == ["size", "display"]
    assert described.read({"size": 1, "display": 2}) == Private(1, 2)
    assert described.write(Private(1, 2)) == {"size": 1, "display": 2}


T = TypeVar("T")


@attrs.frozen
class Box(Generic[T]):
    held: T


@attrs.frozen
class Tags:
    names: list[str]


@pytest.mark.parametrize(("kind", "value"), [(set[Tags], [{"names": ["a"]}]), (set[Any], [["a"]])])
def test_an_item_that_turns_out_to_be_unhashable_is_a_problem_of_the_answer(kind: Any, value: Any) -> None:
    (problem,) = output_type_of(kind).problems(value)
    assert problem.message == "has an item that no set takes: unhashable type: 'list'"


def test_a_generic_class_takes_annotations_that_are_unhashable() -> None:
    described = output_type_of(Box[Annotated[int, ["a note"]]])
    assert described.schema is not None
    assert described.schema["properties"] == {"held": {"type": "integer"}}
    assert described.read({"held": 1}) == Box(1)
