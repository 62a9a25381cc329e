"""The shell completes commands, flags, providers, seats, roles, modes and stored runs; offline, and without noise."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete, get_completion_class

from llm_council import Council, CouncilConfig
from llm_council.cli import _shells
from llm_council.cli._main import cli
from llm_council.config._environment import STRATEGIES
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import ANSWER


@pytest.fixture(autouse=True)
def _logging_stays(new_user: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logging.disable", lambda: None)  # for the whole process: here, that of all tests


def offered(*words: str) -> list[str]:
    """Return what the shell offers for the last word."""
    *before, last = words
    return [item.value for item in ShellComplete(cli, {}, "council", "_X").get_completions(before, last)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["ru"], ["run", "runs"]),
        (["runs", ""], ["list", "show", "export", "copy", "purge"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["run", "--budget"], ["--budget-usd"]),
        (["run", "-p", "openr"], ["openrouter"]),
        (["run", "-p", "openai,anth"], ["openai,anthropic"]),
        (["run", "-p", "openrouter/"], ["openrouter/anthropic/claude-sonnet-4.6"]),
        (["run", "--chair", "verte"], ["vertex"]),
        (["run", "-p", "openai,local:2", "-p", "openai", "--chair", ""], ["openai", "local-1", "local-2", "openai-2"]),
        (["run", "-p", "openai,anthropic", "--chair", "a"], ["anthropic"]),
        (["run", "-p", "openrouter", "-m", "a/b,c", "--chair", ""], ["openrouter/a/b", "openrouter/c"]),
        (["run", "--strategy", ""], sorted(STRATEGIES)),
        (["run", "--format", "mark"], ["markdown"]),
        (["run", "imp"], ["implementer"]),
        (["run", "advisor", ""], []),
        (["run", "drafter", "--mode", ""], ["impl", "arch", "test"]),
        (["run", "--mode", "rev"], ["review"]),
        (["batch", "imp"], ["implementer", "imp"]),  # the last is the beginning of a file's name
        (["batch", "implementer", "ta"], ["ta"]),
        (["batch", "-p", "openr"], ["openrouter"]),
        (["batch", "--retry"], ["--retry-failed"]),
        (["doctor", "openai", "anth"], ["anthropic"]),
        (["runs", "show", ""], []),
    ],
)
def test_the_word_is_completed(words: list[str], found: list[str]) -> None:
    assert sorted(offered(*words)) == sorted(found)


def test_the_chair_is_one_of_the_configured_seats() -> None:
    Path("council.toml").write_text('[council]\nproviders = ["openai", "anthropic:2"]\n')
    assert offered("run", "--chair", "") == ["openai", "anthropic-1", "anthropic-2"]


def test_a_seat_of_the_embedded_engine_offers_its_models() -> None:
    models = offered("models", "pull", "")
    assert "smollm2-135m-instruct" in models
    assert offered("run", "-p", "local/") == [f"local/{name}" for name in models]


def test_configured_providers_and_roles_of_the_user_are_offered(tmp_path: Path) -> None:
    home = tmp_path / "home" / "llm-council"
    (home / "roles").mkdir(parents=True)
    (home / "roles" / "editor.toml").write_text('system = "You edit."\n')
    (home / "config.toml").write_text(f'[providers.gateway]\nkind = "vllm"\n[subagents]\npaths = ["{home}/roles"]\n')
    assert offered("run", "-p", "gatew") == ["gateway"]
    assert offered("run", "edi") == ["editor"]


def test_stored_runs_are_offered_the_latest_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = str(tmp_path / "runs.db")
    council = Council([ScriptedProvider(ANSWER)], config=CouncilConfig(store=path))
    first, second = (council.run(task).run_id for task in ("First?", "Second?"))
    assert offered("runs", "show", "--store", path, "") == ["last", second, first]
    monkeypatch.setenv("LLM_COUNCIL_STORE", path)
    assert offered("resume", first[:6]) == [first]


@pytest.mark.parametrize("text", ["[council", "[council]\nproviders = 5\n"])
def test_a_broken_configuration_or_store_offers_nothing_and_raises_nothing(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("council.toml").write_text(text)
    assert offered("run", "-p", "open") == []
    Path("council.toml").unlink()
    (tmp_path / "runs.db").write_text("no database")
    monkeypatch.setenv("LLM_COUNCIL_STORE", str(tmp_path / "runs.db"))
    assert offered("replay", "") == []


def test_completing_imports_no_provider(python) -> None:  # type: ignore[no-untyped-def]
    script = """
        import sys
        from click.shell_completion import ShellComplete
        from llm_council.cli._main import cli
        complete = ShellComplete(cli, {}, "council", "_X").get_completions
        assert [item.value for item in complete([], "provid")] == ["providers"]
        assert "llm_council.cli._commands" not in sys.modules
        assert [item.value for item in complete(["run", "-p"], "openr")] == ["openrouter"]
        loaded = [name for name in sys.modules if name.startswith("llm_council.providers.o")]
        assert not loaded and "httpx" not in sys.modules, loaded
        """
    done = python(script)
    assert (done.returncode, done.stderr) == (0, "")


LINES = {
    "council run -p openai,anth": ["openai,anthropic"],
    "council run -p local:2 --chair ": ["local-1", "local-2"],
    "council run -p local:2,openai --chair=loc": ["local-1", "local-2"],
    "council run 'Hi there' --format=mark": ["markdown"],
    "council run -p ollama/llama3.2:1b --chair ollama/llama3.2:": ["1b"],  # bash replaces what follows the colon
}


def run_shell(*command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.slow
def test_bash_completes_with_the_printed_script() -> None:
    lines = [word for line in LINES for word in (f"COMP_LINE={shlex.quote(line)}", "complete_line")]
    script = """
        eval "$(council completion bash)" || exit 1
        complete_line() { COMP_POINT=${#COMP_LINE}; _council_completion council; echo "${COMPREPLY[@]}"; }
        """
    found = run_shell("bash", "-c", "\n".join([script, *lines]))
    assert found.splitlines() == [" ".join(words) for words in LINES.values()]


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes_with_the_printed_script() -> None:
    lines = [f"string join ' ' (complete -C {shlex.quote(line)})" for line in LINES]
    found = run_shell("fish", "--no-config", "-c", "\n".join(["council completion fish | source", *lines]))
    assert found.splitlines()[:2] == [" ".join(words) for words in LINES.values()][:2]


def test_a_script_that_an_earlier_version_printed_completes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _shells.register()
    kind = get_completion_class("bash")
    assert kind is not None
    monkeypatch.setenv("COMP_WORDS", "council\nrun\n-p\nopenai,anth")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert kind(cli, {}, "council", "_X").complete() == "plain,openai,anthropic"


@pytest.mark.parametrize(
    ("shell", "word"), [("zsh", "#compdef council"), ("fish", "complete --no-files --command council")]
)
def test_the_scripts_of_the_other_shells_are_printed(
    shell: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["completion", shell], prog_name="council", standalone_mode=False)
    named = capsys.readouterr().out
    assert word in named
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    cli.main(["completion"], prog_name="council", standalone_mode=False)
    assert capsys.readouterr().out == named
