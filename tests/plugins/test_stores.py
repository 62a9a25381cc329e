"""Stores of other distributions: chosen by the scheme of the address, and as good as a file of SQLite."""

from __future__ import annotations

import json
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from llm_council import Council, CouncilConfig
from llm_council.errors import InvalidOption, PluginLoadError, ServerFailed, StoreError
from llm_council.models import Budget, Message, RetryPolicy
from llm_council.store import RunStore, Store, _run_log, _run_store, _writer, open_store
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import SCRIPT
from tests.cli._command import Council as Command

Install = Callable[..., None]

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "store-plugins.md"
FOLDER = re.search(r"```python\n# house_council/stores.py\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]  # type: ignore[index]
NO_RETRY = RetryPolicy(max_retries=0)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the store of the page locks with fcntl")


class Memory(RunStore):
    """Keeps runs in this process."""

    def __init__(self, url: str = "memory://") -> None:
        super().__init__(url)
        self.kept: dict[str, tuple[int, str, list[str]]] = {}
        self.fault: BaseException | None = None

    def put(self, run_id: str, session: int, head: str, records: Sequence[str], *, expected: int | None) -> bool:
        if self.fault is not None:
            raise self.fault
        stored, _, old = self.kept.get(run_id, (None, "", []))
        if stored != expected:
            return False
        self.kept[run_id] = (session, head, [*old, *records])
        return True

    def heads(self) -> Iterator[tuple[str, int, str]]:
        for run_id, (session, head, _) in list(self.kept.items()):
            yield run_id, session, head

    def read(self, run_id: str) -> tuple[int, str, list[str]] | None:
        return self.kept.get(run_id)

    def delete(self, run_id: str, *, expected: int) -> bool:
        return self.kept[run_id][0] == expected and bool(self.kept.pop(run_id))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_run_store, "_opened", {})
    monkeypatch.setattr(_writer, "_writers", {})
    yield
    _writer.stop_all()


@pytest.fixture
def memory(install: Install) -> Memory:
    """Have a store at ``memory://``."""
    install("mem", f"from {__name__} import Memory", stores={"memory": "Memory"})
    store = open_store("memory://")
    assert type(store).__name__ == "Memory"
    return store  # type: ignore[return-value]  # the module of a test may be imported twice


@pytest.fixture(params=["memory", "folder", "sqlite"])
def url(request: pytest.FixtureRequest, install: Install, tmp_path: Path) -> str:
    """The address of an empty store of each kind."""
    if request.param == "memory":
        request.getfixturevalue("memory")
        return "memory://"
    install("house", FOLDER, stores={"folder": "Folder"})
    return f"folder://{tmp_path}/runs" if request.param == "folder" else f"sqlite:///{tmp_path}/runs.db"


def council(url: str, script: Any = SCRIPT, seats: int = 3) -> Council:
    providers = [ScriptedProvider(script, name=f"seat{number}") for number in range(seats)]
    return Council(providers, config=CouncilConfig(retry=NO_RETRY), store=url)


def scripted(provider: Any) -> Any:
    """Return the scripted provider inside of what a council wraps around it."""
    return provider if isinstance(provider, ScriptedProvider) else scripted(provider.inner)


def test_a_run_is_stored_listed_shown_exported_and_replayed(url: str) -> None:
    result = council(url).run("What is the capital?")
    assert result.warnings == ()
    store = open_store(url)
    (info,) = store.runs_sync()
    assert (info.run_id, info.status, info.task) == (result.run_id, "completed", "What is the capital?")
    assert (info.answered, info.in_flight) == (6, 0)
    assert store.find_sync("last") == store.find_sync(result.run_id[:6]) == result.run_id
    found = store.show_sync(result.run_id)
    assert found.result == result.to_dict()
    assert found.plan == result.plan
    assert {call.state for call in found.calls} == {"answered"}
    exported = store.export_sync(result.run_id)
    assert exported["result"] == result.to_dict()
    assert len(exported["calls"]) == 6
    assert all(call["ending"]["response"] for call in exported["calls"])
    assert council(url).replay(result.run_id) == result
    assert store.runs_sync(limit=0) == ()


def test_a_conversation_is_a_chain_of_runs_in_every_store(url: str) -> None:
    first = council(url).run("What is the capital?")
    second = council(url).run("And its river?", history="last")
    third = council(url).run("And its mayor?", history=second.run_id[:8])
    assert [past.run_id for past in third.plan.history] == [first.run_id, second.run_id]
    store = open_store(url)
    follows = {run.run_id: run.follows for run in store.runs_sync()}
    assert follows == {third.run_id: second.run_id, second.run_id: first.run_id, first.run_id: None}
    assert store.export_sync(third.run_id)["follows"] == second.run_id
    store.purge_sync(first.run_id, second.run_id)
    assert council(url).replay(third.run_id) == third
    assert len(council(url).run("And?", history=third.run_id).plan.history) == 3
    with pytest.raises(StoreError, match="no run zzz is stored here"):
        council(url).run("And?", history="zzz")


def test_a_failed_run_is_resumed_without_asking_twice(url: str) -> None:
    scripts = [SCRIPT, ServerFailed("down"), ServerFailed("down")]
    broken = [ScriptedProvider(script, name=f"seat{number}") for number, script in enumerate(scripts)]
    config = CouncilConfig(retry=NO_RETRY, budget=Budget(quorum=3))
    failed = Council(broken, config=config, store=url).run("What is the capital?")
    assert failed.status == "failed"
    again = council(url)
    result = again.resume(failed.run_id)
    assert result.status == "completed"
    asked = [scripted(provider).asked("draft") for provider in again._seating.providers.values()]
    assert [len(requests) for requests in asked] == [0, 1, 1]
    store = open_store(url)
    assert store.show_sync(failed.run_id).result == result.to_dict()
    assert [info.status for info in store.runs_sync()] == ["completed"]
    assert council(url).replay(failed.run_id) == result
    assert council(url).resume(failed.run_id) == result


def test_a_resumed_run_shows_the_attached_picture_again(url: str) -> None:
    picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    capabilities = attrs.evolve(ScriptedProvider.capabilities, multimodal=True)
    answers = iter([ServerFailed("down"), "It is red."])
    sees = ScriptedProvider(lambda _: next(answers), capabilities=capabilities)
    one = Council([sees], config=CouncilConfig(retry=NO_RETRY), store=url, strategy="single")
    failed = one.run("What is it?", files=[picture])
    assert one.resume(failed.run_id).text == "It is red."
    first, again = sees.requests
    assert first.messages == again.messages
    assert one.replay(failed.run_id).text == "It is red."
    assert len(sees.requests) == 2


def test_an_interrupted_run_goes_on_where_its_process_left_it(memory: Memory) -> None:
    left: dict[str, tuple[int, str, list[str]]] = {}

    def snapshot(request: Any) -> str:
        left.update({run_id: (session, head, list(texts)) for run_id, (session, head, texts) in memory.kept.items()})
        return json.dumps({"answer": "Paris", "reasoning": "It is."})

    council("memory://", {**SCRIPT, "synthesise": snapshot}).run("What is the capital?")
    ((run_id, (session, head, records)),) = left.items()  # as the process left it while the chair was writing
    elsewhere = {**json.loads(head), "owner": "elsewhere:1", "beat": 0.0}
    memory.kept[run_id] = (session, json.dumps(elsewhere), records)
    store = open_store("memory://")
    (info,) = store.runs_sync()
    assert (info.status, info.in_flight) == ("interrupted", 1)
    again = council("memory://")
    result = again.resume(run_id)
    assert result.status == "completed"
    assert [warning for warning in result.warnings if "asked again for its synthesise" in warning]
    asked = [scripted(provider).requests for provider in again._seating.providers.values()]
    assert sorted(map(len, asked)) == [0, 0, 1]
    (call,) = [call for call in store.show_sync(run_id).calls if call.repeats]
    assert (call.name.partition("/")[0], call.state, call.repeats) == ("synthesise", "answered", 1)
    assert memory.kept[run_id][0] == session + 1
    assert (store.runs_sync()[0].answered, store.runs_sync()[0].in_flight) == (6, 0)
    assert council("memory://").replay(run_id).output == result.output


def test_only_one_process_takes_a_run_over(memory: Memory) -> None:
    failed = council("memory://", ServerFailed("down"), seats=1).run("Where?")
    session, head, records = memory.kept[failed.run_id]
    reading = memory.read

    def read(run_id: str) -> Any:
        found = reading(run_id)
        memory.kept[run_id] = (session + 1, head, records)  # another process is quicker
        return found

    memory.read = read  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="taken over by another process"):
        memory._claim(failed.run_id)


def test_runs_are_purged_by_name_and_by_age(url: str) -> None:
    made = [council(url, seats=1).run("Where?").run_id for _ in range(3)]
    store = open_store(url)
    assert store.purge_sync(made[0]) == (made[0],)
    assert {info.run_id for info in store.runs_sync()} == set(made[1:])
    assert store.purge_sync(before=datetime.now(UTC) - timedelta(days=1)) == ()
    assert set(store.purge_sync(before=datetime.now(UTC) + timedelta(seconds=1))) == set(made[1:])
    with pytest.raises(StoreError, match=f"no run {made[0]} is stored here"):
        store.show_sync(made[0])


def test_a_run_that_goes_on_is_neither_purged_nor_resumed(url: str) -> None:
    going, end = threading.Event(), threading.Event()

    async def wait(request: Any) -> str:
        import anyio

        going.set()
        while not end.is_set():
            await anyio.sleep(0.005)
        return "night"

    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(council(url, wait, seats=1).run("Where?")))
    thread.start()
    try:
        assert going.wait(10)
        store = open_store(url)
        (info,) = store.runs_sync()
        assert (info.status, info.in_flight) == ("running", 1)
        with pytest.raises(StoreError) as purged:
            store.purge_sync(info.run_id)
        with pytest.raises(StoreError) as resumed:
            council(url, seats=1).resume(info.run_id)
        assert purged.value.kind == resumed.value.kind == "running"
    finally:
        end.set()
        thread.join(10)
    assert results[0].run_id == info.run_id


def test_no_key_is_stored(memory: Memory) -> None:
    council("memory://", seats=1).run("My key is sk-proj-0123456789abcdefghijABCDEFGHIJ0123456789.")
    assert "sk-proj-0123456789" not in repr(memory.kept)
    assert repr(memory.kept).isascii()
    assert not any("\n" in text for _, head, records in memory.kept.values() for text in (head, *records))


def test_a_store_that_fails_in_a_run_becomes_a_warning(memory: Memory) -> None:
    memory.fault = OSError("connection to postgresql://me:hunter2pw@db lost")
    result = council("memory://").run("What is the capital?")
    assert result.status == "completed"
    (warning,) = result.warnings
    assert "not stored whole" in warning
    assert "connection to" in warning
    assert "hunter2pw" not in warning


def test_a_run_does_not_wait_for_a_store_that_hangs(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run_log, "MAX_WAIT", 0.05)
    end = threading.Event()
    putting = memory.put

    def put(*arguments: Any, **options: Any) -> bool:
        end.wait(10)
        return putting(*arguments, **options)

    memory.put = put  # type: ignore[method-assign]
    result = council("memory://").run("What is the capital?")
    end.set()
    assert result.status == "completed"
    (warning,) = result.warnings
    assert "Memory('memory://') did not answer within 0.05 s" in warning


def test_a_run_that_was_purged_elsewhere_says_so(memory: Memory) -> None:
    def purge(request: Any) -> str:
        memory.kept.clear()
        return "night"

    result = council("memory://", purge, seats=1).run("Where?")
    assert any("purged, or another process has taken it over" in warning for warning in result.warnings)
    assert memory.kept == {}


def test_a_long_run_sends_heartbeats(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_writer, "HEARTBEAT", 0.02)

    async def wait(request: Any) -> str:
        import anyio

        first = beat()
        end = time.monotonic() + 10
        while beat() == first:
            assert time.monotonic() < end
            await anyio.sleep(0.005)
        return "night"

    def beat() -> float:
        ((_, head, _),) = memory.kept.values()
        return float(json.loads(head)["beat"])

    result = council("memory://", wait, seats=1).run("Where?")
    assert result.success
    assert not any("stored" in warning for warning in result.warnings)


def test_the_address_chooses_the_store(memory: Memory, tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path / "runs.db"), Store)
    assert open_store("sqlite:///runs.db").path == Path("runs.db").absolute()  # type: ignore[union-attr]
    assert open_store(f"sqlite:///{tmp_path}/runs.db").path == tmp_path / "runs.db"  # type: ignore[union-attr]
    assert open_store("memory://") is memory
    with pytest.raises(InvalidOption, match=r"kind memori://; did you mean 'memory'\?"):
        open_store("memori://x")
    with pytest.raises(InvalidOption, match="no plugin offers stores of the kind nothing://; there are memory"):
        Council([ScriptedProvider(SCRIPT)], store="nothing://here").run("Where?")


def test_a_broken_store_fails_before_anything_is_sent(
    install: Install, command: Command, seat: ScriptedProvider
) -> None:
    source = "def opener(url): raise OSError(f'no server at {url}')\nclass Other: pass"
    install("bad", source, stores={"down": "opener", "other": "Other", "gone": "Absent"})
    for url, words in (
        ("down://me:hunter2pw@db", r"store 'down' of bad 1.2: .* cannot be opened: OSError: no server at"),
        ("other://x", "store 'other' of bad 1.2: expected a subclass of llm_council.store.RunStore"),
        ("gone://x", "store 'gone' of bad 1.2: .*AttributeError"),
    ):
        with pytest.raises(PluginLoadError, match=words) as caught:
            Council([seat], store=url).run("Where?")
        assert "hunter2pw" not in str(caught.value)
        with pytest.raises(PluginLoadError), Council([seat], store=url).stream("Where?") as events:
            list(events)
        assert command("run", "-p", "scripted", "--store", url, "Where?")[0] == 2
    assert seat.requests == []
    out = command("doctor", "scripted")[1]
    assert "store 'other' of bad 1.2" in " ".join(out.split())


def test_the_variable_that_disables_plugins_is_named(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run_store, "_opened", {})
    monkeypatch.setenv("LLM_COUNCIL_NO_PLUGINS", "1")
    with pytest.raises(InvalidOption, match=r"mem 1\.2 offers it, but LLM_COUNCIL_NO_PLUGINS is set"):
        open_store("memory://")


def test_the_commands_work_with_a_plugged_store(
    install: Install, command: Command, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("house", FOLDER, stores={"folder": "Folder"})
    assert command("run", "-p", "scripted:2", "--store", "folder://runs", "What is the capital?", "--json")[0] == 0
    monkeypatch.setenv("LLM_COUNCIL_STORE", "folder://runs")
    ((run, *_),) = [(info["run_id"], info) for info in json.loads(command("runs", "list", "--json")[1])]
    assert json.loads(command("runs", "show", "last", "--json")[1])["result"]["status"] == "completed"
    assert json.loads(command("runs", "export", run[:6])[1])["run_id"] == run
    assert "Paris" in command("replay", run)[1]
    assert "Paris" in command("resume", run)[1]
    assert command("runs", "purge", run)[1] == "1 run deleted\n"


def test_a_lone_surrogate_of_a_model_is_stored(memory: Memory) -> None:
    result = council("memory://", "night \ud83d", seats=1).run("Where?")
    assert open_store("memory://").show_sync(result.run_id).result == result.to_dict()


def test_a_conversation_is_only_read_as_data(memory: Memory) -> None:
    assert Message("user", '["result", {}]').text
    result = council("memory://", '["claimed", null]', seats=1).run('["result", null]')
    assert open_store("memory://").show_sync(result.run_id).result == result.to_dict()


def test_the_password_of_an_address_is_shown_nowhere(
    command: Command, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "memory://me:hunter2pw@db/x"
    shown = [repr(CouncilConfig(store=url)), repr(Memory(url))]
    monkeypatch.setenv("LLM_COUNCIL_STORE", url)
    shown += [text for words in (("config", "show"), ("config", "show", "--json")) for text in command(*words)[1:]]
    shown += command("run", "-p", "scripted", "Where?")[1:]
    assert not [text for text in shown if "hunter2pw" in text]
    assert any("memory://***@db/x" in text for text in shown)
    with pytest.raises(TypeError, match="holds a key in plain text"):
        pickle.dumps(Council(["scripted"], store=url))
