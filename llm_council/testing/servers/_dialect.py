"""The server's half of a dialect: how a fake vendor reads requests and writes what its script says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import attrs

from llm_council._wire.payloads import dumps
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models import FinishReason, GenerateRequest, GenerateResponse, Usage
from llm_council.testing.servers._exchange import Asked, Cut, Delayed, Edited, Ending, Hang, Raw, Refuse, Said, Sent

__all__ = ["Dialect", "complete"]

Change = Callable[[Any], Any]


class Dialect(ABC):
    """How the vendors of one dialect read and write. The behaviours (errors, cuts, delays) are the same for all.

    ``read``, ``whole`` and ``refusal`` are enough for a vendor without streams::

        class House(Dialect):
            name = "house"

            def read(self, asked):
                return GenerateRequest(prompt=asked.json["ask"]) if asked.path.endswith("/talk") else None

            def whole(self, response):
                return {"words": response.text}

            def refusal(self, refuse):
                return {"why": refuse.message}

    Attributes:
        name: the dialect's name.
        path: how the base URL of such a vendor ends.
        stream_type: the ``Content-Type`` of a stream.
        stream_end: the bytes after a stream's last event.
        usage: the keys under which replies count tokens. The conformance kit replaces their values.
    """

    name: ClassVar[str]
    path: ClassVar[str] = ""
    stream_type: ClassVar[str] = "text/event-stream"
    stream_end: ClassVar[bytes] = b""
    usage: ClassVar[tuple[str, ...]] = ("usage",)

    @abstractmethod
    def read(self, asked: Asked) -> GenerateRequest | None:
        """Decode a call; return None if the request's address is not that of calls.

        Raises:
            MalformedReply: the body is not of this dialect.
        """

    @abstractmethod
    def whole(self, response: GenerateResponse) -> Any:
        """Encode an answer as the JSON of a reply."""

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Encode an answer as the JSON of a stream's events; by default one whole reply."""
        return [self.whole(response)]

    def frame(self, event: Any) -> bytes:
        """Frame one event of a stream; by default as a line of JSON."""
        return dumps(event) + b"\n"

    @abstractmethod
    def refusal(self, refuse: Refuse) -> Any:
        """Encode an error, which is also the JSON of an error event."""

    def facts(self, asked: Asked) -> Any:
        """Return the JSON for a request that runs no model, such as the list of models; None for a call."""
        return None

    def reply(self, asked: Asked, said: Said) -> Sent:
        """Return the reply to a request."""
        # A vendor that refuses or hangs does so for lists of models too.
        if not isinstance(said, Refuse | Hang):
            facts = self.facts(asked)
            if facts is not None:
                return Sent.of(dumps(facts))
        elif isinstance(said, Hang) and said.said is None:
            return Sent(silent=True, ending=Ending.HANG)
        try:
            request = self.read(asked)
        except (MalformedReply, InvalidOption) as error:
            return self._error(Refuse(status=400, message=error.message))
        if request is None:
            missing = Refuse(status=404, message=f"no such address: {asked.method} {asked.path}")
            return self._error(said if isinstance(said, Refuse) else missing)
        return self.spoken(said, request, lambda value: value)

    def spoken(self, said: Said, request: GenerateRequest, change: Change) -> Sent:
        """Return the reply to a call; ``change`` is applied to the JSON of the reply and of each event."""
        match said:
            case str() | GenerateResponse():
                return self._answer(complete(said, request), request, change)
            case Refuse():
                return self._error(said, request)
            case Raw():
                media_type = said.media_type or (self.stream_type if request.stream else "application/json")
                return Sent.of(said.body, status=said.status, media_type=media_type, **said.headers)
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

    def _answer(self, response: GenerateResponse, request: GenerateRequest, change: Change) -> Sent:
        if not request.stream:
            return Sent.of(dumps(change(self.whole(response))), x_request_id=response.request_id or "")
        frames = [self.frame(change(event)) for event in self.events(response, request)]
        if self.stream_end:
            frames.append(self.stream_end)
        return self._stream(frames)

    def _stream(self, frames: list[bytes]) -> Sent:
        return Sent(headers={"content-type": self.stream_type}, pieces=tuple(frames), stream=True)

    def _error(self, refuse: Refuse, request: GenerateRequest | None = None) -> Sent:
        if refuse.after is not None and request is not None and request.stream:
            frames = [self.frame(event) for event in self.events(complete(refuse.after, request), request)]
            # The text may be cut into several events: its first four bytes are in the first of them.
            first_text = next(i for i, frame in enumerate(frames) if refuse.after.encode()[:4] in frame)
            return self._stream([*frames[: first_text + 1], self.frame(self.refusal(refuse))])
        headers = {} if refuse.retry_after is None else {"retry_after": f"{refuse.retry_after:g}"}
        return Sent.of(dumps(self.refusal(refuse)), status=refuse.status, x_request_id="req-refused", **headers)


def complete(said: str | GenerateResponse, request: GenerateRequest) -> GenerateResponse:
    """Return an answer with the facts that every vendor reports: model, id, usage, finish reason."""
    answer = GenerateResponse(text=said) if isinstance(said, str) else said
    default = FinishReason.TOOL_CALLS if answer.tool_calls else FinishReason.STOP
    has_reason = answer.finish_reason is not None or answer.raw_finish_reason is not None
    # A raw reason with our own name ("stop") is dropped: each dialect has a word of its own for it.
    is_ours = answer.raw_finish_reason in set(FinishReason)
    return attrs.evolve(
        answer,
        finish_reason=answer.finish_reason if has_reason else default,
        raw_finish_reason=None if is_ours else answer.raw_finish_reason,
        model=answer.model or request.model,
        request_id=answer.request_id or "fake-1",
        # Two different counts, so that a test notices if an adapter swaps them.
        usage=answer.usage or Usage(input_tokens=11, output_tokens=7),
    )
