"""The arms of an evaluation: what a seat, samples of a seat or a strategy answers to a task, and what that cost.

Free arms need no further call: single seats, samples, polls and cheap-first polls are computed from the drafts of the
pool, with the code of the strategies, so a free arm has the result that the strategy would have. Called arms run a
strategy on drafts of the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from random import Random
from statistics import variance
from typing import Any, Final

import attrs

from llm_council import _engine
from llm_council._engine.fences import to_bytes
from llm_council.errors import InvalidOption, RunError, near
from llm_council.errors._secrets import redact
from llm_council.evals.calibration import shrunk_accuracy
from llm_council.evals.grades import CHOOSING, Grades
from llm_council.evals.journal import ArmCell, DraftCell, digest
from llm_council.evals.pool import Pool, PooledSeat, Seats, as_draft
from llm_council.evals.scorers import read_answer, score
from llm_council.evals.tasks import EvalTask, TaskSet
from llm_council.models import AgreementLevel, Answer, Status
from llm_council.models._attrs import copy_with, strict_init
from llm_council.models._journal import Call, CallRecord, Journal
from llm_council.strategies import Escalate, Judge, Poll, Rank, Revise, Sample, Strategy, Synthesize, Verify
from llm_council.strategies._answer_form import with_common_keys
from llm_council.strategies._find import class_of, get_strategy, options_of
from llm_council.strategies._plurality import Plurality
from llm_council.strategies.seat_accuracy import log_odds_weight

__all__ = ["CALLED", "FREE", "Outcome", "TaskDrafts", "called_strategy", "chosen_arms", "run_arm", "run_seed"]

FREE: Final = ("single", "sample", "poll", "weigh", "escalate")
"""Names of arms that need no call beside the pool."""

CALLED: Final = ("rank", "judge", "revise", "verify", "synthesize")
"""Names of strategies that are run on pooled drafts."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What an arm answered to one task, and what that cost.

    Attributes:
        points: the score, from 0 to 1; a mean where an arm ran several times.
        unread: share of runs without a readable answer, abstentions apart.
        abstained: share of runs that abstained.
        usd: US dollars; None if a price is unknown.
        tokens_in: tokens in.
        tokens_out: tokens out.
        calls: calls.
        seconds: seconds that the answer took; calls that are made at once count as the slowest.
        shown: the answer in a few words; empty if there is none.
        share: share of the votes that the answer got; None where nothing was counted.
        run_variance: variance of the score between runs; None for one run.
    """

    points: float
    unread: float = 0.0
    abstained: float = 0.0
    usd: float | None = None
    tokens_in: float = 0.0
    tokens_out: float = 0.0
    calls: float = 0.0
    seconds: float = 0.0
    shown: str = ""
    share: float | None = None
    run_variance: float | None = None


def points_of(task: EvalTask, answer: Answer | None, grades: Grades | None) -> float:
    """Return the score of an answer: measured, or graded by a judge; 0 without one."""
    if answer is None:
        return 0.0
    if grades is None:
        return score(task, answer).points
    return grades.of(task, str(answer.value)) or 0.0


def run_seed(tasks: TaskSet, item: str, replicate: int) -> str:
    """Return the seed of a run: the same fences, orders and tie-breaks in every process."""
    return digest(tasks.sha256, item, replicate)


class TaskDrafts:
    """The drafts of one task: read, scored and counted.

    Args:
        task: the task.
        drafts: the drafts of each seat, in the order of their numbers.
        seed: seed of the first run on the task, which breaks ties.
        grades: the grades of the judge; None where answers are measured.
        efforts: the draft at high reasoning effort of each seat that has one.
    """

    def __init__(
        self,
        task: EvalTask,
        drafts: Mapping[str, Sequence[DraftCell]],
        seed: str,
        *,
        grades: Grades | None = None,
        efforts: Mapping[str, DraftCell] | None = None,
    ) -> None:
        self.task = task
        self.efforts = dict(efforts or {})
        self._grades = grades
        self.seats = tuple(drafts)
        self.cells = {seat: tuple(cells) for seat, cells in drafts.items()}
        self._seed = seed

    @cached_property
    def answers(self) -> dict[str, list[Answer | None]]:
        """The answer of each draft; None for one that failed or cannot be read."""
        read: dict[str, list[Answer | None]] = {}
        found: dict[str, Answer] = {}
        for seat, cells in self.cells.items():
            read[seat] = [self._read(cell) for cell in cells]
            found.update({f"{seat}/{number}": one for number, one in enumerate(read[seat]) if one is not None})
        common = with_common_keys(found)
        return {
            seat: [common.get(f"{seat}/{number}") for number in range(len(answers))] for seat, answers in read.items()
        }

    def _read(self, cell: DraftCell) -> Answer | None:
        if cell.error is not None:
            return None
        if self.task.is_judged:
            return read_answer(self.task, cell.text)
        if cell.structured is not None:
            return self.task.form.read(as_draft(cell))
        if cell.text not in self._texts:
            self._texts[cell.text] = self.task.form.read(as_draft(cell))
        return self._texts[cell.text]

    @cached_property
    def _texts(self) -> dict[str | None, Answer | None]:
        return {}

    @cached_property
    def points(self) -> dict[str, list[float]]:
        """The score of each draft, 0 for one without a readable answer."""
        return {seat: [self._points(answer) for answer in answers] for seat, answers in self.answers.items()}

    @cached_property
    def _known(self) -> dict[str, float]:
        return {}

    def _points(self, answer: Answer | None) -> float:
        if answer is None:
            return 0.0
        text = answer.shown if self._grades is None else answer.key
        if text not in self._known:  # equal drafts are scored once
            self._known[text] = points_of(self.task, answer, self._grades)
        return self._known[text]

    def effort_points(self, seat: str) -> float:
        """Return the score of a seat's draft at high reasoning effort; 0 if it failed."""
        return self._points(self._read(self.efforts[seat]))

    def choices(self, seat: str) -> list[tuple[float | None, float]]:
        """Return for each draft of a seat the grade by which a judge would choose it, and its score."""
        if self._grades is None:
            raise InvalidOption(f"task {self.task.id!r:.80} has no judge")
        chosen_by = [
            None if answer is None else self._grades.of(self.task, str(answer.value), CHOOSING)
            for answer in self.answers[seat]
        ]
        return list(zip(chosen_by, self.points[seat], strict=True))

    def single(self, seat: str) -> Outcome:
        """Return what a seat alone answers: its first draft."""
        cell = self.cells[seat][0]
        return self._outcome(self.answers[seat][0], [[cell]], share=None)

    def poll(self, weights: Mapping[str, float] | None = None) -> Outcome:
        """Return the answer of most seats; all are asked at once."""
        votes = [self._first(seat) for seat in self.seats]
        return self._counted(_count(self.seats, votes, weights), votes, [[vote.cell for vote in votes]])

    def poll_in_turn(self) -> Outcome:
        """Return the answer of most seats, where seats are only asked while they can change the outcome."""
        seats = list(self.seats)
        votes: list[_Vote] = []
        waves: list[list[DraftCell]] = []
        count = _count(seats, votes)
        while len(votes) < len(seats) and count.is_open():
            more = count.least_votes(seats[len(votes) :])
            wave = [self._first(seat) for seat in seats[len(votes) : len(votes) + more]]
            votes += wave
            waves.append([vote.cell for vote in wave])
            count = _count(seats, votes)
        return self._counted(count, votes, waves)

    def escalate(self, order: Sequence[str]) -> Outcome:
        """Return the answer of the first two seats if they agree, else of most of all seats.

        Args:
            order: the seats, the cheapest first.
        """
        first = [self._first(seat) for seat in order[:2]]
        count = _count(order[:2], first)
        waves = [[vote.cell for vote in first]]
        if Plurality.agreement(count.tally(self._chance())).level == AgreementLevel.UNANIMOUS:
            return self._counted(count, first, waves)
        others = [self._first(seat) for seat in order[2:]]
        waves.append([vote.cell for vote in others])
        return self._counted(_count(order, first + others), first + others, waves)

    def sample_until_stable(self, seat: str) -> Outcome:
        """Return the most frequent answer of one seat, which is asked until the answer is stable (``Sample``)."""
        given = list(zip(self.cells[seat], self.answers[seat], strict=True))
        votes = [_Vote(str(number), cell, answer) for number, (cell, answer) in enumerate(given)]
        strategy = Sample(k=max(2, len(votes)))
        waves: list[list[DraftCell]] = []
        asked, more = 0, min(len(votes), strategy._next_drafts([], len(votes)))
        count = _count((), ())
        while more:
            waves.append([vote.cell for vote in votes[asked : asked + more]])
            asked += more
            count = _count([vote.name for vote in votes[:asked]], votes[:asked])
            more = strategy._next_drafts(list(count.standing().values()), len(votes) - asked)
        return self._counted(count, votes[:asked], waves)

    def _first(self, seat: str) -> _Vote:
        return _Vote(seat, self.cells[seat][0], self.answers[seat][0])

    def _chance(self) -> Random:
        # That of ``Table.random("tie")`` in the run with this seed.
        return Random(to_bytes(self._seed, "strategy", "tie"))

    def _counted(self, count: Plurality, votes: Sequence[_Vote], waves: Sequence[Sequence[DraftCell]]) -> Outcome:
        tally = count.tally(self._chance())
        answers = (vote.answer for vote in votes if vote.answer is not None and vote.answer.key == tally.winner)
        return self._outcome(next(answers, None), waves, share=tally.share)

    def _outcome(self, answer: Answer | None, waves: Sequence[Sequence[DraftCell]], *, share: float | None) -> Outcome:
        cells = [cell for wave in waves for cell in wave]
        billed = [cell.usd for cell in cells]
        return Outcome(
            points=self._points(answer),
            unread=float(answer is None),
            usd=None if None in billed else sum(usd for usd in billed if usd is not None),
            tokens_in=sum(cell.input_tokens for cell in cells),
            tokens_out=sum(cell.output_tokens for cell in cells),
            calls=len(cells),
            seconds=sum(max(cell.seconds for cell in wave) for wave in waves if wave),
            shown="" if answer is None else answer.shown,
            share=share,
        )


@attrs.frozen
class _Vote:
    """A draft as a vote.

    Attributes:
        name: the voter.
        cell: the draft.
        answer: its answer; None if it failed, or cannot be read.
    """

    name: str
    cell: DraftCell
    answer: Answer | None


def _count(voters: Sequence[str], votes: Sequence[_Vote], weights: Mapping[str, float] | None = None) -> Plurality:
    """Return the count of votes, with the rules of the strategies."""
    count = Plurality(voters, weights)
    for vote in votes:
        if vote.cell.error is not None:
            count.fail(vote.name)
        else:
            count.cast(vote.name, None if vote.answer is None else vote.answer.key)
    return count


def fold_weights(training: Sequence[TaskDrafts], seats: Sequence[str]) -> dict[str, float]:
    """Return the weight of each seat, from the scores of its first drafts for the training tasks."""
    right = {seat: sum(drafts.points[seat][0] for drafts in training) for seat in seats}
    count = len(training)
    prior = sum(right.values()) / max(1, count * len(seats))
    options = sum(options_of_task(drafts) for drafts in training) / max(1, count)
    prior = min(max(prior, 1e-6), 1 - 1e-6)
    weights = {seat: log_odds_weight(shrunk_accuracy(right[seat], count, prior), options) for seat in seats}
    return weights if any(weights.values()) else dict.fromkeys(seats, 1.0)


def options_of_task(drafts: TaskDrafts) -> int:
    """Return how many answers a task has: its choices, two for yes or no, else those that the drafts gave."""
    if drafts.task.choices:
        return len(drafts.task.choices)
    keys = {answer.key for answers in drafts.answers.values() for answer in answers if answer is not None}
    return 2 if drafts.task.form.kind == "bool" else max(2, len(keys))


def chosen_arms(arms: Sequence[str | Strategy]) -> tuple[tuple[str, ...], dict[str, Strategy | str]]:
    """Return the names of the free arms, and the called arms by name.

    Args:
        arms: names of free arms, names of strategies, and strategies; ``"all"`` stands for ``FREE`` and ``CALLED``.

    Raises:
        InvalidOption: there is no such arm, or two have one name.
    """
    free: dict[str, None] = {}
    called: dict[str, Strategy | str] = {}
    if isinstance(arms, str):
        raise InvalidOption(f"arms: expected a list, got {arms!r:.80}; write [{arms!r:.80}]")
    for arm in arms:
        if arm == "all":
            free.update(dict.fromkeys(FREE))
            called.update({name: name for name in CALLED})
        elif isinstance(arm, Strategy):
            name = arm.name
            while name in called or name in FREE:
                name += "'"
            called[name] = arm
        elif arm in FREE:
            free[arm] = None
        elif arm in CALLED or _is_strategy(arm):
            called[arm] = arm
        else:
            known = ("all", *FREE, *CALLED)
            raise InvalidOption(f"arms: there is no arm {arm!r:.80}{near(str(arm), known)} (arms: {', '.join(known)})")
    return tuple(free), called


def _is_strategy(name: object) -> bool:
    if not isinstance(name, str):
        return False
    try:
        class_of(name)
    except InvalidOption:
        return False
    return True


def called_strategy(arm: Strategy | str, task: EvalTask) -> Strategy:
    """Return the strategy of a called arm for a task; a vote is on the parts of the answer that the scorer compares."""
    ours: dict[str, Any] = {
        "rank": Rank,
        "judge": Judge,
        "synthesize": Synthesize,
        "revise": lambda: Revise(vote_on=task.vote_on),
        "verify": lambda: Verify(of=Poll(vote_on=task.vote_on)),
        "poll": lambda: Poll(vote_on=task.vote_on),
        "escalate": lambda: Escalate(vote_on=task.vote_on),
    }
    if isinstance(arm, str):
        made: Strategy = ours[arm]() if arm in ours else get_strategy(arm)
    else:
        made = arm
    if task.vote_on and hasattr(made, "vote_on") and not made.vote_on:
        made = copy_with(made, vote_on=task.vote_on)
    return made


@strict_init
@attrs.define
class _Meter(Journal):
    """Records what the calls of a run were billed, calls without an answer included."""

    spent: Mapping[str, Any] = attrs.field(factory=dict)

    async def record_ending(self, _: Call, ending: CallRecord) -> None:
        """Store the sums of the run after a call."""
        if ending.spent.get("calls", 0) >= self.spent.get("calls", 0):
            self.spent = ending.spent


async def run_arm(
    seats: Seats, tasks: TaskSet, task: EvalTask, name: str, arm: Strategy | str, pool: Pool, replicate: int
) -> ArmCell:
    """Run a called arm on a task, with the drafts of the pool.

    Args:
        seats: the seats.
        tasks: the task set.
        task: the task.
        name: name of the arm.
        arm: the strategy, or its name.
        pool: the drafts.
        replicate: number of the run; each has fences, orders and tie-breaks of its own.
    """
    cell = arm_cell(seats, tasks, task, name, arm, pool, replicate)
    strategy = called_strategy(arm, task)
    plan = seats.plan(task, strategy=strategy, seed=run_seed(tasks, task.id, replicate))
    drafts = {spec.name: pool.drafts(task.id, spec.name) for spec in seats.specs}
    adapters = {spec.name: PooledSeat(seats.adapters[spec.name], drafts[spec.name]) for spec in seats.specs}
    meter = _Meter()
    result = await _engine.run_plan(plan, adapters, price=seats.price, journal=meter, strategy=strategy)
    used = [drafts[seat][0] for seat in plan.drafters if drafts[seat]]
    billed = [draft.usd for draft in used]
    pooled = sum(usd for usd in billed if usd is not None)
    is_priced = not meter.spent.get("unpriced") and None not in billed
    usage = result.usage
    tokens_in, tokens_out = usage.input_tokens or 0, usage.output_tokens or 0
    # Only the meter has the tokens of calls without an answer.
    lost = max(0, int(meter.spent.get("tokens", 0)) - tokens_in - tokens_out)
    usd = float(meter.spent.get("usd", 0.0))
    given: Any = result.output if task.schema is not None and result.output is not None else result.text
    answer = read_answer(task, given) if result.success else None
    return attrs.evolve(
        cell,
        status=str(result.status),
        answer=answer,
        text=result.text,
        usd=usd if is_priced else None,
        new_usd=max(0.0, usd - pooled),
        input_tokens=tokens_in + lost,
        output_tokens=tokens_out,
        calls=int(meter.spent.get("calls", 0)),
        seconds=result.duration + max((draft.seconds for draft in used), default=0.0),
        overruled=result.overruled,
        error=_failure(result.error),
    )


def arm_cell(
    seats: Seats, tasks: TaskSet, task: EvalTask, name: str, arm: Strategy | str, pool: Pool, replicate: int
) -> ArmCell:
    """Return an empty cell for a run of an arm, whose key finds the finished cell in the journal."""
    strategy = called_strategy(arm, task)
    drafts = {spec.name: pool.drafts(task.id, spec.name)[:1] for spec in seats.specs}
    given = [[seat, seats.identities[seat], [draft.text for draft in cells]] for seat, cells in drafts.items()]
    return ArmCell(
        set=tasks.sha256,
        item=task.id,
        arm=name,
        replicate=replicate,
        plan=digest(strategy.name, options_of(strategy), given),
        status=str(Status.FAILED),
    )


def outcome_of(task: EvalTask, cells: Sequence[ArmCell], grades: Grades | None = None) -> Outcome:
    """Return the mean of the runs of an arm on a task."""
    count = len(cells)
    points = [points_of(task, cell.answer, grades) for cell in cells]
    billed = [cell.usd for cell in cells]
    abstained = sum(cell.status == Status.ABSTAINED for cell in cells)
    unread = sum(cell.answer is None and cell.status != Status.ABSTAINED for cell in cells)
    return Outcome(
        points=sum(points) / count,
        unread=unread / count,
        abstained=abstained / count,
        usd=None if None in billed else sum(usd for usd in billed if usd is not None) / count,
        tokens_in=sum(cell.input_tokens for cell in cells) / count,
        tokens_out=sum(cell.output_tokens for cell in cells) / count,
        calls=sum(cell.calls for cell in cells) / count,
        seconds=sum(cell.seconds for cell in cells) / count,
        shown=cells[0].answer.shown if cells[0].answer is not None else "",
        run_variance=variance(points) if count > 1 else None,
    )


def _failure(error: RunError | None) -> str | None:
    return None if error is None else redact(f"{type(error).__name__}: {error}")[:500]
