"""The routes of the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import python_multipart  # noqa: F401 - Starlette reads forms with it, and misses it only at the first one
from anyio import to_thread
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from llm_council.council import Council
from llm_council.errors import CouncilError, InvalidOption, StoreError
from llm_council.errors._secrets import redact
from llm_council.errors._visible import visible
from llm_council.results import CouncilResult
from llm_council.serve.access import Key
from llm_council.serve.chat import RequestRefused, refusal_of
from llm_council.serve.page.ask import Form, council_with, form_values, read_form, run_options, seats_of_form
from llm_council.serve.page.board import Board
from llm_council.serve.page.live import stream
from llm_council.serve.page.parts import result_values, shown_words
from llm_council.serve.page.running import RESUMABLE, PageRun, Runs
from llm_council.serve.page.session import CSRF_FIELD, Session
from llm_council.serve.page.templating import STATIC, respond
from llm_council.serve.server import Serving
from llm_council.store import RunStore, Store, StoredRun, open_store

__all__ = ["Page"]

MOST_BYTES = 32 * 2**20
"""The largest form, with its files."""

_TITLE = 140  # characters of a task that are the title of its page
_MOST_TEXT = 4 * 2**20  # bytes of a field
_MOST_FIELDS = 1000

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
Receiver: TypeAlias = Callable[[Request, FormData], Awaitable[Response]]

_TITLES = {
    400: "That does not work",
    401: "The token is missing",
    403: "Refused",
    404: "Not found",
    409: "That does not work now",
    413: "Too large",
    429: "Too much at once",
    503: "The server is stopping",
}


class _InMemory(MultiPartParser):
    """Keeps files in memory: the server writes nothing but its store."""

    spool_max_size = MOST_BYTES


class Page:
    """The page of a council.

    Args:
        council: the council.
        owner: the key whose token opens the page, and whose budget pays.
        session: who may use it.
        grace: seconds that runs have to end when the server stops.
        evaluations: the folder of reports of evaluations; None shows none.
    """

    def __init__(
        self, council: Council, owner: Key, session: Session, grace: float, evaluations: Path | None = None
    ) -> None:
        self.council = council
        self.owner = owner
        self.session = session
        self.evaluations = evaluations
        self.runs = Runs(council, owner, grace, session.csrf)

    @classmethod
    def of_server(
        cls, council: Council, owner: Key, serving: Serving, port: int, evaluations: Path | None = None
    ) -> Page:
        """Return the page of a server that listens on a port."""
        is_secure = serving.scheme == "https" or serving.behind_proxy
        return cls(council, owner, Session(owner, port=port, is_secure=is_secure), serving.grace, evaluations)

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/", self._open_or(self.show_form)),
            Route("/runs", self.post(self.start), methods=["POST"]),
            Route("/runs/{run}", self.get(self.show_run)),
            Route("/runs/{run}/events", self.get(self.events)),
            Route("/runs/{run}/cancel", self.post(self.cancel), methods=["POST"]),
            Route("/runs/{run}/resume", self.post(self.resume), methods=["POST"]),
        ]

    # Guards

    def get(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that answers the owner's browser alone, and shows errors as a page."""

        async def checked(request: Request) -> Response:
            is_known = False
            try:
                self.session.check(request)
                is_known = True
                return await endpoint(request)
            except CouncilError as error:
                return self.refuse(error, is_known=is_known)

        return checked

    def post(self, receiver: Receiver) -> Endpoint:
        """Return an endpoint that takes the forms of this page alone."""

        async def read(request: Request) -> Response:
            data = await _read_form(request)
            try:
                self.session.check_form(request, data.get(CSRF_FIELD))
                return await receiver(request, data)
            finally:
                await data.close()

        return self.get(read)

    def _open_or(self, endpoint: Endpoint) -> Endpoint:
        """Let a browser in that brings the token in its address, and send it to the address without the token."""
        checked = self.get(endpoint)

        async def opened(request: Request) -> Response:
            token = request.query_params.get("token")
            if token is None:
                return await checked(request)
            if not self.session.is_token(token):
                return self.refuse(
                    RequestRefused("The token is that of another server, or of an earlier start.", status=401)
                )
            response = RedirectResponse("/", status_code=303)
            self.session.open(response)
            return response

        return opened

    def refuse(self, error: CouncilError, *, is_known: bool = False) -> Response:
        """Return the page of an error."""
        refused = refusal_of(error)
        title = _TITLES.get(refused.status, "It failed")
        words = str(refused)
        text = f"{words[:1].upper()}{words[1:]}{'' if words.endswith('.') else '.'}"
        return self.respond("message.html", refused.status, title=title, text=text, is_known=is_known)

    def respond(
        self, template: str, status: int = 200, here: str = "", *, is_known: bool = True, **values: Any
    ) -> Response:
        """Return a page.

        Args:
            template: its template.
            status: the HTTP status, which the template sees too.
            here: the entry of the menu that is this page.
            is_known: False for a browser without the token, which sees no menu.
            **values: further variables of the template.
        """
        shared = {
            "here": here,
            "is_known": is_known,
            "has_evaluations": self.evaluations is not None,
            "csrf": self.session.csrf,
        }
        return respond(template, status, **shared, **values)

    # Ask

    async def show_form(self, request: Request) -> Response:
        """Show the form; with ``?again=RUN``, filled with what that run was asked."""
        again = request.query_params.get("again")
        if again:
            return self._form(Form.of_plan(await self.plan_of(again), self.council))
        return self._form(Form(seats=self.council.providers))

    def _form(self, form: Form, error: CouncilError | None = None) -> Response:
        status, text = (200, "") if error is None else (refusal_of(error).status, str(refusal_of(error)))
        return self.respond("ask.html", status, "ask", error=text, **form_values(form, self.council))

    async def start(self, request: Request, data: FormData) -> Response:
        """Start the run of a form, and send the browser to its page."""
        form = Form()
        try:
            form = await read_form(data)
            run = await self._start(form)
        except CouncilError as error:
            if form.same_seats:  # a follow-up, which is asked on the page of its run
                raise
            return self._form(form, error)
        return RedirectResponse(f"/runs/{run.run_id}", status_code=303)

    async def _start(self, form: Form) -> PageRun:
        role, options = run_options(form, self.council)
        if form.follows:
            options["history"] = await self._answer_of(form.follows)
        if form.follows and form.same_seats:
            specs = (await self.plan_of(form.follows)).seats
        else:
            specs = seats_of_form(form, self.council)
        council = council_with(self.council, specs)
        return await self.runs.ask(council, form.task, role, options)

    async def _answer_of(self, run_id: str) -> CouncilResult[Any]:
        run = self.runs.find(run_id)
        if run is not None and run.result is not None:
            return run.result
        stored = await self.stored(run_id)
        if stored.result is None:
            raise RequestRefused("that run has no answer yet: wait for its end, or resume it", status=409)
        return CouncilResult.from_dict(stored.result)

    # One run

    async def show_run(self, request: Request) -> Response:
        """Show a run: one that goes on, one that has ended, or a stored one."""
        run_id = request.path_params["run"]
        run = self.runs.find(run_id)
        if run is not None:
            if run.ended is None:  # at once: it must not show more than its last message
                return self._run(run.run_id, run.board, None, None, is_live=True, after=run.last)
            return await to_thread.run_sync(self._run, run.run_id, run.board, run.result, run.error)
        stored = await self.stored(run_id)
        if stored.info.run_id != run_id:
            return RedirectResponse(f"/runs/{stored.info.run_id}", status_code=303)
        if stored.result is not None:
            result: CouncilResult[Any] = CouncilResult.from_dict(stored.result)
            board = Board.of_result(result)
            board.has_answer, board.can_resume = result.success, stored.info.status in RESUMABLE
            return await to_thread.run_sync(self._run, run_id, board, result, None)
        calls = stored.info.answered
        board = Board(plan=stored.plan, status=stored.info.status, calls=calls, is_usd_complete=False)
        board.can_resume = stored.info.status in RESUMABLE
        error = None
        if board.can_resume:
            error = f"The run was cut off after {calls} call{'' if calls == 1 else 's'}. It can be resumed."
        elif board.status == "running":
            error = "The run goes on in another program. Its answer is here once it has ended."
        return self._run(run_id, board, None, error)

    def _run(
        self,
        run_id: str,
        board: Board,
        result: CouncilResult[Any] | None,
        error: str | None,
        *,
        is_live: bool = False,
        after: int = 0,
    ) -> Response:
        plan = board.plan
        if plan is None:
            raise RequestRefused("the run has not begun", status=404)
        values = result_values(result, error)
        return self.respond(
            "run.html",
            run_id=run_id,
            board=board,
            plan=plan,
            task=plan.task,
            title=title_of(plan.task),
            shown_words=shown_words,
            is_live=is_live,
            after=after,
            **values,
        )

    async def events(self, request: Request) -> Response:
        """Return the stream of a run that the page has started."""
        run = self.runs.find(request.path_params["run"])
        if run is None:
            return Response(status_code=204)  # tells an EventSource not to ask again
        return stream(request, run)

    async def cancel(self, request: Request, _: FormData) -> Response:
        """Cancel a run."""
        run = self.runs.find(request.path_params["run"])
        if run is None:
            raise RequestRefused("that run does not go on here", status=404)
        run.scope.cancel()
        return RedirectResponse(f"/runs/{run.run_id}", status_code=303)

    async def resume(self, request: Request, _: FormData) -> Response:
        """Resume a stored run."""
        run_id = (await self.stored(request.path_params["run"])).info.run_id
        running = self.runs.find(run_id)
        if running is None or running.ended is not None:
            await self.runs.resume(run_id)
        return RedirectResponse(f"/runs/{run_id}", status_code=303)

    async def plan_of(self, run_id: str) -> Any:
        """Return the plan of a run, of the page or of the store."""
        run = self.runs.find(run_id)
        return run.plan if run is not None else (await self.stored(run_id)).plan

    async def stored(self, run_id: str) -> StoredRun:
        """Return a stored run.

        Raises:
            RequestRefused: there is no such run, or nothing is stored.
        """
        try:
            store = self.store()
            return await store.show(await store.find(run_id))
        except (InvalidOption, StoreError) as error:
            raise RequestRefused(redact(str(error)), status=404) from None

    def store(self) -> Store | RunStore:
        """Return the store.

        Raises:
            RequestRefused: nothing is stored.
        """
        if self.council.config.store is None:
            raise RequestRefused(
                "nothing is stored: this server forgets its runs an hour after their end, and when it stops", status=404
            )
        return open_store(self.council.config.store)


def title_of(task: str) -> str:
    """Return the first words of a task, on one line."""
    words = " ".join(visible(redact(task)).split())
    return words if len(words) <= _TITLE else f"{words[:_TITLE].rsplit(' ', 1)[0]}…"


async def _read_form(request: Request) -> FormData:
    """Return the fields of a form.

    Raises:
        RequestRefused: it is too large, or no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    size = 0

    async def pieces() -> Any:
        nonlocal size
        async for piece in request.stream():
            size += len(piece)
            if size > MOST_BYTES:
                raise RequestRefused(f"the form is larger than {MOST_BYTES // 2**20} MiB", status=413)
            yield piece

    try:
        if kind == "multipart/form-data":
            parser = _InMemory(
                request.headers, pieces(), max_files=_MOST_FIELDS, max_fields=_MOST_FIELDS, max_part_size=_MOST_TEXT
            )
            return await parser.parse()
        if kind == "application/x-www-form-urlencoded":
            body = b"".join([piece async for piece in pieces()]).decode("utf-8", "replace")
            fields: list[tuple[str, str | UploadFile]] = []
            fields += parse_qsl(body, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
            return FormData(fields)
    except (MultiPartException, HTTPException, ValueError, KeyError) as error:
        raise RequestRefused(f"the form cannot be read: {error}") from None
    raise RequestRefused("the page takes forms alone", status=415)
