"""Bounds on time, size, retries and money; their defaults live here."""

from __future__ import annotations

from typing import Any

import attrs

from llm_council.errors import InvalidOption
from llm_council.models._attrs import non_negative, non_negative_int, optional, positive, positive_int, strict_init

__all__ = ["Budget", "Limits", "RetryPolicy", "Timeouts"]

KIB = 1024
MIB = 1024 * KIB


@strict_init
@attrs.frozen(kw_only=True)
class Timeouts:
    """Bounds on single waits, in seconds; None is no bound. The total deadline rules over all of them.

    Attributes:
        connect: for a connection, TLS included.
        read: between two bytes of a whole reply; slow models are legal.
        idle: between two events with content of a stream.
        total: for a whole call when neither the request nor the run says it.
    """

    connect: float | None = attrs.field(default=10.0, validator=optional(positive))
    read: float | None = attrs.field(default=None, validator=optional(positive))
    idle: float | None = attrs.field(default=120.0, validator=optional(positive))
    total: float | None = attrs.field(default=600.0, validator=optional(positive))


@strict_init
@attrs.frozen(kw_only=True)
class Limits:
    """Bounds on sizes, in bytes, counted after decompression.

    Attributes:
        body: a whole reply.
        event: one event of a stream.
        stream: a whole stream.
        error_body: what is kept of an error's body.
        header_block: a reply's headers.
        json_depth: levels of nesting in a reply's JSON.
        peer_text: characters of one peer's text in another seat's prompt.
    """

    body: int = attrs.field(default=16 * MIB, validator=positive_int)
    event: int = attrs.field(default=4 * MIB, validator=positive_int)
    stream: int = attrs.field(default=16 * MIB, validator=positive_int)
    error_body: int = attrs.field(default=64 * KIB, validator=positive_int)
    header_block: int = attrs.field(default=64 * KIB, validator=positive_int)
    json_depth: int = attrs.field(default=200, validator=positive_int)
    peer_text: int = attrs.field(default=24_000, validator=positive_int)


@strict_init
@attrs.frozen(kw_only=True)
class RetryPolicy:
    """When and how long to wait before the same call is made again.

    Attributes:
        max_retries: tries after the first.
        base: seconds of the first wait, doubled each time, with full jitter.
        cap: most seconds of one wait of our own choice.
        max_retry_after: most seconds that a vendor may ask us to wait; a longer wish fails at once.
    """

    max_retries: int = attrs.field(default=2, validator=non_negative_int)
    base: float = attrs.field(default=0.5, validator=non_negative)
    cap: float = attrs.field(default=8.0, validator=non_negative)
    max_retry_after: float = attrs.field(default=60.0, validator=non_negative)


@strict_init
@attrs.frozen(kw_only=True)
class Budget:
    """Bounds on a whole run; each is optional, the tightest wins.

    Attributes:
        deadline: seconds for the run, retries and waiting included.
        quorum: seats that must answer a phase; None stands for 1.
        grace: seconds to wait for stragglers once the quorum is there; None waits for the phase's share of time.
        usd: US dollars.
        tokens: tokens in and out together.
        calls: calls to models.
    """

    deadline: float | None = attrs.field(default=300.0, validator=optional(positive))
    quorum: int | None = attrs.field(default=None, validator=optional(positive_int))
    grace: float | None = attrs.field(default=None, validator=optional(non_negative))
    usd: float | None = attrs.field(default=None, validator=optional(non_negative))
    tokens: int | None = attrs.field(default=None, validator=optional(positive_int))
    calls: int | None = attrs.field(default=None, validator=optional(positive_int))

    def overlaid(self, other: Budget | None) -> Budget:
        """Return this budget with every limit that ``other`` sets otherwise than the default in place of its own.

        Raises:
            InvalidOption: ``other`` is not a budget.
        """
        if other is None:
            return self
        if not isinstance(other, Budget):
            raise InvalidOption(f"budget: expected a Budget, such as Budget(usd=0.5), got {type(other).__name__}")
        default = Budget()
        set_there = {name: value for name, value in _fields(other) if value != getattr(default, name)}
        return attrs.evolve(self, **set_there)

    def tightest(self, other: Budget) -> Budget:
        """Return the budget that keeps both: the smaller limit of each, the larger quorum."""
        kept = {}
        for name, mine in _fields(self):
            known = [value for value in (mine, getattr(other, name)) if value is not None]
            kept[name] = (max if name == "quorum" else min)(known, default=None)
        return Budget(**kept)


def _fields(budget: Budget) -> list[tuple[str, Any]]:
    return [(field.name, getattr(budget, field.name)) for field in attrs.fields(Budget)]
