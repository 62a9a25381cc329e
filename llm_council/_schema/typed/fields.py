"""The fields of a class: attrs, dataclass, TypedDict or NamedTuple, with their types, defaults and descriptions."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType, UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, NewType, Protocol, TypeVar, Union, get_args, get_origin

import attrs

from llm_council.errors import InvalidOption

__all__ = [
    "ABSENT",
    "Field",
    "docstring",
    "fields_of",
    "has_fields",
    "is_alias",
    "origin_of",
    "unwrap",
    "value_of_alias",
]

ABSENT: Final = object()
"""The default of a field without one."""

_CONTAINERS = (dict, frozenset, list, set, tuple)
_QUALIFIERS = ("Final", "NotRequired", "ReadOnly", "Required")
_SECTION = re.compile(r"^[ \t]*(?:Args|Arguments|Attributes|Fields|Parameters):[ \t]*\n", re.MULTILINE)
_ENTRY = re.compile(r"(?P<name>\w+)(?:[ \t]*\([^)\n]*\))?:[ \t]*(?P<text>.*)", re.DOTALL)


@attrs.frozen(kw_only=True)
class Field:
    """A field.

    Attributes:
        name: its key in JSON, which is also the name of the constructor's argument.
        attribute: the name under which an instance has it.
        kind: its type.
        is_required: False if it may be left out.
        default: its default; ABSENT if there is none, or if a factory may return another one each time.
        description: its description in the class; empty if there is none.
    """

    name: str
    attribute: str
    kind: Any = None
    is_required: bool
    default: Any = ABSENT
    description: str = ""


def unwrap(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a type without ``Annotated``, ``NewType`` and qualifiers such as ``Required``, and the annotations."""
    notes: tuple[Any, ...] = ()
    while True:
        origin = get_origin(kind)
        if origin is Annotated:
            kind, *more = get_args(kind)
            notes = (*more, *notes)
        elif isinstance(kind, NewType):
            kind = kind.__supertype__
        elif getattr(origin, "_name", getattr(origin, "__name__", "")) in _QUALIFIERS:
            (kind,) = get_args(kind)
        elif isinstance(kind, TypeVar):
            kind = kind.__bound__ or Any
        else:
            return kind, notes


def origin_of(kind: Any) -> Any:
    """Return the class of a generic class with arguments; anything else as it is."""
    return get_origin(kind) or kind


def is_hashable(kind: Any) -> bool:
    """Return True for a type that can be a key of a dict; the metadata of ``Annotated`` may be unhashable."""
    try:
        hash(kind)
    except TypeError:
        return False
    return True


def is_alias(kind: Any) -> bool:
    """Return True for an alias that ``type Name = ...`` of Python 3.12 makes."""
    return hasattr(origin_of(kind), "__value__")


def value_of_alias(kind: Any) -> Any:
    """Return the type that an alias stands for."""
    value, arguments = origin_of(kind).__value__, get_args(kind)
    return value[arguments] if arguments else value


def bare(kind: Any) -> Any:
    """Return a type without ``Annotated``, whose metadata may be unhashable; an alias becomes the type it names."""
    kind, _ = unwrap(kind)
    while is_alias(kind):
        kind, _ = unwrap(value_of_alias(kind))
    arguments = get_args(kind)
    if not arguments or get_origin(kind) is Literal:
        return kind
    stripped = tuple(one if is_alias(one) else bare(one) for one in arguments)
    if all(new is old for new, old in zip(stripped, arguments, strict=True)):
        return kind
    if get_origin(kind) in (Union, UnionType):
        return Union[stripped]  # noqa: UP007 - of a tuple
    return origin_of(kind)[stripped]


def name_of(kind: Any) -> str:
    """Return the name of a type for people, such as ``list[Report]``."""
    kind = kind if is_alias(kind) else bare(kind)
    if isinstance(kind, type) and get_origin(kind) is None:
        return kind.__name__
    return re.sub(r"\b(?:[A-Za-z_]\w*\.|<locals>\.)+", "", str(kind))


def _is_typed_dict(cls: type) -> bool:
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")  # typing's, and that of typing_extensions


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def has_fields(kind: Any) -> bool:
    """Return True for a class that ``fields_of`` supports."""
    cls = origin_of(kind)
    if not isinstance(cls, type):
        return False
    return attrs.has(cls) or dataclasses.is_dataclass(cls) or _is_typed_dict(cls) or _is_named_tuple(cls)


def fields_of(kind: Any) -> tuple[Field, ...]:
    """Return the fields that the constructor of a class takes.

    Raises:
        InvalidOption: a field has no type, its type cannot be found, or it is an argument that no instance holds.
    """
    return _fields_of(kind) if is_hashable(kind) else _fields_of.__wrapped__(kind)


@lru_cache(maxsize=512)
def _fields_of(kind: Any) -> tuple[Field, ...]:
    cls = origin_of(kind)
    hints = _hints(kind)
    if attrs.has(cls):
        found = _attrs_fields(cls, hints)
    elif dataclasses.is_dataclass(cls):
        found = _dataclass_fields(cls)
    elif _is_typed_dict(cls):
        found = [
            Field(name=name, attribute=name, is_required=_is_required(kind, default=name in cls.__required_keys__))
            for name, kind in hints.items()
        ]
    else:
        defaults = getattr(cls, "_field_defaults", {})
        found = [
            Field(name=name, attribute=name, is_required=name not in defaults, default=defaults.get(name, ABSENT))
            for name in cls._fields
        ]
    described = _descriptions(cls)
    complete = []
    for field in found:
        declared = hints.get(field.attribute, field.kind)
        if declared is None:
            raise InvalidOption(f"output_type: {cls.__name__}.{field.attribute} has no type: add an annotation")
        words = field.description or described.get(field.attribute, "")
        complete.append(attrs.evolve(field, kind=declared, description=words))
    return tuple(complete)


def _attrs_fields(cls: type, hints: Mapping[str, Any]) -> list[Field]:
    found = []
    for one in attrs.fields(cls):
        if not one.init:
            continue
        default: Any = ABSENT if one.default is attrs.NOTHING else one.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class at run time
            default = ABSENT if default.takes_self else _made(default.factory)
        found.append(
            Field(
                name=one.alias or one.name,
                attribute=one.name,
                kind=None if one.name in hints else one.type,
                is_required=one.default is attrs.NOTHING,
                default=default,
                description=_described_by(one.metadata),
            )
        )
    return found


def _dataclass_fields(cls: Any) -> list[Field]:
    for name, one in cls.__dataclass_fields__.items():
        if one._field_type is dataclasses._FIELD_INITVAR:  # type: ignore[attr-defined]
            raise InvalidOption(
                f"output_type: {cls.__name__}.{name} is an InitVar, which no instance holds: make it a field"
            )
    found = []
    for one in dataclasses.fields(cls):
        if not one.init:
            continue
        has_factory = one.default_factory is not dataclasses.MISSING
        default = ABSENT if one.default is dataclasses.MISSING else one.default
        found.append(
            Field(
                name=one.name,
                attribute=one.name,
                is_required=default is ABSENT and not has_factory,
                default=_made(one.default_factory) if has_factory else default,
                description=_described_by(one.metadata),
            )
        )
    return found


def _is_required(kind: Any, *, default: bool) -> bool:
    """Return what ``Required`` or ``NotRequired`` says of a key; Python ignores both in annotations that are text."""
    while True:
        name = getattr(get_origin(kind), "_name", None)
        if name in ("Required", "NotRequired"):
            return bool(name == "Required")
        if name not in _QUALIFIERS and get_origin(kind) is not Annotated:
            return default
        kind = get_args(kind)[0]


def _described_by(metadata: Mapping[Any, Any]) -> str:
    words = metadata.get("description")
    return words if isinstance(words, str) else ""


def _made(factory: Any) -> Any:
    """Return the empty container that a factory makes; ABSENT for others, which may return the time or a random id."""
    return factory() if factory in _CONTAINERS else ABSENT


def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of the attributes of a class, those of generic bases with their arguments."""
    cls = origin_of(kind)
    bound = _bindings(kind)
    hints: dict[str, Any] = {}
    for owner in reversed(_bases(cls)):
        own = inspect.get_annotations(owner)
        try:
            known = typing.get_type_hints(owner, localns={cls.__name__: cls}, include_extras=True)
        except NameError as error:
            named = (name for name, text in own.items() if isinstance(text, str) and error.name and error.name in text)
            raise InvalidOption(
                f"output_type: {owner.__name__}.{next(named, '?')}: {error}: the types of fields must be defined in the"
                " module of their class"
            ) from None
        for name in own:
            if get_origin(known.get(name)) is not ClassVar and known.get(name) is not ClassVar:
                hints[name] = _bind(known[name], bound.get(owner, {}))
    return hints


def _bases(cls: type) -> list[type]:
    """Return a class and its bases, from the class down. At run time, a TypedDict has none but ``dict``."""
    bases = [base for base in cls.__mro__ if base not in (object, dict, tuple, Protocol)]
    for base in getattr(cls, "__orig_bases__", ()):
        if _is_typed_dict(cls) and isinstance(origin_of(base), type) and _is_typed_dict(origin_of(base)):
            bases += [one for one in _bases(origin_of(base)) if one not in bases]
    return bases


def _bindings(kind: Any) -> dict[Any, dict[Any, Any]]:
    """Return the arguments of a generic class and of its bases: by class, then by type variable."""
    cls = origin_of(kind)
    own = dict(zip(getattr(cls, "__parameters__", ()), get_args(kind), strict=False))
    found = {cls: own}
    for base in getattr(cls, "__orig_bases__", getattr(cls, "__bases__", ())):
        if get_origin(base) not in (None, typing.Generic, Protocol) or hasattr(base, "__orig_bases__"):
            found |= {owner: bound for owner, bound in _bindings(_bind(base, own)).items() if owner not in found}
    return found


def _bind(kind: Any, bound: Mapping[Any, Any]) -> Any:
    """Return a type with type variables replaced."""
    if isinstance(kind, TypeVar):
        return bound.get(kind, kind)
    parameters = getattr(kind, "__parameters__", ())
    if not parameters or (isinstance(kind, type) and get_origin(kind) is None):
        return kind
    return kind[tuple(bound.get(one, one) for one in parameters)]


def docstring(cls: Any) -> str:
    """Return the docstring of a class up to its list of fields; empty if there is none, or a generated one."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    if text.startswith(f"{cls.__name__}(") or text == "An enumeration.":
        return ""
    return _SECTION.split(text)[0].strip()


def _descriptions(cls: Any) -> dict[str, str]:
    """Return field -> description, from the docstring of the class and the strings below its fields."""
    found: dict[str, str] = {}
    for owner in reversed(_bases(cls)):
        found |= _below_fields(owner)
        listed = _SECTION.split(inspect.cleandoc(owner.__dict__.get("__doc__") or ""))[1:]
        for section in listed:
            block = textwrap.dedent(re.split(r"\n(?=\S)", section)[0])
            for entry in re.split(r"\n(?=\S)", block):
                match = _ENTRY.match(entry.strip())
                if match:
                    found[match["name"]] = " ".join(match["text"].split())
    return found


def _below_fields(cls: type) -> Mapping[str, str]:
    """Return the strings below the fields in the source of a class; none without its source."""
    module = sys.modules.get(cls.__module__)
    return _strings_in(module).get(cls.__qualname__, {}) if module is not None else {}


@lru_cache(maxsize=64)
def _strings_in(module: ModuleType) -> dict[str, dict[str, str]]:
    """Return the strings below the fields of all classes of a module, by the qualified name of the class."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    found: dict[str, dict[str, str]] = {}
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, prefix = waiting.pop()
        for child in ast.iter_child_nodes(node):
            below = prefix
            if isinstance(child, ast.ClassDef):
                found[prefix + child.name] = _strings_of(child)
                below = f"{prefix}{child.name}."
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                below = f"{prefix}{child.name}.<locals>."
            waiting.append((child, below))
    return found


def _strings_of(node: ast.ClassDef) -> dict[str, str]:
    found: dict[str, str] = {}
    for one, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and isinstance(after, ast.Expr):
            words = after.value.value if isinstance(after.value, ast.Constant) else None
            if isinstance(words, str):
                found[one.target.id] = " ".join(words.split())
    return found
