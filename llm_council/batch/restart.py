"""How another process finds the runs of a map again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from llm_council.errors import BudgetExceeded
from llm_council.models import Status, Task
from llm_council.results import CouncilResult

if TYPE_CHECKING:
    from llm_council.store import RunStore, Store

__all__ = ["Restart", "is_stopped"]


@attrs.frozen(kw_only=True)
class Restart:
    """Makes a map take up what an earlier process stored: the ids of its runs follow from the tasks.

    A run that is stored whole is not repeated, and one that was interrupted goes on.

    Attributes:
        run_id: returns the id of a task's run, the same in every process.
        stored: ids of the runs that were stored when the map began: the store is asked for no others.
        retries_failed: True makes the runs that are stored as failed once more; False yields their stored results.
        turn: held by a run while it opens the store.
    """

    run_id: Callable[[Task], str]
    stored: Collection[str] = frozenset()
    retries_failed: bool = False
    # A file of SQLite has one writer at a time: many that wait for it at once would give up.
    turn: anyio.Lock = attrs.field(init=False, factory=anyio.Lock)

    async def find(self, store: Store | RunStore, run_id: str) -> tuple[str, bool]:
        """Return the id of the run to make for a task, and whether it is stored, so that it goes on.

        A failed run that is made once more goes on if some of its calls failed: the others are not paid again. If all
        were answered, as where no answer met the schema, it would fail in the same way: then a new run begins, whose
        id ends with its number.
        """
        if run_id not in self.stored:
            return run_id, False
        latest, number = run_id, 2
        while f"{run_id}-{number}" in self.stored:
            latest = f"{run_id}-{number}"
            number += 1
        if self.retries_failed:
            async with self.turn:
                run = await store.show(latest)
            if run.info.status == Status.FAILED and all(call.state == "answered" for call in run.calls):
                return f"{run_id}-{number}", False
        return latest, True

    def keeps(self, result: CouncilResult[Any]) -> bool:
        """Return True if the stored result of a failed run is its last."""
        return result.status == Status.FAILED and not self.retries_failed and not is_stopped(result)


def is_stopped(result: CouncilResult[Any]) -> bool:
    """Return True if the budget of the map, and not the run itself, is the reason why there is no answer."""
    errors = (result.error, *result.errors.values())
    return not result.success and any(isinstance(one, BudgetExceeded) and one.scope == "map" for one in errors)
