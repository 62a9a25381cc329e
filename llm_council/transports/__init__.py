"""Transports: send HTTP requests and run programs. The only package that imports an HTTP library.

Names are loaded on first use, so that a program without a ``RequestsTransport`` does not import requests. Importing the
package filters the log records of HTTP libraries: at DEBUG these contain whole headers, and those of vendors' SDKs
whole prompts.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names
from llm_council.errors._secrets import MASK, redact

if TYPE_CHECKING:
    from llm_council.transports._base import HttpReply, HttpRequest, ReplyStream, Transport
    from llm_council.transports._client import AsyncClient, new_client
    from llm_council.transports._httpx import HttpxTransport, as_transport
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
        "_httpx": ["HttpxTransport", "as_transport"],
        "_requests": ["RequestsTransport"],
        "_translate": ["api_error", "translate"],
    },
)

# A filter of a logger does not apply to its children, so each logger that HTTP libraries write to is named.
_HTTPCORE_LOGGERS = ("connection", "http11", "http2", "proxy", "socks")
_LOGGERS = (
    *(f"{library}.{name}" for library in ("httpcore", "httpcore2") for name in _HTTPCORE_LOGGERS),
    "httpx",
    "httpx2",
    "urllib3.connectionpool",
    "aiohttp.client",
    "anthropic._base_client",
)


def _redact_record(record: logging.LogRecord) -> bool:
    if isinstance(record.args, dict) and "json_data" in record.args:  # the prompt, logged by the SDK of Anthropic
        record.args = ({**record.args, "json_data": MASK},)
    record.msg, record.args = redact(record.getMessage()), ()
    return True


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_redact_record)
