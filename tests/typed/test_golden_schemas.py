"""The schemas of fifteen types, written by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar

import attrs
import pytest

from llm_council._schema.typed import output_type_of
from llm_council.errors import InvalidOption

T = TypeVar("T")
UserId = NewType("UserId", int)


class Colour(Enum):
    """The colour of a light."""

    RED = "red"
    GREEN = "green"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Issue:
    """A fault in the code.

    It is described for the people who repair it.

    Attributes:
        line: its line,
            from 1.
        note: what is wrong.
    """

    line: int
    note: str = ""
    colour: Colour = Colour.RED
    """how bad it is"""
    owner: UserId | None = attrs.field(default=None, metadata={"description": "who repairs it"})


@dataclasses.dataclass
class Report:
    title: Annotated[str, "one line"]
    issues: list[Issue] = dataclasses.field(default_factory=list)
    cost: Decimal = Decimal("1.50")
    made: datetime | None = None


class Row(TypedDict):
    """A row of a table."""

    name: str
    size: NotRequired[float]


class Point(NamedTuple):
    x: int
    y: int = 0


@attrs.frozen
class Node:
    value: int
    below: list[Node] = attrs.field(factory=list)


@attrs.frozen
class Box(Generic[T]):
    item: T


@attrs.frozen
class Dog:
    bark: str


@attrs.frozen
class Cat:
    meow: str


@attrs.frozen
class Metre:
    size: float


@attrs.frozen
class Foot:
    size: float


def an_object(title: str, properties: dict[str, Any], required: list[str], **further: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "title": title,
        **further,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


ISSUE = an_object(
    "Issue",
    {
        "line": {"type": "integer", "description": "its line, from 1."},
        "note": {"type": "string", "description": "what is wrong.", "default": ""},
        "colour": {
            "type": "string",
            "enum": ["red", "green"],
            "description": "how bad it is",
            "default": "red",
        },
        "owner": {
            "anyOf": [{"type": "integer"}, {"type": "null"}],
            "description": "who repairs it",
            "default": None,
        },
    },
    ["line"],
    description="A fault in the code.\n\nIt is described for the people who repair it.",
)
DECIMAL = {"type": "string", "pattern": r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"}
NODE = an_object(
    "Node",
    {
        "value": {"type": "integer"},
        "below": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "default": []},
    },
    ["value"],
)


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (bool, {"type": "boolean"}),
        (UserId, {"type": "integer"}),
        (Colour, {"type": "string", "enum": ["red", "green"], "description": "The colour of a light."}),
        (Level, {"type": "integer", "enum": [1, 2], "description": "1: LOW, 2: HIGH"}),
        (Literal["yes", 1, None], {"type": ["string", "integer", "null"], "enum": ["yes", 1, None]}),
        (Issue, ISSUE),
        (
            Report,
            {
                **an_object(
                    "Report",
                    {
                        "title": {"type": "string", "description": "one line"},
                        "issues": {"type": "array", "items": {"$ref": "#/$defs/Issue"}, "default": []},
                        "cost": {**DECIMAL, "default": "1.50"},
                        "made": {
                            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}],
                            "default": None,
                        },
                    },
                    ["title"],
                ),
                "$defs": {"Issue": ISSUE},
            },
        ),
        (
            Row,
            an_object(
                "Row",
                {"name": {"type": "string"}, "size": {"type": "number"}},
                ["name"],
                description="A row of a table.",
            ),
        ),
        (Point, an_object("Point", {"x": {"type": "integer"}, "y": {"type": "integer", "default": 0}}, ["x"])),
        (Node, {**NODE, "$defs": {"Node": NODE}}),
        (
            Box[list[int]],
            an_object("Box[list[int]]", {"item": {"type": "array", "items": {"type": "integer"}}}, ["item"]),
        ),
        (
            Dog | Cat | None,
            {
                "anyOf": [{"$ref": "#/$defs/Dog"}, {"$ref": "#/$defs/Cat"}, {"type": "null"}],
                "$defs": {
                    "Dog": an_object("Dog", {"bark": {"type": "string"}}, ["bark"]),
                    "Cat": an_object("Cat", {"meow": {"type": "string"}}, ["meow"]),
                },
            },
        ),
        (
            Metre | Foot,  # nothing but a further property tells them apart
            {
                "anyOf": [{"$ref": "#/$defs/Metre_with_type"}, {"$ref": "#/$defs/Foot_with_type"}],
                "$defs": {
                    f"{name}_with_type": an_object(
                        name,
                        {"type": {"type": "string", "enum": [name]}, "size": {"type": "number"}},
                        ["type", "size"],
                    )
                    for name in ("Metre", "Foot")
                },
            },
        ),
        (
            dict[str, set[int]],
            {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
            },
        ),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": False,
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (list[Any], {"type": "array", "items": {"description": "any JSON value"}}),
    ],
)
def test_the_schema_of_a_type(kind: Any, schema: dict[str, Any]) -> None:
    assert output_type_of(kind).schema == schema


def test_limits_beside_a_type_reach_the_schema() -> None:
    pydantic = pytest.importorskip("pydantic")
    sized = Annotated[list[int], pydantic.Field(min_length=1, description="sizes")]
    assert output_type_of(sized).schema == {
        "type": "array",
        "items": {"type": "integer"},
        "minItems": 1,
        "description": "sizes",
    }
    assert output_type_of(Annotated[int, pydantic.Field(ge=0, lt=10)]).schema == {
        "type": "integer",
        "minimum": 0,
        "exclusiveMaximum": 10,
    }


def test_foreign_classes_inside_of_others_bring_their_definitions() -> None:
    pydantic = pytest.importorskip("pydantic")
    msgspec = pytest.importorskip("msgspec")
    inner = pydantic.create_model("Issue", size=(int, ...))
    outer = pydantic.create_model("Outer", part=(inner, ...))
    struct = msgspec.defstruct("Struct", [("name", str)])
    kind = attrs.make_class(
        "Both", {"a": attrs.field(type=outer), "b": attrs.field(type=struct), "c": attrs.field(type=Issue)}
    )
    described = output_type_of(kind)
    assert described.schema is not None
    assert list(described.schema["$defs"]) == ["Outer", "Issue", "Struct", "Issue_2"]
    value = {"a": {"part": {"size": 3}}, "b": {"name": "x"}, "c": {"line": 1}}
    read = described.read(value)
    assert (read.a.part.size, read.b.name, read.c) == (3, "x", Issue(1))
    assert described.problems({**value, "b": {"name": 3}})[0].path == "$.b.name"
    assert described.problems({**value, "a": {"part": {"size": "x"}}})[0].path == "$.a.part.size"


def test_a_dataclass_of_pydantic_is_described_and_read_by_pydantic() -> None:
    pydantic = pytest.importorskip("pydantic")

    @pydantic.dataclasses.dataclass
    class Sized:
        size: int = pydantic.Field(ge=0, description="in metres")
        names: list[str] = pydantic.Field(default_factory=list)

    described = output_type_of(Sized)
    assert described.schema is not None
    assert described.schema["properties"]["size"]["description"] == "in metres"
    assert described.schema["properties"]["size"]["minimum"] == 0
    assert described.read({"size": 3}) == Sized(3)
    assert described.write(Sized(3)) == {"size": 3, "names": []}
    (problem,) = described.problems({"size": -3})
    assert (problem.path, problem.message) == ("$.size", "Input should be greater than or equal to 0")


def test_a_default_that_is_no_instance_of_its_type_is_left_out() -> None:
    @attrs.frozen
    class Odd:
        number: int = attrs.field(default="none", converter=lambda given: 0 if given == "none" else given)
        part: Node | None = None

    schema = output_type_of(Odd).schema
    assert schema is not None
    assert schema["properties"]["number"] == {"type": "integer"}
    assert schema["properties"]["part"]["default"] is None
    assert schema["required"] == []


class Plain:
    pass


@attrs.frozen
class Untyped:
    field = attrs.field()


@dataclasses.dataclass
class WithInitVar:
    secret: dataclasses.InitVar[int]


@attrs.frozen
class Unknown:
    part: Missing  # noqa: F821


@attrs.frozen
class Deep:
    parts: list[dict[str, Callable[[int], int] | None]]


@dataclasses.dataclass
class Mutable:
    number: int


@dataclasses.dataclass(frozen=True)
class Frozen:
    number: int


@attrs.frozen
class SetOfMutables:
    parts: set[Mutable]


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (Plain, "Plain cannot be described"),
        (Untyped, "Untyped.field has no type"),
        (WithInitVar, "WithInitVar.secret is an InitVar"),
        (Unknown, "Unknown.part: name 'Missing' is not defined"),
        (Deep, "Deep.parts cannot be described"),
        (bytes, "bytes cannot be described"),
        (dict[int, str], "keys of the type int"),
        (Enum("Empty", ()), "is an Enum without members"),
        (Literal[b"x"], "which is no text or number"),
        ({"type": "object"}, "pass a JSON Schema as schema="),
        (3, "3 cannot be described"),
        (Literal, "is a Literal without values"),
        ([int], "write list[int]"),
        (Mutable(1), "Mutable(number=1) cannot be described"),
        (set[Mutable], "holds a set of Mutable, which is not hashable: use a list, or a frozen class"),
        (frozenset[int | Mutable], "holds a set of Mutable"),
        (set[list[int]], "holds a set of list[int]"),
        (set[tuple[set[int], ...]], "holds a set of set[int]"),
        (SetOfMutables, "SetOfMutables.parts holds a set of Mutable"),
        ("Issue", "the name cannot be found"),
    ],
)
def test_what_has_no_schema_is_refused_by_name(kind: Any, named: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        output_type_of(kind)
    assert named in caught.value.message


@pytest.mark.parametrize("kind", [set[Frozen], set[frozenset[int]], set[tuple[int, str]], set[int | None]])
def test_a_set_takes_items_that_can_be_hashed(kind: Any) -> None:
    schema = output_type_of(kind).schema
    assert schema is not None
    assert schema["uniqueItems"] is True


def test_a_struct_of_msgspec_in_a_set_must_be_frozen() -> None:
    msgspec = pytest.importorskip("msgspec")
    mutable = msgspec.defstruct("Open", [("number", int)])
    frozen = msgspec.defstruct("Closed", [("number", int)], frozen=True)
    with pytest.raises(InvalidOption, match="holds a set of Open"):
        output_type_of(set[mutable])
    assert output_type_of(set[frozen]).read([{"number": 1}]) == {frozen(1)}
