"""A served page, and a browser without a window."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from llm_council import Council, CouncilConfig
from llm_council.testing.fakes import ScriptedProvider

TOKEN = "a-token-of-some-length"
SCRIPT = {"draft": "I *think* so.", "critique": "A: fine", "synthesise": "The **final** answer."}


@attrs.define
class Browser:
    """What a browser does with the page: it has cookies, follows links, sends forms and reads streams.

    Attributes:
        client: of httpx, with the cookies.
        seats: the scripted seats by name.
        council: the council behind the page.
        page: the page.
        stop: stops the server, as SIGTERM does.
    """

    client: Any
    seats: dict[str, ScriptedProvider]
    council: Council
    page: Any
    stop: Callable[[], None]

    def open(self) -> str:
        """Open the address with the token, and return the page with the form."""
        reply = self.client.get("/", params={"token": TOKEN}, follow_redirects=True)
        assert reply.status_code == 200
        return str(reply.text)

    def get(self, path: str) -> str:
        """Return a page."""
        reply = self.client.get(path)
        assert reply.status_code == 200, reply.text
        return str(reply.text)

    def send(self, path: str, *, files: Any = None, **fields: Any) -> Any:
        """Send a form of the page, and return the reply without following it."""
        data = {"csrf": self.page.session.csrf, **fields}
        return self.client.post(path, data=data, files=files)

    def ask(self, task: str = "What is 2+2?", **fields: Any) -> str:
        """Ask, and return the path of the run."""
        seats = fields.pop("seat", list(self.council.providers))
        reply = self.send("/runs", task=task, seat=seats, **fields)
        assert reply.status_code == 303, reply.text
        return str(reply.headers["location"])

    def events(self, run: str, last: int | None = None) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Yield number, kind and data of the messages of a run, to its end."""
        headers = {} if last is None else {"last-event-id": str(last)}
        with self.client.stream("GET", f"{run}/events", headers=headers) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            fields: dict[str, str] = {}
            for line in reply.iter_lines():
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                    continue
                if "event" in fields:
                    yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                fields = {}

    def end_of(self, run: str) -> str:
        """Return the page of a run once it has ended."""
        for _ in self.events(run):
            pass
        return self.get(run)


def text_of(html: str) -> str:
    """Return the text of a page, without its elements."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


@contextmanager
def _browser(
    *, config: CouncilConfig | None = None, grace: float = 0.0, evaluations: Path | None = None, **scripts: Any
) -> Iterator[Browser]:
    uvicorn = pytest.importorskip("uvicorn", reason="the environment serve installs it")
    pytest.importorskip("jinja2", reason="the environment serve installs it")
    import httpx

    from llm_council.serve.access import Access, Key
    from llm_council.serve.app import make_app
    from llm_council.serve.page.session import Session
    from llm_council.serve.page.site import Page
    from llm_council.serve.server import Serving, bind, hosts_of

    seats = {name: ScriptedProvider(**{"name": name, **script}) for name, script in scripts.items()}
    seats = seats or {name: ScriptedProvider(SCRIPT, name=name) for name in ("ann", "bob", "cy")}
    council = Council(list(seats.values()), config=config or CouncilConfig())
    owner = Key(name="owner", secret=TOKEN, per_minute=6_000)
    listening = bind(Serving(port=0))
    port = listening.getsockname()[1]
    page = Page(council, owner, Session(owner, port=port), grace, evaluations)
    app = make_app(council, Access([owner]), hosts_of(Serving(), port), grace, page)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(20)
        listening.close()

    try:
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address, trust_env=False, timeout=30, headers={"origin": address}) as client:
            yield Browser(client, seats, council, page, stop)
    finally:
        stop()


@pytest.fixture
def browse() -> Iterator[Callable[..., Browser]]:
    """Return a function that serves a page of scripted seats, and returns a browser; all are closed at the end."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(_browser(**options))


@pytest.fixture
def browser(browse: Callable[..., Browser]) -> Browser:
    """Return a browser that has opened the page of three seats which agree. Nothing is stored."""
    found = browse()
    found.open()
    return found
