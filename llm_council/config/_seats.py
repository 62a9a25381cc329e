"""A seat with a persona: a provider, and how it is to think."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from llm_council.errors import InvalidOption, UnknownOption
from llm_council.models._attrs import from_table, must_be, non_negative, optional, strict_init

if TYPE_CHECKING:
    from llm_council.providers.base import ProviderAdapter

    Place: TypeAlias = str | ProviderAdapter | type[ProviderAdapter]
else:
    Place = Any  # reading the configuration must not load what adapters need

__all__ = ["Seat", "as_seats"]

# What ``-p PROVIDER/MODEL@NAME`` and ``--chair NAME`` can hold.
_NAME = re.compile(r"[^\W_][\w.\-]{0,63}")

_name = must_be(
    "at most 64 letters, digits, '-', '_' and '.', the first a letter or a digit",
    lambda value: isinstance(value, str) and _NAME.fullmatch(value) is not None,
)
_text = must_be("text that is not empty", lambda value: isinstance(value, str) and bool(value.strip()))


@strict_init
@attrs.frozen
class Seat:
    """A seat with a name, instructions or a temperature of its own. It stands wherever a provider's name does.

    The instructions are part of this seat's system turn in every phase. No other seat is shown them.

    Attributes:
        provider: ``"name"``, ``"name/model"`` or ``"name:count"``, an adapter instance or a class.
        name: the seat's name in the council; None takes the provider's. Several seats of one name are numbered:
            ``sceptic``, ``sceptic-2``.
        instructions: who this seat is, or what it is to look for; None adds nothing.
        temperature: sampling temperature of this seat, 0 or more, which precedes that of the run; None takes the
            run's.
    """

    provider: Place
    name: str | None = attrs.field(default=None, kw_only=True, validator=optional(_name))
    instructions: str | None = attrs.field(default=None, kw_only=True, validator=optional(_text))
    temperature: float | None = attrs.field(default=None, kw_only=True, validator=optional(non_negative))


def as_seats(rows: Any) -> tuple[Seat, ...]:
    """Return the seats of a configuration: each a ``Seat``, or a row of ``[[seats]]``.

    Raises:
        InvalidOption, UnknownOption: a row is wrong, or two have one name; the message names the row.
    """
    if rows is None:
        return ()
    if isinstance(rows, str) or not isinstance(rows, list | tuple):
        raise InvalidOption("seats must be a list of tables: write [[seats]] above each")
    seats = tuple(_as_seat(f"[[seats]] {number}", row) for number, row in enumerate(rows, 1))
    names = [seat.name for seat in seats if seat.name is not None]
    for name in names:
        if names.count(name) > 1:
            raise InvalidOption(f"[[seats]]: two seats are named {name!r}: give each a name of its own")
    return seats


def _as_seat(place: str, row: Any) -> Seat:
    if isinstance(row, Seat):
        seat = row
    elif isinstance(row, dict):
        if "provider" not in row:
            raise InvalidOption(f'{place} needs provider = "...", as NAME or NAME/MODEL')
        try:
            seat = from_table(place, Seat, row)
        except UnknownOption as error:
            raise error._reword(f"{error.message}; a seat has provider, name, instructions and temperature") from None
    else:
        raise InvalidOption(f"{place} must be a table, got {row!r:.80}")
    if not isinstance(seat.provider, str) or not seat.provider.strip():
        raise InvalidOption(
            f"{place} provider: expected the name of a provider, got {seat.provider!r:.80}; an adapter instance goes to"
            " Council(providers=[Seat(...)])"
        )
    return seat
