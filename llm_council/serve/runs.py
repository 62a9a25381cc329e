"""Runs behind the endpoint: each has a budget, ends when its client leaves, and is cut off when the server stops."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import anyio
from starlette.types import Message, Receive, Scope, Send

from llm_council._engine.budget import Ledger
from llm_council.council import Council
from llm_council.errors import CouncilError
from llm_council.events import Event, listening
from llm_council.models import Phase, Plan, Status
from llm_council.results import CouncilResult
from llm_council.serve.access import Key
from llm_council.serve.chat import (
    ChatRequest,
    RequestRefused,
    answer_text,
    chunks_end,
    error_body,
    first_chunk,
    refusal_of,
    word_chunk,
)
from llm_council.serve.words import FinalWords

__all__ = ["RunReply", "ServedRun", "Shutdown", "leave_with_client", "raise_if_failed"]

PING: Final = 15.0
"""Seconds of silence after which a stream sends a comment, so that proxies keep the connection."""

SEND_TIMEOUT: Final = 60.0
"""Seconds in which a client must take what was sent; one that reads nothing holds no run for longer."""
_logger = logging.getLogger("llm_council")


class Shutdown:
    """Lets runs go on for some time once the server is told to stop, and then cuts them off.

    Args:
        grace: seconds that runs have to end.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._begun = anyio.Event()
        self._scopes: set[anyio.CancelScope] = set()
        self._is_over = False

    def begin(self) -> None:
        """Start the time of grace; called in the event loop."""
        self._begun.set()

    async def watch(self) -> None:
        """Wait for the stop, and cut off what goes on after the time of grace."""
        await self._begun.wait()
        await anyio.sleep(self._grace)
        self._is_over = True
        for scope in list(self._scopes):
            scope.cancel()

    @contextmanager
    def cutting(self) -> Iterator[anyio.CancelScope]:
        """Return a scope that is cancelled once the time of grace is over."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self._is_over:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)


class ServedRun:
    """The run of one request.

    Args:
        council: the council.
        ask: the request.
        plan: the plan, whose budget has at most the reserved sum.
        options: those of the run.
        key: the key that pays.
        reserved: US dollars that the key has reserved; None if it has no limit.

    Attributes:
        ask: the request.
        plan: the plan.
        result: the result; None until the run has ended, and if there is none.
        error: why there is no result.
    """

    def __init__(
        self,
        council: Council,
        ask: ChatRequest,
        plan: Plan,
        options: Mapping[str, Any],
        key: Key,
        reserved: float | None,
    ) -> None:
        self.ask = ask
        self.plan = plan
        self.result: CouncilResult[Any] | None = None
        self.error: CouncilError | None = None
        self._council = council
        self._options = options
        self._key = key
        self._reserved = reserved
        self._is_settled = False
        self._ledger = Ledger(plan.budget, council._price)

    async def work(self, shutdown: Shutdown, *listeners: Any, deltas: Collection[Phase] = ()) -> None:
        """Run the council; ``result`` or ``error`` is set afterwards. Cancellation passes through."""
        council = self._council
        options: Any = self._options
        with shutdown.cutting() as scope:
            try:
                with listening(*council._listeners, *listeners), council._live_runs.entered():
                    self.result = await council._run(self.plan, options, self._ledger, deltas=deltas)
            except CouncilError as error:
                self.error = error
        if scope.cancelled_caught:
            how = "" if council.config.store is None else f": `council resume {self.plan.run_id}` ends it"
            self.error = RequestRefused(
                f"the server stopped before the run {self.plan.run_id} had ended{how}",
                status=503,
                code="server_stopped",
                kind="server_error",
            )

    def settle(self) -> None:
        """Count what the run cost. Of a price that is unknown, and of a call that was cut off, the estimate counts."""
        if self._is_settled:
            return
        self._is_settled = True
        self._key.end_run()
        known = self.result is not None and self.result.cost.complete
        cost = self.result.cost.usd if known and self.result is not None else None
        self._key.settle(self._reserved, self._ledger.most_usd if cost is None else cost)


async def leave_with_client(receive: Receive, scope: anyio.CancelScope) -> None:
    """Cancel a scope when the client leaves. The body of its request was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def raise_if_failed(result: CouncilResult[Any]) -> None:
    """Raise the error of a run that failed; an abstention is an answer.

    Raises:
        CouncilError: the run failed.
    """
    if not result.success and result.status != Status.ABSTAINED:
        result.raise_for_failure()


class RunReply:
    """A reply that streams the answer of a run while it is written; an application of ASGI.

    Words that come faster than they can be sent go out together. The run is a task beside the one that sends, and
    needs none between them: sse-starlette, which takes an iterator, would need three tasks more for each stream, and
    ends it without a word when the server stops.

    Args:
        run: the run.
        shutdown: cuts it off when the server stops.
        prose: False for an answer in JSON, which arrives whole.
    """

    def __init__(self, run: ServedRun, shutdown: Shutdown, *, prose: bool) -> None:
        self._run = run
        self._shutdown = shutdown
        self._words = FinalWords(prose=prose)
        self._pending: list[str] = []
        self._has_ended = False
        self._changed = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the council, and send its words."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(leave_with_client, receive, group.cancel_scope)
                group.start_soon(self._work)
                with anyio.move_on_after(SEND_TIMEOUT) as limit:
                    await self._send_all(send, limit)
                group.cancel_scope.cancel()
        finally:
            self._run.settle()

    async def _work(self) -> None:
        try:
            await self._run.work(self._shutdown, self._take, deltas=self._words.phases(self._run.plan))
        except Exception:
            _logger.exception("the run %s failed", self._run.plan.run_id)
        finally:
            self._has_ended = True
            self._changed.set()

    def _take(self, event: Event) -> None:
        typed: Any = event
        text = self._words.take(typed)
        if text:
            self._pending.append(text)
            self._changed.set()

    async def _send_all(self, send: Send, limit: anyio.CancelScope) -> None:
        """Send the stream. Each message must be taken before ``limit``, whose deadline moves with each."""

        async def put(message: Message) -> None:
            limit.deadline = anyio.current_time() + SEND_TIMEOUT
            await send(message)
            limit.deadline = float("inf")

        async def put_data(*values: str) -> None:
            body = "".join([f"data: {value}\n\n" for value in values]).encode()
            await put({"type": "http.response.body", "body": body, "more_body": True})

        ask, reply_id = self._run.ask, f"chatcmpl-{self._run.plan.run_id}"
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await put({"type": "http.response.start", "status": 200, "headers": headers})
        await put_data(_json(first_chunk(ask, reply_id)))
        while self._pending or not self._has_ended:
            with anyio.move_on_after(PING):
                await self._changed.wait()
            if not self._changed.is_set():
                await put({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
                continue
            self._changed = anyio.Event()
            if self._pending:
                text = "".join(self._pending)
                self._pending.clear()
                await put_data(_json(word_chunk(ask, reply_id, text)))
        await put_data(*self._end(reply_id))
        await put({"type": "http.response.body", "body": b"", "more_body": False})

    def _end(self, reply_id: str) -> list[str]:
        """Return the data that ends the stream."""
        run = self._run
        try:
            if run.error is not None:
                raise run.error
            if run.result is None:  # a bug, which was logged
                raise RequestRefused("the server failed: its log says how", status=500, kind="server_error")
            raise_if_failed(run.result)
        except CouncilError as error:
            # The status was sent long ago: clients read an error object in the stream.
            return [_json(error_body(refusal_of(error)))]
        rest = "" if run.result.status == Status.ABSTAINED else self._words.rest(answer_text(run.result))
        chunks = [] if not rest else [word_chunk(run.ask, reply_id, rest)]
        return [*map(_json, [*chunks, *chunks_end(run.ask, reply_id, run.result)]), "[DONE]"]


def _json(value: Any) -> str:
    # ASCII alone: some clients take U+0085 and U+2028 for the end of a line.
    return json.dumps(value, separators=(",", ":"))
