"""A fake vendor on a loopback socket. It writes HTTP/1.1 itself, since HTTP servers do not misbehave on demand."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from llm_council.testing.servers._exchange import Asked, Ending, Sent

if TYPE_CHECKING:
    from llm_council.testing.servers._vendor import FakeVendor

__all__ = ["Loopback"]

_JOIN = 10.0  # seconds for a connection's thread to end


class Loopback:
    """Serves on 127.0.0.1 inside ``with``, with one thread for each connection.

    Args:
        vendor: decides the replies.

    Attributes:
        port: the port that it listens on.
    """

    def __init__(self, vendor: FakeVendor) -> None:
        self._vendor = vendor
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._closing = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        # Daemon threads: a test that fails inside ``with`` must not keep the interpreter from its exit.
        self._threads = [threading.Thread(target=self._accept, name="fake-vendor", daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing = True
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            pass  # a connection ends accept(); on Linux, closing the socket from another thread does not
        self._threads[0].join(_JOIN)
        self._listener.close()
        with self._lock:
            for sock in self._open:  # ends the threads that wait for a request, or for a client to leave
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(_JOIN)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self._closing:
                sock.close()
                return
            with self._lock:
                self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), name="fake-vendor", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            # Without this, Nagle's algorithm may hold small chunks back until the client acknowledges the ones before.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with sock.makefile("rb") as arriving:
                while (asked := read_request(arriving)) is not None:
                    if not self._answer(sock, self._vendor.reply(asked)):
                        return
        except (OSError, ValueError):  # the client left, or did not speak HTTP
            return
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _answer(self, sock: socket.socket, sent: Sent) -> bool:
        """Send a reply; return True if the connection can be used again."""
        try:
            stays = _stays(sock, sent.delay)
            if stays and not sent.silent:
                _send(sock, sent)
            if stays and sent.ending is Ending.HANG:
                stays = _stays(sock, None)
        except OSError:
            stays = False
        self._vendor.end(left=not stays)
        return stays and sent.ending is Ending.WHOLE


def read_request(arriving: BinaryIO) -> Asked | None:
    """Read one request; return None if the client has closed the connection.

    Raises:
        ValueError: the client did not speak HTTP.
    """
    # 65536 bytes are the longest line that Python's ``http.client`` reads, too.
    line = arriving.readline(65536).decode("latin-1").strip()
    if not line:
        return None
    method, target, _ = line.split(" ", 2)
    headers: dict[str, str] = {}
    while (line := arriving.readline(65536).decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    # requests and aiohttp send bodies of unknown length in chunks.
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b"".join(iter(lambda: _chunk(arriving), b""))
    else:
        body = arriving.read(int(headers.get("content-length", "0")))
    path, _, query = target.partition("?")
    return Asked(method=method, path=path, query=query, headers=headers, body=body)


def _chunk(arriving: BinaryIO) -> bytes:
    size = int(arriving.readline(1024).partition(b";")[0], 16)
    data = arriving.read(size)
    arriving.readline(1024)
    return data


def _send(sock: socket.socket, sent: Sent) -> None:
    lines = [f"HTTP/1.1 {sent.status} Fake", *(f"{name}: {value}" for name, value in sent.headers.items())]
    lines.append("transfer-encoding: chunked" if sent.stream else f"content-length: {sent.length}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    if not sent.stream:
        sock.sendall(head + b"".join(sent.pieces))
        return
    sock.sendall(head)
    for piece in sent.pieces:
        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    # A stream that is cut lacks its last chunk: by this the client can tell it from one that ended.
    if sent.ending is Ending.WHOLE:
        sock.sendall(b"0\r\n\r\n")


def _stays(sock: socket.socket, seconds: float | None) -> bool:
    """Wait for some seconds; return False as soon as the client has left. None waits until it leaves.

    While a reply is delayed, readable bytes would be a second request on the connection; none are the end of it.
    """
    until = None if seconds is None else time.monotonic() + seconds
    while until is None or time.monotonic() < until:
        left = None if until is None else max(0.0, until - time.monotonic())
        ready, _, _ = select.select([sock], [], [], left)
        if ready:
            return len(sock.recv(1, socket.MSG_PEEK)) > 0 and until is not None
    return True
