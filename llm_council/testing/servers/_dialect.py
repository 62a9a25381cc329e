"""The other half of a dialect: what a vendor makes of a request, and how it says what it is told to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, ClassVar

import attrs

from llm_council._wire.payloads import dumps
from llm_council.errors import InvalidOption, MalformedReply, near
from llm_council.models import FinishReason, GenerateRequest, GenerateResponse, Usage
from llm_council.testing.servers._said import (
    Asked,
    Cut,
    Delayed,
    Edited,
    Ending,
    Hang,
    Raw,
    Refuse,
    Said,
    Sent,
)

__all__ = ["Dialect", "dialect", "dialects"]

Change = Callable[[Any], Any]

_HOMES = {
    "anthropic": "_anthropic:Anthropic",
    "cohere": "_cohere:Cohere",
    "gemini": "_gemini:Gemini",
    "ollama": "_ollama:Ollama",
    "openai": "_openai:OpenAI",
    "replicate": "_replicate:Replicate",
    "responses": "_responses:Responses",
    "vertex": "_vertex:Vertex",
    "vertex-claude": "_vertex:ClaudeOnVertex",
}


def dialects() -> tuple[str, ...]:
    """Return the names of the dialects that fake vendors speak."""
    return tuple(sorted(_HOMES))


def dialect(name: str) -> Dialect:
    """Return a dialect by its name.

    Raises:
        InvalidOption: there is none of this name.
    """
    if name not in _HOMES:
        raise InvalidOption(f"no fake vendor speaks {name!r}{near(name, _HOMES)}")
    module, _, attribute = _HOMES[name].partition(":")
    made: Dialect = getattr(import_module(f"{__package__}.{module}"), attribute)()
    return made


class Dialect(ABC):
    """How a vendor of one dialect answers. A subclass says how it reads and writes; the behaviours are here.

    ``read``, ``whole`` and ``refusal`` are enough for a vendor that knows no streams::

        class House(Dialect):
            name = "house"

            def read(self, asked):
                return GenerateRequest(prompt=asked.json["ask"]) if asked.path.endswith("/talk") else None

            def whole(self, response):
                return {"words": response.text}

            def refusal(self, refuse):
                return {"why": refuse.message}

    Attributes:
        name: the dialect's.
        path: what the address of such a vendor ends with.
        stream_type: the ``Content-Type`` of a stream.
        stream_end: the bytes after a stream's last event.
        usage: the keys under which replies count tokens, for those who falsify them.
    """

    name: ClassVar[str]
    path: ClassVar[str] = ""
    stream_type: ClassVar[str] = "text/event-stream"
    stream_end: ClassVar[bytes] = b""
    usage: ClassVar[tuple[str, ...]] = ("usage",)

    @abstractmethod
    def read(self, asked: Asked) -> GenerateRequest | None:
        """Return the call in a request; None where its address is not that of calls.

        Raises:
            MalformedReply: it is none of this dialect.
        """

    @abstractmethod
    def whole(self, response: GenerateResponse) -> Any:
        """Write an answer as a reply's JSON."""

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Write an answer as the JSON of a stream's events; a vendor that knows no streams sends one whole reply."""
        return [self.whole(response)]

    def frame(self, event: Any) -> bytes:
        """Write one event of a stream; JSON on a line of its own by default."""
        return dumps(event) + b"\n"

    @abstractmethod
    def refusal(self, refuse: Refuse) -> Any:
        """Write an error's JSON, which is an error event's too."""

    def facts(self, asked: Asked) -> Any:
        """Return the JSON of a request that makes no model work, such as the list of models; None for all others."""
        return None

    def reply(self, asked: Asked, said: Said) -> Sent:
        """Return what the vendor sends."""
        if not isinstance(said, Refuse | Hang):
            facts = self.facts(asked)
            if facts is not None:
                return Sent.of(dumps(facts))
        elif isinstance(said, Hang) and said.said is None:
            return Sent(silent=True, ending=Ending.HANG)
        try:
            request = self.read(asked)
        except (MalformedReply, InvalidOption) as error:
            return self._refused(Refuse(status=400, message=error.message))
        if request is None:
            missing = Refuse(status=404, message=f"no such address: {asked.method} {asked.path}")
            return self._refused(said if isinstance(said, Refuse) else missing)
        return self.spoken(said, request, _unchanged)

    def spoken(self, said: Said, request: GenerateRequest, change: Change) -> Sent:
        """Return what is sent for a call; ``change`` is done to the JSON of the reply and of each event."""
        match said:
            case str() | GenerateResponse():
                return self._answered(_filled(said, request), request, change)
            case Refuse():
                return self._refused(said, request)
            case Raw():
                kind = said.media_type or (self.stream_type if request.stream else "application/json")
                return Sent.of(said.body, status=said.status, media_type=kind, **said.headers)
            case Edited():
                return self.spoken(said.said, request, lambda value: change(said.change(value)))
            case Cut():
                return self.spoken(said.said, request, change).broken(said.share, Ending.CUT)
            case Hang():
                if said.said is None:
                    return Sent(silent=True, ending=Ending.HANG)
                return self.spoken(said.said, request, change).broken(said.share, Ending.HANG)
            case Delayed():
                return attrs.evolve(self.spoken(said.said, request, change), delay=said.seconds)
        return self.spoken(said(request), request, change)

    def _answered(self, response: GenerateResponse, request: GenerateRequest, change: Change) -> Sent:
        if not request.stream:
            return Sent.of(dumps(change(self.whole(response))), x_request_id=response.request_id or "")
        return self._streamed([self.frame(change(event)) for event in self.events(response, request)], self.stream_end)

    def _streamed(self, pieces: list[bytes], end: bytes) -> Sent:
        sent = tuple([*pieces, end] if end else pieces)
        return Sent(headers={"content-type": self.stream_type}, pieces=sent, stream=True)

    def _refused(self, refuse: Refuse, request: GenerateRequest | None = None) -> Sent:
        if refuse.after is not None and request is not None and request.stream:
            begun = _filled(refuse.after, request)
            events = [self.frame(event) for event in self.events(begun, request)]
            text = next(i for i, event in enumerate(events) if refuse.after.encode()[:4] in event)
            return self._streamed([*events[: text + 1], self.frame(self.refusal(refuse))], b"")
        headers = {} if refuse.retry_after is None else {"retry_after": f"{refuse.retry_after:g}"}
        return Sent.of(dumps(self.refusal(refuse)), status=refuse.status, x_request_id="req-refused", **headers)


def _unchanged(value: Any) -> Any:
    return value


def _filled(said: str | GenerateResponse, request: GenerateRequest) -> GenerateResponse:
    """Return an answer with what every vendor says beside it."""
    answer = GenerateResponse(text=said) if isinstance(said, str) else said
    usual = FinishReason.TOOL_CALLS if answer.tool_calls else FinishReason.STOP
    known = answer.finish_reason is not None or answer.raw_finish_reason is not None
    ours = answer.raw_finish_reason in set(FinishReason)  # each dialect has words of its own for these
    return attrs.evolve(
        answer,
        finish_reason=answer.finish_reason if known else usual,
        raw_finish_reason=None if ours else answer.raw_finish_reason,
        model=answer.model or request.model,
        request_id=answer.request_id or "fake-1",
        usage=answer.usage or Usage(input_tokens=11, output_tokens=7),
    )
