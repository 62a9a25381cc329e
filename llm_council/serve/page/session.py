"""Who may use the page: a browser that came with the server's token, and forms that the page itself sent."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from llm_council.serve.access import Key
from llm_council.serve.chat import RequestRefused

__all__ = ["CSRF_FIELD", "Session"]

CSRF_FIELD: Final = "csrf"
"""The hidden field of every form, with a value that no other site can read."""


class Session:
    """Checks that a request of a browser belongs to the owner of the server.

    The cookie holds no token but a value derived from it: programs on other ports of this machine receive the cookie
    too, and must not be able to use the API with it. A server that is started again with the same token knows it.

    Args:
        owner: the key of who started the server.
        port: the port of the server, which is part of the cookie's name: browsers do not tell ports apart.
        is_secure: True if browsers reach the server through TLS, and may send the cookie that way alone.
    """

    def __init__(self, owner: Key, *, port: int = 0, is_secure: bool = False) -> None:
        self._owner = owner
        self._cookie = f"llm_council_{port}"
        self._is_secure = is_secure
        self._value = _derive(owner.secret, "session")
        self.csrf = _derive(owner.secret, "form")

    def is_token(self, given: str) -> bool:
        """Return True for the owner's token. The time that this takes does not tell how much of it is right."""
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self._owner.secret.encode())

    def open(self, response: Response) -> None:
        """Let the browser that receives this response use the page, until it is closed."""
        response.set_cookie(
            self._cookie, self._value, path="/", httponly=True, samesite="strict", secure=self._is_secure
        )

    def check(self, request: Request) -> None:
        """Count a request of the owner's browser.

        Raises:
            RequestRefused: it is another browser, or there were too many requests.
        """
        given = request.cookies.get(self._cookie, "")
        if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self._value.encode()):
            raise RequestRefused(
                "this browser does not know the token of the server: open the address that council serve printed as"
                " 'page'",
                status=401,
            )
        self._owner.count_request(time.monotonic())

    def check_form(self, request: Request, csrf: object) -> None:
        """Check that a form was sent by the page.

        Args:
            request: the request that sent it. Its host and origin were checked before.
            csrf: the value of the field ``CSRF_FIELD``.

        Raises:
            RequestRefused: another site sent it, or an earlier start of the server wrote it.
        """
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise RequestRefused("the form comes from a page of another site", status=403)
        if not isinstance(csrf, str) or not hmac.compare_digest(
            csrf.encode("utf-8", "surrogatepass"), self.csrf.encode()
        ):
            raise RequestRefused("the form is not of this server: reload the page, and send it again", status=403)


def _derive(secret: str, purpose: str) -> str:
    return hmac.new(secret.encode(), f"llm_council page: {purpose}".encode(), hashlib.sha256).hexdigest()
