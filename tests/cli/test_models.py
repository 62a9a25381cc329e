"""``council models``: what there is, where it lies, and fetching it."""

import json
import sys

import pytest

from llm_council.cli import main
from llm_council.providers._local import weights as weights


@pytest.fixture
def council(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(weights.ENV, raising=False)
    row = {**weights._rows()[0], "name": "tiny", "package": "of_nobody", "file": "tiny.gguf", "size_bytes": 4}
    monkeypatch.setattr(weights, "_rows", lambda: (row,))

    def fetch(row, folder, progress):
        (folder / row["file"]).write_bytes(b"GGUF")
        for done in (0, 2, 4):
            progress(done, 4)

    monkeypatch.setattr(weights, "_fetch", fetch)
    monkeypatch.setattr(weights, "check_fetch", lambda name: None)  # this Python may have no pip

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["council", "models", *words])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return run


def test_pull_fetches_a_model_and_path_finds_it(council, tmp_path):
    where = tmp_path / "llm-council" / "models" / "tiny.gguf"
    assert council("path") == (1, "", "not fetched; run: council models pull\n")
    assert "not fetched" in council("list")[1]
    code, out, err = council("pull", "tiny")
    assert (code, out) == (0, f"{where}\n")
    assert "fetching the weights" in err
    assert council("pull") == (0, f"{where}\n", "")
    assert council("path", "tiny") == (0, f"{where}\n", "")
    (model,) = json.loads(council("list", "--json")[1])
    assert (model["name"], model["path"], model["license"]) == ("tiny", str(where), "Apache-2.0")


def test_list_shows_licence_size_memory_and_source_of_larger_models(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(weights.ENV, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["council", "models", "list"])
    with pytest.raises(SystemExit):
        main()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("qwen2.5-7b-instruct")]
    source = "bartowski/Qwen2.5-7B-Instruct-GGUF/Qwen2.5-7B-Instruct-Q4_K_M.gguf"
    assert " ".join(line.split()) == f"qwen2.5-7b-instruct Apache-2.0 4.7 GB 5.6 GB {source} not fetched"


@pytest.mark.parametrize("words", [("pull", "tyny"), ("path", "tyny")])
def test_an_unknown_name_is_a_usage_error(council, words):
    code, out, err = council(*words)
    assert (code, out) == (2, "")
    assert "did you mean 'tiny'" in err
    assert "Traceback" not in err


def test_without_pip_and_uv_a_fetch_is_refused_before_a_bar_is_drawn(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(weights.ENV, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["council", "models", "pull"])
    with pytest.raises(SystemExit) as exit_:
        main()
    out, err = capsys.readouterr()
    assert (exit_.value.code, out) == (2, "")
    assert "ensurepip" in err
    assert "fetching the weights" not in err
