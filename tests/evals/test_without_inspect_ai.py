"""Without inspect_ai, its bridge imports, and its use names the extra."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from llm_council.errors import InvalidOption, MissingDependency
from llm_council.evals import inspect_ai as bridge


@pytest.fixture
def _without(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "inspect_ai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "llm_council.evals._inspect_models", raising=False)
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    return


@pytest.mark.usefixtures("_without")
def test_its_use_names_the_extra() -> None:
    with pytest.raises(MissingDependency, match=r"llm-council-sdk\[inspect\]"):
        bridge.read_log("x.eval")
    with pytest.raises(MissingDependency, match=r"llm-council-sdk\[inspect\]"):
        bridge.council()
    with pytest.raises(MissingDependency, match=r"llm-council-sdk\[inspect\]"):
        bridge.import_logs({"a": "x.eval"}, "run")


def logged(name: str, scores: list[float]) -> bridge.LoggedScores:
    items = [str(number) for number in range(len(scores))]
    return bridge.LoggedScores(
        name=name, scores=dict(zip(items, scores, strict=True)), clusters={item: item for item in items}
    )


def test_scores_of_logs_are_paired_by_sample() -> None:
    arm, base = logged("council", [1.0] * 50 + [0.0] * 10), logged("single", [1.0] * 30 + [0.0] * 32)
    found = bridge.paired_verdicts([arm], [base])["council"]
    assert found.comparisons[0].items == 60
    assert found.comparisons[0].difference.estimate == pytest.approx(20 / 60)
    assert found.kind == "pays"


def test_logs_without_a_common_sample_are_refused() -> None:
    other = bridge.LoggedScores(name="x", scores={"z": 1.0}, clusters={"z": "z"})
    with pytest.raises(InvalidOption, match="no sample in common"):
        bridge.paired_verdicts([logged("a", [1.0])], [other])
    with pytest.raises(InvalidOption, match="that of a baseline"):
        bridge.paired_verdicts([logged("a", [1.0])], [])
