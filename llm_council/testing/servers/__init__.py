"""Fake vendors: the server's half of each dialect, for httpx, for requests, and on loopback sockets.

``FakeVendor("anthropic", "It is night.")`` gives one reply to every call. The reply is a text, a ``GenerateResponse``
with tool calls, JSON or a finish reason, an error (``Refuse``), bytes of your own (``Raw``), or a fault on the way:
``Delayed``, ``Cut``, ``Hang``, ``Edited``. A function of the request may choose.

``FakeBatchVendor("openai", "It is night.")`` takes batch jobs too, and works on them while it is polled.
"""

from __future__ import annotations

from llm_council.testing.servers._batches import FakeBatchVendor, FakeJob
from llm_council.testing.servers._builtin import dialect, dialects
from llm_council.testing.servers._dialect import Dialect
from llm_council.testing.servers._exchange import Asked, Cut, Delayed, Edited, Ending, Hang, Raw, Refuse, Said, Sent
from llm_council.testing.servers._vendor import FakeVendor, obliging, smallest

__all__ = [
    "Asked",
    "Cut",
    "Delayed",
    "Dialect",
    "Edited",
    "Ending",
    "FakeBatchVendor",
    "FakeJob",
    "FakeVendor",
    "Hang",
    "Raw",
    "Refuse",
    "Said",
    "Sent",
    "dialect",
    "dialects",
    "obliging",
    "smallest",
]
