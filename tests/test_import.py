"""What an import costs and promises: nothing heavy is loaded, no thread starts, no socket opens."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    *("aiohttp", "anyio", "asyncio", "cattrs", "click", "google", "httpcore", "httpx", "hypothesis", "jsonschema_rs"),
    *("pytest", "requests", "rich", "sniffio", "sqlite3", "ssl", "subprocess", "trio", "urllib3", "xllamacpp"),
}

PROBE = """
import json, socket, sys, threading

def refuse(*arguments, **options):
    raise SystemExit("a socket was opened by an import")

socket.socket.__init__ = socket.create_connection = socket.getaddrinfo = refuse
before = set(sys.modules)
{statement}
print(json.dumps({{"loaded": sorted(set(sys.modules) - before), "threads": threading.active_count()}}))
"""


def probe(statement: str) -> tuple[set[str], int]:
    """Run ``statement`` in a new interpreter; return the modules that it loaded and the number of threads after it."""
    command = [sys.executable, "-P", "-W", "error", "-c", PROBE.format(statement=statement)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    return set(facts["loaded"]), facts["threads"]


@pytest.mark.parametrize(
    "statement",
    [
        "import llm_council",
        "import llm_council.errors",
        "import llm_council.events",
        "import llm_council.models",
        "from llm_council import Budget, CouncilError, GenerateRequest",
    ],
)
def test_import_is_light(statement: str) -> None:
    loaded, threads = probe(statement)
    tops = {name.partition(".")[0] for name in loaded}
    assert not tops & HEAVY
    assert not {name for name in loaded if name.startswith(("llm_council.providers", "llm_council.transports"))}
    assert threads == 1


def test_the_package_itself_loads_only_itself() -> None:
    loaded, _ = probe("import llm_council")
    assert {name for name in loaded if name.startswith("llm_council")} == {"llm_council"}


def test_the_probe_sees_what_is_loaded() -> None:
    loaded, threads = probe("import httpx, threading; threading.Thread(target=threading.Event().wait, daemon=True).start()")
    assert "httpx" in loaded
    assert threads == 2
