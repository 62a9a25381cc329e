"""A server on real sockets whose misbehaviour is given byte by byte, and which records the requests."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["OTHER_PEM", "PEM", "Behaviour", "FaultServer", "Wire"]

PEM = Path(__file__).parents[1] / "transports" / "localhost.pem"  # a key of no worth, for tests on this machine alone
OTHER_PEM = Path(__file__).with_name("elsewhere.pem")  # another, for a name that is not this machine's

CREDENTIAL = re.compile(rb"(?im)^(?:authorization|x-api-key|x-goog-api-key|api-key): (?:bearer )?(.+?)\r?$")


Around = Callable[[str, str, str], bytes | None]


class Wire:
    """The server's end of one connection.

    Attributes:
        around: returns the JSON for requests other than the one under test, from method, path and origin; these are
            not recorded.
    """

    def __init__(self, server: FaultServer, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.around: Around = lambda method, path, origin: None
        self._buffer = b""

    def request(self) -> bytes:
        """Read one whole request; empty if the client has closed the connection."""
        while whole := self._request():
            method, path, _ = whole.split(b" ", 2)
            body = self.around(method.decode(), path.decode(), self.server.url.removesuffix("/v1/chat"))
            if body is None:
                self.server.requests.append(whole)
                return whole
            self.send(self.ok(body))
        return b""

    def _request(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return b""
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        self._buffer = rest
        while len(self._buffer) < length:
            if not self._more():
                return b""
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return head + b"\r\n\r\n" + body

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        self._buffer += data
        return bool(data)

    def send(self, *parts: bytes, pause: float = 0.0) -> None:
        for part in parts:
            if pause:
                time.sleep(pause)
            self.sock.sendall(part)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def see_close(self, timeout: float = 10.0) -> None:
        """Wait until the client closes the connection, and record it."""
        self.sock.settimeout(timeout)
        try:
            while self.sock.recv(65536):
                pass
        except TimeoutError:
            return
        except OSError:
            pass
        self.server.client_closed.set()

    # Behaviours: pass them as they are, or in a lambda: ``serve(lambda wire: wire.answer(b"..."))``.

    @staticmethod
    def ok(body: bytes = b'{"ok":true}', *headers: bytes) -> bytes:
        """Return a valid reply."""
        lines = (b"HTTP/1.1 200 OK", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *headers)
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    def keep_answering(self, reply: bytes | None = None) -> None:
        """Send a valid reply to every request."""
        while self.request():
            self.send(reply or self.ok())

    def answer(self, *parts: bytes, pause: float = 0.0) -> None:
        """Send these bytes for one request, then FIN."""
        self.request()
        self.send(*parts, pause=pause)

    def answer_and_reset(self, *parts: bytes) -> None:
        """Send these bytes for one request, then RST."""
        self.request()
        self.send(*parts)
        time.sleep(0.1)  # RST drops what the client has not read yet
        self.reset()

    def answer_and_wait(self, *parts: bytes) -> None:
        """Send these bytes for one request, then nothing until the client closes the connection."""
        self.request()
        try:
            self.send(*parts)
        except OSError:  # it closed before all of it was sent
            self.server.client_closed.set()
            return
        self.see_close()


Behaviour = Callable[[Wire], None]


class FaultServer:
    """Serve connection number i by behaviour i, the last one for all that follow; on 127.0.0.1, in threads.

    Attributes:
        connections: how many were accepted.
        requests: every whole request, as bytes.
        client_closed: set when a behaviour saw the client close.
        credentials: every key that a request carried, in order.
    """

    def __init__(self, *behaviours: Behaviour, tls: bool | Path = False) -> None:
        self.behaviours = behaviours
        self.connections = 0
        self.requests: list[bytes] = []
        self.client_closed = threading.Event()
        self._context = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(PEM if tls is True else tls)
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/v1/chat"
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            behaviour = self.behaviours[min(self.connections, len(self.behaviours) - 1)]
            self.connections += 1
            self._socks.append(sock)
            self._start(self._serve, behaviour, sock)

    def _serve(self, behaviour: Behaviour, sock: socket.socket) -> None:
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
                self._socks.append(sock)
            behaviour(Wire(self, sock))
        except OSError:  # the client went away, as many tests make it
            pass
        finally:
            sock.close()

    @property
    def credentials(self) -> list[bytes]:
        return [key for request in self.requests for key in CREDENTIAL.findall(request.partition(b"\r\n\r\n")[0])]

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        for sock in (self._listener, *self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
