"""Run a command and end it, with everything it started, when its time is up.

Usage: ``python .ci/limit.py SECONDS COMMAND [ARGUMENT ...]``. The exit status is the command's, or 124 when it was cut.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

STOPPED_FOR_TIME = 124
SECONDS_TO_CLEAN_UP = 15.0


def main(arguments: Sequence[str]) -> int:
    """Run ``arguments[1:]`` for at most ``arguments[0]`` seconds and return its exit status."""
    seconds, command = float(arguments[0]), list(arguments[1:])
    # A session of its own, so that the whole family can be ended; hence the terminal's Ctrl-C has to be handed on.
    process = subprocess.Popen(command, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: _signal_family(process.pid, received))
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"stopped after {seconds:g} s: {' '.join(command)}", file=sys.stderr, flush=True)
        _signal_family(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_CLEAN_UP)
        return STOPPED_FOR_TIME
    finally:
        _signal_family(process.pid, signal.SIGKILL)  # whatever outlived its parent


def _signal_family(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
