"""Fixtures for pytest, registered by entry point.

pytest loads this module in every project that has the package installed, so it imports the library only in fixtures.
"""

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
    """Make providers that answer by a script: ``scripted_provider("It is night.")``; see ``ScriptedProvider``."""
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

    Tests replay the file; see ``llm_council.testing.cassettes`` for how to record it. A test fails if it makes a call
    that the file does not contain.
    """
    import os

    from llm_council.testing import cassettes

    file = cassettes.Cassette(cassettes.cassette_path(request.path, request.node.name))
    mode = os.environ.get(cassettes.RECORD) or "none"
    if mode not in ("none", "missing", "all"):
        pytest.fail(f"{cassettes.RECORD}: none, missing or all, got {mode!r}", pytrace=False)
    recording = mode == "all" or (mode == "missing" and not file.path.exists())
    if recording:
        file.erase()
    yield lambda provider: (cassettes.Recorder if recording else cassettes.Replay)(provider, file)
    if file.missed:
        pytest.fail("\n".join(file.missed), pytrace=False)
