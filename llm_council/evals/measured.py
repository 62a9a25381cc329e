"""Write the results of an evaluation as TOML: the accuracy of seats, for weights, and the calibration of a poll."""

from __future__ import annotations

import json
from typing import Any

from llm_council.errors import InvalidOption
from llm_council.evals.calibration import calibrate, shrunk_accuracy
from llm_council.evals.report import EvalReport
from llm_council.strategies.seat_accuracy import FEWEST_TASKS, KindAccuracy, SeatAccuracy, as_toml

__all__ = ["calibration_toml", "weights_toml"]


def weights_toml(report: EvalReport) -> str:
    """Return the accuracy of the seats by kind of answer, for ``Poll(weights=...)``, with the models that it holds for.

    Raises:
        InvalidOption: no kind of answer has enough tasks.
    """
    if report.judge is not None:
        raise InvalidOption("weights need measured answers, and a judge scored these: evaluate tasks with targets")
    enough = {kind: found for kind, found in report.facts.get("kinds", {}).items() if found["tasks"] >= FEWEST_TASKS}
    if not enough:
        raise InvalidOption(
            f"weights need {FEWEST_TASKS} tasks with the same kind of answer, and this evaluation has {report.items} in"
            " all: their error would be larger than what they gain"
        )
    measured = {}
    for seat in report.seats:
        kinds = {}
        for kind, found in enough.items():
            right, tasks = found["right"], found["tasks"]
            mean = sum(right.values()) / (tasks * len(right))
            mean = min(max(mean, 0.5 / tasks), 1 - 0.5 / tasks)
            accuracy = shrunk_accuracy(right[seat.name], tasks, mean)
            kinds[kind] = KindAccuracy(accuracy=accuracy, tasks=tasks, options=found["options"])
        measured[seat.name] = SeatAccuracy(provider=seat.provider, model=seat.model, kinds=kinds)
    return as_toml(measured, title=f"Measured on {report.name}, {report.items} tasks.")


def calibration_toml(report: EvalReport) -> str:
    """Return how often the winner of a poll is right, by its share of the votes; a step function that never falls.

    Raises:
        InvalidOption: no poll was evaluated, or on too few tasks.
    """
    if report.items < FEWEST_TASKS or not report.risk:
        raise InvalidOption(
            f"a calibration needs a poll on {FEWEST_TASKS} tasks or more, and this evaluation has"
            f" {report.items if report.risk else 'none'}"
        )
    shares: list[float] = []
    scores: list[float] = []
    for point in report.risk:
        shares += [point.share] * point.items_at
        scores += [point.accuracy_at] * point.items_at
    found = calibrate(shares, scores)
    return "\n".join(
        [
            f"# How often the winner of a poll is right, by its share of the votes; measured on {found.items} tasks.",
            f"tasks = {found.items}",
            f"set = {_word(report.name)}",
            f"seats = {_words([seat.name for seat in report.seats])}",
            f"shares = [{', '.join(f'{share:.4f}' for share in found.shares)}]",
            f"accuracies = [{', '.join(f'{accuracy:.4f}' for accuracy in found.accuracies)}]",
            "",
        ]
    )


def _word(text: Any) -> str:
    # A JSON string in ASCII is a basic string of TOML.
    return json.dumps(str(text), ensure_ascii=False)


def _words(texts: list[str]) -> str:
    return f"[{', '.join(map(_word, texts))}]"
