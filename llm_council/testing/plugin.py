"""Fixtures for pytest, found by entry point. Until one is asked for, the library stays unloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llm_council.testing.fakes import ScriptedProvider
    from llm_council.testing.servers import FakeVendor

__all__ = ["fake_vendor", "scripted_provider"]


@pytest.fixture
def scripted_provider() -> Callable[..., ScriptedProvider]:
    """Make providers that say what they are told: ``scripted_provider("It is night.")``; see ``ScriptedProvider``."""
    from llm_council.testing.fakes import ScriptedProvider

    return ScriptedProvider


@pytest.fixture
def fake_vendor() -> Iterator[Callable[..., FakeVendor]]:
    """Serve fake vendors on loopback sockets until the test's end: ``fake_vendor("gemini", "It is night.").url``.

    The arguments are those of ``FakeVendor``.
    """
    from llm_council.testing.servers import FakeVendor

    with ExitStack() as serving:

        def serve(*arguments: Any, **options: Any) -> FakeVendor:
            return serving.enter_context(FakeVendor(*arguments, **options).serve())

        yield serve
