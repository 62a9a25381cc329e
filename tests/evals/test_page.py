"""The report as a page: it loads and runs nothing, whatever models and task sets say; its charts hold every arm."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.evals import EvalReport, replay
from llm_council.evals.report import DifferingTask
from llm_council.evals.svg import WIDTH, Axis, Mark, scatter
from tests.evals.record import FOLDER

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> [a](javascript:alert(1)) | `x` \u202e"


@pytest.fixture(scope="module")
def report() -> EvalReport:
    return replay(FOLDER)


class Tags(HTMLParser):
    """Collects elements and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def test_the_page_shows_every_arm_and_verdict(report: EvalReport) -> None:
    page = report.to_html()
    for row in report.rows:
        assert f">{row.arm}<" in page
    for words in ("Score and cost", "Gain over the best seat", "Headroom", "If the poll abstains", "Limits"):
        assert f"<h2>{words}</h2>" in page
    assert page.count("<svg") == 5


def test_the_page_loads_nothing(report: EvalReport) -> None:
    hostile = DifferingTask(
        id=HOSTILE, question=HOSTILE, target=HOSTILE, answers={"poll": HOSTILE}, points={"poll": 0.0}
    )
    dangerous = attrs.evolve(report, name=HOSTILE, differing=[hostile], warnings=[HOSTILE])
    page = dangerous.to_html()
    tags = Tags(page).found
    assert {tag for tag, _ in tags}.isdisjoint({"script", "img", "link", "iframe", "a", "object", "form", "base"})
    names = {name for _, attributes in tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in ("src", "href", "style")]
    assert any("default-src 'none'" in str(attributes.get("content")) for tag, attributes in tags if tag == "meta")
    assert "url(" not in page
    assert "\u202e" not in page
    assert re.search(r"(?<!\\)[<\[\]`]", dangerous.to_markdown()) is None


def test_the_page_adapts_to_dark_screens_and_narrow_ones(report: EvalReport) -> None:
    page = report.to_html()
    assert "prefers-color-scheme: dark" in page
    assert 'content="width=device-width, initial-scale=1"' in page
    # Charts and the table are scrolled within their own box, so the page itself never is.
    assert page.count('class="scroll"') == page.count("<svg") + 1


places = st.floats(1e-6, 1e6)


@given(st.lists(st.tuples(places, st.floats(0, 1)), min_size=1, max_size=30))
def test_every_mark_and_name_is_inside_the_chart(points: list[tuple[float, float]]) -> None:
    marks = [Mark(x=x, y=y, name=f"arm {number}", kind="seat") for number, (x, y) in enumerate(points)]
    x = Axis.over([x for x, _ in points], "cost", log=True)
    y = Axis.over([y for _, y in points], "score", percent=True)
    drawing = scatter(x, y, marks, [], "all")
    assert drawing.count("<circle") == len(points)
    for at in re.findall(r'c?x="([-\d.]+)"', drawing):
        assert 0 <= float(at) <= WIDTH
    for axis in (x, y):
        assert all(-1e-9 <= axis.place(value) <= 1 + 1e-9 for value, _ in axis.ticks())


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=10))
def test_an_axis_has_a_place_and_round_labels_for_all_values(values: list[float]) -> None:
    axis = Axis.over(values, "points")
    assert all(0 <= axis.place(value) <= 1 for value in values)
    assert 2 <= len(list(axis.ticks())) <= 12
