"""Plain values.

Functions that return strategies are cached here and in the other modules: to make and check a strategy costs more than
to draw from it.
"""

from __future__ import annotations

import string
from functools import cache
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

texts = st.text(max_size=40)
# Not from a regular expression, which draws each character by itself.
words = st.builds(
    str.__add__,
    st.sampled_from(string.ascii_letters),
    st.text(string.ascii_letters + string.digits + "_-", max_size=15),
)
seconds = st.floats(min_value=0, max_value=1e6)
counts = st.integers(min_value=0, max_value=10**9)
finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


def maybe(strategy: SearchStrategy[T]) -> SearchStrategy[T | None]:
    """Return the strategy's values, or None."""
    return st.none() | strategy


_atoms = st.none() | st.booleans() | st.integers(min_value=-(2**60), max_value=2**60) | finite | texts


@cache
def json_values(*, leaves: int = 8) -> SearchStrategy[Any]:
    """Return any value that JSON carries."""
    return st.recursive(
        _atoms, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=leaves
    )


# Of up to two levels, for the many fields that hold JSON: deeper values would cost most of each draw.
flat_json = _atoms | st.lists(_atoms, max_size=2) | st.dictionaries(texts, _atoms, max_size=2)


@cache
def json_objects() -> SearchStrategy[dict[str, Any]]:
    """Return JSON objects of up to three levels."""
    return st.dictionaries(texts, flat_json, max_size=3)


@cache
def schemas() -> SearchStrategy[dict[str, Any]]:
    """Return small JSON Schemas of objects."""
    kinds = st.sampled_from([{"type": kind} for kind in ("string", "integer", "boolean", "null")])
    return st.dictionaries(words, kinds, max_size=3).map(
        lambda properties: {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    )
