"""Measured accuracy of seats, and the weights that follow. ``council eval --weights`` writes such files.

A file is TOML: for each seat its provider and model, and for each kind of answer the share of right answers, the number
of tasks behind it, and how many answers a task had::

    [seats.ann]
    provider = "openai"
    model = "gpt-5-mini"             # left out: the provider's default

    [seats.ann.kinds.number]         # choice, number, bool, json or text
    accuracy = 0.8312
    tasks = 120
    options = 4.0                    # left out: 2

Weights hold for the models and the kind of answer that were measured, and for nothing else.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from math import log
from os import PathLike
from pathlib import Path
from typing import Any

import attrs

from llm_council.errors import InvalidOption, near
from llm_council.models import AnswerKind, SeatSpec
from llm_council.models._attrs import as_dict, is_number, must_be, optional, positive_int, strict_init, string

__all__ = [
    "FEWEST_TASKS",
    "KindAccuracy",
    "SeatAccuracy",
    "as_accuracies",
    "as_toml",
    "log_odds_weight",
    "read_accuracies",
    "weights_of",
]

FEWEST_TASKS = 50
"""Tasks below which no weights are given: their error would be larger than what they gain."""

MOST_BYTES = 1 << 20
"""The longest file that is read."""

_share = must_be("a share from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1)
_several = must_be("a number of 2 or more", lambda value: is_number(value) and value >= 2)
_kinds = must_be(
    f"a table for each kind of answer ({', '.join(AnswerKind)})",
    lambda kinds: bool(kinds) and all(kind in set(AnswerKind) for kind in kinds),
)


@strict_init
@attrs.frozen(kw_only=True)
class KindAccuracy:
    """How often a seat is right where answers are of one kind.

    Attributes:
        accuracy: share of right answers, from 0 to 1. ``council eval`` shrinks it towards the mean of all seats,
            because few tasks give an uncertain estimate.
        tasks: number of tasks behind it.
        options: mean number of possible answers of a task, 2 or more.
    """

    accuracy: float = attrs.field(validator=_share)
    tasks: int = attrs.field(validator=positive_int)
    options: float = attrs.field(default=2.0, validator=_several)


@strict_init
@attrs.frozen(kw_only=True)
class SeatAccuracy:
    """The measured accuracy of a seat.

    Attributes:
        provider: the provider's name.
        model: the model that was asked for; None is the provider's default.
        kinds: accuracy by kind of answer.
    """

    provider: str = attrs.field(validator=string)
    model: str | None = attrs.field(default=None, validator=optional(string))
    kinds: Mapping[str, KindAccuracy] = attrs.field(converter=as_dict, validator=_kinds)

    @property
    def seat(self) -> str:
        """Provider and model, for people."""
        return self.provider if self.model is None else f"{self.provider}/{self.model}"


def as_accuracies(seats: Mapping[str, Any]) -> dict[str, SeatAccuracy]:
    """Return the table ``seats`` of a file as data types.

    Raises:
        InvalidOption: a value is missing or wrong; the message names it.
    """
    found = {}
    for name, table in seats.items():
        try:
            given = dict(table)
            kinds = {kind: KindAccuracy(**entry) for kind, entry in dict(given.pop("kinds", {})).items()}
            found[name] = SeatAccuracy(**given, kinds=kinds)
        except (InvalidOption, TypeError, ValueError) as error:
            reason = getattr(error, "message", None) or str(error)
            raise InvalidOption(f"seats.{name}: {reason}") from None
    return found


def read_accuracies(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the table ``seats`` of a file as plain values, after a check.

    Raises:
        InvalidOption: the file cannot be read, or holds something else; the message names it.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise InvalidOption(f"{path}: longer than {MOST_BYTES} bytes: this is no file of weights")
        seats = tomllib.loads(text.decode()).get("seats")
    except OSError as error:
        raise InvalidOption(f"cannot read the weights in {path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidOption(f"{path} is no TOML: {error}") from None
    if not isinstance(seats, dict) or not all(isinstance(table, dict) for table in seats.values()) or not seats:
        raise InvalidOption(f"{path} has no table [seats.NAME]: write it with council eval --weights")
    try:
        as_accuracies(seats)
    except InvalidOption as error:
        raise InvalidOption(f"{path}: {error.message}") from None
    return seats


def as_toml(seats: Mapping[str, SeatAccuracy], *, title: str = "") -> str:
    """Return a file that ``read_accuracies`` reads.

    Args:
        seats: accuracy by name of the seat.
        title: what was measured, for the comment on the first line.
    """
    about = " ".join(f"# Accuracy of seats, from which a vote takes their weights. {title}".split())
    lines = [about, "# It holds for these models, and for tasks like these: measure again when a model changes."]
    for name, seat in seats.items():
        lines += ["", f"[seats.{_word(name)}]", f"provider = {_word(seat.provider)}"]
        lines += [] if seat.model is None else [f"model = {_word(seat.model)}"]
        for kind, measured in seat.kinds.items():
            lines += [
                "",
                f"[seats.{_word(name)}.kinds.{kind}]",
                f"accuracy = {measured.accuracy:.4f}",
                f"tasks = {measured.tasks}",
                f"options = {measured.options:.3f}",
            ]
    return "\n".join(lines) + "\n"


def _word(text: str) -> str:
    """Return a TOML basic string: a JSON string with other characters than ASCII as they are, and DEL escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def log_odds_weight(accuracy: float, options: float = 2) -> float:
    """Return the best weight of a seat, log((K - 1) p / (1 - p)), and 0 for one that is no better than chance.

    Source: Nitzan and Paroush 1982, "Optimal decision rules in uncertain dichotomous choice situations"; for K options
    with equally likely wrong ones: arXiv 2510.01499.

    Args:
        accuracy: p, share of right answers, above 0 and below 1.
        options: K, how many answers are possible.
    """
    return max(0.0, log((options - 1) * accuracy / (1 - accuracy)))


def weights_of(
    measured: Mapping[str, SeatAccuracy], seats: Sequence[SeatSpec], kind: AnswerKind, options: int | None = None
) -> dict[str, float]:
    """Return the weight of each seat in a vote on answers of a kind.

    Args:
        measured: accuracy by name of the seat.
        seats: the seats that vote. A seat of another name takes the accuracy of its provider and model, if that is one.
        kind: what answers are compared as.
        options: how many answers are possible; None takes the number that was measured.

    Raises:
        InvalidOption: a seat was not measured, or on fewer than ``FEWEST_TASKS`` tasks, or with another model; or no
            seat is better than chance. Wrong weights would be worse than none.
    """
    weights = {}
    for seat in seats:
        row = _row_of(measured, seat)
        found = row.kinds.get(kind)
        if found is None:
            raise InvalidOption(
                f"weights: {seat.name} was measured on answers of the kind {' and '.join(row.kinds)}, and this vote is"
                f" on {kind}: measure it on such tasks with council eval, or leave weights out"
            )
        if found.tasks < FEWEST_TASKS:
            raise InvalidOption(
                f"weights: {seat.name} was measured on {found.tasks} tasks, and weights need {FEWEST_TASKS}: measure it"
                " on more with council eval, or leave weights out"
            )
        # A seat that was always right, or never, would have an infinite weight.
        accuracy = min(max(found.accuracy, 0.5 / found.tasks), 1 - 0.5 / found.tasks)
        weights[seat.name] = log_odds_weight(accuracy, options or found.options)
    if not any(weights.values()):
        raise InvalidOption("weights: no seat is better than chance on such answers: leave weights out")
    return weights


def _row_of(measured: Mapping[str, SeatAccuracy], seat: SeatSpec) -> SeatAccuracy:
    """Return the accuracy of a seat, found by its name, or by its provider and model."""
    same = [row for row in measured.values() if (row.provider, row.model) == (seat.provider, seat.model)]
    row = measured.get(seat.name)
    if row is None and len({id(one) for one in same}) == 1:
        return same[0]
    if row is None:
        raise InvalidOption(
            f"weights: the accuracy of {seat.name!r} was not measured: measure it with council eval, or leave weights"
            f" out{near(seat.name, measured)}"
        )
    now = seat.provider if seat.model is None else f"{seat.provider}/{seat.model}"
    if row.seat != now:
        raise InvalidOption(
            f"weights: {seat.name} was measured as {row.seat}, and is {now} now: measure it again with council eval, or"
            " leave weights out"
        )
    return row
