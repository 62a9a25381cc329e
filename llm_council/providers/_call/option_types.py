"""Check the types of options that a user wrote before a class gets them: the message names the field."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from collections.abc import Collection as AbstractCollection
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs

from llm_council.errors import InvalidOption
from llm_council.errors._secrets import Secret

__all__ = ["check_types", "revealed_for"]


def check_types(cls: type | Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check options against the annotations of a class's constructor.

    A parameter whose annotation cannot be read, or is of another kind than a file's values, takes anything.

    Raises:
        InvalidOption: a value has another type than its parameter; names the option, and says what is expected.
    """
    for name, value in options.items():
        kinds = _alternatives(_annotation(cls, name))
        if not any(_fits(value, kind) for kind in kinds):
            expected = " or ".join(dict.fromkeys(_word(kind) for kind in kinds if kind is not type(None)))
            raise InvalidOption(f"{name}: expected {expected}, got {value!r:.80}")


def revealed_for(cls: type, option: str, value: Any) -> Any:
    """Return an option as a class takes it: secrets in plain text unless the parameter's annotation has ``Secret``.

    A class that formats a ``Secret`` into a header would send ``***`` in place of the key.
    """
    if any(kind is Secret for kind in _alternatives(_annotation(cls, option))):
        return value
    return _revealed(value)


def _revealed(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {name: _revealed(item) for name, item in value.items()}
    # A header is a tuple of secrets, one for each word; see ``sealed``.
    if isinstance(value, tuple) and value and all(isinstance(word, Secret) for word in value):
        return " ".join(word.reveal() for word in value)
    return value


def _annotation(cls: Any, name: str) -> Any:
    """Return the annotation of a parameter, looked up along the bases, as constructors pass options on."""
    for base in inspect.getmro(cls):
        init = vars(base).get("__init__")
        if not inspect.isfunction(init):
            continue
        try:
            hints = get_type_hints(init)
        except Exception:  # noqa: BLE001 - annotations of a plugin may name what exists for type checkers only
            return Any
        if name in hints:
            return hints[name]
    return Any


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin is Literal:
        return value in get_args(kind)
    if origin is Any:  # a class since Python 3.11
        return True
    if not isinstance(origin, type):
        return True
    if origin is bool or isinstance(value, bool):
        return origin in (bool, object) and isinstance(value, bool)
    if origin is float:
        return isinstance(value, int | float)
    if origin in (int, type(None)):
        return isinstance(value, origin)
    if origin in (str, Secret):
        return isinstance(value, str | Secret)
    if attrs.has(origin) or issubclass(origin, Mapping):  # a table of the file becomes the object
        return isinstance(value, Mapping)
    if issubclass(origin, AbstractCollection):
        return isinstance(value, list | tuple)
    return True


_WORDS = {str: "text", Secret: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _word(kind: Any) -> str:
    origin = get_origin(kind) or kind
    if origin is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if origin in _WORDS:
        return _WORDS[origin]
    if attrs.has(origin) or issubclass(origin, Mapping):
        return "a table"
    return "a list"
