"""The pages are plain: no sentence of more than thirty words, and something that runs on the first screen."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in sorted(
        [*(ROOT / "docs").rglob("*.md"), *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY"))]
    )
    if page.parent.name != "api"  # written from docstrings while the site is built
]
MOST_WORDS = 30
SCREEN = 25  # lines

LONG = {"performance.md": "llm-council-sdk"}
"""Pages with a list that counts as a sentence, and how it begins."""

NO_EXAMPLE = {
    "SECURITY.md": "code hosts show it to who reports a vulnerability",
    "changelog.md": "its text is that of a file above this folder",
    "contributing.md": "likewise",
    "security.md": "likewise",
}


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page, without code, links and markup. A cell of a table and an entry of a list begin anew."""
    text = re.sub(r"^(```|~~~).*?^\1$|<[^>]*>", "", text, flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\|", text):
        plain = re.sub(r"\]\([^)]*\)|[*\[\]]", "", re.sub(r"`[^`]*`", "code", block))
        yield from re.split(r"(?<=[.:;?!])\s+", " ".join(plain.split()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_sentence_is_too_long(page: Path) -> None:
    long = [one for one in sentences(page.read_text(encoding="utf-8")) if len(re.findall(r"[\w'-]+", one)) > MOST_WORDS]
    allowed = LONG.get(page.name)
    assert [one for one in long if allowed is None or not one.startswith(allowed)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_first_screen_shows_something_that_runs(page: Path) -> None:
    screen = page.read_text(encoding="utf-8").splitlines()[:SCREEN]
    shows = any(line.startswith(("```", "![", "<picture")) for line in screen)
    assert shows is not (page.name in NO_EXAMPLE)


def test_a_sentence_is_found() -> None:
    page = "# Title\n\nOne `code` [two](three.md). Four\nfive: six.\n\n| a | b c |\n\n- d\n- e\n\n```\nno\n```\n"
    assert [one for one in sentences(page) if one] == [
        "# Title",
        "One code two.",
        "Four five:",
        "six.",
        "a",
        "b c",
        "- d",
        "- e",
    ]
