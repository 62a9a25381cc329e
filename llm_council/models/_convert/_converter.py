"""The cattrs converter of our nouns: strict primitives, tags where a type cannot tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from llm_council import errors
from llm_council.errors import Attempt, CouncilError, near
from llm_council.models._convert._kinds import (
    NOT_FINITE,
    called,
    fits,
    is_error,
    is_mapping,
    is_noun,
    is_sequence,
    is_union,
    nouns_of,
    preference,
)
from llm_council.models._convert._wrong import CAUGHT, Expected, Hook, Wrong, below, expected
from llm_council.models.deliberation import Problem

__all__ = ["converter", "json_value"]

_TAG = "type"
_PLAIN = frozenset({str, int, bool, NoneType})

_dumpers: dict[type, Callable[[Any], Any]] = {}  # of nouns and errors, looked up once


def json_value(value: Any) -> Any:
    """Return any value as plain JSON values."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:  # most of what a vendor replied is of these
        return {
            key if type(key) is str else str(json_value(key)): item if type(item) in _PLAIN else json_value(item)
            for key, item in value.items()
        }
    if kind is list or kind is tuple:
        return [item if type(item) in _PLAIN else json_value(item) for item in value]
    if kind is float:
        return value if math.isfinite(value) else str(value)
    hook = _dumpers.get(kind)
    return _uncommon(value) if hook is None else hook(value)


def _uncommon(value: Any) -> Any:
    kind: Any = type(value)
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return str(value)
    if attrs.has(kind) or isinstance(value, CouncilError):
        hook = _dumpers[kind] = converter.get_unstructure_hook(kind)
        return hook(value)
    if isinstance(value, Mapping):
        return {str(json_value(key)): json_value(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [json_value(item) for item in value]
    if isinstance(value, AbstractSet):
        return sorted((json_value(item) for item in value), key=str)
    return str(value)


def _exactly(kind: type, what: str) -> Hook:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise expected(what, value)
        return value

    return structure


def _number(value: Any, _: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value in NOT_FINITE:
        return float(value)
    raise expected("a number", value)


def _string(value: Any, kind: type[str]) -> str:
    if not issubclass(kind, Enum):
        if type(value) is not str:
            raise expected("a string", value)
        return value
    try:
        return kind(value)
    except ValueError:
        known = [str(member.value) for member in kind]
        hint = near(value, known) if isinstance(value, str) else ""
        raise Expected(f"expected one of {', '.join(known)}, got {value!r:.80}{hint}") from None


# Containers


def _tuple_hook(kind: Any) -> Hook:
    inner = get_args(kind)[0] if get_args(kind) else Any
    hook = converter.get_structure_hook(inner)

    def structure(value: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise expected("a list", value)
        return tuple(below(f"[{index}]", hook, item, inner) for index, item in enumerate(value))

    return structure


def _mapping_hook(kind: Any) -> Hook:
    inner = get_args(kind)[1] if get_args(kind) else Any
    hook = converter.get_structure_hook(inner)

    def structure(value: Any, _: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise expected("an object", value)
        for key in value:
            if not isinstance(key, str):
                raise expected("a string for a key", key)
        return {key: below(f".{key}", hook, item, inner) for key, item in value.items()}

    return structure


def _sequence_dumper(kind: Any) -> Callable[[Any], Any]:
    inner = _dumper(get_args(kind)[0] if get_args(kind) else Any)

    def unstructure(value: Any) -> list[Any]:
        if not value:
            return []
        hook = inner()
        return [hook(item) for item in value]

    return unstructure


def _mapping_dumper(kind: Any) -> Callable[[Any], Any]:
    inner = _dumper(get_args(kind)[1] if get_args(kind) else Any)

    def unstructure(value: Any) -> dict[str, Any]:
        if not value:
            return {}
        hook = inner()
        return {str(json_value(key)): hook(item) for key, item in value.items()}

    return unstructure


def _dumper(kind: Any) -> Callable[[], Callable[[Any], Any]]:
    """Look up what dumps a kind when it is first needed: until then it may be in the making itself."""
    return cache(lambda: converter.get_unstructure_hook(kind))


# Unions: told apart by the kind of the value, and by a tag where several are objects


def _union_hook(kind: Any) -> Hook:
    members = get_args(kind)
    nouns = nouns_of(kind)

    def structure(value: Any, _: Any) -> Any:
        if len(nouns) > 1 and isinstance(value, Mapping):
            return _tagged(value, nouns)
        failure: Exception | None = None
        for member in sorted(members, key=preference):
            if not fits(value, member):
                continue
            try:
                return converter.structure(value, member)
            except CAUGHT as error:
                failure = failure or error
        raise failure or expected(" or ".join(sorted(map(called, members))), value)

    return structure


def _tagged(value: Mapping[str, Any], family: Mapping[str, type]) -> Any:
    tag = value.get(_TAG)
    if not isinstance(tag, str) or tag not in family:
        hint = near(tag, family) if isinstance(tag, str) else ""
        raise Wrong(f".{_TAG}", Expected(f"expected one of {', '.join(sorted(family))}, got {tag!r:.80}{hint}"))
    return converter.structure({key: item for key, item in value.items() if key != _TAG}, _Plain[family[tag]])


class _PlainOf:
    """Ask for a class itself, where its name alone would mean its whole family."""

    def __init__(self) -> None:
        self._kinds: dict[type, Any] = {}

    def __getitem__(self, cls: type) -> Any:
        return self._kinds.setdefault(cls, _Itself(cls))


@attrs.frozen(eq=False)
class _Itself:
    cls: type


_Plain = _PlainOf()


def _union_dumper(kind: Any) -> Callable[[Any], Any]:
    nouns = nouns_of(kind)
    sequences = [member for member in get_args(kind) if get_origin(member) is tuple]

    def unstructure(value: Any) -> Any:
        if type(value) in _PLAIN:
            return value
        if isinstance(value, tuple) and sequences:
            return converter.unstructure(value, unstructure_as=sequences[0])
        data = json_value(value)
        if len(nouns) > 1 and type(value).__name__ in nouns:
            return {_TAG: type(value).__name__, **data}
        return data

    return unstructure


# Nouns; those that stand in a family say which one they are


def _is_relative(kind: Any) -> bool:
    """Tell whether a noun belongs to a family: its topmost noun has children beside it, as events have.

    A class that someone derives from another noun elsewhere makes no family of it: what is dumped must not depend on
    what else was imported.
    """
    if not is_noun(kind):
        return False
    top = [base for base in kind.__mro__ if attrs.has(base) and attrs.fields(base)][-1:]
    return any(child.__module__ == base.__module__ for base in top for child in base.__subclasses__())


def _name(cls: type) -> str:
    """Return the word for a class: ours by their names, others' with their modules, so that none takes another's."""
    return cls.__name__ if cls.__module__.startswith("llm_council.") else f"{cls.__module__}:{cls.__qualname__}"


def _family(cls: type) -> dict[str, type]:
    """Return a class and all below it by name."""
    found = {_name(cls): cls}
    children: list[type] = cls.__subclasses__()
    for child in children:
        found.update(_family(child))
    return found


def _noun_hook(cls: Any) -> Hook:
    inner = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise expected("an object", value)
        return inner(value, cls)

    return structure


def _family_hook(cls: type) -> Hook:
    return lambda value, _: (
        _tagged(value, _family(cls)) if isinstance(value, Mapping) else _refuse(expected("an object", value))
    )


def _refuse(error: Exception) -> Any:
    raise error


def _family_dumper(cls: type) -> Callable[[Any], Any]:
    inner: Callable[[Any], dict[str, Any]] = make_dict_unstructure_fn(cls, converter)
    return lambda value: {_TAG: _name(cls), **inner(value)}


# Errors

_FACTS: dict[str, Any] = {
    "attempts": tuple[Attempt, ...],
    "elapsed": float | None,
    "retryable": bool,
    "retry_after": float | None,
    "exit_code": int | None,
    "stderr_tail": str,
    "status": int | None,
    "body": str,
    "limit": int | None,
    "outcomes": dict[str, CouncilError | None],
    "problems": tuple[Problem, ...],
    "spent": dict[str, float],
}


def _dump_error(error: CouncilError) -> dict[str, Any]:
    return {_TAG: _name(type(error)), "message": error.message, **json_value(vars(error))}


def _load_error(value: Any, cls: type[CouncilError]) -> CouncilError:
    if not isinstance(value, Mapping):
        raise expected("an object", value)
    message = below(".message", converter.get_structure_hook(str), value.get("message"), str)
    tag = value.get(_TAG)
    # An error of a plugin that is not installed here is still an error: it becomes the class that was asked for.
    found = _family(CouncilError).get(tag, cls) if isinstance(tag, str) else cls
    if not issubclass(found, cls):
        raise Wrong(f".{_TAG}", expected(f"a {cls.__name__}", tag))
    ours = next(base for base in found.__mro__ if base.__module__.partition("._")[0] == errors.__name__)
    facts = vars(ours(message))
    # Made without its own __init__, as unpickling does: a plugin's error may want arguments that stand in no fact.
    error = found.__new__(found, message)
    error.args = (message,)
    error.__dict__.update(facts)
    for name, fact in value.items():
        if name in facts:
            kind = _FACTS.get(name, str | None)
            setattr(error, name, below(f".{name}", converter.get_structure_hook(kind), fact, kind))
        elif found is not ours and name not in (_TAG, "message"):
            setattr(error, name, fact)
    return error


def _build() -> Converter:
    """Register the hooks: of those that know a type, the last one counts."""
    made = Converter(detailed_validation=True, forbid_extra_keys=True)
    # cattrs asks what is registered for a class, subclasses included, before it asks the predicates.
    for kind, hook in (
        (str, _string),
        (int, _exactly(int, "a whole number")),
        (bool, _exactly(bool, "true or false")),
        (float, _number),
    ):
        made.register_structure_hook(kind, hook)
        made.register_unstructure_hook(kind, json_value)
    made.register_structure_hook_func(lambda kind: kind is Any, lambda value, _: value)
    made.register_structure_hook_func(lambda kind: kind is NoneType, _exactly(NoneType, "null"))
    made.register_structure_hook_func(is_error, _load_error)
    made.register_structure_hook_func(
        lambda kind: isinstance(kind, _Itself), lambda value, kind: _itself(kind.cls)(value, kind.cls)
    )
    for known, structuring, dumping in (
        (is_sequence, _tuple_hook, _sequence_dumper),
        (is_mapping, _mapping_hook, _mapping_dumper),
        (is_union, _union_hook, _union_dumper),
        (is_noun, _noun_hook, None),
        (_is_relative, _family_hook, _family_dumper),
    ):
        made.register_structure_hook_factory(known, structuring)
        if dumping is not None:
            made.register_unstructure_hook_factory(known, dumping)
    made.register_unstructure_hook_func(lambda kind: kind is Any, json_value)
    made.register_unstructure_hook_func(is_error, _dump_error)
    return made


_hooks: dict[type, Hook] = {}


def _itself(cls: type) -> Hook:
    if cls not in _hooks:
        _hooks[cls] = _noun_hook(cls)
    return _hooks[cls]


converter = _build()
