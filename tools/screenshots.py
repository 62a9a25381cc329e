"""Make the pictures of the page of ``council serve`` for the documentation; terminal_picture.py makes those of a run.

    python tools/screenshots.py                 # writes docs/images/
    python tools/screenshots.py --look FOLDER   # every page, in three widths, light and dark, to look at

It serves a council of scripted seats on a free port and needs Chromium (``python .ci/chromium.py``), and the
dependency group ``browser``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import uvicorn
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect, sync_playwright

from llm_council import Council, CouncilConfig
from llm_council.errors import ServerFailed
from llm_council.evals import replay
from llm_council.models import Cost, CostSource, FinishReason, GenerateChunk, GenerateRequest, GenerateResponse, Usage
from llm_council.serve.access import Access, Key
from llm_council.serve.app import make_app
from llm_council.serve.page.site import Page
from llm_council.serve.server import Serving, bind, hosts_of
from llm_council.testing.fakes import ScriptedProvider

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
TOKEN = "only-for-these-pictures"  # noqa: S105

TASK = "Which queue fits a thousand jobs a second, if we run Postgres already and have one engineer on call?"
CHAIR = "mistral"
MODELS = {"openai": "gpt-5.4", "anthropic": "claude-sonnet-5", "gemini": "gemini-3-pro", CHAIR: "mistral-large-3"}
DRAFTS = {
    "openai": """Start with **Postgres** and a table of jobs.

- `SELECT ... FOR UPDATE SKIP LOCKED` hands out jobs without waiting.
- A thousand jobs a second is within reach of one server if each batch takes 50 jobs.
- The engineer on call knows it already: one thing fewer to page about.

Partition the table by day, so that old jobs are dropped and not vacuumed.""",
    "anthropic": """Use the database that you have.

1. One table `jobs`, with an index on `(state, run_at)`.
2. Workers take batches with `SKIP LOCKED`.
3. `LISTEN` and `NOTIFY` wake idle workers.

Watch dead rows: at 1,000 jobs a second, autovacuum must be tuned for this table. Move to a broker once queue traffic
slows down other queries.""",
    "gemini": """I would take **Redis Streams**.

- Consumer groups keep track of who has which job.
- A thousand jobs a second is little for Redis.
- It is one more service to run, with persistence to be set up (`appendonly yes`).

If losing a second of jobs in a crash is not acceptable, take Postgres.""",
}
REVIEW = "RANKING: B > A > C\nB says what breaks first, and when to move on. C adds a service for one engineer on call."
ANSWER = """Use **Postgres**, which you run already: a table of jobs, and workers that take batches with
`FOR UPDATE SKIP LOCKED`.

- **Batches of 50** keep a thousand jobs a second at 20 transactions a second.
- **Partition by day**, and drop old partitions: autovacuum is what breaks first.
- `LISTEN`/`NOTIFY` wakes idle workers, so nobody polls.

Move to Redis Streams when the queue slows down other queries, not before: it is one more service for one
engineer on call.
"""
EARLIER = (
    ("Is our backup plan enough to restore within an hour?", "completed"),
    ("Name three risks of the move to Python 3.14.", "completed"),
    ("Summarise the incident of Monday for the customers.", "failed"),
)


_PIECES = 40
_BEFORE_GATE = 25  # pieces of a draft that are written before the gate


class Seat(ScriptedProvider):
    """Writes half of its draft, and the rest when the gate is open. Its calls have a model, tokens and a price."""

    def __init__(self, name: str, script: Any, model: str, usd: float) -> None:
        super().__init__(script, name=name, pieces=_PIECES)
        self.gate = threading.Event()
        self._model, self._usd = model, usd

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the reply in pieces."""
        place = 0
        async for chunk in super().stream(request):
            place += 1
            while place > _BEFORE_GATE and request.metadata.get("phase") == "draft" and not self.gate.is_set():  # noqa: ASYNC110
                await anyio.sleep(0.01)  # the gate is of another thread
            yield chunk

    async def _reply(self, request: GenerateRequest) -> Any:
        reply = await super()._reply(request)
        if not isinstance(reply, GenerateResponse):
            return reply
        tokens = len((reply.text or "").split()) * 4 // 3
        return attrs.evolve(
            reply,
            model=self._model,
            finish_reason=FinishReason.STOP,
            usage=Usage(input_tokens=420, output_tokens=tokens),
            cost=Cost(usd=self._usd + tokens * 1e-5, source=CostSource.REPORTED, complete=True),
        )


def _seats() -> dict[str, Seat]:
    def script(name: str) -> dict[str, Any]:
        return {"draft": DRAFTS.get(name, ANSWER), "critique": REVIEW, "synthesise": ANSWER, "*": REVIEW}

    return {
        name: Seat(name, script(name), model, usd)
        for (name, model), usd in zip(MODELS.items(), (0.0021, 0.0034, 0.0012, 0.0009), strict=True)
    }


@contextmanager
def _served(seats: dict[str, Seat], folder: Path, evaluations: Path | None) -> Iterator[str]:
    """Serve the seats, and yield the address with the token."""
    config = CouncilConfig(strategy="synthesize", chair=CHAIR, store=str(folder / "runs.db"))
    council = Council(list(seats.values()), config=config)
    serving = Serving(port=0)
    listening = bind(serving)
    port = listening.getsockname()[1]
    key = Key(name="owner", secret=TOKEN, per_minute=60_000)
    page = Page.of_server(council, key, serving, port, evaluations)
    app = make_app(council, Access([key]), hosts_of(serving, port), 1.0, page)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for seat in seats.values():
            seat.gate.set()
        server.should_exit = True
        thread.join(15)
        listening.close()


def _open(seats: dict[str, Seat], *, is_open: bool = True) -> None:
    for seat in seats.values():
        if is_open:
            seat.gate.set()
        else:
            seat.gate.clear()


def _ask(tab: Tab, url: str, task: str) -> None:
    tab.goto(f"{url}/")
    tab.get_by_label("Task").fill(task)
    tab.get_by_role("button", name="Ask").click()
    tab.wait_for_url("**/runs/*")


def _wait_for_end(tab: Tab, status: str) -> None:
    tab.locator(f"#facts .status.{status}").wait_for()


def _wait_for_words(tab: Tab) -> None:
    """Wait until each seat has written as much of its draft as its gate lets through."""
    for draft in DRAFTS.values():
        written = draft[: _BEFORE_GATE * -(-len(draft) // _PIECES)]
        # The end of a stream is held back, as it could be the beginning of a key.
        expect(tab.locator(".words", has_text=" ".join(written.split()[-12:-8]))).to_have_count(1)


class Camera:
    """Takes pictures of a tab.

    Args:
        tab: the tab.
        folder: where the pictures go.
        widths: the widths in pixels.
        is_named: True if a name of a picture has its width.
    """

    def __init__(self, tab: Tab, folder: Path, widths: tuple[int, ...], *, is_named: bool) -> None:
        self._tab, self._folder, self._widths, self._is_named = tab, folder, widths, is_named

    def take(self, name: str, *, height: int = 820, is_whole: bool = False) -> None:
        """Take a picture in each width, light and dark."""
        for width in self._widths:
            for scheme in ("light", "dark"):
                self._tab.emulate_media(color_scheme=scheme)
                self._tab.set_viewport_size({"width": width, "height": height})
                self._tab.evaluate("document.fonts.ready.then(() => scrollTo(0, 0))")
                shown = f"{name}-{width}-{scheme}.png" if self._is_named else f"{name}-{scheme}.png"
                self._tab.screenshot(path=self._folder / shown, full_page=is_whole, animations="disabled")


def _photograph(folder: Path, widths: tuple[int, ...], *, to_look: bool) -> None:
    script = [sys.executable, str(ROOT / ".ci" / "chromium.py")]
    chromium = subprocess.run(script, capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        reports = Path(temporary) / "reports"
        reports.mkdir()
        if to_look:
            replay(ROOT / "tests" / "data" / "evals" / "simulated").save(reports / "first")
        seats = _seats()
        with _served(seats, Path(temporary), reports if to_look else None) as url:
            browser = playwright.chromium.launch(
                executable_path=chromium, chromium_sandbox=os.geteuid() != 0, args=["--disable-gpu"]
            )
            tab = browser.new_page(viewport={"width": 1100, "height": 820})
            tab.goto(f"{url}/?token={TOKEN}")
            camera = Camera(tab, folder, widths, is_named=to_look)
            _open(seats)
            for task, status in EARLIER:
                kept = {name: seat._script for name, seat in seats.items()}
                if status == "failed":
                    for seat in seats.values():
                        seat._script = ServerFailed("Overloaded: try again later", status=529)
                _ask(tab, url, task)
                _wait_for_end(tab, status)
                if status == "failed" and to_look:
                    camera.take("failed", is_whole=True)
                for name, seat in seats.items():
                    seat._script = kept[name]
            _open(seats, is_open=False)
            if to_look:
                tab.goto(f"{url}/")
                camera.take("ask", is_whole=True)
            _ask(tab, url, TASK)
            _wait_for_words(tab)
            camera.take("page-running", is_whole=to_look)
            _open(seats)
            _wait_for_end(tab, "completed")
            tab.reload()
            camera.take("page-finished", is_whole=to_look)
            run = tab.url
            tab.goto(f"{url}/history")
            camera.take("page-history", height=560, is_whole=to_look)
            if to_look:
                tab.goto(f"{run}/compare")
                camera.take("compare", is_whole=True)
                for name, path in (
                    ("search", "history?q=partition"),
                    ("reports", "evaluations"),
                    ("report", "evaluations/first/report"),
                    ("missing", "runs/unknown"),
                ):
                    tab.goto(f"{url}/{path}")
                    camera.take(name, is_whole=True)
            browser.close()


def main() -> int:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--look", type=Path, metavar="FOLDER", help="every page in three widths, into this folder")
    folder = parser.parse_args().look
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _photograph(folder, (360, 1100, 1400), to_look=True)
        return 0
    IMAGES.mkdir(parents=True, exist_ok=True)
    _photograph(IMAGES, (1100,), to_look=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
