"""The guide to the configuration leaves no variable out."""

import re
from pathlib import Path

from llm_council import config
from llm_council.config._environment import KNOWN

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "configuration.md").read_text(encoding="utf-8")


def test_the_guide_lists_exactly_the_variables_that_exist() -> None:
    assert set(re.findall(r"`(LLM_COUNCIL_\w+)`", GUIDE)) == KNOWN


def test_every_variable_that_the_source_reads_is_known() -> None:
    source = Path(config.__file__).parents[1].rglob("*.py")
    read = {name for path in source for name in re.findall(r"\bLLM_COUNCIL_[A-Z_]*[A-Z]\b", path.read_text("utf-8"))}
    assert read <= KNOWN


def test_each_example_is_a_configuration_that_changes_something(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    assert examples
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.toml"
        path.write_text(example)
        assert config.CouncilConfig.from_file(path) != config.CouncilConfig()
