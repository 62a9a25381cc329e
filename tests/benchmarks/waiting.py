"""Print the KiB that a council of three seats holds while it waits: ``python tests/benchmarks/waiting.py RUNS HOW``.

So many runs wait at the same time, first for their drafts, then for their reviews, then for their chairs, as they do
for a batch job; the largest of the three figures counts. HOW is ``resident`` (the memory of the process) or ``traced``
(what Python has allocated, which is the same on any machine). No HTTP and no store: what those hold comes on top.
"""

import asyncio
import gc
import sys
import tracemalloc
from collections import Counter

from measure import resident

from llm_council import Council, CouncilConfig
from llm_council.models import ProviderCapabilities
from llm_council.providers.base import GenerateRequest, ProviderAdapter

ANSWER = "Forty-two, as six times seven is forty-two. " * 8
TASK = "What is 6 times 7?"
PHASES = ("draft", "critique", "synthesise")


class Waiting(ProviderAdapter):
    """A seat that answers the calls of a phase once its gate is open."""

    capabilities = ProviderCapabilities()

    def __init__(self, name: str, gates: dict[str, asyncio.Event], asked: Counter[str]) -> None:
        self.name = name  # type: ignore[misc]
        self._gates = gates
        self._asked = asked

    async def generate(self, request: GenerateRequest) -> str:
        """Wait, and answer."""
        phase = request.metadata["phase"]
        self._asked[phase] += 1
        await self._gates[phase].wait()
        return ANSWER


async def main(runs: int, how: str) -> float:
    """Return the KiB that one of so many waiting runs holds."""
    gates = {phase: asyncio.Event() for phase in PHASES}
    asked = Counter[str]()
    seats = [Waiting(f"seat-{number}", gates, asked) for number in (1, 2, 3)]
    most = 0.0
    async with Council(seats, config=CouncilConfig(), strategy="synthesize") as council:
        for gate in gates.values():
            gate.set()
        for _ in range(5):  # what the first runs import and compile is no part of a run
            (await council.arun(TASK)).raise_for_failure()
        calls = {phase: asked[phase] // 5 for phase in PHASES}
        asked.clear()
        for gate in gates.values():
            gate.clear()
        gc.collect()
        if how == "traced":
            tracemalloc.start()
        before = _held(how)
        waiting = [asyncio.ensure_future(council.arun(TASK)) for _ in range(runs)]
        for phase in PHASES:
            while asked[phase] < runs * calls[phase]:
                if any(run.done() for run in waiting):
                    raise RuntimeError(f"a run ended while the others waited in the phase {phase}")
                await asyncio.sleep(0.01)
            gc.collect()
            most = max(most, (_held(how) - before) / runs / 1024)
            gates[phase].set()
        for result in await asyncio.gather(*waiting):
            result.raise_for_failure()
    return most


def _held(how: str) -> int:
    return tracemalloc.get_traced_memory()[0] if how == "traced" else resident()


if __name__ == "__main__":
    print(f"{asyncio.run(main(int(sys.argv[1]), sys.argv[2])):.1f}")
