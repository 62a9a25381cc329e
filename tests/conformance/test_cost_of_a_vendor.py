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


def test_a_vendor_near_to_openai_is_one_file_of_the_length_that_the_page_says():
    provider, count = re.search(r"`(providers/\w+\.py)` with (\d+) lines", PAGE.read_text()).groups()
    assert lines(PACKAGE / provider) == int(count) < 130


def test_the_files_of_a_fake_vendor_that_the_page_names_exist():
    named = re.findall(r"`(testing/\w+/\w+\.py)`", PAGE.read_text())
    assert len(named) >= 2
    assert [path for path in named if not (PACKAGE / path).is_file()] == []
