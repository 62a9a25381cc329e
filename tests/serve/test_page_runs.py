"""Ask and watch: the form, the stream of a run, follow-ups, other seats, cancelling, resuming (tox -e serve)."""

from __future__ import annotations

import html
import os
import subprocess
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from llm_council import CouncilConfig
from llm_council.errors import ServerFailed
from llm_council.models import Budget, Cost, GenerateResponse
from llm_council.store import Store

pytestmark = pytest.mark.serve

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)> [x](javascript:alert(3)) \x1b[31m\u202e"
SCRIPT = {"draft": "I *think* so.", "critique": "A: fine", "synthesise": "The **final** answer."}


def test_the_form_offers_the_seats_roles_and_strategies_of_the_council(browser: Any) -> None:
    page = browser.get("/")
    for seat in ("ann", "bob", "cy"):
        assert f'name="seat" value="{seat}" checked' in page
    assert '<option value="advisor" selected>' in page
    assert '<option value="critic:security">' in page
    assert '<option value="poll">' in page


def test_each_seat_s_words_agreement_time_and_the_answer_come_as_they_are_written(browse: Callable[..., Any]) -> None:
    answers = {name: {"script": f"Because {name} says so.\nANSWER: 4", "pieces": 5} for name in ("ann", "bob")}
    browser = browse(**answers, cy={"script": ServerFailed("cy is broken", provider="cy")})
    browser.open()
    run = browser.ask("How much is 2+2?", strategy="poll")
    words: dict[int, str] = {}
    parts: dict[str, str] = {}
    said: list[str] = []
    for _, kind, data in browser.events(run):
        if kind == "words":
            words[data["card"]] = words.get(data["card"], "") + data["text"]
        elif kind == "part":
            parts[data["id"]] = data["html"]
        elif kind == "say":
            said.append(data["text"])
    assert sorted(words.values()) == [f"Because {name} says so.\nANSWER: 4" for name in ("ann", "bob")]
    assert "Phase: Drafts" in said
    assert said[-1].startswith("The run has ended")
    assert "4" in parts["votes"]
    assert "majority" in parts["facts"]
    assert "USD" in parts["facts"] or "cost unknown" in parts["facts"]
    (broken,) = [part for part in parts.values() if 'class="card failed"' in part]
    assert "cy is broken" in broken
    assert "Answer" in parts["result"]
    page = browser.get(run)
    assert "cy is broken" in page
    assert "EventSource" not in page
    assert "data-events" not in page


def test_a_page_that_is_loaded_in_mid_run_shows_what_is_there_and_goes_on_from_it(browse: Callable[..., Any]) -> None:
    browser = browse(ann={"script": "Draft of ann."}, bob={"script": "Draft of bob.", "delay": inf})
    browser.open()
    run = browser.ask(strategy="synthesize")
    seen = []
    for number, kind, data in browser.events(run):
        seen.append(number)
        if kind == "part" and 'class="card done"' in data["html"]:
            break
    page = browser.get(run)
    assert "Draft of ann." in page
    assert '<noscript><meta http-equiv="refresh"' in page
    after = int(page.partition("/events?after=")[2].partition('"')[0])
    assert after >= seen[-1]
    later = browser.events(run, last=seen[-1])
    assert browser.send(f"{run}/cancel").headers["location"] == run
    numbers, kinds = zip(*((number, kind) for number, kind, _ in later), strict=True)
    assert list(numbers) == list(range(seen[-1] + 1, numbers[-1] + 1))
    assert kinds[-1] == "end"


def test_messages_that_are_no_longer_kept_make_the_browser_load_the_page_anew(
    browse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_council.serve.page.running.MOST_LOG", 2000)
    browser = browse(ann={"script": "word " * 400, "pieces": 400})
    browser.open()
    run = browser.ask()
    browser.end_of(run)
    ((_, kind, _),) = browser.events(run, last=0)
    assert kind == "reload"
    assert "word word" in browser.get(run)


def test_texts_of_people_and_models_are_never_markup(browse: Callable[..., Any]) -> None:
    scripts = {name: {"script": {"*": HOSTILE}} for name in ("ann", "bob")}
    browser = browse(**scripts, cy={"script": ServerFailed(HOSTILE, provider="cy")})
    browser.open()
    run = browser.ask(HOSTILE, context=HOSTILE, strategy="synthesize")
    streamed = [data["html"] for _, kind, data in browser.events(run) if kind == "part"]
    again = browser.get("/?again=" + run.rpartition("/")[2])
    refused = browser.send("/runs", task=HOSTILE, role=HOSTILE, further=HOSTILE, deadline=HOSTILE).text
    for text in (*streamed, browser.get(run), again, refused):
        assert "<script>" not in text
        assert "<img" not in text
        assert "href=javascript" not in text.replace('"', "")
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert html.escape("<script>alert(1)</script>") in browser.get(run)


def test_a_wrong_field_is_named_and_the_form_keeps_what_was_written(browser: Any) -> None:
    for fields, words in (
        ({"task": "  "}, "Task: say what to do"),
        ({"role": "/etc/passwd"}, "Role: there is no role"),
        ({"role": "advisor:nope"}, "Role: there is no role"),
        ({"strategy": "nope"}, "Strategy: there is no strategy"),
        ({"seat": []}, "Seats: choose one or more"),
        ({"seat": ["nobody"]}, "Seats: the council has no seat"),
        ({"further": "opnai"}, "opnai"),
        ({"deadline": "soon"}, "Seconds at most"),
        ({"usd": "-1"}, "US dollars at most"),
    ):
        reply = browser.send("/runs", **{"task": "A long task", "seat": ["ann"], "context": "Kept", **fields})
        assert reply.status_code == 400
        assert words in html.unescape(reply.text)
        assert "Kept" in reply.text
    assert browser.page.runs.remembered() == []
    assert all(seat.requests == [] for seat in browser.seats.values())


def test_limits_of_the_form_can_lower_those_of_the_configuration_and_not_raise_the_money(
    browse: Callable[..., Any],
) -> None:
    browser = browse(config=CouncilConfig(budget=Budget(usd=0.5)))
    browser.open()
    run = browser.ask(usd="9", deadline="20")
    budget = browser.page.runs.find(run.rpartition("/")[2]).plan.budget
    assert (budget.usd, budget.deadline) == (0.5, 20)


def test_seats_read_the_files_of_the_form(browser: Any) -> None:
    files = [("files", ("../notes.txt", b"The secret word is plum.")), ("files", ("", b""))]
    reply = browser.send("/runs", task="Which word?", seat=list(browser.seats), files=files)
    run = reply.headers["location"]
    page = browser.end_of(run)
    assert "notes.txt" in page
    for name in ("ann", "bob"):  # cy is the chair
        (asked,) = browser.seats[name].asked("draft")
        assert "plum" in "\n".join(turn.text for turn in asked.turns())


def test_a_file_that_no_seat_can_take_is_refused_with_its_name(browser: Any) -> None:
    reply = browser.send("/runs", task="Hi", seat=["ann"], files=[("files", ("a.bin", b"\x00\x01\x02\xff"))])
    assert reply.status_code == 400
    assert "a.bin" in reply.text


def test_a_follow_up_goes_on_from_the_answer_with_the_same_seats(browser: Any) -> None:
    first = browser.ask(seat=["ann", "bob"], strategy="synthesize")
    browser.end_of(first)
    reply = browser.send(
        "/runs", task="And twice that?", role="advisor", follows=first.rpartition("/")[2], same_seats="yes"
    )
    second = reply.headers["location"]
    page = browser.end_of(second)
    assert first in page
    assert browser.seats["cy"].requests == []
    asked = browser.seats["ann"].asked("draft")[-1]
    told = "\n".join(turn.text for turn in asked.turns())
    assert "The **final** answer." in told
    assert "And twice that?" in told


def test_ask_again_fills_the_form_and_another_choice_of_seats_is_asked(browser: Any) -> None:
    first = browser.ask("Once more?", seat=["ann", "bob"], strategy="synthesize", context="Be brief.")
    browser.end_of(first)
    form = browser.get("/?again=" + first.rpartition("/")[2])
    assert "Once more?" in form
    assert "Be brief." in form
    assert 'value="ann" checked' in form
    assert 'value="cy" checked' not in form
    assert '<option value="synthesize" selected>' in form
    browser.end_of(browser.ask("Once more?", seat=["cy"]))
    assert len(browser.seats["cy"].asked("draft")) == 1
    assert len(browser.seats["ann"].asked("draft")) == 1


def test_a_further_seat_is_found_by_its_name(browser: Any) -> None:
    from llm_council.providers import registry
    from llm_council.testing.fakes import ScriptedProvider

    with registry.overriding(dora=ScriptedProvider(SCRIPT, name="dora")):
        run = browser.ask(seat=["ann"], further="dora:2")
        page = browser.end_of(run)
    assert "dora-2" in page


def test_a_cancelled_run_ends_its_calls_and_says_so(browse: Callable[..., Any]) -> None:
    browser = browse(**{name: {"script": "x", "delay": inf} for name in ("ann", "bob")})
    browser.open()
    run = browser.ask()
    stream = browser.events(run)
    next(stream)
    assert browser.send(f"{run}/cancel").status_code == 303
    assert list(stream)[-1][1] == "end"
    page = browser.get(run)
    assert "cancelled" in page
    assert "cost unknown" in page  # of calls that were cut off
    assert "/resume" not in page  # nothing is stored
    assert all(seat.cancelled == 1 for seat in browser.seats.values())


def test_a_stored_run_that_a_stopping_server_cut_off_is_resumed_by_a_button(
    browse: Callable[..., Any], tmp_path: Path
) -> None:
    config = CouncilConfig(store=str(tmp_path / "runs.db"))
    hangs = {"script": SCRIPT, "delay": {"draft": 0.0, "critique": 0.0, "synthesise": inf}}
    first = browse(config=config, ann=hangs, bob=hangs)
    first.open()
    run = first.ask(strategy="synthesize")
    for _, kind, data in first.events(run):
        if kind == "part" and data["id"] == "phase-synthesise":
            break
    first.stop()
    second = browse(config=config, ann={"script": SCRIPT}, bob={"script": SCRIPT})
    second.open()
    page = second.get(run)
    assert f'action="{run}/resume"' in page
    assert second.send(f"{run}/resume").headers["location"] == run
    page = second.end_of(run)
    assert "The <strong>final</strong> answer." in page
    assert all(seat.asked("draft") == [] for seat in second.seats.values())
    (stored,) = Store(tmp_path / "runs.db").runs_sync()
    assert stored.status == "completed"


def test_a_run_that_nobody_watches_ends_although_the_server_is_told_to_stop(
    browse: Callable[..., Any], tmp_path: Path
) -> None:
    slow = {"script": SCRIPT, "delay": 0.2}
    browser = browse(config=CouncilConfig(store=str(tmp_path / "runs.db")), grace=20.0, ann=slow, bob=slow)
    browser.open()
    browser.ask(strategy="synthesize")
    browser.stop()
    (stored,) = Store(tmp_path / "runs.db").runs_sync()
    assert stored.status == "completed"


def test_what_a_run_costs_counts_for_the_key_of_the_owner(browse: Callable[..., Any]) -> None:
    cost = Cost(usd=0.75, source="reported", complete=True)
    browser = browse(ann={"script": GenerateResponse(text="x", cost=cost)})
    browser.open()
    browser.page.owner.usd = 1.0
    run = browser.ask(strategy="single", usd="0.9")
    browser.end_of(run)
    assert browser.page.runs.find(run.rpartition("/")[2]).plan.budget.usd == 0.9
    assert (browser.page.owner.spent, browser.page.owner.reserved) == (0.75, 0.0)
    browser.end_of(browser.ask(strategy="single"))
    reply = browser.send("/runs", task="Once more", seat=["ann"])
    assert reply.status_code == 429
    assert "it is spent" in reply.text


def test_a_stored_run_is_shown_after_a_restart_and_can_be_followed_up(
    browse: Callable[..., Any], tmp_path: Path
) -> None:
    config = CouncilConfig(store=str(tmp_path / "runs.db"))
    first = browse(config=config)
    first.open()
    run = first.ask(strategy="synthesize")
    first.end_of(run)
    second = browse(config=config)
    second.open()
    page = second.get(run)
    assert "The <strong>final</strong> answer." in page
    assert "I <em>think</em> so." in page
    reply = second.send("/runs", task="And then?", follows=run.rpartition("/")[2], same_seats="yes")
    assert "The <strong>final</strong> answer." in second.end_of(reply.headers["location"])
    assert second.send(f"{run}/resume").status_code == 409


def test_without_a_store_runs_are_remembered_and_unknown_ones_are_named(browser: Any) -> None:
    run = browser.ask()
    assert "final" in browser.end_of(run)
    for path in ("/runs/unknown", "/?again=unknown"):
        reply = browser.client.get(path)
        assert reply.status_code == 404
        assert "Nothing is stored" in reply.text
    assert browser.client.get("/runs/unknown/events").status_code == 204


def test_runs_beyond_the_most_that_may_go_on_are_refused(
    browse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_council.serve.page.running.MOST_RUNNING", 1)
    browser = browse(ann={"script": "x", "delay": inf})
    browser.open()
    browser.ask()
    reply = browser.send("/runs", task="Another one", seat=["ann"])
    assert reply.status_code == 429
    assert "Another one" in reply.text


def test_old_runs_are_forgotten(browse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_council.serve.page.running.MOST_ENDED", 1)
    browser = browse(ann={"script": "x"})
    browser.open()
    runs = []
    for _ in range(3):
        runs.append(browser.ask())
        browser.end_of(runs[-1])
    assert [f"/runs/{run.run_id}" for run in browser.page.runs.remembered()] == runs[-1:]


def test_the_ranking_comes_before_the_answer_is_written(browse: Callable[..., Any]) -> None:
    # A reviewer's labels begin after those of the seats before it.
    reviews = {"ann": "RANKING: A", "bob": "RANKING: D", "cy": "RANKING: G > H"}
    scripts = {name: {"script": {**SCRIPT, "critique": review}} for name, review in reviews.items()}
    browser = browse(**scripts)
    browser.open()
    run = browser.ask(strategy="synthesize")
    ids = [data["id"] for _, kind, data in browser.events(run) if kind == "part" and "as the reviewers" in data["html"]]
    order = [data.get("id") for _, _, data in browser.events(run)]
    assert ids[0] == "votes"
    assert order.index("votes") < order.index("phase-synthesise")


START = """
import sys
from llm_council.cli import main
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider

delay = {"draft": 0.0, "critique": 0.0, "synthesise": float("inf")}
with registry.overriding(**{name: ScriptedProvider("x", name=name, delay=delay) for name in ("ann", "bob")}):
    main()
"""


def test_the_run_of_a_killed_server_is_ended_by_the_button(browse: Callable[..., Any], tmp_path: Path) -> None:
    import httpx

    (tmp_path / "start.py").write_text(START)
    store = str(tmp_path / "runs.db")
    folders = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(tmp_path))
    command = [sys.executable, str(tmp_path / "start.py"), "serve", "-p", "ann,bob", "--port", "0", "--store", store]
    with subprocess.Popen(command, env={**os.environ, **folders}, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            lines = [server.stdout.readline().split() for _ in range(3)]
            assert [name for name, _ in lines] == ["base_url", "api_key", "page"]
            address, _, query = lines[2][1].partition("/?")
            with httpx.Client(base_url=address, trust_env=False, timeout=30, follow_redirects=True) as client:
                form = client.get(f"/?{query}").text
                csrf = form.partition('name="csrf" value="')[2].partition('"')[0]
                data = {"csrf": csrf, "task": "Hi", "seat": ["ann", "bob"], "strategy": "synthesize"}
                run = client.post("/runs", data=data).url.path
                with client.stream("GET", f"{run}/events") as events:
                    assert any("phase-synthesise" in line for line in events.iter_lines())
                    server.kill()
        finally:
            server.kill()
    browser = browse(config=CouncilConfig(store=store), ann={"script": SCRIPT}, bob={"script": SCRIPT})
    browser.open()
    page = browser.get(run)
    assert "was cut off" in page
    assert f'action="{run}/resume"' in page
    assert browser.send(f"{run}/resume").status_code == 303
    assert "The <strong>final</strong> answer." in browser.end_of(run)
    assert all(seat.asked("draft") == [] for seat in browser.seats.values())


def test_a_resumed_run_shows_its_words_can_be_cancelled_and_resumed_again(
    browse: Callable[..., Any], tmp_path: Path
) -> None:
    hangs = {"script": SCRIPT, "delay": {"draft": 0.0, "critique": 0.0, "synthesise": inf}}
    browser = browse(config=CouncilConfig(store=str(tmp_path / "runs.db")), ann=hangs, bob=hangs)
    browser.open()
    run = browser.ask(strategy="synthesize")
    for resumed in (False, True):
        if resumed:
            assert browser.send(f"{run}/resume").status_code == 303
        texts = []
        stream = browser.events(run)
        for _, kind, data in stream:
            texts.append(data.get("html", ""))
            if kind == "part" and data["id"].startswith("card-") and 'id="card-4"' in data["html"]:
                break  # the chair is asked
        assert "I <em>think</em> so." in "".join(texts)
        assert browser.send(f"{run}/cancel").status_code == 303
        assert list(stream)[-1][1] == "end"
        assert f'action="{run}/resume"' in browser.get(run)
    for seat in browser.seats.values():
        assert len(seat.asked("draft")) == 1
        assert seat.cancelled == len(seat.asked("synthesise"))
