"""Find earlier runs, compare and download them, and read reports of evaluations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the environment browser installs it")

from page_server import DRAFTS, Served, ask, script, scripted, served  # noqa: E402

from llm_council import Council  # noqa: E402
from llm_council.results import CouncilResult  # noqa: E402
from llm_council.testing.fakes import ScriptedProvider  # noqa: E402

expect = sync_api.expect


@pytest.fixture(scope="module")
def council(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with thirty stored runs."""
    store = tmp_path_factory.mktemp("history") / "runs.db"

    def fill() -> None:
        with Council([ScriptedProvider(script(DRAFTS["ann"]), name="ann")], store=str(store)) as council:
            for number in range(30):
                council.run(f"Question {number}")

    with ThreadPoolExecutor(1) as thread:  # the driver of the browser has an event loop in this one
        thread.submit(fill).result(60)
    with served(scripted(), store) as server:
        yield server


def test_runs_are_listed_searched_and_paged(council: Served, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    page.goto(council.door)
    page.get_by_role("link", name="History").click()
    rows = page.locator("ol.runs > li")
    expect(rows).to_have_count(25)
    expect(rows.first).to_contain_text("Question 29")
    page.get_by_role("link", name="Older").click()
    expect(rows).to_have_count(5)
    expect(rows.last).to_contain_text("Question 0")
    page.get_by_label("Words in the task or the answer").fill("question 17")
    page.get_by_role("button", name="Search").click()
    expect(rows).to_have_count(1)
    page.get_by_label("Words in the task or the answer").fill("SKIP locked")
    page.get_by_label("Status").select_option("completed")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("status")).to_contain_text("30 runs found")
    expect(rows.first.locator("mark")).to_have_text("SKIP")
    page.get_by_role("link", name="Older").click()  # the search stays
    expect(rows).to_have_count(5)
    page.get_by_label("To").fill("2020-01-31")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("status")).to_contain_text("0 runs found")
    assert watched.problems == []


def test_answers_and_drafts_are_compared(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    with served(scripted(), tmp_path / "runs.db") as server:
        for task in ("The first", "The second"):
            ask(page, server, task)
            expect(page.locator("#facts .status")).to_have_text("completed")
        page.get_by_role("link", name="Compare the drafts").click()
        columns = page.locator(".column")
        expect(columns).to_have_count(2)
        page.get_by_role("checkbox", name="cy").check()
        page.get_by_role("button", name="Compare").click()
        expect(columns).to_have_count(3)
        for column, text in zip(columns.all(), DRAFTS.values(), strict=True):
            expect(column.locator(".answer")).to_contain_text(text.replace("**", ""))
            expect(column.locator(".only")).to_contain_text(text[-12:])
        page.goto(f"{server.url}/history")
        for box in page.locator("ol.runs").get_by_role("checkbox").all():
            box.check()
        page.get_by_role("button", name="Compare the marked answers").click()
        expect(columns).to_have_count(2)
        expect(page.locator(".hint")).to_contain_text("Each statement of one is in another one too")
    assert watched.problems == []


def test_a_run_is_downloaded(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    with served(scripted(), tmp_path / "runs.db") as server:
        ask(page, server)
        expect(page.locator("#facts .status")).to_have_text("completed")
        run_id = page.url.rpartition("/")[2]
        saved = {}
        for name, suffix in (("Download as HTML", "html"), ("Download as JSON", "json")):
            with page.expect_download() as download:
                page.get_by_role("link", name=name).click()
            assert download.value.suggested_filename == f"council-{run_id}.{suffix}"
            saved[suffix] = tmp_path / f"saved.{suffix}"
            download.value.save_as(saved[suffix])
    result = CouncilResult.from_dict(json.loads(saved["json"].read_text()))
    assert (result.run_id, list(result.drafts)) == (run_id, list(DRAFTS))
    page.goto(saved["html"].as_uri())
    expect(page.get_by_text("Start with Postgres")).to_be_visible()
    assert watched.problems == []
