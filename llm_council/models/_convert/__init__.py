"""The one converter between our nouns and plain JSON values: for the store, ``--json`` and cassettes.

Primitives are strict, since cattrs by itself turns None into ``'None'`` and ``"no"`` into True. What a type cannot tell
is told by a ``"type"`` key that holds a class's name: parts of turns, events, errors. What leaves is always a typed
error that names the failing path.
"""

from __future__ import annotations

from typing import Any, TypeVar

from llm_council.models._convert._converter import converter, json_value
from llm_council.models._convert._wrong import CAUGHT, explain

__all__ = ["dump", "load"]

T = TypeVar("T")


def dump(noun: Any) -> Any:
    """Return a noun, or a container of nouns, as plain JSON values.

    What a caller put into ``metadata`` or ``extra`` and JSON cannot carry becomes its ``str``. Numbers that are not
    finite become the words ``"inf"``, ``"-inf"`` and ``"nan"``.
    """
    return json_value(noun)


def load(cls: type[T], data: Any) -> T:
    """Return the noun that ``dump`` wrote.

    Args:
        cls: the noun's class; for events and errors their base class will do.
        data: plain JSON values.

    Raises:
        InvalidOption: a value is missing or has the wrong type; the message begins with its path.
        UnknownOption: a key is not known; the message names a near one.
    """
    try:
        return converter.structure(data, cls)
    except CAUGHT as error:
        path, reason, kind = explain(error)
        raise kind(f"{getattr(cls, '__name__', cls)}{path}: {reason}") from None
