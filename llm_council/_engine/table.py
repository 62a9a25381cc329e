"""The table of a run: the engine's side of the contract with strategies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random
from typing import Any

import anyio
import attrs

from llm_council._engine import phases, questions
from llm_council._engine.draft_verdicts import as_verdict, degraded_verdict, rank_drafts
from llm_council._engine.fences import to_bytes
from llm_council._engine.ranking import BordaCount, tie_order
from llm_council._engine.repair import until_valid
from llm_council._engine.state import RunState
from llm_council._schema import compile as compile_schema
from llm_council.errors import Abstained, StrategyFailed
from llm_council.events import Checked, Judged, RoundFinished, RungFinished, Tallied
from llm_council.models import (
    Agreement,
    Check,
    Critique,
    Dissent,
    Draft,
    GenerateRequest,
    Judgement,
    Phase,
    Plan,
    Ranking,
    Round,
    Rung,
    Tally,
)
from llm_council.strategies.base import Ask, Reply, Table, Verdict

__all__ = ["RunTable"]


class RunTable(Table):
    """The seats of a running run.

    Args:
        state: the run.
        path: names of the tables that this one is inside of.
    """

    def __init__(self, state: RunState, path: tuple[str, ...] = ()) -> None:
        self._state = state
        self._path = path
        self._rankings: _RankingCount | None = None

    @property
    def plan(self) -> Plan:
        """The plan of the run."""
        return self._state.plan

    @property
    def time_left(self) -> float:
        """Seconds until the deadline of the run; infinite without one."""
        return max(0.0, self._state.end - anyio.current_time())

    @property
    def drafts(self) -> tuple[Draft, ...]:
        """The successful drafts so far, in the order of the seats."""
        return tuple(self._state.successful_drafts())

    async def draft(
        self,
        seats: Sequence[str] | None = None,
        *,
        samples: int = 1,
        instructions: str = "",
        enough: Callable[[Sequence[Draft]], bool] | None = None,
    ) -> tuple[Draft, ...]:
        """Ask seats for drafts; see ``Table``."""
        state = self._state
        board = phases.DraftBoard()
        await phases.draft(state, board, self._known(seats), samples, instructions, enough)
        error = phases.unmet_quorum(state, None if seats is None else len(seats))
        if error is not None:
            raise error.fill(run_id=state.plan.run_id)
        rank_drafts(state)
        return self.drafts

    async def draft_and_review(
        self, phase: Phase = Phase.CRITIQUE, *, enough: Callable[[Sequence[Critique]], bool] | None = None
    ) -> tuple[Critique, ...]:
        """Let the drafters draft, and the reviewers judge the drafts of others; see ``Table``."""
        state, plan = self._state, self.plan
        if not plan.reviewers:
            await self.draft()
            return ()
        self._check_phase(phase)
        board = phases.DraftBoard()
        is_enough = None
        if enough is not None:  # a draft that has not arrived could still win
            is_enough = lambda: all(name in state.drafts for name in plan.drafters) and enough(self._reviews())  # noqa: E731
        async with anyio.create_task_group() as group:
            for name in plan.drafters:
                board.expect(Draft(seat=name))
            group.start_soon(partial(phases.critique, state, board, phase=phase, enough=is_enough))
            await phases.draft(state, board)
            error = phases.unmet_quorum(state)
            if error is not None:  # raised below, outside the group, which would wrap it in an ExceptionGroup
                group.cancel_scope.cancel()
        if error is not None:
            raise error.fill(run_id=plan.run_id)
        rank_drafts(state)
        return self._reviews()

    def _reviews(self) -> tuple[Critique, ...]:
        state = self._state
        return tuple(state.critiques[name] for name in state.plan.reviewers if name in state.critiques)

    def ranking(self) -> Ranking:
        """Return the order of the drafts by the reviews so far."""
        return self._state.ranking

    def is_decided(self, reviews: Sequence[Critique]) -> bool:
        """Return True once no missing review can change the first place."""
        if any(name not in self._state.drafts for name in self.plan.drafters):
            return False  # a draft that has not arrived could still win
        if self._rankings is None:
            self._rankings = _RankingCount.of(self.plan, [draft.seat for draft in self.drafts])
        return self._rankings.is_decided(reviews)

    async def ask_all(
        self, asks: Iterable[Ask], *, enough: Callable[[Sequence[Reply]], bool] | None = None
    ) -> tuple[Reply, ...]:
        """Ask several seats at once; see ``Table``."""
        asked = tuple(asks)
        self._known([question.seat for question in asked])
        for question in asked:
            self._check_phase(question.phase)
            for text in question.show:
                self._check_text(text, "shows")
        if len({question.phase for question in asked}) > 1:
            raise self._misuse("asks in several phases at once")
        return await questions.ask_all(self._state, asked, self._path, enough)

    async def synthesise(
        self, drafts: Sequence[Draft] | None = None, reviews: Sequence[Critique] | None = None
    ) -> Verdict:
        """Let the chair write the final answer; see ``Table``."""
        state = self._state
        shown = phases.Material(
            drafts=self.drafts if drafts is None else tuple(drafts),
            reviews=self._reviews() if reviews is None else tuple(reviews),
        )
        self._check_phase(Phase.SYNTHESISE)
        if not state.plan.chairs:
            raise self._misuse("synthesises, but its plan names no chairs: add them to Steps")
        if not shown.drafts:
            raise self._misuse("synthesises without a draft")
        rank_drafts(state)
        written = await phases.synthesise(state, phases.chair_order(state), shown)
        if written is not None:
            return await until_valid(state, written)
        order = state.ranking.order
        best = min(shown.drafts, key=lambda draft: order.index(draft.seat) if draft.seat in order else len(order))
        return degraded_verdict(state, best, "no seat could write the final answer: this is the best draft")

    async def finish(self, answer: Draft | Reply, *, value: Any = None) -> Verdict:
        """Return a text of a seat as the final answer; see ``Table``."""
        state = self._state
        self._check_text(answer, "finishes with")
        if answer.response is None:
            raise self._misuse(f"finishes with {answer.seat}'s text, which is an error: {answer.error}")
        if state.plan.schema is None:
            return as_verdict(state, answer)
        if value is not None and self._is_output(value):
            return Verdict(chair=answer.seat, text=answer.text, output=value)
        rank_drafts(state)
        draft = answer if isinstance(answer, Draft) else Draft(seat=answer.seat, response=answer.response)
        others = tuple(name for name in phases.chair_order(state) if name != answer.seat)
        shown = phases.Material(drafts=(draft,))
        asked = self._request_of(answer)
        if asked is not None:
            written = phases.ChairAnswer(answer.seat, asked, answer.response, others, shown)
            return await until_valid(state, written)
        shaped = await phases.synthesise(state, [answer.seat, *others], shown)
        if shaped is not None:
            return await until_valid(state, shaped)
        return degraded_verdict(state, draft, "no seat could bring the winning draft into the form of the schema")

    def _is_output(self, value: Any) -> bool:
        """Return True if the schema and the type of the output take a value."""
        state = self._state
        if not compile_schema(state.plan.schema or {}).accepts(value):
            return False
        problems = () if state.output_type is None else state.output_type.problems(value)
        return not state.record_type_problems(problems)

    def abstain(self, reason: str) -> Verdict:
        """Return the verdict of a run that ends without an answer."""
        return Verdict(chair=None, text=None, error=Abstained(reason, run_id=self.plan.run_id))

    def report(self, tally: Tally, *, agreement: Agreement | None = None, dissent: Sequence[Dissent] = ()) -> None:
        """Emit ``Tallied``."""
        at = self._state.elapsed("tallied")
        self._state.emit(Tallied, at=at, tally=tally, agreement=agreement, dissent=dissent)

    def record(self, fact: Round | Rung | Judgement | Check) -> None:
        """Emit the event of the fact."""
        emit, at = self._state.emit, self._state.elapsed()
        match fact:
            case Round():
                emit(RoundFinished, at=at, round=fact)
            case Rung():
                emit(RungFinished, at=at, rung=fact)
            case Judgement():
                emit(Judged, at=at, judgement=fact)
            case Check():
                emit(Checked, at=at, check=fact)

    def _request_of(self, answer: Draft | Reply) -> GenerateRequest | None:
        """Return the request of an answer that was asked for in the form of the schema; None for another one."""
        return self._state.asked_by_schema.get(answer.name if isinstance(answer, Draft) else answer.call)

    def random(self, name: str) -> Random:
        """Return a generator that depends on the run's seed and the name alone."""
        return Random(to_bytes(self.plan.seed, "strategy", *self._path, name))

    def child(self, name: str) -> Table:
        """Return this table for a strategy inside a strategy."""
        return RunTable(self._state, (*self._path, name))

    def note(self, text: str) -> None:
        """Add a sentence for the caller to the warnings of the result."""
        self._state.warnings.append(text)

    def _known(self, seats: Sequence[str] | None) -> tuple[str, ...] | None:
        unknown = [name for name in seats or () if name not in self.seats]
        if unknown:
            raise self._misuse(f"asks {unknown[0]!r:.80}, which is no seat of this run")
        return None if seats is None else tuple(seats)

    def _check_phase(self, phase: Phase) -> None:
        if phase not in self.plan.phases:
            raise self._misuse(f"asks in the phase '{phase}', which its plan does not name: add it to Steps.phases")

    def _check_text(self, text: object, verb: str) -> None:
        if not isinstance(text, Draft | Critique | Reply):
            kind = type(text).__name__
            raise self._misuse(f"{verb} an object of the type {kind}: pass a draft, or a reply of table.ask")

    def _misuse(self, what: str) -> StrategyFailed:
        return StrategyFailed(f"the strategy {self.plan.strategy!r} {what}", run_id=self.plan.run_id)


@attrs.define
class _RankingCount:
    """Counts the rankings of reviews as they arrive."""

    count: BordaCount
    counted: set[str] = attrs.field(factory=set)

    @classmethod
    def of(cls, plan: Plan, drafted: Sequence[str]) -> _RankingCount:
        """Return a vote in which every reviewer ranks these drafts but its own."""
        drafts = tie_order(plan, drafted)
        count = BordaCount(drafts)
        for name in plan.reviewers:
            count.expect(name, [seat for seat in drafts if seat != name])
        return cls(count)

    def is_decided(self, reviews: Sequence[Critique]) -> bool:
        """Return True once no missing ranking can change the winner."""
        for review in reviews:
            if review.seat not in self.counted:
                self.counted.add(review.seat)
                self.count.cast(review.seat, review.ranking)
        return self.count.decided() is not None
