"""The rows of a Parquet file, read in pieces by pyarrow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from llm_council.batch.lines import Line
from llm_council.errors import InvalidTaskSet, MissingDependency

__all__ = ["parquet_lines"]

_ROWS: Final = 1_000
"""Rows that are in memory at the same time."""


def parquet_lines(file: Path | BinaryIO, name: str) -> Iterator[Line]:
    """Yield the rows of a Parquet file as JSON values: times and other types become text, NaN becomes None.

    Raises:
        MissingDependency: pyarrow is not installed.
        InvalidTaskSet: it is no Parquet file, or damaged.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MissingDependency(
            f"{name}: Parquet needs pyarrow: pip install 'llm-council-sdk[parquet]', or save the tasks as JSON Lines"
        ) from None
    number = 0
    try:
        with ParquetFile(file) as table:
            names = table.schema_arrow.names
            if not {"task", "input"} & set(names):
                problem = f"it has no column 'task', but {', '.join(names):.200}; name the column of the question so"
                raise InvalidTaskSet(f"{name}: {problem}", path=name, faults=[(0, problem)])
            for batch in table.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Line(number, _plain(row))
    except ArrowException as error:
        problem = f"it cannot be read as Parquet: {error}"
        raise InvalidTaskSet(f"{name}: {problem:.300}", path=name, faults=[(number, problem)]) from None


def _plain(value: Any) -> Any:
    """Return a value of a row as a JSON value."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
