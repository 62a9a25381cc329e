"""What only PostgreSQL has: addresses, roles, lost connections, and writers on several machines (tox -e postgres)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from llm_council import Council, CouncilConfig, RetryPolicy, errors
from llm_council.models import GenerateRequest
from llm_council.providers import registry
from llm_council.store import Store, _database, _writer
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import SCRIPT as COMMAND_SCRIPT
from tests.cli._command import Council as Command
from tests.cli.conftest import council as command
from tests.cli.conftest import new_user, seat
from tests.store import kill
from tests.store.places import DatabasePlace

pytestmark = pytest.mark.postgres

__all__ = ["command", "new_user", "seat"]

ANSWER = '{"answer": "Paris", "reasoning": "It is the capital."}'
REVIEW = "Good.\nRANKING: " + " > ".join(string.ascii_uppercase)
SCRIPT = {"draft": "It is Paris.", "critique": REVIEW, "synthesise": ANSWER}
OLD = Path(__file__).parents[1] / "data" / "0.1.0"


@pytest.fixture(autouse=True)
def _fresh_writers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start each test without an open connection, and close all at its end."""
    monkeypatch.setattr(_writer, "_writers", {})
    yield
    _writer.stop_all()


@pytest.fixture
def postgres() -> Any:
    from llm_council.store import _postgres

    return _postgres


@pytest.fixture
def own_server() -> Iterator[Any]:
    """A server that a test may kill."""
    from tests.store.postgres_server import Server

    started = Server()
    try:
        started.start()
        yield started
    finally:
        started.remove()


def seats(script: Any = SCRIPT, **options: Any) -> list[ScriptedProvider]:
    return [ScriptedProvider(script, name=name, **options) for name in ("ada", "bob", "cyd")]


def council_of(address: str, script: Any = SCRIPT) -> Council:
    return Council(seats(script), config=CouncilConfig(retry=RetryPolicy(max_retries=0)), store=address)


def once(act: Callable[[], object]) -> Callable[[GenerateRequest], str]:
    """Return the answer of a chair that does this first."""
    left = [act]

    def answer(_: GenerateRequest) -> str:
        while left:
            left.pop()()
        return ANSWER

    return answer


# Addresses, and servers that cannot be used.


def test_the_password_is_shown_nowhere(server: Any, command: Command, seat: ScriptedProvider, tmp_path: Path) -> None:
    server.run("DROP DATABASE IF EXISTS shown", "CREATE DATABASE shown")
    address, place = server.address("shown"), DatabasePlace.__new__(DatabasePlace)
    place.address = address
    secret = (server.password, quote(server.password, safe=""))
    texts: list[str] = []
    for words in (
        ("run", "-p", "scripted:3", "--store", address, "--json", "Where?"),
        ("run", "-p", "scripted:3", "--store", address, "--dry-run", "--json", "Where?"),
        ("run", "-p", "scripted", "--store", address, "--verbose", "-o", str(tmp_path), "Where?"),
        ("runs", "list", "--store", address),
        ("runs", "show", "last", "--store", address),
        ("runs", "export", "last", "--store", address),
        ("runs", "show", "none", "--store", address),
        ("resume", "last", "--store", address, "--verbose"),
        ("runs", "list", "--store", server.address("none")),
        ("runs", "purge", "last", "--store", address),
        ("run", "-p", "scripted", "--store", server.address(user="nobody"), "Where?"),
    ):
        texts += command(*words)[1:]
    texts += [repr(Store(address)), repr(Council([seat], store=address)), place.held(), Store(address).address]
    result = council_of(server.address("none")).run("Where?")
    texts += [repr(result), json.dumps(result.to_dict()), repr(result.plan)]
    found = [text for text in texts if any(form in text for form in secret)]
    assert found == []
    assert any("postgres:***@/shown" in text for text in texts)


def test_the_configuration_shows_no_password(server: Any, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COUNCIL_STORE", server.address())
    for words in (("config", "show"), ("config", "show", "--json")):
        code, out, err = command(*words)
        assert code == 0
        assert quote(server.password, safe="") not in out + err
        assert "postgresql://postgres:***@/postgres" in out


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"password": "wrong"}, "denied", "password authentication failed .*; check user and password"),
        ({"user": "nobody"}, "denied", "check user and password"),
        (
            {"database": "none"},
            "unreachable",
            "none.* does not exist; create it with createdb, or name another",
        ),
    ],
)
def test_a_server_that_refuses_is_a_typed_error_with_the_remedy(
    server: Any, change: dict[str, str], kind: str, words: str, command: Command, seat: ScriptedProvider
) -> None:
    address = server.address(**change)
    with pytest.raises(errors.StoreError, match=words) as caught:
        Store(address).runs_sync()
    assert caught.value.kind == kind
    assert "***@" in str(caught.value)
    code, out, err = command("run", "-p", "scripted", "--store", address, "Where?")
    assert (code, out) == (2, "")
    assert "--store: the run store postgresql://" in err
    assert seat.requests == []
    result = council_of(address).run("Where?")
    assert result.success
    assert "(nothing of it is stored)" in result.warnings[-1]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://127.0.0.1:1/x", "refused.*; start the server, or check host and port"),
        ("postgresql:///x?host=/nowhere", "; start the server, or check host and port"),
        ("postgresql://127.0.0.1:1/x?sslmode=bogus", "sslmode.*; check the parameters of the address"),
        ("postgresql:///?service=none", "service.*; check the parameters of the address"),
    ],
)
def test_a_server_that_cannot_be_reached_is_a_typed_error(address: str, words: str) -> None:
    with pytest.raises(errors.StoreError, match=words) as caught:
        Store(address).runs_sync()
    assert caught.value.kind == "unreachable"
    assert caught.value.__cause__ is caught.value.__context__ is None  # frames of the driver hold the password


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:pass@word@db/x",
        "postgresql://me:pass/word@db/x",
        "postgresql://me:p%zzword@db/x",
        "postgres://h:p/x",
    ],
)
def test_an_address_that_cannot_be_read_is_refused_without_quoting_it(address: str) -> None:
    with pytest.raises(errors.InvalidOption, match="with %40 for @") as caught:
        Store(address)
    assert "word" not in str(caught.value).replace("password", "").replace("PASSWORD", "")


def test_what_the_address_lacks_comes_from_where_libpq_looks(
    server: Any, database: DatabasePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = council_of(database.address).run("Where?").run_id
    path = f"options=-csearch_path%3D{database.schema}"
    without = f"postgresql://postgres@/postgres?host={server.folder}&{path}"
    with pytest.raises(errors.StoreError):
        Store(without).runs_sync()
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSWORD", server.password)
        assert Store(without).find_sync("last") == run
    (tmp_path / "pass").write_text("*:*:*:postgres:" + server.password.replace(":", "\\:") + "\n")
    (tmp_path / "pass").chmod(0o600)
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSFILE", str(tmp_path / "pass"))
        assert Store(without).find_sync("last") == run
    lines = ("[council]", f"host={server.folder}", "user=postgres", "dbname=postgres", f"password={server.password}")
    (tmp_path / "services").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    assert Store(f"postgresql:///?service=council&{path}").find_sync("last") == run
    monkeypatch.setenv("PGSERVICE", "council")
    assert Store(f"postgres:///?{path}").find_sync("last") == run


def test_a_role_that_may_only_read_reads_and_is_refused_before_a_run(
    database: DatabasePlace, command: Command, seat: ScriptedProvider
) -> None:
    run = council_of(database.address).run("Where?").run_id
    role = f"reader_{database.schema}"
    database.server.run(
        f"CREATE ROLE {role} LOGIN PASSWORD 'reads'",
        f"GRANT USAGE ON SCHEMA {database.schema} TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {database.schema} TO {role}",
    )
    address = database.address.replace(f"postgres:{quote(database.server.password, safe='')}@", f"{role}:reads@")
    assert Store(address).find_sync("last") == run
    assert council_of(address).replay(run).success
    code, out, err = command("run", "-p", "scripted", "--store", address, "Where?")
    assert (code, out) == (2, "")
    assert "permission denied" in err
    assert "the role needs SELECT, INSERT, UPDATE and DELETE" in " ".join(err.split())
    assert seat.requests == []
    with pytest.raises(errors.StoreError) as caught:
        Store(address).purge_sync(run)
    assert caught.value.kind == "denied"
    result = council_of(address).run("Where?")
    assert result.success
    assert "not stored whole" in result.warnings[-1]


def test_a_standby_is_refused_for_writing(database: DatabasePlace) -> None:
    council_of(database.address).run("Where?")
    address = database.address.replace("options=", "options=-cdefault_transaction_read_only%3Don%20")
    assert len(Store(address).runs_sync()) == 1
    with pytest.raises(errors.StoreError, match="target_session_attrs=read-write") as caught:
        Store(address)._check()
    assert caught.value.kind == "denied"


def test_a_check_leaves_nothing(database: DatabasePlace) -> None:
    Store(database.address)._check()
    assert Store(database.address).runs_sync() == ()
    assert database.query("SELECT * FROM {papers}") == []


def test_other_tables_of_the_database_are_left_alone(database: DatabasePlace) -> None:
    database.change("CREATE TABLE runs (mine INTEGER)", "INSERT INTO runs VALUES (7)")
    council_of(database.address).run("Where?")
    tables = database.query("SELECT tablename FROM pg_tables WHERE schemaname = ?", database.schema)
    assert {name for (name,) in tables} == {
        "runs",
        "llm_council_schema",
        *(f"llm_council_{table}" for table in _database.TABLES),
    }
    Store(database.address).purge_sync(Store(database.address).find_sync("last"))
    assert database.query("SELECT * FROM runs") == [(7,)]


def test_many_create_the_tables_at_once(database: DatabasePlace) -> None:
    outcomes: list[Any] = []

    def check() -> None:
        try:
            Store(database.address)._check()
        except Exception as error:
            outcomes.append(error)
        else:
            outcomes.append(None)

    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outcomes == [None] * 8
    assert database.query("SELECT version FROM {schema}") == [(_database.SCHEMA_VERSION,)]


# Lost connections and slow servers.


@pytest.mark.parametrize("way", ["kill", "stop"])
def test_a_run_is_stored_whole_when_the_server_is_killed_or_stopped_and_started_again(
    own_server: Any, postgres: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(postgres, "RECONNECT_FOR", 60.0)

    def restart() -> None:
        getattr(own_server, way)()
        own_server.start()

    council = council_of(own_server.address(), {**SCRIPT, "synthesise": once(restart)})
    result = council.run("Where?")
    assert (result.status, result.warnings) == ("completed", ())
    store = Store(own_server.address())
    assert store.show_sync(result.run_id).result == result.to_dict()
    assert council.replay(result.run_id).to_dict() == result.to_dict()


def test_a_run_goes_on_while_the_server_is_down_and_says_what_is_not_stored(
    own_server: Any, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "RECONNECT_FOR", 0.2)
    address = own_server.address()
    council = council_of(address, {**SCRIPT, "synthesise": once(own_server.kill)})
    result = council.run("Where?")
    assert (result.status, result.text) == ("completed", ANSWER)
    (warning,) = result.warnings
    assert warning.startswith("this run is not stored whole: the run store postgresql://postgres:***@/postgres")
    assert "(not stored: the answers of synthesise/" in warning
    assert warning.endswith("and its result)")
    down = council.run("And when it is down?")
    assert down.success
    assert "(nothing of it is stored)" in down.warnings[-1]
    own_server.start()
    # What was committed is there, whole: a chair that was asked, and has not answered.
    store = Store(address)
    (info,) = store.runs_sync()
    assert (info.run_id, info.status, info.answered, info.in_flight) == (result.run_id, "interrupted", 5, 1)
    assert {call.state for call in store.show_sync(result.run_id).calls} == {"answered", "in flight"}
    # The writer has a connection again, and the run goes on from there.
    later = council.run("Where?")
    assert later.warnings == ()
    again = council_of(address)
    resumed = again.resume(result.run_id)
    assert resumed.success
    asked = [request.metadata["phase"] for one in again._seating.adapters.values() for request in requests_of(one)]
    assert asked == ["synthesise"]
    assert again.replay(result.run_id).to_dict() == resumed.to_dict()


def requests_of(adapter: Any) -> list[GenerateRequest]:
    while not hasattr(adapter, "requests"):
        adapter = adapter.inner
    found: list[GenerateRequest] = adapter.requests
    return found


def test_a_connection_that_the_server_ends_is_replaced(database: DatabasePlace) -> None:
    def end() -> None:
        database.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND application_name = 'llm-council'"
        )

    council = council_of(database.address, {**SCRIPT, "synthesise": once(end)})
    result = council.run("Where?")
    assert (result.status, result.warnings) == ("completed", ())
    assert council.replay(result.run_id).to_dict() == result.to_dict()


def test_a_transaction_that_may_be_committed_is_not_written_twice(
    database: DatabasePlace, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost after the COMMIT was sent, before its answer arrives."""
    executing, left = postgres.PostgresConnection.execute, [1]

    def execute(self: Any, statement: str, parameters: Any = ()) -> Any:
        done = executing(self, statement, parameters)
        if statement == "COMMIT" and left and "synthesise" in str(database.query("SELECT name FROM {endings}")):
            left.clear()
            self._connection.close()
            raise postgres.psycopg.OperationalError("the connection was lost")
        return done

    monkeypatch.setattr(postgres.PostgresConnection, "execute", execute)
    result = council_of(database.address).run("Where?")
    assert result.success
    assert left == []
    assert "not stored whole" in str(result.warnings)
    names = [name for (name,) in database.query("SELECT name FROM {endings}")]
    assert len(names) == len(set(names)) == 6


def test_a_table_that_is_locked_costs_a_run_no_more_than_the_limit(
    database: DatabasePlace, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "STATEMENT_TIMEOUT", 0.2)
    import psycopg

    council_of(database.address).run("Where?")
    with psycopg.connect(database.address) as holder:
        holder.execute("LOCK TABLE llm_council_runs IN ACCESS EXCLUSIVE MODE")
        result = council_of(database.address).run("Where?")
        holder.rollback()
    assert result.success
    assert "statement timeout; it took longer than" in result.warnings[-1]
    assert council_of(database.address).run("Where?").warnings == ()


def test_a_run_does_not_wait_for_a_server_that_hangs(database: DatabasePlace) -> None:
    stopped: list[int] = []

    def stop() -> None:
        rows = database.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'llm-council'")
        stopped.extend(pid for (pid,) in rows)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        Store(database.address)._writer().max_wait = 0.3

    council = council_of(database.address, {**SCRIPT, "synthesise": once(stop)})
    try:
        result = council.run("Where?")
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert result.success
    assert stopped
    assert "did not answer within 0.3 s (not stored: " in result.warnings[-1]


def test_the_clocks_of_machines_may_differ(database: DatabasePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    result = council_of(database.address).run("Where?")
    now = "extract(epoch FROM clock_timestamp())"
    database.change(f"UPDATE {{runs}} SET status = 'running', owner = 'elsewhere/abc:1', beat = {now}")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    store = Store(database.address)
    assert store.runs_sync()[0].status == "running"
    with pytest.raises(errors.StoreError, match="in the process 1 on the host elsewhere since 2") as caught:
        council_of(database.address).resume(result.run_id)
    assert caught.value.kind == "running"
    assert "resumed after 15 s" in str(caught.value)
    other = council_of(database.address).run("Where else?")
    (beat,) = database.query("SELECT beat FROM {runs} WHERE id = ?", other.run_id)[0]
    assert beat < real() + 60


# Several processes.

PROCESS = """
    import sys
    from llm_council import Council, CouncilConfig
    from llm_council.testing.fakes import ScriptedProvider
    ANSWER = '{"answer": "Paris", "reasoning": "It is the capital."}'
    review = "RANKING: " + " > ".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    seats = [ScriptedProvider({"critique": review, "*": ANSWER}, name=name) for name in ("ada", "bob", "cyd")]
    council = Council(seats, config=CouncilConfig(), store=sys.argv[1])
    results = [council.run("Where?") for _ in range(50)]
    lost = [line for result in results for line in result.warnings]
    print("\\n".join(lost), end="")
"""


def test_four_processes_of_fifty_runs_lose_none(database: DatabasePlace, tmp_path: Path) -> None:
    script = tmp_path / "runs.py"
    script.write_text("\n".join(line[4:] for line in PROCESS.splitlines()))
    command = [sys.executable, "-W", "error", str(script), database.address]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    ended = [(child.communicate(timeout=150)[0], child.returncode) for child in children]
    assert ended == [("", 0)] * 4
    infos = Store(database.address).runs_sync()
    assert len(infos) == 200
    assert {(info.status, info.answered, info.in_flight) for info in infos} == {("completed", 6, 0)}
    owners = database.query("SELECT owner, count(*) FROM {runs} GROUP BY owner")
    assert sorted(number for _, number in owners) == [50] * 4


def test_a_run_of_a_killed_process_is_resumed_at_once_on_the_same_machine(
    database: DatabasePlace, tmp_path: Path
) -> None:
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, sys\n"
        "from llm_council import Council, CouncilConfig\n"
        "from llm_council.testing.fakes import ScriptedProvider\n"
        "script = {'synthesise': lambda _: os.kill(os.getpid(), signal.SIGKILL), '*': 'RANKING: A'}\n"
        "seats = [ScriptedProvider(script, name=name) for name in ('ada', 'bob', 'cyd')]\n"
        "Council(seats, config=CouncilConfig(), store=sys.argv[1]).run('Where?')\n"
    )
    done = subprocess.run([sys.executable, str(script), database.address], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    (info,) = Store(database.address).runs_sync()
    assert (info.status, info.answered, info.in_flight) == ("interrupted", 5, 1)
    council = council_of(database.address)
    result = council.resume(info.run_id)
    assert result.success
    assert len([line for line in result.warnings if "in flight" in line]) == 1
    assert council.replay(info.run_id).to_dict() == result.to_dict()


# Runs of earlier versions, and the command.


def test_the_runs_of_a_store_of_0_1_0_are_brought_over(
    database: DatabasePlace, command: Command, tmp_path: Path
) -> None:
    path = shutil.copy(OLD / "runs.db", tmp_path / "old.db")
    recorded = json.loads((OLD / "runs.json").read_text())
    code, out, err = command("runs", "copy", "--store", str(path), "--to", database.address)
    assert (code, out, err) == (0, f"{len(recorded)} runs copied\n", "")
    assert command("runs", "copy", "--store", str(path), "--to", database.address)[1] == "0 runs copied\n"
    old, new = Store(path), Store(database.address)
    assert new.runs_sync() == old.runs_sync()
    council = council_of(database.address, {"critique": "Good.\nRANKING: A", "synthesise": ANSWER})
    for name, run in recorded.items():
        run_id = run["run_id"]
        assert new.export_sync(run_id) == old.export_sync(run_id)
        if name != "interrupted":
            assert council.replay(run_id).to_dict() == council.replay(run_id, store=path).to_dict()
    resumed = council.resume(recorded["interrupted"]["run_id"])
    assert (resumed.status, resumed.output) == ("completed", json.loads(ANSWER))


def test_the_commands_take_the_address(
    database: DatabasePlace, command: Command, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, out, _ = command("run", "-p", "scripted:3", "--store", database.address, "--json", "Where?")
    assert code == 0
    run = json.loads(out)["run_id"]
    monkeypatch.setenv("LLM_COUNCIL_STORE", database.address)
    assert [info["run_id"] for info in json.loads(command("runs", "list", "--json")[1])] == [run]
    assert json.loads(command("runs", "show", "last", "--json")[1])["run_id"] == run
    assert json.loads(command("runs", "export", run[:6])[1])["run_id"] == run
    assert "Paris" in command("replay", run)[1]
    assert "Paris" in command("resume", run)[1]
    assert command("run", "-p", "scripted:3", "-c", "And then?")[0] == 0
    grades = str(tmp_path / "grades.jsonl")
    with registry.overriding(ada=ScriptedProvider(COMMAND_SCRIPT), bob=ScriptedProvider(COMMAND_SCRIPT)):
        assert command("run", "-p", "ada,bob", "--strategy", "revise", "Where?")[0] == 0
        assert command("grade", "last", "right", "--grades", grades)[0] == 0
        code, out, _ = command("eval", "--from-store", database.address, "--grades", grades)
    assert code == 0
    assert "as it ran: revise" in out
    monkeypatch.delenv("LLM_COUNCIL_STORE")
    user = tmp_path / "home" / "llm-council"
    user.mkdir(parents=True)
    (user / "config.toml").write_text(f"[council]\nstore = '''{database.address}'''\n")
    assert command("runs", "purge", run)[1] == "1 run deleted\n"


def test_an_event_loop_is_not_blocked_by_a_slow_server(database: DatabasePlace) -> None:
    """While the table is locked, another run of the same loop, without a store, ends."""
    import anyio
    import psycopg

    council_of(database.address).run("Where?")
    holder = psycopg.connect(database.address)
    holder.execute("LOCK TABLE llm_council_runs IN ACCESS EXCLUSIVE MODE")
    order: list[str] = []

    async def main() -> None:
        async def stored() -> None:
            await council_of(database.address).arun("Where?")
            order.append("stored")

        async def free() -> None:
            await Council(seats(), config=CouncilConfig()).arun("Where?")
            order.append("free")
            await anyio.to_thread.run_sync(holder.close)

        async with anyio.create_task_group() as group:
            group.start_soon(stored)
            group.start_soon(free)

    anyio.run(main)
    assert order == ["free", "stored"]


def test_of_four_processes_that_resume_a_run_one_does(database: DatabasePlace, tmp_path: Path) -> None:
    failed = council_of(database.address, errors.AuthenticationFailed("no", status=401)).run("Where?")
    assert failed.status == "failed"
    script = tmp_path / "resume.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from llm_council import Council, CouncilConfig, errors\n"
        "from llm_council.testing.fakes import ScriptedProvider\n"
        "def draft(request):\n"
        "    with Path(sys.argv[3]).open('a') as file:\n"
        "        file.write(request.metadata['seat'] + '\\n')\n"
        "    return 'A draft.'\n"
        "script = {'draft': draft, '*': 'RANKING: A'}\n"
        "seats = [ScriptedProvider(script, name=name, delay=0.5) for name in ('ada', 'bob', 'cyd')]\n"
        "council = Council(seats, config=CouncilConfig(), store=sys.argv[1])\n"
        "try:\n"
        "    print(council.resume(sys.argv[2]).status)\n"
        "except errors.StoreError as error:\n"
        "    print(error.kind, error)\n"
    )
    asked = tmp_path / "asked"
    line = [sys.executable, str(script), database.address, failed.run_id, str(asked)]
    children = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = sorted(child.communicate(timeout=100)[0] for child in children)
    drafted = asked.read_text().split()
    assert len(drafted) == len(set(drafted)) >= 2
    ended = [text for text in said if not text.startswith("running")]
    refused = [text for text in said if text.startswith("running")]
    # A process that asked after the end got the stored result.
    assert set(ended) == {"degraded\n"} or set(ended) == {"completed\n"}
    assert all(f"the run {failed.run_id} is running, in the process " in text and " UTC" in text for text in refused)


KILLS = """
    import json, os, sys
    from pathlib import Path
    import psycopg
    from tests.store.kill import forked, paid, run
    root, address = Path(sys.argv[1]), sys.argv[2]
    known, facts = set(), {}
    for commit in range(1, 9):
        for late in (False, True):
            folder = root / f"{commit}-{late}"
            folder.mkdir()
            os.waitpid(forked(run, folder, commit, commit, late, address), 0)
            with psycopg.connect(address) as connection:
                found = {name for (name,) in connection.execute("SELECT id FROM llm_council_runs")} - known
            known |= found
            facts[folder.name] = [*found, None][0]
    (root / "facts.json").write_text(json.dumps(facts))
"""


def test_runs_killed_beside_any_commit_resume_without_paying_twice(database: DatabasePlace, tmp_path: Path) -> None:
    Store(database.address)._check()
    script = tmp_path / "kills.py"
    script.write_text("\n".join(line[4:] for line in KILLS.splitlines()))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), database.address],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    facts: dict[str, str | None] = json.loads((tmp_path / "facts.json").read_text())
    assert facts["1-False"] is None  # killed before the run was stored
    resumed = 0
    for name, run_id in facts.items():
        folder = tmp_path / name
        before = kill.paid(folder)
        if run_id is None:
            assert before == []
            continue
        calls = database.query(
            "SELECT key, EXISTS (SELECT 1 FROM {endings} WHERE {endings}.run = {calls}.run"
            " AND {endings}.name = {calls}.name) FROM {calls} WHERE run = ?",
            run_id,
        )
        ended = {key for key, has_ended in calls if has_ended}
        assert {line.split()[0] for line in before} <= {key for key, _ in calls}  # journalled before it was sent
        council = Council([one(folder, 1) for one in kill.SEATS], config=CouncilConfig(store=database.address))
        result = council.resume(run_id)
        assert result.success
        resumed += 1
        after = [line.split()[0] for line in kill.paid(folder)]
        assert all(after.count(key) == 1 for key in ended)
        assert council.replay(run_id).to_dict() == result.to_dict()
    assert resumed >= 12
