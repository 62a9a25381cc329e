"""Plain values."""

from __future__ import annotations

from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

texts = st.text(max_size=40)
words = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,15}", fullmatch=True)
seconds = st.floats(min_value=0, max_value=1e6)
counts = st.integers(min_value=0, max_value=10**9)
finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


def maybe(strategy: SearchStrategy[T]) -> SearchStrategy[T | None]:
    """Return the strategy's values, or None."""
    return st.none() | strategy


def json_values(*, leaves: int = 8) -> SearchStrategy[Any]:
    """Return any value that JSON carries."""
    atoms = st.none() | st.booleans() | st.integers(min_value=-(2**60), max_value=2**60) | finite | texts
    return st.recursive(
        atoms, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=leaves
    )


def json_objects() -> SearchStrategy[dict[str, Any]]:
    """Return any JSON object."""
    return st.dictionaries(texts, json_values(leaves=4), max_size=3)


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
