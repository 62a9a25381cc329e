"""Earlier runs: a list with search, answers and drafts side by side, and downloads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final
from urllib.parse import urlencode

import attrs
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from llm_council.results import CouncilResult
from llm_council.results._markup import Markup, markdown, value
from llm_council.results.differences import Differences, compare
from llm_council.results.plain import as_text, split_answer
from llm_council.serve.chat import RequestRefused
from llm_council.serve.page.site import Page, title_of

__all__ = ["History"]

ROWS: Final = 25
"""Runs on one page of the list."""

MOST_READ: Final = 300
"""Runs whose answers one search reads, the latest first; the store has no index of words."""

MOST_COMPARED: Final = 6
"""Texts that are shown side by side."""

_AROUND = 90  # characters before and after what a search has found

_STATUSES = ("completed", "degraded", "abstained", "failed", "cancelled", "interrupted", "running")


@attrs.frozen(kw_only=True)
class Search:
    """What is searched for.

    Attributes:
        words: all of them are in the task or in the answer.
        status: the status; empty for any.
        role: the role; likewise.
        since: the first day, in UTC; None for any.
        until: the last day, likewise.
        page: which page of the list, from 1.
    """

    words: str = ""
    status: str = ""
    role: str = ""
    since: date | None = None
    until: date | None = None
    page: int = 1

    @classmethod
    def of(cls, given: QueryParams) -> Search:
        """Return the search in an address.

        Raises:
            RequestRefused: a day cannot be read.
        """
        number = given.get("page", "1")
        return cls(
            words=given.get("q", "").strip()[:200],
            status=given.get("status", ""),
            role=given.get("role", ""),
            since=_day(given.get("since", "")),
            until=_day(given.get("until", "")),
            page=max(1, int(number)) if number.isascii() and number.isdigit() and len(number) < 9 else 1,
        )

    @property
    def is_narrow(self) -> bool:
        """True if it leaves out runs."""
        return bool(self.words or self.status or self.role or self.since or self.until)

    def address(self, page: int) -> str:
        """Return the address of a page of the list."""
        fields = {
            "q": self.words,
            "status": self.status,
            "role": self.role,
            "since": "" if self.since is None else self.since.isoformat(),
            "until": "" if self.until is None else self.until.isoformat(),
            "page": "" if page == 1 else str(page),
        }
        query = urlencode({name: text for name, text in fields.items() if text})
        return f"/history?{query}" if query else "/history"

    def fits(self, row: Row) -> bool:
        """Return True if status, role and day of a run are those that are searched for."""
        day = row.started.date()
        return (
            self.status in ("", row.status)
            and self.role in ("", row.role)
            and (self.since is None or self.since <= day)
            and (self.until is None or day <= self.until)
        )


@attrs.frozen(kw_only=True)
class Row:
    """A run in the list.

    Attributes:
        run_id: its id.
        title: the first words of its task.
        status: its status.
        role: its role.
        started: when it started.
        calls: calls that have ended.
        follows: the run that it goes on from; None for none.
        found: where the answer has what is searched for: the text before it, the word, and the text after it.
    """

    run_id: str
    title: str
    status: str
    role: str
    started: datetime
    calls: int
    follows: str | None = None
    found: tuple[str, str, str] | None = None


@attrs.frozen(kw_only=True)
class Column:
    """One of the texts that are compared.

    Attributes:
        name: what it is.
        address: where it stands; None if it is a draft of the run that is shown.
        text: the text, as markup.
        only: what no other one says.
    """

    name: str
    address: str | None = None
    text: Markup
    only: tuple[str, ...]


class History:
    """The earlier runs of a server, of its store, or those that it remembers if it stores none.

    Args:
        page: the page.
    """

    def __init__(self, page: Page) -> None:
        self._page = page

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        get = self._page.get
        return [
            Route("/history", get(self.show_list)),
            Route("/runs", _to_history),
            Route("/compare", get(self.compare_answers)),
            Route("/runs/{run}/compare", get(self.compare_drafts)),
            Route("/runs/{run}/download.html", get(self.download_html)),
            Route("/runs/{run}/download.json", get(self.download_json)),
        ]

    async def show_list(self, request: Request) -> Response:
        """Show the runs, the latest first."""
        search = Search.of(request.query_params)
        every = await self._rows()
        rows, is_cut = await self._found(search, every)
        pages = max(1, -(-len(rows) // ROWS))
        number = min(search.page, pages)
        return self._page.respond(
            "history.html",
            here="history",
            search=search,
            rows=rows[(number - 1) * ROWS : number * ROWS],
            total=len(rows),
            has_runs=bool(every),
            statuses=_STATUSES,
            roles=sorted({row.role for row in every}),
            number=number,
            pages=pages,
            before=search.address(number - 1) if number > 1 else None,
            after=search.address(number + 1) if number < pages else None,
            cut_at=MOST_READ if is_cut else None,
            is_stored=self._page.council.config.store is not None,
        )

    async def _rows(self) -> list[Row]:
        if self._page.council.config.store is None:
            return [
                Row(
                    run_id=run.run_id,
                    title=title_of(run.plan.task),
                    status=run.board.status,
                    role=run.plan.subagent,
                    started=_moment(run.plan.created),
                    calls=run.board.calls,
                    follows=run.plan.follows,
                )
                for run in self._page.runs.remembered()
            ]
        return [
            Row(
                run_id=info.run_id,
                title=title_of(info.task),
                status=info.status,
                role=info.subagent,
                started=info.started,
                calls=info.answered,
                follows=info.follows,
            )
            for info in await self._page.store().runs()
        ]

    async def _found(self, search: Search, every: Sequence[Row]) -> tuple[list[Row], bool]:
        """Return the runs that are searched for, and whether there were too many to read the answers of all."""
        rows = [row for row in every if search.fits(row)]
        words = search.words.casefold().split()
        if not words:
            return rows, False
        found: list[Row] = []
        reads = 0
        for row in rows:
            if all(word in row.title.casefold() for word in words):
                found.append(row)
            elif reads < MOST_READ:
                reads += 1
                task, answer = await self._texts(row.run_id)
                if all(word in f"{task}\n{answer}".casefold() for word in words):
                    found.append(attrs.evolve(row, found=_place(answer, words)))
        return found, reads == MOST_READ

    async def _texts(self, run_id: str) -> tuple[str, str]:
        """Return the task and the answer of a run; an empty answer if it has none."""
        run = self._page.runs.find(run_id)
        if run is not None and run.result is not None:
            return run.plan.task, _answer_text(run.result.output_value, run.result.text)
        if self._page.council.config.store is None:
            return ("", "") if run is None else (run.plan.task, "")
        stored = await self._page.stored(run_id)
        result = stored.result or {}
        return stored.plan.task, _answer_text(result.get("output"), result.get("text"))

    # Side by side

    async def compare_drafts(self, request: Request) -> Response:
        """Show drafts of a run side by side; without ``?seat=``, the first two."""
        run_id = request.path_params["run"]
        result = await self._result(run_id)
        names = list(result.drafts)
        if len(names) < 2:
            raise RequestRefused("the run has no two drafts to compare", status=404)
        chosen = [name for name in names if name in request.query_params.getlist("seat")][:MOST_COMPARED]
        chosen = chosen if len(chosen) > 1 else names[:2]
        drafts = {name: result.drafts[name] for name in chosen}
        found = compare(drafts)
        columns = [Column(name=name, text=markdown(drafts[name]), only=found.only[name]) for name in chosen]
        return self._page.respond(
            "compare.html",
            here="history",
            title=f"Drafts: {title_of(result.task)}",
            run_id=result.run_id,
            names=names,
            chosen=chosen,
            columns=columns,
            shared=_shared(found),
        )

    async def compare_answers(self, request: Request) -> Response:
        """Show answers of several runs side by side."""
        ids = list(dict.fromkeys(request.query_params.getlist("run")))
        if not 2 <= len(ids) <= MOST_COMPARED:
            raise RequestRefused(f"choose 2 to {MOST_COMPARED} runs to compare: mark them in the history")
        results = [await self._result(run_id) for run_id in ids]
        texts = {result.run_id: _answer_text(result.output_value, result.text) for result in results}
        if len(texts) < 2:
            raise RequestRefused("that is one run: choose two to compare")
        found = compare(texts)
        columns = [
            Column(
                name=title_of(result.task),
                address=f"/runs/{result.run_id}",
                text=_shown_answer(result),
                only=found.only[result.run_id],
            )
            for result in results
        ]
        return self._page.respond(
            "compare.html",
            here="history",
            title="Answers side by side",
            run_id=None,
            names=[],
            chosen=[],
            columns=columns,
            shared=_shared(found),
        )

    # Downloads

    async def download_html(self, request: Request) -> Response:
        """Return the report of a run as a file."""
        result = await self._result(request.path_params["run"])
        return _file(result.to_html(), f"council-{result.run_id}.html", "text/html; charset=utf-8")

    async def download_json(self, request: Request) -> Response:
        """Return the result of a run as a file, as ``council run --json`` prints it."""
        result = await self._result(request.path_params["run"])
        text = json.dumps(result.to_dict(), ensure_ascii=True, indent=2)
        return _file(f"{text}\n", f"council-{result.run_id}.json", "application/json")

    async def _result(self, run_id: str) -> CouncilResult[Any]:
        """Return the result of a run.

        Raises:
            RequestRefused: there is no such run, or it has no result yet.
        """
        run = self._page.runs.find(run_id)
        if run is not None and run.result is not None:
            return run.result
        if run is not None and run.ended is None:
            raise RequestRefused("that run still goes on: wait for its end", status=409)
        stored = await self._page.stored(run_id)
        if stored.result is None:
            raise RequestRefused("that run has no result yet: wait for its end, or resume it", status=409)
        return CouncilResult.from_dict(stored.result)


async def _to_history(_: Request) -> Response:
    return RedirectResponse("/history", status_code=303)


def _file(text: str, name: str, media_type: str) -> Response:
    # The name has a run's id, which consists of letters, digits, "-" and "_" alone.
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(text.encode("utf-8", "replace"), media_type=media_type, headers=headers)


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise RequestRefused(f"a day is written as 2026-01-31, got {text!r:.40}") from None


def _moment(text: str | None) -> datetime:
    try:
        return datetime.fromisoformat(text or "").astimezone(UTC)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _answer_text(output: Any, text: Any) -> str:
    """Return an answer as plain text; empty if there is none."""
    shown = text if output is None else output
    if isinstance(shown, Mapping) and isinstance(shown.get("answer"), str):
        return str(shown["answer"])
    return "" if shown is None else as_text(shown)


def _shown_answer(result: CouncilResult[Any]) -> Markup:
    """Return the answer of a run as markup; why there is none, if there is none."""
    shown, _ = split_answer(result)
    if shown is None:
        return value("It has no answer." if result.error is None else str(result.error))
    return value(shown)


def _shared(found: Differences) -> str:
    if not any(found.only.values()):
        return "Each statement of one is in another one too, in similar words."
    count = {0: "No statement is", 1: "One statement is"}.get(found.shared, f"{found.shared} statements are")
    return f"{count} in all of them. Below each text: what it alone says. Similar words count as the same."


def _place(answer: str, words: Sequence[str]) -> tuple[str, str, str] | None:
    """Return the first of the words in an answer, with what stands before and after it; None if it has none."""
    flat = " ".join(answer.split())
    folded = flat.casefold()
    if len(folded) != len(flat):  # a letter such as "ß" has become two, and places are no longer the same
        return None
    places = sorted(_places(folded, words))
    if not places:
        return None
    at, length = places[0]
    before, after = flat[max(0, at - _AROUND) : at], flat[at + length : at + length + _AROUND]
    return (
        f"…{before}" if at > _AROUND else before,
        flat[at : at + length],
        f"{after}…" if at + length + _AROUND < len(flat) else after,
    )


def _places(text: str, words: Sequence[str]) -> Iterator[tuple[int, int]]:
    for word in words:
        at = text.find(word)
        if at >= 0:
            yield at, len(word)
