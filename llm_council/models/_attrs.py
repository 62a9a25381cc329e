"""Helpers for the attrs data classes: strict keywords, converters, validators, fast copies and masking of secrets.

A data class of this package reads::

    @strict_init
    @attrs.frozen(kw_only=True)
    class Timeouts:
        connect: float | None = attrs.field(default=10.0, validator=optional(positive))

The validators here refuse None; ``optional`` from attrs allows it. A wrong value raises ``InvalidOption``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from typing import Any, TypeVar

import attrs

from llm_council.errors import InvalidOption, UnknownOption, near
from llm_council.errors._secrets import MASK, live

C = TypeVar("C", bound=type)
T = TypeVar("T")

# Larger amounts of money or tokens in a vendor's reply are nonsense. JSON parsers also return infinity for 1e999.
MAX_AMOUNT = 1e15


def strict_init(cls: C) -> C:
    """Make an attrs class raise ``UnknownOption``, with the nearest known name, for an unknown keyword.

    Goes above ``@attrs.frozen``.
    """
    # Python's own TypeError names the unknown keyword, but not the one that was meant.
    init: Callable[..., None] = cls.__init__  # type: ignore[misc]
    known = tuple(field.alias or field.name for field in attrs.fields(cls) if field.init)

    @wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        try:
            init(self, *args, **kwargs)
        except TypeError:
            for name in kwargs:
                if name not in known:
                    raise UnknownOption(f"{cls.__name__} takes no {name!r}{near(name, known)}") from None
            raise  # a missing keyword is reported in Python's own words

    cls.__init__ = __init__  # type: ignore[misc]
    return cls


def copy_with(instance: T, **changes: Any) -> T:
    """Return a copy of an attrs instance with fields changed, without running converters and validators.

    For values that are known to be valid. ``attrs.evolve`` does the same, with the checks.
    """
    # A quarter of the time of attrs.evolve. Each call to a model makes several copies. The classes that are
    # copied there have no slots, because a dict is copied at once.
    kind: Any = type(instance)
    if not _has_slots(kind):
        copied: T = object.__new__(kind)
        copied.__dict__.update(instance.__dict__, **changes)
        if len(copied.__dict__) == len(_fields(kind)):
            return copied
    # The slow way also refuses unknown names, and leaves out values that a property has cached.
    return attrs.evolve(instance, **changes)  # type: ignore[misc]


@cache
def _has_slots(cls: type) -> bool:
    """Return True if some fields of the class are not in the ``__dict__`` of its instances."""
    return any(vars(base).get("__slots__") for base in cls.__mro__)


def from_table(name: str, cls: Callable[..., T], table: Mapping[str, Any]) -> T:
    """Return an instance of a class of this package, made of a table in a configuration file.

    Args:
        name: the name of the table.
        cls: the class.
        table: its arguments.

    Raises:
        InvalidOption, UnknownOption: an entry is wrong; the message names it as the file does, as in ``budget.usd``.
    """
    try:
        return cls(**table)
    except (InvalidOption, UnknownOption) as error:
        own = getattr(cls, "__name__", "")
        message = error.message
        if message.startswith((f"{own}.", f"{own} ")):  # "Budget.usd: ...", "Budget takes no ..."
            message = f"{name}{message.removeprefix(own)}"
        else:
            message = f"{name}: {message}"
        raise error._reword(message) from None


def as_instance(name: str, cls: type[T], value: T | Mapping[str, Any]) -> T:
    """Return an instance as it is, and make one of the table that a configuration file has under a name.

    Raises:
        InvalidOption, UnknownOption: an entry is wrong, or the value is neither; the message names it.
    """
    if isinstance(value, cls):
        return value
    if isinstance(value, Mapping):
        return from_table(name, cls, value)
    raise InvalidOption(f"{name}: expected {cls.__name__}, got {value!r:.80}")


# Secrets


_SCALARS = frozenset((bool, int, float, type(None)))


def mask_secrets(value: T) -> T:
    """Return a copy in which ``***`` replaces every live secret; the same instance if it holds none."""
    secrets = live()
    if not secrets or not _contains(value, secrets):
        return value
    masked: T = _masked(value, secrets)
    return masked


def _contains(value: Any, secrets: list[str]) -> bool:
    """Return True if a text anywhere inside the value contains a secret."""
    kind: Any = type(value)
    if kind is str:
        return any(secret in value for secret in secrets)
    if value is None or kind in (bool, int, float):
        return False
    items: Iterable[Any] = ()
    if kind is dict:
        items = (*value, *value.values())
    elif kind in (list, tuple):
        if _SCALARS.issuperset(map(type, value)):  # a long list of numbers, in a tenth of the time
            return False
        items = value
    elif names := _fields(kind):
        items = [getattr(value, name) for name in names]
    return any(_contains(item, secrets) for item in items)


def _masked(value: Any, secrets: list[str]) -> Any:
    kind: Any = type(value)
    if kind is str:
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value
    if kind is dict:
        return {_masked(name, secrets): _masked(item, secrets) for name, item in value.items()}
    if kind in (list, tuple):
        return kind(_masked(item, secrets) for item in value)
    if names := _fields(kind):
        return copy_with(value, **{name: _masked(getattr(value, name), secrets) for name in names})
    return value


@cache
def _fields(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(kind)) if attrs.has(kind) else ()


# Converters


def as_tuple(value: Iterable[Any] | None) -> tuple[Any, ...]:
    """Convert any iterable except a string to a tuple; None becomes the empty tuple."""
    if value is None:
        return ()
    if isinstance(value, tuple):
        return value
    # A string is an iterable of characters, which is never what the caller meant.
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidOption(f"expected a sequence, got {value!r:.80}; put it in a list")
    return tuple(value)


def as_dict(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Copy a mapping to a new dict; None becomes the empty dict."""
    if type(value) is dict:
        return value.copy()
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidOption(f"expected a mapping, got {value!r:.80}")
    return dict(value)


# Validators


def must_be(expected: str, is_valid: Callable[[Any], bool]) -> Callable[[Any, Any, Any], None]:
    """Build an attrs validator.

    Args:
        expected: what the value must be, for the error message, such as ``"a number above 0"``.
        is_valid: returns True for a valid value.

    Returns:
        A validator that raises ``InvalidOption`` with class, field, expectation and value.
    """

    def validate(instance: object, attribute: Any, value: Any) -> None:
        if not is_valid(value):
            raise InvalidOption(f"{type(instance).__name__}.{attribute.name}: {expected}, got {value!r:.80}")

    return validate


def is_number(value: Any) -> bool:
    """Return True for a finite int or float; bool does not count."""
    # An int beyond the range of floats does not count either: arithmetic with floats, and `math.isfinite`, would raise.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_int(value: Any) -> bool:
    """Return True for an int; bool does not count."""
    return isinstance(value, int) and not isinstance(value, bool)


optional: Callable[[Any], Callable[[Any, Any, Any], Any]] = attrs.validators.optional
positive = must_be("a number above 0", lambda v: is_number(v) and v > 0)
non_negative = must_be("a number of 0 or more", lambda v: is_number(v) and v >= 0)
positive_int = must_be("a whole number of 1 or more", lambda v: is_int(v) and v >= 1)
non_negative_int = must_be("a whole number of 0 or more", lambda v: is_int(v) and v >= 0)
fraction = must_be("a number from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1)
string = must_be("text", lambda v: isinstance(v, str))
boolean = must_be("true or false", lambda v: isinstance(v, bool))


_PROVIDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


def provider_name(value: Any) -> str:
    """Return the name of a provider, a class or an instance, if a seat can be written with it: ``NAME/MODEL:COUNT``.

    Raises:
        InvalidOption: it is no such name.
    """
    if type(value) is not str or not _PROVIDER_NAME.fullmatch(value):
        raise InvalidOption(
            "a provider's name has letters, digits, '-', '_' and '.', at most 64, and begins with a letter or a digit,"
            f" got {value!r:.80}"
        )
    return value


def tokens(value: Any) -> int | None:
    """Return a vendor's token count as an int; None for anything that is not a count. Some vendors send floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if is_int(value) and 0 <= value < MAX_AMOUNT else None
