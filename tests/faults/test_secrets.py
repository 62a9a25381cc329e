"""Keys, prompts, addresses and terminals: what must never be shown, sent or run."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
import traceback

import pytest
from fault_agents import OWN_KEY, scene
from fault_canary import assert_no_keys, texts_of_error
from fault_dialects import DIALECTS, compact
from fault_keys import KEY, TOKEN
from fault_rows import each, exempt

from llm_council import Council, errors
from llm_council.config import CouncilConfig
from llm_council.errors._secrets import clean
from llm_council.models import GenerateRequest
from llm_council.testing.fakes import ScriptedProvider

SIGNS_IN = "it signs in with the tokens of Google's credentials, not with a key."
__all__ = ["scene"]

BAD_KEYS = [
    "sk-mine\nx-evil: 1",
    "sk-mine\r\n",
    "sk-m\u00efne-0123456789",
    "sk-mine\x00x",
    "two words-0123",
    "\u200bsk-mine-0123",
]


@exempt("vertex-gemini", SIGNS_IN)
@exempt("vertex-claude", SIGNS_IN)
@pytest.mark.parametrize("key", BAD_KEYS)
def test_invalid_key(mock, key):
    """A key with a line break, a space or non-ASCII characters: `InvalidKey` before any socket opens; it is not
    shown.
    """
    inside = key.strip()
    if inside.isascii() and inside.isprintable() and " " not in inside:
        assert mock.ask(mock.mocked(mock.dialect.body(), api_key=key)).text == "fine"
        assert inside in str(dict(mock.calls[0].headers).values())
        return
    with pytest.raises(errors.InvalidKey) as caught:
        mock.mocked(mock.dialect.body(), api_key=key)
    assert inside[:7] not in str(caught.value)
    assert not mock.calls


@exempt("vertex-gemini", SIGNS_IN)
@exempt("vertex-claude", SIGNS_IN)
def test_key_missing(mock, monkeypatch):
    """No key: `MissingCredentials` with the name of the variable, before anything is sent."""
    monkeypatch.delenv(mock.dialect.cls.API_KEY_ENV)
    if not mock.dialect.cls.NEEDS_KEY:
        pytest.skip("this vendor needs none")
    seat = mock.mocked(mock.dialect.body(), api_key=None, headers={})
    with pytest.raises(errors.MissingCredentials, match=mock.dialect.cls.API_KEY_ENV):
        mock.ask(seat)
    assert not mock.calls


def test_key_in_a_header(mock):
    """The key is sent in a header, never in an address, a body or a prompt; no key of another vendor is sent."""
    mock.ask(mock.mocked(mock.dialect.body()))
    (call,) = mock.calls
    assert KEY not in str(call.url)
    assert KEY.encode() not in call.content
    assert sum(KEY in value for value in call.headers.values()) == 1


@each("cut", [1, 7, len(KEY) - 1])
def test_key_in_pieces(mock, cut):
    """A vendor that repeats the key in a stream, split between two pieces at any place: `***`, and no other text is
    lost.
    """
    frames = b"".join(mock.dialect.stream("it is ", KEY[:cut], KEY[cut:], " indeed, and z"))
    head = {"content-type": mock.dialect.stream_type}
    pieces = list(mock.mocked((200, frames, head)).stream_sync(GenerateRequest(prompt="?")))
    assert "".join(piece.text for piece in pieces) == "it is *** indeed, and z"
    assert KEY not in repr(pieces)
    cut_off = b"".join(mock.dialect.pieces(["it is ", KEY[:cut], KEY[cut:]]))
    error = mock.fails(mock.mocked((200, cut_off, head)), errors.TruncatedReply, "stream")
    assert error.partial == "it is ***"


def test_nowhere_in_a_run(vendor, serve, tmp_path, monkeypatch):
    """A whole run with good and failing seats: no key in its result, report, events, pickles, errors or files."""
    monkeypatch.chdir(tmp_path)
    body = vendor.dialect.body('{"a": 1}')
    refusal = compact(vendor.dialect.refusal(401, None, f"bad key {KEY}"))
    good = serve(lambda wire: wire.keep_answering(wire.ok(body, b"X-Request-Id: " + KEY.encode())))
    refused = (
        b"HTTP/1.1 401 No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(refusal) + refusal
    )
    bad = serve(lambda wire: wire.keep_answering(refused))
    events = []
    seats = [vendor.provider(good.url), vendor.provider(bad.url), vendor.provider(good.url)]
    council = Council(seats, config=CouncilConfig(), listeners=[events.append])
    result = council.run("?", schema={"type": "object"})
    assert result.success
    assert result.errors
    assert good.credentials.count(KEY.encode()) >= 2
    shown = [repr(result), str(result.to_dict()), json.dumps(result.to_dict()), result.to_markdown(), repr(events)]
    shown += [pickle.dumps(thing).decode("latin-1") for thing in (result, events, result.errors)]
    shown += [repr(council), str(vars(council)), str([vars(seat) for seat in seats])]
    for error in result.errors.values():
        shown += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    shown += [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in shown if KEY in text or TOKEN in text]


FORMATS = ["{0.__class__}", "%s %d", "${HOME}", "{{ 7 * 7 }}", "{task}", "__import__('os')", "$(id)", "`id`"]


@pytest.mark.parametrize("text", FORMATS)
def test_templates(text):
    """Braces, percent signs and dollars in tasks and drafts stay as they are: nothing is formatted or evaluated."""
    seat = ScriptedProvider({"draft": text, "*": '{"a": 1}'}, name="a")
    other = ScriptedProvider('{"a": 1}', name="b")
    result = Council([seat, other], config=CouncilConfig(), chair="b").run(text, schema={"type": "object"})
    assert result.output == {"a": 1}
    assert all(any(text in turn.text for turn in request.turns()) for request in seat.asked("draft"))
    assert text in result.to_markdown() or result.to_markdown()


ADDRESSES = [
    "http://169.254.169.254/latest",
    "http://10.0.0.1/v1",
    "http://[::ffff:169.254.169.254]/v1",
    "http://0x7f.1/v1",
    "http://2130706433/v1",
    "http://vendor.example/v1",
    "https://user:plover-7@vendor.example/v1",
    "https://vendor.example/v1?key=x",
    "file:///etc/passwd",
    "gopher://vendor.example",
    "https://",
    "//vendor.example",
]


@each("url", ADDRESSES)
def test_address(mock, url):
    """Plain http to another host than loopback, users in addresses, other schemes: refused when the provider is
    made.
    """
    with pytest.raises(errors.InvalidOption) as caught:
        mock.dialect.cls(base_url=url, api_key=KEY)
    assert "plover-7" not in str(caught.value)


PROJECT = {
    "a base_url": '[providers.openai]\nkind = "openai"\nbase_url = "https://evil.example/v1"',
    "a key": '[providers.openai]\nkind = "openai"\napi_key = "${AWS_SECRET_ACCESS_KEY}"',
    "headers": '[providers.openai]\nkind = "openai"\nheaders = { x = "y" }',
    "plain http": '[providers.openai]\nkind = "openai"\nallow_http = true',
    "a path outside": '[council]\nsubagent_paths = ["/etc"]',
    "a store": '[council]\nstore = "/tmp/evil.db"',
}


@pytest.mark.parametrize("what", PROJECT)
def test_project_config(what, tmp_path, monkeypatch):
    """A `council.toml` in the current folder cannot set addresses, keys, headers or paths: `UntrustedConfig`."""
    (tmp_path / "council.toml").write_text(PROJECT[what])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    with pytest.raises(errors.ConfigurationError) as caught:
        CouncilConfig.discover()
    assert isinstance(caught.value, errors.UntrustedConfig)
    assert "council.toml" in str(caught.value)


def test_variables_in_config(tmp_path, monkeypatch):
    """`${VARIABLE}` is replaced in keys only: no other field can send a secret elsewhere."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-word-0123456789")
    file = tmp_path / "config.toml"
    file.write_text(
        '[providers.mine]\nkind = "openai"\ndefault_model = "${AWS_SECRET_ACCESS_KEY}"\napi_key = "key-0123"'
    )
    seat = Council(["mine"], config=CouncilConfig.from_file(file))
    assert "aws-word" not in repr(seat.plan("?"))
    adapter = next(iter(seat._seating.providers.values()))
    assert "aws-word" not in str(vars(adapter)) + str(vars(getattr(adapter, "inner", adapter)))


ESCAPES = "\x1b[2J\x1b]52;c;ZXZpbA==\x07\x9b31m\x08\x0c\u202egnp.exe\u2066\x00\x7f"


def test_escapes_in_errors(mock):
    """Control characters, 8-bit ones and bidi marks in a vendor's message are removed from error messages."""
    error = mock.fails(
        mock.mocked((400, compact(mock.dialect.refusal(400, ESCAPES, f"bad {ESCAPES}")))), errors.RequestRejected
    )
    assert not set(str(error)) & set("\x1b\x9b\x07\x08\x0c\u202e\u2066\x00\x7f")
    assert clean(ESCAPES) == "[2J]52;c;ZXZpbA==31mgnp.exe"


def test_escapes_on_a_terminal(monkeypatch):
    """The same in an answer: made visible when it is printed."""
    from llm_council.cli._output import visible

    assert not set(visible(ESCAPES)) & set("\x1b\x9b\x07\x08\u202e\u2066\x00\x7f")


def test_report_is_inert():
    """A report contains models' text as text: no markup, image or script of theirs."""
    evil = "<script>alert(1)</script> ![x](http://evil.example/?q=1) [a](javascript:alert(1)) <img src=x onerror=y>"
    seats = [ScriptedProvider({"draft": evil, "*": '{"a": 1}'}, name=name) for name in "ab"]
    report = Council(seats, config=CouncilConfig()).run(evil, schema={"type": "object"}).to_markdown()
    fenced = False
    for line in report.splitlines():
        fenced = not fenced if line.lstrip("> ").startswith("```") else fenced
        assert fenced or not ("<script" in line or "<img" in line or re.search(r"(?<!\\)\]\(http", line)), line


def test_prompts_in_logs(caplog):
    """Prompts and answers are in no log, at any level."""
    caplog.set_level(1)
    Council([ScriptedProvider('{"a": "heron"}', name="a")], config=CouncilConfig()).run(
        "plover", schema={"type": "object"}
    )
    assert "plover" not in caplog.text
    assert "heron" not in caplog.text


def test_nothing_is_run_from_the_folder(tmp_path, monkeypatch):
    """A current folder with traps (`.env`, `sitecustomize.py`, a `codex`): nothing in it is read or run."""
    trap = f"import pathlib; pathlib.Path({str(tmp_path / 'sprung')!r}).touch()"
    for name in ("sitecustomize.py", "conftest.py", "llm_council_plugin.py", "json.py"):
        (tmp_path / name).write_text(trap)
    (tmp_path / ".env").write_text("OPENAI_API_KEY=evil-key-0123456789\nOPENAI_BASE_URL=https://evil.example")
    (tmp_path / "codex").write_text(f"#!/bin/sh\ntouch {tmp_path / 'sprung'}")
    (tmp_path / "codex").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY")
    Council([ScriptedProvider('{"a": 1}', name="a")], config=CouncilConfig()).run("?", schema={"type": "object"})
    assert DIALECTS["openai"].cls(api_key=KEY).base_url.startswith("https://api.openai.com")
    assert "OPENAI_API_KEY" not in os.environ
    assert not (tmp_path / "sprung").exists()
    assert str(tmp_path) not in sys.path


def test_canary_can_be_found():
    """The search for the key finds it: in a message, a log, an event, a file, a local variable."""
    error = errors.ServerFailed("x")
    error.args = (f"the key is {KEY}",)
    with pytest.raises(AssertionError, match="in a pickled error"):
        assert_no_keys(texts_of_error(error))
    error.args = ("x",)
    assert_no_keys(texts_of_error(error))


@pytest.mark.parametrize("agent", ["codex", "claude", "gemini"])
def test_key_repeated_by_a_program(scene, agent):
    """A program that repeats its own key in its answer, on stderr or in an error: `***`; no other key is in its
    arguments or its environment.
    """
    options = {"variables": {OWN_KEY[agent]: KEY}}
    asked = GenerateRequest(prompt="?")
    adapter = scene.make(agent, answer=f"it is {KEY}, is it?", **options)
    assert adapter.generate_sync(asked).text == "it is ***, is it?"
    assert "".join(piece.text for piece in adapter.stream_sync(asked)) == "it is ***, is it?"
    for mode in (f"say-{KEY}", f"exit-say-{KEY}"):
        with pytest.raises(errors.CouncilError) as caught:
            scene.make(agent, mode, **options).generate_sync(asked)
        assert "***" in f"{caught.value.message} {vars(caught.value)}"
    for seen in scene.seen(agent):
        assert {name for name, value in seen["environment"].items() if KEY in value} == {OWN_KEY[agent]}
        assert KEY not in str(seen["argv"])
    scene.forget(agent)


def test_request_shows_no_key():
    """A request's `repr` shows no key: requests do not contain keys."""
    assert KEY not in repr(GenerateRequest(prompt="x"))
