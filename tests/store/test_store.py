"""Storing, listing, showing, exporting, replaying, resuming and purging runs."""

from __future__ import annotations

import copy
import json
import os
import stat
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import Council, CouncilConfig, errors
from llm_council.models import GenerateRequest
from llm_council.models._convert import dump
from llm_council.models._journal import CallRecord
from llm_council.store import Store, _encoding
from llm_council.testing.fakes import ScriptedProvider

ANSWER = '{"answer": "Paris", "reasoning": "It is the capital."}'
# The labels of a run are drawn: every letter stands in the ranking.
REVIEW = "Good.\nRANKING: " + " > ".join(string.ascii_uppercase)
SCRIPT = {"draft": "It is Paris.", "critique": REVIEW, "synthesise": ANSWER}


def seats(script: Any = SCRIPT, **options: Any) -> list[ScriptedProvider]:
    """Return three seats; each has its own copy of the script, because an error instance cannot be shared."""
    return [ScriptedProvider(copy.deepcopy(script), name=name, **options) for name in ("ada", "bob", "cyd")]


def refused(_: GenerateRequest) -> errors.AuthenticationFailed:
    return errors.AuthenticationFailed("no", status=401)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "runs.db"


@pytest.fixture
def council(path: Path) -> Council:
    return Council(seats(), config=CouncilConfig(seed="a seed"), store=path)


def test_nothing_is_written_unless_a_store_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    council = Council(seats(), config=CouncilConfig())
    assert council.run("Where?").success
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(errors.InvalidOption, match="no run store is configured"):
        council.replay("some-run")


def test_a_store_is_named_by_argument_configuration_environment_or_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_COUNCIL_STORE", str(tmp_path / "environment.db"))
    assert CouncilConfig.from_env().store == str(tmp_path / "environment.db")
    Council(seats(), config=CouncilConfig.from_env()).run("Where?")
    Council(seats(), config=CouncilConfig.from_env(), store=tmp_path / "argument.db").run("Where?")
    council = Council(seats(), config=CouncilConfig(store=str(tmp_path / "configuration.db")))
    council.run("Where?")
    council.run("Where?", store=tmp_path / "run.db")
    council.run("Where?", store=False)
    for name in ("environment", "argument", "configuration", "run"):
        assert len(Store(tmp_path / f"{name}.db").runs_sync()) == 1
    with pytest.raises(errors.InvalidOption, match="store"):
        CouncilConfig(store=" ")


def test_a_projects_configuration_file_cannot_name_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "council.toml").write_text('[council]\nstore = "runs.db"\n')
    with pytest.raises(errors.UntrustedConfig, match="store"):
        CouncilConfig.discover(tmp_path)


def test_files_are_readable_by_their_owner_alone(council: Council, path: Path) -> None:
    mask = os.umask(0)
    try:
        council.run("Where?")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = list(path.parent.iterdir())
    assert path in files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_file_that_others_can_read_is_made_private(council: Council, path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    path.chmod(0o644)
    council.run("Where?")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_purge_removes_the_runs_text_from_the_files(council: Council, path: Path) -> None:
    kept_run = council.run("Where is the kept one?")
    gone = council.run("Where is the CANARY-OF-THE-TASK?")
    store = Store(path)
    assert store.purge_sync(gone.run_id) == (gone.run_id,)
    held = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"CANARY-OF-THE-TASK" not in held
    assert gone.run_id.encode() not in held
    assert [info.run_id for info in store.runs_sync()] == [kept_run.run_id]
    with pytest.raises(errors.StoreError, match="no run"):
        store.purge_sync(gone.run_id)
    assert store.purge_sync(before=datetime.now(UTC) - timedelta(days=1)) == ()
    assert store.purge_sync(before=datetime.now(UTC) + timedelta(days=1)) == (kept_run.run_id,)


ENDINGS = st.builds(
    CallRecord,
    response=st.none() | strategies.responses(),
    error=st.none() | strategies.errors(),
    elapsed=st.floats(0, 1e6),
    sent=st.booleans(),
    cut=st.booleans(),
    spent=st.dictionaries(st.sampled_from(["calls", "tokens", "usd"]), st.integers(0, 10**9)),
    problem=st.none() | strategies.problems(),
    kept=st.none() | st.integers(0, 10**6),
)


@examples(30)
@given(ENDINGS)
def test_an_ending_is_decoded_as_it_was_encoded_with_secrets_masked(ending: CallRecord) -> None:
    text = _encoding.encode_ending(ending)
    assert text.isascii()
    assert dump(_encoding.decode_ending(text)) == _encoding.mask(dump(ending))
    assert _encoding.encode_ending(_encoding.decode_ending(text)) == text


@examples(15)
@given(strategies.requests(), strategies.requests())
def test_requests_for_different_things_have_different_digests(one: GenerateRequest, other: GenerateRequest) -> None:
    aside = attrs.evolve(one, idempotency_key="another", metadata={"run_id": "another"}, timeout_seconds=1.0)
    assert _encoding.request_digest(one) == _encoding.request_digest(aside)
    if _encoding.mask(dump(attrs.evolve(other, **_same(one)))) != _encoding.mask(dump(one)):
        assert _encoding.request_digest(one) != _encoding.request_digest(other)


def _same(one: GenerateRequest) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("idempotency_key", "metadata", "timeout_seconds", "stream")}


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_value_without_secrets_is_stored_unchanged(value: Any) -> None:
    assert json.loads(_encoding.encode({"value": value})) == {"value": value}


def test_an_ending_that_is_too_large_is_stored_without_the_raw_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_council.models import GenerateResponse

    monkeypatch.setattr(_encoding, "MAX_LENGTH", 2000)
    ending = CallRecord(response=GenerateResponse(text="words", raw={"long": "x" * 3000}))
    assert _encoding.decode_ending(_encoding.encode_ending(ending)).response == GenerateResponse(text="words")
    with pytest.raises(errors.StoreError, match="larger"):
        _encoding.encode_ending(CallRecord(response=GenerateResponse(text="x" * 3000)))


@pytest.mark.slow
def test_six_processes_start_at_once_and_write_one_store(
    path: Path, tmp_path: Path, python: Callable[..., Any]
) -> None:
    script = """
        import os, sys
        from llm_council import Council, CouncilConfig
        from llm_council.testing.fakes import ScriptedProvider
        ANSWER = '{"answer": "Paris", "reasoning": "It is the capital."}'
        review = "RANKING: " + " > ".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        seats = [ScriptedProvider({"critique": review, "*": ANSWER}, name=name) for name in ("ada", "bob", "cyd")]
        council = Council(seats, config=CouncilConfig(), store=sys.argv[1])
        import llm_council.store
        council.run("Where?", store=False)  # so that no child spends seconds on imports in its event loop
        children = []
        for _ in range(6):
            child = os.fork()
            if child == 0:
                warnings = [line for _ in range(3) for line in council.run("Where?").warnings]
                from llm_council.store import _writer
                _writer.stop_all()
                sys.stderr.write("".join(warnings))
                sys.stderr.flush()
                os._exit(len(warnings))
            children.append(child)
        sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
    """
    done = python(script, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    infos = Store(path).runs_sync()
    assert len(infos) == 18
    assert {(info.status, info.answered) for info in infos} == {("completed", 6)}


def test_a_process_that_ends_has_written_everything(path: Path, python: Callable[..., Any]) -> None:
    script = """
        import sys
        from llm_council import Council, CouncilConfig
        from llm_council.testing.fakes import ScriptedProvider
        council = Council([ScriptedProvider("words")], config=CouncilConfig(), store=sys.argv[1])
        council.run("Where?", schema={"type": "string"})
    """
    done = python(script, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.name for file in path.parent.iterdir()] == ["runs.db"]  # closed: its log is gone
    assert len(Store(path).runs_sync()) == 1
