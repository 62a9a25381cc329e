"""How an adapter is constructed: the keywords that its class accepts, and a hash of the arguments that it got."""

from __future__ import annotations

import enum
import hashlib
import inspect
import json
import types
import uuid
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from os import PathLike, fspath
from typing import Any

import attrs

from llm_council.errors import UnknownOption, near
from llm_council.errors._secrets import Secret

__all__ = ["accepted_options", "arguments_hash", "belongs_to_library", "refuse_unknown_options"]

_LIBRARY = __name__.partition(".")[0]


def belongs_to_library(function: Any) -> bool:
    """Return True for a function or class of this library, False for one of another author."""
    return str(getattr(function, "__module__", "")).partition(".")[0] == _LIBRARY


def accepted_options(cls: type) -> dict[str, inspect.Parameter] | None:
    """Return the options of a class, with those that it passes on to its bases; None if it accepts any option."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        if base is object:
            # Without a constructor of its own, the class takes nothing; one that passes on everything takes everything.
            return {} if _constructor(cls) is object.__init__ else None
        try:
            parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        except (TypeError, ValueError):  # it is not written in Python
            return None
        found |= {p.name: p for p in parameters if p.name not in found and p.kind is not p.VAR_KEYWORD}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return found
    return None


def refuse_unknown_options(cls: type, options: Mapping[str, Any], what: str) -> None:
    """Check the keywords of a constructor.

    Args:
        cls: the class.
        options: the keywords.
        what: the beginning of the message, such as ``"provider 'openai'"``.

    Raises:
        UnknownOption: the class accepts no such keyword; the message lists those that it accepts. Also a ``TypeError``.
    """
    accepted = accepted_options(cls)
    if accepted is None:
        return
    for option in options:
        if option not in accepted:
            names = [name for name, p in accepted.items() if p.kind not in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY)]
            listed = f"it takes {', '.join(names)}" if names else "it takes no options"
            raise UnknownOption(f"{what} takes no {option!r:.80}{near(option, names)}; {listed}")


def arguments_hash(cls: type, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> str:
    """Return a hash of the arguments of a constructor, defaults included; an empty string if there are none.

    It is the same in every process for equal texts, numbers, containers, paths, data objects, named functions and
    providers. A secret counts by its fingerprint. Another object, such as a client, makes the hash unique, because
    nothing tells whether two of them lead to the same answers.
    """
    constructor = _constructor(cls)
    if constructor is object.__init__:
        return ""
    try:
        bound = inspect.signature(constructor).bind(None, *arguments, **options)
    except (TypeError, ValueError):  # the constructor refuses them with its own words
        return ""
    bound.apply_defaults()
    (_, *rest) = bound.arguments.items()  # without ``self``
    if not rest:
        return ""
    try:
        text = json.dumps([[name, _plain(value)] for name, value in rest], separators=(",", ":"))
    except Exception:  # noqa: BLE001 - an argument of another author may raise anything, or hold itself
        text = uuid.uuid4().hex
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=b"llm-council").hexdigest()


def _constructor(cls: type) -> Any:
    return cls.__init__  # type: ignore[misc]  # of this very class


def _plain(value: Any) -> Any:
    """Return an argument as a JSON value that is equal for equal arguments, and differs for different ones."""
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, Mapping):
        return {"mapping": sorted(([_plain(k), _plain(v)] for k, v in value.items()), key=json.dumps)}
    if isinstance(value, AbstractSet):
        return {"set": sorted((_plain(item) for item in value), key=json.dumps)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    return {name: _plain_object(value)}


def _plain_object(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.fingerprint()
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    if isinstance(value, PathLike):
        return _plain(fspath(value))
    if callable(getattr(value, "cache_identity", None)) and not isinstance(value, type):
        return _plain(value.cache_identity())
    if attrs.has(type(value)):
        return {field.name: _plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, partial):
        return [_plain(value.func), _plain(value.args), _plain(value.keywords)]
    is_named = isinstance(value, type | types.FunctionType | types.BuiltinFunctionType)
    if is_named and "<" not in value.__qualname__:  # neither a lambda nor a closure
        return f"{value.__module__}.{value.__qualname__}"
    return uuid.uuid4().hex
