"""Files of batch jobs in OpenAI's form, which OpenAI and Mistral take: an uploaded form, and lines of results.

Sources: OpenAI API reference, "Files", "Upload file", and "Batch", "The request output object"; Mistral API reference,
"Files" and "Batch", and its SDK (``mistralai.extra.batch``), which reads the same lines.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from llm_council._wire import failures
from llm_council._wire.failures import Rows, code_rows
from llm_council._wire.openai_chat.errors import decode_error
from llm_council._wire.payloads import dumps, get_object, malformed, text_or_none
from llm_council.errors import ProviderError, RateLimited, ServerFailed
from llm_council.providers._http.batch_jobs import ResultLine

__all__ = ["file_form", "job_failure", "read_line"]

# "The number of enqueued tokens has surpassed the configured limit ... try again once the current jobs have finished."
# (Azure's answer; OpenAI's says "Enqueued token limit reached"). A timeout is the model's, not ours (OpenAI API
# reference, "The request output object", ``error.code``).
_ROWS = Rows(codes=code_rows({RateLimited: "token_limit_exceeded", ServerFailed: "request_timeout"}))

_GAVE_UP = {"batch_expired": "expired", "batch_cancelled": "cancelled"}


def file_form(lines: Iterable[bytes], name: str) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a form (RFC 7578) that uploads lines as a file for batch jobs.

    Args:
        lines: JSON without line breaks.
        name: the name of the file, of letters and digits.
    """
    boundary = uuid.uuid4().hex
    parts = (
        b'--%b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n' % boundary.encode(),
        b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b.jsonl"\r\n'
        b"Content-Type: application/jsonl\r\n\r\n" % (boundary.encode(), name.encode()),
        b"\n".join(lines),
        b"\n\r\n--%b--\r\n" % boundary.encode(),
    )
    return b"".join(parts), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def read_line(line: Mapping[str, Any]) -> ResultLine:
    """Read a line of the file of answers, or of that of errors, which has the same form.

    Raises:
        MalformedReply: it is no such line.
    """
    custom = line.get("custom_id")
    if not isinstance(custom, str):
        raise malformed("$.custom_id", "a string", custom)
    error, response = line.get("error"), get_object(line, "response")
    status, body = response.get("status_code"), response.get("body")
    request_id = text_or_none(response.get("request_id"))
    if isinstance(status, int) and 200 <= status < 300 and body is not None:
        return ResultLine(custom_id=custom, body=body, request_id=request_id)
    if isinstance(status, int) and status >= 400:
        headers = {"x-request-id": request_id} if request_id else {}
        return ResultLine(custom_id=custom, error=decode_error(status, headers, dumps(body)))
    if isinstance(error, dict):
        reason = _GAVE_UP.get(str(error.get("code")))
        if reason is not None:
            return ResultLine(custom_id=custom, gave_up=reason)
        return ResultLine(custom_id=custom, error=_failed(error, status=None, request_id=request_id))
    if isinstance(error, str) and error:
        return ResultLine(custom_id=custom, error=_failed({"message": error}, status=None, request_id=request_id))
    # Some lines have status 0 and neither body nor error (OpenAI's developer forum, "status_code 0").
    return ResultLine(custom_id=custom, gave_up="missing")


def job_failure(errors: Iterable[Mapping[str, Any]]) -> ProviderError:
    """Return the error of a call in a job that was refused as a whole, from the first of the job's errors."""
    first = next(iter(errors), {})
    return _failed({"message": "the vendor refused the batch job", **first}, status=400)


def _failed(error: Mapping[str, Any], *, status: int | None, request_id: str | None = None) -> ProviderError:
    line = error.get("line")
    message = text_or_none(error.get("message")) or "the vendor gave no reason"
    return failures.error_of(
        f"{message} (line {line} of the batch job)" if isinstance(line, int) else message,
        status=status,
        code=text_or_none(error.get("code")),
        param=text_or_none(error.get("param")),
        rows=_ROWS,
        body=dumps(dict(error)).decode()[: failures.MAX_ERROR_BODY],
        request_id=request_id,
    )
