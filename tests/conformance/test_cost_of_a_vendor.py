"""What the page says that a new vendor costs is what it costs."""

import re
import tomllib
from pathlib import Path

import llm_council
from llm_council.providers import gateways

PAGE = Path(__file__).parents[2] / "docs" / "providers" / "creating-providers.md"
PACKAGE = Path(llm_council.__file__).parent


def lines(path):
    return len(path.read_text().splitlines())


def test_a_gateway_is_the_row_that_the_page_prints():
    printed = next(
        block for block in re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL) if "base_url" in block
    )
    shipped = (PACKAGE / "providers" / "gateways.toml").read_text()
    ((name, row),) = tomllib.loads(printed).items()
    assert tomllib.loads(shipped)[name] == row
    assert gateways.rows()[name].class_name == row["class"]


def test_a_dialect_is_a_file_of_meaning_and_a_short_provider():
    wire, provider, count = re.search(
        r"`(_wire/\w+\.py)` with .*? `(providers/\w+\.py)` with (\d+) lines", PAGE.read_text(), re.DOTALL
    ).groups()
    assert (PACKAGE / wire).is_file()
    assert lines(PACKAGE / provider) == int(count) < 120
    assert (PACKAGE / "testing" / "servers" / "_ollama.py").is_file()
