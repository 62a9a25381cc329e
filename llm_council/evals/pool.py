"""The pool of drafts that all arms of an evaluation share.

Every seat answers every task several times, with the prompts of the strategies that vote. All arms use these drafts, in
the order of their numbers, so that differences between arms do not come from different drafts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from llm_council import _engine
from llm_council._engine.budget import ASSUMED, Price, may_be_billed
from llm_council._engine.calls import invalid_answer
from llm_council._engine.prompts import draft_request
from llm_council.errors import AdapterFailed, ConfigurationError, CouncilError, InvalidOption
from llm_council.errors._secrets import redact
from llm_council.evals.journal import DraftCell, EvalJournal, digest, identities_of
from llm_council.evals.tasks import EvalTask, TaskSet
from llm_council.middleware.wrapper import Wrapper
from llm_council.models import (
    Budget,
    Cost,
    CostSource,
    Draft,
    Effort,
    GenerateRequest,
    GenerateResponse,
    Plan,
    ReasoningConfig,
    SeatSpec,
    Usage,
)
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ProviderAdapter, call
from llm_council.store._encoding import request_digest
from llm_council.strategies.sample import Sample

if TYPE_CHECKING:
    from llm_council.council import Council

__all__ = ["Pool", "PooledSeat", "Seats", "question_of"]

_AT_HIGH_EFFORT = " at high effort"  # what the name of a seat ends with in the cells of such drafts


def question_of(task: EvalTask) -> str:
    """Return the text that a council is asked: the input, with the choices below it."""
    if isinstance(task.input, str):
        text = task.input
    elif len(task.input) == 1:
        text = task.input[0].text
    else:
        text = "\n\n".join(f"{turn.role}: {turn.text}" for turn in task.input)
    if task.choices:
        text += "\n\nChoices:\n" + "\n".join(f"- {choice}" for choice in task.choices)
    return text


class Seats:
    """The seats of an evaluation: those of a council, with a hash that identifies each.

    Args:
        council: the council.
    """

    def __init__(self, council: Council) -> None:
        self.council = council
        self.specs: tuple[SeatSpec, ...] = council._seating.specs
        self.adapters: Mapping[str, ProviderAdapter] = council._seating.adapters
        self.price = council._price

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the seats, in order."""
        return tuple(spec.name for spec in self.specs)

    @cached_property
    def identities(self) -> dict[str, str]:
        """Hash of each seat's provider, address, account and model."""
        return identities_of(
            (spec.name, (self.adapters[spec.name].cache_identity(), spec.model)) for spec in self.specs
        )

    def plan(self, task: EvalTask, *, strategy: Any, seed: str, run_id: str | None = None) -> Plan:
        """Return the plan of a run on a task.

        Raises:
            ConfigurationError: the strategy cannot work with these seats.
        """
        config = attrs.evolve(self.council.config, seed=seed, chair=None)
        # No quorum: an arm works with the drafts that there are, as the others do.
        config = attrs.evolve(config, budget=attrs.evolve(config.budget, quorum=None, usd=None, tokens=None))
        request = _engine.RunRequest(strategy=strategy, schema=task.schema, run_id=run_id, budget=Budget(quorum=None))
        return _engine.make_plan(question_of(task), self._role, config, self.specs, request)

    @cached_property
    def _role(self) -> Any:
        from llm_council import subagents

        # The schema of the task replaces that of the role.
        return attrs.evolve(subagents.load("advisor"), schema=None, headings=False)

    def cost_of(self, spec: SeatSpec, response: GenerateResponse, usage: Usage) -> float | None:
        """Return what a call was billed, in US dollars; None if that is unknown."""
        if response.cost is not None and response.cost.usd is not None:
            return response.cost.usd
        model = response.model or spec.model
        direct: Price = getattr(self.price, "direct", self.price)
        found = direct(attrs.evolve(spec, model=model), usage)
        if found is None:
            found = direct(spec, usage)
        share = 1.0 if response.cost is None else response.cost.share
        return None if found is None else found * share


class Pool:
    """The drafts of an evaluation.

    Args:
        tasks: the task set.
        seats: the seats; None only reads the drafts of a journal.
        journal: where finished drafts are.
        limit: how many calls of one task may be made at once.

    Attributes:
        spent: US dollars that the drafts cost; an assumed price counts where none is known.
        calls: calls that they took.
        tokens: tokens that they took.
    """

    def __init__(self, tasks: TaskSet, seats: Seats | None, journal: EvalJournal, *, limit: int = 16) -> None:
        self._set = tasks.sha256
        self._seats = seats
        self._journal = journal
        self._limit = limit
        self._drafts: dict[str, dict[str, dict[int, DraftCell]]] = {}  # by task, seat and number
        self._efforts: dict[str, dict[str, DraftCell]] = {}  # by task and seat: drafts at high effort
        self.spent = 0.0
        self.calls = 0
        self.tokens = 0

    def load(self, identities: Mapping[str, str]) -> None:
        """Take all drafts of these seats from the journal, as in a replay."""
        for cell in self._journal.cells():
            if not isinstance(cell, DraftCell) or cell.set != self._set:
                continue
            if identities.get(cell.seat.removesuffix(_AT_HIGH_EFFORT)) == cell.identity:
                self._take(cell)

    def drafts(self, item: str, seat: str) -> list[DraftCell]:
        """Return the drafts of a seat for a task, in the order of their numbers."""
        found = self._drafts.get(item, {}).get(seat, {})
        return [found[number] for number in sorted(found)]

    def first_drafts(self, item: str) -> list[DraftCell]:
        """Return the first draft of each seat for a task: those that called arms start with."""
        return [cells[0] for cells in self._drafts.get(item, {}).values() if 0 in cells]

    def efforts(self, item: str) -> dict[str, DraftCell]:
        """Return the draft at high reasoning effort of each seat that has one, for a task."""
        return dict(self._efforts.get(item, {}))

    def count(self, item: str) -> int:
        """Return how many drafts there are for a task."""
        return sum(map(len, self._drafts.get(item, {}).values())) + len(self._efforts.get(item, ()))

    async def fill(self, task: EvalTask, samples: Mapping[str, int]) -> None:
        """Make the drafts of a task that are missing.

        Args:
            task: the task.
            samples: how many drafts each seat is to have.
        """
        seats = self._open_seats()
        plan = seats.plan(task, strategy=Sample(k=2, vote_on=task.vote_on), seed=self._set)
        limiter = anyio.CapacityLimiter(self._limit)
        async with anyio.create_task_group() as group:
            for spec in seats.specs:
                first: GenerateRequest | None = None
                for number in range(samples.get(spec.name, 0)):
                    if number in self._drafts.get(task.id, {}).get(spec.name, {}):
                        continue
                    request = draft_request(plan, spec, task.instruction, number + 1)
                    first = first or request  # the hash leaves the number out
                    cell = self._empty(task, spec, spec.name, first, number)
                    if not self._take_finished(cell):
                        group.start_soon(self._draw, spec, request, cell, plan.budget.deadline, limiter)

    async def fill_efforts(self, task: EvalTask) -> None:
        """Make a draft of each seat at high reasoning effort, of those that can be told to reason."""
        seats = self._open_seats()
        plan = seats.plan(task, strategy=Sample(k=2, vote_on=task.vote_on), seed=self._set)
        limiter = anyio.CapacityLimiter(self._limit)
        async with anyio.create_task_group() as group:
            for spec in seats.specs:
                if not seats.adapters[spec.name].capabilities.reasoning or spec.name in self.efforts(task.id):
                    continue
                asked = draft_request(plan, spec, task.instruction)
                key = digest(asked.idempotency_key, "high")
                request = attrs.evolve(asked, reasoning=ReasoningConfig(effort=Effort.HIGH), idempotency_key=key)
                cell = self._empty(task, spec, f"{spec.name}{_AT_HIGH_EFFORT}", request, 0)
                if not self._take_finished(cell):
                    group.start_soon(self._draw, spec, request, cell, plan.budget.deadline, limiter)

    def _empty(self, task: EvalTask, spec: SeatSpec, name: str, request: GenerateRequest, number: int) -> DraftCell:
        """Return a cell without an answer, whose key finds the finished one in the journal."""
        return DraftCell(
            set=self._set,
            item=task.id,
            seat=name,
            identity=self._open_seats().identities[spec.name],
            prompt=request_digest(request),
            sample=number,
        )

    def _take_finished(self, cell: DraftCell) -> bool:
        """Take a draft from the journal, if it is there; a failure that cost nothing is tried again."""
        known = self._journal.get(cell.key)
        if not isinstance(known, DraftCell) or not (known.error is None or known.usd):
            return False
        self._take(known)
        return True

    def _open_seats(self) -> Seats:
        if self._seats is None:
            raise InvalidOption("a journal that is only read has no seats to draw drafts from")
        return self._seats

    async def _draw(
        self,
        spec: SeatSpec,
        request: GenerateRequest,
        cell: DraftCell,
        deadline: float | None,
        limiter: anyio.CapacityLimiter,
    ) -> None:
        seats = self._open_seats()
        async with limiter:
            began = time.monotonic()
            tokens_in = sum(len(turn.text) for turn in request.turns()) // 4 + 1  # four characters a token
            try:
                response = await call(seats.adapters[spec.name], request, deadline=deadline)
                failure = invalid_answer(response)
            except ConfigurationError:  # a missing key, a wrong option: no other call would work either
                raise
            except CouncilError as error:
                response, failure = None, error
        seconds = time.monotonic() - began
        if response is None:
            usd = 0.0
            if may_be_billed(failure):
                usd = _assumed(seats, spec, tokens_in)
            cell = attrs.evolve(cell, seconds=seconds, error=_words(failure), usd=usd)
        else:
            usage = response.usage
            if usage is None or usage.total_tokens is None:
                usage = Usage(input_tokens=tokens_in, output_tokens=len(response.text or "") // 4 + 1)
            cell = attrs.evolve(
                cell,
                text=response.text,
                structured=response.structured,
                model=response.model,
                usd=seats.cost_of(spec, response, usage),
                input_tokens=usage.input_tokens or 0,
                output_tokens=usage.output_tokens or 0,
                seconds=seconds,
                error=None if failure is None else _words(failure),
            )
        self._journal.add(cell)
        self._take(cell)

    def _take(self, cell: DraftCell) -> None:
        if cell.seat.endswith(_AT_HIGH_EFFORT):
            self._efforts.setdefault(cell.item, {})[cell.seat.removesuffix(_AT_HIGH_EFFORT)] = cell
        else:
            self._drafts.setdefault(cell.item, {}).setdefault(cell.seat, {})[cell.sample] = cell
        self.calls += 1
        self.tokens += cell.input_tokens + cell.output_tokens
        dollars_in, dollars_out = ASSUMED
        assumed = (cell.input_tokens * dollars_in + cell.output_tokens * dollars_out) / 1e6
        self.spent += assumed if cell.usd is None else cell.usd


def _words(error: CouncilError | None) -> str:
    return redact(f"{type(error).__name__}: {error}")[:500]


def _assumed(seats: Seats, spec: SeatSpec, tokens_in: int) -> float:
    """Return the US dollars that a call without an answer may cost: its prompt, at the known or the assumed price."""
    price = seats.price(spec, Usage(input_tokens=tokens_in, output_tokens=0))
    return tokens_in * ASSUMED[0] / 1e6 if price is None else price


class PooledSeat(Wrapper):
    """A seat of a called arm: its drafts come from the pool, everything else from its provider.

    Args:
        inner: the provider.
        drafts: the seat's drafts for the task, by their numbers.
    """

    _is_own_middleware = True

    def __init__(self, inner: ProviderAdapter, drafts: Sequence[DraftCell]) -> None:
        super().__init__(inner)
        self._drafts = {draft.sample: draft for draft in drafts}

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Return the draft of this number, at what it cost when it was drawn."""
        draft = self._drafts.get(request.sample or 0) if request.metadata.get("phase") == "draft" else None
        if draft is None:
            return await call(self.inner, request)
        return response_of(draft)


def response_of(draft: DraftCell) -> GenerateResponse:
    """Return a draft of the pool as the answer of its provider.

    Raises:
        AdapterFailed: the draft is a failure.
    """
    if draft.error is not None:
        raise AdapterFailed(draft.error, retryable=False)
    cost = None if draft.usd is None else Cost(usd=draft.usd, source=CostSource.REPORTED, complete=True)
    return GenerateResponse(
        text=draft.text,
        structured=draft.structured,
        model=draft.model,
        usage=Usage(input_tokens=draft.input_tokens, output_tokens=draft.output_tokens),
        cost=cost,
    )


def as_draft(cell: DraftCell, number: int = 1) -> Draft:
    """Return a draft of the pool as strategies count it."""
    if cell.error is not None:
        return Draft(seat=cell.seat, number=number, error=AdapterFailed(cell.error, retryable=False))
    return Draft(seat=cell.seat, number=number, response=response_of(cell), elapsed=cell.seconds)
