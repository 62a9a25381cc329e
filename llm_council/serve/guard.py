"""What stands before every application: checks of host, origin and key, and headers for browsers."""

from __future__ import annotations

from typing import Any, Final

import anyio
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_council.serve.access import Access, check_origin
from llm_council.serve.chat import RequestRefused, error_body

__all__ = ["Guard", "refuse"]

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


BODY_SECONDS: Final = 120.0
"""Seconds in which the body of a request must arrive: 32 MiB at 2.3 Mbit/s."""

MOST_AT_ONCE: Final = 1_000
"""Requests that are served at once."""

_ONCE: Final = (b"host", b"origin", b"authorization", b"cookie")
"""Headers that decide who asks, from where."""


class Guard:
    """Checks host and origin of each request, limits it, and adds headers that keep browsers from guessing.

    Args:
        app: the application.
        hosts: the values of ``Host`` that are ours.
        access: the keys, for an application that does not ask for them itself.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], access: Access | None = None) -> None:
        self._app = app
        self._hosts = hosts
        self._access = access
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        has_begun = False

        async def with_headers(message: Any) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                own = list(message.get("headers", ()))
                names = {name.lower() for name, _ in own}  # the page has a policy of its own
                message = {**message, "headers": [*own, *(one for one in _HEADERS if one[0] not in names)]}
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._running += 1
        try:
            if self._running > MOST_AT_ONCE:
                raise RequestRefused(
                    f"{MOST_AT_ONCE} requests are served at once: try again in a moment",
                    status=503,
                    code="server_busy",
                    kind="server_error",
                    retry_after=1.0,
                )
            given = [name for name, _ in scope["headers"]]
            for name in _ONCE:
                if given.count(name) > 1:  # which of them counts, is read in different ways
                    raise RequestRefused(f"the header {name.decode()} stands twice: send it once", status=400)
            check_origin(headers, self._hosts)
            if self._access is not None:
                self._access.key_of(headers.get("authorization"))
            await self._app(scope, _within(BODY_SECONDS, receive), with_headers)
        except RequestRefused as refused:
            if has_begun:
                raise
            await refuse(refused)(scope, receive, with_headers)
        finally:
            self._running -= 1


def _within(seconds: float, receive: Receive) -> Receive:
    """Return ``receive`` for a request whose body must arrive in so many seconds.

    Raises:
        RequestRefused: when it is called, and the time is over.
    """
    end = anyio.current_time() + seconds
    is_whole = False

    async def limited() -> Message:
        nonlocal is_whole
        if is_whole:  # what comes now is that the client leaves, which may take as long as it likes
            return await receive()
        with anyio.move_on_after(end - anyio.current_time()):
            message = await receive()
            is_whole = not message.get("more_body", False)
            return message
        raise RequestRefused(
            f"the body did not arrive within {seconds:.0f} s: send it faster, or less of it",
            status=408,
            code="request_timeout",
        )

    return limited


def refuse(refused: RequestRefused) -> Response:
    """Return an error reply."""
    headers = {} if refused.retry_after is None else {"retry-after": str(max(1, round(refused.retry_after)))}
    if refused.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error_body(refused), status_code=refused.status, headers=headers)
