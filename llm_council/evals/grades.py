"""The grades that a judge gives to the answers of an evaluation: asked for once a text, and kept in the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from llm_council._engine.budget import ASSUMED
from llm_council.errors import AdapterFailed, ConfigurationError, CouncilError, InvalidOption
from llm_council.errors._secrets import redact
from llm_council.evals.journal import EvalJournal, GradeCell, digest
from llm_council.evals.judging import JudgeFacts, agreement, grade_request, kin, read_grade
from llm_council.evals.pool import Seats
from llm_council.evals.tasks import EvalTask
from llm_council.models import GenerateRequest, Usage
from llm_council.providers.base import call

if TYPE_CHECKING:
    from llm_council.evals.arms import TaskDrafts

__all__ = ["CHOOSING", "SCORING", "Grader", "Grades"]

SCORING: Final = 0
"""The grade that scores a text."""

CHOOSING: Final = 1
"""A second grade, by which the best of several texts is chosen.

Chosen by the grade that scores it as well, the best of several texts would score higher than it is good.
"""

_ATTEMPTS: Final = 3  # a judge is asked again where its reply has no grade


class Grades:
    """The grades of a journal.

    Args:
        tasks: hash of the task set.
        journal: where they are.
        judge: facts about the judge, with its ``identity``.
    """

    def __init__(self, tasks: str, journal: EvalJournal, judge: Mapping[str, Any]) -> None:
        self._set = tasks
        self._journal = journal
        self._judge = str(judge["identity"])

    def of(self, task: EvalTask, text: str, number: int = SCORING) -> float | None:
        """Return the grade of a text, from 0 to 1; None if the judge gave none."""
        cell = self.cell(task, text, number)
        return None if cell is None else cell.value

    def cell(self, task: EvalTask, text: str, number: int) -> GradeCell | None:
        """Return the finished cell of a grade; None if it has not finished."""
        found = self._journal.get(self._empty(task, text, number).key)
        return found if isinstance(found, GradeCell) else None

    def cells(self) -> list[GradeCell]:
        """Return all grades of this judge."""
        cells = self._journal.cells()
        return [cell for cell in cells if isinstance(cell, GradeCell) and cell.judge == self._judge]

    def _empty(self, task: EvalTask, text: str, number: int) -> GradeCell:
        judged = digest(task.scorer.rubric, task.target, text)
        return GradeCell(set=self._set, item=task.id, judge=self._judge, text=judged, sample=number)


class Grader(Grades):
    """A judge that is asked.

    Args:
        tasks: hash of the task set.
        journal: where grades are kept.
        judge: the judge, as a council of one seat.
        limit: how many calls may be made at once.

    Attributes:
        spent: US dollars that the grades cost; an assumed price counts where none is known.
        calls: calls that they took.
        tokens: tokens that they took.
    """

    def __init__(self, tasks: str, journal: EvalJournal, judge: Seats, *, limit: int = 16) -> None:
        super().__init__(tasks, journal, facts_of(judge))
        self.spent = 0.0
        self.calls = 0
        self.tokens = 0
        self._taken: set[tuple[Any, ...]] = set()
        self._seats = judge
        self._limiter = anyio.CapacityLimiter(limit)

    async def grade(self, task: EvalTask, texts: Iterable[str], numbers: Iterable[int] = (SCORING,)) -> None:
        """Grade each text that has no grade yet.

        Args:
            task: the task.
            texts: the texts; equal ones are graded once.
            numbers: the grades that each of them is to have.
        """
        async with anyio.create_task_group() as group:
            for text in dict.fromkeys(texts):
                for number in numbers:
                    known = self.cell(task, text, number)
                    # A judge that could not be reached is asked again by the next process.
                    if known is None or (known.value is None and not known.usd):
                        group.start_soon(self._ask, task, text, number)
                    else:
                        self._take(known)

    def _take(self, cell: GradeCell) -> None:
        if cell.key not in self._taken:
            self._taken.add(cell.key)
            self.spent += assumed_usd([cell])
            self.calls += cell.calls
            self.tokens += cell.input_tokens + cell.output_tokens

    async def _ask(self, task: EvalTask, text: str, number: int) -> None:
        (spec,) = self._seats.specs
        cell = self._empty(task, text, number)
        messages = grade_request(task, text, code=digest(cell.key)[:8])
        for attempt in range(_ATTEMPTS):
            sample = number + 2 * attempt
            request = GenerateRequest(
                model=spec.model,
                messages=messages,
                sample=sample or None,
                idempotency_key=digest(cell.key, sample),
                metadata={"phase": "judge", "seat": spec.name},
            )
            async with self._limiter:
                try:
                    response = await call(
                        self._seats.adapters[spec.name], request, deadline=self._seats.council.config.budget.deadline
                    )
                except ConfigurationError:  # a missing key, a wrong option: no other call would work either
                    raise
                except CouncilError as failure:
                    reason = redact(f"{type(failure).__name__}: {failure}")[:500]
                    cell = attrs.evolve(cell, calls=cell.calls + 1, error=reason)
                    continue
            usage = response.usage
            if usage is None or usage.total_tokens is None:
                sent = sum(len(turn.text) for turn in messages)
                usage = Usage(input_tokens=sent // 4 + 1, output_tokens=len(response.text or "") // 4 + 1)
            billed = self._seats.cost_of(spec, response, usage)
            value = read_grade(response.text or "").value
            cell = attrs.evolve(
                cell,
                value=value,
                usd=None if billed is None else (cell.usd or 0.0) + billed,
                input_tokens=cell.input_tokens + (usage.input_tokens or 0),
                output_tokens=cell.output_tokens + (usage.output_tokens or 0),
                calls=cell.calls + 1,
                error=None if value is not None else "the reply has no line such as SCORE A: 6",
            )
            if value is not None:
                break
        self._journal.add(cell)
        self._take(cell)


def facts_of(judge: Seats) -> dict[str, Any]:
    """Return what identifies a judge, for the journal."""
    (spec,) = judge.specs
    return {
        "name": spec.name,
        "provider": spec.provider,
        "model": spec.model,
        "identity": judge.identities[spec.name],
    }


def check_judge(judge: Seats, seats: Seats, *, may_sit: bool) -> None:
    """Refuse a judge that is more than one, or of the family of a seat.

    Raises:
        InvalidOption: the message names the remedy.
    """
    if len(judge.specs) != 1:
        raise InvalidOption(f"judge: one model, got {len(judge.specs)}: name one, such as 'openai/gpt-5.4'")
    judge.council._seating.check()
    (one,) = judge.specs
    for seat in seats.specs:
        if not may_sit and kin((one.provider, one.model), (seat.provider, seat.model)):
            raise InvalidOption(
                f"judge: {one.name} is of the family of the seat {seat.name}, and judges favour texts of their own"
                " family: name a judge of another one, or allow it with judge_may_sit=True (--judge-may-sit)"
            )


def measure_judge(grades: Grades, header: Mapping[str, Any], drafts: Sequence[TaskDrafts]) -> JudgeFacts:
    """Return what is known of a judge, its agreement with keys and with people among it.

    Of each task with a key, one draft is compared; the seat changes from task to task.

    Args:
        grades: its grades.
        header: what the journal says of it.
        drafts: the drafts of the tasks that are done.
    """
    judged: list[float] = []
    known: list[float] = []
    for number, one in enumerate(drafts):
        pairs = [(text, grade) for text, grade in one.task.labels]
        answer = one.answers[one.seats[number % len(one.seats)]][0]
        measured = None if answer is None else one.task.known_score(str(answer.value))
        if answer is not None and measured is not None:
            pairs.append((str(answer.value), measured))
        for text, value in pairs:
            grade = grades.of(one.task, text)
            if grade is not None:
                judged.append(grade)
                known.append(value)
    cells = grades.cells()
    return JudgeFacts(
        name=header["name"],
        provider=header["provider"],
        model=header["model"],
        grades=len(cells),
        failed=sum(cell.value is None for cell in cells),
        usd=assumed_usd(cells),
        agreement=agreement(judged, known) if judged else None,
    )


def assumed_usd(cells: Iterable[GradeCell]) -> float:
    """Return what grades cost in US dollars; an assumed price counts where none is known."""
    dollars_in, dollars_out = ASSUMED
    return sum(
        (cell.input_tokens * dollars_in + cell.output_tokens * dollars_out) / 1e6 if cell.usd is None else cell.usd
        for cell in cells
    )


def mean_cost(cells: list[GradeCell], weight: float | None) -> float:
    """Return what a grade costs on average.

    Args:
        cells: the grades.
        weight: input tokens that an output token counts as; None returns US dollars.
    """
    if not cells:
        return 0.0
    if weight is None:
        return fmean(cell.usd or 0.0 for cell in cells)
    return fmean(cell.input_tokens + weight * cell.output_tokens for cell in cells)


def fail_without_grades(cells: list[GradeCell]) -> None:
    """Raise if a judge has given no grade at all.

    Raises:
        AdapterFailed: with the judge's last error.
    """
    if cells and all(cell.value is None for cell in cells):
        raise AdapterFailed(f"the judge graded none of {len(cells)} answers; {cells[-1].error}", retryable=False)
