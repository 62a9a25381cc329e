"""The page shows models' words and does nothing with them: whatever they say, it has the same elements."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_council.errors import QuorumLost, ServerFailed
from llm_council.errors._secrets import Secret, clean
from llm_council.models import Cost, Phase, PhaseTiming, Plan, Problem, Ranking, Status, Usage
from llm_council.results import CallReport, CouncilResult, SeatReport

ATTACKS = (
    "<script>alert(1)</script>",
    "</pre></main><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "<a href='javascript:alert(1)'>x</a>",
    "<link rel=stylesheet href=//evil.example>",
    "<!-- ",
    "--><base href=//evil.example>",
    "</style><style>@import '//evil.example';",
    "<![CDATA[",
    "&lt;script&gt;",
    "&#60;script&#62;",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "\x1b[31m\u202e\x00\ud800",
)
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section", "h1", "h2", "p", "pre"),
    *("ul", "li", "dl", "dt", "dd", "div", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "span"),
    *("strong", "code", "svg", "rect"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "dir", "viewbox", "preserveaspectratio", "role"),
    *("x", "y", "width", "height", "rx"),
}


class Page(HTMLParser):
    """What a browser would build: the elements with their attributes, and the text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.texts: list[str] = []
        self.others: list[str] = []
        self.open: list[str] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)


def result(**facts: object) -> CouncilResult:
    plan = Plan(run_id="r1", task="A task", subagent="advisor")
    return CouncilResult(
        **{"run_id": "r1", "task": "A task", "subagent": "advisor", "status": "completed", "plan": plan} | facts
    )


def everywhere(text: str) -> CouncilResult:
    return result(
        run_id=text,
        task=text,
        subagent=text,
        mode=text or "m",
        text=text,
        output={text: text, "list": [text, [text], {text: [text, {text: text}]}], "deep": deep(text)},
        chair=text or "c",
        drafts={text: text},
        critiques={text: text},
        warnings=(text,),
        error=QuorumLost(text),
        problems=(Problem(path=text, message=text),),
        seats=(
            SeatReport(
                name=text, provider=text, model=text, calls=[CallReport(phase="draft", error=ServerFailed(text))]
            ),
            SeatReport(name=text, provider=text),
        ),
        ranking=Ranking(order=(text,), points={text: 1.0}),
        plan=Plan(run_id="r1", task=text, subagent=text, strategy=text),
    )


def deep(text: str) -> object:
    value: object = text
    for _ in range(12):
        value = [value]
    return value


def skeleton(markup: str) -> list[tuple[str, tuple[tuple[str, str | None], ...]]]:
    page = Page(markup)
    assert not page.others
    assert not page.open
    return page.elements


hostile = st.one_of(
    st.text(max_size=80),
    st.lists(st.sampled_from((*ATTACKS, "<", ">", "&", '"', "'", "/", "=", " ", "\n")), max_size=10).map("".join),
)


@given(hostile)
@example("".join(ATTACKS))
def test_any_text_leaves_the_structure_of_the_page_unchanged(text: str) -> None:
    markup = everywhere(text).to_html()
    assert skeleton(markup) == skeleton(everywhere("x").to_html())
    assert not [c for c in markup if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]
    assert not set(markup) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    markup.encode()


@given(hostile)
def test_the_page_shows_all_text(text: str) -> None:
    shown = Page(result(drafts={"ann": text}).to_html()).texts
    cleaned = clean(text, limit=1 << 32).strip("\n")
    assert not cleaned or cleaned in shown


def test_the_page_loads_and_runs_nothing() -> None:
    markup = everywhere("".join(ATTACKS)).to_html()
    elements = skeleton(markup)
    assert {tag for tag, _ in elements} <= ELEMENTS
    assert {name for _, attributes in elements for name, _ in attributes} <= ATTRIBUTES
    style = re.search(r"<style>(.*?)</style>", markup, re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import|expression|<|\\", style[1])


def test_the_policy_allows_only_the_style_sheet_of_the_page() -> None:
    markup = result().to_html()
    metas = [dict(attributes) for tag, attributes in skeleton(markup) if tag == "meta"]
    policy = next(meta["content"] for meta in metas if meta.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", markup, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert markup.index("Content-Security-Policy") < markup.index("<style>")


def test_keys_are_masked() -> None:
    key = Secret("canary-in-the-coal-mine")
    assert "canary" not in everywhere(f"the key is {key.reveal()}").to_html()


def test_the_page_shows_status_chair_time_tokens_and_cost() -> None:
    seats = (
        SeatReport(name="ann", provider="openai", model="gpt-5-mini", calls=[CallReport(phase="draft", elapsed=1.25)]),
        SeatReport(name="bob", provider="local"),
    )
    facts = {
        "status": Status.DEGRADED,
        "chair": "ann",
        "duration": 2.5,
        "usage": Usage(input_tokens=1200, output_tokens=34),
        "cost": Cost(usd=0.0123, source="table", complete=False),
        "seats": seats,
        "output": {"all_good": None, "score": 3},
        "phases": (PhaseTiming(phase=Phase.DRAFT, started=0.5, elapsed=1.0),),
        "ranking": Ranking(order=("ann",), points={"ann": 1.0}),
    }
    page = Page(result(**facts).to_html())
    text = "".join(page.texts)
    for cleaned in ("degraded", "chair ann", "2.5 s", "1,234 tokens", "at least 0.0123 USD", "all good—", "score3"):
        assert cleaned in text
    assert "draft ranked 1, chair" in text
    assert "not asked" in text
    bar = next(dict(attributes) for tag, attributes in page.elements if tag == "rect")
    assert (bar["x"], bar["width"]) == ("200", "400")


@pytest.mark.parametrize("phases", [(), (PhaseTiming(phase=Phase.DRAFT, started=0.0, elapsed=0.0),)])
def test_a_run_of_zero_seconds_has_a_page(phases: tuple[PhaseTiming, ...]) -> None:
    failed = result(status=Status.FAILED, error=QuorumLost("nobody answered"), phases=phases)
    text = "".join(Page(failed.to_html()).texts)
    assert "QuorumLost: nobody answered" in text
    assert "Answer" not in text
    assert "half of it" in "".join(Page(attrs.evolve(failed, text="half of it").to_html()).texts)
