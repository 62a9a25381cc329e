"""Look up host names in daemon threads, so that a silent name server delays only the calls that asked it.

``getaddrinfo`` blocks, has no time limit of its own and cannot be cancelled. Event loops and anyio run it in a pool of
threads. There, hung look-ups would use up the threads that others need, and the process would wait for them at its end.
Here each look-up gets a thread of its own that nothing waits for.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import threading
from functools import partial
from typing import Any, Final

import anyio

from llm_council._runtime import loops

__all__ = ["MOST_PENDING", "Lookups", "is_address", "look_up"]

MOST_PENDING: Final = 256
"""Look-ups of this process that may wait at once; each costs a thread."""

_pending: set[threading.Thread] = set()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pending.clear)  # a forked child does not have these threads


def is_address(host: str) -> bool:
    """Return True for a numeric address, which needs no look-up."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


async def look_up(host: str, port: int) -> list[str]:
    """Return the numeric addresses of a host, in the order in which to try them.

    A cancellation returns at once; the thread ends when the name server answers or gives up.

    Raises:
        OSError: the name does not resolve, or no further look-up can be started.
    """
    infos = await Lookups().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # The address of a link-local IPv6 host names its interface, so that it is complete as text.
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


class Lookups:
    """The two methods of an asyncio event loop that ask the name server, in threads that nothing waits for."""

    async def getaddrinfo(self, host: str, port: int, **options: int) -> list[Any]:
        """Call ``socket.getaddrinfo``."""
        found: list[Any] = await _in_daemon_thread(partial(socket.getaddrinfo, host, port, **options))
        return found

    async def getnameinfo(self, address: Any, flags: int = 0) -> tuple[str, str]:
        """Call ``socket.getnameinfo``."""
        found: tuple[str, str] = await _in_daemon_thread(partial(socket.getnameinfo, address, flags))
        return found


async def _in_daemon_thread(function: Any) -> Any:
    if len(_pending) >= MOST_PENDING:
        raise socket.gaierror(socket.EAI_AGAIN, f"{len(_pending)} look-ups already wait for the name server")
    loop, done = loops.current(), anyio.Event()
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.extend((function(), None))
        except BaseException as error:  # noqa: BLE001 - raised below, in the task that waits
            outcome.extend((None, error))
        finally:
            _pending.discard(thread)
            loop.call_soon(done.set)  # the loop may have ended

    thread = threading.Thread(target=work, name="llm-council-lookup", daemon=True)
    _pending.add(thread)
    try:
        thread.start()
    except RuntimeError as error:
        _pending.discard(thread)
        # An OSError, which every HTTP library passes on as the failure of a connection.
        raise OSError(errno.EAGAIN, str(error)) from None
    await done.wait()
    value, failure = outcome
    outcome.clear()  # this frame becomes part of the traceback
    if failure is not None:
        raise failure
    return value
