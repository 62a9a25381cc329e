"""Fake Replicate: read the inputs of predictions, and write predictions, streams and errors.

The documentation of the dialect: https://replicate.com/docs/reference/http
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_council._wire.payloads import get_text, malformed, need_object
from llm_council.models.messages import ImagePart, Message, Part, Role, TextPart
from llm_council.models.reply import GenerateResponse, Usage
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig
from llm_council.providers._replicate.request import DEFAULT, ModelInputs
from llm_council.testing._mirrors import _shared

__all__ = ["decode_request", "encode_error", "encode_events", "encode_response", "frame"]


def decode_request(payload: Any, inputs: ModelInputs = DEFAULT, *, model: str | None = None) -> GenerateRequest:
    """Read the body of a request that creates a prediction.

    A conversation written out in the prompt becomes one turn. Fields that a ``GenerateRequest`` has no place for stay
    in ``extra``.

    Args:
        payload: the JSON value of the body.
        inputs: the names of the model's inputs.
        model: the model's name from the URL; a ``version`` in the payload replaces it.

    Raises:
        MalformedReply: the payload is not a request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    asked = dict(need_object(rest.pop("input", None), "$.input"))
    # A community model is called by its version, an official one by its name in the URL.
    facts: dict[str, Any] = {
        "model": _shared.take_text(rest, "version") or model,
        "messages": _decode_turns(asked, inputs),
        "stream": rest.pop("stream", False) is True,
    }
    for field in ("max_tokens", "temperature", "top_p"):
        name = getattr(inputs, field)
        if asked.get(name) is not None:
            facts[field] = asked.pop(name)
    facts.update(_decode_stop(asked, inputs))
    facts.update(_decode_thinking(asked, inputs))
    return _shared.build_request(facts, {**asked, **rest}, "$.input")


def _decode_turns(asked: dict[str, Any], inputs: ModelInputs) -> list[Message]:
    turns: list[Message] = []
    if inputs.system is not None and inputs.system in asked:
        turns.append(Message(Role.SYSTEM, get_text(asked, inputs.system, "$.input")))
        del asked[inputs.system]
    if inputs.messages is not None and inputs.messages in asked:
        listed = _shared.enumerate_paths(asked.pop(inputs.messages), f"$.input.{inputs.messages}")
        return [*turns, *(_decode_turn(*item) for item in listed)]
    if inputs.prompt not in asked:
        raise malformed(f"$.input.{inputs.prompt}", "a prompt", None)
    parts: list[Part] = [TextPart(text=get_text(asked, inputs.prompt, "$.input") or "")]
    del asked[inputs.prompt]
    return [*turns, Message(Role.USER, [*parts, *_decode_images(asked, inputs)])]


def _decode_turn(value: Any, path: str) -> Message:
    turn = need_object(value, path)
    return Message(_shared.need_text(turn, "role", path, "a role"), get_text(turn, "content", path))


def _decode_images(asked: dict[str, Any], inputs: ModelInputs) -> list[ImagePart]:
    found = asked.get(inputs.images) if inputs.images is not None else None
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not listed or not all(isinstance(item, str) and item for item in listed):
        return []
    del asked[str(inputs.images)]
    return [_shared.build_part(ImagePart, f"$.input.{inputs.images}", url=item) for item in listed]


def _decode_stop(asked: dict[str, Any], inputs: ModelInputs) -> dict[str, Any]:
    found = asked.get(inputs.stop) if inputs.stop is not None else None
    words = found
    if not inputs.takes_list(inputs.stop):
        # A model that takes one string expects stop words separated by commas.
        words = found.split(",") if isinstance(found, str) and found else None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        return {}
    del asked[str(inputs.stop)]
    return {"stop": words}


def _decode_thinking(asked: dict[str, Any], inputs: ModelInputs) -> dict[str, Any]:
    effort = asked.get(inputs.effort) if inputs.effort is not None else None
    if isinstance(effort, str) and effort in list(Effort):
        del asked[str(inputs.effort)]
        return {"reasoning": ReasoningConfig(effort=effort)}
    budget = asked.get(inputs.budget) if inputs.budget is not None else None
    if type(budget) is int and budget > 0:
        config = ReasoningConfig(budget_tokens=budget)
    elif type(budget) is int and budget == 0 and inputs.effort is None:
        config = ReasoningConfig(effort=Effort.NONE)
    else:
        return {}
    del asked[str(inputs.budget)]
    return {"reasoning": config}


def encode_response(
    response: GenerateResponse, *, status: str = "succeeded", error: str | None = None, stream_url: str | None = None
) -> dict[str, Any]:
    """Write a prediction.

    Args:
        response: the answer.
        status: the prediction's status.
        error: why it failed.
        stream_url: the address of its stream.
    """
    usage = response.usage or Usage()
    counts = {"input_token_count": usage.input_tokens, "output_token_count": usage.output_tokens}
    metrics = dict(response.extra.get("metrics") or {})
    metrics.update((key, count) for key, count in counts.items() if count is not None)
    prediction: dict[str, Any] = {
        "id": response.request_id,
        "model": response.model,
        "status": status,
        # Language models on Replicate return their text as a list of pieces.
        "output": None if response.text is None else _shared.split(response.text, 8),
        "error": error,
        "urls": {} if stream_url is None else {"stream": stream_url},
    }
    optional = {"version": response.extra.get("version"), "logs": response.extra.get("logs"), "metrics": metrics}
    prediction.update((key, value) for key, value in optional.items() if value)
    return prediction


def encode_events(response: GenerateResponse, *, size: int = 8) -> Iterator[tuple[str, str]]:
    """Write an answer as the events of a stream, each a pair of its name and its data.

    Args:
        response: the answer.
        size: the maximum number of characters of text in one event.
    """
    for piece in _shared.split(response.text, size):
        yield "output", piece
    yield "done", "{}"


def frame(event: tuple[str, str]) -> bytes:
    """Write one event of a stream as SSE: its data is raw text, each line of which becomes a ``data:`` line.

    Every event has an id, since the vendor's own client ignores events without one.
    """
    name, data = event
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"event: {name}\nid: 0\n{lines}\n".encode()


def encode_error(message: str, *, status: int, title: str | None = None, retry_after: float | None = None) -> Any:
    """Write the body of an error, as ``application/problem+json``."""
    problem = {"title": title, "detail": message, "status": status, "retry_after": retry_after}
    return {key: value for key, value in problem.items() if value is not None}
