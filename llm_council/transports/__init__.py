"""Moving bytes: an HTTP request there, a reply back. The only floor that imports an HTTP library.

Everything here is loaded on first use: a program that never touches ``RequestsTransport`` does not import requests.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llm_council.transports._logs import redact_logs

if TYPE_CHECKING:
    from llm_council.transports._base import HttpReply, HttpRequest, ReplyStream, Transport
    from llm_council.transports._client import AsyncClient, new_client
    from llm_council.transports._given import as_transport
    from llm_council.transports._httpx import HttpxTransport
    from llm_council.transports._requests import RequestsTransport
    from llm_council.transports._translate import api_error, translate

__all__ = [
    "AsyncClient",
    "HttpReply",
    "HttpRequest",
    "HttpxTransport",
    "ReplyStream",
    "RequestsTransport",
    "Transport",
    "api_error",
    "as_transport",
    "new_client",
    "translate",
]

_HOMES = {
    "AsyncClient": "_client",
    "HttpReply": "_base",
    "HttpRequest": "_base",
    "HttpxTransport": "_httpx",
    "ReplyStream": "_base",
    "RequestsTransport": "_requests",
    "Transport": "_base",
    "api_error": "_translate",
    "as_transport": "_given",
    "new_client": "_client",
    "translate": "_translate",
}

redact_logs()


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
