"""Evaluations of prose, which a judge scores: its baselines, its agreement with known grades, its refusals."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council import Council, CouncilConfig
from llm_council.errors import AdapterFailed, ConfigurationError, InvalidOption, RequestRejected
from llm_council.evals import EvalOptions, EvalReport, evaluate, plan_evaluation, replay
from llm_council.evals.baselines import best_of_accuracy
from llm_council.evals.journal import FILE
from llm_council.evals.measured import weights_toml
from llm_council.evals.tasks import EvalTask, TaskSet
from llm_council.models import (
    Budget,
    Cost,
    CostSource,
    GenerateRequest,
    GenerateResponse,
    ProviderCapabilities,
    Usage,
)
from llm_council.providers.base import ProviderAdapter

pytestmark = pytest.mark.slow

WRITTEN = re.compile(r"of quality (\d+)")


class Priced(ProviderAdapter):
    """A provider that is billed for each answer."""

    name: ClassVar[str] = "priced"
    capabilities: ClassVar[ProviderCapabilities] = ProviderCapabilities(reasoning=True)

    def __init__(self, name: str, usd: float = 0.001) -> None:
        self.name = name  # type: ignore[misc]
        self.usd = usd
        self.requests: list[GenerateRequest] = []

    def say(self, request: GenerateRequest) -> str:
        """Return the answer."""
        raise NotImplementedError

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Answer, and report what that cost."""
        self.requests.append(request)
        cost = Cost(usd=self.usd, source=CostSource.REPORTED, complete=True)
        return GenerateResponse(text=self.say(request), usage=Usage(input_tokens=100, output_tokens=10), cost=cost)


class Writer(Priced):
    """A seat whose letters have a quality from 0 to 10, around its mean; two points more at high effort."""

    def __init__(self, name: str, mean: int, spread: int = 2) -> None:
        super().__init__(name)
        self.mean = mean
        self.spread = spread

    def say(self, request: GenerateRequest) -> str:
        """Write a letter."""
        asked = request.messages[-1].text
        if request.metadata.get("phase") == "judge":
            return "\n".join(f"SCORE {label}: 5" for label in re.findall(r"Text (\w)\n", asked))
        drawn = Random(f"{asked}/{request.sample}/{self.name}").randint(-self.spread, self.spread)
        more = 2 if request.reasoning is not None else 0
        quality = min(10, max(0, self.mean + drawn + more))
        return f"A letter by {self.name}, copy {request.sample or 0}, of quality {quality}."


class Reader(Priced):
    """A judge that sees the quality of a letter, with an error that each reading draws anew."""

    def __init__(self, name: str = "reader", error: int = 0) -> None:
        super().__init__(name)
        self.error = error

    def say(self, request: GenerateRequest) -> str:
        """Grade a letter."""
        text = request.messages[-1].text
        (quality,) = WRITTEN.findall(text)
        drawn = Random(f"{text}/{request.sample}").choice([-self.error, self.error])
        return f"It is clear.\nSCORE A: {min(10, max(0, int(quality) + drawn))}"


def letters(count: int, **fields: Any) -> TaskSet:
    """Return a set of letters to write."""
    scorer = {"kind": "judge", "rubric": "It names a date.", **fields.pop("scorer", {})}
    tasks = [EvalTask(id=f"letter-{n}", input=f"Write letter {n}.", scorer=scorer, **fields) for n in range(count)]
    return TaskSet(name="letters", tasks=tasks, sha256="1" * 64)


def council_of(**means: int) -> Council:
    """Return a council of writers."""
    return Council([Writer(name, mean) for name, mean in means.items()], config=CouncilConfig(seed="judged"))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvalReport, Reader]:
    """A judged evaluation of 24 tasks."""
    folder, judge = tmp_path_factory.mktemp("judged"), Reader()
    report = evaluate(council_of(ann=4, bob=6, cy=5), letters(24), arms=["all"], samples=3, out=folder, judge=judge)
    return folder, report, judge


def test_a_judged_report_says_so_and_has_the_baselines_for_prose(judged: tuple[Path, EvalReport, Reader]) -> None:
    _, report, judge = judged
    assert report.answer.startswith("Judged by reader, not measured: ")
    assert [row.arm for row in report.rows[:3]] == ["single:ann", "single:bob", "single:cy"]
    assert report.row("single:ann").accuracy.estimate == pytest.approx(0.4, abs=0.1)
    kinds = [one.baseline.partition(":")[0] for one in report.verdict("synthesize").comparisons]
    assert kinds == ["single", "best of samples", "high effort"]
    assert report.judge is not None
    assert (report.judge.name, report.judge.failed, report.judge.agreement) == ("reader", 0, None)
    assert report.judge.grades == len(judge.requests)
    assert "prose cannot be counted: poll, weigh, escalate left out" in report.warnings
    assert any("not validated" in warning for warning in report.warnings)
    assert (report.headroom, report.risk) == (None, ())


def test_the_best_of_several_samples_and_high_effort_beat_one_draft(judged: tuple[Path, EvalReport, Reader]) -> None:
    _, report, _ = judged
    (bob,) = [curve for curve in report.curves if curve.seat == "bob"]
    accuracies = [point.accuracy for point in bob.points]
    assert accuracies == sorted(accuracies)
    assert accuracies[-1] > accuracies[0] + 0.05
    # A sample costs a draft, and the grade by which it is chosen.
    assert bob.points[0].cost == pytest.approx(0.002)
    single, _, effort = report.verdict("rank").comparisons
    assert effort.difference.estimate < single.difference.estimate - 0.1


def test_a_judge_sees_the_rubric_and_no_name_of_a_seat_but_what_it_wrote(
    judged: tuple[Path, EvalReport, Reader],
) -> None:
    _, _, judge = judged
    for request in judge.requests:
        assert "It names a date." in request.messages[-1].text
        assert request.metadata["phase"] == "judge"
    keys = [request.idempotency_key for request in judge.requests]
    assert len(set(keys)) == len(keys)


def test_a_replay_gives_the_same_report_and_a_resumed_one_asks_nobody(judged: tuple[Path, EvalReport, Reader]) -> None:
    folder, report, _ = judged
    again = replay(folder)
    assert again.to_dict() == report.to_dict()
    assert EvalReport.from_dict(report.to_dict()).judge == report.judge
    judge, council = Reader(), council_of(ann=4, bob=6, cy=5)
    resumed = evaluate(council, letters(24), arms=["all"], samples=3, out=folder, resume=True, judge=judge)
    assert judge.requests == []
    assert resumed.to_dict() == report.to_dict()
    with pytest.raises(InvalidOption, match="of another judge"):
        evaluate(council, letters(24), arms=["all"], out=folder, resume=True, judge=Reader("critic"))


def test_a_task_without_all_its_grades_is_not_done(judged: tuple[Path, EvalReport, Reader], tmp_path: Path) -> None:
    folder, report, _ = judged
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    lines = (tmp_path / FILE).read_text().splitlines(keepends=True)
    last = max(place for place, line in enumerate(lines) if '"cell":"grade"' in line)
    (tmp_path / FILE).write_text("".join(lines[:last] + lines[last + 1 :]))
    assert replay(tmp_path).items == report.items - 1


@pytest.mark.slow
def test_choosing_by_another_grade_makes_a_noisy_judge_no_better_than_chance() -> None:
    council = Council([Writer("ann", 5, 0), Writer("bob", 5, 0)], config=CouncilConfig(seed="judged"))
    report = evaluate(council, letters(60), arms=["synthesize"], samples=5, judge=Reader(error=3))
    (ann, _) = report.curves
    # All letters are equally good. Scored by the grade that chose them, the best of five would have 0.8.
    assert ann.points[-1].accuracy == pytest.approx(0.5, abs=0.06)


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 3).map(float), st.integers(0, 10).map(float)), min_size=1, max_size=6)
)
def test_the_best_of_k_is_the_mean_over_all_ways_to_draw_k(samples: list[tuple[float | None, float]]) -> None:
    for number in range(1, len(samples) + 1):
        found = []
        for drawn in combinations(samples, number):
            best = max(-1.0 if grade is None else grade for grade, _ in drawn)
            found.append(fmean(score for grade, score in drawn if (-1.0 if grade is None else grade) == best))
        assert best_of_accuracy(samples, number) == pytest.approx(fmean(found))


def test_agreement_is_measured_on_labels_and_keys() -> None:
    labels = [{"answer": "Sorry, of quality 9.", "grade": 1}, {"answer": "No, of quality 2.", "grade": 0.8}]
    tasks = letters(26, metadata={"labels": labels}, target="quality 6", scorer={"key": "contains"})
    report = evaluate(council_of(ann=6), tasks, arms=["single"], samples=1, judge=Reader())
    assert report.judge is not None
    agreement = report.judge.agreement
    assert agreement is not None
    assert (agreement.items, agreement.is_validated) == (78, True)
    assert not any("not validated" in warning for warning in report.warnings)
    # The second label is wrong on every task; keys disagree where the letter is good without being of quality 6.
    assert 1 / 3 <= agreement.observed < 2 / 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"name one of another family than the seats, with judge= \(--judge\)"),
        ({"judge": Writer("ann", 5)}, "of the family of the seat ann.*--judge-may-sit"),
        ({"judge": "nobody"}, "nobody"),
    ],
)
def test_a_judge_of_another_family_is_needed_before_anything_is_sent(options: dict[str, Any], message: str) -> None:
    council = council_of(ann=4, bob=6)
    with pytest.raises(ConfigurationError, match=message):
        evaluate(council, letters(3), **options)
    assert all(not adapter.inner.requests for adapter in council._seating.adapters.values())  # type: ignore[attr-defined]


def test_a_judge_of_the_family_may_sit_where_it_is_allowed() -> None:
    report = evaluate(
        council_of(ann=4), letters(2), arms=["single"], samples=1, judge=Reader("ann"), judge_may_sit=True
    )
    assert report.items == 2


def test_measured_tasks_take_no_judge() -> None:
    tasks = TaskSet(name="m", tasks=[EvalTask(id="a", input="?", target=1, scorer="number")], sha256="2" * 64)
    with pytest.raises(InvalidOption, match="leave the judge out"):
        evaluate(council_of(ann=4), tasks, judge=Reader())


@pytest.mark.parametrize(
    ("metadata", "scorer", "message"),
    [
        ({"labels": [{"answer": "x"}]}, {}, "metadata.labels: expected a list such as"),
        ({"labels": [{"answer": "x", "grade": 7}]}, {}, "with grades from 0 to 1"),
        ({}, {"key": {"kind": "judge", "rubric": "x"}}, "key is a judge, too"),
        ({}, {"key": "judge"}, "key is a judge, too"),
        ({}, {"key": "number"}, "target is missing"),
    ],
)
def test_bad_labels_and_keys_are_refused(metadata: Any, scorer: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        letters(1, metadata=metadata, scorer=scorer)


def test_a_key_survives_the_file() -> None:
    (task,) = letters(1, target=["a", "b"], scorer={"key": {"kind": "contains"}}).tasks
    assert task.to_dict()["scorer"]["key"] == {"kind": "contains"}
    assert EvalTask(**task.to_dict()).scorer == task.scorer


class Stubborn(Reader):
    """A judge that writes prose until it is asked a number of times."""

    def __init__(self, prose: int) -> None:
        super().__init__("stubborn")
        self.prose = prose

    def say(self, request: GenerateRequest) -> str:
        """Grade, or talk."""
        asked = sum(one.messages == request.messages for one in self.requests)
        return "Lovely." if asked <= self.prose else super().say(request)


def test_a_judge_that_gives_no_grade_is_asked_again() -> None:
    judge = Stubborn(2)
    report = evaluate(council_of(ann=5), letters(1), arms=["single"], samples=1, judge=judge)
    assert report.judge is not None
    assert report.judge.failed == 0
    assert len({request.idempotency_key for request in judge.requests}) == len(judge.requests)


def test_a_judge_that_never_grades_ends_the_evaluation() -> None:
    with pytest.raises(AdapterFailed, match="the judge graded none of"):
        evaluate(council_of(ann=5), letters(5), arms=["single"], samples=1, judge=Stubborn(10_000))


class Broken(Reader):
    """A judge that fails on one letter."""

    def say(self, request: GenerateRequest) -> str:
        """Grade, or fail."""
        if "letter 1." in request.messages[-1].text:
            raise RequestRejected("this text is refused", status=400)
        return super().say(request)


def test_missing_grades_count_as_0_and_are_reported() -> None:
    report = evaluate(council_of(ann=5), letters(4), arms=["single"], samples=1, judge=Broken())
    assert report.judge is not None
    assert report.judge.failed > 0
    assert f"the judge gave no grade to {report.judge.failed} answers; they count as 0" in report.warnings


def test_grades_count_for_the_limit_and_for_the_plan() -> None:
    council = council_of(ann=4, bob=6)
    plan = plan_evaluation(council, letters(10), EvalOptions(arms=("synthesize",), samples=2, judge=Reader()))
    (grades,) = [arm for arm in plan.arms if arm.arm == "judge: reader"]
    assert grades.calls == (2 * 2 * 2 + 1) * 10
    judge = Reader()
    report = evaluate(council, letters(10), arms=["single"], samples=1, judge=judge, budget=Budget(usd=0.03))
    assert report.stopped is not None
    writers = [adapter.inner for adapter in council._seating.adapters.values()]  # type: ignore[attr-defined]
    spent = 0.001 * (len(judge.requests) + sum(len(writer.requests) for writer in writers))
    assert report.usd == pytest.approx(spent)


def test_weights_come_from_measured_answers_alone(judged: tuple[Path, EvalReport, Reader]) -> None:
    with pytest.raises(InvalidOption, match="a judge scored these"):
        weights_toml(judged[1])


def test_the_reports_name_the_judge(judged: tuple[Path, EvalReport, Reader]) -> None:
    _, report, _ = judged
    for text in (report.to_markdown(), report.to_html()):
        assert "judged, not measured" in text
        assert "the judge chooses by another grade" in " ".join(text.split())
    assert "Gain over the best seat at high effort" in report.to_html()
