"""What HTTP libraries log passes the redactor: at DEBUG, httpcore writes whole header blocks."""

from __future__ import annotations

import logging

from llm_council._secrets import redact

__all__ = ["redact_logs"]

_LOGGERS = ("httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks", "httpx")
_OTHERS = ("urllib3.connectionpool", "aiohttp.client")


def redact_logs() -> None:
    """Redact every record of the HTTP libraries' loggers; no handler, level or other logger is touched."""
    for name in (*_LOGGERS, *_OTHERS):
        logging.getLogger(name).addFilter(_redacted)  # the same function twice is added once


def _redacted(record: logging.LogRecord) -> bool:
    record.msg, record.args = redact(record.getMessage()), ()
    return True
