"""A council of simulated seats, and a task set whose right answers are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_council import Council, CouncilConfig
from llm_council.evals.tasks import EvalTask, TaskSet
from llm_council.models import Cost, CostSource, GenerateRequest, GenerateResponse, Usage
from llm_council.testing import SimulatedSeat, World

WORLD = World(seed="evals", options=5, same_mistake=0.5)


class PricedSeat(SimulatedSeat):
    """A simulated seat that is billed: it reports a cost and tokens.

    Args:
        accuracy: see ``SimulatedSeat``.
        usd: US dollars of a call.
        **options: likewise.
    """

    def __init__(self, accuracy: float, *, usd: float = 0.001, **options: Any) -> None:
        super().__init__(accuracy, **options)
        self.usd = usd

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Answer, and report what that cost."""
        response = await super().generate(request)
        return GenerateResponse(
            text=response.text,
            model=response.model,
            usage=Usage(input_tokens=100, output_tokens=10),
            cost=Cost(usd=self.usd, source=CostSource.REPORTED, complete=True),
        )


SEATS = {"ann": 0.8, "bob": 0.6, "cy": 0.7}


def council_of(accuracies: Mapping[str, float] = SEATS, *, world: World = WORLD, **options: Any) -> Council:
    """Return a council of seats that are billed, and right with these probabilities."""
    seats = [PricedSeat(right, world=world, name=name, **options) for name, right in accuracies.items()]
    return Council(seats, config=CouncilConfig(seed="evals"))


def tasks_of(count: int, *, world: World = WORLD, clusters: int | None = None) -> TaskSet:
    """Return tasks of a world."""
    tasks = [
        EvalTask(
            id=f"item-{item}",
            input=f"What is item {item}?",
            target=world.right_answer(item),
            scorer="number",
            metadata={} if clusters is None else {"cluster": f"c{item % clusters}"},
        )
        for item in range(count)
    ]
    return TaskSet(name="world", tasks=tasks, sha256="0" * 64)


def calls_of(council: Council) -> int:
    """Return how many calls the seats of a council have had."""
    return sum(adapter.inner.calls for adapter in council._seating.adapters.values())  # type: ignore[attr-defined]
