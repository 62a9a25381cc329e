"""What others may try in a browser: rebinding, posts of other sites, missing tokens, scripts in what models say."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the environment browser installs it")

from page_server import REVIEW, TOKEN, Served, ask, scripted, served  # noqa: E402

from llm_council.errors import ServerFailed  # noqa: E402
from llm_council.models import Cost, CostSource, GenerateRequest, GenerateResponse, Usage  # noqa: E402
from llm_council.models import FinishReason as Finish  # noqa: E402
from llm_council.testing.fakes import ScriptedProvider  # noqa: E402

expect = sync_api.expect

ELSEWHERE = "http://elsewhere.test/pixel"
HOSTILE = (
    "</div></script><script>alert(1)</script><img src=x onerror=alert(2)>"
    f"<img src={ELSEWHERE}><svg onload=alert(3)></svg><iframe srcdoc='<script>alert(4)</script>'></iframe>"
    f"<form action={ELSEWHERE}><button>Go on</button></form><style>* {{ display: none }}</style>"
    f"\n\n![p]({ELSEWHERE})\n[click](javascript:alert(5)) <a href=javascript:alert(6)>here</a>"
    '\n<meta http-equiv="refresh" content="0;url=http://elsewhere.test/">{{ 7 * 7 }}{% include "/etc/passwd" %}'
    "\n\x1b]0;title\x07\x1b[31mred\x1b[0m \x9b31m \u202egnp.exe\u2028data: x\u2029\x00 \"quoted\" 'single'\n"
)
SHORT = "<img src=x onerror=alert(7)>\u202e\x1b[2J"  # where a name or a label is


@attrs.define
class Attacker:
    """A site of somebody else on this machine.

    Attributes:
        url: its address.
        folder: its pages.
    """

    url: str
    folder: Path

    def publish(self, text: str) -> str:
        """Write its page, and return the address."""
        (self.folder / "index.html").write_text(f"<!doctype html><title>x</title><link rel=icon href=data:,>{text}")
        return f"{self.url}/index.html"


@pytest.fixture
def attacker(tmp_path: Path) -> Iterator[Attacker]:
    folder = tmp_path / "attacker"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Attacker(f"http://127.0.0.1:{server.server_address[1]}", folder)
    server.shutdown()
    server.server_close()


@pytest.fixture
def council(tmp_path: Path) -> Iterator[Served]:
    with served(scripted(), tmp_path / "runs.db", tmp_path) as server:
        yield server


def nobody_was_asked(server: Served) -> bool:
    return not any(seat.requests for seat in server.seats.values())


def test_a_name_of_somebody_else_that_leads_here_is_refused(council: Served, open_page: Callable[..., Any]) -> None:
    page = open_page().page
    port = council.url.rpartition(":")[2]
    for path in ("/", f"/?token={TOKEN}", "/history", "/v1/models", "/static/page.css"):
        reply = page.goto(f"http://evil.test:{port}{path}")
        assert reply.status == 421
        assert "set-cookie" not in reply.headers
        assert "Ask the council" not in page.content()
    page.goto(council.door)  # the same browser, by our own name
    expect(page.get_by_label("Task")).to_be_visible()


@pytest.mark.parametrize("site", ["127.0.0.1", "localhost"])  # another port of the same site, and another site
def test_a_page_of_another_origin_starts_nothing_and_reads_nothing(
    council: Served, attacker: Attacker, open_page: Callable[..., Any], site: str
) -> None:
    page = open_page().page
    page.goto(council.door)  # the cookie is there
    fields = {"task": "Spend money", "seat": "ann", "role": "advisor", "csrf": council.page.session.csrf}
    form = "".join(f'<input name="{name}" value="{text}">' for name, text in fields.items())
    # Even a form that knows the hidden value, as no other site can.
    address = attacker.publish(
        f'<form method="post" action="{council.url}/runs" enctype="multipart/form-data">{form}'
        "<button>Go</button></form>"
    ).replace("127.0.0.1", site)
    page.goto(address)
    with page.expect_response(f"{council.url}/runs") as posted:
        page.get_by_role("button", name="Go").click()
    assert posted.value.status in (401, 403)
    assert nobody_was_asked(council)
    page.goto(address)
    outcomes = page.evaluate(
        """async ([url, fields]) => {
            const found = {};
            const attempt = async (name, path, options) => {
                try {
                    const reply = await fetch(url + path, { credentials: "include", ...options });
                    found[name] = reply.type === "opaque" ? "opaque" : await reply.text();
                } catch (error) {
                    found[name] = "refused";
                }
            };
            const form = new FormData();
            for (const [name, text] of Object.entries(fields)) form.append(name, text);
            await attempt("blind post", "/runs", { method: "POST", mode: "no-cors", body: form });
            await attempt("post", "/runs", { method: "POST", body: form });
            await attempt("chat", "/v1/chat/completions", { method: "POST", mode: "no-cors", body: "{}" });
            await attempt("read", "/history", {});
            await attempt("door", "/", {});
            found.events = await new Promise((done) => {
                const source = new EventSource(url + "/runs/x/events", { withCredentials: true });
                source.onopen = () => done("open");
                source.onerror = () => done("refused");
            });
            return found;
        }""",
        [council.url, fields],
    )
    assert outcomes == {
        "blind post": "opaque",
        "post": "refused",
        "chat": "opaque",
        "read": "refused",
        "door": "refused",
        "events": "refused",
    }
    assert nobody_was_asked(council)
    page.goto(f"{council.url}/history")
    expect(page.get_by_text("Nothing is stored yet")).to_be_visible()


def test_the_page_is_framed_by_nobody(council: Served, attacker: Attacker, open_page: Callable[..., Any]) -> None:
    watched = open_page()
    page = watched.page
    page.goto(council.door)
    page.goto(attacker.publish(f'<iframe src="{council.url}/history"></iframe>'))
    assert [frame.url for frame in page.frames[1:]] == ["chrome-error://chromewebdata/"]
    assert any("frame-ancestors" in problem for problem in watched.problems)  # what refused it


def test_without_the_token_nothing_is_served(council: Served, open_page: Callable[..., Any]) -> None:
    page = open_page().page
    paths = ("/", "/?token=wrong", f"/?token={TOKEN[:-1]}", "/history", "/compare?run=a&run=b", "/evaluations")
    paths += tuple(f"/runs/last{end}" for end in ("", "/events", "/compare", "/download.html", "/download.json"))
    for path in paths:
        reply = page.goto(f"{council.url}{path}")
        assert reply.status == 401, path
        expect(page.get_by_role("navigation")).to_have_count(0)
        assert TOKEN not in page.content()
    for path in ("/runs", "/runs/last/cancel", "/runs/last/resume"):
        reply = page.request.post(f"{council.url}{path}", form={"task": "x", "csrf": council.page.session.csrf})
        assert reply.status == 401, path
    assert nobody_was_asked(council)


def test_the_token_leaves_the_address_and_scripts_cannot_read_the_cookie(
    council: Served, open_page: Callable[..., Any]
) -> None:
    page = open_page().page
    page.goto(council.door)
    assert page.url == f"{council.url}/"
    assert page.evaluate("document.cookie") == ""
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert TOKEN not in cookie["value"]
    # What other programs of this machine may learn from the cookie opens no other door.
    headers = {"authorization": f"Bearer {cookie['value']}"}
    assert page.request.get(f"{council.url}/v1/models", headers=headers).status == 401


def test_a_form_without_its_hidden_value_is_refused(council: Served, open_page: Callable[..., Any]) -> None:
    page = open_page().page
    page.goto(council.door)
    for value in ("", "wrong", "é", "0" * 64):
        page.goto(f"{council.url}/")
        page.get_by_label("Task").fill("Spend money")
        page.locator("input[name=csrf]").evaluate("(field, text) => { field.value = text; }", value)
        with page.expect_response(f"{council.url}/runs") as posted:
            page.get_by_role("button", name="Ask").click()
        assert posted.value.status == 403
    assert nobody_was_asked(council)


class HostileSeat(ScriptedProvider):
    """Says hostile things in every field of a reply."""

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        return self._hostile(await super().generate(request))

    def _hostile(self, reply: GenerateResponse) -> GenerateResponse:
        return attrs.evolve(
            reply,
            model=f"model {SHORT}",
            reasoning=HOSTILE,
            finish_reason=Finish.STOP,
            request_id=SHORT,
            usage=Usage(input_tokens=10**12, output_tokens=2),
            cost=Cost(usd=1e-9, source=CostSource.REPORTED, complete=True),
            raw={SHORT: HOSTILE},
        )

    async def _reply(self, request: GenerateRequest) -> Any:
        reply = await super()._reply(request)
        return self._hostile(reply) if isinstance(reply, GenerateResponse) else reply


@contextmanager
def hostile(tmp_path: Path, strategy: str) -> Iterator[Served]:
    """Serve seats that say hostile things in drafts, reviews, errors, labels and names."""
    replies = {
        "draft": f"{HOSTILE}\nANSWER: {SHORT}",
        "critique": f"{REVIEW}\n{HOSTILE}",
        "synthesise": HOSTILE,
        "*": HOSTILE,
    }
    other = {**replies, "draft": f"{HOSTILE}\nANSWER: other {SHORT}"}
    failed = ServerFailed(f"{HOSTILE}", status=529, request_id=SHORT)
    seats: dict[str, Any] = {
        "ann": HostileSeat(replies, name="ann"),
        "bob": HostileSeat(replies, name="bob"),
        "cy": HostileSeat(other, name="cy"),
        "dan": HostileSeat({"*": failed}, name="dan"),
    }
    with served(seats, tmp_path / "runs.db", tmp_path, strategy=strategy, chair=None) as server:
        yield server


def is_inert(page: Any) -> None:
    """Fail if a page has an element, a target or an attribute that we did not write."""
    found = page.evaluate(
        """() => ({
            scripts: [...document.scripts].map((one) => one.src || one.textContent),
            foreign: document.querySelectorAll(
                "img, iframe, object, embed, style, base, main form:not([method]), [style]").length,
            targets: [...document.querySelectorAll("a[href], form[action]")].map((one) => one.href || one.action),
            handlers: [...document.querySelectorAll("*")].filter((one) =>
                [...one.attributes].some((attribute) => attribute.name.startsWith("on"))).length,
        })"""
    )
    origin = page.evaluate("location.origin")
    assert all(address.startswith(f"{origin}/static/") for address in found["scripts"]), found
    assert found["foreign"] == 0
    assert found["handlers"] == 0
    assert all(address.startswith(f"{origin}/") for address in found["targets"]), found
    content = page.content()
    assert not any(control in content for control in ("\x1b", "\x9b", "\x00", "\u202e", "\u2028"))
    assert "49</" not in content.replace("0049", "")  # no template of a model is filled in
    assert "root:" not in content


@pytest.mark.parametrize("strategy", ["synthesize", "poll"])
def test_what_models_say_stays_text_everywhere(tmp_path: Path, open_page: Callable[..., Any], strategy: str) -> None:
    watched = open_page()
    page = watched.page
    with hostile(tmp_path, strategy) as server:
        ask(page, server, f"Which queue fits? {HOSTILE}")
        expect(page.locator("#facts .status")).to_have_text("degraded")
        expect(page.locator("#phase-draft .words").first).to_contain_text("<script>alert(1)</script>")
        expect(page.locator(".card.failed .error").first).to_contain_text("<script>alert(1)</script>")
        is_inert(page)
        page.reload()
        expect(page.locator("#phase-draft .words").first).to_contain_text("<img src=x onerror=alert(2)>")
        expect(page.locator("#result table.seats")).to_contain_text("<img src=x onerror=alert(7)>")
        is_inert(page)
        run = page.url
        for path in ("/history", "/history?q=alert%281%29", "/history?q=%3Cscript%3Ealert(8)%3C/script%3E"):
            page.goto(f"{server.url}{path}")
            is_inert(page)
        page.goto(f"{run}/compare?seat=ann&seat=cy")
        expect(page.locator(".column")).to_have_count(2)
        is_inert(page)
        page.goto(f"{server.url}/?again={run.rpartition('/')[2]}")
        is_inert(page)
        assert watched.problems == []
        assert watched.elsewhere(server.url) == []
        # A file that was downloaded is opened without our server and its headers.
        saved = tmp_path / "saved.html"
        saved.write_bytes(page.request.get(f"{run}/download.html").body())
        other = open_page()
        other.page.goto(saved.as_uri())
        expect(other.page.get_by_text("Which queue fits?").first).to_be_visible()
        assert other.page.evaluate("document.querySelectorAll('script, img, iframe, a, form').length") == 0
        assert other.problems == []
        assert [one for one in other.requests if not one.startswith("file:")] == []


def test_a_report_from_elsewhere_stays_text(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    from llm_council.evals import replay
    from llm_council.evals.report import DifferingTask
    from tests.evals.record import FOLDER

    said = DifferingTask(id=SHORT, question=HOSTILE, target=SHORT, answers={SHORT: HOSTILE}, points={SHORT: 0.0})
    report = attrs.evolve(replay(FOLDER), name=f"set {SHORT}", differing=[said], warnings=[HOSTILE])
    folder = tmp_path / f"<b>{'x' * 9}"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report.to_dict()))
    (tmp_path / "other.json").write_text('{"a": 1}')
    watched = open_page()
    page = watched.page
    with served(scripted(), None, tmp_path) as server:
        page.goto(server.door)
        page.get_by_role("link", name="Evaluations").click()
        is_inert(page)
        page.locator("ol.runs").get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x onerror=alert(7)>")
        page.get_by_role("group").first.click()
        is_inert(page)
        assert watched.problems == []
        assert watched.elsewhere(server.url) == []
