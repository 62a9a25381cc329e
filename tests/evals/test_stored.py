"""Stored runs that people graded become an evaluation, without a call."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_council import Council, CouncilConfig
from llm_council.errors import InvalidOption
from llm_council.evals.report import EvalReport
from llm_council.evals.stored import evaluate_stored, grades_path, read_grades, write_grade
from llm_council.providers import registry
from llm_council.results import CouncilResult
from llm_council.store import Store
from llm_council.testing import World
from tests.evals._council import SEATS, PricedSeat, calls_of

NUMBER = {"type": "number"}

# Two answers to each question: three seats never tie, so the seed of a run, which is chance, decides nothing.
WORLD = World(seed="evals", options=5, same_mistake=1.0)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Council, Path, list[str]]:
    """Ten stored runs in which all seats drafted: a poll cancels seats that cannot change its outcome."""
    path = tmp_path / "runs.db"
    seats = [PricedSeat(right, world=WORLD, name=name) for name, right in SEATS.items()]
    council = Council(seats, config=CouncilConfig(), store=path, strategy="revise")
    runs = [council.run(f"What is item {item}?", schema=NUMBER) for item in range(10)]
    return council, path, [run.run_id for run in runs]


def grade_all(path: Path, runs: list[str]) -> Path:
    file = grades_path(str(path))
    for item, run in enumerate(runs):
        write_grade(file, run, str(WORLD.right_answer(item)))
    return file


def test_graded_runs_are_reported_on_without_a_call(stored: tuple[Council, Path, list[str]]) -> None:
    council, path, runs = stored
    file = grade_all(path, runs)
    before = calls_of(council)
    report = evaluate_stored(Store(path), read_grades(file))
    assert calls_of(council) == before
    assert report.items == 10
    ran = report.row("as it ran: revise")
    results = [CouncilResult.from_dict(Store(path).show_sync(run).result or {}) for run in runs]
    right = [result.output == WORLD.right_answer(item) for item, result in enumerate(results)]
    assert ran.accuracy.estimate == pytest.approx(sum(right) / 10)
    assert ran.usd == pytest.approx(sum(result.cost.usd or 0.0 for result in results) / 10)
    assert report.row("single:ann").usd == pytest.approx(0.001)
    assert any("one draft of each seat" in warning for warning in report.warnings)
    assert report.verdict("as it ran: revise").comparisons


@pytest.mark.slow
def test_stored_runs_never_pay_since_samples_at_equal_cost_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    # Wrong answers differ, so that the poll is far better than each of the seats.
    world = World(seed="evals", options=40)
    seats = [PricedSeat(0.6, world=world, name=name) for name in "abcde"]
    council = Council(seats, config=CouncilConfig(), store=path, strategy="revise")
    file = grades_path(str(path))
    for item in range(40):
        write_grade(file, council.run(f"What is item {item}?", schema=NUMBER).run_id, str(world.right_answer(item)))
    report = evaluate_stored(Store(path), read_grades(file))
    verdict = report.verdict("poll")
    assert [one.baseline.partition(":")[0] for one in verdict.comparisons] == ["single"]
    assert (verdict.comparisons[0].difference.low or 0.0) > 0.05
    assert (verdict.kind, verdict.more_items) == ("cannot tell yet", None)
    assert "samples at equal cost are unknown" in report.answer
    assert "pays" not in {one.kind for one in report.verdicts}
    assert report.row("poll").equal_samples is None
    assert "samples at equal cost are unknown" in report.to_html()
    assert EvalReport.from_dict(report.to_dict()) == report


def test_three_seats_of_one_model_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with registry.overriding(ann=PricedSeat(0.7, world=WORLD, name="ann")):
        council = Council(["ann:3"], config=CouncilConfig(), store=path, strategy="revise")
        file = grades_path(str(path))
        for item in range(5):
            run = council.run(f"What is item {item}?", schema=NUMBER).run_id
            write_grade(file, run, str(WORLD.right_answer(item)))
    report = evaluate_stored(Store(path), read_grades(file))
    assert (report.items, len(report.seats)) == (5, 3)


def test_a_run_that_is_right_needs_no_answer_and_a_wrong_one_does(stored: tuple[Council, Path, list[str]]) -> None:
    _, path, runs = stored
    file = grades_path(str(path))
    write_grade(file, runs[0], "right")
    write_grade(file, runs[1], "wrong")
    report = evaluate_stored(Store(path), read_grades(file))
    assert report.items == 1
    assert report.row("as it ran: revise").accuracy.estimate == 1.0
    assert any("grade it with the right answer" in warning for warning in report.warnings)


def test_the_last_grade_of_a_run_counts(stored: tuple[Council, Path, list[str]]) -> None:
    _, path, runs = stored
    file = grades_path(str(path))
    write_grade(file, runs[0], "wrong")
    write_grade(file, runs[0], "4")
    (grade,) = read_grades(file).values()
    assert (grade.grade, grade.target) == ("target", 4)


def test_without_grades_the_remedy_is_named(stored: tuple[Council, Path, list[str]], tmp_path: Path) -> None:
    _, path, runs = stored
    with pytest.raises(InvalidOption, match="council grade RUN"):
        read_grades(tmp_path / "none.jsonl")
    file = grades_path(str(path))
    write_grade(file, runs[0], "wrong")
    with pytest.raises(InvalidOption, match="no graded run can be scored"):
        evaluate_stored(Store(path), read_grades(file))
    file.write_text("{}\n")
    with pytest.raises(InvalidOption, match="line 1"):
        read_grades(file)
    with pytest.raises(InvalidOption, match="--grades"):
        grades_path("postgres://somewhere")
