"""The stream of a run: what changes on its page, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from llm_council.serve.page.running import PageRun

__all__ = ["stream"]

_MOST_DIGITS = 12


def stream(request: Request, run: PageRun) -> Response:
    """Return the stream of a run.

    A page says in its address which message it shows already; a browser that connects again, which one it has had.
    """
    given = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    after = int(given) if given.isascii() and given.isdigit() and len(given) <= _MOST_DIGITS else 0

    async def messages() -> AsyncIterator[ServerSentEvent]:
        async for message in run.follow(after):
            yield ServerSentEvent(data=message.data, event=message.kind, id=str(message.number), sep="\n")

    return EventSourceResponse(messages(), ping=15)
