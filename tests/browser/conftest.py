"""The system's Chromium, and pages of it that must stay without errors (tox -e browser)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # A name of somebody else that leads to this machine, as in an attack by DNS rebinding.
    "--host-resolver-rules=MAP evil.test 127.0.0.1",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    from playwright import sync_api  # its tests have been skipped where it is missing

    sync_api.expect.set_options(timeout=20_000)  # milliseconds; a busy machine takes seconds to draw a page
    script = Path(__file__).parents[2] / ".ci" / "chromium.py"
    spec = importlib.util.spec_from_file_location("chromium_script", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = module.find()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: python .ci/chromium.py installs one")
        pytest.skip("no Chromium: python .ci/chromium.py installs one")
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox does not start as root.
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, chromium_sandbox=os.geteuid() != 0, args=list(FLAGS)
        )
        yield browser
        browser.close()


@attrs.define
class Watched:
    """A page of the browser, with what must not happen on it.

    Attributes:
        page: Playwright's page.
        problems: errors and warnings of the console, exceptions, dialogs, failed requests.
        requests: the addresses of all requests.
    """

    page: Any
    problems: list[str] = attrs.field(factory=list)
    requests: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        page = self.page
        page.set_default_timeout(20_000)
        page.on("console", lambda m: self._note(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self._note(f"exception: {error}"))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("response", lambda reply: self._note(f"{reply.status} {reply.url}") if reply.status >= 400 else None)
        page.on("dialog", lambda dialog: self._dialog(dialog))

    def _note(self, words: str) -> None:
        self.problems.append(words)

    def _dialog(self, dialog: Any) -> None:
        self._note(f"dialog: {dialog.message}")
        dialog.dismiss()

    def elsewhere(self, url: str) -> list[str]:
        """Return the addresses of requests that went to another server than that of ``url``."""
        return [one for one in self.requests if not one.startswith((f"{url}/", "data:", "blob:"))]


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Watched]]:
    """A function that opens a page in a new profile; its arguments are those of Playwright's ``new_context``."""
    contexts = []

    def opened(**options: Any) -> Watched:
        context = chromium.new_context(**{"viewport": {"width": 1100, "height": 800}, **options})
        contexts.append(context)
        return Watched(context.new_page())

    yield opened
    for context in contexts:
        context.close()
