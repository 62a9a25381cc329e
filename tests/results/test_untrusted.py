"""Markdown of a model: shown as HTML and in a terminal, whatever it says harmless, and complete."""

from __future__ import annotations

import io
import re
import unicodedata
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from llm_council.errors._secrets import Secret
from llm_council.results._untrusted import markdown_to_html, markdown_to_terminal
from tests.strategies import examples

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "script in a list": "- a\n- <script>alert(1)</script>",
    "event handler": "<img src=x onerror=alert(1)>",
    "block of HTML": "<div style='position:fixed'>\n\nx\n\n</div>",
    "comment": "<!-- hidden -->",
    "javascript link": "[x](javascript:alert(1))",
    "javascript link with a tab": "[x](java\tscript:alert(1))",
    "javascript link with an entity": "[x](&#106;avascript:alert(1))",
    "javascript link by reference": "[x][r]\n\n[r]: javascript:alert(1)",
    "javascript autolink": "<javascript:alert(1)>",
    "link": "[x](https://evil.example/)",
    "link to data": "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "link without scheme": "[x](//evil.example/)",
    "link with a title": "[x](https://a.example '\"><script>')",
    "link out of an attribute": '[x](https://a.example/"onmouseover="alert(1))',
    "bare address": "https://evil.example/",
    "image": "![x](https://evil.example/?q=secret)",
    "image in a link": "[![x](https://evil.example/a.png)](https://evil.example/)",
    "language of a fence": '```"><script>alert(1)</script>\nx\n```',
    "style of a cell": "| a |\n|:-:|\n| <b style=x> |",
    "terminal link": "\x1b]8;;https://evil.example\x1b\\good.example\x1b]8;;\x1b\\",
    "terminal clipboard": "```\n\x1b]52;c;aGk=\x07\n```",
    "terminal colours": "**\x1b[2J\x1b[31mred**",
    "C1 control": "\x9b31m",
    "overwritten line": "good\rbad",
    "right-to-left override": "abc\u202edcba",
    "NUL and DEL": "a\x00b\x7f",
    "lone surrogate": "\ud83d",
    "rich markup": "[link=https://evil.example]x[/link] [bold]y[/bold]",
    "emoji code of rich": ":skull:",
}
ALLOWED = {
    *("p", "br", "hr", "h3", "h4", "h5", "h6", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
MARKUP = "\\`*_[]()<>#+-.!|~:&\"' \t\n"


class Fragment(HTMLParser):
    """What a browser would build of a fragment."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.others: list[str] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes.extend(attributes)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    unknown_decl = handle_pi = handle_comment


def terminal(text: str, width: int = 80) -> str:
    """Return what a terminal of this width is sent."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="truecolor", width=width, legacy_windows=False)
    console.print(markdown_to_terminal(text))
    return file.getvalue()


def plain_terminal(text: str, width: int = 80) -> str:
    """Return the same without colours and trailing blanks."""
    sent = re.sub(r"\x1b\[[0-9;]*m", "", terminal(text, width))
    return "\n".join(line.rstrip() for line in sent.splitlines())


def assert_harmless(text: str) -> None:
    page = Fragment(markdown_to_html(text))
    assert set(page.elements) <= ALLOWED
    assert {name for name, _ in page.attributes} <= {"start", "align", "tabindex"}
    assert not page.others
    shown = plain_terminal(text)
    assert not [c for c in page.text + shown if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]
    assert not set(page.text + shown) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def letters(text: str) -> list[str]:
    return sorted(c for c in text if c.isalpha())


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_markdown_is_shown_and_not_obeyed(text: str) -> None:
    assert_harmless(text)
    assert_harmless(f"# {text}\n\n| {text} | b |\n|---|---|\n| c | {text} |\n\n> - {text}")


@given(st.text(alphabet=st.sampled_from([*MARKUP, *"ab1", "\x1b", "\x9b", "\u202e", "é", "漢"]), max_size=120))
@examples(100)
@example("```\n[link")
def test_no_markdown_makes_markup_or_terminal_commands(text: str) -> None:
    assert_harmless(text)


@given(st.text(alphabet=st.sampled_from([*MARKUP, *"abc12", "é", "漢"]), max_size=120))
@examples(100)
@example("> " * 40 + "deep")
@example("- " * 40 + "deep")
@example("| a |\n|---|\n| b | beyond |")
@example("```words beside a fence\n```")
@example('[a](b "title")')
@example("[a]: unused")
@example("&nbsp;a&copy;")
def test_every_letter_of_the_text_is_shown(text: str) -> None:
    source = letters(re.sub(r"&#?\w+;", "", text))
    for shown in (Fragment(markdown_to_html(text)).text, plain_terminal(text)):
        missing = letters(shown)
        for letter in source:
            assert letter in missing, f"{text!r} is shown as {shown!r}"
            missing.remove(letter)


@given(st.text(alphabet=st.sampled_from([*MARKUP, "a", "漢"]), max_size=60), st.integers(2, 40))
@examples(30)
@example("> - " * 9 + "x", 8)
def test_a_narrow_terminal_is_no_error(text: str, width: int) -> None:
    assert letters(plain_terminal(text, width)) == letters(plain_terminal(text, 200))


def test_markdown_becomes_html() -> None:
    table = "| a | b |\n|---|--:|\n| c | d |"
    text = f"# Title\n\nA **bold** and `code`.\n\n3. three\n4. four\n\n{table}\n\n```python\nx = 1\n```"
    assert markdown_to_html(text).replace("\n", "") == (
        "<h3>Title</h3><p>A <strong>bold</strong> and <code>code</code>.</p>"
        '<ol start="3"><li>three</li><li>four</li></ol>'
        '<table tabindex="0"><thead><tr><th>a</th><th align="right">b</th></tr></thead>'
        '<tbody><tr><td>c</td><td align="right">d</td></tr></tbody></table>'
        "<pre><code>x = 1</code></pre>"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see [the page](https://a.example/b?c=d&e)", "see the page (https://a.example/b?c=d&e)"),
        ("<https://a.example/>", "https://a.example/"),
        ("<me@a.example>", "me@a.example"),
        ('[x](https://a.example "Title")', 'x (https://a.example "Title")'),
        ("![cat](https://a.example/cat.png)", "!cat (https://a.example/cat.png)"),
    ],
)
def test_a_link_becomes_its_words_and_its_address(text: str, shown: str) -> None:
    assert unescape(markdown_to_html(text)) == f"<p>{shown}</p>\n"
    assert plain_terminal(text) == shown


def test_markdown_becomes_styled_text_in_the_terminal() -> None:
    text = "# Title\n\nSome **bold** words.\n\n- one\n- two\n\n```python\nx = 1\n```\n\n> quoted"
    lines = ["Title", "", "Some bold words.", "", " • one", " • two", "", "  x = 1", "", "▌ quoted"]
    assert plain_terminal(text).splitlines() == lines
    assert "\x1b[1mbold\x1b[0m" in terminal(text)


def test_a_table_that_fits_has_columns() -> None:
    text = "| city | river |\n|---|---|\n| Nantes | Loire |\n| Lyon | Rhône |"
    assert plain_terminal(text, 40).splitlines() == [
        "city     river",
        "──────────────",
        "Nantes   Loire",
        "Lyon     Rhône",
    ]


def test_a_table_that_does_not_fit_becomes_a_list_without_broken_words() -> None:
    text = "| settlement | watercourse |\n|---|---|\n| Saint-Nazaire | Loire |\n| Villefranche | Saône |"
    assert plain_terminal(text, 26).splitlines() == [
        *["settlement: Saint-Nazaire", "watercourse: Loire", ""],
        *["settlement: Villefranche", "watercourse: Saône"],
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_words_are_not_broken_in_the_middle(width: int) -> None:
    words = [f"word{number}-{'x' * (number % 17)}" for number in range(200)]
    text = f"{' '.join(words)}\n\n- {' '.join(words)}\n\n> {' '.join(words)}\n\n```\n{' '.join(words)}\n```"
    shown = plain_terminal(text, width)
    assert max(map(len, shown.splitlines())) <= width
    assert [word for word in shown.split() if word not in ("•", "▌")] == words * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        *("> " * 40 + "x", "- " * 40 + "x", "| a |\n|---|\n| b | c |", "1. a\n3. b", "a" * 70_000),
        *("- a\n" * 2500, "|a" * 40 + "|\n" + "|-" * 40 + "|\n" + "|b\n" * 600),
    ],
)
def test_text_that_cannot_be_rendered_whole_is_shown_as_it_came(text: str) -> None:
    assert Fragment(markdown_to_html(text)).elements == ["pre"]
    assert Fragment(markdown_to_html(text)).text.strip() == text.strip()
    assert "".join(plain_terminal(text).split()) == "".join(text.split())


def test_a_key_is_masked_in_html() -> None:
    key = Secret("secret-of-this-test")
    assert markdown_to_html(f"the key {key.reveal()} and sk-{'a' * 30}") == "<p>the key *** and ***</p>\n"
