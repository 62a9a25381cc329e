"""What a type is, and whether a value may be of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

import attrs

from llm_council.errors import CouncilError

__all__ = [
    "NOT_FINITE",
    "called",
    "fits",
    "is_error",
    "is_mapping",
    "is_noun",
    "is_sequence",
    "is_union",
    "nouns_of",
    "preference",
]

NOT_FINITE: Final = ("inf", "-inf", "nan")
"""The words for numbers that JSON has no number for."""


def nouns_of(kind: Any) -> dict[str, type]:
    """Return the nouns among the members of a union, by name."""
    return {member.__name__: member for member in get_args(kind) if isinstance(member, type) and attrs.has(member)}


def preference(member: Any) -> int:
    """Try enums before the strings that hold any word."""
    return 0 if isinstance(member, type) and issubclass(member, Enum) else 1


def fits(value: Any, member: Any) -> bool:
    """Tell whether a value may be a member of a union."""
    if member is NoneType:
        return value is None
    if member is Any:
        return True
    if get_origin(member) is tuple or member is tuple:
        return isinstance(value, list | tuple)
    if member is float:
        return (isinstance(value, str) and value in NOT_FINITE) or (
            isinstance(value, int | float) and not isinstance(value, bool)
        )
    if member in (str, int, bool):
        return type(value) is member
    if isinstance(member, type) and issubclass(member, Enum):
        return isinstance(value, str)
    return isinstance(value, Mapping)


def called(member: Any) -> str:
    """Return the word for a member of a union."""
    return "null" if member is NoneType else getattr(member, "__name__", str(member))


def is_error(kind: Any) -> bool:
    """Tell whether a type is one of our errors."""
    return isinstance(kind, type) and issubclass(kind, CouncilError)


def is_noun(kind: Any) -> bool:
    """Tell whether a type is a noun."""
    return isinstance(kind, type) and attrs.has(kind)


def is_union(kind: Any) -> bool:
    """Tell whether a type is a union."""
    return get_origin(kind) in (Union, UnionType)


def is_sequence(kind: Any) -> bool:
    """Tell whether a type is a tuple."""
    return kind is tuple or get_origin(kind) is tuple


def is_mapping(kind: Any) -> bool:
    """Tell whether a type is a mapping."""
    return kind in (dict, Mapping) or get_origin(kind) in (dict, Mapping)
