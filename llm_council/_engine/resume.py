"""Runs of the store once more: one that was interrupted is resumed, one that ended is told again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import anyio
import sniffio
from anyio.to_thread import run_sync

from llm_council import _engine, pricing
from llm_council.errors import AdapterFailed, StoreError
from llm_council.models import GenerateRequest, GenerateResponse, Plan, ProviderCapabilities, Status
from llm_council.providers.base import ProviderAdapter
from llm_council.results import CouncilResult

if TYPE_CHECKING:
    from llm_council.store import Store
    from llm_council.store._recall import Past

__all__ = ["replay", "resume"]


async def resume(store: Store, run_id: str, seat: Callable[[Plan], Mapping[str, ProviderAdapter]]) -> CouncilResult:
    """Go on with a run where its process left it; the result of one that has an answer is returned as it is.

    Args:
        store: where it is stored.
        run_id: the run.
        seat: returns what sits in each seat of a plan, and refuses what cannot work.
    """
    stored = await store.show(run_id)
    if stored.result is not None and stored.info.status in (Status.COMPLETED, Status.DEGRADED):
        return CouncilResult.from_dict(stored.result)
    adapters = seat(stored.plan)
    journal = await store._claimed(run_id)
    return await _engine.run_plan(stored.plan, adapters, price=pricing.price_of(adapters), journal=journal)


async def replay(store: Store, run_id: str) -> CouncilResult:
    """Conduct a stored run again, every answer and every time taken from its journal; nothing is asked or written.

    It always runs in a loop of asyncio, which lets tasks take turns in one order; trio shuffles them on purpose.
    """
    past = await store._past(run_id)
    if past.status in (None, Status.CANCELLED):
        how = "was cancelled" if past.status else "has not ended"
        raise StoreError(f"the run {run_id} {how}: there is no result to replay; resume it", kind="diverged")
    retold = partial(_retold, store, past)
    if sniffio.current_async_library() == "asyncio":
        return await retold()
    return await run_sync(partial(anyio.run, retold), abandon_on_cancel=True)


async def _retold(store: Store, past: Past) -> CouncilResult:
    journal = store._retold(past)
    seats = {seat.name: _Nobody() for seat in past.plan.seats}
    with journal.scope:
        return await _engine.run_plan(past.plan, seats, journal=journal)
    raise journal.fault or StoreError(f"the run {past.plan.run_id} could not be replayed", kind="diverged")


class _Nobody(ProviderAdapter):
    """What sits in a seat whose answers are all in the journal."""

    name = "nobody"
    capabilities = ProviderCapabilities()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        raise AdapterFailed("a replay asks nobody")
