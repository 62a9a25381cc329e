"""Who may use the page, and what another site may do with it (tox -e serve)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.serve

TOKEN = "a-token-of-some-length"


def test_the_token_in_the_address_becomes_a_cookie_and_leaves_the_address(browse: Callable[..., Any]) -> None:
    browser = browse()
    reply = browser.client.get("/", params={"token": TOKEN})
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert "Ask the council" in browser.get("/")


@pytest.mark.parametrize("path", ["/", "/?token=wrong", "/?token=", "/runs/abc", "/runs/abc/events"])
def test_without_the_token_a_page_says_how_to_get_in(browse: Callable[..., Any], path: str) -> None:
    reply = browse().client.get(path)
    assert reply.status_code == 401
    assert "council serve" in reply.text
    assert "set-cookie" not in reply.headers
    assert 'name="task"' not in reply.text


def test_without_the_cookie_no_form_is_taken_even_with_its_secret_value(browse: Callable[..., Any]) -> None:
    browser = browse()
    assert browser.send("/runs", task="Hi", seat=["ann"]).status_code == 401
    assert browser.page.runs.remembered() == []


def test_the_cookie_is_no_key_of_the_api(browser: Any) -> None:
    (value,) = browser.client.cookies.values()
    for headers in ({}, {"authorization": f"Bearer {value}"}):
        assert browser.client.get("/v1/models", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
    ],
)
def test_a_form_of_another_site_is_refused(browser: Any, headers: dict[str, str]) -> None:
    data = {"csrf": browser.page.session.csrf, "task": "Hi", "seat": "ann"}
    reply = browser.client.post("/runs", data=data, headers=headers)
    assert reply.status_code in (403, 421)
    assert browser.page.runs.remembered() == []


@pytest.mark.parametrize("csrf", [None, "", "0" * 64, TOKEN])
def test_a_form_without_the_value_of_this_server_is_refused(browser: Any, csrf: str | None) -> None:
    data = {"task": "Hi", "seat": "ann"} | ({} if csrf is None else {"csrf": csrf})
    for path in ("/runs", "/runs/abc/cancel", "/runs/abc/resume"):
        reply = browser.client.post(path, data=data)
        assert reply.status_code == 403
        assert "reload the page" in reply.text
    assert browser.page.runs.remembered() == []


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data", "multipart/form-data; x=y"])
def test_a_body_that_is_no_form_is_refused(browser: Any, kind: str) -> None:
    reply = browser.client.post("/runs", content=b"csrf=x", headers={"content-type": kind})
    assert reply.status_code in (400, 415)


def test_a_form_that_is_too_large_is_refused(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_council.serve.page.site.MOST_BYTES", 1000)
    reply = browser.send("/runs", task="Hi", seat=["ann"], files=[("files", ("a.txt", b"x" * 2000))])
    assert reply.status_code == 413


def test_pages_load_nothing_from_elsewhere_and_run_no_inline_script(browser: Any) -> None:
    run = browser.ask()
    browser.end_of(run)
    for path in ("/", run, "/?again=" + run.rpartition("/")[2]):
        reply = browser.client.get(path)
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "no-store" in reply.headers["cache-control"]
        assert "<style" not in reply.text
        assert " style=" not in reply.text
        assert "<script>" not in reply.text
        assert "//" not in reply.text.replace("<!doctype", "")


def test_the_command_prints_the_address_of_the_page_unless_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from llm_council.cli import main
    from llm_council.providers import registry
    from llm_council.serve import server
    from llm_council.testing.fakes import ScriptedProvider

    served: list[Any] = []
    monkeypatch.setattr(
        server, "serve", lambda app, serving, listening, on_stop: (served.append(app), listening.close())
    )
    monkeypatch.setenv("LLM_COUNCIL_SERVE_TOKEN", TOKEN)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with registry.overriding(ann=ScriptedProvider("x", name="ann")):
        for flag, has_page in ((), True), (("--no-page",), False):
            command = ["council", "serve", "-p", "ann", "--port", "0", "--no-store", *flag]
            monkeypatch.setattr(sys, "argv", command)
            with pytest.raises(SystemExit) as exit_:
                main()
            assert not exit_.value.code
            assert (f"/?token={TOKEN}" in capsys.readouterr().out) is has_page
            paths = [getattr(route, "path", "") for route in served.pop().routes]
            assert ("/runs" in paths) is has_page
            assert "/v1/chat/completions" in paths


def test_style_and_scripts_are_served(browser: Any) -> None:
    for name, kind in (("page.css", "text/css"), ("run.js", "text/javascript"), ("ask.js", "text/javascript")):
        reply = browser.client.get(f"/static/{name}")
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith(kind)
    for path in ("/static/../site.py", "/static/%2e%2e/site.py", "/static/"):
        assert browser.client.get(path).status_code == 404
