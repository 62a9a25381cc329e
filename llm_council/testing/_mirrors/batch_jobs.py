"""The vendors' half of batch jobs: read the calls that were sent, and write lines of results.

The documentation is named in ``providers/_openai/batch_jobs.py`` and its like.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.parser import BytesParser
from typing import Any

from llm_council._wire.payloads import get_object, loads, malformed, need_list, need_object
from llm_council.errors import MalformedReply

__all__ = [
    "anthropic_given_up",
    "anthropic_refused",
    "anthropic_succeeded",
    "decode_anthropic",
    "decode_gemini",
    "decode_mistral",
    "decode_openai",
    "gemini_refused",
    "gemini_succeeded",
    "openai_given_up",
    "openai_refused",
    "openai_succeeded",
    "read_form",
]

Calls = dict[str, tuple[str, dict[str, Any]]]
"""The path and the JSON of each call by its ``custom_id``, in the order in which they were sent."""


def read_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the fields of an uploaded form by name.

    Raises:
        MalformedReply: the body is no such form.
    """
    message = BytesParser().parsebytes(b"Content-Type: %b\r\n\r\n%b" % (content_type.encode(), body))
    if not message.is_multipart():
        raise MalformedReply("expected a form", path="$")
    fields: dict[str, bytes] = {}
    for part in message.get_payload():
        name = part.get_param("name", header="content-disposition")  # type: ignore[union-attr]
        data = part.get_payload(decode=True)  # type: ignore[union-attr]
        if isinstance(name, str) and isinstance(data, bytes):
            fields[name] = data
    return fields


def decode_openai(data: bytes) -> Calls:
    """Read OpenAI's file of calls.

    Raises:
        MalformedReply: a line is none of this vendor, or an id stands twice.
    """
    calls: Calls = {}
    for line in _lines(data):
        if line.get("method") != "POST" or not isinstance(line.get("url"), str):
            raise malformed("$.url", "the path of a POST", line.get("url"))
        _add(calls, line.get("custom_id"), line["url"], line.get("body"))
    return calls


def decode_mistral(data: bytes, endpoint: str) -> Calls:
    """Read Mistral's file of calls, for one endpoint."""
    calls: Calls = {}
    for line in _lines(data):
        _add(calls, line.get("custom_id"), endpoint, line.get("body"))
    return calls


def decode_anthropic(value: Any) -> Calls:
    """Read the body that creates one of Anthropic's message batches."""
    calls: Calls = {}
    for item in need_list(need_object(value, "$").get("requests"), "$.requests"):
        call = need_object(item, "$.requests")
        _add(calls, call.get("custom_id"), "/v1/messages", call.get("params"))
    return calls


def decode_gemini(data: bytes, model: str) -> Calls:
    """Read Gemini's file of calls, for one model such as ``"models/gemini-3-pro"``."""
    calls: Calls = {}
    for line in _lines(data):
        _add(calls, line.get("key"), f"/{model}:generateContent", line.get("request"))
    return calls


def _lines(data: bytes) -> list[dict[str, Any]]:
    # Not ``splitlines`` of bytes: vendors read text, in which more characters end a line.
    return [need_object(loads(line), "$") for line in data.decode().splitlines() if line.strip()]


def _add(calls: Calls, custom: Any, path: str, body: Any) -> None:
    if not isinstance(custom, str) or not custom or len(custom) > 64:
        raise malformed("$.custom_id", "a string of at most 64 characters", custom)
    if custom in calls:
        raise MalformedReply(f"the id {custom!r} stands twice", path="$.custom_id")
    calls[custom] = path, need_object(body, "$.body")


def openai_succeeded(custom: str, body: Any, request_id: str | None = None) -> dict[str, Any]:
    """Return a line of answers of OpenAI or Mistral."""
    response = {"status_code": 200, "request_id": request_id or "req-batch", "body": body}
    return {"id": f"batch_req_{custom}", "custom_id": custom, "response": response, "error": None}


def openai_refused(custom: str, status: int, body: Any) -> dict[str, Any]:
    """Return the line of a call that was refused, as a direct one would have been."""
    response = {"status_code": status, "request_id": "req-refused", "body": body}
    return {"id": f"batch_req_{custom}", "custom_id": custom, "response": response, "error": None}


def openai_given_up(custom: str, reason: str) -> dict[str, Any]:
    """Return the line of a call in an ``"expired"`` or ``"cancelled"`` job."""
    words = {
        "expired": "This request could not be executed before the completion window expired.",
        "cancelled": "This request was not executed because the batch was cancelled.",
    }
    error = {"code": f"batch_{reason}", "message": words[reason]}
    return {"id": f"batch_req_{custom}", "custom_id": custom, "response": None, "error": error}


def anthropic_succeeded(custom: str, message: Any) -> dict[str, Any]:
    """Return the line of an answer."""
    return {"custom_id": custom, "result": {"type": "succeeded", "message": message}}


def anthropic_refused(custom: str, error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of a call that was refused."""
    return {"custom_id": custom, "result": {"type": "errored", "error": {"request_id": None, **error}}}


def anthropic_given_up(custom: str, reason: str) -> dict[str, Any]:
    """Return the line of a call in an ``"expired"`` or ``"cancelled"`` batch."""
    return {"custom_id": custom, "result": {"type": "canceled" if reason == "cancelled" else reason}}


def gemini_succeeded(custom: str, response: Any) -> dict[str, Any]:
    """Return the line of an answer."""
    return {"key": custom, "response": response}


def gemini_refused(custom: str, error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of a call that was refused, from the body of a direct refusal."""
    return {"key": custom, "error": dict(get_object(error, "error"))}
