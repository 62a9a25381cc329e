"""The list of runs, comparisons, downloads and reports of the page, and names that lead elsewhere (tox -e serve)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_council import CouncilConfig
from llm_council.results import CouncilResult

pytestmark = pytest.mark.serve

DRAFTS = {"ann": "Straße und *Öl*: take Postgres.", "bob": "Take Postgres, it is there.", "cy": "Take Redis."}


def seats() -> dict[str, Any]:
    return {
        name: {"script": {"draft": text, "critique": "A: fine", "synthesise": f"The answer: {text}"}}
        for name, text in DRAFTS.items()
    }


@pytest.fixture
def browser(browse: Callable[..., Any], tmp_path: Path) -> Any:
    """A browser of a server that stores its runs."""
    found = browse(config=CouncilConfig(store=str(tmp_path / "runs.db")), **seats())
    found.open()
    return found


def rows_of(html: str) -> int:
    return html.count('name="run" value=')


def test_a_search_reads_tasks_and_answers(browser: Any) -> None:
    for task in ("Which queue?", "Which QUEUE of two?", "What colour?"):
        browser.end_of(browser.ask(task))
    assert rows_of(browser.get("/history")) == 3
    assert rows_of(browser.get("/history?q=queue+which")) == 2
    assert rows_of(browser.get("/history?q=the+answer")) == 3
    assert "<mark>answer</mark>" in browser.get("/history?q=answer")
    assert rows_of(browser.get("/history?q=unheard")) == 0
    assert rows_of(browser.get("/history?status=failed")) == 0
    assert rows_of(browser.get("/history?role=advisor&since=2020-01-01")) == 3
    assert rows_of(browser.get("/history?until=2020-01-01")) == 0
    assert rows_of(browser.get("/history?page=99999999999999999999")) == 3
    assert browser.client.get("/history?since=yesterday").status_code == 400


def test_without_a_store_the_runs_of_the_last_hour_are_listed(browse: Callable[..., Any]) -> None:
    browser = browse()
    browser.open()
    assert "This server stores nothing" in browser.get("/history")
    run = browser.ask("Which queue?")
    browser.end_of(run)
    listed = browser.get("/history?q=final")
    assert rows_of(listed) == 1
    assert f'href="{run}"' in listed
    assert json.loads(browser.get(f"{run}/download.json"))["output"] == "The **final** answer."


def test_downloads_are_files_with_safe_names(browser: Any) -> None:
    run = browser.ask("Which queue?")
    browser.end_of(run)
    name = run.rpartition("/")[2]
    page, data = (browser.client.get(f"{run}/download.{kind}") for kind in ("html", "json"))
    assert page.headers["content-disposition"] == f'attachment; filename="council-{name}.html"'
    assert data.headers["content-disposition"] == f'attachment; filename="council-{name}.json"'
    for reply in (page, data):
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert CouncilResult.from_dict(data.json()).run_id == name
    assert page.text.startswith("<!doctype html>")
    assert 'http-equiv="Content-Security-Policy"' in page.text


@pytest.mark.parametrize("name", ["unknown", "..", "%2e%2e%2fetc", "a b", "%00", "x" * 500, "%0d%0aSet-Cookie:a=b"])
def test_a_run_that_is_not_there_is_not_found(browser: Any, name: str) -> None:
    browser.end_of(browser.ask("Which queue?"))
    for end in ("/compare", "/download.html", "/download.json"):
        reply = browser.client.get(f"/runs/{name}{end}")
        assert reply.status_code in (400, 404), reply.text
        assert "set-cookie" not in reply.headers


def test_what_cannot_be_compared_is_refused(browser: Any) -> None:
    run = browser.ask("Which queue?", seat=["ann"])
    browser.end_of(run)
    name = run.rpartition("/")[2]
    assert browser.client.get(f"{run}/compare").status_code == 404
    for query in ("", f"?run={name}", f"?run={name}&run={name}", "?run=a&run=b", "?" + "&".join(["run=a"] * 2000)):
        assert browser.client.get(f"/compare{query}").status_code in (400, 404), query


def reports(folder: Path) -> Path:
    """Return a folder with a report, and others beside it that no one may read."""
    from llm_council.evals import replay
    from tests.evals.record import FOLDER

    inside = folder / "reports"
    replay(FOLDER).save(inside / "first run")
    replay(FOLDER).save(folder / "secret")
    (inside / "tasks.json").write_text('{"tasks": []}')
    (inside / "broken.json").write_text("{")
    (inside / "deep.json").write_text("[" * 100_000)
    (inside / "link.json").symlink_to(folder / "secret" / "report.json")
    (inside / "linked").symlink_to(folder / "secret")
    return inside


def test_reports_are_listed_and_shown(browse: Callable[..., Any], tmp_path: Path) -> None:
    browser = browse(evaluations=reports(tmp_path))
    browser.open()
    listed = browser.get("/evaluations")
    assert listed.count('href="/evaluations/') == 1
    shown = browser.get("/evaluations/first%20run/report")
    assert "<h2>Score and cost</h2>" in shown
    assert " style=" not in shown
    assert browser.client.get("/evaluations/style.css").headers["content-type"].startswith("text/css")


@pytest.mark.parametrize(
    "name",
    [
        "../secret/report",
        "%2e%2e/secret/report",
        "..%2fsecret%2freport",
        "first%20run/../../secret/report",
        "link",
        "linked/report",
        "tasks",
        "broken",
        "deep",
        "first%20run/report.json",
        "first%20run/report%00",
        "/etc/passwd",
        "",
    ],
)
def test_no_name_leads_out_of_the_folder(browse: Callable[..., Any], tmp_path: Path, name: str) -> None:
    browser = browse(evaluations=reports(tmp_path))
    browser.open()
    # As it is: httpx would resolve the dots.
    reply = browser.client.get(browser.client.base_url.copy_with(raw_path=f"/evaluations/{name}".encode()))
    assert reply.status_code == 404, reply.text
    assert "Score and cost" not in reply.text


def test_a_folder_that_vanishes_lists_nothing(browse: Callable[..., Any], tmp_path: Path) -> None:
    folder = reports(tmp_path)
    browser = browse(evaluations=folder)
    browser.open()
    shutil.rmtree(folder)
    assert "No report is in" in browser.get("/evaluations")


def test_without_a_folder_there_are_no_reports(browser: Any) -> None:
    assert browser.client.get("/evaluations").status_code == 404
    assert "Evaluations" not in browser.get("/history")
