"""Fake vendors: the other half of each dialect, over httpx, requests and real loopback sockets.

``FakeVendor("anthropic", "It is night.")`` says one thing to every call. What it says is a text, a ``GenerateResponse``
with tool calls, JSON or a finish reason, an error (``Refuse``), bytes of your own (``Raw``), or something that goes
wrong on its way: ``Delayed``, ``Cut``, ``Hang``, ``Edited``. A function of the request may choose.
"""

from __future__ import annotations

from llm_council.testing.servers._dialect import Dialect, dialect, dialects
from llm_council.testing.servers._obliging import obliging, smallest
from llm_council.testing.servers._said import Asked, Cut, Delayed, Edited, Ending, Hang, Raw, Refuse, Said, Sent
from llm_council.testing.servers._vendor import FakeVendor

__all__ = [
    "Asked",
    "Cut",
    "Delayed",
    "Dialect",
    "Edited",
    "Ending",
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
