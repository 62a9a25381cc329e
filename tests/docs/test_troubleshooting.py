"""The page for trouble quotes messages as the code has them."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import llm_council

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"


def quoted() -> list[str]:
    """Return the messages of the page: the first cells of the table below its heading."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition("## By the words of a message\n")
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


@cache
def texts_of_the_code() -> frozenset[str]:
    """Return every text of the package, with ``...`` where a value stands."""
    found = set()
    for path in Path(llm_council.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return frozenset(found)


def is_in_the_code(message: str) -> bool:
    return any(message in text for text in texts_of_the_code())


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_one_of_the_code(message: str) -> None:
    assert is_in_the_code(message)


def test_the_table_is_found_and_a_changed_message_is_noticed() -> None:
    assert len(quoted()) >= 10
    assert not is_in_the_code(quoted()[0] + " at all")
