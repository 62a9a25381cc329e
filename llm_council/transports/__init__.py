"""Moving bytes: an HTTP request there, a reply back. The only floor that imports an HTTP library.

Everything here is loaded on first use: a program that never touches ``RequestsTransport`` does not import requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_base": ["HttpReply", "HttpRequest", "ReplyStream", "Transport"],
        "_client": ["AsyncClient", "new_client"],
        "_given": ["as_transport"],
        "_httpx": ["HttpxTransport"],
        "_requests": ["RequestsTransport"],
        "_translate": ["api_error", "translate"],
    },
)

redact_logs()
