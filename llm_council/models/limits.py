"""Limits on time, size, retries and money, with their defaults."""

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
    """Timeouts of a call in seconds; None means no limit. The run's deadline applies as well.

    Attributes:
        connect: opening a connection, including TLS.
        read: between two bytes of a reply that is not streamed. No limit by default: a model may think for minutes.
        idle: between two events of a stream that carry content; keep-alive events do not count.
        total: the whole call, if neither the request nor the run sets a limit.
    """

    # The SDKs of OpenAI and Anthropic have a default of 600 s in total, too.
    connect: float | None = attrs.field(default=10.0, validator=optional(positive))
    read: float | None = attrs.field(default=None, validator=optional(positive))
    idle: float | None = attrs.field(default=120.0, validator=optional(positive))
    total: float | None = attrs.field(default=600.0, validator=optional(positive))


@strict_init
@attrs.frozen(kw_only=True)
class Limits:
    """Limits on sizes, in bytes unless stated otherwise, counted after decompression.

    Attributes:
        body: a reply that is not streamed; also a file that the caller attaches.
        event: one event of a stream.
        stream: a whole stream.
        error_body: the part of an error reply that is stored in the exception.
        header_block: all headers of a reply.
        json_depth: levels of nesting in the JSON of a reply.
        peer_text: characters of one seat's text in the prompt of another seat.
        history: characters of earlier tasks and answers in the prompts of a follow-up. The oldest tasks are left out;
            the last one never is.
    """

    body: int = attrs.field(default=16 * MIB, validator=positive_int)
    event: int = attrs.field(default=4 * MIB, validator=positive_int)
    stream: int = attrs.field(default=16 * MIB, validator=positive_int)
    error_body: int = attrs.field(default=64 * KIB, validator=positive_int)
    header_block: int = attrs.field(default=64 * KIB, validator=positive_int)
    json_depth: int = attrs.field(default=200, validator=positive_int)
    # About 6000 tokens of English: several drafts have to fit into the context of a model.
    peer_text: int = attrs.field(default=24_000, validator=positive_int)
    # About 25,000 tokens of English, which every seat reads in every phase.
    history: int = attrs.field(default=100_000, validator=positive_int)


@strict_init
@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often a failed call is retried, and how long to wait before each retry.

    Attributes:
        max_retries: attempts after the first.
        base: upper bound of the first wait in seconds; it doubles with each retry. The wait is random below the bound.
        cap: maximum seconds of one wait, unless the vendor asks for more.
        max_retry_after: maximum seconds to wait when the vendor sends ``Retry-After``; if it asks for more, the call
            fails at once. In ``Council.map`` a refused call waits as long as its own time allows, and uses up no retry.
    """

    max_retries: int = attrs.field(default=2, validator=non_negative_int)
    base: float = attrs.field(default=0.5, validator=non_negative)
    cap: float = attrs.field(default=8.0, validator=non_negative)
    max_retry_after: float = attrs.field(default=60.0, validator=non_negative)


@strict_init
@attrs.frozen(kw_only=True, slots=False)
class Budget:
    """Limits on a whole run. Each is optional; None means no limit.

    Attributes:
        deadline: seconds for the run, including retries and waits.
        quorum: number of seats that must answer in a phase; None means 1.
        grace: seconds to wait for the remaining seats once the quorum has answered; None waits until the phase's share
            of the deadline is used.
        usd: US dollars.
        tokens: input and output tokens together.
        calls: calls to models.
    """

    deadline: float | None = attrs.field(default=300.0, validator=optional(positive))
    quorum: int | None = attrs.field(default=None, validator=optional(positive_int))
    grace: float | None = attrs.field(default=None, validator=optional(non_negative))
    usd: float | None = attrs.field(default=None, validator=optional(non_negative))
    tokens: int | None = attrs.field(default=None, validator=optional(positive_int))
    calls: int | None = attrs.field(default=None, validator=optional(positive_int))

    def _has_own_deadline(self) -> bool:
        """Return True if the deadline was given: then it is not the object that is the default."""
        return self.deadline is not attrs.fields(Budget).deadline.default

    def overlaid(self, other: Budget | None) -> Budget:
        """Return this budget, with every limit replaced that differs from the default in ``other``.

        Raises:
            InvalidOption: ``other`` is not a budget.
        """
        if other is None:
            return self
        if not isinstance(other, Budget):
            raise InvalidOption(f"budget: expected a Budget, such as Budget(usd=0.5), got {type(other).__name__}")
        # attrs does not record which arguments were given: a value that equals the default counts as not given.
        default = Budget()
        changes = {name: value for name, value in _fields(other) if value != getattr(default, name)}
        return attrs.evolve(self, **changes)

    def tightest(self, other: Budget) -> Budget:
        """Return a budget that satisfies both: the smaller of each limit, and the larger quorum."""
        limits = {}
        for name, mine in _fields(self):
            known = [value for value in (mine, getattr(other, name)) if value is not None]
            limits[name] = max(known, default=None) if name == "quorum" else min(known, default=None)
        return Budget(**limits)


def _fields(budget: Budget) -> list[tuple[str, Any]]:
    return [(field.name, getattr(budget, field.name)) for field in attrs.fields(Budget)]
