"""A call to a model failed."""

from __future__ import annotations

from typing import Any

from llm_council.errors._base import CouncilError
from llm_council.errors._configuration import ConfigurationError
from llm_council.errors._partial import Partial
from llm_council.errors._secrets import clean

__all__ = [
    "AdapterFailed",
    "ApiError",
    "AuthenticationFailed",
    "CapabilityMissing",
    "CommandFailed",
    "CommandNotFound",
    "ConnectFailed",
    "ConnectionLost",
    "ContentFiltered",
    "ContextTooLong",
    "EmptyReply",
    "MalformedReply",
    "ModelNotFound",
    "NotCached",
    "OutOfCredit",
    "PermissionRefused",
    "ProcessError",
    "ProviderError",
    "RateLimited",
    "RedirectRefused",
    "ReplyError",
    "ReplyTooLarge",
    "RequestRejected",
    "RequestTooLarge",
    "ServerFailed",
    "TimedOut",
    "TransportError",
    "TruncatedReply",
]


class ProviderError(CouncilError):
    """A call to a model failed.

    Args:
        retry_after: seconds the vendor asked us to wait, where it did.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class TransportError(ProviderError):
    """Bytes could not be moved, or were not HTTP."""

    RETRYABLE = True


class ConnectFailed(TransportError):
    """No connection could be made.

    Args:
        kind: ``"refused"``, ``"dns"``, ``"tls"``, ``"proxy"`` or ``"other"``; TLS failures are not retryable.
    """

    def __init__(self, message: str = "", *, kind: str = "other", **facts: Any) -> None:
        facts.setdefault("retryable", kind != "tls")
        super().__init__(message, **facts)
        self.kind = kind


class ConnectionLost(TransportError):
    """The connection ended before the reply did."""


class TimedOut(TransportError):
    """Time ran out.

    Args:
        phase: what was waited for: ``"connect"``, ``"read"``, ``"idle"``, ``"pool"`` or ``"deadline"``. On this class
            alone the attribute says this; the phase of the run stands in the seat's report.
        partial: the text that had arrived.
    """

    partial = Partial()

    def __init__(self, message: str = "", *, phase: str = "deadline", partial: str | None = None, **facts: Any) -> None:
        facts.setdefault("retryable", phase != "deadline")
        super().__init__(message, phase=phase, **facts)
        self.partial = partial


class RedirectRefused(TransportError):
    """The server redirected the request; keys and prompts do not follow."""

    RETRYABLE = False


class ProcessError(ProviderError):
    """A command-line program could not be run, or failed."""


class CommandNotFound(ProcessError, ConfigurationError):
    """The program is not installed where PATH says; nothing was sent."""


class CommandFailed(ProcessError):
    """The program ended with an error.

    Args:
        exit_code: its exit status; negative for a signal.
        stderr_tail: the end of what it wrote to stderr.
    """

    def __init__(self, message: str = "", *, exit_code: int | None = None, stderr_tail: str = "", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.exit_code = exit_code
        self.stderr_tail = clean(stderr_tail, limit=64 * 1024)


class ApiError(ProviderError):
    """The vendor refused or failed.

    Args:
        status: the HTTP status; for an error inside a 200, the status its code stands for.
        code: the vendor's machine code.
        body: the vendor's body, at most 64 KiB, redacted.
        partial: the text that had arrived, for an error in the middle of a stream.
    """

    partial = Partial()

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        body: str = "",
        partial: str | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.status = status
        self.code = code and clean(code)
        self.body = clean(body, limit=64 * 1024)
        self.partial = partial


class AuthenticationFailed(ApiError):
    """The key is wrong or expired."""


class PermissionRefused(ApiError):
    """The key is right, but may not do this."""


class OutOfCredit(ApiError):
    """The account has no credit or quota left; waiting does not help."""


class RateLimited(ApiError):
    """Too many requests; waiting helps."""

    RETRYABLE = True


class ServerFailed(ApiError):
    """The vendor's server failed or is overloaded."""

    RETRYABLE = True


class RequestRejected(ApiError):
    """The vendor does not accept this request."""


class ModelNotFound(RequestRejected):
    """The vendor does not know the model, or the key may not use it."""


class ContextTooLong(RequestRejected):
    """The prompt is longer than the model's context."""


class RequestTooLarge(RequestRejected):
    """The request has more bytes than the vendor takes."""


class ReplyError(ProviderError):
    """The vendor answered, but not with an answer.

    Args:
        partial: the text that had arrived.
    """

    partial = Partial()

    def __init__(self, message: str = "", *, partial: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.partial = partial


class MalformedReply(ReplyError):
    """The reply breaks the vendor's own format.

    Args:
        path: where, as a JSON path such as ``$.choices[0].message``.
    """

    RETRYABLE = True

    def __init__(self, message: str = "", *, path: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.path = path


class EmptyReply(ReplyError):
    """The reply holds no text and no tool call."""

    RETRYABLE = True


class TruncatedReply(ReplyError):
    """The reply was cut; ``partial`` holds what had arrived."""

    RETRYABLE = True


class ReplyTooLarge(ReplyError):
    """The reply, or one event of it, is larger than allowed.

    Args:
        limit: the limit in bytes.
    """

    def __init__(self, message: str = "", *, limit: int | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.limit = limit


class ContentFiltered(ReplyError):
    """The vendor's filter withheld the answer, or the model refused."""


class CapabilityMissing(ProviderError):
    """The provider cannot do what the request needs.

    Args:
        capability: the word for it, such as ``"tool_use"``.
    """

    def __init__(self, message: str = "", *, capability: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.capability = capability


class NotCached(ProviderError):
    """Only a cached answer was wanted, and there is none; nothing was sent."""


class AdapterFailed(ProviderError):
    """An adapter raised something of its own, or returned nonsense."""
