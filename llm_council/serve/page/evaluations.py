"""Reports of evaluations, which ``council eval`` wrote into a folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from llm_council.errors import CouncilError
from llm_council.serve.chat import RequestRefused
from llm_council.serve.page.site import Page

if TYPE_CHECKING:
    from llm_council.evals.report import EvalReport

__all__ = ["Evaluations"]

MOST_BYTES: Final = 32 * 2**20
"""The largest report that is read."""

MOST_FILES: Final = 200
"""Reports that are listed, the latest first."""


@attrs.frozen(kw_only=True)
class Listed:
    """A report in the list.

    Attributes:
        name: its path in the folder, without ``.json``.
        path: the file.
        written: when it was written.
        title: the task set; empty if the file is no report.
        answer: whether a council pays, in a sentence; or why the file cannot be read.
        items: the number of its tasks.
    """

    name: str
    path: Path
    written: datetime
    title: str = ""
    answer: str = ""
    items: int = 0


class Evaluations:
    """The reports in a folder and in the folders directly in it.

    Args:
        page: the page.
        folder: the folder.
    """

    def __init__(self, page: Page, folder: Path) -> None:
        self._page = page
        self._folder = folder

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        get = self._page.get
        return [
            Route("/evaluations", get(self.show_list)),
            Route("/evaluations/style.css", _style),
            Route("/evaluations/{name:path}", get(self.show_report)),
        ]

    async def show_list(self, _: Request) -> Response:
        """Show the reports, the latest first."""
        found = await anyio.to_thread.run_sync(self._list)
        return self._page.respond("evaluations.html", here="evaluations", found=found, folder=str(self._folder))

    async def show_report(self, request: Request) -> Response:
        """Show a report."""
        name = request.path_params["name"]
        files = {listed.name: listed.path for listed in await anyio.to_thread.run_sync(self._files)}
        if name not in files:  # looked up among the listed files, so no name leads out of the folder
            raise RequestRefused(f"there is no report {name!r:.80}", status=404)
        try:
            report = await anyio.to_thread.run_sync(_read, files[name])
            content = await anyio.to_thread.run_sync(_content, report)
        except CouncilError as error:
            raise RequestRefused(f"{name:.80}: {error}", status=404) from None
        return self._page.respond("evaluation.html", here="evaluations", title=report.name, content=content)

    def _files(self) -> list[Listed]:
        """Return the files of the folder that may be reports, the latest first, without links out of the folder."""
        try:
            top = self._folder.resolve(strict=True)
            paths = [*top.glob("*.json"), *top.glob("*/*.json")]
        except OSError:
            return []
        found: list[Listed] = []
        for path in paths:
            try:
                if not path.resolve(strict=True).is_relative_to(top) or not path.is_file():
                    continue
                written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            except OSError:
                continue
            name = path.relative_to(top).as_posix().removesuffix(".json")
            found.append(Listed(name=name, path=path, written=written))
        return sorted(found, key=lambda listed: (listed.written, listed.name), reverse=True)[:MOST_FILES]

    def _list(self) -> list[Listed]:
        """Return the reports. Other JSON files are left out."""
        found: list[Listed] = []
        for listed in self._files():
            try:
                report = _read(listed.path)
            except CouncilError:
                continue
            found.append(attrs.evolve(listed, title=report.name, answer=report.answer, items=report.items))
        return found


def _read(path: Path) -> EvalReport:
    """Read a report.

    Raises:
        RequestRefused: the file cannot be read, or is none.
    """
    from llm_council.evals.report import EvalReport  # imports statistics, which no other page needs

    try:
        if path.stat().st_size > MOST_BYTES:
            raise RequestRefused(f"the report is larger than {MOST_BYTES // 2**20} MiB", status=404)
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise RequestRefused("the report cannot be read", status=404) from None
    if not isinstance(data, dict):
        raise RequestRefused("the file is no report", status=404)
    return EvalReport.from_dict(data)


def _content(report: EvalReport) -> list[Any]:
    from llm_council.evals.html import report_parts

    return list(report_parts(report))


async def _style(_: Request) -> Response:
    """Return the style sheet of reports. It holds nothing of anybody, so it needs no token."""
    text = resources.files("llm_council.evals").joinpath("eval.css").read_text(encoding="utf-8")
    return Response(text, media_type="text/css")
