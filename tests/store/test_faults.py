"""Faults of the file, the disk and the process: the run has its result, no data is lost, and a warning names each."""

from __future__ import annotations

import os
import random
import sqlite3
import string
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from llm_council import Council, CouncilConfig, errors
from llm_council.store import Store, _database, _sqlite, _writer
from llm_council.testing.fakes import ScriptedProvider

ANSWER = '{"answer": "Paris", "reasoning": "It is the capital."}'
# The labels of a run are drawn: every letter stands in the ranking.
REVIEW = "Good.\nRANKING: " + " > ".join(string.ascii_uppercase)
SCRIPT = {"draft": "It is Paris.", "critique": REVIEW, "synthesise": ANSWER}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def council(path: Path) -> Council:
    seats = [ScriptedProvider(SCRIPT, name=name) for name in ("ada", "bob", "cyd")]
    return Council(seats, config=CouncilConfig(), store=path)


@pytest.fixture(autouse=True)
def _fresh_writers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start each test without an open connection, and close all at its end."""
    monkeypatch.setattr(_writer, "_writers", {})
    yield
    _writer.stop_all()


def warned(council: Council) -> str:
    """Run the council, and return the warnings of its result."""
    result = council.run("Where?")
    assert result.success
    assert result.text == ANSWER
    return "\n".join(result.warnings)


# Damaged and foreign files.


def damaged_store(council: Council, path: Path, start: bytes) -> bytes:
    """Overwrite the start and the tables of a store; return its content. The mark in its header stays."""
    council.run("Where?")
    _writer.stop_all()
    data = path.read_bytes()
    content = start + data[len(start) : 100] + b"\xff" * (len(data) - 100)
    path.write_bytes(content)
    return content


@pytest.mark.parametrize("start", [b"SQLite format 3\x00", b"\x00" * 60])
def test_a_damaged_store_is_moved_aside_and_a_new_one_begun(council: Council, path: Path, start: bytes) -> None:
    content = damaged_store(council, path, start)
    with pytest.raises(errors.StoreError) as caught:
        Store(path).runs_sync()
    assert caught.value.kind == "corrupt"
    assert path.read_bytes() == content  # reading moves nothing
    assert "was damaged: it was moved to runs.db.corrupt-" in warned(council)
    (aside,) = path.parent.glob("runs.db.corrupt-*[0-9]")
    assert aside.read_bytes() == content
    assert len(Store(path).runs_sync()) == 1
    warned(council)
    assert list(path.parent.glob("runs.db.corrupt-*[0-9]")) == [aside]


@pytest.mark.parametrize(
    "content", [b"dear diary\n" * 400, b"x\n", b"\x00" * 5000, b"SQLite format 3\x00" + b"\xff" * 8000]
)
def test_a_file_that_never_was_a_store_is_left_alone(council: Council, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(errors.StoreError, match="is not a run store: name a file of its own") as caught:
        Store(path).runs_sync()
    assert caught.value.kind == "foreign"
    assert "is not a run store" in warned(council)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_delete_no_file_and_the_run_has_its_result(council: Council, path: Path, seed: int) -> None:
    for _ in range(3):
        council.run("Where?")
    _writer.stop_all()
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(40):
        data[chance.randrange(16, len(data))] = chance.randrange(256)
    path.write_bytes(data)
    warned(council)
    for file in path.parent.glob("runs.db.corrupt-*[0-9]"):
        assert file.stat().st_size >= len(data)
    with suppress(errors.StoreError):  # and nothing else; what was flipped may be nothing that is read
        Store(path).runs_sync()
        Store(path).export_sync("0")


def test_an_empty_file_is_a_store_without_runs(council: Council, path: Path) -> None:
    path.touch()
    assert Store(path).runs_sync() == ()
    assert warned(council) == ""


def test_a_newer_versions_file_is_left_alone(council: Council, path: Path) -> None:
    council.run("Where?")
    _writer.stop_all()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA user_version = {_database.SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    assert "newer version" in warned(council)
    for look in (Store(path).runs_sync, lambda: council.replay("0"), lambda: council.resume("0")):
        with pytest.raises(errors.StoreError, match="upgrade") as caught:
            look()
        assert caught.value.kind == "newer"
    assert path.read_bytes() == before


def test_another_programs_database_is_left_alone(council: Council, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    assert "another program's database" in warned(council)
    with pytest.raises(errors.StoreError) as caught:
        Store(path).runs_sync()
    assert caught.value.kind == "foreign"
    assert path.read_bytes() == before


def test_links_are_not_followed(council: Council, path: Path) -> None:
    target = path.with_name("elsewhere")
    path.symlink_to(target)
    assert "symbolic link" in warned(council)
    assert not target.exists()
    path.unlink()
    path.mkdir()
    assert "not a file" in warned(council)


# Disks and folders that cannot be written.


def test_a_full_disk_becomes_a_warning(council: Council, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    council.run("Where?")
    stored_runs = Store(path).runs_sync()
    monkeypatch.setattr(_writer, "_writers", {})
    connect = _sqlite.connect

    def full(file: Path, **options: Any) -> sqlite3.Connection:
        connection = connect(file, **options)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        return connection

    monkeypatch.setattr(_sqlite, "connect", full)
    assert "the disk is full" in warned(council)
    assert Store(path).runs_sync()[-1] == stored_runs[0]
    assert council.replay(stored_runs[0].run_id).success


@pytest.mark.slow
def test_a_limit_on_file_sizes_becomes_a_warning(path: Path, python: Callable[..., Any]) -> None:
    script = """
        import resource, sys
        from llm_council import Council, CouncilConfig
        from llm_council.store import Store
        from llm_council.testing.fakes import ScriptedProvider
        council = Council([ScriptedProvider("words " * 5000)], config=CouncilConfig(), store=sys.argv[1])
        schema = {"type": "string"}
        first = council.run("Where?", schema=schema)
        assert not first.warnings or "not stored" not in str(first.warnings)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
        for _ in range(12):
            result = council.run("Where?", schema=schema)
        assert result.drafts, result
        assert "not stored whole" in str(result.warnings), result.warnings
        assert council.replay(first.run_id).to_dict() == first.to_dict()
    """
    done = python(script, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_read_only_folder_becomes_a_warning(tmp_path: Path, python: Callable[..., Any]) -> None:
    script = """
        import os, sys
        from llm_council import Council, CouncilConfig, errors
        from llm_council.store import Store
        from llm_council.testing.fakes import ScriptedProvider
        council = Council([ScriptedProvider("words")], config=CouncilConfig(), store=sys.argv[1])
        council.run("Where?", store=False)
        os.chmod(os.path.dirname(sys.argv[1]), 0o500)
        if os.geteuid() == 0:
            os.seteuid(65534)
        result = council.run("Where?")
        assert result.drafts
        assert "not stored whole" in str(result.warnings), result.warnings
        try:
            Store(sys.argv[1]).runs_sync()
        except errors.StoreError as error:
            assert error.kind == "denied"
        if os.getuid() == 0:
            os.seteuid(0)
        os.chmod(os.path.dirname(sys.argv[1]), 0o700)
    """
    done = python(script, str(tmp_path / "runs.db"))
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "runs.db").exists()


def test_a_path_below_a_file_becomes_a_warning(council: Council, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = council.run("Where?", store=tmp_path / "file" / "runs.db")
    assert result.success
    assert "not stored whole" in result.warnings[-1]


def test_a_locked_store_becomes_a_warning(council: Council, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite, "BUSY_TIMEOUT", 0.05)
    council.run("Where?")
    _writer.stop_all()
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert "another process held it" in warned(council)
        holder.execute("ROLLBACK")
    assert warned(council) == ""
    assert len(Store(path).runs_sync()) == 2


# A file that is deleted or replaced while it is open.


LOST = "this run is not stored whole: the run store {}: its file was deleted or replaced during the run"


def delete(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def delete_folder(path: Path) -> None:
    delete(path)
    path.parent.rmdir()


def replace(path: Path) -> None:
    """Put another store in the place of the file, one that is empty."""
    other = path.with_name("other.db")
    _sqlite.connect(other).close()
    delete(path)
    other.replace(path)


def once(act: Callable[[], None]) -> Callable[[Any], str]:
    """Return the answer of a chair that does this in its first run."""
    left = [act]

    def answer(_: Any) -> str:
        while left:
            left.pop()()
        return ANSWER

    return answer


@pytest.mark.parametrize("lose", [delete, delete_folder, replace])
def test_a_file_lost_during_a_run_becomes_a_warning(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    path = tmp_path / "folder" / "runs.db"
    script = {**SCRIPT, "synthesise": once(lambda: lose(path))}
    council = Council([ScriptedProvider(script)] * 3, config=CouncilConfig(), store=path)
    assert LOST.format(path) in warned(council)
    assert path.exists() == (lose is replace)  # it is not made anew for the rest of a run
    assert Store(path).runs_sync() == ()
    result = council.run("Where?")
    assert result.warnings == ()
    assert [info.run_id for info in Store(path).runs_sync()] == [result.run_id]
    assert council.replay(result.run_id).to_dict() == result.to_dict()


@pytest.mark.parametrize("lose", [delete, delete_folder, replace])
def test_a_run_after_the_file_was_lost_is_stored_in_a_new_one(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    path = tmp_path / "folder" / "runs.db"
    council = Council([ScriptedProvider(SCRIPT)] * 3, config=CouncilConfig(), store=path)
    assert warned(council) == ""
    lose(path)
    result = council.run("Where?")
    assert result.warnings == (
        f"the file of the run store {path} was deleted or replaced while it was open: earlier runs may be missing",
    )
    assert [info.run_id for info in Store(path).runs_sync()] == [result.run_id]
    assert council.replay(result.run_id).text == result.text
    assert warned(council) == ""
    assert len(Store(path).runs_sync()) == 2


@pytest.mark.slow
def test_a_run_that_begins_after_the_loss_is_stored_beside_one_that_was_hit(path: Path) -> None:
    later: list[Any] = []

    def lose_and_run_another() -> None:
        delete(path)
        # In another thread: this one is that of the event loop.
        thread = threading.Thread(target=lambda: later.append(other.run("Where else?")))
        thread.start()
        thread.join(10)

    other = Council([ScriptedProvider(SCRIPT)] * 3, config=CouncilConfig(), store=path)
    script = {**SCRIPT, "synthesise": once(lose_and_run_another)}
    council = Council([ScriptedProvider(script)], config=CouncilConfig(), strategy="synthesize", store=path)
    assert LOST.format(path) in warned(council)
    assert [info.run_id for info in Store(path).runs_sync()] == [later[0].run_id]
    assert other.replay(later[0].run_id).text == later[0].text


def test_a_run_is_resumed_in_the_file_that_was_put_in_place(council: Council, path: Path) -> None:
    broken = ScriptedProvider(errors.AuthenticationFailed("no", status=401), name="ada")
    failed = Council([broken], config=CouncilConfig(), store=path).run("Where?")
    _writer.stop_all()
    backup = path.read_bytes()
    assert warned(council) == ""  # which leaves the file open
    delete(path)
    path.write_bytes(backup)
    result = council.resume(failed.run_id)
    assert not any("not stored" in warning for warning in result.warnings)
    assert Store(path).show_sync(failed.run_id).result == result.to_dict()


def test_without_a_write_ahead_log_every_commit_is_synced(
    council: Council, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network file system: SQLite's ``unix-dotfile`` locks have no shared memory, so it cannot use WAL."""
    connect, opened = sqlite3.connect, []

    def without(named: Path, **options: Any) -> sqlite3.Connection:
        connection = connect(f"{Path(named).as_uri()}?vfs=unix-dotfile", uri=True, check_same_thread=False, **options)
        opened.append(connection)
        return connection

    monkeypatch.setattr(_sqlite.sqlite3, "connect", without)
    result = council.run("Where?")
    assert (result.status, result.warnings) == ("completed", ())
    modes = [opened[0].execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert modes == ["delete", 2]
    _writer.stop_all()
    assert council.replay(result.run_id).to_dict() == result.to_dict()
    assert sorted(file.name for file in path.parent.iterdir()) == ["runs.db"]


# The thread and the process.


# Older schemas.


def test_a_stores_path_is_absolute_and_expands_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    assert Store("~/runs.db").path == tmp_path / "none" / "runs.db"
    assert os.path.isabs(Store("runs.db").path)  # noqa: PTH117


@pytest.mark.parametrize("way", ["daemon", "stream", "raise"])
@pytest.mark.slow
def test_a_process_that_exits_during_a_run_prints_nothing_and_leaves_the_store_intact(
    path: Path, python: Callable[..., Any], way: str
) -> None:
    script = """
        import sys, threading, time
        from llm_council import Council, CouncilConfig
        from llm_council.store import Store
        from llm_council.testing.fakes import ScriptedProvider
        council = Council([ScriptedProvider("words", delay=30.0)], config=CouncilConfig(), store=sys.argv[1])
        if sys.argv[2] == "stream":
            events = council.stream("Where?")
            next(iter(events))
        else:
            threading.Thread(target=council.run, args=("Where?",), daemon=True).start()
        while not any(run.in_flight for run in Store(sys.argv[1]).runs_sync()):
            time.sleep(0.01)
        if sys.argv[2] == "raise":
            raise SystemExit(0)
    """
    done = python(script, str(path), way)
    assert (done.returncode, done.stderr) == (0, "")
    (info,) = Store(path).runs_sync()
    assert info.status in ("interrupted", "cancelled")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_sqlite_is_not_imported_without_a_store(python: Callable[..., Any]) -> None:
    script = """
        import sys
        from llm_council import Council, CouncilConfig
        from llm_council.testing.fakes import ScriptedProvider
        Council([ScriptedProvider("words")], config=CouncilConfig()).run("Where?")
        assert not {"sqlite3", "llm_council.store", "llm_council._engine.resume"} & set(sys.modules)
    """
    done = python(script)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_store_can_be_read_while_it_is_created(tmp_path: Path) -> None:
    wrong: list[errors.StoreError] = []
    done = threading.Event()

    def look(path: Path) -> None:
        while not done.is_set():
            try:
                _sqlite.connect(path, create=False).close()
            except errors.StoreError as error:
                if error.kind != "missing":
                    wrong.append(error)

    for number in range(20):
        path = tmp_path / str(number) / "runs.db"
        done.clear()
        looking = [threading.Thread(target=look, args=(path,)) for _ in range(3)]
        for thread in looking:
            thread.start()
        _sqlite.connect(path).close()
        done.set()
        for thread in looking:
            thread.join()
    assert wrong == []
