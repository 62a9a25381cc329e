"""An installation of 0.1.0 in use, upgraded to the new wheel: everything that it made is read, resumed and replayed.

0.1.0 is built from the commit that `FIRST` names, so these tests need the repository's history. The environment ``pkg``
says in ``LLM_COUNCIL_UPGRADED`` where an environment with pip and the requirements of the new wheel is. The tests
install into it without an index: 0.1.0 with a provider of another distribution, and later the new wheel over both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_public_surface import INTENDED

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[2]
FIRST = "db976f8e10af6b5169a469b6a700b94098dd2d21"
DATA = ROOT / "tests" / "data" / "0.1.0"
TASK = "Where does the Danube end?"

CONFIG = """
[council]
providers = ["house:3"]
store = "runs.sqlite"
seed = "upgrade"

[providers.house]
kind = "openai-compatible"
base_url = "{url}"
default_model = "m"
"""
PLUGIN = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "council-inhouse"
version = "1.0"
dependencies = ["llm-council-sdk>=0.1"]

[project.entry-points."llm_council.providers"]
inhouse = "inhouse:InhouseProvider"

[tool.hatch.build.targets.wheel]
include = ["inhouse.py"]
"""
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}

# What users of 0.1.0 call: each prints JSON. FIRST_RUN stands for the id of the first run.
COMMANDS: dict[str, list[str]] = {
    "run": [
        *["run", "--json", "--context", "It is long.", "--files", "notes.txt", "--deadline", "60", "--quorum", "2"],
        TASK,
    ],
    "short flags": ["run", "-p", "house:2", "-m", "house=small", "-i", "task.txt", "-f", "notes.txt", "--json", "-v"],
    "subagent": ["run", "--json", "--schema", "schema.json", "--chair", "house-2", "--seed", "s", "drafter", TASK],
    "more flags": [
        *["run", "--mode", "test", "--budget-usd", "0.5", "--store", "runs.sqlite", "--stream", "--json"],
        *["--schema", "schema.json", "drafter", TASK],
    ],
    "strategy": ["run", "--format", "json", "--strategy", "synthesize", "--strict", TASK],
    "custom provider": [
        "run",
        "--json",
        "-p",
        "inhouse:2",
        "--strategy",
        "synthesize",
        "--schema",
        "schema.json",
        TASK,
    ],
    "dry run": ["run", "--dry-run", "--json", TASK],
    "providers": ["providers", "--json"],
    "subagents": ["subagents", "--json"],
    "models list": ["models", "list", "--json"],
    "doctor": ["doctor", "--json", "inhouse"],
    "config show": ["config", "show", "--json"],
    "runs list": ["runs", "list", "--json", "-n", "9"],
    "runs show": ["runs", "show", "--json", "FIRST_RUN"],
    "runs export": ["runs", "export", "FIRST_RUN"],
    "replay": ["replay", "--json", "FIRST_RUN"],
}

REPLAYED = """
import json, record
from llm_council import Council, CouncilConfig
from llm_council.store import Store
recorded = json.load(open("runs.json"))
results = {}
for name, run in recorded.items():
    council = Council(record.seats(), config=CouncilConfig(), store="runs.db")
    again = council.resume if name == "interrupted" else council.replay
    results[name] = again(run["run_id"]).to_dict()
print(json.dumps(results))
"""
CASSETTE = """
import json, record
from llm_council.errors import RateLimited
from llm_council.models import GenerateRequest
from llm_council.testing.cassettes import Replay
from llm_council.testing.fakes import ScriptedProvider
ada, bob = (Replay(ScriptedProvider("never asked", name=name), "cassette.json") for name in ("ada", "bob"))
texts = [ada.generate_sync(GenerateRequest(prompt="Where does the Danube end?")).text]
texts += [call.name for call in ada.generate_sync(record.full_request()).tool_calls]
texts.append("".join(chunk.text for chunk in bob.stream_sync(GenerateRequest(prompt="Name two words.", stream=True))))
texts += [bob.generate_sync(GenerateRequest(prompt="Again?", temperature=0.2)).text for _ in range(2)]
try:
    bob.generate_sync(GenerateRequest(prompt="Now?"))
except RateLimited as error:
    texts.append(str(error.retry_after))
print(json.dumps(texts))
"""
# Which modules and names of 0.1.0 are gone, and what warns of its removal.
NAMES = """
import importlib, json, sys, warnings
gone, warned = [], {}
for module, names in json.load(open(sys.argv[1]))["modules"].items():
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name.startswith("llm_council"):  # else it needs an extra
            gone.append(module)
        continue
    for name in names:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DeprecationWarning)
            if not hasattr(imported, name):
                gone.append(f"{module}.{name}")
        warned.update({f"{module}.{name}": str(one.message) for one in caught})
print(json.dumps({"gone": gone, "warned": warned}))
"""


def history() -> None:
    """Skip where the commit of 0.1.0 is not to be had: in an sdist, or in a shallow clone."""
    command = ["git", "cat-file", "-e", f"{FIRST}^{{commit}}"]
    if shutil.which("git") is None or subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode:
        why = f"the history of the repository is missing, with the commit {FIRST[:7]} of 0.1.0: fetch it unshallowed"
        pytest.skip(why)


def build(source: Path, out: Path) -> Path:
    """Build the wheel of a source tree with the build backend of this environment, without a network."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


class Installation:
    """The environment that is upgraded, its user's home, and what its commands printed before the upgrade."""

    def __init__(self, folder: Path, vendor: Any) -> None:
        self.binaries = Path(os.environ["LLM_COUNCIL_UPGRADED"]) / "bin"
        self.folder, self.vendor = folder, vendor
        self.records = folder / "records"
        self.before: dict[str, Any] = {}
        self.calls_of_the_first_run = 0
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "home"),
            "INHOUSE_API_KEY": "inhouse-key-0123456789",
            "UPGRADE_TEST_KEY": "house-key-0123456789",
        }

    def start(self, program: str, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        command = [str(self.binaries / program), *arguments]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=cwd or self.folder, env=self.environment, text=True, **pipes)

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        process = self.start(program, *arguments, cwd=cwd)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"{arguments}: {err}"
        return out

    def python(self, code: str, *arguments: str) -> Any:
        """Run code in the folder of the records and return the JSON that it prints."""
        return json.loads(self.run("python", "-c", code, *arguments, cwd=self.records))

    def install(self, *arguments: str) -> None:
        """Install without an index: pip refuses if a requirement is not there already."""
        self.run("python", "-m", "pip", "--quiet", "install", "--no-index", "--compile", *arguments)

    def command(self, name: str) -> Any:
        first = self.before["run"]["run_id"] if self.before else ""
        return json.loads(self.run("council", *(first if word == "FIRST_RUN" else word for word in COMMANDS[name])))

    def write_inputs(self) -> None:
        config = self.folder / "home" / "llm-council" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(CONFIG.format(url=self.vendor.url))
        (self.folder / "notes.txt").write_text("It flows east.")
        (self.folder / "task.txt").write_text(TASK)
        (self.folder / "schema.json").write_text(json.dumps(SCHEMA))

    def kill_a_run(self) -> None:
        """Kill a run whose drafts are stored."""
        self.vendor.held = len(self.vendor.calls) + 3  # the first critique after two drafts
        process = self.start("council", "run", "--json", TASK)
        assert self.vendor.is_held.wait(60)
        process.kill()
        process.communicate(timeout=60)
        self.vendor.held = 0
        self.vendor.released.set()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, module_vendor: Any) -> Iterator[Installation]:
    """Use 0.1.0, and upgrade it."""
    history()
    folder = tmp_path_factory.mktemp("upgrade")
    source = folder / "source"
    source.mkdir()
    archive = subprocess.run(["git", "archive", FIRST], cwd=ROOT, capture_output=True, timeout=60, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, timeout=60, check=True)
    plugin = folder / "plugin"
    plugin.mkdir()
    shutil.copy(DATA / "providers" / "inhouse.py", plugin)
    (plugin / "pyproject.toml").write_text(PLUGIN)

    used = Installation(folder / "user", module_vendor)
    used.folder.mkdir()
    old, added = build(source, folder / "old"), build(plugin, folder / "added")
    used.install("--force-reinstall", "--no-deps", str(old), str(added))
    assert used.run("council", "version") == "llm-council-sdk 0.1.0\n"

    used.write_inputs()
    shutil.copytree(DATA, used.records)
    used.run("python", "record.py", cwd=used.records)
    for name in COMMANDS:
        used.before[name] = used.command(name)
        used.calls_of_the_first_run = used.calls_of_the_first_run or len(module_vendor.calls)
    used.kill_a_run()

    (new,) = Path(os.environ["LLM_COUNCIL_DIST"]).glob("*.whl")
    used.install("--upgrade", str(new))
    yield used
    used.run("python", "-m", "pip", "--quiet", "uninstall", "--yes", "llm-council-sdk", "council-inhouse")


def assert_includes(new: Any, old: Any, path: str = "") -> None:
    """Compare JSON values; a later version may add keys to an object."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            assert key in new, f"{path}.{key}"
            assert_includes(new[key], value, f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        assert len(new) == len(old), path
        for place, (mine, other) in enumerate(zip(new, old, strict=True)):
            assert_includes(mine, other, f"{path}[{place}]")
    else:
        assert new == old, path


def keys(value: Any, path: str = "") -> set[str]:
    """Name every key in a JSON value by its path; the items of a list share one."""
    if isinstance(value, dict):
        return {f"{path}.{key}" for key in value}.union(*(keys(item, f"{path}.{key}") for key, item in value.items()))
    if isinstance(value, list):
        return set().union(*(keys(item, f"{path}[]") for item in value))
    return set()


def test_the_new_version_is_installed_and_nothing_of_the_old_is_left(installation: Installation) -> None:
    installation.run("python", "-m", "pip", "check")
    (new,) = Path(os.environ["LLM_COUNCIL_DIST"]).glob("*.whl")
    (packages,) = (installation.binaries.parent / "lib").glob("python*/site-packages")
    (info,) = packages.glob("llm_council_sdk-*.dist-info")
    assert info.name.startswith("-".join(new.name.split("-")[:2]))
    installed = {path.relative_to(packages) for path in (packages / "llm_council").rglob("*") if path.is_file()}
    files = {path.as_posix() for path in installed if path.suffix != ".pyc"}
    assert files == {name for name in zipfile.ZipFile(new).namelist() if name.startswith("llm_council/")}
    compiled = {path.parent.parent / f"{path.name.split('.')[0]}.py" for path in installed if path.suffix == ".pyc"}
    assert compiled
    assert {path.as_posix() for path in compiled} <= files


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_0_1_0_works_and_prints_all_keys_that_it_had(installation: Installation, name: str) -> None:
    before = keys(installation.before[name])
    assert before - keys(installation.command(name)) == set()


def test_the_runs_of_the_command_line_are_listed_shown_and_replayed(installation: Installation) -> None:
    for name in ("run", "short flags", "subagent", "more flags", "strategy", "custom provider"):
        old = {
            key: value for key, value in installation.before[name].items() if key != "warnings"
        }  # in other words now
        assert_includes(json.loads(installation.run("council", "replay", "--json", old["run_id"])), old)
        shown = json.loads(installation.run("council", "runs", "show", "--json", old["run_id"]))
        assert shown["status"] == "completed"


def test_a_run_that_was_killed_under_0_1_0_is_resumed(installation: Installation) -> None:
    listed = json.loads(installation.run("council", "runs", "list", "--json", "-n", "50"))
    (killed,) = [run["run_id"] for run in listed if run["status"] == "interrupted"]
    before = len(installation.vendor.calls)
    resumed = json.loads(installation.run("council", "resume", "--json", killed))
    assert resumed["status"] == "completed"
    whole, drafts = 6, 2
    assert installation.calls_of_the_first_run == whole
    assert 0 < len(installation.vendor.calls) - before <= whole - drafts
    assert json.loads(installation.run("council", "replay", "--json", killed)) == resumed


def test_the_runs_of_a_program_are_replayed_and_resumed(installation: Installation) -> None:
    recorded = json.loads((installation.records / "runs.json").read_text())
    results = installation.python(REPLAYED)
    assert results.pop("interrupted")["status"] == "completed"
    assert len(results) == len(recorded) - 1
    for name, result in results.items():
        assert_includes(result, recorded[name]["export"]["result"], name)


def test_a_cassette_is_replayed(installation: Installation) -> None:
    first, tool, words, once, twice, wait = installation.python(CASSETTE)
    assert first == "The Danube ends at Sulina.\nThat is in Romania."
    assert (tool, words, once, twice, wait) == ("look_up", "First.\nLast.", "Once.", "Twice.", "7.0")


def test_the_configuration_is_read_as_before(installation: Installation) -> None:
    installation.environment["LLM_COUNCIL_CONFIG"] = str(installation.records / "council.toml")
    try:
        shown = installation.run("council", "config", "show", "--json")
    finally:
        del installation.environment["LLM_COUNCIL_CONFIG"]
    recorded = (installation.records / "configuration.json").read_text()
    assert_includes(*(json.loads(text.replace("'***'", "***")) for text in (shown, recorded)))


def test_the_custom_provider_is_found_by_its_entry_point(installation: Installation) -> None:
    listed = {row["name"]: row for row in json.loads(installation.run("council", "providers", "--json"))}
    assert "council-inhouse" in json.dumps(listed["inhouse"])
    schema = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
    answer = installation.python(
        "import json, sys; from llm_council import Council\n"
        "result = Council(['inhouse']).run('Where?', schema=json.loads(sys.argv[1]))\n"
        "print(json.dumps([result.status, result.output]))",
        json.dumps(schema),
    )
    assert answer == ["completed", {"town": "town of the answer"}]


def test_public_names_are_still_there_and_moved_ones_warn(installation: Installation) -> None:
    found = installation.python(NAMES, str(DATA / "public.json"))
    intended = {line.removeprefix("removed: modules / ") for line in INTENDED if line.startswith("removed: modules")}
    assert set(found["gone"]) <= intended
    moved = {name.rpartition(".")[0] for name in found["warned"]}
    assert moved == {"llm_council.providers.negotiate", "llm_council.providers.profiles"}
    for warning in found["warned"].values():
        assert "will be removed in 0.3.0: import from llm_council.providers.base" in warning
