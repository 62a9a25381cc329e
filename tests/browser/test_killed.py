"""A server that is killed in the middle of a run: the button of the page ends the run after the next start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the environment browser installs it")

from page_server import TOKEN  # noqa: E402

expect = sync_api.expect

# The command with three scripted seats: the first argument says which of them never answer, the second is a file to
# which each call appends a line.
SEATED = """
import sys
from pathlib import Path
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider
from llm_council.cli import main

hung, calls, *sys.argv[1:] = sys.argv[1:]

def replies(name):
    def reply(request):
        with Path(calls).open("a") as file:
            file.write(f"{name} {request.metadata.get('phase')}\\n")
        return {"draft": f"{name} thinks so.", "critique": "RANKING: A > B"}.get(
            request.metadata.get("phase"), "The final answer is here.")
    return reply

seats = {
    name: ScriptedProvider(replies(name), name=name, delay=float("inf") if name in hung.split(",") else 0.0)
    for name in ("ann", "bob", "cy")
}
with registry.overriding(**seats):
    main()
"""


@contextmanager
def started(folder: Path, hung: str) -> Iterator[tuple[Any, str]]:
    """Start the command, and yield its process and the address of the page."""
    (folder / "start.py").write_text(SEATED)
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "LLM_COUNCIL_SERVE_TOKEN": TOKEN,
    }
    command = [sys.executable, str(folder / "start.py"), hung, str(folder / "calls"), "serve", "-p", "ann,bob,cy"]
    command += ["--chair", "cy", "--strategy", "synthesize", "--port", "0", "--store", str(folder / "runs.db")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            lines = dict(running.stdout.readline().split() for _ in range(3))
            yield running, lines["page"]
        finally:
            running.kill()


def test_the_button_resumes_a_run_that_was_cut_off(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    with started(tmp_path, hung="bob") as (running, door):
        page.goto(door)
        page.get_by_label("Task").fill("Which queue fits?")
        page.get_by_role("button", name="Ask").click()
        page.wait_for_url("**/runs/*")
        card = page.locator("#phase-draft .card", has_text="ann")
        expect(card).to_contain_text("done")
        expect(card).to_contain_text("ann thinks so.")
        site, _, run_id = page.url.partition("/runs/")
        # Durable before the kill: a reader of the store sees the answer of ann.
        page.goto(f"{site}/history")
        expect(page.locator("ol.runs > li")).to_contain_text("1 call")
        page.goto("about:blank")
        running.kill()
        running.wait(20)
    with started(tmp_path, hung="") as (_, door):
        page.goto(door)
        page.get_by_role("link", name="History").click()
        expect(page.locator("ol.runs .status")).to_have_text("interrupted")
        page.locator("ol.runs").get_by_role("link").first.click()
        expect(page.get_by_text("The run was cut off after 1 call")).to_be_visible()
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#facts .status")).to_have_text("completed")
        expect(page.locator("#result .answer")).to_contain_text("The final answer is here.")
        expect(page.locator("#phase-draft .card", has_text="ann")).to_contain_text("ann thinks so.")
        assert page.url.endswith(f"/runs/{run_id}")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls.count("ann draft") == 1  # not paid for twice
    assert watched.problems == []
