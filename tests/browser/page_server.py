"""A server with a page, in a thread of the test's process, and seats that write when the test says so."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import uvicorn

from llm_council import Council, CouncilConfig
from llm_council.models import GenerateChunk, GenerateRequest
from llm_council.serve.access import Access, Key
from llm_council.serve.app import make_app
from llm_council.serve.page.site import Page
from llm_council.serve.server import Serving, bind, hosts_of
from llm_council.testing.fakes import ScriptedProvider

TOKEN = "a-token-of-some-length"

DRAFTS = {
    "ann": "Use **Postgres**: one queue table with SKIP LOCKED.",
    "bob": "Use Redis streams. They are fast enough for this.",
    "cy": "Use RabbitMQ, since it routes and retries for you.",
}
REVIEW = "RANKING: A > B > C\nA is the simplest of them."
ANSWER = "Start with *Postgres*, and move to RabbitMQ when one server is not enough."


def script(draft: str) -> dict[str, Any]:
    """Return the replies of a seat in each phase."""
    return {"draft": draft, "critique": REVIEW, "synthesise": ANSWER, "*": REVIEW}


def scripted() -> dict[str, Any]:
    """Return three seats that draft, and a chair."""
    return {name: ScriptedProvider(script(text), name=name) for name, text in {**DRAFTS, "zoe": ANSWER}.items()}


def ask(page: Any, server: Served, task: str = "Which queue fits?") -> None:
    """Open the page, fill the form and send it."""
    page.goto(server.door)
    page.get_by_label("Task").fill(task)
    page.get_by_role("button", name="Ask").click()
    page.wait_for_url("**/runs/*")


def open_gates(server: Served) -> None:
    """Let the seats write to the end."""
    for seat in server.seats.values():
        seat.gate.set()


class Gated(ScriptedProvider):
    """Writes the first half of each draft, and the second one when the test opens its gate."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate = threading.Event()

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        place, is_draft = 0, request.metadata.get("phase") == "draft"
        async for chunk in super().stream(request):
            if place == 1 and is_draft:
                while not self.gate.is_set():  # of another thread, so it cannot be awaited
                    await anyio.sleep(0.005)
            place += 1
            yield chunk


def gated() -> dict[str, Any]:
    """Return three seats that stop in the middle of their drafts, and a chair."""
    return {name: Gated(script(text), name=name) for name, text in {**DRAFTS, "zoe": ANSWER}.items()}


@attrs.define
class Served:
    """A running server.

    Attributes:
        url: its address, without a slash at the end.
        seats: the seats by name.
        page: the page.
    """

    url: str
    seats: dict[str, Any]
    page: Page

    @property
    def door(self) -> str:
        """The address with the token."""
        return f"{self.url}/?token={TOKEN}"


@contextmanager
def served(
    seats: dict[str, Any], store: Path | None = None, evaluations: Path | None = None, **config: Any
) -> Iterator[Served]:
    """Serve a council of seats on a free port."""
    settings = CouncilConfig(**{"strategy": "synthesize", "chair": "zoe" if "zoe" in seats else None, **config})
    council = Council(list(seats.values()), config=settings, store=None if store is None else str(store))
    serving = Serving(port=0)
    listening = bind(serving)
    port = listening.getsockname()[1]
    key = Key(name="owner", secret=TOKEN, per_minute=60_000)
    page = Page.of_server(council, key, serving, port, evaluations)
    app = make_app(council, Access([key]), hosts_of(serving, port), 2.0, page)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{port}", seats, page)
    finally:
        for seat in seats.values():
            getattr(seat, "gate", threading.Event()).set()
        server.should_exit = True
        thread.join(15)
        listening.close()
