"""Types of answers, each with its values: those of ``output_type``."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar, Union
from uuid import UUID

import attrs
from hypothesis import strategies as st

__all__ = ["Typed", "typed"]

T = TypeVar("T")
_numbers = itertools.count()


@attrs.frozen
class Typed:
    """A type and one of its values.

    Attributes:
        kind: the type.
        values: draws values.
        group: what it looks like in JSON, to tell the members of a union apart.
        by: the kinds of classes in it, such as ``"attrs"``.
        is_hashable: True if values can be items of sets and defaults of dataclasses.
    """

    kind: Any
    values: st.SearchStrategy[Any]
    group: str
    by: frozenset[str] = frozenset()
    is_hashable: bool = True


@attrs.frozen
class Box(Generic[T]):
    """A generic class."""

    item: T
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Pair(Generic[T]):
    first: T
    second: T


@attrs.frozen
class Tree:
    """A recursive class."""

    name: str
    below: list[Tree] = attrs.field(factory=list)


@dataclasses.dataclass(frozen=True)
class Chain:
    value: int
    next: Optional[Chain] = None  # noqa: UP045


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True).filter(
    lambda name: not name.endswith("_") and name not in _RESERVED
)
_RESERVED = frozenset(
    "and as assert async await break case class continue count def del elif else except finally for from global if"
    " import in index is lambda match nonlocal not or pass raise return self try type while with yield".split()
)
trees = st.recursive(
    st.builds(Tree, texts), lambda inner: st.builds(Tree, texts, st.lists(inner, max_size=2)), max_leaves=4
)
chains = st.recursive(
    st.builds(Chain, st.integers()), lambda inner: st.builds(Chain, st.integers(), inner), max_leaves=4
)

_SCALARS = (
    Typed(bool, st.booleans(), "bool"),
    Typed(int, st.integers(-(2**70), 2**70), "int"),
    Typed(float, st.floats(allow_nan=False, allow_infinity=False), "float"),
    Typed(str, texts, "text"),
    Typed(datetime, st.datetimes() | st.datetimes(timezones=st.just(UTC)), "text"),
    Typed(date, st.dates(), "text"),
    Typed(time, st.times(), "text"),
    Typed(timedelta, st.timedeltas(), "text"),
    Typed(Decimal, st.decimals(allow_nan=False, allow_infinity=False), "text"),
    Typed(UUID, st.uuids(), "text"),
)
_RECURSIVE = (
    Typed(Tree, trees, "Tree", frozenset({"attrs"}), is_hashable=False),
    Typed(Chain, chains, "Chain", frozenset({"dataclass"})),
)


def typed() -> st.SearchStrategy[Typed]:
    """Return a strategy of types with their values, nested up to a few levels."""
    base = st.sampled_from((*_SCALARS, *_RECURSIVE)) | _enums() | _literals()
    return st.recursive(base, lambda inner: _containers(inner) | _classes(inner) | _unions(inner), max_leaves=6)


@st.composite
def _enums(draw: st.DrawFn) -> Typed:
    kind = Enum(  # type: ignore[misc]  # made at run time
        f"Enum{next(_numbers)}",
        {f"M{place}": value for place, value in enumerate(draw(st.lists(texts, min_size=1, max_size=4, unique=True)))},
    )
    return Typed(kind, st.sampled_from(list(kind)), "text")


@st.composite
def _literals(draw: st.DrawFn) -> Typed:
    values = draw(
        st.lists(texts | st.integers(-(2**53), 2**53) | st.booleans(), min_size=1, max_size=4, unique_by=repr)
    )
    return Typed(Literal[tuple(values)], st.sampled_from(values), "literal")


@st.composite
def _containers(draw: st.DrawFn, inner: st.SearchStrategy[Typed]) -> Typed:
    item = draw(inner)
    shape = draw(
        st.sampled_from(["list", "tuple", "pair", "dict", *(["set", "frozenset"] if item.is_hashable else [])])
    )
    if shape == "dict":
        return Typed(dict[str, item.kind], st.dictionaries(texts, item.values, max_size=3), "dict", item.by, False)
    if shape == "pair":
        other = draw(inner)
        return Typed(
            tuple[item.kind, other.kind],
            st.tuples(item.values, other.values),
            "array",
            item.by | other.by | {"pair"},
            item.is_hashable and other.is_hashable,
        )
    listed = st.lists(item.values, max_size=3)
    match shape:
        case "list":
            return Typed(list[item.kind], listed, "array", item.by, False)
        case "tuple":
            return Typed(tuple[item.kind, ...], listed.map(tuple), "array", item.by, item.is_hashable)
        case "set":
            return Typed(set[item.kind], listed.map(set), "array", item.by, False)
    return Typed(frozenset[item.kind], listed.map(frozenset), "array", item.by)


@st.composite
def _unions(draw: st.DrawFn, inner: st.SearchStrategy[Typed]) -> Typed:
    """Draw members that JSON tells apart: one that is text, one that is a list, and any number of classes."""
    members = draw(st.lists(inner, min_size=1, max_size=3, unique_by=lambda one: one.group))
    groups = {one.group for one in members}
    if "literal" in groups:  # its values look like those of others
        members = members[:1]
    if "dict" in groups and len(members) > 1:  # an object of any keys may look like a class
        members = [one for one in members if one.group != "dict"]
    values = st.one_of(*(one.values for one in members))
    by = frozenset().union(*(one.by for one in members))
    is_union = len(members) > 1
    is_optional = draw(st.booleans()) or not is_union
    kind = Union[tuple(one.kind for one in members)]  # noqa: UP007
    if is_optional:
        kind, values = Optional[kind], values | st.none()  # noqa: UP045
    return Typed(
        kind,
        values,
        "union",
        by | ({"union"} if is_union else set()),
        all(one.is_hashable for one in members),
    )


@st.composite
def _classes(draw: st.DrawFn, inner: st.SearchStrategy[Typed]) -> Typed:
    if draw(st.integers(0, 3)) == 0:
        item = draw(inner)
        generic, by = draw(st.sampled_from([(Box, "attrs"), (Pair, "dataclass")]))
        values = st.builds(Box, item.values, texts) if generic is Box else st.builds(Pair, item.values, item.values)
        return Typed(generic[item.kind], values, f"generic{next(_numbers)}", item.by | {by}, item.is_hashable)
    fields = draw(st.dictionaries(names, inner, min_size=1, max_size=3))
    by, make = draw(st.sampled_from(list(_MAKERS.items())))
    kind, values = make(draw, f"Class{next(_numbers)}", fields)
    inside = frozenset().union(*(one.by for one in fields.values()))
    is_hashable = by != "typeddict" and all(one.is_hashable for one in fields.values())
    return Typed(kind, values, f"class{next(_numbers)}", inside | {by}, is_hashable)


def _with_default(draw: st.DrawFn, fields: dict[str, Typed]) -> dict[str, Any]:
    """Return defaults for some of the last fields: one without a default cannot stand behind one with."""
    count = draw(st.integers(0, len(fields)))
    chosen = list(fields)[len(fields) - count :]
    return {name: draw(fields[name].values) for name in chosen if all(fields[one].is_hashable for one in chosen)}


def _attrs_class(draw: st.DrawFn, name: str, fields: dict[str, Typed]) -> tuple[Any, st.SearchStrategy[Any]]:
    defaults = _with_default(draw, fields)
    kind = attrs.make_class(
        name,
        {
            key: attrs.field(type=one.kind, **({"default": defaults[key]} if key in defaults else {}))
            for key, one in fields.items()
        },
        frozen=True,
    )
    return kind, st.builds(kind, **{key: one.values for key, one in fields.items()})


def _dataclass(draw: st.DrawFn, name: str, fields: dict[str, Typed]) -> tuple[Any, st.SearchStrategy[Any]]:
    defaults = _with_default(draw, fields)
    parts: Sequence[Any] = [
        (key, one.kind, dataclasses.field(default=defaults[key])) if key in defaults else (key, one.kind)
        for key, one in fields.items()
    ]
    kind = dataclasses.make_dataclass(name, parts, frozen=True)
    return kind, st.builds(kind, **{key: one.values for key, one in fields.items()})


def _typed_dict(draw: st.DrawFn, name: str, fields: dict[str, Typed]) -> tuple[Any, st.SearchStrategy[Any]]:
    parts = {key: one.values for key, one in fields.items()}
    parts_of = {key: one.kind for key, one in fields.items()}
    if draw(st.booleans()):
        return TypedDict(name, parts_of, total=False), st.fixed_dictionaries({}, optional=parts)  # type: ignore[operator]
    return TypedDict(name, parts_of), st.fixed_dictionaries(parts)  # type: ignore[operator]


def _named_tuple(draw: st.DrawFn, name: str, fields: dict[str, Typed]) -> tuple[Any, st.SearchStrategy[Any]]:
    kind = NamedTuple(name, [(key, one.kind) for key, one in fields.items()])  # type: ignore[misc]
    return kind, st.builds(kind, **{key: one.values for key, one in fields.items()})


_MAKERS: dict[str, Callable[..., tuple[Any, st.SearchStrategy[Any]]]] = {
    "attrs": _attrs_class,
    "dataclass": _dataclass,
    "typeddict": _typed_dict,
    "namedtuple": _named_tuple,
}
