"""Errors of the OpenAI chat dialect, in every shape that its servers send."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import attrs

from llm_council._wire import failures
from llm_council._wire.failures import Rows, TextRow
from llm_council._wire.payloads import loads
from llm_council.errors import ContextTooLong, MalformedReply, ModelNotFound, ProviderError

__all__ = ["TEXTS", "choice_error", "decode_error", "error_inside"]

_WORDS = 300  # characters of an upstream's or a proxy's text in a message

# For servers that send no error codes: vLLM, llama.cpp, Ollama and gateways in front of them.
TEXTS = (
    TextRow(
        ContextTooLong,
        re.compile(
            r"(?i)maximum (?:context|prompt|model) length|context (?:length|window|size) (?:is |was |has been )?exceed"
            r"|(?:exceeds?|(?:longer|greater) than) (?:the )?(?:available |maximum |model'?s )*context"
            r"|model'?s context length is only|context length of only|(?:prompt|input) (?:is )?too long"
            r"|reduce the length of the (?:messages|prompt|input)|`inputs` tokens \+ `max_new_tokens` must be"
        ),
    ),
    TextRow(
        ModelNotFound,
        re.compile(
            r"(?i)\bmodel\b[^\n]{0,300}?(?:not found|does not exist|not a valid model|is not available)"
            r"|not a valid model id|no models? loaded|no endpoints found for"
        ),
    ),
)
ROWS = Rows(texts=TEXTS)


@attrs.frozen(kw_only=True)
class _Refusal:
    """The facts of an error, whatever its shape, before they become an exception."""

    message: str = ""
    codes: tuple[str, ...] = ()  # the most specific first
    status: int | None = None  # as the body names it
    param: str | None = None  # the parameter of the request that is at fault
    generated: str | None = None  # what the model wrote, where that is the fault
    request_id: str | None = None


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    now: float | None = None,
    request_id: str | None = None,
    message: str | None = None,
    delay: float | None = None,
    rows: Rows = ROWS,
) -> ProviderError:
    """Decode the reply to a refused request.

    Args:
        status: the HTTP status, 400 or more.
        headers: the reply's headers, in upper or lower case.
        body: the reply's body; it may be cut.
        now: Unix seconds, see ``failures.retry_after``.
        request_id: the id of the request; None takes the id in the body.
        message: the message, if the vendor writes it in a field of its own.
        delay: seconds to wait that the body asks for.
        rows: the vendor's additions to the shared tables.
    """
    text = failures.text_of(body)
    refusal = _read(_parsed(text), text)
    return failures.error_of(
        refusal.message if message is None else message,
        status=status,
        code=next(iter(refusal.codes), None),
        codes=refusal.codes,
        param=refusal.param,
        headers=failures.lowered(headers),
        rows=rows,
        delay=delay,
        now=now,
        body=text,
        request_id=request_id or refusal.request_id,
        partial=refusal.generated,
    )


def error_inside(
    reply: Mapping[str, Any], *, request_id: str | None = None, partial: str | None = None
) -> ProviderError | None:
    """Return the error at the top of a reply with status 200, or of a stream's event; None if there is none.

    Its code, type or number decides its class.
    """
    if not reply.get("error") and reply.get("object") != "error" and not _is_envelope(reply):
        return None
    return _inside(_read(reply, ""), reply, request_id, partial)


def _is_envelope(reply: Mapping[str, Any]) -> bool:
    """Return True for the flat error of a gateway that refuses a request with status 200."""
    if any(isinstance(reply.get(key), dict | list) for key in ("choices", "output", "message", "response")):
        return False
    if reply.get("success") is False or (isinstance(reply.get("errors"), list) and reply["errors"]):
        return True
    # A message alone proves nothing: an answer may carry one too. A status or an error code must stand beside it.
    if not isinstance(reply.get("message") or reply.get("msg"), str):
        return False
    marks = [reply.get(key) for key in ("code", "status", "statusCode", "type")]
    words = [mark for mark in marks if isinstance(mark, str)]
    return _status_in(*marks) is not None or any(
        "error" in word.lower() or failures.names_failure(word) for word in words
    )


def choice_error(
    choice: Mapping[str, Any], *, request_id: str | None = None, partial: str | None = None
) -> ProviderError | None:
    """Return the error in a choice, or of its finish reason ``"error"``; None if there is none."""
    if choice.get("error"):
        refusal = _read(choice, "")
    elif choice.get("finish_reason") == "error":
        refusal = _Refusal(message="the model's server failed while it answered")
    else:
        return None
    return _inside(refusal, choice, request_id, partial)


def _inside(refusal: _Refusal, where: Mapping[str, Any], request_id: str | None, partial: str | None) -> ProviderError:
    return failures.error_of(
        refusal.message,
        status=refusal.status,
        code=next(iter(refusal.codes), None),
        codes=refusal.codes,
        param=refusal.param,
        rows=ROWS,
        body=json.dumps(where, ensure_ascii=False, default=str)[: failures.MAX_ERROR_BODY],
        request_id=request_id or refusal.request_id,
        partial=partial or refusal.generated,
    )


def _parsed(text: str) -> Any:
    try:
        return loads(text) if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "[", '"') else None
    except MalformedReply:
        return None


def _read(value: Any, text: str) -> _Refusal:
    """Read every known shape: nested, flat, a bare string, FastAPI's ``detail``, plain text."""
    if isinstance(value, list) and value:
        value = value[0]  # Google's compatible endpoint wraps its error in a list
    if isinstance(value, str):
        return _Refusal(message=value)
    if not isinstance(value, dict):
        return _Refusal(message="" if failures.looks_like_html(text) else text[:_WORDS])
    outer_id = value.get("request_id")
    value = _unwrapped(value)
    error = value.get("error")
    if isinstance(error, str):
        # Hugging Face and others send {"error": "...", "error_type": "..."}.
        inner: Mapping[str, Any] = {"message": error, "type": value.get("error_type"), "code": value.get("code")}
    elif isinstance(error, dict):
        inner = error
    else:
        inner = value
    found = inner.get("metadata")
    metadata: Mapping[str, Any] = found if isinstance(found, dict) else {}
    upstream = _upstream(metadata)
    own = [inner.get(key) for key in ("code", "type", "status")]
    upstream_codes = upstream.codes if upstream else ()
    codes = [metadata.get("error_type"), *upstream_codes, *own, *_codes_beside(value, inner, metadata)]
    param, generated = inner.get("param"), inner.get("failed_generation")
    if not isinstance(generated, str) and upstream is not None:
        generated = upstream.generated
    return _Refusal(
        message=_message(inner, metadata, upstream),
        # Some servers write the status as a text into "code": digits are no code.
        codes=tuple(code for code in codes if isinstance(code, str) and code and not code.isdigit()),
        param=param if isinstance(param, str) else None,
        generated=generated if isinstance(generated, str) and generated else None,
        status=_status_in(*(inner.get(key) for key in ("code", "status", "status_code", "statusCode"))),
        request_id=outer_id if isinstance(outer_id, str) else None,
    )


def _codes_beside(value: Mapping[str, Any], inner: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[Any]:
    """Return what stands beside the error's own code and says more, where that code is a number or a broad one."""
    codes: list[Any] = []
    # OpenRouter's error of a moderated prompt has a number as its code (docs, "Errors", "Moderation errors"); Zhipu's
    # has a digit code and this list (docs, "API code").
    if "flagged_input" in metadata or isinstance(value.get("contentFilter"), list):
        codes.append("moderation")
    # Groq: the text that the model wrote instead of JSON or a call (groq.types.shared.ErrorObject).
    if "failed_generation" in inner and inner["failed_generation"] is not None:
        codes.append("failed_generation")
    # Azure OpenAI: "innererror": {"code": "ResponsibleAIPolicyViolation"} (docs, "Content filtering").
    deeper = inner.get("innererror")
    if isinstance(deeper, dict):
        codes.append(deeper.get("code"))
    # Google's compatible address keeps google.rpc.QuotaFailure, whose quotaId names a limit by the day.
    details = inner.get("details")
    for detail in details if isinstance(details, list) else ():
        violations = detail.get("violations") if isinstance(detail, dict) else None
        for violation in violations if isinstance(violations, list) else ():
            quota = violation.get("quotaId") if isinstance(violation, dict) else None
            codes += [quota] if isinstance(quota, str) and "perday" in quota.lower() else []
    return codes


def _unwrapped(value: dict[str, Any]) -> dict[str, Any]:
    """Return an error without the envelopes that gateways put around it."""
    for _ in range(3):
        inner, detail, listed = value.get("error"), value.get("detail"), value.get("errors")
        if isinstance(detail, dict) and "error" in detail:
            value = detail
        elif isinstance(inner, dict) and "message" not in inner and isinstance(inner.get("error"), dict | str):
            value = inner
        elif not inner and isinstance(listed, list) and listed and isinstance(listed[0], dict):
            value = {"error": listed[0]}
    return value


def _upstream(metadata: Mapping[str, Any]) -> _Refusal | None:
    """Read the error of the vendor behind a gateway, which OpenRouter passes on as a string in ``metadata.raw``."""
    raw = metadata.get("raw")
    if not isinstance(raw, str) or not raw.strip():
        return None
    value = _parsed(raw)
    return _read(None if isinstance(value, dict) and "error" not in value and "message" not in value else value, raw)


def _message(inner: Mapping[str, Any], metadata: Mapping[str, Any], upstream: _Refusal | None) -> str:
    message = inner.get("message") or inner.get("msg")
    if isinstance(message, dict) and "detail" in message:
        message = message["detail"]  # Mistral, for a body that fails validation
    if not isinstance(message, str):
        message = _detail(message or inner.get("detail"))
    if upstream is not None and upstream.message and upstream.message not in message:
        name = metadata.get("provider_name")
        message = f"{message}: {f'{name}: ' if isinstance(name, str) else ''}{upstream.message[:_WORDS]}"
    return message


def _detail(detail: Any) -> str:
    if isinstance(detail, str):
        return detail
    if isinstance(detail, dict):
        return str(detail.get("message") or detail.get("msg") or "")
    if not isinstance(detail, list):
        return ""
    reasons = []
    for item in detail[:5]:
        if isinstance(item, dict):
            where = item.get("loc")
            path = ".".join(str(step) for step in where) if isinstance(where, list) else ""
            reasons.append(": ".join(word for word in (path, str(item.get("msg") or "")) if word))
    return "; ".join(reasons)


def _status_in(*values: Any) -> int | None:
    for value in values:
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value[:4])
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return value
    return None
