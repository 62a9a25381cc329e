"""`import llm_council` offers the public names; it loads no large dependency, starts no thread and opens no socket."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import llm_council

# Users depend on every name here: removing one needs a deprecation first (see the deprecation policy).
PUBLIC = """
AttemptFailed Degraded PhaseFinished PhaseStarted RunFinished RunOptions RunStarted SeatFinished SeatReset SeatStarted
Abstained Attachment Checked CouncilMap CouncilMapper Judged PartialOutput RoundFinished RungFinished Tallied TextDelta
Ranked
AdapterFailed ApiError Budget ConfigurationError Council CouncilConfig CouncilError CouncilResult CouncilStream
DeadlineExceeded DoctorResult Event GenerateChunk GenerateRequest GenerateResponse InvalidOutput Limits Message Plan
ProviderAdapter ProviderCapabilities ProviderError ProviderInfo QuorumLost ReasoningConfig RetryPolicy RunError
Seat SeatReport Status StructuredOutput Task Timeouts Tool ToolCall __version__ blocking get_provider list_providers
register_provider shutdown
""".split()

HEAVY = {
    *(
        "aiohttp",
        "anyio",
        "asyncio",
        "cattrs",
        "click",
        "google",
        "httpcore",
        "httpx",
        "hypothesis",
        "jiter",
        "jsonschema_rs",
    ),
    *("pytest", "requests", "rich", "sniffio", "sqlite3", "ssl", "trio", "urllib3", "xllamacpp"),
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
def test_importing_a_module_loads_no_large_dependency_and_starts_no_thread(statement: str) -> None:
    loaded, threads = probe(statement)
    tops = {name.partition(".")[0] for name in loaded}
    assert not tops & HEAVY
    assert not {name for name in loaded if name.startswith(("llm_council.providers", "llm_council.transports"))}
    assert threads == 1


def test_creating_a_council_loads_no_http_client() -> None:
    loaded, threads = probe(
        "from llm_council import Council, CouncilConfig; Council(['ollama', 'vllm'], config=CouncilConfig())"
    )
    tops = {name.partition(".")[0] for name in loaded}
    assert not tops & {"aiohttp", "cattrs", "click", "httpcore", "httpx", "requests", "rich", "trio", "urllib3"}
    assert threads == 1


def test_importing_the_package_loads_only_the_lazy_loader() -> None:
    loaded, _ = probe("import llm_council")
    assert {name for name in loaded if name.startswith("llm_council")} == {"llm_council", "llm_council._lazy"}


def test_the_probe_reports_loaded_modules_and_threads() -> None:
    loaded, threads = probe(
        "import httpx, threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    assert "httpx" in loaded
    assert threads == 2


def test_the_package_exports_exactly_the_public_names() -> None:
    assert sorted(llm_council.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(llm_council))


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_can_be_imported(name: str) -> None:
    assert getattr(llm_council, name) is not None


def test_names_for_type_checkers_are_the_names_at_run_time() -> None:
    """The names imported for type checkers are the lazily loaded ones, from the same modules."""
    tree = ast.parse(Path(llm_council.__file__).read_text())
    seen = {
        alias.asname or alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted([*seen, "__version__"]) == sorted(PUBLIC)
    for name, module in seen.items():
        assert getattr(import_module(str(module)), name) is getattr(llm_council, name)


def test_an_unknown_name_raises_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Concil'"):
        llm_council.Concil  # noqa: B018


@pytest.mark.parametrize("package", ["middleware", "observers", "transports", "testing", "_engine"])
def test_a_package_lists_and_loads_its_public_names(package: str) -> None:
    module = import_module(f"llm_council.{package}")
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        assert value is vars(module)[name]
    with pytest.raises(AttributeError, match=f"module 'llm_council.{package}' has no attribute 'absent'"):
        module.absent  # noqa: B018


@pytest.mark.parametrize("name", ["negotiate", "profiles"])
def test_a_deprecated_module_warns_the_importing_file_and_names_the_new_place(name: str) -> None:
    with pytest.warns(
        DeprecationWarning, match=r"removed in 0\.3\.0: import from llm_council\.providers\.base"
    ) as found:
        profile = import_module(f"llm_council.providers.{name}").ModelProfile
    assert found[0].filename == __file__
    assert profile is import_module("llm_council.providers.base").ModelProfile


def test_a_deprecated_module_has_its_old_names_of_renamed_functions() -> None:
    negotiate = import_module("llm_council.providers.negotiate")
    fitting = import_module("llm_council.providers._call.fitting")
    with pytest.warns(DeprecationWarning, match="removed in 0"):
        old = (negotiate.fit, negotiate.fitted, negotiate.unmet, negotiate.missed)
    assert old == (fitting.fit, fitting.fit_to_adapter, fitting.schema_violations, fitting.unreported_violations)
