"""The dialect of a fictional vendor: what a contributor writes in the folder of a new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_council._wire import failures
from llm_council._wire.payloads import dumps, get_text, loads, malformed, need_list, need_object, tokens
from llm_council._wire.reading import BodyReader, Decoder
from llm_council._wire.sse import NdjsonSplitter, SseEvent
from llm_council.errors import ApiError, MalformedReply
from llm_council.models import FinishReason, GenerateChunk, GenerateRequest, GenerateResponse, Limits, Message, Usage

PARAMETERS = {"longest": "max_tokens", "wildness": "temperature", "width": "top_p"}
FINISH_REASONS = {"done": FinishReason.STOP, "full": FinishReason.LENGTH}
LIMITS = Limits()


def encode_request(request: GenerateRequest, *, stream: bool) -> dict[str, Any]:
    """Encode a request."""
    payload: dict[str, Any] = {"parrot": request.model, "in_bits": stream}
    payload["turns"] = [{"by": str(turn.role), "words": turn.text} for turn in request.turns()]
    parameters = {key: getattr(request, name) for key, name in PARAMETERS.items()} | {
        "hush": list(request.stop) or None
    }
    return payload | {key: value for key, value in parameters.items() if value is not None} | dict(request.extra)


def decode_response(data: Any) -> GenerateResponse:
    """Decode a whole reply."""
    reply = need_object(raise_error(data), "$")
    over = get_text(reply, "over", "$")
    return GenerateResponse(
        text=get_text(reply, "words", "$"),
        model=get_text(reply, "parrot", "$"),
        finish_reason=FINISH_REASONS.get(over or ""),
        raw_finish_reason=over,
        usage=read_usage(reply.get("counted")),
        raw=data,
    )


def read_usage(value: Any) -> Usage | None:
    """Decode the counts of tokens."""
    if not isinstance(value, dict):
        return None
    usage = Usage(input_tokens=tokens(value.get("heard")), output_tokens=tokens(value.get("said")))
    return None if usage.total_tokens is None else usage


def decode_error(status: int | None, headers: Mapping[str, str], body: bytes | str, **facts: Any) -> ApiError:
    """Decode an error."""
    try:
        found = loads(body)
    except MalformedReply:
        found = None
    squawk = found.get("squawk") if isinstance(found, dict) else None
    why, code = (squawk.get("why"), squawk.get("code")) if isinstance(squawk, dict) else (None, None)
    code = code if isinstance(code, str) else None
    named = {name.lower(): value for name, value in headers.items()}
    message = why if isinstance(why, str) else ""
    return failures.error_of(message, status=status, code=code, headers=named, body=str(body), **facts)


def raise_error(value: Any) -> Any:
    """Return a JSON value, or raise the error that it contains."""
    if isinstance(value, dict) and value.get("squawk"):
        raise decode_error(None, {}, dumps(value))
    return value


class BitDecoder(Decoder):
    """Decodes the lines of a stream."""

    def _read(self, event: SseEvent) -> GenerateChunk | None:
        value = need_object(raise_error(loads(event.data, self._limits)), "$")
        if "over" in value:
            self.finished = self.done = True
            whole = decode_response(value)
            return GenerateChunk(
                finish_reason=whole.finish_reason if isinstance(whole.finish_reason, FinishReason) else None,
                raw_finish_reason=whole.raw_finish_reason,
                usage=whole.usage,
                model=whole.model,
            )
        bit = get_text(value, "bit", "$")
        if bit is None:
            return None
        self._texts.append(bit)
        return GenerateChunk(text=bit)


class TalkStream(BodyReader):
    """Reads the body of a stream."""

    def __init__(self, limits: Limits = LIMITS, *, request_id: str | None = None) -> None:
        super().__init__(BitDecoder(limits, request_id=request_id), NdjsonSplitter(limits), limits)


# The server's half, for the fake vendor and the laws.


def decode_request(payload: Any) -> GenerateRequest:
    """Decode a request."""
    rest = dict(need_object(payload, "$"))
    turns = []
    for index, found in enumerate(need_list(rest.pop("turns", None), "$.turns")):
        turn = need_object(found, f"$.turns[{index}]")
        by, words = (get_text(turn, key, f"$.turns[{index}]") for key in ("by", "words"))
        if not by:
            raise malformed(f"$.turns[{index}].by", "a name", by)
        turns.append(Message(by, words or ""))
    facts = {name: rest.pop(key, None) for key, name in PARAMETERS.items()}
    return GenerateRequest(
        model=rest.pop("parrot", None),
        messages=turns,
        stream=rest.pop("in_bits", False),
        stop=rest.pop("hush", ()),
        extra=rest,
        **facts,
    )


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Encode a whole reply."""
    usage = response.usage or Usage()
    over = "full" if response.finish_reason == FinishReason.LENGTH else "done"
    counted = {"heard": usage.input_tokens, "said": usage.output_tokens}
    return {"parrot": response.model, "words": response.text, "over": over, "counted": counted}


def encode_events(response: GenerateResponse) -> Iterator[dict[str, Any]]:
    """Write the events of a stream."""
    text = response.text or ""
    yield from ({"bit": text[start : start + 8]} for start in range(0, len(text), 8))
    yield {key: value for key, value in encode_response(response).items() if key != "words"}


def encode_error(why: str, code: str | None = None) -> dict[str, Any]:
    """Write an error."""
    return {"squawk": {"why": why, "code": code}}
