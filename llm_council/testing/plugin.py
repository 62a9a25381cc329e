"""Fixtures for pytest, found by entry point. Until one is asked for, the library stays unloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llm_council.providers.base import ProviderAdapter
    from llm_council.testing.fakes import ScriptedProvider
    from llm_council.testing.servers import FakeVendor

__all__ = ["cassette", "fake_vendor", "scripted_provider"]


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


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> Iterator[Callable[[ProviderAdapter | str], ProviderAdapter]]:
    """Put a provider on this test's cassette: ``Council([cassette("openai")], config=CouncilConfig(seed="tests"))``.

    Tests replay what is in the file; see ``llm_council.testing.cassettes`` for how it comes there. A test that asks for
    what was not recorded fails.
    """
    import os

    from llm_council.testing import cassettes

    tape = cassettes.Cassette(cassettes.cassette_path(request.path, request.node.name))
    mode = os.environ.get(cassettes.RECORD) or "none"
    if mode not in ("none", "missing", "all"):
        pytest.fail(f"{cassettes.RECORD}: none, missing or all, got {mode!r}", pytrace=False)
    records = mode == "all" or (mode == "missing" and not tape.path.exists())
    if records:
        tape.erase()
    yield lambda provider: (cassettes.Recorder if records else cassettes.Replay)(provider, tape)
    if tape.missed:
        pytest.fail("\n".join(tape.missed), pytrace=False)
