"""Whole evaluations of simulated seats, from the journal to the verdict: no false "pays", and the promised power."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from statistics import fmean

import pytest

from llm_council.evals import EvalReport, EvalTask, TaskSet, analysis
from llm_council.evals import verdicts as v
from llm_council.evals.analysis import Evidence, analyse
from llm_council.evals.arms import FREE
from llm_council.evals.journal import DraftCell, EvalJournal, digest
from llm_council.evals.pool import Pool

OPTIONS = ("north", "east", "south", "west")
SAMPLES = 6

Drafts = Callable[[Random], list[list[bool]]]
"""Draws which samples of each seat are right on a task."""


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    # The mean over evaluations is what counts; the limits of one interval may be rough.
    monkeypatch.setattr(analysis, "DRAWS", 200)
    monkeypatch.setattr(analysis, "FEWEST_DRAWS", 200)
    monkeypatch.setattr(analysis, "max_t_band", lambda *_, **__: {})


def alike(chance: Random, *, correlation: float = 0.6, accuracy: float = 0.7, seats: int = 3) -> list[list[bool]]:
    """Samples of a seat differ as much as seats do: a council has nothing that samples of one seat lack."""
    size = 1 / correlation - 1
    easiness = chance.betavariate(accuracy * size, (1 - accuracy) * size)
    return [[chance.random() < easiness for _ in range(SAMPLES)] for _ in range(seats)]


def one_mind(chance: Random, *, accuracy: float = 0.7, seats: int = 3) -> list[list[bool]]:
    """All seats say the same, always."""
    return [[chance.random() < accuracy] * SAMPLES] * seats


def apart(chance: Random, *, accuracy: float = 0.7, seats: int = 5) -> list[list[bool]]:
    """A seat always says the same, and seats err apart: samples gain nothing, and a poll of five gains 13.7 points."""
    return [[chance.random() < accuracy] * SAMPLES for _ in range(seats)]


def evaluated(drafts: Drafts, chance: Random, items: int, primary: str | None = None) -> EvalReport:
    """Return the report on an evaluation whose drafts are drawn, all at one price."""
    made = tuple(
        EvalTask(
            id=str(number),
            input=f"Where to, {number}?",
            target=chance.choice(OPTIONS),
            choices=OPTIONS,
            scorer="choice",
        )
        for number in range(items)
    )
    tasks = TaskSet(name="simulated", tasks=made, sha256=digest(items))
    journal, names = EvalJournal(), [f"s{number}" for number in range(len(drafts(Random(0))))]
    seats = [{"name": name, "provider": "simulated", "model": None, "identity": name} for name in names]
    for task in tasks.tasks:
        for name, found in zip(names, drafts(chance), strict=True):
            wrong = chance.choice([option for option in OPTIONS if option != task.target])
            for sample, is_right in enumerate(found):
                text = f"ANSWER: {task.target if is_right else wrong}"
                journal.add(
                    DraftCell(
                        set=tasks.sha256, item=task.id, seat=name, identity=name, prompt="p", sample=sample, text=text,
                        usd=0.001, input_tokens=10, output_tokens=10, seconds=1.0,
                    )
                )  # fmt: skip
    described = {"name": tasks.name, "sha256": tasks.sha256, "tasks": items, "licence": None, "source": None}
    settings = {"samples": SAMPLES, "repeat": 1, "margin": v.MARGIN, "best": None, "primary": primary, "seed": "0"}
    journal.begin({"version": "", "set": described, "seats": seats, "free": list(FREE), "called": [], **settings})
    pool = Pool(tasks, None, journal)
    pool.load({name: name for name in names})
    return analyse(Evidence(tasks=tasks, journal=journal, pool=pool), tasks.tasks)


def false_findings(drafts: Drafts, rounds: int, items: int) -> float:
    chance = Random(items)
    found = [evaluated(drafts, chance, items) for _ in range(rounds)]
    assert all({"poll", "weigh", "escalate"} <= {one.arm for one in report.verdicts} for report in found)
    return fmean([any(one.kind == "pays" for one in report.verdicts) for report in found])


def promised_and_found(rounds: int) -> tuple[float, float]:
    chance = Random(7)
    drawn = [[values[0] for values in apart(chance)] for _ in range(20_000)]
    gain = fmean([sum(votes) > 2 for votes in drawn]) - 0.7
    discordance = fmean([(sum(votes) > 2) != votes[0] for votes in drawn])
    items = v.items_needed(gain, discordance, baselines=2)
    promised = v.detection_power(items, gain, discordance, baselines=2)
    reports = [evaluated(apart, chance, items, primary="poll") for _ in range(rounds)]
    kinds = [next(one.kind for one in report.verdicts if one.arm == "poll") for report in reports]
    return promised, fmean([kind == "pays" for kind in kinds])


@pytest.mark.slow
@pytest.mark.parametrize("drafts", [alike, one_mind])
def test_a_council_that_gains_nothing_does_not_pay(drafts: Drafts) -> None:
    assert false_findings(drafts, 3, 60) == 0


def test_a_council_of_seats_that_err_apart_pays_where_the_plan_says_so() -> None:
    report = evaluated(apart, Random(3), 150, primary="poll")
    (poll,) = [one for one in report.verdicts if one.arm == "poll"]
    assert poll.kind == "pays"
    assert poll.comparisons[0].difference.estimate == pytest.approx(0.137, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("drafts", [alike, one_mind, partial(alike, correlation=0.9)])
def test_a_council_that_gains_nothing_does_not_pay_in_full(drafts: Drafts) -> None:
    assert false_findings(drafts, 30, 80) <= 0.05


@pytest.mark.slow
def test_whole_evaluations_have_the_power_that_the_plan_promises() -> None:
    rounds = 30
    promised, found = promised_and_found(rounds)
    assert found >= promised - 3 * (promised * (1 - promised) / rounds) ** 0.5
