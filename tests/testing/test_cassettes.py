"""Cassettes record calls once, replay them by their requests, and can be read and compared as text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import Council, CouncilConfig, errors
from llm_council.errors._secrets import Secret
from llm_council.models import GenerateRequest, GenerateResponse
from llm_council.providers.base import call, stream
from llm_council.testing import cassettes
from llm_council.testing.cassettes import Cassette, Recorder, Replay
from llm_council.testing.fakes import ScriptedProvider

ANSWER = json.dumps({"answer": "Paris", "reasoning": "It is the capital."})
SCRIPT = {"draft": "It is Paris.\nI am sure.", "critique": "Good.\nRANKING: A", "synthesise": ANSWER}
NAMES = ("ada", "bob", "cyd")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassettes" / "one.json"


def ask(provider: Any, prompt: str = "Where?", **fields: Any) -> GenerateResponse:
    response: GenerateResponse = provider.generate_sync(GenerateRequest(prompt=prompt, **fields))
    return response


def test_a_recorded_answer_is_replayed_without_calling_the_provider(path: Path) -> None:
    inner = ScriptedProvider("In Paris.")
    first = ask(Recorder(inner, path), temperature=0.5)
    again = ask(Replay(inner, path), temperature=0.5, idempotency_key="another", metadata={"run_id": "another"})
    assert (again.text, again.usage, again.model) == (first.text, first.usage, first.model)
    assert len(inner.requests) == 1


def test_a_request_that_was_not_recorded_fails(path: Path) -> None:
    inner = ScriptedProvider("In Paris.")
    ask(Recorder(inner, path))
    replay = Replay(inner, path)
    for fields in ({"prompt": "When?"}, {"temperature": 0.5}):
        with pytest.raises(errors.AdapterFailed, match=r"no answer for scripted.*LLM_COUNCIL_RECORD=all"):
            ask(replay, **fields)
    assert ask(replay).text == "In Paris."
    with pytest.raises(errors.AdapterFailed, match=r"a 2\. time"):
        ask(replay)
    assert len(replay.cassette.missed) == 3


def test_equal_requests_get_their_answers_in_order(path: Path) -> None:
    recorder = Recorder(ScriptedProvider(["one", "two", "three"]), path)
    assert [ask(recorder).text for _ in range(3)] == ["one", "two", "three"]
    replay = Replay(ScriptedProvider("nobody"), path)
    assert [ask(replay).text for _ in range(3)] == ["one", "two", "three"]


def test_errors_are_recorded_with_their_facts(path: Path) -> None:
    recorder = Recorder(ScriptedProvider(lambda _: errors.RateLimited("slow down", status=429, retry_after=3.0)), path)
    with pytest.raises(errors.RateLimited):
        ask(recorder)
    with pytest.raises(errors.RateLimited) as caught:
        ask(Replay(recorder.inner, path))
    assert (caught.value.status, caught.value.retry_after) == (429, 3.0)


@pytest.mark.anyio
async def test_streams_are_recorded_whole_and_replayed(path: Path) -> None:
    inner = ScriptedProvider("In Paris, of course.")
    request = GenerateRequest(prompt="Where?")
    streamed = [chunk.text async for chunk in stream(Recorder(inner, path), request)]
    assert len([text for text in streamed if text]) == 3
    replay = Replay(inner, path)
    again = [chunk.text async for chunk in stream(replay, request)]
    assert "".join(again) == "".join(streamed)
    with pytest.raises(errors.AdapterFailed):
        await call(replay, request)


def council_of(seats: list[Any]) -> Council:
    return Council(seats, config=CouncilConfig(seed="tests"))


def test_a_whole_council_replays_and_its_cassette_never_changes(path: Path) -> None:
    texts = []
    for delays in ((0.0, 0.01, 0.02), (0.02, 0.0, 0.01)):
        path.unlink(missing_ok=True)
        tape = Cassette(path)
        inner = [ScriptedProvider(SCRIPT, name=n, delay=delay) for n, delay in zip(NAMES, delays, strict=True)]
        recorded = council_of([Recorder(provider, tape) for provider in inner]).run("Where?")
        texts.append(path.read_text())
    assert texts[0] == texts[1]  # whatever came first
    replayed = council_of([Replay(ScriptedProvider("", name=name), Cassette(path)) for name in NAMES]).run("Where?")
    assert (replayed.output, replayed.drafts, replayed.critiques) == (
        *(recorded.output, recorded.drafts, recorded.critiques),
    )
    data = json.loads(texts[0])
    assert [streamed["for"] for streamed in data["calls"]][:3] == ["draft ada", "draft bob", "critique ada"]
    assert data["calls"][0]["response"]["text"] == {"$lines": ["It is Paris.", "I am sure."]}
    assert "elapsed" not in texts[0]
    assert recorded.run_id not in texts[0]


def test_no_secret_is_recorded(path: Path) -> None:
    key = Secret('canary-"quoted\\key-0123456789')
    ask(Recorder(ScriptedProvider(f"your key is {key.reveal()} or sk-another0123456789"), path), key.reveal())
    text = path.read_text()
    assert "canary" not in text
    assert "sk-another" not in text
    assert ask(Replay(ScriptedProvider(""), path), key.reveal()).text == "your key is *** or ***"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_replay_needs_no_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    ask(Recorder(ScriptedProvider("It is so.", name="openai"), path))
    with pytest.raises(errors.ConfigurationError, match="OPENAI_API_KEY"):
        council_of(["openai"])._seating.check()
    council_of([Replay("openai", path)])._seating.check()
    assert ask(Replay("openai", path)).text == "It is so."


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 2, "calls": []}', '{"format": 1}', '{"$lines": ["a"]}'])
def test_the_error_names_a_file_that_is_not_a_cassette(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(errors.InvalidOption, match=r"one\.json cannot be read"):
        ask(Replay(ScriptedProvider(""), path))


@examples(10)
@given(request=strategies.requests(), response=strategies.responses())
def test_any_call_is_replayed_as_it_was_recorded(
    request: GenerateRequest, response: GenerateResponse, tmp_path_factory: Any
) -> None:
    import attrs

    path = tmp_path_factory.mktemp("any") / "one.json"
    Cassette(path).record("any", request, response)
    again = Cassette(path).answer("any", request)
    bare = attrs.evolve(response, attempts=(), raw=None)
    assert cassettes.dump(again) == cassettes.mask(cassettes.dump(bare))


VALUES = st.recursive(
    st.text() | st.none() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["$lines", "$$", "$"]), inner),
)


@examples(30)
@given(VALUES)
def test_any_value_survives_the_conversion_to_lines_and_back(value: Any) -> None:
    assert cassettes._from_lines(json.loads(json.dumps(cassettes._to_lines(value)))) == value


def test_the_path_of_a_cassette_stays_beside_the_test_file() -> None:
    for name in ("test_one", "test_one[a/../../b]", "test_one[ö \x00]", "..", "x" * 300):
        found = cassettes.cassette_path(Path("/tests/test_file.py"), name)
        assert found.parent == Path("/tests/cassettes/test_file")
        assert len(found.name) < 130


TEST = """
    import os
    from llm_council import Council, CouncilConfig
    from llm_council.testing.fakes import ScriptedProvider

    def test_answer(cassette):
        said = "said once" if os.environ.get("SAYS") else "must not be asked"
        council = Council([cassette(ScriptedProvider(said))], config=CouncilConfig(seed="tests"))
        task = os.environ.get("TASK", "Where?")
        result = council.run(task, schema={"type": "string"}, strategy="synthesize")
        assert result.drafts["scripted"] == "said once"
"""


RUNS = """
    import contextlib, io, json, os, sys
    import pytest

    def tests(**variables):
        for name in ("SAYS", "TASK", "LLM_COUNCIL_RECORD"):
            os.environ.pop(name, None)
        os.environ.update(variables)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]])
        return int(code), out.getvalue()

    print(json.dumps([
        tests(),
        tests(LLM_COUNCIL_RECORD="missing", SAYS="1"),
        tests(),
        tests(TASK="Another question?"),
        tests(LLM_COUNCIL_RECORD="sometimes"),
    ]))
"""


@pytest.mark.slow
def test_the_fixture_replays_unless_the_variable_says_record(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(textwrap.dedent(TEST))
    loaded = {point.value for point in entry_points(group="pytest11")}
    plugin = [] if "llm_council.testing.plugin" in loaded else ["-p", "llm_council.testing.plugin"]
    command = [sys.executable, "-c", textwrap.dedent(RUNS), str(tmp_path / "test_user.py"), *plugin]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "LLM_COUNCIL"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    without, recorded, replayed, missed, misspelt = json.loads(done.stdout)
    assert without[0] == 1
    assert "LLM_COUNCIL_RECORD=missing" in without[1]
    assert recorded[0] == 0, recorded[1]
    assert (tmp_path / "cassettes" / "test_user" / "test_answer.json").exists()
    assert replayed[0] == 0, replayed[1]
    assert missed[0] == 1
    assert "has no answer for scripted draft" in missed[1]
    assert "none, missing or all" in misspelt[1]
