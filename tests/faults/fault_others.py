"""The formats of Ollama, Cohere and Replicate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fault_spelling import Dialect, compact, data_line, named

from llm_council.providers._replicate import ModelInputs
from llm_council.providers.cohere import CohereProvider
from llm_council.providers.ollama import OllamaProvider
from llm_council.providers.replicate import ReplicateProvider

__all__ = ["COHERE", "OLLAMA", "REPLICATE"]

# Ollama's chat.


def ollama_reply(text: Any, finish: str = "stop") -> dict[str, Any]:
    return {
        "model": "m-1",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": text},
        "done": True,
        "done_reason": finish,
        "prompt_eval_count": 3,
        "eval_count": 2,
    }


def line(value: Any) -> bytes:
    return compact(value) + b"\n"


def ollama_piece(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    return line({"model": "m-1", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": False})


OLLAMA = Dialect(
    id="ollama",
    title="Ollama",
    cls=OllamaProvider,
    reply=ollama_reply,
    pieces=lambda texts: [ollama_piece(text) for text in texts],
    end=[line(ollama_reply(""))],
    cut_end=[line(ollama_reply("", "length"))],
    refusal=lambda status, code, message: {"error": message},
    broken=line({"error": "the model runner has stopped"}),
    news=b'{"model":"m-1","created_at":"now","news":true,"done":false}\n',
    finished=ollama_reply,
    cut="length",
    filtered="",
    empties=[ollama_reply(""), ollama_reply(" ")],
    misfits=[
        [],
        "text",
        12345,
        None,
        True,
        {**ollama_reply(""), "message": "text"},
        {**ollama_reply(""), "message": []},
        ollama_reply(12345),
        ollama_reply(["text"]),
    ],
    ndjson=True,
)


# Cohere's chat.


def cohere_reply(text: Any, finish: str = "COMPLETE") -> dict[str, Any]:
    return {
        "id": "c-1",
        "message": {"role": "assistant", "content": [{"type": "text", "text": text}]},
        "finish_reason": finish,
        "usage": {
            "billed_units": {"input_tokens": 3, "output_tokens": 2},
            "tokens": {"input_tokens": 3, "output_tokens": 2},
        },
    }


def cohere_pieces(texts: Sequence[str]) -> list[bytes]:
    begun = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    opened = {"message": {"content": {"type": "text", "text": ""}}}
    return [
        named({"id": "c-1", "type": "message-start", "delta": {"message": begun}}),
        named({"type": "content-start", "index": 0, "delta": opened}),
        *(
            named({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}})
            for text in texts
        ),
    ]


def cohere_end(finish: str) -> list[bytes]:
    end_fields = {key: value for key, value in cohere_reply("", finish).items() if key in ("finish_reason", "usage")}
    return [named({"type": "content-end", "index": 0}), named({"type": "message-end", "delta": end_fields})]


COHERE = Dialect(
    id="cohere",
    title="Cohere",
    cls=CohereProvider,
    reply=cohere_reply,
    pieces=cohere_pieces,
    end=cohere_end("COMPLETE"),
    cut_end=cohere_end("MAX_TOKENS"),
    refusal=lambda status, code, message: {"id": "e-1", "message": message},
    broken=data_line({"id": "e-1", "message": "internal server error, this has been reported to our developers"}),
    news=named({"type": "news", "delta": {"a": 1}}),
    finished=cohere_reply,
    cut="MAX_TOKENS",
    filtered="",
    empties=[
        {**cohere_reply(""), "message": {"role": "assistant"}},
        {**cohere_reply(""), "message": {"role": "assistant", "content": []}},
        cohere_reply(""),
        cohere_reply(" "),
    ],
    misfits=[
        [],
        "text",
        12345,
        None,
        True,
        {},
        {**cohere_reply(""), "message": None},
        {**cohere_reply(""), "message": []},
        {**cohere_reply(""), "message": {"content": 5}},
        {**cohere_reply(""), "message": {"content": [None]}},
        cohere_reply(12345),
        cohere_reply(["text"]),
        cohere_reply({"a": 1}),
    ],
)


# Replicate's predictions.


def replicate_reply(text: Any, finish: str = "succeeded") -> dict[str, Any]:
    return {
        "id": "p1",
        "model": "m/1",
        "version": "v1",
        "status": finish,
        "output": [text] if isinstance(text, str) else text,
        "error": None,
        "metrics": {"input_token_count": 3, "output_token_count": 2},
        "urls": {"cancel": "https://vendor.example/v1/predictions/p1/cancel"},
    }


def replicate_refusal(status: int, code: str | None, message: str) -> Any:
    return {"title": "Refused", "detail": message, "status": status}


def replicate_event(kind: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.split("\n"))
    return f"event: {kind}\nid: 1:0\n{lines}\n".encode()


def replicate_around(method: str, path: str, origin: str) -> bytes | None:
    """Answer the requests around a stream: create the prediction, show it once it has ended, cancel it."""
    if method == "GET":
        return compact(replicate_reply("fine")) if "/predictions/" in path else None
    if path.endswith("/cancel"):
        return compact(replicate_reply(None, "canceled"))
    begun = replicate_reply(None, "starting")
    return compact({**begun, "urls": {**begun["urls"], "stream": f"{origin}/v1/streams/s1"}})


REPLICATE = Dialect(
    id="replicate",
    title="Replicate",
    cls=ReplicateProvider,
    options={"inputs": ModelInputs(), "poll": 0.02},
    model="m/1",
    reply=replicate_reply,
    pieces=lambda texts: [replicate_event("output", text) for text in texts],
    end=[replicate_event("done", "{}")],
    cut_end=[],
    refusal=replicate_refusal,
    broken=replicate_event("error", '{"detail": "Prediction interrupted; please retry (code: PA)"}'),
    news=b"event: news\nid: 1:0\ndata: news\n\n",
    finished=replicate_reply,
    cut="",
    filtered="",
    empties=[replicate_reply(None), replicate_reply([]), replicate_reply(""), replicate_reply(" ")],
    misfits=[
        [],
        "text",
        12345,
        None,
        True,
        {},
        {**replicate_reply(""), "status": None},
        {**replicate_reply(""), "status": 5},
        {**replicate_reply(""), "id": []},
        {**replicate_reply("fine"), "model": 5},
    ],
    once=True,
    around=replicate_around,
)
