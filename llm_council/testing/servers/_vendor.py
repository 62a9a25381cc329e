"""A fake vendor: replies by a script, to httpx, to requests, and over a loopback socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models import GenerateRequest, GenerateResponse, ToolCall
from llm_council.testing.servers._builtin import dialect
from llm_council.testing.servers._dialect import Dialect
from llm_council.testing.servers._exchange import Asked, Refuse, Said, Sent

if TYPE_CHECKING:
    import httpx
    import responses

__all__ = ["FakeVendor", "obliging", "smallest"]

_SCHEMA_DEPTH = 32  # deeper levels of a schema get null


def obliging(request: GenerateRequest) -> GenerateResponse:
    """Answer in the requested form: call the tool that must be called, fill the schema, or say a plain text."""
    named = next((tool for tool in request.tools if request.tool_choice in (tool.name, "required")), None)
    if named is not None:
        arguments = json.dumps(smallest(named.parameters))
        return GenerateResponse(tool_calls=[ToolCall(id="call_1", name=named.name, arguments=arguments)])
    if request.structured_output is not None:
        return GenerateResponse(text=json.dumps(smallest(request.structured_output.json_schema)))
    return GenerateResponse(text="It is so.")


def smallest(schema: Any, *, depth: int = 0) -> Any:
    """Return a small value that is valid under a plain JSON Schema; references and conditions are ignored."""
    if not isinstance(schema, Mapping) or depth > _SCHEMA_DEPTH:
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    # The first alternative is as good as any: the value is valid if one of them is met.
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            return smallest(schema[word][0], depth=depth + 1)
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: smallest(properties.get(name), depth=depth + 1) for name in schema.get("required", ())}
        case "array":
            return [smallest(schema.get("items", {}), depth=depth + 1)] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "It is so.".ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


class FakeVendor:
    """Plays the vendor of a dialect by a script without state.

    There are three ways to reach it: ``transport()`` for httpx, ``mocked()`` for requests, ``serve()`` on a loopback
    socket. All three send the same replies.

    Args:
        speaks: the name of a dialect, or a ``Dialect`` of your own.
        said: the reply to every call. The default, ``obliging``, answers in the schema of the request.
        key: the key that a header of every request must contain; None accepts every caller.

    Attributes:
        url: its address, for an adapter's ``base_url``; a real one inside ``serve()``.
        asked: every request so far, in order.
        served: replies that were sent to their end.
    """

    def __init__(self, speaks: str | Dialect = "openai", said: Said = obliging, *, key: str | None = None) -> None:
        self.dialect = dialect(speaks) if isinstance(speaks, str) else speaks
        # ``.invalid`` never resolves (RFC 6761): a request that misses the mock cannot leave the machine.
        self.url = f"https://{self.dialect.name}.invalid{self.dialect.path}"
        self.said = said
        self.key = key
        self.asked: list[Asked] = []
        self.served = 0
        self._left = 0
        # Requests arrive in threads of the server, and tests wait for them in other threads.
        self._changed = threading.Condition()

    @property
    def calls(self) -> list[Asked]:
        """The requests that ran a model, in order: without lists of models and the like."""
        return [asked for asked in self.asked if self.dialect.facts(asked) is None]

    @property
    def strange(self) -> list[Asked]:
        """The requests, other than GET and HEAD, to addresses that a vendor of this dialect does not have."""
        return [asked for asked in self.asked if asked.method not in ("GET", "HEAD") and not self._knows(asked)]

    def _knows(self, asked: Asked) -> bool:
        try:
            return self.dialect.facts(asked) is not None or self.dialect.read(asked) is not None
        except (MalformedReply, InvalidOption):
            return True  # the address is right, the body is not

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Decode a call; return None for a request of another kind."""
        return self.dialect.read(asked)

    def reply(self, asked: Asked) -> Sent:
        """Record a request, and return the reply to it."""
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()
        # Every dialect names the header of the key otherwise, and some write ``Bearer`` before it.
        if self.key is not None and not any(self.key in value for value in asked.headers.values()):
            return self.dialect.reply(asked, Refuse(status=401, message="this key is not known"))
        return self.dialect.reply(asked, self.said)

    def end(self, *, left: bool) -> None:
        """Record that a reply was sent, or that its client left before the end."""
        with self._changed:
            self.served += not left
            self._left += left
            self._changed.notify_all()

    def wait_asked(self, count: int = 1, seconds: float = 10.0) -> bool:
        """Wait until this many requests have arrived; return False when the seconds are over."""
        return self._wait(lambda: len(self.asked) >= count, seconds)

    def wait_left(self, seconds: float = 10.0) -> bool:
        """Wait until a client left before the end of its reply; return False when the seconds are over."""
        return self._wait(lambda: self._left > 0, seconds)

    def _wait(self, done: Callable[[], bool], seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(done, seconds)

    @contextmanager
    def serve(self) -> Iterator[FakeVendor]:
        """Listen on a loopback socket; ``url`` is its address. Every connection is closed at the end."""
        from llm_council.testing.servers._loopback import Loopback

        before = self.url
        with Loopback(self) as server:
            self.url = f"http://127.0.0.1:{server.port}{self.dialect.path}"
            try:
                yield self
            finally:
                self.url = before

    def transport(self) -> httpx.MockTransport:
        """Return a transport for ``httpx.Client``, ``httpx.AsyncClient`` and our own HTTP providers."""
        from llm_council.testing.servers._mocks import Mock

        return Mock(self)

    @contextmanager
    def mocked(self) -> Iterator[responses.RequestsMock]:
        """Answer everything that ``requests`` sends inside the block, to any address."""
        from llm_council.testing.servers._mocks import mocked

        with mocked(self) as mock:
            yield mock
