"""The report and the notebook's card show models' words and obey none: no text makes an element beyond Markdown's."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_council.errors import QuorumLost, ServerFailed
from llm_council.errors._secrets import Secret
from llm_council.errors._visible import visible
from llm_council.models import Cost, Phase, PhaseTiming, Plan, Problem, Ranking, Status, Usage
from llm_council.results import CallReport, CouncilResult, SeatReport
from tests.results.test_untrusted import HOSTILE
from tests.strategies import examples

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
MARKDOWN = {
    *("p", "br", "hr", "h3", "h4", "h5", "h6", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
PAGE = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section", "h1", "h2", "h3", "p"),
    *("pre", "ul", "li", "dl", "dt", "dd", "div", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"),
    *("span", "strong", "code", "svg", "rect"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "dir", "viewbox", "preserveaspectratio", "role"),
    *("x", "y", "width", "height", "rx", "data-label", "align", "start", "tabindex"),
}
ACTIVE_ELEMENTS = {"a", "img", "script", "iframe", "link", "base", "form", "input"}
BIDIRECTIONAL = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


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
        if tag not in ("meta", "br", "hr"):
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


def assert_harmless(markup: str, *, page: bool = True) -> Page:
    """Check that the markup has nothing but elements and attributes of ours and of harmless Markdown."""
    shown = Page(markup)
    assert not shown.others
    assert not shown.open
    assert {tag for tag, _ in shown.elements} <= (PAGE if page else PAGE - {"html", "head", "meta", "body"}) | MARKDOWN
    assert {name for _, attributes in shown.elements for name, _ in attributes} <= ATTRIBUTES
    assert sum(tag == "style" for tag, _ in shown.elements) == 1
    assert not [c for c in markup if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]
    assert not set(markup) & BIDIRECTIONAL
    markup.encode()
    return shown


hostile = st.one_of(
    st.text(max_size=80),
    st.lists(st.sampled_from((*ATTACKS, "<", ">", "&", '"', "'", "/", "=", " ", "\n")), max_size=10).map("".join),
)


@given(hostile)
@examples(25)
@example("".join(ATTACKS))
@example("\n\n".join(HOSTILE.values()))
def test_no_text_makes_markup_beyond_harmless_markdown(text: str) -> None:
    run = everywhere(text)
    assert_harmless(run.to_html())
    assert_harmless(run._repr_html_() or "", page=False)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_markdown_makes_no_link_and_loads_nothing(text: str) -> None:
    run = everywhere(text)
    for markup in (run.to_html(), run._repr_html_() or ""):
        shown = Page(markup)
        assert not {tag for tag, _ in shown.elements} & ACTIVE_ELEMENTS
        assert not {name for _, found in shown.elements for name, _ in found} & {"href", "src", "style", "onerror"}


@given(st.text(alphabet="abc <&\"'\u00e9", max_size=80))
@examples(20)
def test_the_page_shows_all_text(text: str) -> None:
    run = result(drafts={"ann": text}, warnings=(text,), output={"answer": text})
    shown = "".join(Page(run.to_html()).texts)
    card = "".join(Page(run._repr_html_() or "").texts)
    for word in visible(text).split():
        assert shown.count(word) >= 3 * text.split().count(word)
        assert word in card


def test_the_page_loads_and_runs_nothing() -> None:
    markup = everywhere("".join(ATTACKS)).to_html()
    style = re.search(r"<style>(.*?)</style>", markup, re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import|expression|<|\\", style[1])


def test_the_policy_allows_only_the_style_sheet_of_the_page() -> None:
    markup = result().to_html()
    metas = [dict(attributes) for tag, attributes in Page(markup).elements if tag == "meta"]
    policy = next(meta["content"] for meta in metas if meta.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", markup, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert markup.index("Content-Security-Policy") < markup.index("<style>")


def test_keys_are_masked() -> None:
    key = Secret("canary-in-the-coal-mine")
    run = everywhere(f"the key is {key.reveal()}")
    assert "canary" not in run.to_html() + (run._repr_html_() or "")


def test_the_page_shows_status_date_models_chair_time_tokens_and_cost() -> None:
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
        "plan": Plan(run_id="r1", task="A task", subagent="advisor", created="2026-11-30T12:29:02Z"),
    }
    page = Page(result(**facts).to_html())
    text = "".join(page.texts)
    for said in (
        "degraded",
        "2026-11-30 12:29 UTC",
        "chair ann",
        "2.5 s",
        "1,234 tokens",
        "at least 0.0123 USD",
        "all good—",
        "score3",
        "gpt-5-mini, local",
    ):
        assert said in text
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


LONG = "Which database shall we use? " * 12


def test_the_task_is_the_title_and_a_long_one_is_folded_below() -> None:
    page = result(task="Where\nis it?").to_html()
    assert "<title>Where is it?</title>" in page
    assert '<h1 dir="auto">Where is it?</h1>' in page
    assert "The whole task" not in Page(result(task="Where?").to_html()).texts
    long = Page(result(task=LONG).to_html())
    heading = long.texts[long.texts.index("advisor") + 1]
    assert heading.endswith("…")
    assert len(heading) <= 141
    assert LONG in long.texts


DRAFTS = {
    "ann": "# Answer\n\nUse PostgreSQL for this.\n\n- It is **fast**: 12,000 writes a second.",
    "bob": "Use PostgreSQL for this!\n\n- It is fast: 900 writes a second.\n- It needs a backup.",
}


def test_the_page_begins_with_where_the_drafts_differ_and_folds_drafts_and_reviews() -> None:
    run = result(output={"answer": "PostgreSQL."}, drafts=DRAFTS, critiques={"ann": "Draft A (bob) has *no* numbers."})
    page = Page(run.to_html())
    order = [page.texts.index(text) for text in ("Answer", "Where the drafts differ", "Drafts", "Reviews", "Seats")]
    assert order == sorted(order)
    assert {"Only ann", "Only bob", "It needs a backup.", "It is fast: 12,000 writes a second."} <= set(page.texts)
    folds = [dict(attributes) for tag, attributes in page.elements if tag == "details"]
    assert len(folds) == 3
    assert not any("open" in attributes for attributes in folds)
    assert "<em>no</em>" in run.to_html()


def test_one_draft_differs_from_none() -> None:
    assert "differ" not in "".join(Page(result(drafts={"ann": "x"}).to_html()).texts)


# The card in a notebook


def height(card: str) -> int:
    """Return roughly how many lines a card takes while its folds are closed."""
    card = re.sub(r"<style>.*?</style>", "", card, flags=re.DOTALL)
    while re.search(r"<details>(?:(?!<details>).)*?</details>", card, re.DOTALL):
        card = re.sub(r"<details>(?:(?!<details>).)*?</details>", "<fold>", card, flags=re.DOTALL)
    text = re.sub(r"</?(?:p|li|pre|tr|div|ul|ol|h\d|fold)[^>]*>", "\n", card)
    return sum(-(-len(line) // 80) for line in re.sub(r"<[^>]+>", "", text).split("\n") if line.strip())


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    ["Paris.", "word " * 4000, "line\n\n" * 500, "- item\n" * 300, "```\n" + "x = 1\n" * 200 + "```", "x" * 20_000],
)
@pytest.mark.parametrize("as_object", [True, False])
def test_a_card_is_at_most_one_screen_and_has_all_in_folds(answer: str, *, as_object: bool) -> None:
    output = {"answer": answer, "reasoning": "because " * 900} if as_object else None
    drafts = {f"seat-{number}": f"{answer[:300]} {number}" for number in range(12)}
    run = result(task=LONG, output=output, text=answer, drafts=drafts, critiques=drafts, warnings=("warned",) * 50)
    card = run._repr_html_() or ""
    assert height(card) <= 32
    text = "".join(Page(card).texts)
    last = re.findall(r"\w+", answer)[-1]
    assert text.count(last) >= answer.count(last)
    assert "because because" in text or not as_object
    for name in ("Where the drafts differ", "Drafts (12)", "Reviews (12)", "Notes (50)"):
        assert name in text


def test_the_start_of_an_answer_never_leaves_a_code_block_open() -> None:
    text = "Intro.\n\n```python\n" + "x = 1\n" * 50 + "```\n\nThe end."
    card = result(text=text)._repr_html_() or ""
    assert card.count("<code") == card.count("</code>")
    assert "The whole answer" in card
    opening = "\n".join(["Line."] * 11) + "\n```python\nx = 1\n```"
    assert "```" not in "".join(Page(result(text=opening)._repr_html_() or "").texts)


@pytest.mark.parametrize("before", [8, 9, 10, 11])
def test_a_card_does_not_cut_a_short_table(before: int) -> None:
    table = "| city | river |\n|---|---|\n| Paris | Seine |\n| Rome | Tiber |"
    card = result(text="- line\n" * before + f"\n{table}\n\nThe end.")._repr_html_() or ""
    shown = card.partition("<details>")[0]
    assert ">river<" in shown
    assert ">Tiber<" in shown
    assert "The whole answer" in card


def test_a_card_shows_no_table_header_without_a_row() -> None:
    rows = "\n".join(f"| {number} | x |" for number in range(40))
    card = result(text="- line\n" * 9 + f"\n| city | river |\n|---|---|\n{rows}")._repr_html_() or ""
    assert "river" not in card.partition("<details>")[0]
    assert card.count("river") == 1


def test_the_card_of_a_failed_run_says_why() -> None:
    failed = result(status=Status.FAILED, error=QuorumLost("nobody answered"), errors={"ann": ServerFailed("busy")})
    text = "".join(Page(failed._repr_html_() or "").texts)
    assert "QuorumLost: nobody answered" in text
    assert "ann: ServerFailed: busy" in text


def test_mathematics_in_a_card_is_not_typeset() -> None:
    # A typeset formula can contain a link: \\href{...}.
    assert 'class="llm-council mathjax_ignore tex2jax_ignore"' in (result()._repr_html_() or "")


def test_reasons_that_a_model_did_not_give_have_no_title() -> None:
    shown = result(output={"answer": "Paris.", "reasoning": ""}, task="Where?")
    assert "reasoning" not in "".join(Page(shown.to_html()).texts)
    assert "reasoning" not in "".join(Page(shown._repr_html_()).texts)
