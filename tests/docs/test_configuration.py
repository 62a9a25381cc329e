"""The guide to the configuration leaves no variable out."""

import re
from pathlib import Path

from llm_council import config

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "configuration.md").read_text(encoding="utf-8")


def test_every_variable_is_told() -> None:
    told = set(re.findall(r"`(LLM_COUNCIL_\w+)`", GUIDE))
    assert set(config._VARIABLES) <= told
    assert told - set(config._VARIABLES) == {
        "LLM_COUNCIL_ALLOW_HTTP",
        "LLM_COUNCIL_CONFIG",
        "LLM_COUNCIL_LOCAL_MODEL",
        "LLM_COUNCIL_NO_PLUGINS",
        "LLM_COUNCIL_REDIS_URL",
    }


def test_each_example_is_a_configuration_that_changes_something(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    assert examples
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.toml"
        path.write_text(example)
        assert config.CouncilConfig.from_file(path) != config.CouncilConfig()
