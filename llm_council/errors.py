"""The error tree. Everything that leaves the library is one of these, a cancellation or a ``KeyboardInterrupt``.

::

    CouncilError
    ├─ ConfigurationError            your call was wrong; nothing was sent
    │  ├─ UnknownOption, InvalidOption
    │  ├─ UnknownProvider, UnknownSubagent, NotAnAdapter
    │  ├─ MissingCredentials, InvalidKey
    │  ├─ MissingDependency, UntrustedConfig, PluginLoadError
    │  └─ InsideEventLoopError, UnsupportedEnvironmentError, RuntimeShutdownError
    ├─ ProviderError                 a call to a model failed
    │  ├─ TransportError
    │  │  ├─ ConnectFailed, ConnectionLost, TimedOut, RedirectRefused
    │  ├─ ProcessError
    │  │  ├─ CommandNotFound, CommandFailed
    │  ├─ ApiError                   the vendor said no
    │  │  ├─ AuthenticationFailed, PermissionRefused, OutOfCredit, RateLimited, ServerFailed
    │  │  └─ RequestRejected
    │  │     └─ ModelNotFound, ContextTooLong, RequestTooLarge
    │  ├─ ReplyError                 the vendor answered, but not with an answer
    │  │  └─ MalformedReply, EmptyReply, TruncatedReply, ReplyTooLarge, ContentFiltered
    │  ├─ CapabilityMissing
    │  └─ AdapterFailed              an adapter raised something of its own, or returned nonsense
    ├─ RunError                      why a started run failed; on ``CouncilResult.error``
    │  ├─ QuorumLost, InvalidOutput, BudgetExceeded, DeadlineExceeded
    └─ StoreError

Facts are attributes, the message is for people. Messages pass the redactor when an error is made: no key is in them.
Every error pickles, keeps its facts and drops its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Self

import attrs

from llm_council._secrets import clean

__all__ = [
    "AdapterFailed",
    "ApiError",
    "Attempt",
    "AuthenticationFailed",
    "BudgetExceeded",
    "CapabilityMissing",
    "CommandFailed",
    "CommandNotFound",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectionLost",
    "ContentFiltered",
    "ContextTooLong",
    "CouncilError",
    "DeadlineExceeded",
    "EmptyReply",
    "InsideEventLoopError",
    "InvalidKey",
    "InvalidOption",
    "InvalidOutput",
    "MalformedReply",
    "MissingCredentials",
    "MissingDependency",
    "ModelNotFound",
    "NotAnAdapter",
    "OutOfCredit",
    "PermissionRefused",
    "PluginLoadError",
    "ProcessError",
    "ProviderError",
    "QuorumLost",
    "RateLimited",
    "RedirectRefused",
    "ReplyError",
    "ReplyTooLarge",
    "RequestRejected",
    "RequestTooLarge",
    "RunError",
    "RuntimeShutdownError",
    "ServerFailed",
    "StoreError",
    "TimedOut",
    "TransportError",
    "TruncatedReply",
    "UnknownOption",
    "UnknownProvider",
    "UnknownSubagent",
    "UnsupportedEnvironmentError",
    "UntrustedConfig",
    "near",
]


@attrs.frozen(kw_only=True)
class Attempt:
    """One try of a call: when it started, how long it took, and how it ended.

    Attributes:
        at: seconds since the call was made.
        elapsed: seconds this try took.
        error: the name of the error class, or None for the try that succeeded.
        message: the error's message.
        status: the HTTP status, where there was one.
        request_id: the vendor's id of the request.
        retry_in: seconds waited before the next try; None when there was none.
    """

    at: float
    elapsed: float
    error: str | None = None
    message: str | None = None
    status: int | None = None
    request_id: str | None = None
    retry_in: float | None = None


class CouncilError(Exception):
    """Base of every error of this library.

    Args:
        message: for people; redacted, stripped of control characters and cut to 1,024 characters.
        provider: name of the provider.
        model: name of the model.
        phase: name of the phase of the run.
        run_id: id of the run.
        request_id: the vendor's id of the request.
        attempts: every try of the call, oldest first.
        elapsed: seconds from the call to this error.
        retryable: whether the same call may succeed later; None takes the class's default.
    """

    RETRYABLE: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        provider: str | None = None,
        model: str | None = None,
        phase: str | None = None,
        run_id: str | None = None,
        request_id: str | None = None,
        attempts: Iterable[Attempt] = (),
        elapsed: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(clean(message))
        self.provider = provider
        self.model = model
        self.phase = phase
        self.run_id = run_id
        self.request_id = request_id
        self.attempts = tuple(attempts)
        self.elapsed = elapsed
        self.retryable = self.RETRYABLE if retryable is None else retryable

    @property
    def message(self) -> str:
        """The text for people."""
        return str(self.args[0]) if self.args else ""

    def fill(self, **facts: Any) -> Self:
        """Set the named facts that are still None or empty, and return this error; what is known stays."""
        for name, value in facts.items():
            if not hasattr(self, name):
                raise AttributeError(f"{type(self).__name__} has no fact {name!r}")
            if getattr(self, name) in (None, ()):
                setattr(self, name, value)
        return self

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args), self.__dict__.copy()


def _restore(cls: type[CouncilError], args: tuple[Any, ...]) -> CouncilError:
    error = cls.__new__(cls, *args)
    error.args = args
    return error


def near(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to this one, or an empty string."""
    matches = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


# Configuration: your call was wrong, nothing was sent.


class ConfigurationError(CouncilError):
    """The call, the configuration or the environment is wrong; nothing was sent."""


class UnknownOption(ConfigurationError, TypeError):
    """A keyword or a configuration key that does not exist."""


class InvalidOption(ConfigurationError, ValueError):
    """A value that an option does not take."""


class UnknownProvider(ConfigurationError):
    """No provider has this name."""


class NotAnAdapter(ConfigurationError, TypeError):
    """What was given as a provider is no ``ProviderAdapter``, or lacks its name or capabilities."""


class UnknownSubagent(ConfigurationError):
    """No subagent, or no mode of it, has this name."""


class MissingCredentials(ConfigurationError):
    """A provider needs a key that is not set; the message names the variable."""


class InvalidKey(ConfigurationError):
    """A key has a character that no header can carry; the value is not shown."""


class MissingDependency(ConfigurationError):
    """An optional package is not installed; the message names the extra."""


class UntrustedConfig(ConfigurationError):
    """A project's configuration file sets something that only a trusted source may set."""


class PluginLoadError(ConfigurationError):
    """An installed plugin cannot be loaded; the message names its distribution."""


class InsideEventLoopError(ConfigurationError):
    """A blocking call was made inside a running event loop; await the async twin instead."""


class UnsupportedEnvironmentError(ConfigurationError):
    """This environment cannot work, gevent's patched threads for one; the message names the remedy."""


class RuntimeShutdownError(ConfigurationError):
    """The interpreter is exiting; no new blocking call can start."""


# Providers: a call to a model failed.


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

    def __init__(self, message: str = "", *, phase: str = "deadline", partial: str | None = None, **facts: Any) -> None:
        facts.setdefault("retryable", phase != "deadline")
        super().__init__(message, phase=phase, **facts)
        self.partial = partial


class RedirectRefused(TransportError):
    """The server redirected the request; keys and prompts do not follow."""

    RETRYABLE = False


class ProcessError(ProviderError):
    """A command-line program could not be run, or failed."""


class CommandNotFound(ProcessError):
    """The program is not installed where PATH says."""


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
        self.code = code
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


class AdapterFailed(ProviderError):
    """An adapter raised something of its own, or returned nonsense."""


# Runs: why a started run failed.


class RunError(CouncilError):
    """A started run failed; the ``CouncilResult`` that carries this error has whatever was finished."""


class QuorumLost(RunError):
    """Too few seats answered.

    Args:
        outcomes: what became of each seat: its error, or None for a seat that answered.
    """

    def __init__(
        self, message: str = "", *, outcomes: Mapping[str, CouncilError | None] | None = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.outcomes = dict(outcomes or {})


class InvalidOutput(RunError):
    """The answer never met its schema.

    Args:
        problems: what is wrong, one per failing path.
        text: the last answer.
    """

    def __init__(
        self, message: str = "", *, problems: Iterable[Any] = (), text: str | None = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.problems = tuple(problems)
        self.text = text


class BudgetExceeded(RunError):
    """A limit on money, tokens or calls was reached.

    Args:
        spent: what was spent, by the budget's words: ``usd``, ``tokens``, ``calls``.
        partial: the best text so far.
    """

    def __init__(
        self,
        message: str = "",
        *,
        spent: Mapping[str, float] | None = None,
        partial: str | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.spent = dict(spent or {})
        self.partial = partial


class DeadlineExceeded(RunError):
    """The whole-run deadline passed.

    Args:
        partial: the best text so far.
    """

    def __init__(self, message: str = "", *, partial: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.partial = partial


class StoreError(CouncilError):
    """The run store failed; a run whose answer exists carries this as a warning."""
