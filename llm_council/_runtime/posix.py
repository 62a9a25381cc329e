"""What of POSIX this platform lacks. Windows has no process groups, file locks of its kind, and SIGKILL."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from typing import Final

from llm_council.errors import UnsupportedEnvironmentError

__all__ = ["missing", "require_posix"]

_NEEDED: Final = {"os.fork": (os, "fork"), "os.killpg": (os, "killpg"), "signal.SIGKILL": (signal, "SIGKILL")}


def missing() -> tuple[str, ...]:
    """Return the names of what programs of this package's need and this platform does not have."""
    names = [name for name, (module, attribute) in _NEEDED.items() if not hasattr(module, attribute)]
    # A module that is None in sys.modules cannot be imported; find_spec would raise for it.
    has_locks = sys.modules.get("fcntl", "") is not None and importlib.util.find_spec("fcntl") is not None
    return (*(() if has_locks else ("fcntl",)), *names)


def require_posix(feature: str) -> None:
    """Check that this platform can start, end and lock as a feature needs.

    Args:
        feature: what needs it, with its verb: ``"command-line agents need"``.

    Raises:
        UnsupportedEnvironmentError: something is missing; the message names it and the ways on.
    """
    lacks = missing()
    if lacks:
        raise UnsupportedEnvironmentError(
            f"{feature} {', '.join(lacks)}, which Python on this platform ({sys.platform}) does not have: run this"
            " program on Linux, macOS or in the Windows Subsystem for Linux, or use providers with an HTTP address"
        )
