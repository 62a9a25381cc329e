"""The application: routes, and a council behind them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
import attrs
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llm_council import pricing
from llm_council.council import Council
from llm_council.errors import CouncilError
from llm_council.results import CouncilResult
from llm_council.serve.access import Access
from llm_council.serve.chat import ChatRequest, RequestRefused, completion, lower_limit, names_of, read_chat, refusal_of
from llm_council.serve.guard import Guard, refuse
from llm_council.serve.page.routes import page_routes
from llm_council.serve.runs import RunReply, ServedRun, Shutdown, leave_with_client, raise_if_failed
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
        grace: seconds that runs have to end once ``app.state.shutdown.begin`` was called.
        page: the page for browsers; None serves none.
    """
    built_in = [strategy.name for strategy in list_strategies()]
    models = names_of(list(dict.fromkeys([*built_in, *council.config.strategies])))

    shutdown = Shutdown(grace)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(shutdown.watch)
                group.start_soon(anyio.to_thread.run_sync, warm_up, council)  # does not delay the start
                async with nullcontext() if page is None else page.runs.serving():
                    yield
                group.cancel_scope.cancel()
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
        # What is wrong is refused before a stream begins.
        plan, all_options = await council._prepare(ask.task, ask.subagent, **options)
        most = lower_limit(None if ask.budget is None else ask.budget.usd, council.config.budget.usd)
        key.begin_run()
        try:
            reserved = key.reserve(most)
        except RequestRefused:
            key.end_run()
            raise
        if reserved is not None:
            plan = attrs.evolve(plan, budget=attrs.evolve(plan.budget, usd=reserved))
        run = ServedRun(council, ask, plan, all_options, key, reserved)
        if ask.stream:
            reply: Any = RunReply(run, shutdown, prose=ask.schema is None and "output_type" in options)
            return reply  # type: ignore[no-any-return]  # Starlette calls it as any application
        return JSONResponse(completion(ask, await _answer(request, run, shutdown)))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    app = Starlette(
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
    app.state.shutdown = shutdown
    return app


def warm_up(council: Council) -> None:
    """Load what the first run of a council would load: it takes a second, in which a client waits."""
    with suppress(CouncilError):  # the first request will say what is wrong
        council.plan("task")
        if pricing.must_load(council._seating.providers.values()):
            pricing.load()
    for name in ("_engine.run", "_schema.typed", "results.plain", "strategies.synthesize"):
        import_module(f"llm_council.{name}")


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


async def _answer(request: Request, run: ServedRun, shutdown: Shutdown) -> CouncilResult[Any]:
    """Run the council, and return the result; a client that leaves cancels the run.

    Raises:
        CouncilError: the run failed.
        ClientDisconnect: the client left.
    """

    async def work() -> None:
        await run.work(shutdown)
        group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(leave_with_client, request.receive, group.cancel_scope)
            group.start_soon(work)
    finally:
        run.settle()
    if run.error is not None:
        raise run.error
    if run.result is None:
        raise ClientDisconnect
    raise_if_failed(run.result)
    return run.result


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
