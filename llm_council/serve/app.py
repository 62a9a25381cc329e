"""The application: routes, and a council behind them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llm_council.council import Council
from llm_council.errors import CouncilError
from llm_council.models import Budget, Status
from llm_council.results import CouncilResult
from llm_council.serve.access import Access, Key
from llm_council.serve.chat import (
    ChatRequest,
    RequestRefused,
    answer_text,
    chunks_end,
    completion,
    error_body,
    first_chunk,
    lower_limit,
    names_of,
    read_chat,
    refusal_of,
    word_chunk,
)
from llm_council.serve.guard import Guard, refuse
from llm_council.serve.page.routes import page_routes
from llm_council.serve.words import FinalWords
from llm_council.strategies import list_strategies

if TYPE_CHECKING:
    from llm_council.serve.page.site import Page

__all__ = ["MOST_BYTES", "make_app"]

MOST_BYTES: Final = 32 * 2**20
"""The largest body of a request, in which files are base64."""


def make_app(
    council: Council, access: Access, hosts: frozenset[str], grace: float = 30.0, page: Page | None = None
) -> Starlette:
    """Return the application.

    Args:
        council: the council; it is closed when the application ends.
        access: the keys.
        hosts: the values of ``Host`` that are ours, such as ``127.0.0.1:8642``.
        grace: seconds that a running stream has to end when the server is told to stop.
        page: the page for browsers; None serves none.
    """
    built_in = [strategy.name for strategy in list_strategies()]
    models = names_of(list(dict.fromkeys([*built_in, *council.config.strategies])))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            async with nullcontext() if page is None else page.runs.serving():
                yield
        finally:
            with anyio.CancelScope(shield=True):
                await council.aclose()

    async def list_models(request: Request) -> Response:
        access.key_of(request.headers.get("authorization"))
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "llm_council"} for name in models]
        return JSONResponse({"object": "list", "data": rows})

    async def one_model(request: Request) -> Response:
        access.key_of(request.headers.get("authorization"))
        name = request.path_params["name"]
        if name not in models:
            raise RequestRefused(f"there is no council {name!r:.80}", status=404, code="model_not_found", param="model")
        return JSONResponse({"id": name, "object": "model", "created": 0, "owned_by": "llm_council"})

    async def chat(request: Request) -> Response:
        key = access.key_of(request.headers.get("authorization"))
        ask = read_chat(await _read_json(request), models)
        options = _run_options(ask)
        council.plan(ask.task, ask.subagent, **options)  # what is wrong is refused before a stream begins
        reserved = key.reserve(lower_limit(None if ask.budget is None else ask.budget.usd, council.config.budget.usd))
        if reserved is not None:
            options["budget"] = attrs.evolve(
                ask.budget or Budget(deadline=council.config.budget.deadline), usd=reserved
            )
        if ask.stream:
            words = _stream(council, ask, options, key, reserved)
            # Without a period of grace, sse-starlette cuts every stream as soon as the server is told to stop.
            return EventSourceResponse(words, sep="\n", ping=15, shutdown_grace_period=grace)
        result = await _run(request, council, ask, options, key, reserved)
        return JSONResponse(completion(ask, result))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", one_model),
            Route("/v1/chat/completions", chat, methods=["POST"]),
            *(() if page is None else page_routes(page)),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={
            CouncilError: _on_error,
            404: _on_unknown,
            405: _on_unknown,
            ClientDisconnect: _on_gone,
            Exception: _on_bug,
        },
        lifespan=lifespan,
    )


def _run_options(ask: ChatRequest) -> dict[str, Any]:
    """Return the options of the run for a request."""
    options: dict[str, Any] = {
        "context": ask.context,
        "files": ask.files,
        "history": ask.history or None,
        "budget": ask.budget,
        "strategy": ask.strategy,
        "temperature": ask.temperature,
        "max_tokens": ask.max_tokens,
        "metadata": ask.metadata,
    }
    if ask.schema is not None:
        return {**options, "schema": ask.schema}
    # Prose; a role with a schema of its own keeps it.
    return {**options, "output_type": str} if ask.subagent == "advisor" else options


async def _run(
    request: Request,
    council: Council,
    ask: ChatRequest,
    options: Mapping[str, Any],
    key: Key,
    reserved: float | None,
) -> CouncilResult[Any]:
    """Run the council; a client that leaves cancels the run.

    Raises:
        CouncilError: the run failed.
        ClientDisconnect: the client left.
    """
    results: list[CouncilResult[Any]] = []
    failures: list[CouncilError] = []

    async def work() -> None:
        try:
            results.append(await council.arun(ask.task, ask.subagent, **options))
        except CouncilError as error:
            failures.append(error)
        group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            while (await request.receive())["type"] != "http.disconnect":  # the body was read before
                pass
            group.cancel_scope.cancel()
    finally:
        key.settle(reserved, _cost(results))
    if failures:
        raise failures[0]
    if not results:
        raise ClientDisconnect
    _raise_if_failed(results[0])
    return results[0]


async def _stream(
    council: Council, ask: ChatRequest, options: Mapping[str, Any], key: Key, reserved: float | None
) -> AsyncIterator[str]:
    """Yield the data of the events of a stream. Closed by a client that leaves, it cancels the run."""
    words = FinalWords(prose=ask.schema is None and "output_type" in options)
    results: list[CouncilResult[Any]] = []
    reply_id = ""
    try:
        async with council.stream(ask.task, ask.subagent, **options) as events:
            async for event in events:
                if not reply_id:
                    reply_id = f"chatcmpl-{event.run_id}"
                    yield _data(first_chunk(ask, reply_id))
                text = words.take(event)
                if text:
                    yield _data(word_chunk(ask, reply_id, text))
        result = events.result
        results.append(result)
        _raise_if_failed(result)
        rest = "" if result.status == Status.ABSTAINED else words.rest(answer_text(result))
        if rest:
            yield _data(word_chunk(ask, reply_id, rest))
        for chunk in chunks_end(ask, reply_id, result):
            yield _data(chunk)
        yield "[DONE]"
    except CouncilError as error:
        # The status was sent long ago: clients read an error object in the stream.
        yield _data(error_body(refusal_of(error)))
    finally:
        key.settle(reserved, _cost(results))


def _data(value: Any) -> str:
    # ASCII alone: some clients take U+0085 and U+2028 for the end of a line.
    return json.dumps(value, separators=(",", ":"))


def _cost(results: list[CouncilResult[Any]]) -> float | None:
    """Return what a run cost; None if that is unknown, also of one that was cut off."""
    return results[0].cost.usd if results and results[0].cost.complete else None


def _raise_if_failed(result: CouncilResult[Any]) -> None:
    if not result.success and result.status != Status.ABSTAINED:
        result.raise_for_failure()


async def _read_json(request: Request) -> Any:
    """Return the JSON value of a body.

    Raises:
        RequestRefused: it is too large, of another type, or no JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a form of another site could be sent without a question to us
        raise RequestRefused("the body must have the type application/json", status=415)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise RequestRefused(f"the body is larger than {MOST_BYTES // 2**20} MiB", status=413)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RequestRefused("the body is no JSON") from None


async def _on_error(_: Request, error: Exception) -> Response:
    return refuse(refusal_of(error)) if isinstance(error, CouncilError) else Response(status_code=500)


async def _on_bug(_: Request, __: Exception) -> Response:
    # uvicorn writes the traceback to the log of the server; the client gets none of it.
    return refuse(RequestRefused("the server failed: its log says how", status=500, kind="server_error"))


async def _on_unknown(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    words = f"{request.method} {request.url.path:.80} is not served: see /v1/models and /v1/chat/completions"
    return refuse(RequestRefused(words, status=status))


async def _on_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it
