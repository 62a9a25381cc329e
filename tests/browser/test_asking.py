"""Ask a council in a browser and watch it: words of all seats live, failures, follow-ups, keyboard, no JavaScript."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the environment browser installs it")

from page_server import DRAFTS, Served, ask, gated, open_gates, script, scripted, served  # noqa: E402

from llm_council.errors import ServerFailed  # noqa: E402
from llm_council.testing.fakes import ScriptedProvider  # noqa: E402

expect = sync_api.expect


@pytest.fixture
def council(tmp_path: Path) -> Iterator[Served]:
    with served(gated(), tmp_path / "runs.db") as server:
        yield server


def card_of(page: Any, seat: str) -> Any:
    return page.locator("#phase-draft").get_by_role("article", name=re.compile(seat))


def status_is(page: Any, status: str) -> None:
    expect(page.locator("#facts .status")).to_have_text(status)


def test_words_of_three_seats_are_seen_while_they_are_written(council: Served, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    ask(page, council)
    for name, text in DRAFTS.items():
        words = card_of(page, name).locator(".words")
        expect(words).to_contain_text(text[:8])
        expect(words).not_to_contain_text(text[-12:])
        expect(card_of(page, name)).to_contain_text("writing")
    expect(page.locator("#facts .status")).to_have_text("running")
    council.seats["bob"].gate.set()
    expect(card_of(page, "bob")).to_contain_text("done")  # one seat ends while the others write
    expect(card_of(page, "bob").locator(".words")).to_contain_text(DRAFTS["bob"])
    expect(card_of(page, "ann")).to_contain_text("writing")
    page.reload()  # what was written is there again, and what follows arrives
    expect(card_of(page, "ann").locator(".words")).to_contain_text(DRAFTS["ann"][:8])
    open_gates(council)
    status_is(page, "completed")
    answer = page.locator("#result .answer")
    expect(answer).to_contain_text("Start with Postgres")
    assert answer.locator("em").inner_text() == "Postgres"  # Markdown, rendered
    seats = page.locator("#result table.seats")
    for name in DRAFTS:
        expect(seats).to_contain_text(name)
    assert watched.problems == []
    assert watched.elsewhere(council.url) == []


def test_a_failing_seat_is_shown_with_the_words_of_the_vendor(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    seats = scripted()
    seats["bob"] = ScriptedProvider({"*": ServerFailed("Overloaded: come back later", status=529)}, name="bob")
    watched = open_page()
    page = watched.page
    with served(seats, tmp_path / "runs.db") as server:
        ask(page, server)
        status_is(page, "degraded")
        for _ in range(2):  # as it happened, and as it was stored
            expect(card_of(page, "bob").locator(".error")).to_contain_text("Overloaded: come back later")
            expect(page.locator("#result table.seats")).to_contain_text("Overloaded: come back later")
            expect(page.locator("#result .answer")).to_contain_text("Start with Postgres")
            page.reload()
        assert watched.problems == []


def test_a_follow_up_goes_on_from_the_answer(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    with served(scripted(), tmp_path / "runs.db") as server:
        ask(page, server)
        status_is(page, "completed")
        first = page.url
        page.get_by_label("A further question").fill("And with two servers?")
        page.get_by_role("button", name="Ask").click()
        page.wait_for_url(lambda url: "/runs/" in url and url != first)
        status_is(page, "completed")
        expect(page.get_by_role("heading", level=1)).to_have_text("And with two servers?")
        asked = server.seats["ann"].asked("draft")[-1]
        assert any("Start with" in turn.text for turn in asked.turns())
        page.goto(f"{server.url}/history")
        rows = page.locator("ol.runs > li")
        expect(rows).to_have_count(2)
        rows.first.get_by_role("link", name="follow-up").click()
        page.wait_for_url(first)
    assert watched.problems == []


def test_the_same_is_asked_again_with_other_seats(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    with served(scripted(), tmp_path / "runs.db") as server:
        ask(page, server, "Which queue fits?\nBe brief.")
        status_is(page, "completed")
        page.get_by_role("link", name="Ask again with other seats").click()
        assert page.get_by_label("Task").input_value() == "Which queue fits?\nBe brief."
        page.get_by_role("checkbox", name="cy").uncheck()
        page.get_by_role("button", name="Ask").click()
        page.wait_for_url("**/runs/*")
        status_is(page, "completed")
        expect(page.locator("#phase-draft .card")).to_have_count(2)
        assert len(server.seats["cy"].asked("draft")) == 1
        assert len(server.seats["ann"].asked("draft")) == 2
    assert watched.problems == []


def test_a_run_is_cancelled(council: Served, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    ask(page, council)
    expect(card_of(page, "ann").locator(".words")).to_contain_text("Use")
    page.get_by_role("button", name="Cancel").click()
    status_is(page, "cancelled")
    assert not council.seats["zoe"].asked("synthesise")
    open_gates(council)
    page.get_by_role("button", name="Resume").click()
    status_is(page, "completed")
    expect(page.locator("#result .answer")).to_contain_text("Start with Postgres")
    assert watched.problems == []


def test_files_are_dropped_on_the_page(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    with served(scripted(), tmp_path / "runs.db") as server:
        page.goto(server.door)
        dropped = page.evaluate_handle(
            """() => {
                const data = new DataTransfer();
                data.items.add(new File(["the plan is blue"], "plan.txt", { type: "text/plain" }));
                return data;
            }"""
        )
        page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
        expect(page.locator("#chosen")).to_contain_text("plan.txt (16 bytes)")
        page.get_by_label("Task").fill("What is the plan?")
        page.get_by_role("button", name="Ask").click()
        page.wait_for_url("**/runs/*")
        status_is(page, "completed")
        request = server.seats["ann"].asked("draft")[0]
        assert any("the plan is blue" in turn.text for turn in request.turns())
    assert watched.problems == []


def focused(page: Any) -> str:
    """Return the name of the element that has the keyboard."""
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))


def test_the_keyboard_is_enough(council: Served, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    page.goto(council.door)
    assert focused(page) == "task"  # where typing begins
    page.goto(f"{council.url}/history")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    assert focused(page) == "main"
    page.goto(f"{council.url}/")
    page.keyboard.type("Which queue fits?")
    seen = []
    while not seen or seen[-1] != "Ask":
        page.keyboard.press("Tab")
        seen.append(focused(page))
        assert len(seen) < 30, seen
    for name in ("files", "role", "strategy", "further"):
        assert name in seen, name
    assert seen.index("role") < seen.index("strategy") < seen.index("further")  # as they are read
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/*")
    expect(card_of(page, "ann").locator(".words")).to_contain_text("Use")
    for _ in range(8):
        page.keyboard.press("Tab")
        if focused(page) == "Cancel":
            break
    assert focused(page) == "Cancel"
    open_gates(council)
    status_is(page, "completed")
    assert page.evaluate("document.activeElement !== document.body")  # the part that had the keyboard was replaced
    expect(page.get_by_role("status")).to_contain_text("The run has ended: completed")  # said to screen readers
    page.get_by_label("A further question").focus()
    page.keyboard.type("And then?")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("And then?")
    assert watched.problems == []


def test_all_can_be_read_without_javascript(council: Served, open_page: Callable[..., Any]) -> None:
    watched = open_page(java_script_enabled=False)
    page = watched.page
    ask(page, council)
    expect(page.locator("#facts .status")).to_have_text("running")
    open_gates(council)
    # The page loads itself anew while the run goes on.
    expect(page.locator("#facts .status")).to_have_text("completed")
    expect(page.locator("#result .answer")).to_contain_text("Start with Postgres")
    for text in DRAFTS.values():
        expect(page.locator("#phase-draft")).to_contain_text(text.replace("**", ""))
    page.get_by_role("link", name="History").click()
    page.get_by_label("Words in the task or the answer").fill("RabbitMQ")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("ol.runs > li")).to_have_count(1)
    expect(page.locator("ol.runs mark")).to_have_text("RabbitMQ")
    page.locator("ol.runs").get_by_role("link").first.click()
    page.get_by_role("link", name="Compare the drafts").click()
    expect(page.locator(".column")).to_have_count(2)
    assert watched.problems == []


def test_what_is_wrong_is_said_beside_the_form(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    page = open_page().page
    with served(scripted(), tmp_path / "runs.db") as server:
        page.goto(server.door)
        page.get_by_label("Task").fill("Which queue fits?")
        page.get_by_label("Further seats").fill("nobody/x")
        page.get_by_role("button", name="Ask").click()
        expect(page.get_by_role("alert")).to_contain_text("nobody")
        assert page.get_by_label("Task").input_value() == "Which queue fits?"
        assert not any(seat.requests for seat in server.seats.values())


def test_a_vote_shows_who_dissents(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    seats = {
        name: ScriptedProvider(script(f"I think so.\nANSWER: {number}"), name=name)
        for name, number in (("ann", 4), ("bob", 4), ("cy", 5))
    }
    watched = open_page()
    page = watched.page
    with served(seats, tmp_path / "runs.db", strategy="poll") as server:
        ask(page, server, "What is 2+2?")
        status_is(page, "completed")
        for _ in range(2):
            expect(page.locator("#facts")).to_contain_text("agreement: majority (67 %)")
            expect(page.locator("#result")).to_contain_text("cy dissents: 5")
            page.reload()
    assert watched.problems == []
