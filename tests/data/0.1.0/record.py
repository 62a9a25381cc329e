"""Record the files of this folder. It runs against llm_council 0.1.0 alone: later versions only read what it wrote.

``python tests/data/0.1.0/record.py`` writes ``runs.db``, ``runs.json``, ``cassette.json`` and ``configuration.json``
anew. The other files are written by hand, but for ``public.json``, which ``tools/public_surface.py`` prints.
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import chdir, closing, suppress
from pathlib import Path

import llm_council
from llm_council import Budget, Council, CouncilConfig, RetryPolicy
from llm_council.errors import AuthenticationFailed, CouncilError, RateLimited
from llm_council.events import TextDelta
from llm_council.models import (
    Cost,
    GenerateRequest,
    GenerateResponse,
    Message,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    Tool,
    ToolCall,
    Usage,
)
from llm_council.store import Store
from llm_council.testing.cassettes import Recorder
from llm_council.testing.fakes import ScriptedProvider

HERE = Path(__file__).absolute().parent
ANSWER = '{"answer": "Sulina", "reasoning": "There it meets the Black Sea."}'
RICH_DRAFT = GenerateResponse(
    text="The Danube ends at Sulina.\nThat is in Romania.",
    reasoning="Its delta is large.",
    reasoning_parts=[ReasoningPart(text="Its delta is large.", signature="signed", vendor="scripted")],
    usage=Usage(input_tokens=40, output_tokens=9, cached_tokens=8, reasoning_tokens=4),
    cost=Cost(usd=0.002, source="reported", complete=True),
    model="scripted-2",
    finish_reason="end_turn",
    request_id="request-ada-1",
    extra={"tier": "standard"},
)
SCRIPT = {
    "draft": "It ends in the Black Sea.",
    "critique": "Both are right.\nRANKING: A > B",
    "synthesise": ANSWER,
    "rank": "RANKING: B > A",
    "*": ANSWER,
}
SCHEMA = {
    "type": "object",
    "properties": {"town": {"type": "string"}, "country": {"type": "string"}},
    "required": ["town", "country"],
    "additionalProperties": False,
}
CONFIG = CouncilConfig(seed="upgrade", retry=RetryPolicy(base=0.0, cap=0.0))


def refused(request):
    """Return an error of its own for every call: what is known of a call is written into its error."""
    return AuthenticationFailed("the key is not known", status=401, request_id="request-1", body='{"code": 7}')


def limited(request):
    """Return an error that is worth another try."""
    return RateLimited("slow down", status=429, retry_after=0.0, request_id="request-2")


def seats(*, delay=0.0, **scripts):
    """Return three providers; a keyword gives one of them another script."""
    every = {"ada": {**SCRIPT, "draft": RICH_DRAFT}, "bob": SCRIPT, "cyd": SCRIPT, **scripts}
    return [ScriptedProvider(script, name=name, delay=delay) for name, script in every.items()]


def record_runs():
    """Write the store, and beside it what each run gave."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"runs.db{suffix}").unlink(missing_ok=True)
    council = Council(seats(), config=CONFIG, store="runs.db")
    results = {
        "completed": council.run(
            "Where does the Danube end?",
            context="It is a river.",
            files=["roles/shapes/edited.json"],
            metadata={"ticket": 7},
        ),
        "vote": council.run("Where does the Rhine end?", strategy="vote"),
    }

    repaired = {**SCRIPT, "synthesise": '{"town": "Sulina"}', "repair": '{"town": "Sulina", "country": "Romania"}'}
    structured = Council(seats(ada={**repaired, "draft": RICH_DRAFT}, bob=repaired, cyd=repaired), config=CONFIG)
    results["structured"] = structured.run("In which town?", schema=SCHEMA, store="runs.db")

    degraded = Council(seats(bob={**SCRIPT, "critique": limited}, cyd=refused), config=CONFIG, store="runs.db")
    results["degraded"] = degraded.run("Where does the Elbe end?", budget=Budget(quorum=1, calls=30))

    failed = Council(seats(ada=refused, bob=refused, cyd=refused), config=CONFIG, store="runs.db")
    results["failed"] = failed.run("Where does the Seine end?")

    with council.stream("Where does the Po end?") as events:
        words = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert words
    results["streamed"] = events.result

    subprocess.run([sys.executable, __file__, "--interrupted"], check=False, timeout=60)
    results["interrupted"] = None
    write_down(results)


def interrupted():
    """Begin a run in this process, and end the process once both drafts are stored and all critiques are asked."""
    council = Council(seats(delay={"critique": float("inf")}), config=CONFIG, store="runs.db")

    def watch():
        while True:
            time.sleep(0.05)
            found = Store("runs.db").runs_sync(limit=1)
            if found and found[0].status == "running" and (found[0].answered, found[0].in_flight) == (2, 3):
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    council.run("Where does the Loire end?")


def write_down(results):
    """Write what the store tells of every run, then bring its log into the file."""
    store = Store("runs.db")
    (unfinished,) = [run.run_id for run in store.runs_sync() if run.status in ("running", "interrupted")]
    ids = {name: unfinished if result is None else result.run_id for name, result in results.items()}
    with closing(sqlite3.connect("runs.db")) as connection, connection:
        connection.execute("UPDATE runs SET owner = 'recorder:1', beat = 0")  # no machine's name, no recent process
    runs = {
        name: {
            "run_id": run_id,
            "calls": [(call.name, call.state) for call in store.show_sync(run_id).calls],
            "export": store.export_sync(run_id),
        }
        for name, run_id in ids.items()
    }
    Path("runs.json").write_text(json.dumps(runs, indent=1, ensure_ascii=False) + "\n")
    with closing(sqlite3.connect("runs.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the empty log goes with the last connection


def record_cassette():
    """Record calls of two providers: plain, with everything set, streamed, the same twice, and failing."""
    Path("cassette.json").unlink(missing_ok=True)
    call = ToolCall(id="call-1", name="look_up", arguments={"river": "Danube"}, extra={"signature": "s"})
    limited = RateLimited("slow down", status=429, retry_after=7.0, request_id="request-9", body='{"code": 7}')
    ada = Recorder(
        ScriptedProvider([RICH_DRAFT, GenerateResponse(tool_calls=[call], finish_reason="tool_use")], name="ada"),
        "cassette.json",
    )
    bob = Recorder(ScriptedProvider(["First.\nLast.", "Once.", "Twice.", limited], name="bob"), "cassette.json")
    ada.generate_sync(GenerateRequest(prompt="Where does the Danube end?"))
    ada.generate_sync(full_request())
    for _ in bob.stream_sync(GenerateRequest(prompt="Name two words.", stream=True)):
        pass
    for _ in range(2):
        bob.generate_sync(GenerateRequest(prompt="Again?", temperature=0.2))
    with suppress(CouncilError):
        bob.generate_sync(GenerateRequest(prompt="Now?"))


def full_request():
    """Return a request that sets every field that a cassette keeps."""
    return GenerateRequest(
        model="scripted-2",
        messages=[
            Message("system", "Be brief."),
            Message("user", "Where?", name="ann"),
            Message("assistant", "", tool_calls=[ToolCall(id="call-0", name="look_up", arguments="{}")]),
            Message("tool", "nothing found", name="look_up", tool_call_id="call-0"),
        ],
        max_tokens=50,
        temperature=0.5,
        top_p=0.9,
        stop=["END"],
        tools=[Tool(name="look_up", description="Looks up a river.", strict=True)],
        tool_choice="auto",
        structured_output=StructuredOutput(json_schema=SCHEMA, name="place", strict=False),
        reasoning=ReasoningConfig(effort="low", budget_tokens=512),
        prompt_cache="5m",
        cache="write",
        extra={"vendor_field": [1, None, "x"]},
    )


def record_configuration():
    """Write how 0.1.0 reads ``council.toml``, as ``council config show --json`` prints it."""
    environment = {"LLM_COUNCIL_CONFIG": str(HERE / "council.toml"), "PATH": os.environ["PATH"]}
    with tempfile.TemporaryDirectory() as elsewhere:  # here the file would be an untrusted project's
        command = [sys.executable, "-m", "llm_council", "config", "show", "--json"]
        shown = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, check=True).stdout
    Path("configuration.json").write_bytes(shown)


if __name__ == "__main__":
    if llm_council.__version__ != "0.1.0":
        sys.exit("this data is what 0.1.0 wrote: run this script against 0.1.0, or record another folder")
    with chdir(HERE):
        if "--interrupted" in sys.argv:
            interrupted()
        else:
            record_runs()
            record_cassette()
            record_configuration()
