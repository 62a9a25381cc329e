"""All routes of the page."""

from __future__ import annotations

from starlette.routing import BaseRoute

from llm_council.serve.page.evaluations import Evaluations
from llm_council.serve.page.history import History
from llm_council.serve.page.site import Page

__all__ = ["page_routes"]


def page_routes(page: Page) -> list[BaseRoute]:
    """Return the routes of a page, with those of its history and of its reports."""
    routes = [*page.routes(), *History(page).routes()]
    return routes if page.evaluations is None else [*routes, *Evaluations(page, page.evaluations).routes()]
