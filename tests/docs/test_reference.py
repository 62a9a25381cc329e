"""What the reference says is what the code does."""

from pathlib import Path

from click.testing import CliRunner

from llm_council.cli._main import cli
from llm_council.providers import gateways

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_providers_is_the_programs_own() -> None:
    done = CliRunner().invoke(cli, ["providers", "--markdown"])
    assert done.exit_code == 0
    shown = [line for line in (DOCS / "reference" / "providers.md").read_text().splitlines() if line.startswith("|")]
    assert shown == done.stdout.splitlines(), "docs/reference/providers.md: run `council providers --markdown`"


def test_the_quickstart_names_every_gateway_and_its_key() -> None:
    rows = (DOCS / "quickstart" / "direct-apis.md").read_text().splitlines()
    for name, row in gateways.rows().items():
        if row.needs_key:
            (line,) = [line for line in rows if line.startswith(f"| `{name}` |")]
            assert row.api_key_env in line
