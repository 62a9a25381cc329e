"""The report shows models' words and does nothing with them."""

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from llm_council.errors import ServerFailed
from llm_council.models import Plan, Problem, Ranking, Status
from llm_council.results import CallReport, CouncilResult, SeatReport
from llm_council.results._inert_markdown import rendered

HOSTILE = (
    "<script>alert(1)</script>\n"
    "<img src=http://evil.example/x.png>\n"
    "![x](http://evil.example/x.png) [x](javascript:alert(1))\n"
    "<http://evil.example>\n"
    "```\n</details>\n~~~\n````\n"
    "# heading\n\n---\n\n| a | b |\n"
    "[ref]: http://evil.example\n\x1b[31m\u202e"
)


def result(**facts: object) -> CouncilResult:
    plan = Plan(run_id="r1", task="A task", subagent="advisor")
    return CouncilResult(
        **{"run_id": "r1", "task": "A task", "subagent": "advisor", "status": "completed", "plan": plan} | facts
    )


def tokens(markdown: str) -> list[Token]:
    flat = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown):
        flat += [token, *(token.children or ())]
    return flat


def assert_inert(markdown: str) -> None:
    kinds = {token.type for token in tokens(markdown)}
    assert not kinds & {"html_block", "html_inline", "image", "link_open"}
    assert not any(ord(c) < 32 and c not in "\n\t" for c in markdown)


def everywhere(text: str) -> CouncilResult:
    return result(
        task=text,
        subagent=text,
        mode=text,
        text=text,
        output={text: text, "list": [text, [text], {text: [text, {text: text}]}]},
        chair=text,
        drafts={text: text},
        critiques={text: text},
        warnings=(text,),
        problems=(Problem(path=text, message=text),),
        seats=(
            SeatReport(
                name=text, provider=text, model=text, calls=[CallReport(phase="draft", error=ServerFailed(text))]
            ),
        ),
        ranking=Ranking(order=(text,), points={text: 1.0}),
    )


def test_known_markup_attacks_are_escaped_everywhere() -> None:
    markdown = everywhere(HOSTILE).to_markdown()
    assert_inert(markdown)
    headings = [
        token.content
        for token, before in zip(tokens(markdown)[1:], tokens(markdown), strict=False)
        if before.type == "heading_open"
    ]
    assert "heading" not in headings
    assert "Seats" in headings


marks = st.text(alphabet="`~<>![]()#*_-+=|&\\:/.\n\r\t\x00\x1b aw1$@{}\u2028\u202e", max_size=60)


@pytest.mark.slow
@given(marks)
def test_any_text_is_escaped_everywhere(text: str) -> None:
    assert_inert(everywhere(text).to_markdown())


@given(st.text(alphabet="`ab\n\x00", max_size=40))
def test_no_text_closes_its_code_block(text: str) -> None:
    task = f"A\n{text}b"
    blocks = [token for token in tokens(result(task=task).to_markdown()) if token.type == "fence"]
    assert [block.content.strip("\n") for block in blocks] == [task.replace("\x00", "␀").strip("\n")]


ANSWER = """## Verdict

Use **both** and `a|b`:

- one
  - nested
- two

| city | river |
| --- | ---: |
| Paris | `x \\| y` |

> a quote

```python
x = 1
```

See [the page](https://evil.example/) or <b>www.evil.example</b>.
"""


@pytest.mark.parametrize("facts", [{"text": ANSWER}, {"output": ANSWER}, {"output": {"answer": ANSWER}}])
def test_an_answer_stays_markdown_without_its_links_and_headings(facts: dict[str, object]) -> None:
    markdown = result(**facts).to_markdown()
    assert "## Answer\n\n**Verdict**\n\nUse **both** and `a|b`:\n\n- one\n  - nested\n- two\n\n" in markdown
    assert "| city | river |\n| --- | ---: |\n| Paris | `x \\| y` |\n" in markdown
    assert "\n> a quote\n" in markdown
    assert "```python\nx = 1\n```" in markdown
    assert r"See the page (https\://evil.example/) or &lt;b&gt;www\.evil" in markdown
    assert_inert(markdown)


def test_languages_that_a_page_would_draw_are_shown_as_text() -> None:
    assert "```text\ngraph TD\n```" in result(text="```mermaid\ngraph TD\n```").to_markdown()


@given(st.text(alphabet="`*_#>|-+1.)( \n\tab[]<&~\\\\=:!", max_size=80))
@example("**Head *x***")
@example("1. a\n\n   - b\n\n     c\n2. d")
def test_a_rendered_text_keeps_its_words_and_is_inert(text: str) -> None:
    markdown, _ = rendered(text)
    assert_inert(markdown)
    shown = "".join(token.content for token in tokens(markdown) if not token.children)
    missing = Counter(c for c in text if c.isalpha()) - Counter(c for c in shown if c.isalpha())
    assert not missing


def test_the_title_is_the_task_and_the_facts_have_date_and_subagent() -> None:
    plan = Plan(run_id="r1", task="t", subagent="advisor", created="2026-05-04T10:20:30Z")
    lines = result(task="Which *database*?", plan=plan, mode="short").to_markdown().splitlines()
    assert lines[0] == r"# Which \*database\*?"
    assert lines[2].startswith(
        "**Status:** completed · **Date:** 2026-05-04 10\\:20 UTC · **Subagent:** advisor (short)"
    )
    assert "## Task" not in lines
    assert "## Task" in result(task="Which?\nA or B").to_markdown()


def test_control_characters_are_made_visible_and_not_dropped() -> None:
    markdown = result(text="a\x1b[31mb", warnings=["c\x07d"], drafts={"ada": "e\u202ef"}).to_markdown()
    assert r"a␛\[31mb" in markdown
    assert "c␇d" in markdown
    assert "e&lt;U+202E&gt;f" in markdown


def test_an_answer_is_shown_by_its_fields() -> None:
    answer = {"review_summary": "Good.", "issues": [{"severity": "low", "fix": "a\nb"}], "score": 3, "none": []}
    markdown = result(output=answer, text="{...}").to_markdown()
    assert "**review summary:** Good." in markdown
    assert "- **severity:** low" in markdown
    assert "**score:** 3" in markdown


def test_a_failed_run_says_why() -> None:
    markdown = result(status=Status.FAILED, error=ServerFailed("overloaded")).to_markdown()
    assert "**Status:** failed" in markdown
    assert "**ServerFailed:** overloaded" in markdown


@pytest.mark.parametrize("text", ["3.14", "a-b", "2. b", "1) c", "+ d", "- e", "x = 1", "a_b*c", "A & B", "`x`", "$1"])
def test_inline_text_renders_as_the_original_text(text: str) -> None:
    parsed = MarkdownIt("commonmark").parse(result(warnings=[text]).to_markdown())
    shown = ["".join(child.content for child in token.children or ()) for token in parsed]
    assert text in shown


def test_urls_do_not_become_links() -> None:
    markdown = result(warnings=["see www.evil.example, http://evil.example or me@evil.example"]).to_markdown()
    assert r"www\.evil" in markdown
    assert r"http\://" in markdown
    assert r"me\@evil" in markdown
