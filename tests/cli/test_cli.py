"""The command line as people and scripts use it: what goes to stdout, what to stderr, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from llm_council import errors
from llm_council.models import GenerateResponse, ImagePart
from llm_council.providers import registry
from llm_council.providers.base import ProviderAdapter
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import ANSWER, Council

pytestmark = pytest.mark.usefixtures("new_user")


def test_run_prints_the_answer_on_stdout_and_progress_on_stderr(council: Council, seat: ScriptedProvider) -> None:
    code, out, err = council("run", "Where?", "-p", "scripted:3")
    assert code == 0
    assert out == "Paris\n"
    lines = err.splitlines()
    assert lines[0] == "council: advisor with scripted-1, scripted-2, scripted-3"
    assert sum("draft scripted-" in line and "done" in line for line in lines) == 2
    assert lines[-1].startswith("council: completed after")


def test_json_prints_the_exact_result_and_nothing_else_on_stdout(council: Council, seat: ScriptedProvider) -> None:
    code, out, _ = council("run", "advisor", "Where?", "-p", "scripted", "--json", "--seed", "7")
    result = json.loads(out)
    assert code == 0
    assert result["output"] == json.loads(ANSWER)
    assert (result["status"], result["success"], result["plan"]["seed"]) == ("completed", True, "7")


def test_run_reads_the_task_from_stdin_or_a_file(council: Council, seat: ScriptedProvider, tmp_path: Path) -> None:
    council("run", "-", "-p", "scripted", stdin="from stdin?")
    assert any("from stdin?" in turn.text for turn in seat.requests[-1].turns())
    path = tmp_path / "task.txt"
    path.write_text("from a file?")
    code, _, _ = council("run", "advisor", "-i", str(path), "-p", "scripted")
    assert code == 0
    assert any("from a file?" in turn.text for turn in seat.requests[-1].turns())


def test_files_context_and_schema_reach_the_seats(council: Council, tmp_path: Path) -> None:
    provider = ScriptedProvider({"draft": "three", "*": "[1, 2, 3]"}, name="scripted")
    (tmp_path / "notes.txt").write_text("the notes")
    (tmp_path / "schema.json").write_text('{"type": "array", "items": {"type": "integer"}}')
    with registry.overriding(scripted=provider):
        words = [
            "-f",
            str(tmp_path / "notes.txt"),
            "--context",
            "the context",
            "--schema",
            str(tmp_path / "schema.json"),
        ]
        code, out, _ = council("run", "Count", "-p", "scripted", *words)
    assert (code, out) == (0, "- 1\n- 2\n- 3\n")
    asked = " ".join(turn.text for turn in provider.requests[0].turns())
    assert "the notes" in asked
    assert "the context" in asked


def test_a_picture_is_shown_whatever_its_name_and_an_address_is_refused(council: Council, tmp_path: Path) -> None:
    capabilities = attrs.evolve(ScriptedProvider.capabilities, multimodal=True)
    sees = ScriptedProvider("A cat.", name="sees", capabilities=capabilities)
    blind = ScriptedProvider("No idea.", name="blind")
    path = tmp_path / "photo.txt"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with registry.overriding(sees=sees, blind=blind):
        code, _, err = council("run", "What?", "-p", "sees,blind", "-f", str(path), "--strategy", "single")
        assert code == 0
        assert err.count(f"blind sits out: it takes no images ({path})") == 1
        assert any(isinstance(part, ImagePart) for part in sees.requests[0].messages[-1].content)
        assert not blind.requests
        code, out, _ = council("run", "What?", "-p", "sees,blind", "-f", str(path), "--dry-run")
        assert code == 0
        assert "blind sits out" in out
        assert "with 1 file)" in out
        code, _, err = council("run", "What?", "-p", "sees", "-f", "https://a.example/b.png")
        assert code == 2
        assert "none is fetched: save the file, and give its path" in err
        code, _, err = council("run", "What?", "-p", "blind", "-f", str(path))
        assert code == 2
        assert "0 of 1 seats can take the files" in err


def test_output_writes_the_answer_to_a_file(council: Council, seat: ScriptedProvider, tmp_path: Path) -> None:
    path = tmp_path / "answer.md"
    code, out, _ = council("run", "Where?", "-p", "scripted", "--format", "markdown", "-o", str(path))
    assert (code, out) == (0, "")
    assert "Paris" in path.read_text()


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("no/such/folder/answer.txt", "there is no folder"),
        (".", "it is a directory; name a file in it"),
        ("file/answer.txt", "is not a folder"),
        ("locked/answer.txt", "no permission to create files"),
        ("locked.txt", "no permission to write it"),
        ("link", "there is no folder"),
        ("x" * 300, "name another file"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_sent(
    council: Council, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch, path: str, remedy: str
) -> None:
    Path("file").touch()
    Path("locked").mkdir()
    Path("locked.txt").write_text("kept")
    Path("link").symlink_to("no/such/target")
    access = os.access  # root may write everywhere: the answer is the one that another user gets
    monkeypatch.setattr(os, "access", lambda name, mode: "locked" not in str(name) and access(name, mode))
    code, out, err = council("run", "Where?", "-p", "scripted", "-o", path)
    assert (code, out) == (2, "")
    assert f"council: --output: cannot write {path}: " in err
    assert remedy in err
    assert seat.requests == []
    assert Path("locked.txt").read_text() == "kept"


def test_output_creates_and_changes_no_file_before_there_is_an_answer(council: Council) -> None:
    def draft(_: Any) -> str:
        seen.append([Path(name).read_text() if Path(name).exists() else None for name in ("new.txt", "old.txt")])
        return ANSWER

    seen: list[list[str | None]] = []
    Path("old.txt").write_text("old")
    with registry.overriding(**failing(draft, ANSWER)):
        for name in ("old.txt", "new.txt"):
            assert council("run", "x", "-p", "scripted", "-o", name)[0] == 0
    answer = "Paris\n"
    assert seen == [[None, "old"], [None, answer]]
    assert Path("new.txt").read_text() == Path("old.txt").read_text() == answer


def test_the_answer_is_printed_on_stdout_if_the_disk_is_full(council: Council, seat: ScriptedProvider) -> None:
    code, out, err = council("run", "Where?", "-p", "scripted", "-o", "/dev/full")
    assert code == 1
    assert out.startswith("Paris\n")
    assert "council: cannot write /dev/full: No space left on device; the answer is printed instead" in err


@pytest.mark.parametrize("command", ["run", "resume"])
def test_the_answer_is_printed_on_stdout_if_the_folder_was_removed_during_the_run(
    council: Council, command: str, tmp_path: Path
) -> None:
    def draft(_: Any) -> str:
        if Path("folder").exists():
            Path("folder").rmdir()
        return ANSWER

    place = ["--store", str(tmp_path / "runs.db")]
    words = ["run", "x", "-p", "scripted", *place]
    if command == "resume":
        broken = errors.AuthenticationFailed("no", status=401)
        with registry.overriding(**failing(broken, broken)):
            assert council(*words)[0] == 1
        words = ["resume", json.loads(council("runs", "list", "--json", *place)[1])[0]["run_id"], *place]
    Path("folder").mkdir()
    with registry.overriding(**failing(draft, ANSWER)):
        code, out, err = council(*words, "--json", "-o", "folder/answer.json")
    assert code == 1
    assert json.loads(out)["output"]["answer"] == "Paris"
    assert "cannot write folder/answer.json: No such file or directory" in err


@pytest.mark.slow
@pytest.mark.parametrize("stdout", [">/dev/full", ">&-", "| true"])
def test_the_answer_is_printed_on_stderr_if_file_and_stdout_fail(stdout: str) -> None:
    script = (
        "import sys\n"
        "from llm_council.cli import main\n"
        "from llm_council.providers import registry\n"
        "from llm_council.testing.fakes import ScriptedProvider\n"
        f"seat = ScriptedProvider({ANSWER!r}, name='scripted', delay=0.1)\n"
        "with registry.overriding(scripted=seat):\n"
        "    sys.argv = ['council', 'run', 'Where?', '-p', 'scripted', '-o', '/dev/full']\n"
        "    main()\n"
    )
    command = f'set -o pipefail; "$0" -c "$1" {stdout}'
    done = subprocess.run(["bash", "-c", command, sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "council: cannot write to stdout: " in done.stderr
    assert "\nParis\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_the_answer_is_printed_on_stderr_if_stdout_fails(
    council: Council, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        code, _, err = council("run", "Where?", "-p", "scripted")
    assert code == 1
    assert "council: cannot write to stdout: No space left on device; the answer is printed here\nParis" in err


def test_a_dry_run_sends_nothing(council: Council, seat: ScriptedProvider) -> None:
    code, out, _ = council("run", "Where?", "-p", "scripted:3", "--dry-run", "--json", "--deadline", "9")
    plan = json.loads(out)
    assert code == 0
    assert [spec["name"] for spec in plan["seats"]] == ["scripted-1", "scripted-2", "scripted-3"]
    assert plan["budget"]["deadline"] == 9
    assert seat.requests == []
    assert council("run", "Where?", "-p", "scripted", "--dry-run")[1].startswith("task ")


def test_models_give_one_model_for_all_providers_or_one_for_each(council: Council, seat: ScriptedProvider) -> None:
    _, out, _ = council("run", "x", "-p", "scripted", "-m", "a/b,c", "--dry-run", "--json")
    assert [spec["model"] for spec in json.loads(out)["seats"]] == ["a/b", "c"]
    code, _, err = council("run", "x", "-p", "scripted,scripted,scripted", "-m", "a,b", "--dry-run")
    assert (code, "one for each" in err) == (2, True)
    code, _, err = council("run", "x", "-m", "a")
    assert (code, "--providers" in err) == (2, True)


def test_a_count_applies_to_the_provider_with_its_model(council: Council, seat: ScriptedProvider) -> None:
    _, out, _ = council("run", "x", "-p", "scripted:3", "-m", "a/b", "--dry-run", "--json")
    seats = json.loads(out)["seats"]
    assert [(spec["name"], spec["model"]) for spec in seats] == [(f"scripted/a/b-{n}", "a/b") for n in (1, 2, 3)]
    code, _, err = council("run", "x", "-p", "scripted/a", "-m", "b", "--dry-run")
    assert (code, "names a model already" in err) == (2, True)


def test_the_version_option_and_command_print_the_same(council: Council) -> None:
    assert council("--version") == council("version") == council("-V")


def test_ctrl_c_prints_how_to_resume_a_stored_run(
    council: Council, seat: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(event: Any) -> None:  # where Ctrl-C lands: in the thread that waits for events
        if type(event).__name__ == "SeatFinished":
            raise KeyboardInterrupt

    place = str(tmp_path / "runs.db")
    with monkeypatch.context() as pressed:
        pressed.setattr("llm_council.cli._progress._lines", interrupt)
        code, _, err = council("run", "-p", "scripted:3", "Where?", "--store", place)
        assert council("run", "-p", "scripted:3", "Where?")[2].split() == ["interrupted"]
    (run,) = json.loads(council("runs", "list", "--store", place, "--json")[1])
    hint = f"council: all answers so far are stored; to continue: council resume {run['run_id']} --store {place}"
    assert (code, [line for line in err.splitlines() if line]) == (130, [hint, "interrupted"])
    assert council("resume", run["run_id"], "--store", place)[0] == 0


def test_stream_prints_the_text_of_the_seats_on_stderr(council: Council, seat: ScriptedProvider) -> None:
    _, out, err = council("run", "Where?", "-p", "scripted:3", "--stream")
    assert ANSWER in err.replace("\n", "")
    assert "[draft scripted-1]" in err
    assert out.startswith("Paris")


def test_verbose_prints_tokens_and_cost(council: Council, seat: ScriptedProvider) -> None:
    _, _, err = council("run", "Where?", "-p", "scripted", "-v")
    assert "tokens, cost unknown" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["run"], "no task given"),
        (["run", "reviewer"], 'council run reviewer "..."'),
        (["run", ""], "task"),
        (["run", "a", "b", "c"], "quotes"),
        (["run", "reviwer", "x", "-p", "scripted"], "did you mean 'reviewer'"),
        (["run", "x", "-p", "scripted", "--mode", "nope"], "mode"),
        (["run", "x", "-p", "scritped"], "did you mean 'scripted'"),
        (["run", "x", "-p", "scripted", "--strategy", "vot"], "did you mean 'vote'"),
        (["run", "x", "-p", "scripted", "-f", "nowhere.txt"], "nowhere.txt"),
        (["run", "x", "-p", "scripted", "-i", "nowhere.txt"], "nowhere.txt"),
        (["run", "x", "-p", "scripted", "--schema", "nowhere.json"], "nowhere.json"),
        (["run", "x", "-p", "scripted", "--deadline", "-1"], "deadline"),
        (["run", "x", "-p", "scripted", "--deadlin", "1"], "--deadline"),
        (["run", "x", "-p", "scripted", "--chair", "scripted-9"], "scripted-9"),
        (["run", "x", "-p", "scripted", "-o", "no/such/folder/out.txt"], "no/such/folder"),
        (["rnu"], "did you mean 'run'"),
        (["What is this?"], "council run"),
        (["config", "nope"], "nope"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_remedy(
    council: Council, seat: ScriptedProvider, words: list[str], named: str
) -> None:
    code, out, err = council(*words)
    assert code == 2
    assert out == ""
    assert named in err
    assert "Traceback" not in err


def test_a_bad_configuration_file_exits_with_2(council: Council, seat: ScriptedProvider) -> None:
    Path("council.toml").write_text("[providers.openai]\nkind = 'openai'\nbase_url = 'https://evil.example'\n")
    code, _, err = council("run", "x", "-p", "scripted")
    assert (code, "council.toml" in err) == (2, True)


def test_a_missing_key_exits_with_2(council: Council, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code, _, err = council("run", "x", "-p", "openai")
    assert code == 2
    assert "OPENAI_API_KEY" in err


def failing(*replies: Any) -> dict[str, ProviderAdapter]:
    return {"scripted": ScriptedProvider(dict(zip(("draft", "*"), replies, strict=True)), name="scripted")}


def test_a_failed_run_exits_with_1_and_says_why(council: Council) -> None:
    broken = errors.AuthenticationFailed("the key is wrong", status=401)
    with registry.overriding(**failing(broken, broken)):
        code, out, err = council("run", "x", "-p", "scripted:2")
    assert (code, out) == (1, "")
    assert "scripted-1: the key is wrong" in err


def test_a_degraded_answer_exits_with_3_when_strict(council: Council) -> None:
    def draft(request: Any) -> GenerateResponse | str:
        return next(replies)

    replies = iter([errors.AuthenticationFailed("no", status=401), *["Paris."] * 5])
    with registry.overriding(**failing(draft, ANSWER)):
        code, out, err = council("run", "x", "-p", "scripted:3", "--strict")
    assert "Paris" in out
    assert (code, "degraded" in err) == (3, True)


def test_control_characters_are_replaced_on_terminals_only(council: Council, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_council.cli import _run

    answer = json.dumps({"answer": "\x1b[31mred\x07", "reasoning": "\u202e"})
    with registry.overriding(**failing(answer, answer)):
        assert "\x1b[31mred" in council("run", "x", "-p", "scripted")[1]
        monkeypatch.setattr(_run.sys.stdout, "isatty", lambda: True, raising=False)
        shown = council("run", "x", "-p", "scripted")[1]
        raw = council("run", "x", "-p", "scripted", "--raw")[1]
    assert "␛[31mred␇" in shown
    assert "<U+202E>" in shown
    assert "\x1b[31mred" in raw


def test_providers_strategies_subagents_config_and_version(council: Council, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = council("providers")
    assert code == 0
    assert {"openai", "openrouter", "vllm", "lmstudio", "local"} <= {line.split()[0] for line in out.splitlines()[1:]}
    head, *lines = (line.split() for line in out.splitlines())
    assert head == [
        "provider",
        "streaming",
        "tools",
        "schemas",
        "images",
        "documents",
        "sound",
        "reasoning",
        "key",
        "from",
    ]
    assert ["local", "yes", "no", "yes", "no", "no", "no", "no", "none"] in [line[:9] for line in lines]
    listed = {info["name"]: info for info in json.loads(council("providers", "--json")[1])}
    assert listed["openai"]["kind"] == "built-in"
    code, out, _ = council("subagents")
    assert {"advisor", "critic", "drafter", "planner", "researcher", "router", "synthesizer"} <= set(out.split())
    code, out, _ = council("strategies")
    assert {"poll", "rank", "synthesize"} <= {line.split()[0] for line in out.splitlines()[1:]}
    assert council("version") == (0, "llm-council-sdk 0.2.0\n", "")
    monkeypatch.setenv("LLM_COUNCIL_CHAIR", "the-chair")
    assert 'chair = "the-chair"' in council("config", "show")[1]
    assert "implementer" in council("subagents")[1]
    assert json.loads(council("config", "show", "--json")[1])["chair"] == "the-chair"
    assert council("config", "path")[1].strip().endswith("llm-council/config.toml")


def test_config_show_masks_keys(council: Council) -> None:
    home = Path(os.environ["XDG_CONFIG_HOME"]) / "llm-council"
    home.mkdir(parents=True)
    (home / "config.toml").write_text("[providers.g]\nkind = 'openai'\napi_key = 'canary-canary-canary'\n")
    for words in (["config", "show"], ["config", "show", "--json"]):
        code, out, err = council(*words)
        assert code == 0
        assert "***" in out
        assert "canary" not in out + err


@pytest.mark.slow
def test_doctor_reports_each_provider_and_exits_with_1_on_a_fault(council: Council, seat: ScriptedProvider) -> None:
    code, out, _ = council("doctor", "scripted")
    assert (code, "scripted  ok" in out) == (0, True)
    found = json.loads(council("doctor", "scripted", "--deep", "--json")[1])
    assert found["seats"]["scripted"]["ok"] is True
    broken = ScriptedProvider(errors.AuthenticationFailed("the key is wrong"), name="broken")
    with registry.overriding(broken=broken):
        code, out, _ = council("doctor", "broken", "--deep")
    assert (code, "FAULT" in out, "the key is wrong" in out) == (1, True, True)


@pytest.mark.slow
def test_doctor_finds_another_distribution_in_the_package_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_council.cli._commands import check_installation

    assert check_installation() == []
    info = tmp_path / "site" / "other_council-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-council\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("llm_council\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    [fault] = check_installation()
    assert "other-council" in fault
    assert "pip uninstall other-council" in fault


def test_doctor_looks_for_foreign_files_where_the_distribution_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_council.cli._commands import check_installation

    package = tmp_path / "site" / "llm_council"
    info = tmp_path / "site" / "llm_council_sdk-9.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").touch()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-council-sdk\nVersion: 9.0\n")
    (info / "RECORD").write_text("llm_council/__init__.py,,\nllm_council_sdk-9.0.dist-info/METADATA,,\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (package / "left_behind.py").touch()
    assert check_installation() == [], "the package that runs lies elsewhere: it is a checkout beside that distribution"
    monkeypatch.setattr("llm_council.__file__", str(package / "__init__.py"))
    [fault] = check_installation()
    assert "holds files that llm-council-sdk did not install: left_behind.py" in fault
    (package / "left_behind.py").unlink()
    assert check_installation() == []


@pytest.mark.slow
def test_a_closed_pipe_causes_no_traceback() -> None:
    command = f"{sys.executable} -m llm_council subagents --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--stream"], ["--json"]])
def test_ctrl_c_exits_with_130_and_no_traceback(flags: list[str]) -> None:
    import signal

    script = (
        "import math, sys\n"
        "from llm_council.cli import main\n"
        "from llm_council.providers import registry\n"
        "from llm_council.testing.fakes import ScriptedProvider\n"
        "with registry.overriding(scripted=ScriptedProvider('x', name='scripted', delay=math.inf)):\n"
        f"    sys.argv = ['council', 'run', 'Where?', '-p', 'scripted', '-v', *{flags!r}]\n"
        "    print('ready', flush=True)\n"
        "    main()\n"
    )
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        if "--json" not in flags:
            assert process.stderr.readline().startswith("council: advisor with")
        else:
            import time

            time.sleep(1.5)  # nothing tells from outside that a quiet run has begun; too early is an interrupt too
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert "interrupted" in err
    assert "Traceback" not in err


def test_config_trust_allows_what_the_projects_file_sets(council: Council, seat: ScriptedProvider) -> None:
    Path("council.toml").write_text('[providers.house]\nkind = "openai"\nbase_url = "https://llm.example.com/v1"\n')
    code, out, err = council("run", "Where?", "-p", "scripted")
    assert (code, out) == (2, "")
    assert "[providers.house] kind, base_url" in err
    assert "council config trust" in err
    assert not seat.requests
    code, out, _ = council("config", "trust")
    assert code == 0
    assert out.splitlines()[1:] == ["  [providers.house] kind, base_url"]
    code, out, _ = council("config", "show")
    assert "(trusted)" in out
    assert 'instances.house.base_url = "https://llm.example.com/v1"' in out
    assert council("run", "Where?", "-p", "scripted")[0] == 0
    assert council("config", "trust", "council.toml")[0] == 0
    assert council("config", "trust", "--remove")[:2] == (0, "no longer trusted\n")
    assert council("config", "trust", "--remove")[:2] == (0, "it was not trusted\n")
    assert council("config", "show")[0] == 2


def test_config_trust_says_if_the_file_needs_no_trust(council: Council) -> None:
    code, _, err = council("config", "trust")
    assert code == 2
    assert "there is no council.toml" in err
    Path("council.toml").write_text('[council]\nchair = "local"\n')
    code, out, _ = council("config", "trust")
    assert code == 0
    assert "sets nothing that needs trust" in out
    assert "(needs no trust)" in council("config", "show")[1]


def test_format_html_writes_a_page(council: Council, seat: ScriptedProvider, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    code, out, _ = council("run", "Where?", "-p", "scripted:3", "--format", "html", "-o", str(path))
    assert (code, out) == (0, "")
    assert path.read_text().startswith("<!doctype html>")
    assert "Paris" in path.read_text()
    assert council("run", "Where?", "-p", "scripted:3", "--format", "html")[1].endswith("</html>\n\n")


def test_a_dollar_budget_warns_if_a_cost_is_unknown(council: Council, seat: ScriptedProvider) -> None:
    code, _, err = council("run", "Where?", "-p", "scripted", "--budget-usd", "1")
    assert code == 0
    assert "the price of the calls of scripted is unknown" in err
    assert "nobody knows" not in council("run", "Where?", "-p", "scripted")[2]


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_only_the_owner_may_read_a_new_output_file(
    council: Council, seat: ScriptedProvider, tmp_path: Path, mask: int
) -> None:
    new, old = tmp_path / "new.html", tmp_path / "old.html"
    old.touch()
    old.chmod(0o644)
    before = os.umask(mask)
    try:
        for path in (new, old):
            assert council("run", "Where?", "-p", "scripted", "--format", "html", "-o", str(path))[0] == 0
    finally:
        os.umask(before)
    assert new.stat().st_mode & 0o777 == 0o600
    assert old.stat().st_mode & 0o777 == 0o644
    assert new.read_text().startswith("<!doctype html>")
    assert council("run", "Where?", "-p", "scripted", "-o", str(tmp_path))[0] == 2


def test_ctrl_c_while_modules_are_imported_exits_without_a_traceback() -> None:
    code = (
        "import os, signal, sys\n"
        "from llm_council.cli import main\n"
        "class Ctrl:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Ctrl())\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
