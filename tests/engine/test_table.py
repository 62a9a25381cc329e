"""The table: what a strategy of anybody may do, and what the engine holds it to."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import anyio
import attrs
import pytest

from llm_council._engine import run as engine
from llm_council._engine.estimate import estimate
from llm_council._engine.run import run_plan
from llm_council.config import CouncilConfig
from llm_council.council import Council
from llm_council.errors import InvalidOption, QuorumLost, ServerFailed, StrategyFailed
from llm_council.models import Budget, Phase, Status
from llm_council.strategies import Ask, Roster, Single, Steps, Strategy, Table, Verdict
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
TEXT = re.compile(r"^\[\[\[ \w+ Text (\w+)\n(.*?)\n\w+ \]\]\]$", re.MULTILINE | re.DOTALL)
DOWN = ServerFailed("overloaded", status=529)


@attrs.frozen(kw_only=True)
class Juried(Strategy):
    """Let every seat draft, and ask each for the label of the best text of the others."""

    name: ClassVar[str] = "juried"
    rounds: int = 1
    most_calls: int | None = None

    def plan(self, roster: Roster) -> Steps:
        names = roster.names
        return Steps(
            phases=(Phase.DRAFT, Phase.JUDGE, *roster.repairs),
            most_calls=self.most_calls or (1 + self.rounds) * len(names) + roster.most_writing_calls,
            drafters=names,
            chairs=names,
            asks={Phase.JUDGE: names * self.rounds},
        )

    async def deliberate(self, table: Table) -> Verdict:
        drafts = await table.draft()
        points = {draft.seat: 0 for draft in drafts}
        for number in range(self.rounds):
            asks = []
            for judge in table.seats:
                others = [draft for draft in drafts if draft.seat != judge]
                asks.append(Ask(seat=judge, instructions="Best?", show=others, phase=Phase.JUDGE, round=number))
            for reply in await table.ask_all(asks):
                if reply.text in reply.labels:
                    points[reply.labels[reply.text]] += 1
        best = max(drafts, key=lambda draft: points[draft.seat])
        return await table.finish(best)


def best(request: Any) -> str:
    """Return the label of the longest text in the prompt."""
    texts = re.findall(
        r"^\[\[\[ \w+ Text (\w+)\n(.*?)\n\w+ \]\]\]$", request.messages[-1].content, re.MULTILINE | re.DOTALL
    )
    return max(texts, key=lambda text: len(text[1]))[0]


def seat(draft: Any, **more: Any) -> ScriptedProvider:
    return ScriptedProvider({"draft": draft, "judge": best, **more})


def council_of(table: Any, **changes: Any) -> Any:
    seats = {"ann": seat("391"), "bob": seat("It is 391."), "cid": seat("It is 391, as 17 * 23 = 391.")}
    return table(**{**seats, **changes})


async def run(council: Any, strategy: Strategy, **options: Any) -> Any:
    plan = council.plan(strategy=strategy, **options)
    return await run_plan(plan, council.seats, strategy=strategy)


class TestAsk:
    async def test_a_strategy_asks_about_texts_whose_authors_are_hidden(self, table):
        council = council_of(table)
        result = await run(council, Juried())
        assert (result.status, result.chair) == (Status.COMPLETED, "cid")
        assert result.output == "It is 391, as 17 * 23 = 391."
        (asked,) = council.seats["ann"].asked("judge")
        prompt = asked.messages[-1].content
        assert prompt.endswith("Best?")
        assert "ann" not in prompt
        assert "bob" not in prompt
        assert [timing.phase for timing in result.phases] == ["draft", "judge"]

    async def test_every_call_has_a_key_and_a_fence_of_its_own(self, table):
        council = council_of(table)
        await run(council, Juried(rounds=3))
        asked = council.seats["ann"].asked("judge")
        assert len({request.idempotency_key for request in asked}) == 3
        codes = [re.findall(r"^\[\[\[ (\w+)", request.messages[-1].content, re.MULTILINE) for request in asked]
        assert len({code for found in codes for code in found}) == 3

    async def test_the_same_seed_gives_the_same_questions(self, table):
        async def once():
            council = council_of(table)
            await run(council, Juried(rounds=2), run_id="r1")
            return {
                name: {request.idempotency_key: request.messages for request in seat.asked("judge")}
                for name, seat in council.seats.items()
            }

        assert await once() == await once()

    async def test_a_seat_that_fails_leaves_an_error_and_degrades_the_run(self, table):
        council = council_of(table, cid=seat("It is 391, as 17 * 23 = 391.", judge=DOWN))
        result = await run(council, Juried())
        assert (result.status, result.chair) == (Status.DEGRADED, "cid")
        assert any("cid gave no answer in the judge phase" in warning for warning in result.warnings)

    async def test_enough_replies_cancel_the_others_without_degrading_the_run(self, table):
        class Hasty(Juried):
            async def deliberate(self, table: Table) -> Verdict:
                drafts = await table.draft()
                asks = [Ask(seat=name, instructions="Best?", show=drafts, phase=Phase.JUDGE) for name in table.seats]
                replies = await table.ask_all(asks, enough=lambda so_far: len(so_far) == 2)
                assert [reply.seat for reply in replies] == list(table.seats)
                return await table.finish(next(reply for reply in replies if reply.error is None))

        council = council_of(table, cid=seat("391"))
        council.seats["cid"]._delay = {"judge": float("inf")}
        with anyio.fail_after(20):
            result = await run(council, Hasty(), budget=Budget(deadline=None))
        assert result.status is Status.COMPLETED
        assert council.seats["cid"].cancelled == 1

    async def test_a_failed_run_that_is_resumed_does_not_wait_for_a_seat_that_it_did_not_need(
        self, tmp_path, anyio_backend_name
    ):
        mistakes = [ValueError("a mistake, soon corrected")]

        class Hasty(Juried):
            async def deliberate(self, table: Table) -> Verdict:
                drafts = await table.draft(["ann", "bob"])
                asks = [Ask(seat=name, instructions="Best?", show=drafts, phase=Phase.JUDGE) for name in table.seats]
                await table.ask_all(asks, enough=lambda so_far: len(so_far) == 2)
                if mistakes:
                    raise mistakes.pop()
                return await table.finish(drafts[0], value=391)

        seats = [ScriptedProvider({"draft": "It is 391.", "judge": "A"}, name=name) for name in ("ann", "bob")]
        stuck = ScriptedProvider({"judge": "A"}, name="cid", delay={"judge": float("inf")})
        config = CouncilConfig(store=str(tmp_path / "runs.sqlite"), budget=Budget(deadline=None))
        async with Council([*seats, stuck], config=config, strategy=Hasty()) as council:
            with anyio.fail_after(20):
                failed = await council.arun("What is 17 * 23?", schema={"type": "integer"})
                resumed = await council.aresume(failed.run_id)
        assert (failed.status, resumed.status, resumed.output) == (Status.FAILED, Status.COMPLETED, 391)
        # trio starts tasks in an order of its own: there, the seat may be asked before the stored replies are enough.
        assert len(stuck.asked("judge")) == 1 or anyio_backend_name == "trio"

    async def test_small_and_plain_models_are_asked_too(self, table):
        council = council_of(table)
        plan = council.plan(strategy=Juried())
        specs = [attrs.evolve(plan.seats[0], prose_first=True), attrs.evolve(plan.seats[1], plain_prompts=True)]
        await run_plan(attrs.evolve(plan, seats=(*specs, plan.seats[2])), council.seats, strategy=Juried())
        (small,) = council.seats["ann"].asked("judge")
        assert small.max_tokens == 60
        (plain,) = council.seats["bob"].asked("judge")
        assert "[[[" not in plain.messages[-1].content
        assert re.search(r"^A: ", plain.messages[-1].content, re.MULTILINE)


class TestFinish:
    async def test_a_draft_in_prose_is_brought_into_the_schema_by_its_author(self, table):
        council = council_of(table, cid=seat("It is 391, as 17 * 23 = 391.", synthesise='{"sum": 391}'))
        result = await run(council, _with_synthesis(Juried)(), schema=SCHEMA)
        assert (result.output, result.chair) == ({"sum": 391}, "cid")

    async def test_single_asks_in_the_form_of_the_schema_at_once(self, table):
        council = council_of(table, ann=seat('{"sum": 391}'))
        result = await council.run(strategy="single", schema=SCHEMA)
        assert (result.status, result.output, result.chair) == (Status.COMPLETED, {"sum": 391}, "ann")
        assert sum(len(seat.requests) for seat in council.seats.values()) == 1
        assert council.seats["ann"].requests[0].structured_output.json_schema == SCHEMA

    async def test_single_repairs_an_invalid_answer(self, table):
        council = council_of(table, ann=seat("391", repair='{"sum": 391}'))
        result = await council.run(strategy="single", schema=SCHEMA)
        assert (result.output, result.chair) == ({"sum": 391}, "ann")
        assert len(council.seats["ann"].requests) == 2

    async def test_single_hands_over_to_the_next_seat(self, table):
        council = council_of(table, ann=seat(DOWN))
        result = await council.run(strategy="single")
        assert (result.status, result.output, result.chair) == (Status.DEGRADED, "It is 391.", "bob")
        assert not council.seats["cid"].requests

    async def test_single_refuses_a_quorum(self, table):
        with pytest.raises(InvalidOption, match="a quorum of 2 cannot be reached"):
            council_of(table).plan(strategy="single", budget=Budget(quorum=2))


def _with_synthesis(cls: type[Juried]) -> type[Juried]:
    class Written(cls):
        def plan(self, roster: Roster) -> Steps:
            steps = super().plan(roster)
            return attrs.evolve(steps, phases=(*steps.phases, Phase.SYNTHESISE))

    return Written


async def _draft_and_synthesise(table: Table) -> Verdict:
    await table.draft()
    return await table.synthesise()


async def _drafts_not_awaited(table: Table) -> Verdict:
    drafts = table.draft()
    try:
        return await table.finish(drafts[0])
    finally:
        drafts.close()


async def _returns_a_coroutine(table: Table) -> Any:
    drafts = await table.draft()
    return table.finish(drafts[0])


class TestLimits:
    async def test_a_strategy_that_exceeds_its_plan_fails(self, table):
        council = council_of(table)
        result = await run(council, Juried(most_calls=5))
        assert isinstance(result.error, StrategyFailed)
        assert "more calls than the 5 of its plan" in str(result.error)
        assert sum(len(seat.requests) for seat in council.seats.values()) <= 5

    @pytest.mark.parametrize(
        ("work", "words"),
        [
            (lambda table: table.ask("ann", "?", phase=Phase.VERIFY), "phase 'verify', which its plan does not name"),
            (lambda table: table.ask("dot", "?", phase=Phase.JUDGE), "'dot', which is no seat of this run"),
            (lambda table: table.finish("Paris."), "finishes with an object of the type str: pass a draft, or a reply"),
            (lambda table: table.ask("ann", "?", show=["a"], phase=Phase.JUDGE), "shows an object of the type str"),
            (lambda table: _draft_and_synthesise(table), "'synthesise', which its plan does not name: add it to Steps"),
            (lambda table: _drafts_not_awaited(table), "methods of the table that ask seats need 'await'"),
            (lambda table: _returns_a_coroutine(table), "returned a coroutine: write 'await' before the call"),
            (lambda table: table.no_such_method(), "AttributeError"),
            (lambda table: anyio.to_thread.run_sync(str, 391), "returned str"),
        ],
    )
    async def test_what_a_strategy_does_wrong_fails_the_run_and_is_named(self, table, work, words):
        class Wrong(Juried):
            async def deliberate(self, table: Table) -> Verdict:
                return await work(table)

        result = await run(council_of(table), Wrong())
        assert result.status is Status.FAILED
        assert isinstance(result.error, StrategyFailed)
        assert words in str(result.error)
        assert "'juried'" in str(result.error)

    @pytest.mark.parametrize(("chairs", "words"), [(True, "synthesises without a draft"), (False, "names no chairs")])
    async def test_a_chair_needs_a_draft_and_a_place_in_the_plan(self, table, chairs, words):
        class Wrong(Juried):
            def plan(self, roster: Roster) -> Steps:
                steps = super().plan(roster)
                return attrs.evolve(
                    steps, phases=(*steps.phases, Phase.SYNTHESISE), chairs=roster.names if chairs else ()
                )

            async def deliberate(self, table: Table) -> Verdict:
                return await table.synthesise()

        result = await run(council_of(table), Wrong())
        assert isinstance(result.error, StrategyFailed)
        assert words in str(result.error)

    async def test_a_method_that_is_not_async_is_named_with_the_remedy(self, table):
        class Plain(Juried):
            def deliberate(self, table: Table) -> Verdict:  # type: ignore[override]
                return table.abstain("no reason")

        result = await run(council_of(table), Plain())
        assert isinstance(result.error, StrategyFailed)
        assert "deliberate must be 'async def'" in str(result.error)

    async def test_an_error_in_a_task_group_of_a_strategy_is_the_error_of_the_run(self, table):
        class Grouped(Juried):
            async def deliberate(self, table: Table) -> Verdict:
                async with anyio.create_task_group() as group:
                    group.start_soon(table.draft)
                raise AssertionError("the drafts had failed")

        council = table(ann=seat(DOWN), bob=seat(DOWN))
        result = await run(council, Grouped())
        assert isinstance(result.error, QuorumLost)

    async def test_a_strategy_that_does_not_end_is_ended_with_its_best_draft(self, table, monkeypatch):
        class Endless(Juried):
            async def deliberate(self, table: Table) -> Verdict:
                await table.draft()
                await anyio.sleep_forever()
                raise AssertionError

        monkeypatch.setattr(engine, "OVERTIME", 0.0)
        council = council_of(table)
        result = await run(council, Endless(), budget=Budget(deadline=0.3))
        assert result.status is Status.DEGRADED
        assert result.output in ("391", "It is 391.", "It is 391, as 17 * 23 = 391.")
        assert any("'juried' went on after the 0.3 s" in warning for warning in result.warnings)

    @pytest.mark.parametrize(
        ("steps", "words"),
        [
            (lambda roster: None, "must return Steps, got NoneType"),
            (lambda roster: 1 / 0, "cannot plan: ZeroDivisionError"),
            (lambda roster: Steps(phases=["drift"], most_calls=1), "plans a phase 'drift'"),
            (lambda roster: Steps(phases=[Phase.DRAFT], most_calls=1), "a quorum of 1 needs as many, got 0"),
            (lambda roster: Steps(phases=[], most_calls=1, asks={"judge": ["dot"]}), "no seat is named 'dot'"),
        ],
    )
    async def test_a_wrong_plan_is_refused_before_anything_is_sent(self, table, steps, words):
        class Wrong(Juried):
            def plan(self, roster: Roster) -> Steps:
                return steps(roster)

        with pytest.raises(InvalidOption, match=words):
            council_of(table).plan(strategy=Wrong())


class TestPlan:
    async def test_the_plan_records_name_options_and_calls(self, table):
        plan = council_of(table).plan(strategy=Juried(rounds=2))
        assert (plan.strategy, plan.strategy_options) == ("juried", {"rounds": 2})
        assert plan.asks == {"judge": ("ann", "bob", "cid", "ann", "bob", "cid")}
        assert plan.most_calls == 3 + 6 + 6
        assert estimate(plan, lambda *_: None).calls == {"draft": 3, "judge": 6}

    async def test_the_same_strategy_as_name_and_as_object_makes_the_same_plan(self, table):
        named, given = (council_of(table).plan(strategy=s, run_id="r1") for s in ("single", Single()))
        assert attrs.evolve(named, created=None) == attrs.evolve(given, created=None)


class TestTable:
    async def test_seats_that_have_drafted_are_not_asked_again(self, table):
        class InTwoSteps(Juried):
            async def deliberate(self, table: Table) -> Verdict:
                first = await table.draft(["bob"])
                both = await table.draft(["bob", "cid"], instructions="Be brief.")
                assert [draft.seat for draft in first] == ["bob"]
                assert [draft.seat for draft in both] == [draft.seat for draft in table.drafts] == ["bob", "cid"]
                return await table.finish(both[0])

        council = council_of(table)
        result = await run(council, InTwoSteps())
        assert result.output == "It is 391."
        assert {name: len(seat.requests) for name, seat in council.seats.items()} == {"ann": 0, "bob": 1, "cid": 1}
        assert council.seats["cid"].requests[0].messages[-1].content.endswith("Be brief.")

    async def test_chance_depends_on_seed_name_and_table_alone(self, table):
        drawn: list[tuple[float, ...]] = []

        class Random(Juried):
            async def deliberate(self, table: Table) -> Verdict:
                inner = table.child("inner")
                drawn.append((table.random("a").random(), table.random("b").random(), inner.random("a").random()))
                table.note("drawn")
                return await table.finish((await table.draft())[0])

        results = [await run(council_of(table), Random(), config={"seed": seed}) for seed in ("1", "1", "2")]
        assert drawn[0] == drawn[1] != drawn[2]
        assert len(set(drawn[0])) == 3
        assert "drawn" in results[0].warnings

    async def test_a_child_asks_under_names_of_its_own(self, table):
        names: list[str] = []

        class Nested(Juried):
            async def deliberate(self, table: Table) -> Verdict:
                drafts = await table.draft()
                for seats in (table, table.child("inner"), table.child("inner").child("most")):
                    reply = await seats.ask("ann", "Best?", show=drafts, phase=Phase.JUDGE, round=1)
                    names.append(reply.call)
                return await table.finish(drafts[0])

        await run(council_of(table), Nested())
        assert names == ["judge/ann/1.1", "judge/ann/inner.1.1", "judge/ann/inner.most.1.1"]
