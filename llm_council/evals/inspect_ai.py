"""Use councils in inspect_ai: run its tasks on a council, and compute verdicts from its logs.

``inspect eval task.py --model council/local:3 -M strategy=poll`` runs any task without tools on a council; seats are
joined with ``+``, and ``council/default`` takes those of the configuration. ``solver=council(...)`` does the same
within a task. The run is shown in ``inspect view``, with the vote in the metadata of each output.

Needs the extra ``inspect``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import attrs

from llm_council.errors import InvalidOption, MissingDependency, near
from llm_council.evals.arms import FREE
from llm_council.evals.journal import ArmCell, DraftCell, EvalJournal, digest
from llm_council.evals.run import replay
from llm_council.evals.scorers import Scorer, score
from llm_council.evals.statistics import DRAWS
from llm_council.evals.tasks import EvalTask, TaskSet
from llm_council.evals.verdicts import MARGIN, Verdict, compare, verdicts
from llm_council.evals.work import SET_COPY, save_tasks
from llm_council.models import Message
from llm_council.models._attrs import strict_init

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.solver import Solver

    from llm_council.council import Council
    from llm_council.evals.report import EvalReport

__all__ = ["LoggedScores", "council", "import_logs", "paired_verdicts", "read_log"]


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
        scorer: name of the scorer whose scores are read; needed if the task has several.
        name: name of the result; None takes the name of the model.

    Raises:
        InvalidOption: the log has no such scores.
        MissingDependency: inspect_ai is not installed.
    """
    try:
        from inspect_ai.scorer import value_to_float
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    log = _open(path)
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

    Use logs of the best single model, and of repeated samples of it at equal cost. Whether the costs are equal is not
    checked.

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


def import_logs(
    seats: Mapping[str, str],
    folder: str | PathLike[str],
    *,
    councils: Mapping[str, str] | None = None,
    scorer: Scorer | str | Mapping[str, Any] | None = None,
) -> EvalReport:
    """Write a journal of logs of one task, and return its report; ``council eval --replay`` shows it again.

    Epochs are further samples of a seat, so that votes over seats and samples at equal cost follow without a call.
    Answers are scored by this package, not by the scorer of the log.

    Args:
        seats: by name of a seat, the log of its model.
        folder: where the journal is written; it must not hold one.
        councils: by name of an arm, the log of a council.
        scorer: for all samples; None takes ``choice`` for samples with choices, and ``exact`` for others.

    Raises:
        InvalidOption: the logs have no sample in common, or a target that the scorer cannot read.
        MissingDependency: inspect_ai is not installed.
    """
    if not seats:
        raise InvalidOption("seats: name the log of one model or more")
    logs = {name: _samples(path) for name, path in seats.items()}
    arms = {name: _samples(path) for name, path in (councils or {}).items()}
    common = set.intersection(*(set(found) for found in [*logs.values(), *arms.values()]))
    items = [item for item in next(iter(logs.values())) if item in common]
    if not items:
        raise InvalidOption("the logs have no sample in common: compare runs of one task")
    first = next(iter(logs.values()))
    made = tuple(_task(item, first[item][0], scorer) for item in items)
    name = Path(next(iter(seats.values()))).stem
    tasks = TaskSet(name=name, tasks=made, sha256=digest([task.to_dict() for task in made]))
    identities = {seat: digest(seat, found[items[0]][0].output.model) for seat, found in logs.items()}
    journal = EvalJournal.open(Path(folder), resume=False)
    try:
        journal.begin(_header(tasks, logs, arms, identities, items))
        save_tasks(tasks, Path(folder) / SET_COPY)
        for item in items:
            for seat, found in logs.items():
                for place, sample in enumerate(found[item]):
                    journal.add(_draft(tasks, item, seat, identities[seat], place, sample))
            for arm, found in arms.items():
                for place, sample in enumerate(found[item]):
                    journal.add(_arm(tasks, tasks.tasks[items.index(item)], arm, place, sample))
    finally:
        journal.close()
    return replay(folder)


def _open(path: str) -> EvalLog:
    try:
        from inspect_ai.log import read_eval_log
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    return read_eval_log(path)


def _samples(path: str) -> dict[str, list[EvalSample]]:
    """Return the samples of a log by id, in the order of their epochs."""
    found: dict[str, list[EvalSample]] = {}
    for sample in sorted(_open(path).samples or [], key=lambda one: one.epoch):
        found.setdefault(str(sample.id), []).append(sample)
    return found


def _task(item: str, sample: EvalSample, scorer: Scorer | str | Mapping[str, Any] | None) -> EvalTask:
    question: Any = sample.input
    if not isinstance(question, str):
        question = [Message(message.role, message.text) for message in question]
    if scorer is None:
        scorer = "choice" if sample.choices else "exact"
    cluster = (sample.metadata or {}).get("cluster")
    try:
        return EvalTask(
            id=item,
            input=question,
            target=sample.target,
            choices=sample.choices or (),
            scorer=Scorer.of(scorer),
            metadata={} if cluster is None else {"cluster": cluster},
        )
    except InvalidOption as error:
        raise error._reword(f"sample {item!r:.80}: {error.message}") from None


def _header(
    tasks: TaskSet,
    logs: Mapping[str, Mapping[str, Sequence[EvalSample]]],
    arms: Mapping[str, Mapping[str, Sequence[EvalSample]]],
    identities: Mapping[str, str],
    items: Sequence[str],
) -> dict[str, Any]:
    described = {"name": tasks.name, "sha256": tasks.sha256, "tasks": len(items), "licence": None, "source": None}
    models = {seat: found[items[0]][0].output.model for seat, found in logs.items()}
    return {
        "version": "",
        "set": described,
        "seats": [
            {"name": seat, "provider": "inspect_ai", "model": model, "identity": identities[seat]}
            for seat, model in models.items()
        ],
        "free": list(FREE),
        "called": list(arms),
        # Every task has as many: the fewest that any log has.
        "samples": min(len(found[item]) for found in logs.values() for item in items),
        "repeat": min((len(found[item]) for found in arms.values() for item in items), default=1),
        "margin": MARGIN,
        "best": None,
        "primary": next(iter(arms)) if len(arms) == 1 else None,
        "seed": "0",
    }


def _spent(sample: EvalSample) -> dict[str, Any]:
    """Return what a sample cost, as the cells of a journal have it."""
    usage = sample.output.usage
    return {
        "usd": getattr(usage, "total_cost", None),
        "input_tokens": usage.input_tokens if usage else 0,
        "output_tokens": usage.output_tokens if usage else 0,
        "seconds": sample.output.time or 0.0,
    }


def _draft(tasks: TaskSet, item: str, seat: str, identity: str, place: int, sample: EvalSample) -> DraftCell:
    failed = sample.error is not None
    return DraftCell(
        set=tasks.sha256,
        item=item,
        seat=seat,
        identity=identity,
        prompt="inspect_ai",
        sample=place,
        text=None if failed else sample.output.completion,
        model=sample.output.model,
        error=sample.error.message if sample.error is not None else None,
        **_spent(sample),
    )


def _arm(tasks: TaskSet, task: EvalTask, arm: str, place: int, sample: EvalSample) -> ArmCell:
    text = None if sample.error is not None else sample.output.completion
    return ArmCell(
        set=tasks.sha256,
        item=task.id,
        arm=arm,
        replicate=place,
        plan=str(sample.uuid),
        status="failed" if text is None else "completed",
        answer=None if text is None else score(task, text).answer,
        text=text,
        new_usd=0.0,
        calls=1,
        error=sample.error.message if sample.error is not None else None,
        **_spent(sample),
    )
