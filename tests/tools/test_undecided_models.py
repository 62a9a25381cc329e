"""The command that lists models without a row reads the installed SDKs, and nothing else."""

from pathlib import Path

import pytest

from tools import undecided_models


@pytest.fixture
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vendor_sdk"
    package.mkdir()
    (package / "__init__.py").write_text("")
    names = ["gpt-6-luna", "gpt-9-zenith-latest", "gpt-4o-audio-preview"]
    (package / "models.py").write_text(f"Model = Literal[{', '.join(map(repr, names))}]  # gpt-9-unquoted")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(undecided_models, "SOURCES", {"openai": ("vendor_sdk", "", r"gpt-[a-z0-9.\-]*")})


def test_a_model_without_a_row_is_listed(sdk: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert undecided_models.main([]) == 1
    assert capsys.readouterr().out == "openai: gpt-9-zenith-latest: no row\n"


def test_every_model_can_be_listed_with_its_row(sdk: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert undecided_models.main(["--rows"]) == 1
    assert "openai: gpt-6-luna: gpt-6\n" in capsys.readouterr().out


def test_an_sdk_that_is_not_installed_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(undecided_models, "SOURCES", {"nobody": ("no_such_sdk.types", "", "x")})
    assert undecided_models.main([]) == 0
    assert "not installed" in capsys.readouterr().out


def test_the_row_that_decides_a_model_is_its_longest_prefix() -> None:
    assert undecided_models.deciding_prefix("openai", "gpt-6.1-sol-2026-10-01") == "gpt-6.1-sol"
    assert undecided_models.deciding_prefix("openai", "gpt-7") is None
    assert undecided_models.deciding_prefix("nobody", "gpt-6") is None
