"""``Single``: one seat answers alone."""

from __future__ import annotations

from typing import ClassVar

import attrs

from llm_council.errors import InvalidOption
from llm_council.models import Phase
from llm_council.models._attrs import strict_init
from llm_council.strategies._default_seats import default_drafters, resting
from llm_council.strategies.base import Roster, Steps, Strategy, Table, Verdict

__all__ = ["Single"]


@strict_init
@attrs.frozen(kw_only=True)
class Single(Strategy):
    """Ask one seat, in the form of the schema if there is one: the baseline that a council must beat.

    The seat is the chair that the caller names, else the first one. If it fails, the next seat answers.
    """

    name: ClassVar[str] = "single"

    def plan(self, roster: Roster) -> Steps:
        """Choose the seat."""
        if (roster.quorum or 1) > 1:
            raise InvalidOption(
                f"the strategy 'single' asks one seat, so a quorum of {roster.quorum} cannot be reached: lower it, or"
                " choose another strategy"
            )
        names = roster.names
        chosen = default_drafters(roster, (roster.chair or names[0],))[:1]
        has_schema = roster.schema is not None
        others = "; the others replace it if it fails" if len(names) > 1 else ""
        return Steps(
            phases=(Phase.DRAFT, *roster.repairs),
            most_calls=len(names) + (roster.most_writing_calls if has_schema else 0),
            drafters=chosen,
            drafts_by_schema=has_schema,
            chairs=(*chosen, *resting(roster, chosen)),
            notes=(f"{chosen[0]} answers alone{others}",),
        )

    async def deliberate(self, table: Table) -> Verdict:
        """Ask the seat."""
        (draft, *_) = await table.draft()
        return await table.finish(draft)
