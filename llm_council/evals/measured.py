"""Files that a council may use later: weights of seats and the calibration of a poll, as they were measured."""

from __future__ import annotations

import json
from typing import Any

from llm_council.errors import InvalidOption
from llm_council.evals.calibration import FEWEST_TASKS, calibrate, log_odds_weight, shrunk_accuracy
from llm_council.evals.report import EvalReport

__all__ = ["calibration_toml", "weights_toml"]


def weights_toml(report: EvalReport) -> str:
    """Return the weights of the seats for ``Poll(weights=...)``, with the models that they hold for.

    Raises:
        InvalidOption: the evaluation has too few tasks, or no seat is better than chance.
    """
    if report.items < FEWEST_TASKS:
        raise InvalidOption(
            f"weights need {FEWEST_TASKS} tasks, and this evaluation has {report.items}: their error would be larger"
            " than what they gain"
        )
    options = float(report.facts.get("options", 2))
    accuracy = {seat.name: report.row(f"single:{seat.name}").accuracy.estimate for seat in report.seats}
    mean = sum(accuracy.values()) / len(accuracy)
    mean = min(max(mean, 0.5 / report.items), 1 - 0.5 / report.items)
    shrunk = {name: shrunk_accuracy(found * report.items, report.items, mean) for name, found in accuracy.items()}
    weights = {name: log_odds_weight(found, options) for name, found in shrunk.items()}
    if not any(weights.values()):
        raise InvalidOption("no seat is better than chance on these tasks: weights cannot help them")
    lines = [
        f"# Weights of seats for the strategy poll, measured on {report.items} tasks.",
        "# They hold for these models and for tasks like these: measure again when a model changes.",
        f"tasks = {report.items}",
        f"set = {_word(report.name)}",
        f"options = {options:.3f}",
        "",
        "[weights]",
        *(f"{_word(name)} = {weight:.4f}" for name, weight in weights.items()),
    ]
    for seat in report.seats:
        lines += [
            "",
            f"[seats.{_word(seat.name)}]",
            f"provider = {_word(seat.provider)}",
            *([f"model = {_word(seat.model)}"] if seat.model else []),
            f"accuracy = {shrunk[seat.name]:.4f}",
        ]
    return "\n".join(lines) + "\n"


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
    return json.dumps(str(text))


def _words(texts: list[str]) -> str:
    return f"[{', '.join(map(_word, texts))}]"
