"""Ask a council in a browser and watch it: words of all seats live, failures, follow-ups, without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the environment browser installs it")

from page_server import Gated, Served, served  # noqa: E402

expect = sync_api.expect

DRAFTS = {
    "ann": "Use **Postgres**: one queue table with SKIP LOCKED.",
    "bob": "Use Redis streams. They are fast enough for this.",
    "cy": "Use RabbitMQ, since it routes and retries for you.",
}
REVIEW = "RANKING: A > B\nBoth are fine."
CHAIR = "Start with *Postgres*, and move to RabbitMQ when one server is not enough."


def gated() -> dict[str, Any]:
    return {
        name: Gated({"draft": text, "critique": REVIEW, "synthesise": CHAIR, "*": text}, name=name)
        for name, text in {**DRAFTS, "zoe": CHAIR}.items()
    }


@pytest.fixture
def council(tmp_path: Path) -> Iterator[Served]:
    with served(gated(), tmp_path / "runs.db", chair="zoe") as server:
        yield server


def ask(page: Any, server: Served, task: str = "Which queue fits?") -> None:
    page.goto(server.door)
    page.get_by_label("Task").fill(task)
    page.get_by_role("button", name="Ask").click()
    page.wait_for_url("**/runs/*")


def open_gates(server: Served) -> None:
    for seat in server.seats.values():
        seat.gate.set()


def test_words_of_three_seats_are_seen_while_they_are_written(council: Served, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    ask(page, council)
    for name, text in DRAFTS.items():
        card = page.get_by_role("article", name=re.compile(name))
        expect(card.locator(".words")).to_contain_text(text[:8])
        expect(card.locator(".words")).not_to_contain_text(text[-12:])
        expect(card).to_contain_text("writing")
    expect(page.locator("#facts .status")).to_have_text("running")
    council.seats["bob"].gate.set()
    done = page.get_by_role("article", name=re.compile("bob")).first
    expect(done.locator(".words")).to_contain_text(DRAFTS["bob"])  # one seat ends while the others write
    expect(page.get_by_role("article", name=re.compile("ann")).first).to_contain_text("writing")
    open_gates(council)
    expect(page.locator("#facts .status")).to_have_text("completed")
    answer = page.locator("#result .answer")
    expect(answer).to_contain_text("Start with Postgres")
    assert answer.locator("em").inner_text() == "Postgres"  # Markdown, rendered
    assert watched.problems == []
    assert watched.elsewhere(council.url) == []
