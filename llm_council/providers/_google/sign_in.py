"""Signing in to Google Cloud: tokens that are fetched off the event loop, kept until they expire, and renewed."""

from __future__ import annotations

import importlib.util
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import attrs

from llm_council import transports
from llm_council.errors import (
    AuthenticationFailed,
    ConnectFailed,
    MissingCredentials,
    MissingDependency,
    ProviderError,
)
from llm_council.errors._secrets import Secret
from llm_council.models.limits import Limits, Timeouts
from llm_council.providers._call import error_mapping
from llm_council.transports import HttpReply, HttpRequest, ReplyStream, Transport

__all__ = ["SignIn", "SignedTransport"]

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_REMEDY = (
    "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the file of a service"
    " account, or pass credentials"
)
_KNOWN = 8  # tokens that replies may still hold
_LIMITS = Limits()
_TIMEOUTS = Timeouts()


class SignIn:
    """Google credentials: those of the caller, else the application's default ones, which the first call looks for.

    Looking for them may ask the metadata server of a machine in Google's cloud: neither importing nor making this does.

    Args:
        credentials: of google-auth, or anything with its ``token``, ``valid``, ``refresh`` and ``apply``. They are not
            pickled: a copy must be given its own.
    """

    def __init__(self, credentials: Any = None) -> None:
        self._given = credentials is not None
        self._credentials = credentials
        self._scoped = False
        self._lost = False
        self._project: str | None = None
        self._lock = threading.Lock()
        self._tokens: deque[Secret] = deque(maxlen=_KNOWN)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._given,)

    def check(self) -> None:
        """Refuse to start what cannot work, without looking for credentials.

        Raises:
            MissingDependency: google-auth is not installed.
            MissingCredentials: this is a copy, which lost the caller's credentials.
        """
        if self._lost:
            raise MissingCredentials("Google credentials are not pickled: pass credentials to the copy")
        if not self._given and not _is_installed():
            raise MissingDependency("google-auth is not installed: pip install 'llm-council-sdk[vertex]'")

    async def project(self) -> str | None:
        """Return the project of the credentials, where they know one.

        Raises:
            MissingCredentials: there are none.
        """
        if not self._scoped:
            await anyio.to_thread.run_sync(self._load, abandon_on_cancel=True)
        return self._project

    async def headers(self, *, refused: str | None = None) -> dict[str, str]:
        """Return the headers of a signed request.

        Args:
            refused: the ``authorization`` that Google refused just now, for a new token; None takes the one at hand as
                long as it is valid.

        Raises:
            MissingCredentials: there are no credentials.
            AuthenticationFailed: Google gives no token for them.
            ConnectFailed: Google could not be reached.
        """
        if refused is None and self._scoped and self._credentials.valid:
            return self._written()
        return await anyio.to_thread.run_sync(self._renewed, refused, abandon_on_cancel=True)

    def _renewed(self, refused: str | None) -> dict[str, str]:
        """Fetch a token unless another thread has just done so. Blocks."""
        self._load()
        with self._lock:
            if not self._credentials.valid or refused == self._written().get("authorization"):
                self._refresh()
            return self._written()

    def _written(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        self._credentials.apply(headers)
        written = {name.lower(): value for name, value in headers.items()}
        token = Secret(written.get("authorization", "").rpartition(" ")[2] or "none")
        if token not in self._tokens:  # as long as it is held, nothing of ours shows it
            self._tokens.append(token)
        return written

    def _refresh(self) -> None:
        if not _is_installed():  # the caller's object is not google-auth's, and needs nothing of it
            self._credentials.refresh(None)
            return
        from google.auth import exceptions
        from google.auth.transport.requests import Request

        request = Request()
        try:
            self._credentials.refresh(request)
        except exceptions.TransportError as exc:
            raise ConnectFailed(f"Google's sign-in was not reached: {_said(exc)}") from error_mapping.strip_secrets(exc)
        except exceptions.GoogleAuthError as exc:
            what = f"Google gives no token for these credentials: {_REMEDY} ({_said(exc)})"
            raise AuthenticationFailed(what, retryable=bool(exc.retryable)) from error_mapping.strip_secrets(exc)
        finally:
            request.session.close()

    def _load(self) -> None:
        """Find the credentials, once. Blocks."""
        with self._lock:
            if self._scoped:
                return
            self.check()
            if not self._given:
                from google.auth import default, exceptions

                try:
                    self._credentials, self._project = default(scopes=[_SCOPE])
                except exceptions.GoogleAuthError as exc:
                    what = f"there are no Google credentials: {_REMEDY} ({_said(exc)})"
                    raise MissingCredentials(what) from error_mapping.strip_secrets(exc)
            elif _is_installed():
                from google.auth import credentials

                scoped: Any = credentials.with_scopes_if_required
                self._credentials = scoped(self._credentials, [_SCOPE])
                self._project = getattr(self._credentials, "project_id", None)
            self._scoped = True


def _said(exc: BaseException) -> str:
    return str(exc.args[0]) if exc.args else type(exc).__name__


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("google.auth") is not None
    except ModuleNotFoundError:  # nothing of Google's at all
        return False


def _restored(given: bool) -> SignIn:  # noqa: FBT001 - pickle passes arguments by their place
    made = SignIn()
    made._given = made._lost = given
    return made


class SignedTransport:
    """A transport that signs what it sends, and asks once more with a new token where Google refuses the old one.

    Args:
        given: what moves the bytes, see ``as_transport``; None is a transport of our own, which ``aclose`` closes.
        sign_in: whose tokens these are.
    """

    def __init__(self, given: Any, sign_in: SignIn) -> None:
        self._inner: Transport | None = None if given is None else transports.as_transport(given)
        self._owned = given is None
        self._sign_in = sign_in

    @property
    def _moves(self) -> Transport:
        if self._inner is None:
            self._inner = transports.HttpxTransport()
        return self._inner

    async def send(
        self,
        request: HttpRequest,
        *,
        limits: Limits = _LIMITS,
        timeouts: Timeouts = _TIMEOUTS,
        deadline: float | None = None,
    ) -> HttpReply:
        """Send a request and return the whole reply; see ``Transport.send``."""
        signed = await self._signed(request)
        reply = await self._moves.send(signed, limits=limits, timeouts=timeouts, deadline=deadline)
        again = await self._again(signed, reply.status)
        if again is None:
            return reply
        return await self._moves.send(again, limits=limits, timeouts=timeouts, deadline=deadline)

    @asynccontextmanager
    async def stream(
        self,
        request: HttpRequest,
        *,
        limits: Limits = _LIMITS,
        timeouts: Timeouts = _TIMEOUTS,
        deadline: float | None = None,
    ) -> AsyncIterator[ReplyStream]:
        """Send a request and enter with the reply's head; see ``Transport.stream``."""
        signed = await self._signed(request)
        async with self._moves.stream(signed, limits=limits, timeouts=timeouts, deadline=deadline) as reply:
            again = await self._again(signed, reply.status)
            if again is None:
                yield reply
                return
        async with self._moves.stream(again, limits=limits, timeouts=timeouts, deadline=deadline) as reply:
            yield reply

    async def aclose(self) -> None:
        """Close what was opened in the current event loop; a transport of the caller's is the caller's."""
        if self._owned and self._inner is not None:
            await self._inner.aclose()

    async def _signed(self, request: HttpRequest, *, refused: str | None = None) -> HttpRequest:
        names = {name.lower() for name in request.headers}
        if "authorization" in names:
            return request
        own = await self._sign_in.headers(refused=refused)
        return attrs.evolve(request, headers={**own, **request.headers})

    async def _again(self, signed: HttpRequest, status: int) -> HttpRequest | None:
        """Return the request with a new token, where the old one was refused and there is a new one."""
        refused = signed.headers.get("authorization")
        if status != 401 or refused is None:
            return None
        unsigned = {name: value for name, value in signed.headers.items() if name != "authorization"}
        try:
            again = await self._signed(attrs.evolve(signed, headers=unsigned), refused=refused)
        except ProviderError:  # the refusal of the request says more
            return None
        return None if again.headers.get("authorization") == refused else again
