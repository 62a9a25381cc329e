"""What HTTP libraries log passes the redactor: at DEBUG they write whole headers, and vendors' clients prompts."""

from __future__ import annotations

import logging

from llm_council.errors._secrets import MASK, redact

__all__ = ["redact_logs"]

_PARTS = ("connection", "http11", "http2", "proxy", "socks")
_LOGGERS = tuple(f"{core}.{part}" for core in ("httpcore", "httpcore2") for part in _PARTS)
_OTHERS = ("httpx", "httpx2", "urllib3.connectionpool", "aiohttp.client", "anthropic._base_client")
_BODY = "json_data"


def redact_logs() -> None:
    """Redact every record of the HTTP libraries' loggers; no handler, level or other logger is touched."""
    for name in (*_LOGGERS, *_OTHERS):
        logging.getLogger(name).addFilter(_redacted)  # the same function twice is added once


def _redacted(record: logging.LogRecord) -> bool:
    if isinstance(record.args, dict) and _BODY in record.args:  # a vendor's client writes what it was asked to send
        record.args = ({**record.args, _BODY: MASK},)
    record.msg, record.args = redact(record.getMessage()), ()
    return True
