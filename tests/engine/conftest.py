"""Plans and runs of the engine with scripted seats, a fixed seed and no network."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llm_council._engine.plan import RunRequest, make_plan
from llm_council._engine.run import run_plan
from llm_council.config import CouncilConfig
from llm_council.events import Event, listening
from llm_council.models import Budget, Phase, Plan, RolePrompts, SeatSpec
from llm_council.results import CouncilResult
from llm_council.subagents import Subagent
from llm_council.testing.fakes import ScriptedProvider

ROLE = RolePrompts(system="You answer.")


class ScriptedCouncil:
    """A council of scripted seats that records the events and results of its runs."""

    def __init__(self, **seats: ScriptedProvider) -> None:
        self.seats = seats
        self.events: list[Event] = []
        self.results: list[CouncilResult] = []

    def plan(
        self,
        task: str = "What is 17 * 23?",
        *,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        config: Mapping[str, Any] | None = None,
        small: bool = False,
        prompts: RolePrompts = ROLE,
        **options: Any,
    ) -> Plan:
        seats = [SeatSpec(name=name, provider=seat.name, prose_first=small) for name, seat in self.seats.items()]
        role = Subagent(name="tester", prompts=prompts)
        # The strategy with the most phases, whatever the schema and the number of seats: most tests are about phases.
        defaults = {"seed": "a seed", "budget": Budget(deadline=30.0), "strategy": "synthesize"}
        settings = CouncilConfig(**(defaults | dict(config or {})))
        return make_plan(task, role, settings, seats, RunRequest(schema=schema, budget=budget, **options))

    async def run(self, plan: Plan | None = None, **options: Any) -> CouncilResult:
        run_options = {key: options.pop(key) for key in ("deltas", "price", "clock", "journal") if key in options}
        deltas = run_options.get("deltas") or ()
        run_options["deltas"] = tuple(Phase) if deltas is True else deltas
        plan = plan or self.plan(**options)
        with listening(self.events.append):
            return await run_plan(plan, self.seats, on_result=self.results.append, **run_options)

    def events_of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def table() -> Callable[..., ScriptedCouncil]:
    return ScriptedCouncil
