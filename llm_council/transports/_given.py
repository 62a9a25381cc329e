"""What users hand over as a transport: ours, or the client of theirs that is wrapped into one of ours."""

from __future__ import annotations

from typing import Any

import httpx

from llm_council.errors import InvalidOption
from llm_council.transports._base import Transport
from llm_council.transports._httpx import HttpxTransport

__all__ = ["as_transport"]


def as_transport(value: Any) -> Transport:
    """Return the transport that a value is, or stands for.

    Args:
        value: a ``Transport``, an ``httpx.AsyncClient``, an httpx transport such as ``httpx.MockTransport``, or a
            ``requests.Session``.

    Raises:
        InvalidOption: it is none of these.
    """
    if isinstance(value, httpx.AsyncClient):
        return HttpxTransport(value)
    if isinstance(value, httpx.AsyncBaseTransport):
        return HttpxTransport(transport=value)
    if any(f"{cls.__module__}.{cls.__name__}" == "requests.sessions.Session" for cls in type(value).__mro__):
        from llm_council.transports._requests import RequestsTransport  # requests is not loaded for those without it

        return RequestsTransport(value)
    if isinstance(value, httpx.Client):
        raise InvalidOption("transport: an httpx.Client blocks; pass an httpx.AsyncClient, or a requests.Session")
    if isinstance(value, type) or not all(
        callable(getattr(value, name, None)) for name in ("send", "stream", "aclose")
    ):
        raise InvalidOption(
            f"transport: a Transport, an httpx.AsyncClient, an httpx transport or a requests.Session, got {value!r:.80}"
        )
    transport: Transport = value
    return transport
