"""Sign-in to Google Cloud: tokens are fetched in a thread, cached until they expire, and renewed."""

from __future__ import annotations

import importlib
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
REMEDY = (
    "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the file of a service"
    " account, or pass credentials"
)
_MASKED_TOKENS = 8  # recent tokens, which replies may still contain
_LIMITS = Limits()
_TIMEOUTS = Timeouts()


class SignIn:
    """Google credentials: the caller's, or the application default credentials, which the first call loads.

    Loading them may query the metadata server of a machine in Google Cloud, so neither the import nor the constructor
    does it.

    Args:
        credentials: credentials of google-auth, or any object with ``token``, ``valid``, ``refresh`` and ``apply``.
            They are not pickled: pass them to an unpickled copy again.
    """

    def __init__(self, credentials: Any = None) -> None:
        self._given = credentials is not None
        self._credentials = credentials
        self._scoped = False
        self._lost = False
        self._project: str | None = None
        self._lock = threading.Lock()
        self._tokens: deque[Secret] = deque(maxlen=_MASKED_TOKENS)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._given,)

    def check(self) -> None:
        """Check for missing packages, without loading credentials.

        Raises:
            MissingDependency: google-auth is not installed.
            MissingCredentials: this is an unpickled copy without the caller's credentials.
        """
        if self._lost:
            raise MissingCredentials("Google credentials are not pickled: pass credentials to the copy")
        if not self._given and not _is_installed():
            raise MissingDependency("google-auth is not installed: pip install 'llm-council-sdk[vertex]'")

    async def project(self) -> str | None:
        """Return the project of the credentials; None if they have none.

        Raises:
            MissingCredentials: there are no credentials.
        """
        if not self._scoped:
            await anyio.to_thread.run_sync(self._load, abandon_on_cancel=True)
        return self._project

    async def headers(self, *, refused: str | None = None) -> dict[str, str]:
        """Return the headers that sign a request.

        Args:
            refused: the ``authorization`` header that Google just refused, to get a new token; None returns the cached
                token while it is valid.

        Raises:
            MissingCredentials: there are no credentials.
            AuthenticationFailed: Google refuses to issue a token.
            ConnectFailed: Google could not be reached.
        """
        if refused is None and self._scoped and self._credentials.valid:
            return self._signature()
        return await anyio.to_thread.run_sync(self._renew, refused, abandon_on_cancel=True)

    def _renew(self, refused: str | None) -> dict[str, str]:
        """Fetch a token, unless another thread has just done so. Blocks."""
        self._load()
        with self._lock:
            if not self._credentials.valid or refused == self._signature().get("authorization"):
                self._refresh()
            return self._signature()

    def _signature(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        self._credentials.apply(headers)
        written = {name.lower(): value for name, value in headers.items()}
        token = Secret(written.get("authorization", "").rpartition(" ")[2] or "none")
        if token not in self._tokens:  # while the secret exists, logs and errors mask it
            self._tokens.append(token)
        return written

    def _refresh(self) -> None:
        if not _is_installed():  # an object of the caller that does not need google-auth
            self._credentials.refresh(None)
            return
        from google.auth import exceptions
        from google.auth.transport.requests import Request

        request = Request()
        try:
            self._credentials.refresh(request)
        except exceptions.TransportError as exc:
            raise ConnectFailed(f"Google's sign-in was not reached: {_message(exc)}") from error_mapping.strip_secrets(
                exc
            )
        except exceptions.GoogleAuthError as exc:
            what = f"Google gives no token for these credentials: {REMEDY} ({_message(exc)})"
            raise AuthenticationFailed(what, retryable=bool(exc.retryable)) from error_mapping.strip_secrets(exc)
        finally:
            request.session.close()

    def _load(self) -> None:
        """Load the credentials, once. Blocks."""
        with self._lock:
            if self._scoped:
                return
            self.check()
            if not self._given:
                from google.auth import default, exceptions

                try:
                    self._credentials, self._project = default(scopes=[_SCOPE])
                except exceptions.GoogleAuthError as exc:
                    what = f"there are no Google credentials: {REMEDY} ({_message(exc)})"
                    raise MissingCredentials(what) from error_mapping.strip_secrets(exc)
            elif _is_installed():
                from google.auth import credentials

                scoped: Any = credentials.with_scopes_if_required
                self._credentials = scoped(self._credentials, [_SCOPE])
                self._project = getattr(self._credentials, "project_id", None)
            self._scoped = True


def _message(exc: BaseException) -> str:
    return str(exc.args[0]) if exc.args else type(exc).__name__


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("google.auth") is not None
    except ModuleNotFoundError:  # no package ``google`` at all
        return False


def _import_library() -> None:
    for name in ("google.auth", "google.auth.credentials", "google.auth.transport.requests"):
        importlib.import_module(name)


def _restored(given: bool) -> SignIn:  # noqa: FBT001 - pickle passes positional arguments
    sign_in = SignIn()
    sign_in._given = sign_in._lost = given
    return sign_in


class SignedTransport:
    """A transport that signs requests, and repeats a request once with a new token if Google refuses the old one.

    Args:
        given: the inner transport, see ``as_transport``; None creates one, which ``aclose`` closes.
        sign_in: the source of the tokens.
    """

    def __init__(self, given: Any, sign_in: SignIn) -> None:
        self._inner: Transport | None = None if given is None else transports.as_transport(given)
        self._owned = given is None
        self._sign_in = sign_in

    @property
    def _transport(self) -> Transport:
        if self._inner is None:
            self._inner = transports.HttpxTransport()
        return self._inner

    async def prepare(self) -> None:
        """Import google-auth, which takes seconds, and what the inner transport needs."""
        if _is_installed():
            await anyio.to_thread.run_sync(_import_library, abandon_on_cancel=True)
        prepare = getattr(self._transport, "prepare", None)
        if prepare is not None:
            await prepare()

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
        reply = await self._transport.send(signed, limits=limits, timeouts=timeouts, deadline=deadline)
        again = await self._with_new_token(signed, reply.status)
        if again is None:
            return reply
        return await self._transport.send(again, limits=limits, timeouts=timeouts, deadline=deadline)

    @asynccontextmanager
    async def stream(
        self,
        request: HttpRequest,
        *,
        limits: Limits = _LIMITS,
        timeouts: Timeouts = _TIMEOUTS,
        deadline: float | None = None,
    ) -> AsyncIterator[ReplyStream]:
        """Send a request and yield the reply once its head has arrived; see ``Transport.stream``."""
        signed = await self._signed(request)
        async with self._transport.stream(signed, limits=limits, timeouts=timeouts, deadline=deadline) as reply:
            again = await self._with_new_token(signed, reply.status)
            if again is None:
                yield reply
                return
        async with self._transport.stream(again, limits=limits, timeouts=timeouts, deadline=deadline) as reply:
            yield reply

    async def aclose(self) -> None:
        """Close the connections of the current event loop, unless the caller passed the transport."""
        if self._owned and self._inner is not None:
            await self._inner.aclose()

    async def _signed(self, request: HttpRequest, *, refused: str | None = None) -> HttpRequest:
        names = {name.lower() for name in request.headers}
        if "authorization" in names:
            return request
        own = await self._sign_in.headers(refused=refused)
        return attrs.evolve(request, headers={**own, **request.headers})

    async def _with_new_token(self, signed: HttpRequest, status: int) -> HttpRequest | None:
        """Return the request with a new token; None if the old token was not refused, or there is no other."""
        refused = signed.headers.get("authorization")
        if status != 401 or refused is None:
            return None
        unsigned = {name: value for name, value in signed.headers.items() if name != "authorization"}
        try:
            again = await self._signed(attrs.evolve(signed, headers=unsigned), refused=refused)
        except ProviderError:  # the refused request has the better message
            return None
        return None if again.headers.get("authorization") == refused else again
