"""``Auto``: votes where answers can be counted, and lets a chair write where they cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from llm_council.models import AnswerKind
from llm_council.models._attrs import as_tuple, strict_init
from llm_council.strategies._answer_form import form_of
from llm_council.strategies.base import Roster, Steps, Strategy, Table, Verdict
from llm_council.strategies.poll import Poll
from llm_council.strategies.single import Single
from llm_council.strategies.synthesize import Synthesize

__all__ = ["Auto"]


@strict_init
@attrs.frozen(kw_only=True)
class Auto(Strategy):
    """Choose by the schema: poll what can be counted, and synthesise prose and free objects. The default strategy.

    Numbers, yes or no, listed values, and the parts of an object that ``vote_on`` names are polled: a vote alone
    reaches most of the gain of a debate among models (arXiv 2508.17536). A council of one seat answers alone
    (``Single``). The plan's notes say what was chosen, and why.

    Attributes:
        vote_on: parts of the answer that are compared, as paths: ``("$.verdict",)``.
    """

    name: ClassVar[str] = "auto"

    vote_on: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)

    def plan(self, roster: Roster) -> Steps:
        """Plan what the chosen strategy does."""
        chosen, why = self._choose(roster.schema, len(roster.seats))
        steps = chosen.plan(roster)
        notes = [f"auto chose '{chosen.name}': {why}", *steps.notes]
        if roster.chair is not None and isinstance(chosen, Poll):
            notes.append(f"a poll needs no chair: {roster.chair} answers as the other seats do")
        return attrs.evolve(steps, notes=notes)

    async def deliberate(self, table: Table) -> Verdict:
        """Do what the chosen strategy does."""
        chosen, _ = self._choose(table.plan.schema, len(table.seats))
        return await chosen.deliberate(table)

    def _choose(self, schema: Mapping[str, Any] | None, seats: int) -> tuple[Strategy, str]:
        """Return the strategy and the reason for it."""
        form = form_of(schema, self.vote_on)
        if seats == 1:
            return Single(), "there is one seat"
        if form.kind == AnswerKind.TEXT:
            what = "prose" if schema is None else "free objects"
            return Synthesize(), f"{what} cannot be counted"
        return Poll(vote_on=self.vote_on), f"{form.subject} can be counted"
