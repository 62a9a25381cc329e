"""The JSON converter of the data types: for the store, ``--json``, cassettes and caches.

``dump`` returns plain JSON values and ``load`` reads them back. Both use one cattrs converter, which differs from the
defaults of cattrs in three points:

- Primitives are strict. By default cattrs reads None as ``'None'`` and ``"no"`` as True.
- A ``"type"`` key holds the class name where the declared type allows several: parts of messages, events, errors.
- ``load`` raises ``InvalidOption`` or ``UnknownOption``; the message begins with the path of the wrong value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeAlias, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import BaseValidationError, ClassValidationError, Converter
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from llm_council import errors
from llm_council.errors import Attempt, CouncilError, InvalidOption, UnknownOption, near
from llm_council.models.attachments import Attachment
from llm_council.models.deliberation import Problem

__all__ = ["dump", "load"]

T = TypeVar("T")
Structure: TypeAlias = Callable[[Any, Any], Any]  # (value, type) -> instance
Unstructure: TypeAlias = Callable[[Any], Any]

_TAG = "type"
_PLAIN = frozenset({str, int, bool, NoneType})
_NOT_FINITE = ("inf", "-inf", "nan")  # JSON has no such numbers; `float` reads these words

_converter = Converter(detailed_validation=True, forbid_extra_keys=True)


def dump(value: Any) -> Any:
    """Return an attrs instance, an error or a container of them as plain JSON values.

    ``metadata`` and ``extra`` may hold anything: a value that JSON cannot express becomes its ``str``. Numbers that are
    not finite become the strings ``"inf"``, ``"-inf"`` and ``"nan"``.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    # Most values are a vendor's JSON, which every record of a call holds: the types of JSON come first.
    if kind is dict:
        return {key if type(key) is str else str(dump(key)): dump(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [dump(item) for item in value]
    if isinstance(value, Enum):  # before the others: a StrEnum is a str, too
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(dump(key)): dump(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [dump(item) for item in value]
    if attrs.has(kind) or isinstance(value, CouncilError):
        return _converter.unstructure(value)
    if isinstance(value, int):  # a subclass of int, whose own text could be anything
        return int(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return [dump(item) for item in value]
    if isinstance(value, AbstractSet):  # sorted: the order of a set differs from run to run
        return sorted((dump(item) for item in value), key=str)
    return str(value)


def load(cls: type[T], data: Any) -> T:
    """Return the instance that ``dump`` wrote.

    Args:
        cls: the class. For events and errors the base class is enough.
        data: plain JSON values.

    Raises:
        InvalidOption: a value is missing or has the wrong type.
        UnknownOption: a key is unknown; the message suggests the nearest known one.
    """
    try:
        return _converter.structure(data, cls)
    except _CAUGHT as error:
        wrong = _explain(error)
        raise wrong.error(f"{getattr(cls, '__name__', cls)}{wrong.path}: {wrong.reason}") from None


# Failures


class _Wrong(Exception):
    """A value cannot be loaded.

    Attributes:
        reason: why.
        path: where, relative to the value that is being loaded, such as ``.seats[0].name``.
        error: the class to raise.
    """

    def __init__(self, reason: str, path: str = "", error: type[CouncilError] = InvalidOption) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path
        self.error = error


class _Mismatch(_Wrong):
    """The value as a whole has another type than expected."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(f"expected {expected}, got {value!r:.80}")


# The last four: a constructor or a foreign class may raise them; data may be nested too deeply for Python's stack.
_CAUGHT = (_Wrong, BaseValidationError, CouncilError, ValueError, TypeError, RecursionError)


def _explain(error: BaseException) -> _Wrong:
    """Return the first failure that an exception reports."""
    if isinstance(error, _Wrong):
        return error
    if isinstance(error, ClassValidationError):  # cattrs collects the failures of all fields
        by_field, others = error.group_exceptions()
        if not by_field:
            return _explain(others[0])
        cause, note = by_field[0]
        if isinstance(cause, KeyError):  # the generated code of cattrs reads the key of a required field
            return _Wrong("is missing", f".{note.name}")
        return _below(f".{note.name}", cause)
    if isinstance(error, ForbiddenExtraKeysError):
        name = min(error.extra_fields)
        known = [field.name for field in attrs.fields(error.cl)]
        return _Wrong(f"is not known{near(name, known)}", f".{name}", UnknownOption)
    if isinstance(error, RecursionError):
        return _Wrong("is nested too deeply")
    return _Wrong(str(error), error=UnknownOption if isinstance(error, UnknownOption) else InvalidOption)


def _below(step: str, error: BaseException) -> _Wrong:
    """Return a failure of a part as a failure of the whole; ``step`` is the path from the whole to the part."""
    wrong = _explain(error)
    return _Wrong(wrong.reason, step + wrong.path, wrong.error)


def _structure_part(step: str, structure: Structure, value: Any, kind: Any) -> Any:
    try:
        return structure(value, kind)
    except _CAUGHT as error:
        raise _below(step, error) from None


# Primitives


def _exactly(kind: type, expected: str) -> Structure:
    def structure(value: Any, _: Any) -> Any:
        # Not `isinstance`: True is an int, and 1 would be read for it.
        if type(value) is not kind:
            raise _Mismatch(expected, value)
        return value

    return structure


def _structure_float(value: Any, _: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number or (isinstance(value, str) and value in _NOT_FINITE):
        return float(value)
    raise _Mismatch("a number", value)


def _structure_str(value: Any, kind: type[str]) -> str:
    """Read a string, or a word of a ``StrEnum``."""
    if type(value) is not str:
        raise _Mismatch("a string", value)
    if not issubclass(kind, Enum):
        return value
    try:
        return kind(value)
    except ValueError:
        known = [str(member.value) for member in kind]
        raise _Wrong(f"expected one of {', '.join(known)}, got {value!r:.80}{near(value, known)}") from None


# Containers


def _is_tuple(kind: Any) -> bool:
    return kind is tuple or get_origin(kind) is tuple


def _is_mapping(kind: Any) -> bool:
    return kind in (dict, Mapping) or get_origin(kind) in (dict, Mapping)


def _tuple_structure(kind: Any) -> Structure:
    item_kind = get_args(kind)[0] if get_args(kind) else Any
    hook = _converter.get_structure_hook(item_kind)

    def structure(value: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise _Mismatch("a list", value)
        return tuple(_structure_part(f"[{index}]", hook, item, item_kind) for index, item in enumerate(value))

    return structure


def _mapping_structure(kind: Any) -> Structure:
    item_kind = get_args(kind)[1] if get_args(kind) else Any
    hook = _converter.get_structure_hook(item_kind)

    def structure(value: Any, _: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _Mismatch("an object", value)
        for key in value:
            if not isinstance(key, str):
                raise _Mismatch("a string for a key", key)
        return {key: _structure_part(f".{key}", hook, item, item_kind) for key, item in value.items()}

    return structure


def _tuple_unstructure(kind: Any) -> Unstructure:
    item_kind = get_args(kind)[0] if get_args(kind) else Any
    return lambda value: [_converter.unstructure(item, unstructure_as=item_kind) for item in value]


def _mapping_unstructure(kind: Any) -> Unstructure:
    item_kind = get_args(kind)[1] if get_args(kind) else Any

    def unstructure(value: Any) -> dict[str, Any]:
        return {str(dump(key)): _converter.unstructure(item, unstructure_as=item_kind) for key, item in value.items()}

    return unstructure


# Unions


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _classes_in(union: Any) -> dict[str, type]:
    """Return the attrs classes among the members of a union, by name."""
    return {member.__name__: member for member in get_args(union) if _is_attrs(member)}


def _union_structure(kind: Any) -> Structure:
    classes = _classes_in(kind)
    # Enums go first: `FinishReason | str` must not read a known word as a plain string.
    members = sorted(get_args(kind), key=lambda member: not (isinstance(member, type) and issubclass(member, Enum)))
    names = ["null" if member is NoneType else getattr(member, "__name__", str(member)) for member in members]

    def structure(value: Any, _: Any) -> Any:
        if len(classes) > 1 and isinstance(value, Mapping):
            return _structure_tagged(value, classes)
        failure: _Wrong | None = None
        for member in members:
            try:
                return _converter.structure(value, member)
            except _CAUGHT as error:
                wrong = _explain(error)
                if failure is None and not isinstance(wrong, _Mismatch):
                    failure = wrong  # the type is right, but something in the value is wrong: the better message
        raise failure or _Mismatch(" or ".join(sorted(names)), value)

    return structure


def _union_unstructure(kind: Any) -> Unstructure:
    classes = _classes_in(kind)
    tuples = [member for member in get_args(kind) if get_origin(member) is tuple]

    def unstructure(value: Any) -> Any:
        if type(value) in _PLAIN:
            return value
        if isinstance(value, tuple) and tuples:
            return _converter.unstructure(value, unstructure_as=tuples[0])
        name = type(value).__name__
        if len(classes) > 1 and name in classes:
            return {_TAG: name, **dump(value)}
        return dump(value)

    return unstructure


# Classes, with a tag where a base class stands for all below it


def _is_attrs(kind: Any) -> bool:
    return isinstance(kind, type) and attrs.has(kind)


def _is_event(kind: Any) -> bool:
    """Return True for ``Event`` and the classes below it. This module stands below ``events`` and cannot import it."""
    return _is_attrs(kind) and getattr(kind, "_is_tagged", False) is True


def _is_error(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, CouncilError)


def _tag(cls: type) -> str:
    """Return the tag of a class: its name; for a class of another package with its module, so that none is confused."""
    return cls.__name__ if cls.__module__.startswith("llm_council.") else f"{cls.__module__}:{cls.__qualname__}"


def _tagged_classes(cls: type) -> dict[str, type]:
    """Return a class and all its subclasses by tag."""
    found = {_tag(cls): cls}
    children: list[type] = cls.__subclasses__()
    for child in children:
        found.update(_tagged_classes(child))
    return found


def _structure_tagged(value: Any, classes: Mapping[str, type]) -> Any:
    if not isinstance(value, Mapping):
        raise _Mismatch("an object", value)
    tag = value.get(_TAG)
    if not isinstance(tag, str) or tag not in classes:
        hint = near(tag, classes) if isinstance(tag, str) else ""
        raise _Wrong(f"expected one of {', '.join(sorted(classes))}, got {tag!r:.80}{hint}", f".{_TAG}")
    fields = {key: item for key, item in value.items() if key != _TAG}
    return _class_structure(classes[tag])(fields, classes[tag])


@cache
def _class_structure(cls: Any) -> Structure:
    # The output of a result is of any type: cattrs asks for the arguments of a generic class.
    parameters = getattr(cls, "__parameters__", ())
    kind = cls[(Any,) * len(parameters)] if parameters else cls
    inner = make_dict_structure_fn(kind, _converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _Mismatch("an object", value)
        return inner(value, cls)

    return structure


def _event_structure(cls: type) -> Structure:
    # Subclasses are looked up with each value: a plugin may define one after this hook was made.
    return lambda value, _: _structure_tagged(value, _tagged_classes(cls))


def _event_unstructure(cls: type) -> Unstructure:
    inner: Callable[[Any], dict[str, Any]] = make_dict_unstructure_fn(cls, _converter)
    return lambda value: {_TAG: _tag(cls), **inner(value)}


# Errors

# Types of the errors' attributes; any other is a string or None.
_ERROR_FIELDS: dict[str, Any] = {
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
    "faults": tuple[tuple[Any, ...], ...],  # pairs of a line and what is wrong there
    "spent": dict[str, float],
}


def _dump_error(error: CouncilError) -> dict[str, Any]:
    return {_TAG: _tag(type(error)), "message": error.message, **dump(vars(error))}


def _load_error(value: Any, cls: type[CouncilError]) -> CouncilError:
    if not isinstance(value, Mapping):
        raise _Mismatch("an object", value)
    message = _structure_part(".message", _structure_str, value.get("message"), str)
    tag = value.get(_TAG)
    # The class of a plugin that is not installed here is unknown: the error becomes the class that was asked for.
    found = _tagged_classes(CouncilError).get(tag, cls) if isinstance(tag, str) else cls
    if not issubclass(found, cls):
        raise _Wrong(f"expected a {cls.__name__}, got {tag!r:.80}", f".{_TAG}")
    ours = next(base for base in found.__mro__ if base.__module__ == errors.__name__)
    defaults = vars(ours(message))
    # As unpickling does, without __init__: a plugin's error may take arguments that are not among its attributes.
    error = found.__new__(found, message)
    error.args = (message,)
    error.__dict__.update(defaults)
    for name, fact in value.items():
        if name in defaults:
            kind = _ERROR_FIELDS.get(name, str | None)
            setattr(error, name, _structure_part(f".{name}", _converter.get_structure_hook(kind), fact, kind))
        elif found is not ours and name not in (_TAG, "message"):
            setattr(error, name, fact)
    return error


# Attachments: the bytes are not part of a plan's JSON, which goes into events, results and logs.

_structure_attachment = make_dict_structure_fn(
    Attachment, _converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, data=override(omit=True)
)


def _load_attachment(value: Any, kind: Any) -> Attachment:
    if not isinstance(value, Mapping):
        raise _Mismatch("an object", value)
    return _structure_attachment(value, kind)


def _dump_attachment(file: Attachment) -> dict[str, Any]:
    facts = {"text": file.text, "path": file.path, "media_type": file.media_type, "size": file.size}
    facts["sha256"] = file.sha256
    return {"name": file.name, **{name: value for name, value in facts.items() if value is not None}}


# Registration. cattrs asks the hooks of classes first, then the predicates, the last registered one first.

_converter.register_structure_hook(str, _structure_str)
_converter.register_structure_hook(int, _exactly(int, "a whole number"))
_converter.register_structure_hook(bool, _exactly(bool, "true or false"))
_converter.register_structure_hook(float, _structure_float)
_converter.register_structure_hook_func(lambda kind: kind is NoneType, _exactly(NoneType, "null"))
_converter.register_structure_hook_func(lambda kind: kind is Any, lambda value, _: value)
_converter.register_structure_hook_func(_is_error, _load_error)
_converter.register_structure_hook_factory(_is_tuple, _tuple_structure)
_converter.register_structure_hook_factory(_is_mapping, _mapping_structure)
_converter.register_structure_hook_factory(_is_union, _union_structure)
_converter.register_structure_hook_factory(_is_attrs, _class_structure)
_converter.register_structure_hook_factory(_is_event, _event_structure)
_converter.register_structure_hook(Attachment, _load_attachment)

for _primitive in (str, int, bool, float):
    _converter.register_unstructure_hook(_primitive, dump)
_converter.register_unstructure_hook_func(lambda kind: kind is Any, dump)
_converter.register_unstructure_hook_func(_is_error, _dump_error)
_converter.register_unstructure_hook_factory(_is_tuple, _tuple_unstructure)
_converter.register_unstructure_hook_factory(_is_mapping, _mapping_unstructure)
_converter.register_unstructure_hook_factory(_is_union, _union_unstructure)
_converter.register_unstructure_hook_factory(_is_event, _event_unstructure)
_converter.register_unstructure_hook(Attachment, _dump_attachment)
