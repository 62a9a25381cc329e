"""Templates of the page. Every value is masked, made visible and escaped; only our own markup passes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
import markupsafe
from starlette.responses import HTMLResponse

from llm_council.errors._secrets import redact
from llm_council.errors._visible import visible
from llm_council.results._markup import Markup

__all__ = ["POLICY", "STATIC", "render", "respond"]

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"
"""The folder of style sheets and scripts."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""The content security policy of the page: nothing is loaded from elsewhere, and no inline script or style runs."""

# Under "no-referrer", which the other replies have, browsers send forms with the Origin "null".
_HEADERS: Final = {"content-security-policy": POLICY, "referrer-policy": "same-origin", "x-frame-options": "DENY"}


def render(template: str, **values: Any) -> str:
    """Return a template with its values.

    Args:
        template: the name of a file in ``templates``.
        **values: its variables; a missing one is an error.
    """
    return _environment().get_template(template).render(values)


def respond(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page with its headers. The template has the HTTP status as a variable, too."""
    return HTMLResponse(render(template, status=status, **values), status_code=status, headers=_HEADERS)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        auto_reload=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )


def _shown(value: Any) -> Any:
    """Return a value as it is shown. The environment escapes what is no markup."""
    if isinstance(value, Markup):  # made by ``results._markup``, which escapes
        return markupsafe.Markup(value)  # noqa: S704
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
        return visible(redact(value))
    return value
