"""Values that JSON holds as text: dates, times, durations, decimal numbers and UUIDs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import attrs

__all__ = ["TEXTS", "Text"]

_DURATION = re.compile(
    r"(?P<sign>[+-]?)P(?:(?P<weeks>\d{1,7})W)?(?:(?P<days>\d{1,9})D)?"
    r"(?:T(?:(?P<hours>\d{1,9})H)?(?:(?P<minutes>\d{1,12})M)?(?:(?P<seconds>\d{1,14})(?:\.(?P<fraction>\d{1,6}))?S)?)?"
)


@attrs.frozen(kw_only=True)
class Text:
    """How one type is written as text.

    Attributes:
        schema: the JSON Schema of the text.
        expected: the form of the text, for error messages.
        read: returns the value of a text; raises ValueError.
        write: returns the text of a value.
    """

    schema: Mapping[str, Any]
    expected: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]


def _read_datetime(text: str) -> datetime:
    if not re.match(r"\d{4}-\d\d-\d\d[Tt ]", text):  # a date alone would become midnight
        raise ValueError
    return datetime.fromisoformat(text)


def _read_date(text: str) -> date:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ValueError
    return date.fromisoformat(text)


def _read_time(text: str) -> time:
    if not re.match(r"\d\d:\d\d", text):
        raise ValueError
    return time.fromisoformat(text)


def _read_duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None or text[-1] in "PT":
        raise ValueError
    parts = {name: int(found[name] or 0) for name in ("weeks", "days", "hours", "minutes", "seconds")}
    value = timedelta(**parts, microseconds=int((found["fraction"] or "").ljust(6, "0")))
    return -value if found["sign"] == "-" else value


def _write_duration(value: timedelta) -> str:
    size = abs(value)
    fraction = f".{size.microseconds:06}" if size.microseconds else ""
    return f"{'-' if value < timedelta() else ''}P{size.days}DT{size.seconds}{fraction}S"


def _read_uuid(text: str) -> UUID:
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", text):
        raise ValueError
    return UUID(text)


def _format(name: str) -> Mapping[str, Any]:
    return MappingProxyType({"type": "string", "format": name})


# Text, not a JSON number: a number would be read as a float, and 1.10 and 0.1 + 0.2 would change.
_DECIMAL = MappingProxyType({"type": "string", "pattern": r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"})

TEXTS: Final[Mapping[type, Text]] = MappingProxyType(
    {
        datetime: Text(
            schema=_format("date-time"),
            expected="a date and a time, such as 2026-11-30T12:30:00Z",
            read=_read_datetime,
            write=datetime.isoformat,
        ),
        date: Text(
            schema=_format("date"), expected="a date, such as 2026-11-30", read=_read_date, write=date.isoformat
        ),
        time: Text(schema=_format("time"), expected="a time, such as 12:30:00", read=_read_time, write=time.isoformat),
        timedelta: Text(
            schema=_format("duration"),
            expected="a duration, such as P1DT2H30M",
            read=_read_duration,
            write=_write_duration,
        ),
        Decimal: Text(schema=_DECIMAL, expected="a decimal number in quotes, such as 1.50", read=Decimal, write=str),
        UUID: Text(schema=_format("uuid"), expected="a UUID", read=_read_uuid, write=str),
    }
)
