"""``Synthesize``: one seat writes the answer from drafts and reviews of the others."""

from __future__ import annotations

from typing import ClassVar

import attrs

from llm_council.models import Phase
from llm_council.models._attrs import strict_init
from llm_council.strategies._compared import with_answers_of_drafts
from llm_council.strategies._default_seats import default_chairs, default_drafters, resting
from llm_council.strategies.base import Roster, Steps, Strategy, Table, Verdict

__all__ = ["Synthesize"]

_SEATS_FOR_PURE_CHAIR = 3  # with fewer seats, the chair drafts too


@strict_init
@attrs.frozen(kw_only=True)
class Synthesize(Strategy):
    """Draft, criticise the drafts of others, and let the chair write the answer from drafts and critiques.

    - Three seats or more: the chair is the caller's choice or the last seat, and does not draft; the others draft. All
      seats criticise the drafts of others, the chair too: with two drafts only the chair can compare both.
    - Two seats: both draft, and each criticises the other's draft.
    - One seat: it drafts, and finishes its own answer; the critique is skipped.

    If no chair is named and all seats draft, the author of the best-ranked draft takes the chair; the run's seed breaks
    ties. The chair drafts, too, if the quorum needs its draft.
    """

    name: ClassVar[str] = "synthesize"

    def plan(self, roster: Roster) -> Steps:
        """Choose the chair, and let the other seats draft."""
        names = roster.names
        drafters = default_drafters(roster, self._default_drafters(roster))
        chairs = default_chairs(roster, drafters)
        by_rank = roster.chair is None and not resting(roster, drafters)
        notes = [_note(names, chairs[0], by_rank=by_rank, rests=chairs[0] not in drafters)]
        reviewers = names if len(names) > 1 else ()
        if reviewers and not roster.critique:
            reviewers = ()
            notes.append(f"{roster.subagent} goes without a critique")
        return Steps(
            phases=(Phase.DRAFT, *((Phase.CRITIQUE,) if reviewers else ()), Phase.SYNTHESISE, *roster.repairs),
            most_calls=len(names) + len(reviewers) + roster.most_writing_calls,
            drafters=drafters,
            reviewers=reviewers,
            chairs=chairs,
            chair_by_rank=by_rank,
            notes=notes,
        )

    def _default_drafters(self, roster: Roster) -> tuple[str, ...]:
        names = roster.names
        if len(names) < _SEATS_FOR_PURE_CHAIR or (roster.quorum or 0) >= len(names):
            return names
        chair = roster.chair or names[-1]
        return tuple(name for name in names if name != chair)

    async def deliberate(self, table: Table) -> Verdict:
        """Draft, review and synthesise."""
        if not table.plan.reviewers:
            for note in table.plan.notes:  # that nobody checks the answer
                table.note(note)
        await table.draft_and_review()
        return with_answers_of_drafts(table, await table.synthesise(), "the chair")


def _note(names: tuple[str, ...], chair: str, *, by_rank: bool, rests: bool) -> str:
    if len(names) == 1:
        return "one seat: nobody else can review its draft, so the critique is skipped"
    if by_rank:
        return "the author of the best-ranked draft takes the chair; the run's seed breaks ties"
    return f"{chair} takes the chair and {'does not draft' if rests else 'drafts too'}"
