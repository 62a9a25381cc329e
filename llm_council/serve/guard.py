"""What stands before every application: checks of host, origin and key, and headers for browsers."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from llm_council.serve.access import Access, check_origin
from llm_council.serve.chat import RequestRefused, error_body

__all__ = ["Guard", "refuse"]

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class Guard:
    """Checks host and origin of each request, and adds headers that keep browsers from guessing.

    Args:
        app: the application.
        hosts: the values of ``Host`` that are ours.
        access: the keys, for an application that does not ask for them itself.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], access: Access | None = None) -> None:
        self._app = app
        self._hosts = hosts
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                names = {name.lower() for name, _ in own}  # the page has a policy of its own
                message = {**message, "headers": [*own, *(one for one in _HEADERS if one[0] not in names)]}
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            check_origin(headers, self._hosts)
            if self._access is not None:
                self._access.key_of(headers.get("authorization"))
        except RequestRefused as refused:
            await refuse(refused)(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)


def refuse(refused: RequestRefused) -> Response:
    """Return an error reply."""
    headers = {} if refused.retry_after is None else {"retry-after": str(max(1, round(refused.retry_after)))}
    if refused.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error_body(refused), status_code=refused.status, headers=headers)
