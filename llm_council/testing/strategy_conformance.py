"""Test a strategy: subclass ``StrategyConformance`` and run pytest.

Every promise is one test. It runs the strategy in the real engine with seats that answer, answer badly or fail, and
without a network; it fails with one line that names the promise and what was found.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import anyio
import attrs

from llm_council._engine.run import run_plan
from llm_council.config import CouncilConfig
from llm_council.council import Council
from llm_council.errors import ContextTooLong, ServerFailed, StrategyFailed
from llm_council.models import Budget, GenerateRequest, Plan
from llm_council.results import CouncilResult
from llm_council.store import Store
from llm_council.strategies import Strategy
from llm_council.strategies._find import options_of
from llm_council.subagents import Subagent
from llm_council.testing.fakes import ScriptedProvider

__all__ = ["StrategyConformance"]

_NAMES = ("ann", "bob", "cid", "dot", "eve", "fay", "gus", "hal")
_LABELS = " > ".join("ABCDEFGH")


class StrategyConformance:
    """The promises of every strategy, as pytest tests.

    A subclass names the strategy::

        class TestMine(StrategyConformance):
            strategy = Mine(rounds=2)

    Attributes:
        strategy: the strategy.
        seats: how many seats the councils of the tests have, from 1 to 8.
        schema: JSON Schema of the answers; None for free text.
        answer: what a seat writes that answers well. It may end with what the strategy asks for.
        runs: how many councils of failing seats are run.
    """

    strategy: ClassVar[Strategy]
    seats: ClassVar[int] = 3
    schema: ClassVar[Mapping[str, Any] | None] = None
    answer: ClassVar[str] = "It is 391.\nANSWER: 391"
    runs: ClassVar[int] = 20

    def test_plans_the_same_and_sends_nothing(self) -> None:
        """Its plan depends on the seats and the options alone."""
        council, seats = self._council()
        one, other = (self._plan(council) for _ in range(2))
        _expect(one == other, "plan() gives another plan for the same seats: decide by the roster alone")
        sent = [seat.name for seat in seats if seat.requests]
        _expect(not sent, f"plan() asked {', '.join(sent)}: ask seats in deliberate() alone")

    def test_has_options_that_a_stored_plan_can_hold(self) -> None:
        """Its options survive JSON, so that another process can resume its runs."""
        strategy = self.strategy
        options = options_of(strategy)
        try:
            again = type(strategy)(**json.loads(json.dumps(options)))
        except (TypeError, ValueError) as error:
            raise AssertionError(f"the options {options!r:.200} are no plain JSON values: {error}") from error
        _expect(
            again == strategy or not attrs.has(type(strategy)), f"the options {options!r:.200} are no plain JSON values"
        )

    def test_answers_with_healthy_seats(self) -> None:
        """A council whose seats all answer gets an answer, or abstains."""
        council, seats = self._council()
        result = self._run(council, seats)
        _expect(
            result.success or result.status == "abstained",
            f"with seats that all answer, the run is {result.status}: {result.error}",
        )

    def test_never_makes_more_calls_than_its_plan(self) -> None:
        """Whichever seats fail, and however, it stays within ``Steps.most_calls``."""
        for number in range(self.runs):
            council, seats = self._council(erratic=f"run {number}")
            most = self._plan(council).most_calls or 0
            result = self._run(council, seats)
            made = sum(len(seat.requests) for seat in seats)
            _expect(
                not isinstance(result.error, StrategyFailed),
                f"with failing seats (run {number}), the strategy fails: {result.error}",
            )
            _expect(made <= most, f"run {number} makes {made} calls, and its plan says at most {most}")

    def test_survives_the_failure_of_each_seat(self) -> None:
        """The failure of any one seat, and of all, ends in a result with a typed error at the worst."""
        names = _NAMES[: self.seats]
        for down in ([name] for name in names):
            council, seats = self._council(down=down)
            result = self._run(council, seats)
            _expect(
                not isinstance(result.error, StrategyFailed),
                f"without {down[0]}, the strategy fails: {result.error}",
            )
        council, seats = self._council(down=names)
        result = self._run(council, seats)
        _expect(
            not result.success and result.error is not None and not isinstance(result.error, StrategyFailed),
            f"with all seats down, the run is {result.status}: {result.error}",
        )

    def test_is_the_same_for_the_same_seed(self) -> None:
        """Two runs with one seed and the same answers ask the same, and have the same result."""
        sent, results = [], []
        for _ in range(2):
            council, seats = self._council(erratic="a seed")
            results.append(_essence(self._run(council, seats)))
            sent.append([{request.idempotency_key: request.messages for request in seat.requests} for seat in seats])
        _expect(sent[0] == sent[1], "with the same seed, it asks otherwise: draw chance from table.random alone")
        _expect(results[0] == results[1], "with the same seed, the result is another one")

    def test_resumes_and_replays_a_stored_run(self) -> None:
        """A stored run gives the same result again, and no seat is asked twice."""
        with tempfile.TemporaryDirectory() as folder:
            council, seats = self._council(store=Path(folder) / "runs.sqlite")
            result = council.run_sync("item 1", _ROLE, schema=self.schema)
            asked = {seat.name: len(seat.requests) for seat in seats}
            replayed = council.replay_sync(result.run_id)
            resumed = council.resume_sync(result.run_id)
            council.close()
        _expect(_essence(replayed) == _essence(result), "a replay of its run has another result")
        _expect(_essence(resumed) == _essence(result), "its resumed run has another result")
        again = {seat.name: len(seat.requests) for seat in seats}
        _expect(again == asked, f"a replay asked seats again: {asked} calls became {again}")

    def test_resumes_a_run_that_was_interrupted_at_any_call(self) -> None:
        """Interrupted at each of its calls, a run is resumed to the same answer, and no answer is paid for twice."""
        council, seats = self._council()
        whole = self._run(council, seats)
        for number in range(1, sum(len(seat.requests) for seat in seats) + 1):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "runs.sqlite"
                interruption = _Interruption(number, self._well)
                council, seats = self._council(script=interruption, store=path)
                anyio.run(interruption.run, partial(council.arun, "item 1", _ROLE, schema=self.schema))
                (info,) = Store(path).runs_sync()
                stored = Store(path).show_sync(info.run_id).calls
                answered = {call.key for call in stored if call.state == "answered"}
                before = [len(seat.requests) for seat in seats]
                result = council.resume_sync(info.run_id)
                council.close()
            later = [request for seat, made in zip(seats, before, strict=True) for request in seat.requests[made:]]
            twice = [request for request in later if request.idempotency_key in answered]
            _expect(not twice, f"interrupted at call {number}, it asked {len(twice)} answered calls once more")
            _expect(
                (result.status, result.output) == (whole.status, whole.output),
                f"interrupted at call {number}, the resumed run is {result.status} with {result.output!r:.80}, and the"
                f" undisturbed one {whole.status} with {whole.output!r:.80}",
            )

    def _council(
        self, *, erratic: str | None = None, down: Any = (), script: Any = None, store: Path | None = None
    ) -> tuple[Council, list[ScriptedProvider]]:
        """Return a council and its seats."""
        seats: list[ScriptedProvider] = []
        for name in _NAMES[: self.seats]:
            says: Any = script or self._well
            if name in down:
                says = ServerFailed("this seat is down", status=529, retryable=False)
            elif erratic is not None:
                says = _Erratic(erratic, self._well)
            seats.append(ScriptedProvider(says, name=name))
        config = CouncilConfig(seed="a seed", budget=Budget(deadline=60.0))
        return Council(seats, config=config, strategy=self.strategy, store=store), seats

    def _plan(self, council: Council) -> Plan:
        plan = council.plan("item 1", _ROLE, schema=self.schema)
        return attrs.evolve(plan, run_id="r1", created=None)  # what differs from run to run

    def _run(self, council: Council, seats: Sequence[ScriptedProvider]) -> CouncilResult:
        adapters = {seat.name: seat for seat in seats}
        return anyio.run(partial(run_plan, self._plan(council), adapters, strategy=self.strategy))

    def _well(self, request: GenerateRequest) -> str:
        """Return a good answer; the first seat drafts another one, so that seats have something to settle."""
        phase = request.metadata.get("phase")
        if phase == "judge":
            return "BETTER: A\n" + "\n".join(f"SCORE {label}: {7 - place}" for place, label in enumerate("ABCDEFG"))
        text = self.answer if request.structured_output is None else json.dumps(_example(self.schema or {}))
        if phase in ("critique", "rank"):
            return f"{text}\nRANKING: {_LABELS}"
        if phase == "draft" and request.metadata.get("seat") == _NAMES[0]:
            return text.replace("391", "390")
        return text


_ROLE = Subagent(name="tester")


class _Erratic:
    """What a seat says that fails, or answers in another form than asked, as often as not; by the request alone."""

    def __init__(self, seed: str, well: Any) -> None:
        self._seed = seed
        self._well = well

    def __call__(self, request: GenerateRequest) -> Any:
        metadata = request.metadata
        chance = Random(f"{self._seed}/{metadata.get('seat')}/{request.idempotency_key}")
        match chance.randrange(6):
            case 0:
                return ServerFailed("overloaded", status=529, retryable=False)
            case 1:
                return ContextTooLong("too long", status=400)
            case 2:
                return "I cannot say."
            case 3:
                return f"ANSWER: {chance.randrange(3)}"
        return self._well(request)


class _Interruption:
    """Cancels a run at one of its calls; later calls are answered well."""

    def __init__(self, number: int, well: Callable[[GenerateRequest], str]) -> None:
        self._left = number
        self._well = well
        self._scope: anyio.CancelScope | None = None

    async def run(self, start: Callable[[], Awaitable[object]]) -> None:
        with anyio.CancelScope() as self._scope:
            await start()

    async def __call__(self, request: GenerateRequest) -> str:
        self._left -= 1
        if self._left == 0 and self._scope is not None:
            self._scope.cancel()
            await anyio.sleep_forever()
        return self._well(request)


def _example(schema: Mapping[str, Any]) -> Any:
    """Return a value of a simple schema."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _example(properties.get(name, {})) for name in schema.get("required", properties)}
        case "array":
            return []
        case "boolean":
            return True
        case "integer" | "number":
            return 391
    return "391"


def _essence(result: CouncilResult) -> Any:
    """Return a result without its times."""
    return _without_times(result.to_dict())


def _without_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        times = ("elapsed", "duration", "started", "at", "created", "phases", "attempts")
        return {name: _without_times(item) for name, item in value.items() if name not in times}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _expect(kept: object, broken: str) -> None:
    if not kept:
        raise AssertionError(broken)
