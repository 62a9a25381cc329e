"""Simulated seats: what they draw depends on the world, the question and the seat alone."""

from __future__ import annotations

import pytest

from llm_council.errors import InvalidOption
from llm_council.models import GenerateRequest
from llm_council.testing import SimulatedSeat, World


def asked(item: int, seat: str = "ann", phase: str = "draft", text: str = "", **metadata: str) -> GenerateRequest:
    return GenerateRequest(prompt=f"What is item {item}? {text}", metadata={"seat": seat, "phase": phase, **metadata})


@pytest.mark.anyio
class TestSimulatedSeat:
    async def test_a_seat_says_the_same_of_a_question_again_in_any_order(self) -> None:
        one, other = (SimulatedSeat(0.5, world=World(options=4)) for _ in range(2))
        said = [(await one.generate(asked(item))).text for item in range(30)]
        assert said == [(await other.generate(asked(item))).text for item in range(29, -1, -1)][::-1]
        assert len(set(said)) == 4
        assert one.calls == 30

    async def test_seats_and_samples_differ(self) -> None:
        seat = SimulatedSeat(0.5, world=World(options=4))
        said = {
            key: [(await seat.generate(asked(item, key[0], sample=key[1]))).text for item in range(40)]
            for key in (("ann", "1"), ("bob", "1"), ("ann", "2"))
        }
        assert len({tuple(texts) for texts in said.values()}) == 3

    @pytest.mark.parametrize(("accuracy", "right"), [(1.0, 50), (0.0, 0)])
    async def test_a_seat_that_is_always_right_or_wrong(self, accuracy: float, right: int) -> None:
        world = World(options=3, correlation=0.5)
        seat = SimulatedSeat(accuracy, world=world)
        said = [(await seat.generate(asked(item))).text for item in range(50)]
        assert sum(text == f"ANSWER: {world.right_answer(item)}" for item, text in enumerate(said)) == right

    async def test_seats_that_make_the_same_mistake_agree_on_it(self) -> None:
        world = World(options=9, same_mistake=1.0)
        seat = SimulatedSeat(0.0, world=world)
        for item in range(20):
            said = {(await seat.generate(asked(item, name))).text for name in ("ann", "bob", "cid")}
            assert len(said) == 1

    async def test_a_judge_scores_texts_by_whether_they_are_right(self) -> None:
        world = World()
        right = world.right_answer(7)
        texts = f"[[[ x Text A\nANSWER: {1 - right}\nx ]]]\n[[[ x Text B\nANSWER: {right}\nx ]]]"
        judge = SimulatedSeat(0.5, world=world)
        scores = await judge.generate(asked(7, phase="judge", text=f"\n{texts}\n"))
        assert scores.text == "SCORE A: 3\nSCORE B: 9"
        better = await judge.generate(asked(7, phase="judge", text=f"\n{texts}\nEnd with BETTER:"))
        assert better.text == "BETTER: B"


def test_wrong_options_are_refused() -> None:
    for options in ({"options": 1}, {"correlation": 2}, {"same_mistake": -1}):
        with pytest.raises(InvalidOption):
            World(**options)


def test_the_easiness_of_items_has_the_mean_of_the_accuracy_and_spreads_with_the_correlation() -> None:
    items = range(20_000)
    drawn = [World(correlation=0.3).easiness(item, 0.7) for item in items]
    mean = sum(drawn) / len(drawn)
    spread = sum((one - mean) ** 2 for one in drawn) / len(drawn)
    assert mean == pytest.approx(0.7, abs=0.01)
    assert spread / (0.7 * 0.3) == pytest.approx(0.3, abs=0.02)
    assert World().easiness(3, 0.7) == 0.7
