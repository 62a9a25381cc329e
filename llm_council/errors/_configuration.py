"""Your call was wrong; nothing was sent."""

from __future__ import annotations

from typing import Any

from llm_council.errors._base import CouncilError

__all__ = [
    "ConfigurationError",
    "InsideEventLoopError",
    "InvalidKey",
    "InvalidOption",
    "MissingCredentials",
    "MissingDependency",
    "NotAnAdapter",
    "PluginLoadError",
    "RuntimeShutdownError",
    "UnknownOption",
    "UnknownProvider",
    "UnknownSubagent",
    "UnsupportedEnvironmentError",
    "UntrustedConfig",
]


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
    """A project's configuration file sets something that only a trusted source may set.

    Args:
        path: the file.
        field: what it sets.
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
    """This environment cannot work, gevent's patched threads for one; the message names the remedy."""


class RuntimeShutdownError(ConfigurationError):
    """The interpreter is exiting; no new blocking call can start."""
