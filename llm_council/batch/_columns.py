"""Batches of rows as data engines pass them: read one column, and return the batch with further columns.

A batch is a list of dicts, a dict of columns, a pandas DataFrame, or an Arrow table or record batch. Nothing here
imports pandas or pyarrow: a batch of theirs comes from a program that has done so.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping, Sequence
from copy import copy
from enum import StrEnum
from typing import Any, Protocol

import attrs

from llm_council.errors import InvalidOption, near

__all__ = ["Batch", "Column", "Kind", "check_names", "open_batch"]


class Kind(StrEnum):
    """The type of a column's values; each value may also be missing."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"


@attrs.frozen
class Column:
    """A new column: its name, the kind of its values, and a value for each row."""

    name: str
    kind: Kind
    values: list[Any]


class Batch(Protocol):
    """A batch of rows in any container."""

    @property
    def names(self) -> list[str]:
        """The names of the columns; those of all rows, if rows differ."""
        ...

    def read(self, name: str) -> list[Any]:
        """Return the values of a column, one for each row; the column is there."""
        ...

    def extended(self, columns: Sequence[Column]) -> Any:
        """Return a container of the same type with these columns in addition. The given one stays as it is."""
        ...


@attrs.frozen
class _Rows:
    rows: Sequence[Mapping[str, Any]]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def read(self, name: str) -> list[Any]:
        return [row.get(name) for row in self.rows]

    def extended(self, columns: Sequence[Column]) -> list[dict[str, Any]]:
        added = [{column.name: column.values[number] for column in columns} for number in range(len(self.rows))]
        return [{**row, **more} for row, more in zip(self.rows, added, strict=True)]


@attrs.frozen
class _Columns:
    columns: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    def read(self, name: str) -> list[Any]:
        column = self.columns[name]
        if isinstance(column, str | bytes):
            raise InvalidOption(
                f"the column {name!r} is one text, not the texts of several rows: pass batches, as with map_batches of"
                " Ray or map(..., batched=True) of datasets; a single row goes into a list"
            )
        values = column.tolist() if hasattr(column, "tolist") else list(column)
        if any(len(other) != len(values) for other in self.columns.values()):
            raise InvalidOption("the columns of this batch do not have the same length")
        return values

    def extended(self, columns: Sequence[Column]) -> Mapping[str, Any]:
        numpy = sys.modules.get("numpy")
        is_numpy = numpy is not None and any(isinstance(one, numpy.ndarray) for one in self.columns.values())
        added = {column.name: _array(numpy, column) if is_numpy else column.values for column in columns}
        if not isinstance(self.columns, MutableMapping):
            return {**self.columns, **added}
        extended = copy(self.columns)  # of its own class: datasets finds in its batches what it may leave out
        extended.update(added)
        return extended


def _array(numpy: Any, column: Column) -> Any:
    """Return the column as an array; of Python objects where a value is missing, for numpy has no other place."""
    if column.kind is Kind.NUMBER:
        return numpy.array(column.values, dtype="float64")  # None becomes nan
    plain = {Kind.TEXT: "object", Kind.INTEGER: "int64", Kind.BOOLEAN: "bool"}[column.kind]
    return numpy.array(column.values, dtype="object" if None in column.values else plain)


@attrs.frozen(eq=False)
class _DataFrame:
    frame: Any

    @property
    def names(self) -> list[str]:
        return list(self.frame.columns)

    def read(self, name: str) -> list[Any]:
        values: list[Any] = self.frame[name].tolist()
        return values

    def extended(self, columns: Sequence[Column]) -> Any:
        # Types that hold missing values, so that an empty partition, a failed one and any other have the same.
        types = {Kind.TEXT: "string", Kind.INTEGER: "Int64", Kind.NUMBER: "float64", Kind.BOOLEAN: "boolean"}
        pandas = sys.modules["pandas"]
        added = {
            column.name: pandas.Series(column.values, index=self.frame.index, dtype=types[column.kind])
            for column in columns
        }
        return self.frame.assign(**added)


@attrs.frozen(eq=False)
class _ArrowTable:
    table: Any

    @property
    def names(self) -> list[str]:
        return list(self.table.schema.names)

    def read(self, name: str) -> list[Any]:
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    def extended(self, columns: Sequence[Column]) -> Any:
        arrow: Any = sys.modules["pyarrow"]
        types = {
            Kind.TEXT: arrow.string(),
            Kind.INTEGER: arrow.int64(),
            Kind.NUMBER: arrow.float64(),
            Kind.BOOLEAN: arrow.bool_(),
        }
        schema, arrays = self.table.schema, list(self.table.columns)
        for column in columns:
            schema = schema.append(arrow.field(column.name, types[column.kind]))
            arrays.append(arrow.array(column.values, types[column.kind]))
        return type(self.table).from_arrays(arrays, schema=schema)


def open_batch(given: Any) -> Batch:
    """Return a batch for whatever a data engine passes.

    Raises:
        InvalidOption: it is none of the containers that a batch may be.
    """
    pandas, arrow = sys.modules.get("pandas"), sys.modules.get("pyarrow")
    if pandas is not None and isinstance(given, pandas.DataFrame):
        return _DataFrame(given)
    if arrow is not None and isinstance(given, arrow.Table | arrow.RecordBatch):
        return _ArrowTable(given)
    if isinstance(given, Mapping):
        return _Columns(given)
    if isinstance(given, list | tuple) and all(isinstance(row, Mapping) for row in given):
        return _Rows(given)
    raise InvalidOption(
        f"expected a batch of rows, got {type(given).__name__}: pass a list of dicts, a dict of columns, a pandas"
        " DataFrame, or an Arrow table"
    )


def check_names(batch: Batch, task: str, added: Sequence[str]) -> None:
    """Check that a batch has the column of the tasks, and none of those that are to be added.

    Raises:
        InvalidOption: it does not; the message names the columns that there are, or the remedy.
    """
    names = batch.names
    if not names:  # an empty batch need not have columns
        return
    if task not in names:
        raise InvalidOption(f"the rows have no column {task!r}{near(task, map(str, names))}: they have {names!r:.400}")
    taken = [name for name in added if name in names]
    if taken:
        raise InvalidOption(
            f"the rows already have a column {taken[0]!r}: give the new one another name, as in"
            f' columns={{"council_{taken[0]}": "{taken[0]}"}}'
        )
