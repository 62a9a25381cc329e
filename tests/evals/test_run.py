"""Evaluations from the first draft to the report: resumed, limited, replayed."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest

from llm_council import Council, CouncilConfig
from llm_council.errors import AdapterFailed, InsideEventLoopError, InvalidOption
from llm_council.evals import (
    EvalOptions,
    EvalReport,
    VerdictKind,
    aevaluate,
    evaluate,
    evaluate_stream,
    plan_evaluation,
    read_tasks,
    replay,
)
from llm_council.evals.analysis import MOST_SAMPLES
from llm_council.evals.export import inspect_lines
from llm_council.evals.journal import FILE, DraftCell, EvalJournal
from llm_council.evals.measured import calibration_toml, weights_toml
from llm_council.evals.tasks import EvalTask, TaskSet
from llm_council.models import AnswerKind, Budget, SeatSpec
from llm_council.providers import registry
from llm_council.strategies.seat_accuracy import as_accuracies, weights_of
from llm_council.testing import World
from llm_council.testing.fakes import ScriptedProvider
from tests.evals._council import WORLD, PricedSeat, calls_of, council_of, tasks_of
from tests.evals.record import FOLDER

pytestmark = pytest.mark.slow

ARMS = ["poll", "escalate", "revise", "judge"]


def without_times(report: EvalReport) -> dict[str, Any]:
    """Return a report without what a clock decides."""
    data = report.to_dict()
    for row in data["rows"]:
        row["p50"] = row["p95"] = 0
    for curve in data["curves"]:
        for point in curve["points"]:
            point["seconds"] = 0
    return data


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvalReport]:
    """An evaluation of 30 tasks that ran through."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, evaluate(council_of(), tasks_of(30), arms=ARMS, out=folder)


def test_a_report_has_a_verdict_on_each_council_and_a_row_for_each_arm(finished: tuple[Path, EvalReport]) -> None:
    _, report = finished
    assert [verdict.arm for verdict in report.verdicts] == ["poll", "poll-in-turn", "escalate", "revise", "judge"]
    assert [row.arm for row in report.rows[:3]] == ["single:ann", "single:bob", "single:cy"]
    assert (report.items, report.total, report.unit, report.stopped) == (30, 30, "usd", None)
    assert report.row("poll").usd == pytest.approx(0.003)
    assert report.row("poll").calls == 3
    assert report.row("poll-in-turn").calls < 3
    assert report.row("poll-in-turn").accuracy == report.row("poll").accuracy
    # Three drafts of one seat cost as much as a poll of three seats with one price.
    assert report.row("poll").equal_samples == pytest.approx(3.0)
    assert {one.baseline.partition(":")[0] for one in report.verdict("poll").comparisons} == {"single", "sample"}


def test_three_seats_of_one_model_have_drafts_of_their_own(tmp_path: Path) -> None:
    with registry.overriding(ann=PricedSeat(0.7, world=WORLD, name="ann")):
        report = evaluate(Council(["ann:3"], config=CouncilConfig()), tasks_of(6), samples=2, out=tmp_path)
        again = evaluate(Council(["ann:3"], config=CouncilConfig()), tasks_of(6), samples=2, out=tmp_path, resume=True)
    assert len({row.accuracy.estimate for row in report.rows[:3]}) > 1
    assert without_times(replay(tmp_path)) == without_times(again) == without_times(report)


def test_samples_follow_what_the_dearest_arm_costs(finished: tuple[Path, EvalReport]) -> None:
    _, report = finished
    dearest = max(row.usd or 0.0 for row in report.rows if row.arm in ("revise", "judge"))
    drawn = {curve.seat: len(curve.points) for curve in report.curves}
    assert drawn["ann"] >= dearest / 0.001
    assert max(drawn.values()) <= MOST_SAMPLES


def test_a_replay_gives_the_report_and_needs_no_council(finished: tuple[Path, EvalReport]) -> None:
    folder, report = finished
    assert replay(folder) == report
    assert EvalReport.from_dict(json.loads((folder / "report.json").read_text())) == report
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert report.answer in (folder / "report.md").read_text().replace("\\", "")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_a_killed_evaluation_goes_on_and_pays_nothing_twice(
    finished: tuple[Path, EvalReport], tmp_path: Path, number: int
) -> None:
    folder, report = finished
    content = (folder / FILE).read_bytes()
    cut = Random(number).randrange(len(content))
    tmp_path.joinpath(FILE).write_bytes(content[:cut])
    kept = content[:cut].count(b"\n")
    council = council_of()
    again = evaluate(council, tasks_of(30), arms=ARMS, out=tmp_path, resume=True)
    assert without_times(again) == without_times(report)
    cells = [json.loads(line) for line in tmp_path.joinpath(FILE).read_text().splitlines()]
    drafts = [cell for cell in cells if cell.get("cell") == "draft"]
    assert len({(cell["item"], cell["seat"], cell["sample"]) for cell in drafts}) == len(drafts)
    new = [cell for cell in cells[kept:] if "cell" in cell]
    paid = sum(1 if cell["cell"] == "draft" else cell["calls"] - 3 for cell in new)
    assert calls_of(council) <= paid + 3 * len(new)
    assert len(cells) == content.count(b"\n")


def test_a_finished_evaluation_makes_no_call_again(finished: tuple[Path, EvalReport], tmp_path: Path) -> None:
    folder, report = finished
    tmp_path.joinpath(FILE).write_bytes((folder / FILE).read_bytes())
    council = council_of()
    assert evaluate(council, tasks_of(30), arms=ARMS, out=tmp_path, resume=True) == report
    assert calls_of(council) == 0


def test_cells_of_another_set_or_other_seats_are_not_mixed(finished: tuple[Path, EvalReport], tmp_path: Path) -> None:
    folder, _ = finished
    tmp_path.joinpath(FILE).write_bytes((folder / FILE).read_bytes())
    other = attrs.evolve(tasks_of(30), sha256="1" * 64)
    with pytest.raises(InvalidOption, match="another task set"):
        evaluate(council_of(), other, out=tmp_path, resume=True)
    with pytest.raises(InvalidOption, match="other seats"):
        evaluate(council_of({"ann": 0.8, "dan": 0.7}), tasks_of(30), out=tmp_path, resume=True)
    with pytest.raises(InvalidOption, match="--resume"):
        evaluate(council_of(), tasks_of(30), out=tmp_path)


@pytest.mark.parametrize("limit", [0.011, 0.05, 0.2])
def test_a_limit_is_exceeded_by_what_one_task_takes_at_the_most(limit: float, tmp_path: Path) -> None:
    report = evaluate(council_of(), tasks_of(30), arms=["poll", "revise"], budget=Budget(usd=limit), out=tmp_path)
    journal = EvalJournal.read(tmp_path)
    by_task: dict[str, float] = {}
    for cell in journal.cells():
        usd = cell.usd if isinstance(cell, DraftCell) else cell.new_usd
        by_task[cell.item] = by_task.get(cell.item, 0.0) + (usd or 0.0)
    spent = sum(by_task.values())
    assert report.usd == pytest.approx(spent)
    assert spent <= limit + max(by_task.values())
    assert 0 < report.items < 30
    assert "limit of" in str(report.stopped)
    assert replay(tmp_path).items == report.items


def test_a_limit_in_the_pilot_leaves_money_for_samples_at_equal_cost(tmp_path: Path) -> None:
    report = evaluate(council_of(), tasks_of(30), arms=["poll", "revise"], budget=Budget(usd=0.1), out=tmp_path)
    assert report.items > 2
    drawn = {curve.seat: len(curve.points) for curve in report.curves}
    assert drawn["ann"] > 5
    assert not any("fewer samples" in warning for warning in report.warnings)
    again = evaluate(
        council_of(), tasks_of(30), arms=["poll", "revise"], budget=Budget(usd=0.1), out=tmp_path, resume=True
    )
    assert again == report


@pytest.mark.slow
def test_a_council_of_better_seats_that_err_apart_pays_against_its_best_seat() -> None:
    # One sample costs as much as the whole poll of cheap seats, so equal cost is a single draft.
    world = World(seed="pays", options=4)
    council = council_of({"a": 0.7, "b": 0.7, "c": 0.7, "d": 0.7, "e": 0.7}, world=world)
    report = evaluate(council, tasks_of(200, world=world), arms=["poll"], samples=1, pool_only=True)
    assert report.verdict("poll").kind is VerdictKind.PAYS
    assert report.kind is VerdictKind.PAYS
    assert report.answer.startswith("A council pays on these tasks: poll")


def test_few_tasks_cannot_tell() -> None:
    report = evaluate(council_of(), tasks_of(6), arms=["poll"], pool_only=True)
    assert report.kind is VerdictKind.CANNOT_TELL
    assert report.verdict("poll").more_items


def test_graded_fields_choices_and_words_are_scored() -> None:
    tasks = TaskSet(
        name="mixed",
        sha256="2" * 64,
        tasks=[
            EvalTask(id="1", input="Which rusts?", choices=["iron", "pear"], target="A", scorer="choice"),
            EvalTask(id="2", input="Is it?", target=True, scorer="bool"),
            EvalTask(id="3", input="Who?", target="Ada Lovelace", scorer="exact"),
            EvalTask(id="4", input="Say.", target={"verdict": "reject", "n": 2}, scorer="fields"),
        ],
    )
    texts = ["ANSWER: iron", "ANSWER: yes", "ANSWER: The Ada Lovelace", '{"verdict": "reject", "n": 3}']

    async def answer(request: Any) -> str:
        said = {"rusts": texts[0], "Is it": texts[1], "Who": texts[2], "Say": texts[3]}
        asked = request.turns()[-1].text
        return next(text for key, text in said.items() if key in asked)

    seats = [ScriptedProvider(answer, name=name) for name in ("ann", "bob", "cy")]
    council = Council(seats, config=CouncilConfig())
    report = evaluate(council, tasks, arms=["all"], samples=2)
    assert report.row("single:ann").accuracy.estimate == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert report.row("poll").accuracy.estimate == pytest.approx(3.5 / 4)
    assert report.unit == "tokens"


@pytest.mark.anyio
class TestAsync:
    async def test_it_must_be_awaited_in_a_loop(self) -> None:
        pending = evaluate(council_of(), tasks_of(3), pool_only=True, samples=1)
        with pytest.raises(InsideEventLoopError, match=r"await evals\.evaluate"):
            _ = pending.items
        assert (await pending).items == 3
        assert pending.items == 3

    async def test_a_stream_tells_tasks_and_money(self) -> None:
        seen = []
        stream = evaluate_stream(council_of(), tasks_of(4), pool_only=True, samples=2)
        async for progress in stream:
            seen.append(progress)
        assert [(one.done, one.calls) for one in seen] == [(4, 24)] * 4 or seen[-1].calls == 24
        assert seen[-1].usd == pytest.approx(0.024)
        assert set(seen[-1].correct) == {"ann", "bob", "cy", "poll"}
        assert stream.result.items == 4

    async def test_seats_that_never_answer_end_it(self) -> None:
        council = Council([ScriptedProvider(ValueError("broken"), name=name) for name in "ab"], config=CouncilConfig())
        with pytest.raises(AdapterFailed, match="no seat answered the first"):
            await aevaluate(council, tasks_of(40))

    async def test_wrong_options_are_refused_before_anything_is_sent(self) -> None:
        council = council_of({"ann": 0.8, "bob": 0.7})
        for options, words in (
            ({"arms": ["judge"]}, r"arm judge: .*three seats"),
            ({"arms": ["nonsense"]}, "no arm 'nonsense'"),
            ({"samples": 0}, "samples"),
            ({"repeat": 0}, "repeat"),
            ({"best": "zoe"}, "no seat is named 'zoe'"),
            ({"margin": 5}, "margin"),
            ({"resume": True}, "out="),
        ):
            with pytest.raises(InvalidOption, match=words):
                await aevaluate(council, tasks_of(3), **options)
        judged = TaskSet(
            name="j", sha256="3" * 64,
            tasks=[EvalTask(id="1", input="x", scorer={"kind": "judge", "rubric": "good?"})],
        )  # fmt: skip
        with pytest.raises(InvalidOption, match="judge"):
            await aevaluate(council, judged)
        assert calls_of(council) == 0


def test_replicates_are_a_mean_within_the_task(tmp_path: Path) -> None:
    report = evaluate(council_of(), tasks_of(5), arms=["poll", "revise"], repeat=2, out=tmp_path, samples=1)
    cells = [cell for cell in EvalJournal.read(tmp_path).cells() if not isinstance(cell, DraftCell)]
    assert len(cells) == 10
    assert report.row("revise").items == 5
    assert report.row("revise").run_variance is not None
    assert report.row("poll").run_variance is None


def test_a_plan_says_what_it_takes_and_what_it_could_show() -> None:
    council = council_of()
    plan = plan_evaluation(council, tasks_of(194), EvalOptions(arms=("poll", "revise"), primary="poll"))
    assert calls_of(council) == 0
    assert (plan.items, plan.needed_10) == (194, 194)
    assert plan.against_both == pytest.approx(0.1, abs=0.002)
    pool = [arm for arm in plan.arms if arm.arm.startswith("pool")]
    assert [arm.calls for arm in pool] == [970, 970, 970]
    assert [arm.calls for arm in plan.arms if arm.arm == "revise"] == [582]


def test_weights_and_calibration_come_from_measured_tasks() -> None:
    report = evaluate(council_of(), tasks_of(60), arms=["poll"], samples=1, pool_only=True)
    import tomllib

    seats = tomllib.loads(weights_toml(report))["seats"]
    accuracy = {seat.name: report.row(f"single:{seat.name}").accuracy.estimate for seat in report.seats}
    (kind,) = {kind for seat in seats.values() for kind in seat["kinds"]}
    measured = {name: seat["kinds"][kind]["accuracy"] for name, seat in seats.items()}
    assert sorted(measured, key=lambda name: measured[name]) == sorted(accuracy, key=lambda name: accuracy[name])
    assert {seat["kinds"][kind]["tasks"] for seat in seats.values()} == {60}
    specs = [SeatSpec(name=seat.name, provider=seat.provider, model=seat.model) for seat in report.seats]
    weights = weights_of(as_accuracies(seats), specs, AnswerKind(kind))
    assert sorted(weights, key=lambda name: weights[name]) == sorted(accuracy, key=lambda name: accuracy[name])
    found = tomllib.loads(calibration_toml(report))
    assert found["accuracies"] == sorted(found["accuracies"])
    few = evaluate(council_of(), tasks_of(6), arms=["poll"], samples=1, pool_only=True)
    for write in (weights_toml, calibration_toml):
        with pytest.raises(InvalidOption, match="50 tasks"):
            write(few)


def test_an_exported_set_has_letters_and_texts(tmp_path: Path) -> None:
    lines = [
        {"id": "1", "input": "Which?", "choices": ["iron", "pear"], "target": "pear", "scorer": "choice"},
        {"id": "2", "input": "How many?", "target": 4, "scorer": "number"},
        {"id": "3", "input": "Say.", "target": {"b": 1, "a": 2}, "scorer": "fields"},
    ]
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    found = [json.loads(line) for line in inspect_lines(read_tasks(path))]
    assert [line["target"] for line in found] == ["B", "4", '{"a": 2, "b": 1}']
    assert found[0]["metadata"]["scorer"] == {"kind": "choice"}


@pytest.mark.parametrize(
    ("seats", "count", "arms"),
    [({"ann": 0.7}, 25, ["poll"]), ({"ann": 0.7}, 5, ["poll"]), ({"ann": 0.7, "bob": 0.6}, 25, ["single", "sample"])],
)
def test_seats_alone_are_reported_on_after_the_pilot(seats: dict[str, float], count: int, arms: list[str]) -> None:
    report = evaluate(council_of(seats), tasks_of(count), arms=arms, samples=1)
    assert (report.items, report.verdicts) == (count, ())
    assert report.row("single:ann").accuracy.estimate > 0
    assert "no arm of several seats" in report.answer
    assert report.to_html()


def test_the_recorded_journal_is_replayed() -> None:
    report = json.loads((FOLDER / "report.json").read_text())
    assert _rounded(replay(FOLDER).to_dict()) == _rounded(report)
    assert [row["arm"] for row in report["rows"][-6:-1]] == ["rank", "judge", "revise", "verify", "synthesize"]


def _rounded(value: Any) -> Any:
    """Return a report with fewer digits: Python's own sum of floats differs by version."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items() if key != "version"}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
