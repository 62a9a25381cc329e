"""A fake vendor: one core, which turns a request's bytes into a reply's, behind three surfaces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models import GenerateRequest
from llm_council.testing.servers._dialect import Dialect, dialect
from llm_council.testing.servers._obliging import obliging
from llm_council.testing.servers._said import Asked, Refuse, Said, Sent

if TYPE_CHECKING:
    import httpx
    import responses

__all__ = ["FakeVendor"]


class FakeVendor:
    """Speak a dialect's other half, by a script that has no state.

    It is reached in three ways: ``transport()`` for httpx, ``mocked()`` for requests, ``serve()`` on a real loopback
    socket. All three send what one core says.

    Args:
        speaks: the name of a dialect, or a ``Dialect`` of your own.
        said: what it says to every call; ``obliging`` by default, which answers in the schema that it is asked for.
        key: the key that a header of every request must carry; None takes any caller.

    Attributes:
        url: its address, for an adapter's ``base_url``; a real one inside ``serve()``.
        asked: every request so far, in order.
        served: replies that were sent to their end.
    """

    def __init__(self, speaks: str | Dialect = "openai", said: Said = obliging, *, key: str | None = None) -> None:
        self.dialect = dialect(speaks) if isinstance(speaks, str) else speaks
        self.url = f"https://{self.dialect.name}.invalid{self.dialect.path}"
        self.said = said
        self.key = key
        self.asked: list[Asked] = []
        self.served = 0
        self._left = 0
        self._changed = threading.Condition()

    @property
    def calls(self) -> list[Asked]:
        """The requests that asked a model, in order: those that are no mere look at the server."""
        return [asked for asked in self.asked if self.dialect.facts(asked) is None]

    @property
    def strange(self) -> list[Asked]:
        """The requests, other than those that merely look, to addresses that such a vendor does not have."""
        return [asked for asked in self.asked if asked.method not in ("GET", "HEAD") and not self._knows(asked)]

    def _knows(self, asked: Asked) -> bool:
        try:
            return self.dialect.facts(asked) is not None or self.dialect.read(asked) is not None
        except (MalformedReply, InvalidOption):
            return True  # a request of ours, and a bad one

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Return the call in a request; None for one that is none."""
        return self.dialect.read(asked)

    def reply(self, asked: Asked) -> Sent:
        """Note a request, and return what is sent for it."""
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()
        if self.key is not None and not any(self.key in value for value in asked.headers.values()):
            return self.dialect.reply(asked, Refuse(status=401, message="this key is not known"))
        return self.dialect.reply(asked, self.said)

    def end(self, *, left: bool) -> None:
        """Note, from a surface, that a reply was sent, or that its client left before its end."""
        with self._changed:
            self.served += not left
            self._left += left
            self._changed.notify_all()

    def wait_asked(self, count: int = 1, seconds: float = 10.0) -> bool:
        """Wait until it was asked so many times; tell whether it was."""
        return self._wait(lambda: len(self.asked) >= count, seconds)

    def wait_left(self, seconds: float = 10.0) -> bool:
        """Wait until a client left before the end of its reply; tell whether one did."""
        return self._wait(lambda: self._left > 0, seconds)

    def _wait(self, done: Callable[[], bool], seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(done, seconds)

    @contextmanager
    def serve(self) -> Iterator[FakeVendor]:
        """Listen on a loopback socket; ``url`` is its address. At the end every connection is closed."""
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
        """Answer whatever ``requests`` sends meanwhile, wherever it goes."""
        from llm_council.testing.servers._mocks import mocked

        with mocked(self) as mock:
            yield mock
