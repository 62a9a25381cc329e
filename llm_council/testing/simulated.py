"""Simulated seats: models of known accuracy, for tests of strategies against closed forms.

A question is an item of a ``World``, written "item 17" somewhere in the task. Its right answer, how hard it is, and
what each seat says are drawn from the world's seed, the item and the seat's name: the same in every run and order.
"""

from __future__ import annotations

import re
from random import Random
from typing import ClassVar

import attrs

from llm_council.models import Cost, CostSource, GenerateRequest, GenerateResponse, ProviderCapabilities
from llm_council.models._attrs import fraction, is_int, must_be, provider_name, strict_init
from llm_council.providers.base import ProviderAdapter

__all__ = ["SimulatedSeat", "World"]

_ITEM = re.compile(r"\bitem (\d+)\b")
_TEXT = re.compile(r"^\[\[\[ \w+ Text ([A-Z]{1,3})[^\n]*\n(.*?)\n\w+ \]\]\]$", re.MULTILINE | re.DOTALL)
_SAID = re.compile(r"ANSWER: (\d+)")

_options = must_be("a whole number of 2 or more", lambda value: is_int(value) and value >= 2)


@strict_init
@attrs.frozen(kw_only=True)
class World:
    """Questions with known answers, each a number below ``options``.

    Attributes:
        seed: decides everything that is drawn.
        options: how many answers a question has; one is right.
        correlation: how far seats are right on the same items: 0 for independent seats. Above 0, an item's easiness is
            drawn from a beta distribution around the seat's accuracy, so that two seats of one accuracy have this
            correlation (beta-binomial). Below 1.
        same_mistake: probability that a wrong answer is the one that tempts everybody; else it is any wrong one.
    """

    seed: str = "a world"
    options: int = attrs.field(default=2, validator=_options)
    correlation: float = attrs.field(default=0.0, validator=fraction)
    same_mistake: float = attrs.field(default=0.0, validator=fraction)

    def right_answer(self, item: int) -> int:
        """Return the right answer of an item."""
        return Random(f"{self.seed}/{item}/right").randrange(self.options)

    def easiness(self, item: int, accuracy: float) -> float:
        """Return the probability that a seat of this accuracy is right on an item."""
        if not self.correlation or accuracy in (0, 1):
            return accuracy
        spread = 1 / self.correlation - 1
        return Random(f"{self.seed}/{item}/easiness").betavariate(accuracy * spread, (1 - accuracy) * spread)

    def wrong_answer(self, item: int, chance: Random) -> int:
        """Return a wrong answer."""
        wrong = [answer for answer in range(self.options) if answer != self.right_answer(item)]
        if chance.random() < self.same_mistake:
            return Random(f"{self.seed}/{item}/tempting").choice(wrong)
        return chance.choice(wrong)


class SimulatedSeat(ProviderAdapter):
    """A seat that is right with a known probability, and judges and revises with known errors.

    Args:
        accuracy: probability that its draft is right.
        world: the questions; seats of one council share it.
        accepts_right: probability that it gives a right text a good score (9), and not a bad one (3); drawn for each
            text.
        accepts_wrong: the same for a wrong text.
        prefers_right: probability that it finds the right one of two texts the better one.
        prefers_first: added to that probability where the right text is shown first, and taken from it where it is
            shown second.
        gives_in: probability that it revises a right answer to a wrong one.
        learns: probability that it revises a wrong answer to the right one.
        usd: what each of its answers costs, in US dollars.
        name: the provider's name.

    Attributes:
        calls: how often it was asked.
    """

    name: ClassVar[str] = "simulated"
    capabilities: ClassVar[ProviderCapabilities] = ProviderCapabilities(structured_output=True)

    def __init__(
        self,
        accuracy: float,
        *,
        world: World = World(),
        accepts_right: float = 1.0,
        accepts_wrong: float = 0.0,
        prefers_right: float = 1.0,
        prefers_first: float = 0.0,
        gives_in: float = 0.0,
        learns: float = 0.0,
        usd: float = 0.0,
        name: str = "simulated",
    ) -> None:
        self.name = provider_name(name)  # type: ignore[misc]  # an instance may have a name of its own
        self.calls = 0
        self._accuracy = accuracy
        self._world = world
        self._accepts = {True: accepts_right, False: accepts_wrong}
        self._prefers_right = prefers_right
        self._prefers_first = prefers_first
        self._gives_in = gives_in
        self._learns = learns
        self._cost = Cost(usd=usd, source=CostSource.REPORTED, complete=True)

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Answer a draft, a revision, or the question of a judge."""
        self.calls += 1
        asked = "\n".join(turn.text for turn in request.turns())
        found = _ITEM.search(asked)
        item = int(found[1]) if found else 0
        return GenerateResponse(text=self._say(request, asked, item), model=request.model, cost=self._cost)

    def _say(self, request: GenerateRequest, asked: str, item: int) -> str:
        seat, phase = str(request.metadata.get("seat", "")), str(request.metadata.get("phase", "draft"))
        sample = str(request.metadata.get("sample", (request.sample or 0) + 1))
        if phase == "judge":
            return self._judge(asked, item, seat)
        answer = self._draft(item, seat, sample)
        if phase == "revise":
            answer = self._revise(answer, item, seat)
        return str(answer) if request.structured_output is not None else f"ANSWER: {answer}"

    def _draft(self, item: int, seat: str, sample: str) -> int:
        world = self._world
        chance = Random(f"{world.seed}/{item}/{seat}/{sample}")
        if chance.random() < world.easiness(item, self._accuracy):
            return world.right_answer(item)
        return world.wrong_answer(item, chance)

    def _revise(self, answer: int, item: int, seat: str) -> int:
        world = self._world
        chance = Random(f"{world.seed}/{item}/{seat}/revise")
        if answer == world.right_answer(item):
            return world.wrong_answer(item, chance) if chance.random() < self._gives_in else answer
        return world.right_answer(item) if chance.random() < self._learns else answer

    def _judge(self, asked: str, item: int, seat: str) -> str:
        right = self._world.right_answer(item)
        shown = [(label, _SAID.findall(text)[-1:] == [str(right)]) for label, text in _TEXT.findall(asked)]
        if "BETTER:" not in asked:
            chance = Random(f"{self._world.seed}/{item}/{seat}/score")
            accepted = {label: chance.random() < self._accepts[is_right] for label, is_right in shown}
            return "\n".join(f"SCORE {label}: {9 if accepted[label] else 3}" for label in accepted)
        (first, first_is_right), (second, second_is_right) = shown[0], shown[-1]
        chance_of_first = 0.5 + self._prefers_first
        if first_is_right != second_is_right:
            win = self._prefers_right if first_is_right else 1 - self._prefers_right
            chance_of_first = win + self._prefers_first
        texts = [text for _, text in _TEXT.findall(asked)]
        drawn = Random(f"{self._world.seed}/{item}/{seat}/{texts}").random()
        return f"BETTER: {first if drawn < chance_of_first else second}"
