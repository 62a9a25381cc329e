"""Plan an evaluation: the calls and cost that it would take, and the gains that it could detect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import attrs

from llm_council._engine.estimate import Estimate, estimate
from llm_council.evals.arms import called_strategy, chosen_arms
from llm_council.evals.grades import check_judge
from llm_council.evals.judging import grade_request
from llm_council.evals.pool import Seats
from llm_council.evals.tasks import EvalTask, TaskSet
from llm_council.evals.verdicts import effective_items, items_needed, resolvable_difference
from llm_council.evals.work import EvalOptions, check_names, judge_of, task_order
from llm_council.models import Usage
from llm_council.models._attrs import as_tuple, positive_int, strict_init
from llm_council.models.deliberation import Phase
from llm_council.strategies.sample import Sample

if TYPE_CHECKING:
    from llm_council.council import Council

__all__ = ["ArmPlan", "EvalPlan", "plan_evaluation"]

DISCORDANCE = 0.2
"""Assumed share of tasks on which exactly one of two arms is right; it is measured once there are answers."""

LOOKED_AT = 20
"""Tasks whose prompts are built for the estimate of all."""


@strict_init
@attrs.frozen(kw_only=True)
class ArmPlan:
    """What the calls of an arm would take, for all tasks.

    Attributes:
        arm: name of the arm; ``pool`` for the drafts that all share.
        calls: number of calls.
        tokens: input and output tokens; four characters count as one, and an answer without a limit as 1,000.
        usd: US dollars; None if no price is known.
        unpriced: seats whose price is unknown; ``usd`` is without them.
    """

    arm: str
    calls: int
    tokens: int
    usd: float | None
    unpriced: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)


@strict_init
@attrs.frozen(kw_only=True)
class EvalPlan:
    """The calls and cost of an evaluation, and the gains that it could detect with a chance of 80 %.

    Attributes:
        items: number of tasks.
        clusters: number of groups of tasks.
        arms: the pool, a row for each seat, then the arms that need calls of their own.
        against_one: the smallest gain over one baseline that these tasks can detect, such as 0.1 for 10 points; None if
            they can detect none.
        against_both: the smallest gain over both baselines, likewise.
        discordance: assumed share of tasks on which exactly one of two arms is right.
        needed_10: number of tasks that detect a gain of 10 points over both baselines.
        needed_5: number of tasks that detect a gain of 5 points over both baselines.
    """

    items: int = attrs.field(validator=positive_int)
    clusters: int
    arms: tuple[ArmPlan, ...] = attrs.field(converter=as_tuple)
    against_one: float | None
    against_both: float | None
    discordance: float
    needed_10: int
    needed_5: int

    @property
    def calls(self) -> int:
        """The calls of all arms."""
        return sum(arm.calls for arm in self.arms)

    @property
    def usd(self) -> float | None:
        """The US dollars of all arms; None if no price is known. Arms without a known price are left out."""
        known = [arm.usd for arm in self.arms if arm.usd is not None]
        return sum(known) if known else None

    def lines(self) -> Iterator[str]:
        """Yield the plan as sentences for people."""
        groups = "" if self.clusters == self.items else f" in {self.clusters:,} clusters"
        yield f"{self.items:,} tasks{groups}; nothing was sent."
        share = 100 * self.discordance
        if self.against_both is None:
            yield f"These tasks can show no gain, if two arms differ on {share:g} % of them."
        else:
            one = "" if self.against_one is None else f" ({100 * self.against_one:.0f} against one of them)"
            yield (
                f"They can show a gain of {100 * self.against_both:.0f} points over both baselines{one}, with a chance"
                f" of 80 %, if two arms differ on {share:g} % of the tasks."
            )
        yield f"A gain of 10 points needs {self.needed_10:,} tasks, one of 5 points {self.needed_5:,}."
        yield (
            "After a pilot of 20 tasks, seats get further samples, to cost as much as the dearest arm: up to 40 a task."
        )


def plan_evaluation(council: Council, tasks: TaskSet, options: EvalOptions) -> EvalPlan:
    """Return what an evaluation would cost, and which gains it could detect. Nothing is sent.

    Args:
        council: the seats.
        tasks: the task set.
        options: the options of the evaluation.

    Raises:
        ConfigurationError: an arm cannot work with these seats.
    """
    seats = Seats(council)
    check_names(options, seats.names)
    judge = judge_of(council, options)
    if judge is not None:
        check_judge(judge, seats, may_sit=options.judge_may_sit)
    _, called = chosen_arms(options.arms)
    looked_at = task_order(tasks, options.seed)[:LOOKED_AT]
    found = []
    for spec in seats.specs:
        one = _total(
            f"pool: {spec.name}",
            [
                estimate(
                    attrs.evolve(
                        seats.plan(task, strategy=Sample(k=2, vote_on=task.vote_on), seed="plan"),
                        drafters=(spec.name,),
                        samples=options.samples,
                        phases=(Phase.DRAFT,),
                    ),
                    council._price,
                )
                for task in looked_at
            ],
            len(tasks.tasks),
        )
        found.append(one)
    for name, arm in () if options.pool_only else called.items():
        plans = [seats.plan(task, strategy=called_strategy(arm, task), seed="plan") for task in looked_at]
        # The drafts are those of the pool.
        shares = [estimate(plan, council._price) for plan in plans]
        one = _total(name, shares, len(tasks.tasks), times=options.repeat)
        drafts = round(fmean(share.calls.get(Phase.DRAFT, 0) for share in shares) * len(tasks.tasks) * options.repeat)
        found.append(attrs.evolve(one, calls=one.calls - drafts))
    if judge is not None:
        each = 2 * len(seats.specs) * options.samples + options.repeat * len(() if options.pool_only else called)
        found.append(_grading(judge, looked_at, each, len(tasks.tasks)))
    sizes = list(Counter(task.cluster for task in tasks.tasks).values())
    # How alike tasks of a cluster are is not known yet; .1 is what evaluations of texts with several questions show.
    items = effective_items(sizes, 0.1)
    strategies = max(1, len(called) + sum(arm in ("poll", "weigh", "escalate") for arm in options.arms))
    shared = strategies if options.primary is None else 1
    return EvalPlan(
        items=len(tasks.tasks),
        clusters=len(sizes),
        arms=found,
        against_one=resolvable_difference(items, DISCORDANCE, strategies=shared),
        against_both=resolvable_difference(items, DISCORDANCE, baselines=2, strategies=shared),
        discordance=DISCORDANCE,
        needed_10=items_needed(0.1, DISCORDANCE, baselines=2, strategies=shared),
        needed_5=items_needed(0.05, DISCORDANCE, baselines=2, strategies=shared),
    )


def _grading(judge: Seats, looked_at: Sequence[EvalTask], each: int, items: int) -> ArmPlan:
    """Return what the grades of a judge would take.

    Args:
        judge: the judge.
        looked_at: tasks whose requests are built for the estimate of all.
        each: grades of a task: two for each draft, and one for each answer of an arm.
        items: number of tasks.
    """
    (spec,) = judge.specs
    prompts = [sum(len(turn.text) for turn in grade_request(task, "", code="plan")) // 4 for task in looked_at]
    # An answer without a limit counts as 1,000 tokens: that which is graded, and that of the judge.
    tokens_in = round(fmean(prompts)) + 1_000
    usd = judge.price(spec, Usage(input_tokens=tokens_in, output_tokens=1_000))
    calls = each * items
    return ArmPlan(
        arm=f"judge: {spec.name}",
        calls=calls,
        tokens=calls * (tokens_in + 1_000),
        usd=None if usd is None else usd * calls,
        unpriced=() if usd is not None else (spec.name,),
    )


def _total(arm: str, estimates: list[Estimate], items: int, *, times: int = 1) -> ArmPlan:
    """Return the sum over all tasks, from estimates of some."""
    factor = items * times
    priced = [one.usd for one in estimates if one.usd is not None]
    return ArmPlan(
        arm=arm,
        calls=round(fmean(sum(one.calls.values()) for one in estimates) * factor),
        tokens=round(fmean(one.input_tokens + one.output_tokens for one in estimates) * factor),
        usd=fmean(priced) * factor if priced else None,
        unpriced=tuple(dict.fromkeys(name for one in estimates for name in one.unpriced)),
    )
