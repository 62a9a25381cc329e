"""Convert the exceptions of HTTP libraries and vendors' SDKs to our errors, by type."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from llm_council._wire import failures
from llm_council._wire.openai_chat import errors as openai_errors
from llm_council.errors import (
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
from llm_council.errors._shortage import shortage
from llm_council.transports._base import HttpReply, host_of, refuse_redirect
from llm_council.transports._environment import trusted_authorities

__all__ = ["api_error", "proxy_refused", "translate"]

Error = ProviderError | ConfigurationError
Rule = Callable[[BaseException, str], Error]


def translate(exc: BaseException, target: str | None = None) -> Error | None:
    """Return the typed error for an exception of another library; None if its type is unknown.

    Known are the exceptions of httpx, httpcore, aiohttp, requests, urllib3, ``ssl`` and ``socket``, of JSON decoding,
    and of the vendors' SDKs that are generated like OpenAI's. The exception becomes the ``__cause__`` of the error. Its
    type and its redacted text remain. Its traceback, its own causes and its request are removed, because they contain
    headers.

    Args:
        exc: the exception.
        target: ``host:port`` for the message; None reads it from the exception.

    Returns:
        An error to raise, with ``__cause__`` set; ``exc`` itself if it already is one of our errors.
    """
    if isinstance(exc, ProviderError | ConfigurationError):
        return exc
    rule = _find_rule(exc)
    if rule is None:
        return None
    error = rule(exc, target or _target(exc))
    error.__cause__ = _without_secrets(exc)
    return error


def api_error(reply: HttpReply, *, message: str = "", code: str | None = None) -> ProviderError:
    """Return the error for a reply with status 400 or more.

    Built-in providers and third-party adapters get the same class: by the vendor's code, then by the status. If no code
    is given, code and message are read from the body, in the shapes that servers of OpenAI's and Anthropic's dialects
    send.

    Args:
        reply: the reply.
        message: the vendor's message, if the caller has read it.
        code: the vendor's error code, if the caller has read it; the body is not read then.

    Returns:
        The error with status, code, body, request id and the seconds to wait before a retry: an ``ApiError``, or
        ``ContentFiltered`` for a withheld prompt.
    """
    now = time.time()
    if code is None:
        error = openai_errors.decode_error(reply.status, reply.headers, reply.body, message=message or None, now=now)
    else:
        headers = failures.lowered(reply.headers)
        body = failures.text_of(reply.body)
        error = failures.error_of(message, status=reply.status, code=code, headers=headers, now=now, body=body)
    # A 404 mostly means that base_url has a wrong path, so the message shows it.
    address = reply.url if reply.status == 404 else host_of(reply.url)
    if address:
        error.args = (clean(f"{address}: {error.message}"),)
    return error


# A rule gets the exception and "host:port", or "the server" if the exception does not contain it.


def _always(error: Callable[..., Error], text: str, **facts: str) -> Rule:
    """Return a rule that always makes the same error; ``text`` contains ``{target}``."""
    return lambda exc, target: error(text.format(target=target), **facts)


_lost = _always(ConnectionLost, "the connection to {target} ended before the reply did")
_not_http = _always(MalformedReply, "the reply of {target} is not HTTP, or its headers are larger than allowed")
_encoding = _always(MalformedReply, "the body of the reply of {target} does not decompress")
_json = _always(MalformedReply, "the reply is not JSON")
_redirect = _always(RedirectRefused, "{target} redirects; keys and prompts do not follow redirects")
_unsendable = _always(InvalidOption, "the request cannot be sent over HTTP: check its address and its headers")
_connecting = _always(TimedOut, "{target} did not accept the connection in time", phase="connect")
_reading = _always(TimedOut, "{target} sent nothing in time", phase="read")
_queueing = _always(TimedOut, "{target}: no connection became free in the client's pool in time", phase="pool")
_CONNECT_TEXTS = {
    "tls": "no TLS connection to {target}: its certificate is not trusted, or the port does not speak TLS",
    "proxy": "the proxy for {target} failed or refused; check HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
    "dns": "{target} does not resolve: check the name, and the name server of this machine",
    "refused": "{target} refused the connection: no server listens there",
    "other": "cannot connect to {target}",
}


def _proxy(exc: BaseException, target: str) -> Error:
    # Of the libraries, only aiohttp gives the proxy's status as a number.
    refused = any(getattr(link, "status", None) == 407 or _HTTP_407.search(str(link)) for link in _chain(exc))
    return (
        proxy_refused(target) if refused else ConnectFailed(_CONNECT_TEXTS["proxy"].format(target=target), kind="proxy")
    )


def proxy_refused(target: str) -> ConnectFailed:
    """Return the error for a proxy that answered with status 407."""
    return ConnectFailed(
        f"the proxy for {target} wants a user and a password, or refuses them (HTTP 407): write them into HTTP_PROXY "
        "or HTTPS_PROXY, as http://USER:PASSWORD@HOST:PORT",
        kind="proxy",
        retryable=False,
    )


def _connect(exc: BaseException, target: str) -> Error:
    # The outer exception is the same for all kinds; one of the exceptions that led to it tells the kind.
    names = (name for link in _chain(exc) for name in _names(link))
    kind = next((_CONNECT_KINDS[name] for name in names if name in _CONNECT_KINDS), "other")
    if kind == "proxy":
        return _proxy(exc, target)
    lacking = next(filter(None, map(shortage, _chain(exc))), None)
    if lacking:
        return ConnectFailed(f"cannot connect to {target}: {lacking}")
    text = _CONNECT_TEXTS[kind].format(target=target)
    return ConnectFailed(f"{text}; {trusted_authorities()}" if kind == "tls" else text, kind=kind)


def _wrapped(exc: BaseException, target: str) -> Error:
    """Apply the rule of an inner exception.

    requests and urllib3 raise the same class for a refused connection, a lost one and an invalid reply.
    """
    for link in _chain(exc):
        rule = _find_rule(link)
        if rule is not None and rule not in (_wrapped, _other):
            return rule(link, target)
    return _connect(exc, target)


def _too_large(exc: BaseException, target: str) -> Error:
    limit = getattr(exc, "limit", None)
    return ReplyTooLarge(f"the reply of {target} is larger than {limit} bytes", limit=limit)


def _header(exc: BaseException, target: str) -> Error:
    # requests raises one class for an invalid header of the request and of the reply; the latter comes from urllib3.
    in_reply = any("urllib3.InvalidHeader" in _names(link) for link in _chain(exc))
    return _not_http(exc, target) if in_reply else _unsendable(exc, target)


def _other(exc: BaseException, target: str) -> Error:
    return TransportError(f"the request to {target} failed ({type(exc).__name__})")


def _status(exc: BaseException, target: str) -> Error:
    """Read the status from ``response`` (httpx, requests, SDKs) or from the exception itself (aiohttp)."""
    # aiohttp's parser raises a ClientResponseError with status 400 for a reply that it cannot parse.
    if any(name == "aiohttp.HttpProcessingError" for link in _chain(exc) for name in _names(link)):
        return _not_http(exc, target)
    response: Any = getattr(exc, "response", None)
    source = exc if response is None else response
    status = getattr(source, "status_code", None) or getattr(source, "status", None) or 0
    if not isinstance(status, int) or status < 300:
        return _other(exc, target)
    headers = {str(name).lower(): str(value) for name, value in dict(getattr(source, "headers", None) or {}).items()}
    url = getattr(source, "url", None) or getattr(getattr(exc, "request_info", None), "real_url", "")
    try:
        body = bytes(response.content)[: failures.MAX_ERROR_BODY]
    except (
        AttributeError,
        RuntimeError,
        TypeError,
    ):  # aiohttp has no body; httpx raises RuntimeError for an unread one
        body = b""
    reply = HttpReply(status=status, headers=headers, body=body, url=str(url))
    try:
        refuse_redirect(reply)
    except RedirectRefused as error:
        return error
    return api_error(reply)


def _sdk_error(exc: BaseException, target: str) -> Error:
    """Read an SDK's error: a refused request, or an error event inside a stream, whose status is 200."""
    status = getattr(exc, "status_code", None)
    return _status(exc, target) if isinstance(status, int) and status >= 300 else ServerFailed(str(exc))


def _sdk_connection_error(exc: BaseException, target: str) -> Error:
    """Apply the rule of the exception that the SDK raised its own from."""
    cause = exc.__cause__
    rule = None if cause is None else _find_rule(cause)
    return _lost(exc, target) if cause is None or rule is None else rule(cause, target)


_HTTP_407 = re.compile(r"\b407\b")
_CONNECT_KINDS = {
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

# Rules by "package.Class". The bases of an exception's class are tried in the order of its MRO. Classes are compared by
# name, so that no library is imported.
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
_SDKS: dict[str, Rule] = {
    "APIStatusError": _sdk_error,
    "APITimeoutError": _reading,
    "APIConnectionError": _sdk_connection_error,
    "APIResponseValidationError": _json,
    "APIError": _sdk_error,
}
_RULES: dict[str, Rule] = {
    **{
        f"{library}.{name}": rule
        for library in ("openai", "anthropic", "groq", "together", "cerebras")
        for name, rule in _SDKS.items()
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
    "urllib3.NewConnectionError": _connect,
    "urllib3.ProxyError": _proxy,
    "urllib3.SSLError": _connect,
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


def _find_rule(exc: BaseException) -> Rule | None:
    return next((_RULES[name] for name in _names(exc) if name in _RULES), None)


def _names(exc: BaseException) -> Iterator[str]:
    for cls in type(exc).__mro__:
        yield f"{cls.__module__.partition('.')[0]}.{cls.__name__}"


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all exceptions inside it: causes, contexts, groups and arguments, the nearest first."""
    seen: set[int] = set()
    waiting = [exc]
    while waiting and len(seen) < 32:  # chains can be long or circular
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        inner = (
            link.__cause__,
            link.__context__,
            getattr(link, "reason", None),  # of urllib3.MaxRetryError
            getattr(link, "os_error", None),  # of aiohttp.ClientConnectorError
            *link.args,
        )
        waiting += [part for part in inner if isinstance(part, BaseException)]
        if isinstance(link, BaseExceptionGroup):  # anyio raises one if all addresses of a name fail
            waiting += link.exceptions


def _target(exc: BaseException) -> str:
    """Return ``host:port`` of the failed request, or "the server" if the exception does not contain it."""
    with contextlib.suppress(RuntimeError, AttributeError, TypeError, ValueError):
        request: Any = getattr(exc, "request", None) or getattr(exc, "request_info", None)
        if request is not None:
            return host_of(str(request.url))
        host, port = getattr(exc, "host", None), getattr(exc, "port", None)
        if isinstance(host, str):
            return f"{host}:{port}" if port else host
    return "the server"


def _without_secrets(exc: BaseException) -> BaseException:
    """Remove from an exception all that may contain a credential: traceback, causes, request and response."""
    exc.args = tuple(redact(str(part)) if isinstance(part, str | BaseException) else part for part in exc.args)
    exc.__cause__ = exc.__context__ = None
    exc.__suppress_context__ = True
    for name, value in list(vars(exc).items()):
        if name in ("_request", "request", "response", "body"):
            setattr(exc, name, None)
        elif isinstance(value, str):  # JSONDecodeError.doc is the whole document; SDKs have the message as an attribute
            setattr(exc, name, "" if name == "doc" else redact(value))
    info: Any = getattr(exc, "request_info", None)
    with contextlib.suppress(AttributeError, TypeError):
        # aiohttp's str() reads the URL from request_info, so only the headers of it are removed.
        headers = info.headers.copy()
        headers.clear()
        vars(exc)["request_info"] = type(info)(info.url, info.method, type(info.headers)(headers), info.real_url)
    return exc.with_traceback(None)
