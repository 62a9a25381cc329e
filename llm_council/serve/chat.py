"""The wire of ``/v1/chat/completions``: read a request as a task for a council, and write its result as a reply.

Field names are those of OpenAI's API reference, "Chat", and of the types of the openai SDK, 3.57. Fields that mean
nothing to a council (``seed``, ``user``, ``top_p`` and others) are ignored; those that would change what the client
gets are refused with their names.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from llm_council.errors import (
    Abstained,
    BudgetExceeded,
    ConfigurationError,
    CouncilError,
    DeadlineExceeded,
    InvalidOption,
    QuorumLost,
)
from llm_council.errors._secrets import redact
from llm_council.models import Attachment, Budget, Message, Status
from llm_council.results import CouncilResult

__all__ = [
    "ChatRequest",
    "RequestRefused",
    "answer_text",
    "chunks_end",
    "completion",
    "error_body",
    "first_chunk",
    "lower_limit",
    "names_of",
    "read_chat",
    "refusal_of",
    "word_chunk",
]

# Fields that no council has, with what to do instead.
_REFUSED: Final = {
    "tools": "a council calls no tools: call the council from your tool loop, without tools of its own",
    "functions": "a council calls no functions: leave it out",
    "stop": "a council has no stop sequences: cut the answer yourself",
    "logprobs": "a council has no probabilities of tokens: leave it out",
    "audio": "a council answers in text: leave it out",
    "prediction": "a council takes no predicted output: leave it out",
    "web_search_options": "a council does not search the web: leave it out",
}
_ROLES: Final = ("system", "developer", "user", "assistant")


class RequestRefused(CouncilError):
    """A request that cannot be answered, with the HTTP status and the fields of OpenAI's error object.

    Args:
        message: what is wrong, with the remedy.
        status: the HTTP status.
        param: the field that is wrong; None if it is none.
        code: OpenAI's word for the error; None if there is none.
        kind: OpenAI's ``type`` of the error.
        retry_after: seconds after which it may succeed; None if waiting does not help.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.kind = kind
        self.retry_after = retry_after


@attrs.frozen(kw_only=True)
class ChatRequest:
    """A request as a task for a council.

    Attributes:
        model: the name of the council, as the client wrote it.
        strategy: the strategy that the name stands for; None is the council's own.
        task: the text of the last turn of the user.
        history: the earlier turns of user and assistant.
        context: the system's words; None if there are none.
        files: images, documents and sound of the user's turns.
        schema: JSON Schema of the answer; None is prose.
        stream: the client wants the answer as it is written.
        include_usage: the stream ends with a chunk of usage.
        temperature: the sampling temperature; None leaves it to the configuration.
        max_tokens: most tokens of one answer; None likewise.
        subagent: the role of the run.
        budget: limits that the client sets.
        metadata: the client's ``metadata``.
        wants_council: the reply tells what the council did.
        wants_details: it holds the whole result.
    """

    model: str
    strategy: str | None
    task: str
    history: tuple[Message, ...] = ()
    context: str | None = None
    files: tuple[Attachment, ...] = ()
    schema: Mapping[str, Any] | None = None
    stream: bool = False
    include_usage: bool = False
    temperature: float | None = None
    max_tokens: int | None = None
    subagent: str = "advisor"
    budget: Budget | None = None
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    wants_council: bool = False
    wants_details: bool = False


def read_chat(body: Any, models: Mapping[str, str | None]) -> ChatRequest:
    """Read a request.

    Args:
        body: the JSON value of the body.
        models: the name of each model, with the strategy that it stands for.

    Raises:
        RequestRefused: a field is wrong or not offered; the message names the remedy.
    """
    if not isinstance(body, Mapping):
        raise RequestRefused("the body is no JSON object")
    for name, remedy in _REFUSED.items():
        if body.get(name) not in (None, [], False):
            raise RequestRefused(f"{name}: {remedy}", param=name, code="unsupported_parameter")
    if body.get("n") not in (None, 1):
        raise RequestRefused("n: a council gives one answer: leave it out, or send 1", param="n")
    model = body.get("model")
    if not isinstance(model, str) or model not in models:
        listed = ", ".join(list(models)[:20])
        raise RequestRefused(
            f"model: there is no council {model!r:.80}; one of {listed}",
            status=404,
            param="model",
            code="model_not_found",
        )
    context, history, task, files = _read_messages(body.get("messages"))
    options = _read_options(body.get("council"))
    stream = _flag(body, "stream")
    stream_options = body.get("stream_options")
    usage = isinstance(stream_options, Mapping) and _flag(stream_options, "include_usage")
    limit = body.get("max_completion_tokens")
    metadata = body.get("metadata")
    return ChatRequest(
        model=model,
        strategy=options.get("strategy", models[model]),
        task=task,
        history=history,
        context=context,
        files=files,
        schema=_read_format(body.get("response_format")),
        stream=stream,
        include_usage=usage,
        temperature=_number(body, "temperature"),
        max_tokens=_count(body, "max_tokens") if limit is None else _count(body, "max_completion_tokens"),
        subagent=options.get("subagent", "advisor"),
        budget=_budget(options),
        metadata=dict(metadata) if isinstance(metadata, Mapping) else {},
        wants_council=body.get("council") is not None,
        wants_details=bool(options.get("details")),
    )


def _read_messages(given: Any) -> tuple[str | None, tuple[Message, ...], str, tuple[Attachment, ...]]:
    """Return the system's words, the earlier turns, the task, and all files."""
    if not isinstance(given, list) or not given:
        raise RequestRefused("messages: a list of one message or more is needed", param="messages")
    system: list[str] = []
    turns: list[Message] = []
    files: list[Attachment] = []
    for place, message in enumerate(given):
        where = f"messages[{place}]"
        role = message.get("role") if isinstance(message, Mapping) else None
        if role in ("tool", "function") or (isinstance(message, Mapping) and message.get("tool_calls")):
            raise RequestRefused(
                f"{where}: a council takes no calls and results of tools: write the result into a message of the user",
                param=where,
            )
        if role not in _ROLES:
            raise RequestRefused(f"{where}.role: one of {', '.join(_ROLES)}, got {role!r:.40}", param=f"{where}.role")
        text, attached = _read_content(message.get("content"), f"{where}.content", may_attach=role == "user")
        files += attached
        if role in ("system", "developer"):
            system.append(text)
        else:
            turns.append(Message(role, text))
    if not turns or turns[-1].role != "user":
        raise RequestRefused(
            "messages: the last message must be of the user: a council begins its own answer", param="messages"
        )
    task = turns.pop().text
    if not task.strip():
        raise RequestRefused("messages: the last message of the user has no text: say what to do", param="messages")
    return "\n\n".join(filter(None, system)) or None, tuple(turns), task, tuple(files)


def _read_content(content: Any, where: str, *, may_attach: bool) -> tuple[str, list[Attachment]]:
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        raise RequestRefused(f"{where}: text or a list of parts", param=where)
    texts: list[str] = []
    files: list[Attachment] = []
    for place, part in enumerate(content):
        at = f"{where}[{place}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "refusal":
            texts.append(str(part.get("refusal") or ""))
        elif kind in ("image_url", "file", "input_audio") and may_attach:
            files.append(_read_file(part, kind, at))
        else:
            raise RequestRefused(f"{at}: text, image_url, file or input_audio, got {kind!r:.40}", param=at)
    return "\n".join(texts), files


def _read_file(part: Mapping[str, Any], kind: str, where: str) -> Attachment:
    """Return an image, a document or sound of a message. Its bytes must be in the request: no address is fetched."""
    held = part.get(kind)
    held = held if isinstance(held, Mapping) else {}
    name = held.get("filename") if isinstance(held.get("filename"), str) else None
    if kind == "input_audio":
        data = held.get("data")
    else:
        address = str(held.get("url" if kind == "image_url" else "file_data") or "")
        if not address.startswith("data:") or ";base64," not in address[:200]:
            raise RequestRefused(
                f"{where}: no address is fetched: send the bytes, as data:TYPE;base64,...", param=where
            )
        data = address.partition(";base64,")[2]
    try:
        return Attachment(base64.b64decode(str(data or ""), validate=True), name=name)
    except ConfigurationError as error:  # before ValueError, which some of these errors are too
        raise RequestRefused(f"{where}: {error}", param=where) from None
    except (binascii.Error, ValueError):
        raise RequestRefused(f"{where}: the data is not base64", param=where) from None


def _read_format(given: Any) -> Mapping[str, Any] | None:
    kind = given.get("type") if isinstance(given, Mapping) else None
    if given is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    described = given.get("json_schema") if isinstance(given, Mapping) else None
    schema = described.get("schema") if isinstance(described, Mapping) else None
    if kind != "json_schema" or not isinstance(schema, Mapping):
        raise RequestRefused(
            "response_format: text, json_object, or json_schema with json_schema.schema", param="response_format"
        )
    return dict(schema)


_OPTIONS: Final = {"strategy": str, "subagent": str, "details": bool, "deadline": float, "usd": float, "quorum": int}


def _read_options(given: Any) -> dict[str, Any]:
    """Return the options in ``council``, an object that OpenAI's clients send with ``extra_body``."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise RequestRefused('council: an object such as {"strategy": "poll", "details": true}', param="council")
    found: dict[str, Any] = {}
    for name, value in given.items():
        kind = _OPTIONS.get(name)
        if kind is None:
            raise RequestRefused(f"council.{name:.80}: one of {', '.join(_OPTIONS)}", param="council")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number if kind is float else type(value) is kind):
            raise RequestRefused(
                f"council.{name}: expected {kind.__name__}, got {value!r:.80}", param=f"council.{name}"
            )
        found[name] = value
    # Elsewhere a role may be the path of a file, and a client must not name files of the server.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", found.get("subagent", "advisor")):
        raise RequestRefused("council.subagent: the name of a role, not a path", param="council.subagent")
    return found


def _budget(options: Mapping[str, Any]) -> Budget | None:
    limits = {name: options[name] for name in ("deadline", "usd", "quorum") if name in options}
    try:
        return Budget(**limits) if limits else None
    except InvalidOption as error:
        raise RequestRefused(f"council: {error}", param="council") from None


def lower_limit(asked: float | None, configured: float | None) -> float | None:
    """Return the most that a run may cost: a client may lower the limit of the configuration, but not raise it."""
    return min((limit for limit in (asked, configured) if limit is not None), default=None)


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestRefused(f"{name}: true or false, got {value!r:.80}", param=name)
    return bool(value)


def _number(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:
        raise RequestRefused(f"{name}: a number from 0 to 2, got {value!r:.80}", param=name)
    return float(value)


def _count(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestRefused(f"{name}: a whole number of 1 or more, got {value!r:.80}", param=name)
    return value


# Replies


def answer_text(result: CouncilResult[Any]) -> str:
    """Return the answer as the content of a message: prose, or JSON where a schema was asked for."""
    if isinstance(result.output, str) and result.plan.schema is None:
        return result.output
    if result.output is not None:
        return json.dumps(result.output, ensure_ascii=False)
    return result.text or ""


def completion(ask: ChatRequest, result: CouncilResult[Any]) -> dict[str, Any]:
    """Return the reply with an answer, or with the reason why the council abstains as its ``refusal``."""
    abstains = result.status == Status.ABSTAINED
    message = {
        "role": "assistant",
        "content": None if abstains else answer_text(result),
        "refusal": str(result.error) if abstains else None,
    }
    reply = {
        "id": f"chatcmpl-{result.run_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": ask.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": usage_of(result),
    }
    return {**reply, "council": _told(result, details=ask.wants_details)} if ask.wants_council else reply


def usage_of(result: CouncilResult[Any]) -> dict[str, int]:
    """Return the tokens of all calls of a run."""
    usage = result.usage
    prompt, answer = usage.input_tokens or 0, usage.output_tokens or 0
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _told(result: CouncilResult[Any], *, details: bool) -> dict[str, Any]:
    """Return what the council did: the field ``council`` of a reply."""
    data = result.to_dict()
    if details:
        return data
    names = (
        "run_id",
        "status",
        "strategy",
        "chair",
        "agreement",
        "dissent",
        "overruled",
        "answers",
        "cost",
        "warnings",
    )
    told = {name: data[name] for name in names if name in data}
    return {"strategy": result.plan.strategy, **told}


def first_chunk(ask: ChatRequest, reply_id: str) -> dict[str, Any]:
    """Return the chunk that begins a stream."""
    return _chunk(ask, reply_id, {"role": "assistant", "content": ""})


def word_chunk(ask: ChatRequest, reply_id: str, text: str) -> dict[str, Any]:
    """Return a chunk of text."""
    return _chunk(ask, reply_id, {"content": text})


def chunks_end(ask: ChatRequest, reply_id: str, result: CouncilResult[Any]) -> list[dict[str, Any]]:
    """Return the chunks that end a stream: the reason, and the usage if it was asked for."""
    delta = {"refusal": str(result.error)} if result.status == Status.ABSTAINED else {}
    last = _chunk(ask, reply_id, delta, finish_reason="stop")
    if ask.wants_council:
        last["council"] = _told(result, details=ask.wants_details)
    if not ask.include_usage:
        return [last]
    return [last, {**_chunk(ask, reply_id, {}), "choices": [], "usage": usage_of(result)}]


def _chunk(ask: ChatRequest, reply_id: str, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {
        "id": reply_id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": ask.model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}],
    }


def refusal_of(error: CouncilError) -> RequestRefused:
    """Return the error of a run as an error of this API. The vendor's own words stay in the message."""
    if isinstance(error, RequestRefused):
        return error
    words = redact(str(error))
    match error:
        case Abstained():
            return RequestRefused(words, status=422, code="abstained")
        case ConfigurationError():
            return RequestRefused(words, status=400)
        case BudgetExceeded():
            return RequestRefused(words, status=429, code="insufficient_quota", kind="insufficient_quota")
        case DeadlineExceeded():
            return RequestRefused(words, status=504, code="deadline_exceeded", kind="timeout_error")
        case QuorumLost():
            return RequestRefused(words, status=502, code="quorum_lost", kind="api_error")
    return RequestRefused(words, status=502, code="run_failed", kind="api_error")


def error_body(refused: RequestRefused) -> dict[str, Any]:
    """Return the body of an error reply."""
    return {
        "error": {
            "message": str(refused),
            "type": refused.kind,
            "param": refused.param,
            "code": refused.code,
        }
    }


def names_of(strategies: Sequence[str]) -> dict[str, str | None]:
    """Return the models that are offered, with the strategy that each stands for."""
    return {"council": None, **{f"council/{name}": name for name in strategies}}
