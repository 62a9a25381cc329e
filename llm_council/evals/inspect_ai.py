"""Councils in inspect_ai: its tasks run on a council, and its logs give paired verdicts.

``inspect eval task.py --model council/local:3 -M strategy=poll`` runs any task without tools on a council; seats are
joined with ``+``, and ``council/default`` takes those of the configuration. ``solver=council(...)`` does the same
within a task. The run is shown in ``inspect view``, with the vote in the metadata of each output.

Needs the extra ``inspect``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import attrs

from llm_council.errors import InvalidOption, MissingDependency, near
from llm_council.evals.statistics import DRAWS
from llm_council.evals.verdicts import MARGIN, Verdict, compare, verdicts
from llm_council.models._attrs import strict_init

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample
    from inspect_ai.solver import Solver

    from llm_council.council import Council

__all__ = ["LoggedScores", "council", "paired_verdicts", "read_log"]


def council(
    seats: str | Sequence[str] = "default",
    *,
    strategy: str = "poll",
    max_usd: float | None = None,
    own: Council | None = None,
) -> Solver:
    """Return a solver that lets a council answer, in place of ``generate()`` or ``multiple_choice()``.

    Of a task with choices, the seats vote on the choices, and the chosen one is marked for the scorer ``choice()``.

    Args:
        seats: the seats, joined with ``+`` or in a list; ``default`` takes those of the configuration.
        strategy: how they deliberate.
        max_usd: most US dollars of one sample.
        own: a council of yours, in place of ``seats``.

    Raises:
        MissingDependency: inspect_ai is not installed.
    """
    try:
        from llm_council.evals import _inspect_models
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    return _inspect_models.council(seats, strategy=strategy, max_usd=max_usd, own=own)


def _missing(error: ModuleNotFoundError) -> Exception:
    """Return the error that names the extra, if it is inspect_ai that is missing."""
    if (error.name or "").partition(".")[0] != "inspect_ai":
        return error
    return MissingDependency("inspect_ai is not installed: pip install 'llm-council-sdk[inspect]'")


@strict_init
@attrs.frozen(kw_only=True)
class LoggedScores:
    """Scores of a log of inspect_ai.

    Attributes:
        name: the model, or the name that was given.
        scores: the mean over epochs of each sample's score, by the sample's id.
        clusters: the sample's ``metadata["cluster"]``, else its id.
        failed: ids of samples that ended with an error; they are not scored.
    """

    name: str
    scores: Mapping[str, float]
    clusters: Mapping[str, str]
    failed: tuple[str, ...] = ()


def read_log(path: str, *, scorer: str | None = None, name: str | None = None) -> LoggedScores:
    """Return the scores of a log that inspect_ai wrote.

    Args:
        path: the log, in either of its formats.
        scorer: whose scores; needed if the task has several.
        name: what to call it; None takes the name of the model.

    Raises:
        InvalidOption: the log has no such scores.
        MissingDependency: inspect_ai is not installed.
    """
    try:
        from inspect_ai.log import read_eval_log
        from inspect_ai.scorer import value_to_float
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    log = read_eval_log(path)
    as_float = value_to_float()
    points: dict[str, list[float]] = {}
    clusters: dict[str, str] = {}
    failed: list[str] = []
    for sample in log.samples or []:
        item = str(sample.id)
        if sample.error is not None:
            failed.append(item)
            continue
        points.setdefault(item, []).append(min(1.0, max(0.0, as_float(_score_of(path, sample, scorer)))))
        clusters[item] = str((sample.metadata or {}).get("cluster", item))
    if not points:
        raise InvalidOption(f"{path}: the log holds no scored sample: run its task to the end")
    return LoggedScores(
        name=name or log.eval.model,
        scores={item: fmean(values) for item, values in points.items()},
        clusters=clusters,
        failed=tuple(failed),
    )


def _score_of(path: str, sample: EvalSample, scorer: str | None) -> Any:
    scores = sample.scores or {}
    if scorer is None and len(scores) == 1:
        return next(iter(scores.values())).value
    if scorer not in scores:
        known = ", ".join(scores) or "none"
        raise InvalidOption(f"{path}: scorer: name one of {known}, got {scorer!r}{near(str(scorer), list(scores))}")
    return scores[scorer].value


def paired_verdicts(
    arms: Sequence[LoggedScores], baselines: Sequence[LoggedScores], *, margin: float = MARGIN, draws: int = DRAWS
) -> dict[str, Verdict]:
    """Return whether each arm pays against all baselines, on the samples that all logs scored.

    Take the best single model, and repeated samples of it at equal cost; a log says nothing about equal cost.

    Args:
        arms: logs of councils.
        baselines: logs to compare with.
        margin: the smallest gain that is worth having.
        draws: draws of the bootstrap, where samples are clustered or scores graded.
    """
    if not arms or not baselines:
        raise InvalidOption("a verdict needs the log of an arm and that of a baseline")
    common = set.intersection(*(set(log.scores) for log in [*arms, *baselines]))
    items = [item for item in arms[0].scores if item in common]
    if not items:
        raise InvalidOption("the logs have no sample in common: compare runs of one task")
    clusters = [arms[0].clusters[item] for item in items]
    found = {
        arm.name: [
            compare(
                base.name,
                [arm.scores[item] for item in items],
                [base.scores[item] for item in items],
                clusters,
                draws=draws,
            )
            for base in baselines
        ]
        for arm in arms
    }
    return verdicts(found, margin=margin)
