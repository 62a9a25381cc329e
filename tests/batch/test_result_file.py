"""The file of results: what is written, and what a killed process may leave of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council._runtime import posix
from llm_council.batch.result_file import ResultFile, result_line
from llm_council.errors import InvalidOption


def values(name: str, status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"id": name, "status": status, "run_id": f"run-{name}", "cost": {"usd": 0.5}, **more}


def written(path: Path, *entries: dict[str, Any]) -> None:
    file = ResultFile(path)
    for entry in entries:
        file.add(entry)
    file.close()


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_results_come_back(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written(path, values("a"), values("b", "failed", cost={"usd": None}))
    file = ResultFile(path)
    assert list(file.finished) == ["a", "b"]
    assert (file.finished["a"].run_id, file.finished["a"].usd) == ("run-a", 0.5)
    assert (file.finished["b"].status, file.finished["b"].usd, file.finished["b"].line) == ("failed", None, 2)
    file.add(values("c"))
    file.close()
    assert ids(path) == ["a", "b", "c"]
    assert path.stat().st_mode & 0o077 == 0


_texts = st.text(max_size=20)


@examples(60)
@given(
    st.lists(st.tuples(_texts.filter(str.strip), _texts), min_size=1, max_size=5, unique_by=lambda x: x[0]), st.data()
)
def test_a_file_that_is_cut_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "results.jsonl"
    written(path, *(values(name, text=text) for name, text in entries))
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    # A line that lacks nothing but its end is whole.
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")]
    whole = sum(end <= cut for end in ends)
    file = ResultFile(path)
    assert list(file.finished) == [name for name, _ in entries[:whole]]
    assert file.torn == (cut not in (0, len(content)) and cut not in ends and cut - 1 not in ends)
    for name, text in entries[whole:]:
        file.add(values(name, text=text))
    file.close()
    assert path.read_bytes() == content


@examples(20)
@given(st.integers(1, 5000), st.integers(0, 40))
def test_zeros_that_a_lost_machine_leaves_are_cut_off(
    tmp_path_factory: pytest.TempPathFactory, zeros: int, part: int
) -> None:
    path = tmp_path_factory.mktemp("zeros") / "results.jsonl"
    written(path, values("a"))
    content = path.read_bytes()
    path.write_bytes(content + result_line(values("b"))[:part] + b"\0" * zeros)
    file = ResultFile(path)
    file.close()
    assert file.torn
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", ["my notes", "my notes\n", '{"id": "a"}\n', '["id"]\n', '{"status": "completed", "id": "a"', "{}\n"]
)
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(InvalidOption, match="line 1 is no result"):
        ResultFile(path)
    assert path.read_text() == content


@pytest.mark.skipif("fcntl" in posix.missing(), reason="the system has no locks of files")
def test_only_one_process_writes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first = ResultFile(path)
    with pytest.raises(InvalidOption, match="another process is writing these results"):
        ResultFile(path)
    first.add(values("a", "failed"))
    assert first.drop_failed() == 1
    with pytest.raises(InvalidOption, match="another process is writing these results"):
        ResultFile(path)  # the file is another one now
    first.close()
    ResultFile(path).close()


def test_failed_lines_are_dropped_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written(path, values("a"), values("b", "failed"), values("c", "degraded"), values("d", "failed"))
    file = ResultFile(path)
    assert file.drop_failed() == 2
    assert list(file.finished) == ["a", "c"]
    assert file.drop_failed() == 0
    file.add(values("b"))
    file.close()
    assert ids(path) == ["a", "c", "b"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_line_that_cannot_be_written_leaves_none_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.jsonl"
    file = ResultFile(path)
    file.add(values("a"))
    real = os.write

    def full(handle: int, data: Any) -> int:
        if len(data) < 10:
            raise OSError(28, "No space left on device")
        return real(handle, bytes(data)[:-5])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            file.add(values("b"))
    assert list(file.finished) == ["a"]
    file.add(values("c"))
    file.close()
    assert ids(path) == ["a", "c"]


def test_secrets_are_masked_and_ids_are_not(tmp_path: Path) -> None:
    secret = "sk-proj-" + "a1B2" * 10
    line = json.loads(result_line(values(secret, text=f"my key is {secret}")))
    assert line["id"] == secret
    assert secret not in line["text"]
    assert json.loads(result_line(values("ä", text="\ud800 Grüße"))) == values("ä", text="? Grüße")


def test_a_place_without_permission_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="name another file"):
        ResultFile(tmp_path)
    with pytest.raises(InvalidOption, match="name another file"):
        ResultFile(tmp_path / "none" / "results.jsonl")
