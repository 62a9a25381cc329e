"""``Rank``: the seats rank each other's drafts, and the winning draft is the answer."""

from __future__ import annotations

from typing import ClassVar

import attrs

from llm_council.errors import InvalidOption
from llm_council.models import Phase
from llm_council.models._attrs import strict_init
from llm_council.strategies._default_seats import default_chairs, default_drafters
from llm_council.strategies.base import Roster, Steps, Strategy, Table, Verdict

__all__ = ["Rank"]

_SEATS = 3  # with fewer seats, each reviewer sees one draft, and there is nothing to rank


@strict_init
@attrs.frozen(kw_only=True)
class Rank(Strategy):
    """Draft, rank the drafts of others by the Borda count, and return the winning draft unchanged.

    Rankings are cancelled once the leader cannot be overtaken. With a schema, the author of the winning draft brings it
    into that form. Also known as ``vote``.
    """

    name: ClassVar[str] = "rank"

    def plan(self, roster: Roster) -> Steps:
        """Let every seat draft and rank."""
        names = roster.names
        if len(names) < _SEATS:
            raise InvalidOption(
                f"the strategy 'rank' needs {_SEATS} seats or more to rank drafts, got {len(names)}: add seats, or"
                " choose another strategy"
            )
        drafters = default_drafters(roster, names)
        # Without a schema, nobody writes an answer: the winning draft is it.
        writes = (Phase.SYNTHESISE,) if roster.schema is not None else ()
        return Steps(
            phases=(Phase.DRAFT, Phase.RANK, *writes, *roster.repairs),
            most_calls=2 * len(names) + (roster.most_writing_calls if writes else 0),
            drafters=drafters,
            reviewers=names,
            chairs=default_chairs(roster, drafters),
            chair_by_rank=True,
            notes=("all seats draft and rank; there is no chair",),
        )

    async def deliberate(self, table: Table) -> Verdict:
        """Draft, rank and finish the winning draft."""
        await table.draft_and_review(Phase.RANK, enough=table.is_decided)
        winner = table.ranking().order[0]
        (draft,) = [draft for draft in table.drafts if draft.seat == winner]
        return await table.finish(draft)
