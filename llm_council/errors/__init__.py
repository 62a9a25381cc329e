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
    │  │  ├─ CommandNotFound (a ConfigurationError, too), CommandFailed
    │  ├─ ApiError                   the vendor said no
    │  │  ├─ AuthenticationFailed, PermissionRefused, OutOfCredit, RateLimited, ServerFailed
    │  │  └─ RequestRejected
    │  │     └─ ModelNotFound, ContextTooLong, RequestTooLarge
    │  ├─ ReplyError                 the vendor answered, but not with an answer
    │  │  └─ MalformedReply, EmptyReply, TruncatedReply, ReplyTooLarge, ContentFiltered
    │  ├─ CapabilityMissing, NotCached
    │  └─ AdapterFailed              an adapter raised something of its own, or returned nonsense
    ├─ RunError                      why a started run failed; on ``CouncilResult.error``
    │  ├─ QuorumLost, InvalidOutput, BudgetExceeded, DeadlineExceeded
    └─ StoreError

Facts are attributes, the message is for people. Messages pass the redactor when an error is made: no key is in them.
Every error pickles, keeps its facts and drops its traceback.
"""

from __future__ import annotations

from llm_council.errors._base import Attempt, CouncilError, near
from llm_council.errors._configuration import (
    ConfigurationError,
    InsideEventLoopError,
    InvalidKey,
    InvalidOption,
    MissingCredentials,
    MissingDependency,
    NotAnAdapter,
    PluginLoadError,
    RuntimeShutdownError,
    UnknownOption,
    UnknownProvider,
    UnknownSubagent,
    UnsupportedEnvironmentError,
    UntrustedConfig,
)
from llm_council.errors._provider import (
    AdapterFailed,
    ApiError,
    AuthenticationFailed,
    CapabilityMissing,
    CommandFailed,
    CommandNotFound,
    ConnectFailed,
    ConnectionLost,
    ContentFiltered,
    ContextTooLong,
    EmptyReply,
    MalformedReply,
    ModelNotFound,
    NotCached,
    OutOfCredit,
    PermissionRefused,
    ProcessError,
    ProviderError,
    RateLimited,
    RedirectRefused,
    ReplyError,
    ReplyTooLarge,
    RequestRejected,
    RequestTooLarge,
    ServerFailed,
    TimedOut,
    TransportError,
    TruncatedReply,
)
from llm_council.errors._run import BudgetExceeded, DeadlineExceeded, InvalidOutput, QuorumLost, RunError, StoreError

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

for _name in __all__:  # tracebacks and pickles name the place that users import from
    globals()[_name].__module__ = __name__
