"""The documentation page names the right files, and their lengths, for adding a vendor."""

import re
import tomllib
from pathlib import Path

import llm_council
from llm_council.providers import gateways

PAGE = Path(__file__).parents[2] / "docs" / "providers" / "creating-providers.md"
PACKAGE = Path(llm_council.__file__).parent


def lines(path):
    return len(path.read_text().splitlines())


def test_the_page_prints_a_real_row_of_the_gateways():
    printed = next(
        block for block in re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL) if "base_url" in block
    )
    shipped = (PACKAGE / "providers" / "gateways.toml").read_text()
    ((name, row),) = tomllib.loads(printed).items()
    assert tomllib.loads(shipped)[name] == row
    assert gateways.rows()[name].class_name == row["class"]


def test_the_example_of_a_vendor_near_to_openai_has_the_length_on_the_page():
    provider, count = re.search(r"`(providers/\w+\.py)` with (\d+) lines", PAGE.read_text()).groups()
    assert lines(PACKAGE / provider) == int(count) < 130


def test_the_files_that_the_page_names_exist():
    named = re.findall(r"`(llm_council/[\w/]+\.py)`", PAGE.read_text())
    assert len(named) >= 2
    assert [path for path in named if not (PACKAGE.parent / path).is_file()] == []
