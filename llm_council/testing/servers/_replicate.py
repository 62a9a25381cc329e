"""A server of Replicate's predictions, each of which has ended when it is created, or waits to be streamed."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Any, ClassVar

from llm_council._wire import prompted_tools
from llm_council._wire.payloads import dumps
from llm_council.models import GenerateRequest, GenerateResponse
from llm_council.providers._replicate import ModelInputs
from llm_council.testing._mirrors import replicate as mirror
from llm_council.testing.servers._dialect import Dialect
from llm_council.testing.servers._said import Asked, Hang, Raw, Refuse, Said, Sent

__all__ = ["Replicate"]

_CREATE = re.compile(r"/v1/(?:models/)?((?:deployments/)?[^/]+/[^/]+)?/?predictions$")
_STREAM = re.compile(r"/v1/streams/([A-Za-z0-9_=-]+)$")
_LOOK = re.compile(r"/v1/predictions/[^/]+(/cancel)?$")
_MODEL = re.compile(r"/v1/models/[^/]+/[^/]+(/versions/[^/]+)?$")
_INPUTS = ModelInputs(images="image_input", lists=("image_input",))
_SCHEMA = {
    "prompt": {"type": "string"},
    "system_prompt": {"type": "string"},
    "max_tokens": {"type": "integer"},
    "temperature": {"type": "number"},
    "top_p": {"type": "number"},
    "stop_sequences": {"type": "string"},
    "image_input": {"type": "array", "items": {"type": "string", "format": "uri"}},
}


class Replicate(Dialect):
    """Predictions, their streams, a model's schema, and an account.

    It keeps nothing: the address of a stream holds what was asked.
    """

    name = "replicate"
    usage: ClassVar[tuple[str, ...]] = ("metrics",)

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Read a prediction that is to be created, or the one whose stream is asked for."""
        created, streamed = _CREATE.search(asked.path), _STREAM.search(asked.path)
        if asked.method == "POST" and created is not None:
            return mirror.decode_request(asked.json, _INPUTS, model=created[1])
        if asked.method == "GET" and streamed is not None:
            return mirror.decode_request(json.loads(base64.urlsafe_b64decode(streamed[1])), _INPUTS, model="fake")
        return None

    def reply(self, asked: Asked, said: Said) -> Sent:
        """Begin a prediction that is to be streamed; everything else is as everywhere."""
        wishes = asked.json if isinstance(asked.json, dict) else {}
        at_once = isinstance(said, Raw) or (isinstance(said, Refuse) and said.after is None)
        at_once = at_once or (isinstance(said, Hang) and said.said is None)
        if asked.method == "POST" and _CREATE.search(asked.path) and wishes.get("stream") is True and not at_once:
            where = base64.urlsafe_b64encode(asked.body).decode()
            host = asked.headers.get("host", "replicate.invalid")
            url = f"http{'s' if host.endswith('.invalid') else ''}://{host}/v1/streams/{where}"
            return Sent.of(dumps(_prediction(_NOTHING, status="starting", stream_url=url)), status=201)
        return super().reply(asked, said)

    def whole(self, response: GenerateResponse) -> Any:
        """Write a prediction that has ended."""
        return _prediction(response)

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Write a stream."""
        return mirror.encode_events(prompted_tools.spoken(response))

    def frame(self, event: Any) -> bytes:
        """Write an event; a refusal is one that is called an error."""
        return mirror.frame(event if isinstance(event, tuple) else ("error", json.dumps(event)))

    def refusal(self, refuse: Refuse) -> Any:
        """Write an error."""
        return mirror.encode_error(refuse.message, status=refuse.status)

    def facts(self, asked: Asked) -> Any:
        """Tell what a model takes, whose key it is, and what became of a prediction."""
        if asked.method == "GET" and asked.path.endswith("/v1/account"):
            return {"type": "organization", "username": "house"}
        model = _MODEL.search(asked.path)
        if asked.method == "GET" and model is not None:
            schema = {"components": {"schemas": {"Input": {"properties": _SCHEMA}}}}
            version = {"id": "v-1", "created_at": "2026-01-01T00:00:00Z", "openapi_schema": schema}
            return version if model[1] else {"owner": "house", "name": "fake", "latest_version": version}
        found = _LOOK.search(asked.path)
        if found is None:
            return None
        return _prediction(_NOTHING, status="canceled" if found[1] else "succeeded")


_NOTHING = GenerateResponse(request_id="fake-1", model="house/fake")
_BESIDE = {"version": "hidden", "input": {}, "logs": "", "created_at": "2026-01-01T00:00:00Z", "data_removed": False}


def _prediction(response: GenerateResponse, **facts: Any) -> dict[str, Any]:
    """Write a prediction with all that the vendor says beside the answer."""
    written = {**_BESIDE, **mirror.encode_response(prompted_tools.spoken(response), **facts)}
    own = f"https://replicate.invalid/v1/predictions/{response.request_id}"
    return {**written, "urls": {"get": own, "cancel": f"{own}/cancel", "web": own, **written["urls"]}}
