"""The lines of files that hold one record each: JSON Lines, tables with a header, Parquet. Each line has its number.

A line that cannot be read is a line with a problem: the caller decides whether the others count.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

import attrs

from llm_council.models._lenient_json import STRICT

__all__ = ["MAX_LINE", "Line", "json_lines", "parse_json", "table_lines"]

MAX_LINE: Final = 4 * 1024 * 1024
"""Bytes of a line of JSON."""


@attrs.frozen
class Line:
    """One record of a file.

    Attributes:
        number: number of its first line in the file, from 1; in Parquet that of the row.
        value: the record: a JSON value, or the cells of a table by the names of their columns.
        problem: why it cannot be read, with the remedy; None if it can.
    """

    number: int
    value: Any = None
    problem: str | None = None


def json_lines(file: BinaryIO) -> Iterator[Line]:
    """Yield the values of a file of JSON Lines. Blank lines are left out; a byte order mark is skipped.

    Args:
        file: opened for bytes. No more than ``MAX_LINE`` bytes of it are in memory.
    """
    for number, line in enumerate(_bounded_lines(file), 1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not text.strip():
            continue
        try:
            yield Line(number, parse_json(text))
        except ValueError as error:
            yield Line(number, problem=str(error))


def _bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines without their ends; of one that is too long, a beginning that is too long as well."""
    while line := file.readline(MAX_LINE + 2):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE)
        yield line.removesuffix(b"\n")


def parse_json(line: bytes) -> Any:
    """Return the JSON value of a line.

    Raises:
        ValueError: it holds none; the message says where, and names the remedy.
    """
    if len(line) > MAX_LINE:
        raise ValueError(f"more than {MAX_LINE:,} bytes: shorten the task")
    try:
        return STRICT.decode(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8: save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.colno}"
        raise ValueError(f"not JSON: {reason}: write one JSON object on one line") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}: write one JSON object on one line") from None
    except RecursionError:
        raise ValueError("nested too deeply: write a flat object") from None


def table_lines(text: Iterable[str], delimiter: str) -> tuple[list[str], Iterator[Line]]:
    """Return the names of the columns, and the rows below them: cells by name, as text. Blank rows are left out.

    Args:
        text: the lines of the table with their ends.
        delimiter: the character between cells.

    Returns:
        No names for an empty table. Empty cells, and columns without a name, are left out of the rows.
    """
    rows = _rows(text, delimiter)
    for line in rows:
        if line.problem is not None:
            raise ValueError(f"line {line.number}: {line.problem}")
        names = [cell.strip() for cell in line.value]
        return names, _named(rows, names)
    return [], iter(())


def _rows(text: Iterable[str], delimiter: str) -> Iterator[Line]:
    """Yield the rows of a table with the numbers of their first lines."""
    rows = csv.reader(text, delimiter=delimiter, strict=True)
    begin = 1
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Line(begin, problem=f"it is no row of a table: {error}: check the quotes")
        else:
            if any(cell.strip() for cell in row):
                yield Line(begin, row)
        begin = rows.line_num + 1


def _named(rows: Iterable[Line], names: list[str]) -> Iterator[Line]:
    for line in rows:
        if line.problem is not None:
            yield line
            continue
        row: list[str] = line.value
        if len(row) != len(names):
            problem = f"{len(row)} cells for {len(names)} columns: put quotes around cells with commas"
            yield Line(line.number, problem=problem)
        elif any("\udc80" <= character <= "\udcff" for cell in row for character in cell):
            yield Line(line.number, problem="it is not UTF-8: save the file as UTF-8")
        else:
            cells = zip(names, row, strict=True)
            yield Line(line.number, {name: cell for name, cell in cells if name and cell.strip()})
