"""Every page by axe, light, dark and narrow; and nothing is scrolled sideways on a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the environment browser installs it")
axe = pytest.importorskip("axe_playwright_python.base", reason="the environment browser installs it")

from page_server import ANSWER, DRAFTS, Gated, Served, ask, open_gates, script, served  # noqa: E402

from llm_council.errors import ServerFailed  # noqa: E402
from llm_council.evals import replay  # noqa: E402
from llm_council.testing.fakes import ScriptedProvider  # noqa: E402
from tests.evals.record import FOLDER  # noqa: E402

expect = sync_api.expect

# Colours do not depend on the width: each of both is seen once.
VIEWS = {
    "wide and light": {"color_scheme": "light", "viewport": {"width": 1100, "height": 800}},
    "narrow and dark": {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}},
}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

# What makes pages wide: a word without an end, a table of many columns, code of one long line.
WIDE = (
    f"A {'very' * 60}long word.\n\n"
    f"| {' | '.join('abcdefgh')} |\n|{'---|' * 8}\n| {' | '.join(['a cell of words'] * 8)} |\n\n"
    f"```python\n{'x = 1; ' * 60}\n```\n\n> quoted\n\n1. one\n2. two"
)


def violations(page: Any) -> list[str]:
    """Return what axe finds on a page that is serious or critical."""
    page.evaluate(axe.AXE_SCRIPT)
    found = page.evaluate(
        "rules => axe.run({ runOnly: rules, resultTypes: ['violations'], preload: false, iframes: false })", RULES
    )
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {[node['html'][:160] for node in one['nodes'][:3]]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def is_wider_than_the_window(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


@pytest.fixture(scope="module")
def council(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose store has a degraded run and a failed one, and a report of an evaluation."""
    folder = tmp_path_factory.mktemp("accessibility")
    report = replay(FOLDER)
    report.save(folder / "reports" / "first")
    seats: dict[str, Any] = {name: Gated(script(f"{text}\n\n{WIDE}"), name=name) for name, text in DRAFTS.items()}
    seats["dan"] = Gated({"*": ServerFailed(f"Overloaded: {'x' * 300}", status=529)}, name="dan")
    seats["zoe"] = Gated(script(f"{ANSWER}\n\n{WIDE}"), name="zoe")
    seats["zoe"]._script["synthesise"] = f"{ANSWER}\n\n{WIDE}"
    with served(seats, folder / "runs.db", folder / "reports") as server:
        yield server


@pytest.mark.timeout(200)  # axe takes seconds for each page, on a busy machine several times as many
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious_and_nothing_is_scrolled_sideways(
    council: Served, open_page: Callable[..., Any], view: str
) -> None:
    watched = open_page(**VIEWS[view])
    page = watched.page
    faults: dict[str, Any] = {}

    def look(name: str) -> None:
        found = violations(page)
        if is_wider_than_the_window(page):
            found.append("wider than the window")
        if found:
            faults[name] = found

    for seat in council.seats.values():
        seat.gate.clear()
    page.goto(council.door)
    page.get_by_text("Context and limits").click()
    page.get_by_label("Seconds at most").fill("soon")
    ask_again = page.get_by_role("button", name="Ask")
    page.get_by_label("Task").fill("Which queue fits?")
    ask_again.click()
    expect(page.get_by_role("alert")).to_be_visible()
    watched.problems.clear()  # the form was refused, as it should be
    look("the form with an error")
    ask(page, council, f"Which queue fits? {'wide' * 40}")
    expect(page.locator("#phase-draft .words").first).to_contain_text("Use")
    look("a running run")
    open_gates(council)
    expect(page.locator("#facts .status")).to_have_text("degraded")
    run = page.url
    page.reload()
    page.get_by_text("Where the drafts differ").click()
    look("a stored run")
    for name, path in {
        "a search": "/history?q=RabbitMQ&status=degraded",
        "reports": "/evaluations",
        "a report": "/evaluations/first/report",
    }.items():
        page.goto(f"{council.url}{path}")
        look(name)
    page.goto(f"{run}/compare?seat=ann&seat=bob&seat=cy")
    look("drafts side by side")
    assert faults == {}
    assert watched.problems == []
    page.goto(f"{council.url}/runs/unknown")
    look("an error")
    assert faults == {}
    assert watched.elsewhere(council.url) == []


def test_a_failed_run_says_why(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    down = {"*": ServerFailed("Overloaded: come back later", status=529)}
    watched = open_page(**VIEWS["narrow and dark"])
    page = watched.page
    with served({name: ScriptedProvider(down, name=name) for name in DRAFTS}, tmp_path / "runs.db") as server:
        ask(page, server)
        expect(page.locator("#facts .status")).to_have_text("failed")
        for _ in range(2):
            expect(page.locator("#result > .error")).to_contain_text("QuorumLost")
            expect(page.locator("#phase-draft")).to_contain_text("Overloaded: come back later")
            assert violations(page) == []
            page.reload()
    assert watched.problems == []
