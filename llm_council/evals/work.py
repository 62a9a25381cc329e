"""The work of an evaluation: fill the pool, call the arms, let a judge grade, and write every finished cell."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from llm_council import __version__
from llm_council.errors import AdapterFailed, InvalidOption, near
from llm_council.evals.analysis import Evidence, analyse, samples_wanted
from llm_council.evals.arms import FREE, arm_cell, called_strategy, chosen_arms, run_arm
from llm_council.evals.baselines import PILOT
from llm_council.evals.grades import (
    CHOOSING,
    SCORING,
    Grader,
    check_judge,
    facts_of,
    fail_without_grades,
)
from llm_council.evals.journal import ArmCell, DraftCell, EvalJournal, digest
from llm_council.evals.pool import Pool, Seats
from llm_council.evals.report import EvalReport
from llm_council.evals.scorers import read_answer
from llm_council.evals.tasks import EvalTask, TaskSet
from llm_council.models import Budget
from llm_council.models._attrs import is_int, is_number, strict_init
from llm_council.strategies import Strategy

if TYPE_CHECKING:
    from llm_council.config import Seat
    from llm_council.council import Council
    from llm_council.providers.base import ProviderAdapter

__all__ = [
    "SET_COPY",
    "EvalOptions",
    "EvalProgress",
    "Evaluation",
    "check_names",
    "hash_of_copy",
    "judge_of",
    "save_tasks",
    "task_order",
]

AT_ONCE: Final = 8
"""Tasks that are worked on at the same time where no spending limit is set."""

MOST_FAILED: Final = 3
"""The evaluation fails if no seat answers any of this many first tasks."""

SET_COPY: Final = "tasks.jsonl"


@strict_init
@attrs.frozen(kw_only=True)
class EvalProgress:
    """How far an evaluation is, after each task.

    Attributes:
        item: id of the task.
        stage: ``"arms"`` after all arms of a task, ``"samples"`` after the further samples of one of the first 20
        tasks.
        done: number of tasks that went through all arms.
        total: number of tasks of the set.
        calls: calls so far, those of an earlier process included.
        usd: US dollars so far, likewise; an assumed price counts where none is known.
        correct: mean score so far, from 0 to 1, by name of the seat, and of the arm ``poll``.
    """

    item: str
    stage: str
    done: int
    total: int
    calls: int
    usd: float
    correct: Mapping[str, float] = attrs.field(factory=dict)


@strict_init
@attrs.frozen(kw_only=True)
class EvalOptions:
    """The options of an evaluation. A value out of range raises ``InvalidOption``.

    Attributes:
        arms: names of the arms, and strategies; see ``evaluate``.
        samples: drafts of each seat for each task, from 1 to 40.
        repeat: how often each called arm runs on a task, from 1 to 100.
        pool_only: True makes the drafts of the pool, and calls no arm.
        margin: the smallest gain that is worth having, as a share of the points above 0 and below 1.
        best: name of the seat that is the baseline; None chooses the best one, for each task on other tasks.
        primary: the arm that was declared before the run; its p-value is not corrected for the number of strategies.
        seed: decides the order of the tasks.
        judge: the model that scores the answers to tasks with the scorer ``judge``: a name such as
            ``"openai/gpt-5.4"``, a ``Seat``, or an adapter.
        judge_may_sit: True allows a judge of the family of a seat, which favours texts of its family.
    """

    arms: tuple[str | Strategy, ...] = FREE
    samples: int = 5
    repeat: int = 1
    pool_only: bool = False
    margin: float = 0.05
    best: str | None = None
    primary: str | None = None
    seed: str = "0"
    judge: str | Seat | ProviderAdapter | None = None
    judge_may_sit: bool = False

    def __attrs_post_init__(self) -> None:
        for name, most in (("samples", 40), ("repeat", 100)):
            value = getattr(self, name)
            if not is_int(value) or not 1 <= value <= most:
                raise InvalidOption(f"{name}: a whole number from 1 to {most}, got {value!r:.80}")
        if not is_number(self.margin) or not 0 < self.margin < 1:
            raise InvalidOption(f"margin: a share of the points above 0 and below 1, got {self.margin!r:.80}")


class Evaluation:
    """One evaluation.

    Args:
        council: the seats.
        tasks: the task set.
        options: what is to be done.
        budget: limits of the whole evaluation.
    """

    def __init__(self, council: Council, tasks: TaskSet, options: EvalOptions, budget: Budget) -> None:
        self._tasks = tasks
        self._options = options
        self._budget = budget
        self._seats = Seats(council)
        self._judge = judge_of(council, options)
        self._grader: Grader | None = None
        self._free, self._called = chosen_arms(options.arms)
        self._left_out: list[str] = []
        if tasks.tasks[0].is_judged:
            counted = [arm for arm in self._free if arm in ("poll", "weigh", "escalate")]
            if counted:
                self._left_out.append(f"prose cannot be counted: {', '.join(counted)} left out")
            self._free = ("single",)
        if options.pool_only:
            self._called = {}
        self._order = task_order(tasks, options.seed)
        self._done: list[EvalTask] = []
        self._called_usd = 0.0
        self._called_calls = 0
        self._called_tokens = 0
        self._failed = 0
        self._points: dict[str, float] = {}
        self.stopped: str | None = None

    def check(self) -> None:
        """Raise if the tasks, seats and arms cannot be evaluated, before anything is sent."""
        seats = self._seats
        is_judged = self._order[0].is_judged  # all or none are
        if is_judged and self._judge is None:
            raise InvalidOption(
                "the tasks are scored by a judge: name one of another family than the seats, with judge= (--judge)"
            )
        if self._judge is not None:
            if not is_judged:
                raise InvalidOption("judge: the tasks have targets, which measure the answers: leave the judge out")
            check_judge(self._judge, seats, may_sit=self._options.judge_may_sit)
        seats.council._seating.check()
        check_names(self._options, seats.names)
        for task in {task.scorer.kind: task for task in self._order}.values():
            for name, arm in self._called.items():
                try:
                    seats.plan(task, strategy=called_strategy(arm, task), seed="check")
                except InvalidOption as error:
                    raise error._reword(f"arm {name}: {error.message}") from None

    def begin(self, journal: EvalJournal) -> None:
        """Start with the finished cells of a journal, and write its header."""
        self._journal = journal
        self._pool = Pool(self._tasks, self._seats, journal)
        if self._judge is not None:
            self._grader = Grader(self._tasks.sha256, journal, self._judge)
        self._evidence = Evidence(tasks=self._tasks, journal=journal, pool=self._pool, grades=self._grader)
        header = self.header()
        same = ("set", "seats", "judge")
        if journal.header and any(journal.header.get(key) != header.get(key) for key in same):
            wrong = next(key for key in same if journal.header.get(key) != header.get(key))
            what = {"set": "of another task set", "seats": "of other seats", "judge": "of another judge"}[wrong]
            raise InvalidOption(
                f"{journal.folder} has a journal {what}, and cells of both are never mixed: name another folder"
            )
        if journal.folder is not None:
            save_tasks(self._tasks, journal.folder / SET_COPY)
            header["copy"] = hash_of_copy(journal.folder)
        journal.begin(header)

    def header(self) -> dict[str, Any]:
        """Return what the evaluation is started with, for its journal."""
        seats, options = self._seats, self._options
        return {
            "version": __version__,
            "set": {
                "name": self._tasks.name,
                "sha256": self._tasks.sha256,
                "tasks": len(self._tasks.tasks),
                "licence": self._tasks.licence,
                "source": self._tasks.source,
            },
            "seats": [
                {
                    "name": spec.name,
                    "provider": spec.provider,
                    "model": spec.model,
                    "identity": seats.identities[spec.name],
                }
                for spec in seats.specs
            ],
            "free": list(self._free),
            "called": list(self._called),
            "samples": options.samples,
            "repeat": options.repeat,
            "margin": options.margin,
            "best": options.best,
            "primary": options.primary,
            "seed": options.seed,
            **({} if self._judge is None else {"judge": facts_of(self._judge)}),
            **({"left_out": self._left_out} if self._left_out else {}),
        }

    async def work(self) -> AsyncGenerator[EvalProgress, None]:
        """Do all tasks, the pilot first, and yield after each."""
        names = self._seats.names
        base = dict.fromkeys(names, self._options.samples)
        pilot, rest = self._order[:PILOT], self._order[PILOT:]
        async for progress in self._each(pilot, partial(self._through_arms, samples=base), "arms", reserve=base):
            yield progress
        wanted = base
        if not self._options.pool_only and self._done:
            wanted = samples_wanted(self._evidence, self._done[:PILOT], base)
        if wanted != base:
            # Money was reserved for these samples, so they are made even if none is left for further tasks.
            stopped, self.stopped = self.stopped, None
            async for progress in self._each(self._done[:], partial(self._more_samples, samples=wanted), "samples"):
                yield progress
            self.stopped = stopped or self.stopped
        async for progress in self._each(rest, partial(self._through_arms, samples=wanted), "arms"):
            yield progress

    async def _each(
        self,
        tasks: Sequence[EvalTask],
        work: Callable[[EvalTask], Coroutine[Any, Any, None]],
        stage: str,
        *,
        reserve: Mapping[str, int] | None = None,
    ) -> AsyncIterator[EvalProgress]:
        """Work on tasks in order, some at the same time, and yield after each.

        Args:
            tasks: the tasks.
            work: what is done for each.
            stage: its name.
            reserve: drafts of each seat so far, in the pilot: money is kept back for the further ones of its tasks.
        """
        # With a limit, one at a time: the next one starts only if money is left once the last one is paid.
        limits = (self._budget.usd, self._budget.calls, self._budget.tokens)
        at_once = AT_ONCE if limits == (None, None, None) else 1
        for start in range(0, len(tasks), at_once):
            batch = tasks[start : start + at_once]
            if self.stopped is None:
                self.stopped = self._limit_reached(reserve)
            if self.stopped is not None:
                return
            async with anyio.create_task_group() as group:
                for task in batch:
                    group.start_soon(work, task)
            self._journal.flush()
            for task in batch:
                if stage == "arms":
                    self._finish(task)
                yield self._where(task, stage)

    def _limit_reached(self, reserve: Mapping[str, int] | None) -> str | None:
        budget = self._budget
        calls, usd = self._further_samples(reserve) if reserve is not None else (0, 0.0)
        for limit, spent, words in (
            (budget.usd, self.usd + usd, f"{budget.usd or 0:g} US dollars"),
            (budget.calls, self.calls + calls, f"{budget.calls} calls"),
            (budget.tokens, self.tokens, f"{budget.tokens} tokens"),
        ):
            if limit is not None and spent >= limit:
                return f"the limit of {words} was reached after {len(self._done)} of {len(self._order)} tasks"
        return None

    def _further_samples(self, base: Mapping[str, int]) -> tuple[int, float]:
        """Return the calls and US dollars of the samples that the tasks of the pilot will still get."""
        if not self._done or self._options.pool_only or (self._budget.usd is None and self._budget.calls is None):
            return 0, 0.0
        wanted = samples_wanted(self._evidence, self._done, base)
        calls, usd = 0, 0.0
        for seat, number in wanted.items():
            cells = [cell for task in self._done for cell in self._pool.drafts(task.id, seat)]
            more = (number - base[seat]) * len(self._done)
            calls += more
            usd += more * sum(cell.usd or 0.0 for cell in cells) / len(cells)
            if self._grader is not None and self._grader.calls:  # two grades for each of them
                calls += 2 * more
                usd += 2 * more * self._grader.spent / self._grader.calls
        return calls, usd

    @property
    def usd(self) -> float:
        """US dollars that all cells cost, those of the journal included."""
        return self._pool.spent + self._called_usd + (self._grader.spent if self._grader else 0.0)

    @property
    def calls(self) -> int:
        """Calls that all cells took."""
        return self._pool.calls + self._called_calls + (self._grader.calls if self._grader else 0)

    @property
    def tokens(self) -> int:
        """Tokens that all cells took."""
        return self._pool.tokens + self._called_tokens + (self._grader.tokens if self._grader else 0)

    async def _more_samples(self, task: EvalTask, *, samples: Mapping[str, int]) -> None:
        await self._pool.fill(task, samples)
        await self._grade_drafts(task)

    async def _through_arms(self, task: EvalTask, *, samples: Mapping[str, int]) -> None:
        await self._pool.fill(task, samples)
        if self._grader is not None:
            await self._pool.fill_efforts(task)
        await self._grade_drafts(task)
        async with anyio.create_task_group() as group:
            for name, arm in self._called.items():
                for replicate in range(self._options.repeat):
                    group.start_soon(self._call, task, name, arm, replicate)

    async def _grade_drafts(self, task: EvalTask) -> None:
        """Let the judge grade all drafts, and the answers that people graded."""
        if self._grader is None:
            return
        drafts = [cell for seat in self._seats.names for cell in self._pool.drafts(task.id, seat)]
        await self._grader.grade(task, texts_of(task, drafts), (SCORING, CHOOSING))
        others = texts_of(task, self._pool.efforts(task.id).values())
        await self._grader.grade(task, [*others, *(text for text, _ in task.labels)])

    async def _call(self, task: EvalTask, name: str, arm: Strategy | str, replicate: int) -> None:
        empty = arm_cell(self._seats, self._tasks, task, name, arm, self._pool, replicate)
        known = self._journal.get(empty.key)
        if not isinstance(known, ArmCell):
            known = await run_arm(self._seats, self._tasks, task, name, arm, self._pool, replicate)
            self._journal.add(known)
        if self._grader is not None and known.answer is not None:
            await self._grader.grade(task, [known.answer.key])
        pooled = self._pool.first_drafts(task.id)
        self._called_usd += known.new_usd or 0.0
        self._called_calls += max(0, known.calls - len(pooled))
        tokens = sum(cell.input_tokens + cell.output_tokens for cell in pooled)
        self._called_tokens += max(0, known.input_tokens + known.output_tokens - tokens)

    def _finish(self, task: EvalTask) -> None:
        self._done.append(task)
        drafts = self._evidence.drafts_of(task)
        for seat in drafts.seats:
            self._points[seat] = self._points.get(seat, 0.0) + drafts.points[seat][0]
        if self._grader is None:
            self._points["poll"] = self._points.get("poll", 0.0) + drafts.poll().points
        answered = any(cell.error is None for cells in drafts.cells.values() for cell in cells)
        self._failed = 0 if answered else self._failed + 1
        if self._failed == len(self._done) >= min(MOST_FAILED, len(self._order)):
            reasons = {cells[0].seat: cells[0].error for cells in drafts.cells.values()}
            listed = "; ".join(f"{seat}: {error}" for seat, error in reasons.items())
            raise AdapterFailed(f"no seat answered the first {len(self._done)} tasks; {listed}", retryable=False)
        if self._grader is not None and len(self._done) == min(MOST_FAILED, len(self._order)):
            fail_without_grades(self._grader.cells())

    def _where(self, task: EvalTask, stage: str) -> EvalProgress:
        done = len(self._done)
        return EvalProgress(
            item=task.id,
            stage=stage,
            done=done,
            total=len(self._order),
            calls=self.calls,
            usd=self.usd,
            correct={name: points / done for name, points in self._points.items()} if done else {},
        )

    async def aclose(self) -> None:
        """Close the connections of the judge."""
        if self._judge is not None:
            await self._judge.council.aclose()

    def report(self) -> EvalReport:
        """Return the report on the tasks that are done."""
        return analyse(self._evidence, self._done, stopped=self.stopped)


def judge_of(council: Council, options: EvalOptions) -> Seats | None:
    """Return the judge of an evaluation as a council of one seat; None if it has none."""
    if options.judge is None:
        return None
    config = attrs.evolve(council.config, chair=None, store=None)
    return Seats(type(council)([options.judge], config=config))


def texts_of(task: EvalTask, cells: Iterable[DraftCell]) -> list[str]:
    """Return the texts of drafts as a judge reads them; those that failed are left out."""
    answers = [read_answer(task, cell.text) for cell in cells if cell.error is None]
    return [answer.key for answer in answers if answer is not None]


def check_names(options: EvalOptions, seats: Sequence[str]) -> None:
    """Refuse a best seat that is no seat, and a primary strategy that is not compared."""
    if options.best is not None and options.best not in seats:
        raise InvalidOption(f"best: no seat is named {options.best!r:.80} (seats: {', '.join(seats)})")
    free, called = chosen_arms(options.arms)
    named = {"poll": ("poll", "poll-in-turn"), "weigh": ("weigh",), "escalate": ("escalate",)}
    known = [*(name for arm in free for name in named.get(arm, ())), *called]
    if options.primary is not None and options.primary not in known:
        raise InvalidOption(
            f"primary: no arm of several seats is named {options.primary!r:.80}{near(options.primary, known)}"
            f" (arms: {', '.join(known)})"
        )


def task_order(tasks: TaskSet, seed: str) -> list[EvalTask]:
    """Return the tasks in the order in which they are worked on: shuffled, and the same for one seed."""
    order = list(tasks.tasks)
    Random(f"{seed}/{tasks.sha256}").shuffle(order)
    return order


def save_tasks(tasks: TaskSet, path: Path) -> None:
    """Write a task set as ``read_tasks`` reads it, so that a journal can be replayed without the original."""
    header = {"council_eval": 1, "name": tasks.name, "licence": tasks.licence, "source": tasks.source}
    lines = [{key: value for key, value in header.items() if value is not None}]
    lines += [task.to_dict() for task in tasks.tasks]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def hash_of_copy(folder: Path) -> str:
    """Return a hash of the task set in a folder, which a replay compares."""
    return digest((folder / SET_COPY).read_text(encoding="utf-8"))
