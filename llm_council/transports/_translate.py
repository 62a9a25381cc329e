"""Foreign exceptions become typed errors here, by type: no message is searched for words."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from llm_council._wire import failures
from llm_council._wire.openai_chat import errors as openai_errors
from llm_council.errors import (
    ApiError,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    InvalidOption,
    MalformedReply,
    ProviderError,
    RedirectRefused,
    ReplyTooLarge,
    ServerFailed,
    TimedOut,
    TransportError,
)
from llm_council.errors._secrets import clean, redact
from llm_council.transports._base import HttpReply, host_of, refuse_redirect

__all__ = ["api_error", "translate"]

Error = ProviderError | ConfigurationError
Rule = Callable[[BaseException, str], Error]


def translate(exc: BaseException, target: str | None = None) -> Error | None:
    """Return the typed error that a foreign exception stands for; None when its type says nothing about a call.

    Known are the exceptions of httpx, httpcore, aiohttp, requests, urllib3, ``ssl`` and ``socket``, those of JSON
    decoding, and those of the vendors' own clients that are made as OpenAI's is. The foreign exception becomes the
    error's ``__cause__``: its type and its redacted text stay, its traceback, its own causes and the request it holds
    go, since they hold headers.

    Args:
        exc: what was raised.
        target: ``host:port`` for the message; None asks the exception.

    Returns:
        An error to raise, with ``__cause__`` set; the very exception when it is one of ours.
    """
    if isinstance(exc, ProviderError | ConfigurationError):
        return exc
    rule = _rule(exc)
    if rule is None:
        return None
    error = rule(exc, target or _target(exc))
    error.__cause__ = _stripped(exc)
    return error


def api_error(reply: HttpReply, *, message: str = "", code: str | None = None) -> ApiError:
    """Build the error for a reply with status 400 or more.

    It is classified as a built-in provider's is: by the machine code, then by the status. A body in one of the shapes
    that servers of OpenAI's and Anthropic's dialects send is read for code and message.

    Args:
        reply: the reply.
        message: the vendor's own message, where its dialect is known.
        code: the vendor's machine code, where its dialect is known; the body is not read then.

    Returns:
        An ``ApiError`` with status, code, body, request id and the wait that the vendor asks for.
    """
    now = time.time()
    if code is None:
        error = openai_errors.decode_error(reply.status, reply.headers, reply.body, message=message or None, now=now)
    else:
        headers = failures.lowered(reply.headers)
        body = failures.text_of(reply.body)
        error = failures.failure(message, status=reply.status, code=code, headers=headers, now=now, body=body)
    who = reply.url if reply.status == 404 else host_of(reply.url)  # a wrong path is the likeliest mistake
    if who:
        error.args = (clean(f"{who}: {error.message}"),)
    return error


# The rules. Each gets the exception and "host:port", or "the server" where the exception does not know it.


def _connect(exc: BaseException, target: str) -> Error:
    for link in _chain(exc):
        names = _names(link)
        for name in names:
            if name in _KINDS:
                kind = _KINDS[name]
                return ConnectFailed(f"{target} {_CONNECT_TEXT[kind]}", kind=kind)
    return ConnectFailed(f"no connection to {target} could be made", kind="other")


def _proxy(exc: BaseException, target: str) -> Error:
    return ConnectFailed(f"the proxy on the way to {target} {_CONNECT_TEXT['proxy']}", kind="proxy")


def _lost(exc: BaseException, target: str) -> Error:
    return ConnectionLost(f"the connection to {target} ended before the reply did")


def _wrapped(exc: BaseException, target: str) -> Error:
    """Look inside: requests and urllib3 raise the same class for a refused, a lost and a garbled connection."""
    for link in _chain(exc):
        for name in _names(link):
            if name in _INSIDE:
                return _INSIDE[name](link, target)
    return _connect(exc, target)


def _timed_out(phase: str, doing: str) -> Rule:
    return lambda exc, target: TimedOut(f"{target} {doing} in time", phase=phase)


def _not_http(exc: BaseException, target: str) -> Error:
    return MalformedReply(f"what {target} sent is not HTTP, or its headers are larger than allowed")


def _encoding(exc: BaseException, target: str) -> Error:
    return MalformedReply(f"the body that {target} sent does not decompress")


def _json(exc: BaseException, target: str) -> Error:
    return MalformedReply("the reply is not JSON")


def _too_large(exc: BaseException, target: str) -> Error:
    limit = getattr(exc, "limit", None)
    return ReplyTooLarge(f"the reply of {target} is larger than {limit} bytes", limit=limit)


def _redirect(exc: BaseException, target: str) -> Error:
    return RedirectRefused(f"{target} redirects; keys and prompts do not follow")


def _unsendable(exc: BaseException, target: str) -> Error:
    return InvalidOption("this request cannot be sent over HTTP: look at its address and its headers")


def _header(exc: BaseException, target: str) -> Error:
    """Tell a header of the reply from one of ours: requests raises the same class for both."""
    theirs = any("urllib3.InvalidHeader" in _names(link) for link in _chain(exc))
    return (_not_http if theirs else _unsendable)(exc, target)


def _other(exc: BaseException, target: str) -> Error:
    return TransportError(f"the exchange with {target} failed ({type(exc).__name__})")


def _status(exc: BaseException, target: str) -> Error:
    """Read httpx's and requests' ``response``, or aiohttp's exception itself."""
    if any(name == "aiohttp.HttpProcessingError" for link in _chain(exc) for name in _names(link)):
        return _not_http(exc, target)  # aiohttp's parser dresses what it cannot read as a status of 400
    response = getattr(exc, "response", None)
    source = exc if response is None else response
    status = getattr(source, "status_code", None) or getattr(source, "status", None) or 0
    if not isinstance(status, int) or status < 300:
        return _other(exc, target)
    headers = {str(name).lower(): str(value) for name, value in dict(getattr(source, "headers", None) or {}).items()}
    url = getattr(source, "url", None) or getattr(getattr(exc, "request_info", None), "real_url", "")
    reply = HttpReply(status=status, headers=headers, body=_body(response), url=str(url))
    try:
        refuse_redirect(reply)
    except RedirectRefused as error:
        return error
    return api_error(reply)


def _said(exc: BaseException, target: str) -> Error:
    """Read what a vendor's own client raises for a refusal, or for an error inside a stream of status 200."""
    status = getattr(exc, "status_code", None)
    return _status(exc, target) if isinstance(status, int) and status >= 300 else ServerFailed(str(exc))


def _caused(exc: BaseException, target: str) -> Error:
    """Look at what a vendor's own client raised its error from."""
    cause = exc.__cause__
    rule = None if cause is None else _rule(cause)
    return _lost(exc, target) if cause is None or rule is None else rule(cause, target)


def _body(response: Any) -> bytes:
    try:
        return bytes(response.content)[: 64 * 1024]
    except (AttributeError, RuntimeError, TypeError):  # aiohttp keeps none, httpx says an unread one by RuntimeError
        return b""


_KINDS = {
    "ssl.SSLError": "tls",
    "ssl.CertificateError": "tls",
    "aiohttp.ClientSSLError": "tls",
    "urllib3.SSLError": "tls",
    "requests.SSLError": "tls",
    "aiohttp.ClientProxyConnectionError": "proxy",
    "aiohttp.ClientHttpProxyError": "proxy",
    "urllib3.ProxyError": "proxy",
    "requests.ProxyError": "proxy",
    "socket.gaierror": "dns",
    "urllib3.NameResolutionError": "dns",
    "aiohttp.ClientConnectorDNSError": "dns",
    "builtins.ConnectionRefusedError": "refused",
}
_CONNECT_TEXT = {
    "tls": "and this machine agree on no TLS: the certificate is not trusted here, or that port speaks no TLS; "
    "SSL_CERT_FILE names further authorities",
    "dns": "does not resolve: no such name, or no name server",
    "refused": "refused the connection: nothing listens there",
    "proxy": "failed or refused; see HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
}

_connecting = _timed_out("connect", "could not be connected to")
_reading = _timed_out("read", "sent nothing")
_queueing = _timed_out("pool", "had no free connection in the client's pool")

_INSIDE: dict[str, Rule] = {
    "urllib3.ProxyError": _proxy,
    "urllib3.SSLError": _connect,
    "ssl.SSLError": _connect,
    "urllib3.NewConnectionError": _connect,
    "socket.gaierror": _connect,
    "builtins.ConnectionRefusedError": _connect,
    "urllib3.ConnectTimeoutError": _connecting,
    "urllib3.ReadTimeoutError": _reading,
    "urllib3.EmptyPoolError": _queueing,
    "http.RemoteDisconnected": _lost,
    "http.IncompleteRead": _lost,
    "urllib3.IncompleteRead": _lost,
    "http.HTTPException": _not_http,
    "urllib3.InvalidHeader": _not_http,
    "builtins.ConnectionError": _lost,
}

# "package.Class", looked up along the type's bases, nearest first: no library is imported to know its exceptions.
_HTTPX: dict[str, Rule] = {
    "ConnectTimeout": _connecting,
    "PoolTimeout": _queueing,
    "TimeoutException": _reading,
    "ConnectError": _connect,
    "ProxyError": _proxy,
    "NetworkError": _lost,
    "RemoteProtocolError": _lost,
    "LocalProtocolError": _unsendable,
    "UnsupportedProtocol": _unsendable,
    "InvalidURL": _unsendable,
    "DecodingError": _encoding,
    "TooManyRedirects": _redirect,
    "HTTPStatusError": _status,
    "HTTPError": _other,
}
_CLIENTS: dict[str, Rule] = {
    "APIStatusError": _said,
    "APITimeoutError": _reading,
    "APIConnectionError": _caused,
    "APIResponseValidationError": _json,
    "APIError": _said,
}
_RULES: dict[str, Rule] = {
    **{
        f"{library}.{name}": rule
        for library in ("openai", "anthropic", "groq", "together", "cerebras")
        for name, rule in _CLIENTS.items()
    },
    **{
        f"{library}.{name}": rule
        for library in ("httpx", "httpx2", "httpcore", "httpcore2")
        for name, rule in _HTTPX.items()
    },
    "llm_council.NotHttp": _not_http,
    "llm_council.BodyTooLarge": _too_large,
    "aiohttp.ConnectionTimeoutError": _connecting,
    "aiohttp.ServerTimeoutError": _reading,
    "aiohttp.ClientProxyConnectionError": _proxy,
    "aiohttp.ClientHttpProxyError": _proxy,
    "aiohttp.ClientConnectorError": _connect,
    "aiohttp.ClientConnectionError": _lost,
    "aiohttp.ClientPayloadError": _lost,
    "aiohttp.TooManyRedirects": _redirect,
    "aiohttp.ContentTypeError": _json,
    "aiohttp.ClientResponseError": _status,
    "aiohttp.InvalidURL": _unsendable,
    "aiohttp.NonHttpUrlClientError": _unsendable,
    "aiohttp.ClientError": _other,
    "requests.ConnectTimeout": _connecting,
    "requests.Timeout": _reading,
    "requests.ProxyError": _proxy,
    "requests.SSLError": _connect,
    "requests.ConnectionError": _wrapped,
    "requests.ChunkedEncodingError": _lost,
    "requests.ContentDecodingError": _encoding,
    "requests.TooManyRedirects": _redirect,
    "requests.HTTPError": _status,
    "requests.JSONDecodeError": _json,
    "requests.InvalidHeader": _header,
    "requests.MissingSchema": _unsendable,
    "requests.InvalidSchema": _unsendable,
    "requests.InvalidURL": _unsendable,
    "requests.RequestException": _other,
    "urllib3.ConnectTimeoutError": _connecting,
    "urllib3.TimeoutError": _reading,
    "urllib3.EmptyPoolError": _queueing,
    "urllib3.DecodeError": _encoding,
    "urllib3.IncompleteRead": _lost,
    "urllib3.InvalidHeader": _not_http,
    "urllib3.HeaderParsingError": _not_http,
    "urllib3.LocationValueError": _unsendable,
    "urllib3.HTTPError": _wrapped,
    "ssl.SSLError": _connect,
    "socket.gaierror": _connect,
    "builtins.ConnectionRefusedError": _connect,
    "builtins.ConnectionError": _lost,
    "builtins.TimeoutError": _reading,
    "http.RemoteDisconnected": _lost,
    "http.IncompleteRead": _lost,
    "http.HTTPException": _not_http,
    "json.JSONDecodeError": _json,
}


def _rule(exc: BaseException) -> Rule | None:
    return next((_RULES[name] for name in _names(exc) if name in _RULES), None)


def _names(exc: BaseException) -> Iterator[str]:
    for cls in type(exc).__mro__:
        yield f"{cls.__module__.partition('.')[0]}.{cls.__name__}"


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and whatever it was made from: causes, contexts, groups, and exceptions given as arguments."""
    seen: set[int] = set()
    waiting = [exc]
    while waiting and len(seen) < 32:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        inner = (
            link.__cause__,
            link.__context__,
            getattr(link, "reason", None),
            getattr(link, "os_error", None),
            *link.args,
        )
        waiting += [part for part in inner if isinstance(part, BaseException)]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions


def _target(exc: BaseException) -> str:
    """Return ``host:port`` of the request that failed, as far as the exception knows it."""
    with contextlib.suppress(RuntimeError, AttributeError, TypeError, ValueError):
        request: Any = getattr(exc, "request", None) or getattr(exc, "request_info", None)
        if request is not None:
            return host_of(str(request.url))
        host, port = getattr(exc, "host", None), getattr(exc, "port", None)
        if isinstance(host, str):
            return f"{host}:{port}" if port else host
    return "the server"


def _stripped(exc: BaseException) -> BaseException:
    """Take from a foreign exception what could show a credential: traceback, causes, request and reply."""
    exc.args = tuple(redact(str(part)) if isinstance(part, str | BaseException) else part for part in exc.args)
    exc.__cause__ = exc.__context__ = None
    exc.__suppress_context__ = True
    for name, value in list(vars(exc).items()):
        if name in ("_request", "request", "response", "body"):
            setattr(exc, name, None)
        elif isinstance(value, str):  # json keeps the whole document in its error, clients keep what was said
            setattr(exc, name, "" if name == "doc" else redact(value))
    info: Any = getattr(exc, "request_info", None)
    with contextlib.suppress(AttributeError, TypeError):  # aiohttp's: its text needs the address
        headers = info.headers.copy()
        headers.clear()
        cleared = type(info)(info.url, info.method, type(info.headers)(headers), info.real_url)
        vars(exc)["request_info"] = cleared
    return exc.with_traceback(None)
