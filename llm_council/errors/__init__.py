"""The error tree. The library raises only these, cancellations and ``KeyboardInterrupt``.

::

    CouncilError
    ├─ ConfigurationError            the call or its configuration is wrong; nothing was sent
    │  ├─ UnknownOption, InvalidOption
    │  │  └─ InvalidTaskSet (an InvalidOption)
    │  ├─ UnknownProvider, UnknownSubagent, NotAnAdapter
    │  ├─ MissingCredentials, InvalidKey
    │  ├─ MissingDependency, UntrustedConfig, PluginLoadError
    │  └─ InsideEventLoopError, UnsupportedEnvironmentError, RuntimeShutdownError
    ├─ ProviderError                 a call to a model failed
    │  ├─ TransportError
    │  │  ├─ ConnectFailed, ConnectionLost, TimedOut, RedirectRefused
    │  ├─ ProcessError
    │  │  ├─ CommandNotFound (a ConfigurationError, too), CommandFailed
    │  ├─ ApiError                   the vendor refused the request or failed
    │  │  ├─ AuthenticationFailed, PermissionRefused, OutOfCredit, RateLimited, ServerFailed
    │  │  └─ RequestRejected
    │  │     └─ ModelNotFound, ContextTooLong, RequestTooLarge
    │  ├─ ReplyError                 the vendor replied, but the reply holds no usable answer
    │  │  └─ MalformedReply, EmptyReply, TruncatedReply, ReplyTooLarge, ContentFiltered
    │  ├─ CapabilityMissing (CapabilityRefused is a RequestRejected too), NotCached
    │  ├─ BatchIncomplete            a batch job ended without an outcome of the call
    │  ├─ DeadlineTooShort           an InvalidOption, too: the provider needs more time
    │  └─ AdapterFailed              an adapter raised an error of its own, or returned an invalid value
    ├─ RunError                      why a started run failed; on ``CouncilResult.error``
    │  └─ QuorumLost, InvalidOutput, BudgetExceeded, DeadlineExceeded, StrategyFailed, Abstained, TaskFailed, WorkerLost
    └─ StoreError

Facts are attributes; the message is for people. A message is redacted when the error is made, so it contains no key.
Every error can be pickled: the copy has its facts and no traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar, Self

import attrs

from llm_council.errors._secrets import PartialText, clean

__all__ = [
    "Abstained",
    "AdapterFailed",
    "ApiError",
    "Attempt",
    "AuthenticationFailed",
    "BatchIncomplete",
    "BudgetExceeded",
    "CapabilityMissing",
    "CapabilityRefused",
    "CommandFailed",
    "CommandNotFound",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectionLost",
    "ContentFiltered",
    "ContextTooLong",
    "CouncilError",
    "DeadlineExceeded",
    "DeadlineTooShort",
    "EmptyReply",
    "InsideEventLoopError",
    "InvalidKey",
    "InvalidOption",
    "InvalidOutput",
    "InvalidTaskSet",
    "MalformedReply",
    "MissingCredentials",
    "MissingDependency",
    "ModelNotFound",
    "NotAnAdapter",
    "NotCached",
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
    "StrategyFailed",
    "TaskFailed",
    "TimedOut",
    "TransportError",
    "TruncatedReply",
    "UnknownOption",
    "UnknownProvider",
    "UnknownSubagent",
    "UnsupportedEnvironmentError",
    "UntrustedConfig",
    "WorkerLost",
    "near",
]

_ID_LIMIT = 256  # characters; a longer id of a vendor is cut


@attrs.frozen(kw_only=True, slots=False)
class Attempt:
    """One try of a call: its start, duration and outcome.

    Attributes:
        at: seconds from the start of the call to the start of this try.
        elapsed: duration of this try in seconds.
        error: the name of the error class; None for the try that succeeded.
        message: the error's message.
        status: the HTTP status; None if there was none.
        request_id: the vendor's id of the request.
        retry_in: seconds before the next try; None for the last try.
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
        message: text for people; it is redacted, freed of control characters and cut to 1,024 characters.
        provider: name of the provider.
        model: name of the model.
        phase: name of the phase of the run.
        run_id: id of the run.
        request_id: the vendor's id of the request.
        attempts: all tries of the call, oldest first.
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
        # Messages quote vendors and authors, who may quote a key.
        super().__init__(clean(message))
        self.provider = provider
        self.model = model
        self.phase = phase
        self.run_id = run_id
        self.request_id = None if request_id is None else clean(request_id, limit=_ID_LIMIT)
        self.attempts = tuple(attempts)
        self.elapsed = elapsed
        self.retryable = self.RETRYABLE if retryable is None else retryable

    @property
    def message(self) -> str:
        """The text for people."""
        return str(self.args[0]) if self.args else ""

    def fill(self, **facts: Any) -> Self:
        """Set those of the named facts that are still None or empty, and return this error."""
        for name, value in facts.items():
            known = vars(self)  # not getattr: that would join the pieces of a partial text
            if name not in known and not hasattr(self, name):
                raise AttributeError(f"{type(self).__name__} has no fact {name!r}")
            if (known[name] if name in known else getattr(self, name)) in (None, ()):
                setattr(self, name, clean(value, limit=_ID_LIMIT) if name == "request_id" and value else value)
        return self

    def _reword(self, message: str) -> Self:
        """Replace the message, redacted and cut like every message, and return this error."""
        self.args = (clean(message), *self.args[1:])
        return self

    def __str__(self) -> str:
        return self.message

    # The default calls the constructor with ``args`` alone, without the keywords that a subclass may require.
    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args), self.__dict__.copy()


def _restore(cls: type[CouncilError], args: tuple[Any, ...]) -> CouncilError:
    # Without the constructor, whose required keywords are not in ``args``; the state follows from ``__reduce__``.
    error = cls.__new__(cls, *args)
    error.args = args
    return error


def failed_attempt(
    error: CouncilError, *, at: float, elapsed: float, retry_in: float | None = None, message: str | None = None
) -> Attempt:
    """Return the attempt that ended with an error; ``message`` replaces the error's own."""
    return Attempt(
        at=at,
        elapsed=elapsed,
        error=type(error).__name__,
        message=message or error.message,
        status=getattr(error, "status", None),
        request_id=error.request_id,
        retry_in=retry_in,
    )


def near(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the most similar known word, or an empty string if none is similar."""
    # 0.6 is difflib's own limit for a similar word.
    matches = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


class ConfigurationError(CouncilError):
    """The call, the configuration or the environment is wrong; nothing was sent."""


# Also a TypeError, which Python itself raises for an unknown keyword.
class UnknownOption(ConfigurationError, TypeError):
    """A keyword or configuration key does not exist."""


class InvalidOption(ConfigurationError, ValueError):
    """An option has a value that it does not accept."""


class InvalidTaskSet(InvalidOption):
    """A set of evaluation tasks cannot be read; the message names the line and the remedy.

    Args:
        path: the file.
        faults: the lines that are wrong, from 1, each with what is wrong; 0 stands for the file as a whole.
    """

    def __init__(
        self,
        message: str = "",
        *,
        path: str | None = None,
        faults: Sequence[tuple[int, str]] = (),
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.path = None if path is None else clean(path)
        self.faults = tuple((line, clean(fault)) for line, fault in faults)

    @property
    def line(self) -> int | None:
        """The first line that is wrong; None if it is the file as a whole, or a task without a file."""
        return (self.faults[0][0] or None) if self.faults else None


class UnknownProvider(ConfigurationError):
    """No provider has this name."""


class NotAnAdapter(ConfigurationError, TypeError):
    """An object passed as a provider is no ``ProviderAdapter``, or has no name or capabilities."""


class UnknownSubagent(ConfigurationError):
    """No subagent, or no mode of it, has this name."""


class MissingCredentials(ConfigurationError):
    """One or more providers need keys that are not set; the message names each environment variable.

    Attributes:
        variables: the environment variables to set; empty for a key that has none.
    """

    variables: tuple[str, ...] = ()
    _joined: tuple[MissingCredentials, ...] = ()

    @classmethod
    def joined(cls, errors: Sequence[MissingCredentials]) -> MissingCredentials:
        """Return one error for all of them, so that every variable can be set at once; a single one is unchanged."""
        single = {part.message: part for error in errors for part in error._joined or (error,)}
        if len(single) == 1:
            return next(iter(single.values()))
        needs = []
        for part in single.values():
            whose = f" ({part.provider})" if part.provider else ""
            needs.append(f"{', '.join(part.variables)}{whose}" if part.variables else part.message)
        variables = dict.fromkeys(name for part in single.values() for name in part.variables)
        error = cls(f"{len(single)} keys are missing: set {', '.join(needs)}")
        return error.fill(variables=tuple(variables), _joined=tuple(single.values()))


class InvalidKey(ConfigurationError):
    """A key has a character that a header cannot contain; the message does not show the key."""


class MissingDependency(ConfigurationError):
    """An optional package is not installed; the message names the extra."""


class UntrustedConfig(ConfigurationError):
    """A project's configuration file sets an option that only a trusted source may set.

    Args:
        path: the file.
        field: the option.
    """

    def __init__(self, message: str = "", *, path: str | None = None, field: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.path = path
        self.field = field


class PluginLoadError(ConfigurationError):
    """An installed plugin cannot be loaded; the message names its distribution."""


class InsideEventLoopError(ConfigurationError):
    """A blocking call was made inside a running event loop; await the async twin instead."""


class UnsupportedEnvironmentError(ConfigurationError):
    """The library cannot work in this environment, such as threads patched by gevent; the message names a remedy."""


class RuntimeShutdownError(ConfigurationError):
    """The interpreter is exiting, or ``shutdown`` ended the call."""


class ProviderError(CouncilError):
    """A call to a model failed.

    Args:
        retry_after: seconds to wait before the next try, if the vendor named them.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class TransportError(ProviderError):
    """The request or the reply could not be transferred, or the reply was not HTTP."""

    RETRYABLE = True


class ConnectFailed(TransportError):
    """No connection could be made.

    Args:
        kind: ``"refused"``, ``"dns"``, ``"tls"``, ``"proxy"`` or ``"other"``; TLS failures are not retryable.
    """

    def __init__(self, message: str = "", *, kind: str = "other", **facts: Any) -> None:
        # A refused certificate stays refused; the other causes may pass.
        facts.setdefault("retryable", kind != "tls")
        super().__init__(message, **facts)
        self.kind = kind


class ConnectionLost(TransportError):
    """The connection ended before the reply was complete."""


class TimedOut(TransportError):
    """A time limit was reached.

    Args:
        phase: the limit: ``"connect"``, ``"read"``, ``"idle"``, ``"pool"`` or ``"deadline"``. Only on this class the
            attribute has this meaning; the phase of the run is in the seat's report.
        partial: the text that had arrived.
    """

    partial = PartialText()

    def __init__(self, message: str = "", *, phase: str = "deadline", partial: str | None = None, **facts: Any) -> None:
        # After its deadline a call has no time left for another try.
        facts.setdefault("retryable", phase != "deadline")
        super().__init__(message, phase=phase, **facts)
        self.partial = partial


class RedirectRefused(TransportError):
    """The server redirected the request; keys and prompts are not sent to another address."""

    RETRYABLE = False  # the server would redirect the next try as well


class ProcessError(ProviderError):
    """A command-line program could not be run, or failed."""


# Also a ConfigurationError, because the remedy is to install the program or to name its path.
class CommandNotFound(ProcessError, ConfigurationError):
    """The program was not found on PATH; nothing was sent."""


class CommandFailed(ProcessError):
    """The program ended with an error.

    Args:
        exit_code: its exit status; negative for a signal.
        stderr_tail: the end of its standard error, at most 64 KiB, redacted.
    """

    def __init__(self, message: str = "", *, exit_code: int | None = None, stderr_tail: str = "", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.exit_code = exit_code
        self.stderr_tail = clean(stderr_tail, limit=64 * 1024)


class ApiError(ProviderError):
    """The vendor refused or failed.

    Args:
        status: the HTTP status; for an error inside a 200 reply, the status that its code stands for.
        code: the vendor's error code.
        body: the vendor's body, at most 64 KiB, redacted.
        partial: the text that had arrived before an error within a stream.
    """

    partial = PartialText()

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
        # The vendor chooses the text of a code, so it may quote a key as a message may.
        self.code = code and clean(code)
        self.body = clean(body, limit=64 * 1024)
        self.partial = partial


class AuthenticationFailed(ApiError):
    """The key is wrong or expired."""


class PermissionRefused(ApiError):
    """The key is valid, but not allowed to do this."""


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
    """The vendor does not know the model, or does not allow this key to use it."""


class ContextTooLong(RequestRejected):
    """The prompt is longer than the model's context."""


class RequestTooLarge(RequestRejected):
    """The request has more bytes than the vendor accepts."""


class ReplyError(ProviderError):
    """The vendor replied, but the reply holds no usable answer.

    Args:
        status: the HTTP status, if the vendor sent an error instead of a reply.
        code: the vendor's error code, if it sent one.
        body: the vendor's body in that case, at most 64 KiB, redacted.
        partial: the text that had arrived.
    """

    partial = PartialText()

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


class MalformedReply(ReplyError):
    """The reply does not follow the vendor's own format, or the vendor found no valid answer in what the model wrote.

    Args:
        path: the JSON path of the defect, such as ``$.choices[0].message``.
    """

    RETRYABLE = True

    def __init__(self, message: str = "", *, path: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.path = path


class EmptyReply(ReplyError):
    """The reply holds no text and no tool call."""

    RETRYABLE = True  # models sample: the next reply may hold an answer


class TruncatedReply(ReplyError):
    """The reply was cut; ``partial`` holds the text that had arrived."""

    RETRYABLE = True


class ReplyTooLarge(ReplyError):
    """The reply, or one event of its stream, is larger than allowed.

    Args:
        limit: the limit in bytes.
    """

    def __init__(self, message: str = "", *, limit: int | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.limit = limit


class ContentFiltered(ReplyError):
    """The vendor's filter blocked the prompt or the answer, or the model refused."""


class CapabilityMissing(ProviderError):
    """The provider or the model cannot do what the request needs.

    Args:
        capability: the missing capability, such as ``"tool_use"``; None if the vendor does not say which.
    """

    def __init__(self, message: str = "", *, capability: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.capability = capability


# Both, because the vendor rejected the request, and another provider may accept it.
class CapabilityRefused(RequestRejected, CapabilityMissing):
    """The vendor rejects the request, because the model cannot do what it needs."""


class NotCached(ProviderError):
    """Only cached answers were allowed, and there is none for this request; nothing was sent."""


class BatchIncomplete(ProviderError):
    """A batch job ended without an outcome of this call: it expired, was cancelled, failed, or lost its results.

    Args:
        job: the vendor's id of the job.
        reason: ``"expired"``, ``"cancelled"``, ``"failed"``, or ``"missing"`` if the vendor has no outcome.
    """

    RETRYABLE = True

    def __init__(self, message: str = "", *, job: str | None = None, reason: str = "missing", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.job = job
        self.reason = reason


# Also an InvalidOption, because the remedy is another deadline; as a ProviderError it lets a failover go on.
class DeadlineTooShort(ProviderError, InvalidOption):
    """A call has less time than its provider may take, as in a batch job; nothing was sent."""


class AdapterFailed(ProviderError):
    """An adapter raised an error of its own, or returned an invalid value."""


class RunError(CouncilError):
    """A started run failed; the ``CouncilResult`` with this error holds the finished parts."""


class QuorumLost(RunError):
    """Too few seats answered.

    Args:
        outcomes: for each seat its error, or None if it answered.
    """

    def __init__(
        self, message: str = "", *, outcomes: Mapping[str, CouncilError | None] | None = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.outcomes = dict(outcomes or {})  # a copy: the run's own table may still change


class InvalidOutput(RunError):
    """The answer does not match its schema, even after repair.

    Args:
        problems: one per path that fails validation.
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
        spent: the amounts spent, by ``usd``, ``tokens`` and ``calls``.
        partial: the best text so far.
        scope: what the limit is of: ``"run"``, or ``"map"`` for all runs of a map together.
    """

    def __init__(
        self,
        message: str = "",
        *,
        spent: Mapping[str, float] | None = None,
        partial: str | None = None,
        scope: str = "run",
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.spent = dict(spent or {})
        self.partial = partial
        self.scope = scope


class DeadlineExceeded(RunError):
    """The deadline of the run passed.

    Args:
        partial: the best text so far.
    """

    def __init__(self, message: str = "", *, partial: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.partial = partial


class Abstained(RunError):
    """The council gives no answer, because its seats do not agree or none could be read; the result has their votes."""


class StrategyFailed(RunError):
    """A strategy raised an error of its own, returned no verdict, or did what its plan does not say."""


class TaskFailed(RunError):
    """A task of ``Council.map`` is wrong, or its run raised an error in place of a result.

    Args:
        cause: name of the class of that error, such as ``"UnknownSubagent"``; the message is that of the error.
    """

    def __init__(self, message: str = "", *, cause: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.cause = cause


class WorkerLost(RunError):
    """Two workers of an executor were lost while they ran the chunk of a task; its runs may have been paid."""


class StoreError(CouncilError):
    """The run store failed; a run that has an answer reports this as a warning.

    Args:
        kind: ``"full"``, ``"locked"``, ``"corrupt"``, ``"denied"``, ``"missing"`` (there is no such file),
            ``"unreachable"`` (the server or its database),
            ``"newer"`` (a later version wrote it), ``"foreign"`` (it is another program's), ``"unknown-run"``,
            ``"running"`` (elsewhere, at this moment), ``"diverged"`` (a replay that asks what was never answered) or
            ``"other"``.
    """

    def __init__(self, message: str = "", *, kind: str = "other", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.kind = kind
