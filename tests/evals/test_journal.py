"""The journal of an evaluation: what a killed process leaves is read again, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_council._runtime import posix
from llm_council.errors import InvalidOption
from llm_council.evals.journal import FILE, ArmCell, DraftCell, EvalJournal
from llm_council.models import Answer, AnswerKind


def draft(sample: int = 0, **facts: object) -> DraftCell:
    return DraftCell(set="s", item="i", seat="ann", identity="id", prompt="p", sample=sample, **facts)


ARM = ArmCell(
    set="s",
    item="i",
    arm="rank",
    replicate=0,
    plan="p",
    status="completed",
    answer=Answer(kind=AnswerKind.NUMBER, value=4, key="4", shown="4"),
    usd=0.25,
)


def test_cells_and_header_come_back(tmp_path: Path) -> None:
    journal = EvalJournal.open(tmp_path, resume=False)
    journal.begin({"set": {"name": "x"}})
    cells = [draft(text="ANSWER: 4", usd=0.5, structured={"a": 1}), draft(1, error="TimedOut: late"), ARM]
    for cell in cells:
        journal.add(cell)
    journal.close()
    again = EvalJournal.read(tmp_path)
    assert list(again.cells()) == cells
    assert again.header["set"] == {"name": "x"}
    assert not again.dropped


def test_a_torn_last_line_is_dropped_and_overwritten(tmp_path: Path) -> None:
    journal = EvalJournal.open(tmp_path, resume=False)
    journal.add(draft(text="first"))
    journal.add(draft(1, text="second"))
    journal.close()
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-9])
    again = EvalJournal.open(tmp_path, resume=True)
    assert again.dropped
    assert [cell.key[-1] for cell in again.cells()] == [0]
    again.add(draft(1, text="second"))
    again.close()
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == ["first", "second"]


@settings(deadline=None)
@given(cut=st.integers(0, 900))
def test_a_journal_cut_anywhere_keeps_its_whole_lines(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = EvalJournal.open(folder, resume=False)
    for sample in range(6):
        journal.add(draft(sample, text=f"text {sample} \N{SNOWMAN}"))
    journal.close()
    path = folder / FILE
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    assert len(list(EvalJournal.read(folder).cells())) == content[:cut].count(b"\n")


def test_a_folder_with_a_journal_is_not_overwritten(tmp_path: Path) -> None:
    journal = EvalJournal.open(tmp_path, resume=False)
    journal.add(draft())
    journal.close()
    with pytest.raises(InvalidOption, match="--resume"):
        EvalJournal.open(tmp_path, resume=False)


def test_a_line_that_is_no_cell_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"cell":"draft"}\n')
    with pytest.raises(InvalidOption, match="line 1"):
        EvalJournal.read(tmp_path)
    with pytest.raises(InvalidOption, match="no journal"):
        EvalJournal.read(tmp_path / "elsewhere")


def test_a_key_that_a_model_repeats_is_masked(tmp_path: Path) -> None:
    journal = EvalJournal.open(tmp_path, resume=False)
    secret = "sk-proj-" + "a1B2" * 10
    journal.add(draft(text=f"my key is {secret}"))
    journal.close()
    assert secret not in (tmp_path / FILE).read_text()


@pytest.mark.skipif("fcntl" in posix.missing(), reason="the system has no locks of files")
def test_a_folder_in_which_an_evaluation_works_is_not_resumed_beside_it(tmp_path: Path) -> None:
    first = EvalJournal.open(tmp_path, resume=False)
    first.begin({"seed": "0"})
    with pytest.raises(InvalidOption, match="another evaluation is working in this folder"):
        EvalJournal.open(tmp_path, resume=True)
    first.begin({"seed": "1"})
    first.close()
    again = EvalJournal.open(tmp_path, resume=True)
    assert again.header["seed"] == "1"
    again.close()
