"""Read values of Python types from JSON and write them to JSON, with cattrs, without converting one type into another.

By default, cattrs reads ``"3"`` as 3 and a string as a list. The hooks here refuse such values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from types import NoneType
from typing import Any, Literal, TypeAlias, get_args

import attrs
from cattrs import Converter

from llm_council import _schema
from llm_council._schema.typed.describe import LISTS, MAPPINGS, SETS, describe
from llm_council._schema.typed.fields import Field, bare, fields_of, has_fields, is_hashable, name_of, origin_of
from llm_council._schema.typed.foreign import foreign_class
from llm_council._schema.typed.scalars import TEXTS
from llm_council._schema.typed.unions import is_class, is_union, tag_of
from llm_council.errors._secrets import clean
from llm_council.models._convert import dump

__all__ = ["Refused", "TypeConverter"]

Problems: TypeAlias = list[tuple[str, str]]
Read: TypeAlias = Callable[[Any, Any], Any]  # (value, type) -> instance

_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null"}
_MOST_WORDS = 400  # characters of what a constructor says


class Refused(Exception):
    """A JSON value is not of the expected type.

    Attributes:
        problems: pairs of a path below the value, such as ``".issues[0]"``, and a message.
    """

    def __init__(self, problems: Problems) -> None:
        super().__init__("; ".join(f"${path}: {message}" for path, message in problems))
        self.problems = problems


@attrs.frozen
class _Branch:
    """A member of a union, with the validator of its values. The tag is the property that names its class."""

    kind: Any
    validator: _schema.Validator
    tag: str | None


class TypeConverter:
    """Reads and writes values of the output type of a run, and of all types inside it."""

    def __init__(self) -> None:
        self._cattrs = Converter()
        self._branches: dict[Any, list[_Branch]] = {}
        self._hooks: dict[Any, tuple[Read, Any]] = {}  # by type, with the type without annotations
        # cattrs asks hooks of classes first, then the predicates, the last registered one first.
        for kind in (str, int, float, bool, Enum):
            self._cattrs.register_structure_hook(kind, _read_plain)
            self._cattrs.register_unstructure_hook(kind, dump)
        self._register(lambda kind: True, _refuse, _dump)
        self._register(lambda kind: kind in (None, NoneType), _read_null, _dump)
        self._register(lambda kind: kind is Any or kind is object, lambda value, _: value, _dump)
        self._register(lambda kind: kind in TEXTS, _read_text, _write_text)
        self._register(lambda kind: origin_of(kind) is Literal, _read_literal, _dump)
        self._register(lambda kind: origin_of(kind) in MAPPINGS, self._read_mapping, self._write_mapping)
        self._register(lambda kind: origin_of(kind) in (*LISTS, *SETS, tuple), self._read_items, self._write_items)
        self._register(is_union, self._read_union, self._write_union)
        self._register(has_fields, self._read_object, self._write_object)
        self._register(lambda kind: foreign_class(kind) is not None, _read_foreign, _write_foreign)

    def _register(
        self, is_kind: Callable[[Any], bool], read: Callable[[Any, Any], Any], write: Callable[[Any, Any], Any]
    ) -> None:
        self._cattrs.register_structure_hook_func(is_kind, read)
        self._cattrs.register_unstructure_hook_factory(is_kind, lambda kind: lambda value: write(value, kind))

    def read(self, value: Any, kind: Any) -> Any:
        """Return the instance of a JSON value.

        Raises:
            Refused: the value is not one of the type, or a constructor does not take it.
        """
        # Looked up once for each type: an answer may hold thousands of values.
        try:
            hook, plain = self._hooks[kind]
        except (KeyError, TypeError):  # annotations may be unhashable
            plain = bare(kind)
            hook = self._cattrs.get_structure_hook(plain)
            if is_hashable(kind):
                self._hooks[kind] = hook, plain
        return hook(value, plain)

    def write(self, instance: Any, kind: Any) -> Any:
        """Return the JSON value of an instance of a type."""
        return self._cattrs.unstructure(instance, unstructure_as=bare(kind))

    def write_default(self, instance: Any, kind: Any) -> Any:
        """Return the JSON value of a default.

        Raises:
            Exception: it is no instance of the type.
        """
        written = self.write(instance, kind)
        self.read(written, kind)
        return written

    def _read_parts(self, parts: Mapping[str | int, tuple[Any, Any]]) -> list[Any]:
        """Read the parts of a value, by key or index, each with its type; report the problems of all."""
        problems: Problems = []
        found = []
        for step, (value, kind) in parts.items():
            try:
                found.append(self.read(value, kind))
            except Refused as refused:
                place = _schema.json_path([step])[1:]
                problems += [(place + path, message) for path, message in refused.problems]
        if problems:
            raise Refused(problems)
        return found

    def _read_object(self, value: Any, kind: Any) -> Any:
        _expect(dict, "an object", value)
        fields = _fields_by_name(kind)
        problems = [(_schema.json_path([name])[1:], "is not known") for name in value if name not in fields]
        missing = [field.name for field in fields.values() if field.is_required and field.name not in value]
        problems += [(_schema.json_path([name])[1:], "is missing") for name in missing]
        if problems:
            raise Refused(problems)
        parts = {name: (item, fields[name].kind) for name, item in value.items()}
        given = dict(zip(parts, self._read_parts(parts), strict=True))
        cls = origin_of(kind)
        if issubclass(cls, dict):  # a TypedDict, whose keys may be no identifiers
            return given
        try:
            return cls(**given)
        except Exception as error:
            raise Refused([("", _reason(error))]) from error

    def _write_object(self, instance: Any, kind: Any) -> dict[str, Any]:
        if isinstance(instance, dict):
            return {
                field.name: self.write(instance[field.name], field.kind)
                for field in fields_of(kind)
                if field.name in instance
            }
        return {field.name: self.write(getattr(instance, field.attribute), field.kind) for field in fields_of(kind)}

    def _read_mapping(self, value: Any, kind: Any) -> dict[str, Any]:
        _expect(dict, "an object", value)
        _, item = get_args(kind) or (str, Any)
        return dict(zip(value, self._read_parts({key: (one, item) for key, one in value.items()}), strict=True))

    def _write_mapping(self, instance: Any, kind: Any) -> dict[str, Any]:
        _, item = get_args(kind) or (str, Any)
        return {key: self.write(one, item) for key, one in instance.items()}

    def _read_items(self, value: Any, kind: Any) -> Any:
        _expect(list, "a list", value)
        items = self._read_parts(dict(enumerate(zip(value, _item_kinds(kind, value), strict=True))))
        origin = origin_of(kind)
        if origin in LISTS:
            return items
        try:
            is_unique = origin not in SETS or len(set(items)) == len(items)
        except TypeError as error:  # an item that may be any value, or a frozen class that holds a list
            raise Refused([("", f"has an item that no set takes: {_reason(error)}")]) from error
        if not is_unique:
            raise Refused([("", "has an item twice")])
        made = origin if origin in (tuple, frozenset) else set
        return made(items)

    def _write_items(self, instance: Any, kind: Any) -> list[Any]:
        kinds = _item_kinds(kind, instance)
        written = [self.write(one, item) for one, item in zip(instance, kinds, strict=True)]
        # The order of a set differs from process to process.
        return sorted(written, key=repr) if origin_of(kind) in SETS else written

    def _read_union(self, value: Any, kind: Any) -> Any:
        refused: Refused | None = None
        # 3.0 is a valid integer too: in a union of int and float, it is read as a float.
        for branch in sorted(self._branches_of(kind), key=lambda one: type(value) is float and one.kind is int):
            if not branch.validator.accepts(value):
                continue
            untagged = {key: item for key, item in value.items() if key != branch.tag} if branch.tag else value
            try:
                return self.read(untagged, branch.kind)
            except Refused as error:
                refused = refused or error
        raise refused or Refused([("", f"is none of {', '.join(map(name_of, get_args(kind)))}")])

    def _write_union(self, instance: Any, kind: Any) -> Any:
        for branch in self._branches_of(kind):
            try:
                written = self.write(instance, branch.kind)
                same = self.read(written, branch.kind)
            except Exception:  # noqa: BLE001, S112 - an instance of another member; anything may be raised
                continue
            if type(same) is type(instance) and same == instance:
                return {branch.tag: name_of(bare(branch.kind)), **written} if branch.tag else written
        return dump(instance)

    def _branches_of(self, kind: Any) -> list[_Branch]:
        """Return the members of a union, those that take almost any value last."""
        if kind not in self._branches:
            schema = describe(kind, _no_default).schema
            members = get_args(kind)
            tag = tag_of(members)
            found = []
            for member, part in zip(members, schema["anyOf"], strict=True):
                validator = _schema.compile({**part, "$defs": schema.get("$defs", {})})
                found.append(_Branch(member, validator, tag if is_class(member) else None))
            self._branches[kind] = sorted(found, key=lambda branch: _breadth(branch.kind))
        return self._branches[kind]


def _no_default(instance: Any, kind: Any) -> Any:
    """Refuse every default, so that schemas that only check values have none."""
    raise LookupError


@lru_cache(maxsize=512)
def _fields_by_name(kind: Any) -> dict[str, Field]:
    return {field.name: field for field in fields_of(kind)}


def _breadth(kind: Any) -> int:
    """Return how many values a member of a union accepts, as a rank: members with 0 are tried first, with 2 last."""
    kind = bare(kind)
    if kind is Any or kind is object:
        return 2
    return int(kind is str or (origin_of(kind) in MAPPINGS))


def _item_kinds(kind: Any, values: Sequence[Any]) -> Sequence[Any]:
    """Return the type of each item of a list, set or tuple.

    Raises:
        Refused: a tuple has another length.
    """
    arguments = get_args(kind)
    if origin_of(kind) is not tuple or not arguments or arguments[-1] is Ellipsis:
        return [arguments[0] if arguments else Any] * len(values)
    kinds = () if arguments == ((),) else arguments
    if len(kinds) != len(values):
        raise Refused([("", f"expected {len(kinds)} items, got {len(values)}")])
    return kinds


def _expect(kind: type, words: str, value: Any) -> None:
    if not isinstance(value, kind):
        raise Refused([("", f"expected {words}")])


def _read_plain(value: Any, kind: Any) -> Any:
    """Read text, numbers, true and false, and the values of an Enum."""
    if issubclass(kind, Enum):
        for member in kind:
            if type(member.value) is type(value) and member.value == value:
                return member
        raise Refused([("", f"expected one of {', '.join(str(one.value) for one in kind)}")])
    is_whole = type(value) is float and value.is_integer()  # JSON Schema: 3.0 is a whole number
    if type(value) is kind or (kind is float and type(value) is int) or (kind is int and is_whole):
        return kind(value)
    raise Refused([("", f"expected {_WORDS.get(kind, kind.__name__)}")])


def _read_null(value: Any, _: Any) -> None:
    if value is not None:
        raise Refused([("", "expected null")])


def _read_literal(value: Any, kind: Any) -> Any:
    for one in get_args(kind):
        plain = one.value if isinstance(one, Enum) else one
        if type(plain) is type(value) and plain == value:
            return one
    raise Refused([("", f"expected one of {', '.join(map(str, get_args(kind)))}")])


def _read_text(value: Any, kind: Any) -> Any:
    _expect(str, "text", value)
    try:
        return TEXTS[kind].read(value)
    except (ValueError, ArithmeticError) as error:
        raise Refused([("", f"expected {TEXTS[kind].expected}")]) from error


def _write_text(instance: Any, kind: Any) -> str:
    return TEXTS[kind].write(instance)


def _read_foreign(value: Any, kind: Any) -> Any:
    foreign = foreign_class(kind)
    assert foreign is not None  # noqa: S101 - the predicate of this hook
    try:
        return foreign.read(value)
    except Exception as error:
        raise Refused(foreign.problems(error) or [("", _reason(error))]) from error


def _write_foreign(instance: Any, kind: Any) -> Any:
    foreign = foreign_class(kind)
    assert foreign is not None  # noqa: S101 - likewise
    return foreign.write(instance)


def _refuse(value: Any, kind: Any) -> Any:
    raise Refused([("", f"{name_of(kind)} cannot be read from JSON")])


def _dump(value: Any, _: Any) -> Any:
    return dump(value)


def _reason(error: Exception) -> str:
    """Return the message of an error, for the model that is to repair its answer."""
    # The validators of attrs put the field and the value behind the message.
    words = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    known = isinstance(error, ValueError | TypeError | AssertionError) and words
    return clean(words if known else f"{type(error).__name__}: {words}", limit=_MOST_WORDS)
