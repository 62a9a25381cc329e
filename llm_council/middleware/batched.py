"""Batched: gather concurrent calls, and send them as a vendor's batch job at a share of the price."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from math import inf
from typing import Final

import anyio
import attrs

from llm_council._runtime import call_context, per_loop
from llm_council.errors import Attempt, BatchIncomplete, CouncilError, DeadlineTooShort, InvalidOption
from llm_council.middleware._batch_job import BatchSettings, WaitingCall
from llm_council.middleware._batch_journal import BatchJournal
from llm_council.middleware._batch_queue import BatchQueue
from llm_council.middleware.cache import key_of
from llm_council.middleware.pinned import Pinned
from llm_council.middleware.wrapper import Wrapper
from llm_council.models._attrs import copy_with
from llm_council.models.limits import Timeouts
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call import second_way
from llm_council.providers._call.bounded import cancellable
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ProviderAdapter, call

__all__ = ["Batched"]

SHORTEST: Final = 3600.0
"""Seconds: a call with less time is refused. Vendors promise a batch job within a day; most end within the hour."""

_ON_ITS_WAY: Final = 1.0  # seconds that a call may have lost since its limit was set


class Batched(Wrapper):
    """Gather concurrent calls, send them as one batch job of the vendor, and return to each call its own outcome.

    A batch job costs a share of the direct price (half of it at the vendors that offer one) and may take a day. Calls
    are gathered for ``window`` seconds; the job is sent at once when every run of the councils that wait here waits for
    such calls, so that no further call can come. A call has at least an hour, or is refused before anything is sent.

    The journal is a file of the user's, mode 0600. A job and its calls are written to it before the job is sent, the
    vendor's id when it is known, and the answers when they are read. What the journal holds is not bought again: when
    another process, or another instance, makes an equal call (one with the same key as for ``Cached``), it gets the
    answer of the job that was sent before, and each such answer once. Answers are in it unencrypted, requests as a hash
    alone, keys never. Jobs are forgotten after 30 days.

    A cancelled call cancels its job when no other call needs it. A job that fails, expires or is cancelled fails those
    of its calls that have no answer, with ``BatchIncomplete``: ``Retry`` around this provider sends them again. An
    answer is streamed as one piece. ``extra["batch"]`` of an answer names the vendor's job.

    Args:
        inner: the provider, which offers batch jobs; ``Pinned`` may stand between, and other middleware around.
        journal: the path of the journal. Several processes may share it.
        window: seconds in which calls are gathered for one job.
        most: most calls in one job; the vendor's own limits hold as well.
        clock: returns monotonic seconds.
        sleep: waits for a number of seconds.
        rng: the source of jitter between two looks at a job.

    Attributes:
        price_share: the share of the direct price that a call costs; estimates and budgets count with it.

    Raises:
        InvalidOption: the provider offers no batch jobs, or another argument is invalid.
    """

    _is_own_middleware = True
    _gathers_calls = True

    def __init__(
        self,
        inner: ProviderAdapter,
        *,
        journal: str | os.PathLike[str],
        window: float = 30.0,
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(inner)
        path: object = journal
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise InvalidOption(f"journal: the path of a file, got {path!r:.80}")
        if not 0 <= window < inf:
            raise InvalidOption(f"window: a number of seconds of 0 or more, got {window!r:.80}")
        if type(most) is not int or most < 1:
            raise InvalidOption(f"most: a whole number of 1 or more, got {most!r:.80}")
        model: str | None = None
        adapter = inner
        while isinstance(adapter, Pinned):  # the outermost one names the model last
            model, adapter = adapter.model, adapter.inner
        jobs = adapter.batch_jobs()
        if jobs is None:
            what = "wrap the provider itself, and put other middleware around Batched"
            advice = what if isinstance(adapter, Wrapper) or hasattr(adapter, "providers") else "use it directly"
            raise InvalidOption(f"{adapter.name} offers no batch jobs: {advice}")
        self.capabilities = attrs.evolve(inner.capabilities, streaming=False)  # type: ignore[misc]
        self._timeouts = Timeouts(total=None)  # the limit of a direct call is too short for a job
        self.price_share = jobs.price
        self._model = model
        self._adapter = adapter
        self._identity = inner.cache_identity()
        self._settings = BatchSettings(
            name=self.name,
            jobs=jobs,
            journal=BatchJournal(journal),
            window=float(window),
            most=most,
            clock=clock,
            sleep=sleep,
            rng=rng or random.Random(),
        )

    @cancellable
    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Wait for the outcome of a batch job; a refused schema goes into one more job, in the prompt."""
        self._refuse_short_time(request)
        began = time.monotonic()
        response = await second_way.ask(self._adapter, request, self._from_job)
        if response.attempts:
            return response
        attempt = Attempt(at=0.0, elapsed=time.monotonic() - began, request_id=response.request_id)
        return copy_with(response, attempts=(attempt,))

    async def _from_job(self, request: GenerateRequest) -> GenerateResponse:
        asked = request if self._model is None else copy_with(request, model=self._model)
        place = await self._settings.jobs.prepare(asked)
        queue = await per_loop.get(self, "queue", partial(BatchQueue, self._settings), BatchQueue.aclose)
        key = key_of(asked, self._identity) or uuid.uuid4().hex
        while True:
            waiting = WaitingCall(request=asked, key=key, place=place)
            outcome = await queue.wait(waiting)
            if waiting.is_taken_up and isinstance(outcome, BatchIncomplete):
                continue  # the job of an earlier call brought nothing: this call is sent itself
            if isinstance(outcome, CouncilError):
                raise outcome
            return outcome

    @cancellable
    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the answer as one piece."""
        yield GenerateChunk.whole(await call(self, request))

    async def supports(self, capability: str) -> bool:
        """Return the wrapped provider's answer; streaming is not supported."""
        return capability != "streaming" and await super().supports(capability)

    async def aclose(self) -> None:
        """Close the journal and the wrapped provider; jobs that calls of this event loop wait for go on."""
        await per_loop.aclose(self)
        await self._settings.journal.aclose()
        await super().aclose()

    def _check_deadline(self, seconds: float | None) -> None:
        if seconds is not None and seconds < SHORTEST:
            raise self._too_short(seconds)
        super()._check_deadline(seconds)

    def _refuse_short_time(self, request: GenerateRequest) -> None:
        """Refuse a call that has too little time.

        In a run the run's whole time counts: a late call of a long run may use what is left.
        """
        scope = call_context.current()
        if scope.run_id is not None:
            limits: tuple[float | None, ...] = (scope.allowed,)
            shortest = SHORTEST
        else:
            limits = (request.timeout_seconds, scope.left())
            shortest = SHORTEST - _ON_ITS_WAY
        least = min((limit for limit in limits if limit is not None), default=inf)
        if least < shortest:
            raise self._too_short(least)

    def _too_short(self, seconds: float) -> DeadlineTooShort:
        return DeadlineTooShort(
            f"{self.name} answers by batch jobs, which may take a day, but has {seconds:.4g} s: allow at least"
            f" {SHORTEST:g} s, such as Budget(deadline=86400) or --deadline 86400, or take the provider without batch"
            " jobs"
        )
