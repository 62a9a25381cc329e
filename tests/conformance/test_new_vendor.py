"""A fictional vendor with its own dialect: a wire file, a provider of fewer than 120 lines, a conformance class."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import parrot
import parrot_wire as wire
import pytest
from hypothesis import given
from strategies import examples, json_values, responses

from llm_council._wire.payloads import dumps
from llm_council.errors import ProviderError
from llm_council.models import FinishReason, GenerateRequest, GenerateResponse, join
from llm_council.testing.conformance import ProviderConformance
from llm_council.testing.servers import Asked, Dialect, Refuse


class Parrot(Dialect):
    """The server's half: one line for each function of the codec."""

    name = "parrot"
    stream_type: ClassVar[str] = "application/x-ndjson"
    usage: ClassVar[tuple[str, ...]] = ("counted",)

    def read(self, asked: Asked) -> GenerateRequest | None:
        return wire.decode_request(asked.json) if asked.path.endswith("/talk") else None

    def whole(self, response: GenerateResponse) -> Any:
        return wire.encode_response(response)

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        return wire.encode_events(response)

    def refusal(self, refuse: Refuse) -> Any:
        return wire.encode_error(refuse.message)

    def facts(self, asked: Asked) -> Any:
        return {"data": [{"id": "grey"}]} if asked.path.endswith("/models") else None


class TestParrot(ProviderConformance):
    provider = parrot.ParrotProvider
    speaks = Parrot()


def test_the_provider_has_fewer_than_120_lines() -> None:
    assert len(Path(parrot.__file__).read_text().splitlines()) < 120


# The laws of every dialect hold for this one too.


def read(pieces: list[bytes]) -> Any:
    stream = wire.TalkStream()
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    return join([*chunks, *stream.finish()])


@pytest.mark.slow
@examples(20)
@given(responses())
def test_a_stream_equals_the_whole_reply_wherever_it_is_cut(answer: GenerateResponse) -> None:
    body = b"".join(dumps(event) + b"\n" for event in wire.encode_events(answer))
    found = read([body])
    assert found.text == (answer.text or None)
    assert found.finish_reason == ("length" if answer.finish_reason == FinishReason.LENGTH else "stop")
    assert read([body[at : at + 1] for at in range(len(body))]) == found


@examples(50)
@given(json_values())
def test_any_json_is_decoded_or_refused_with_an_error_of_the_provider(value: Any) -> None:
    decoders = [
        (wire.decode_response, GenerateResponse),
        (wire.decode_request, GenerateRequest),
        (lambda junk: read([dumps(junk) + b"\n"]), GenerateResponse),
    ]
    for decode, kind in decoders:
        with suppress(ProviderError):
            assert isinstance(decode(value), kind)
