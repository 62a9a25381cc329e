"""A loopback server that answers like a model hub, for the hub's own client."""

import hashlib
import http.server
import json
import re
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves files of one repository.

    Attributes:
        files: content by name.
        large: names of files that are served as large ones: with their sha256 as ETag.
        breaks: how many more answers end in the middle.
        asked: method, path and range of each request.
        stall: if set, an answer stops in the middle until it is set.
        commit: the commit of the branch ``main``.
    """

    def __init__(self, repository, files):
        self.repository, self.files, self.large = repository, files, set(files)
        self.breaks, self.asked, self.stall, self.commit = 0, [], None, COMMIT
        self.half_sent = threading.Event()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                hub.answer(self)

            do_HEAD = do_GET

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a killed client resets its connection
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        if self.stall is not None:
            self.stall.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request):
        asked_range = request.headers.get("range")
        self.asked.append((request.command, request.path, asked_range))
        found = re.fullmatch(rf"/{re.escape(self.repository)}/resolve/([^/]+)/([^?]+)", request.path)
        if found is None:
            self._refuse(request, "RepoNotFound")
        elif found[1] not in ("main", self.commit):
            self._refuse(request, "RevisionNotFound")
        elif found[2] not in self.files:
            self._refuse(request, "EntryNotFound")
        else:
            self._give(request, found[2], asked_range)

    def _give(self, request, name, asked_range):
        content = self.files[name]
        tag = hashlib.sha256(content).hexdigest()
        if name not in self.large:
            tag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": self.commit, "Accept-Ranges": "bytes"}
        if name in self.large:
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{tag}"'}
        start = int(asked_range.removeprefix("bytes=").rstrip("-")) if asked_range else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(request, 206 if start else 200, content[start:], headers)

    def _send(self, request, status, body, headers):
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "GET":
            return
        half = len(body) // 2
        if self.stall is not None:
            request.wfile.write(body[:half])
            request.wfile.flush()
            self.half_sent.set()
            self.stall.wait(60)
        elif self.breaks > 0:
            self.breaks -= 1
            request.wfile.write(body[:half])
            request.close_connection = True
        else:
            request.wfile.write(body)

    def _refuse(self, request, code):
        body = json.dumps({"error": code}).encode()
        self._send(request, 404, body, {"X-Error-Code": code, "X-Error-Message": code})
