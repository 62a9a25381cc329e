"""One distribution with a plugin of each kind, written from the pages of the documentation, installed and used."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_council.testing.conformance import ProviderConformance, Verdict, outcomes
from llm_council.testing.servers import FakeVendor

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("middleware", "store", "command")
ANSWER = json.dumps({"answer": "Black Sea", "reasoning": "It is on every map."})

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the store of the page locks with fcntl")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def provider_source() -> str:
    """The first class of the page about providers."""
    return next(block for block in blocks("providers/creating-providers.md", "python") if "class MyProvider" in block)


def install(site: Path) -> None:
    """Write the distribution of the pages into a folder, with the metadata that pip writes."""
    package = site / "house_council"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "providers.py").write_text(provider_source())
    for page in PAGES:
        for block in blocks(f"guides/{page}-plugins.md", "python"):
            found = re.match(r"# (house_council/\w+\.py)\n", block)
            if found:
                (site / found[1]).write_text(block)
    (pyproject,) = blocks("guides/plugins.md", "toml")
    project = tomllib.loads(pyproject)["project"]
    points = project["entry-points"]
    info = site / "house_council-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [[f"[{group}]", *(f"{name} = {value}" for name, value in of.items())] for group, of in points.items()]
    (info / "entry_points.txt").write_text("\n".join(line for group in lines for line in group) + "\n")


class Place:
    """The distribution beside a configuration, a folder to stand in, and a fake vendor."""

    def __init__(self, folder: Path, vendor: FakeVendor) -> None:
        self.folder, self.vendor = folder, vendor
        self.site = folder / "site"
        install(self.site)
        config = folder / "home" / "llm-council" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f"""
            [council]
            providers = ["watched"]
            store = "folder://runs"

            [providers.house]
            kind = "myprovider"
            base_url = "{vendor.url}"
            api_key = "${{HOUSE_KEY}}"

            [providers.watched]
            kind = "timed"
            of = ["house"]
            slow = 5
        """)

    def council(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command in a process of its own, with the distribution on its path."""
        (self.folder / "work").mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_COUNCIL_", "XDG_"))}
        environment = {
            **kept,
            "PYTHONPATH": str(self.site),
            "XDG_CONFIG_HOME": str(self.folder / "home"),
            "HOUSE_KEY": "key-of-the-house-1",
            **variables,
        }
        command = [sys.executable, "-m", "llm_council", *words]
        return subprocess.run(
            command, cwd=self.folder / "work", env=environment, capture_output=True, text=True, timeout=100, check=False
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    vendor = FakeVendor("openai", ANSWER)
    with vendor.serve():
        yield Place(tmp_path_factory.mktemp("house"), vendor)


@pytest.mark.slow
def test_provider_middleware_and_store_work_from_the_configuration(place: Place) -> None:
    done = place.council("run", "Where does the Danube end?", "--json")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^watched took \d+\.\d s", done.stderr, re.MULTILINE)  # what the middleware of the page prints
    result = json.loads(done.stdout)
    assert result["output"]["answer"] == "Black Sea"
    assert {seat["provider"] for seat in result["seats"]} == {"watched"}
    assert place.vendor.calls[-1].headers["authorization"] == "Bearer key-of-the-house-1"
    (run,) = json.loads(place.council("runs", "list", "--json").stdout)
    assert run["run_id"] == result["run_id"]
    assert (place.folder / "work" / "runs" / run["run_id"]).is_file()
    assert "key-of-the-house-1" not in (place.folder / "work" / "runs" / run["run_id"]).read_text()


@pytest.mark.slow
def test_the_command_works_on_the_command_line(place: Place) -> None:
    done = place.council("headline", "-p", "house", "The Danube ends in the Black Sea.")
    assert done.returncode == 0, done.stderr
    assert "Black Sea" in done.stdout


@pytest.mark.slow
def test_the_doctor_finds_nothing_and_the_variable_disables_all(place: Place) -> None:
    found = json.loads(place.council("doctor", "--json").stdout)
    assert found["plugins"] == {}
    assert found["seats"]["watched"]["ok"]
    off = place.council("doctor", LLM_COUNCIL_NO_PLUGINS="1")
    assert off.returncode == 2
    assert "house-council 1.0 offers it, but LLM_COUNCIL_NO_PLUGINS is set" in " ".join(off.stderr.split())


def stand(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, quick: float) -> ProviderConformance:
    """Return the conformance class of the page's provider, in a module of its own."""
    name = f"house_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    provider = importlib.import_module(name).MyProvider
    monkeypatch.setitem(sys.modules, name, sys.modules[name])
    settings: dict[str, Any] = {"provider": provider, "key_variable": "MY_API_KEY", "quick": quick}
    made: ProviderConformance = type("TestMyProvider", (ProviderConformance,), settings)()
    return made


@pytest.mark.slow
def test_the_kit_is_green_on_its_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(outcomes(stand(provider_source(), tmp_path, monkeypatch, quick=5.0)))
    assert [outcome.line for outcome in found if outcome.verdict is Verdict.BROKEN] == []
    assert len(found) >= 40


SAME_IDENTITY = """    def cache_identity(self):
        return "house"
"""
AGAIN = """if reply.is_error:
            url = f"{self.base_url}/chat/completions"
            reply = await client.post(url, headers=self.headers(), json=self.payload(request))
"""

# The check that finds a fault -> replacements in the source of the page's provider that bring the fault.
FAULTS: dict[str, dict[str, str]] = {
    "model": {'request.model or "my-model-v1"': '"my-model-v1"'},
    "roles": {'"role": turn.role': '"role": "user"'},
    "knobs": {'"top_p": request.top_p,': ""},
    "extra": {"**request.extra,": ""},
    "silent_changes": {'"temperature": request.temperature': '"temperature": min(request.temperature or 0.0, 1.0)'},
    "finish": {'choice.get("finish_reason")': '"stop"'},
    "errors": {"reply.raise_for_status()\n        data": "data"},
    "secrets": {'Secret(key, env="MY_API_KEY") if key else None': "key", "self.key.reveal()": "self.key"},
    "cache_identity": {"    async def doctor": f"{SAME_IDENTITY}\n    async def doctor"},
    "retries": {"reply.raise_for_status()\n        data": f"{AGAIN}        reply.raise_for_status()\n        data"},
    "tools": {"tool_use=False": "tool_use=True"},
    "schema": {"structured_output=False": "structured_output=True"},
    "streaming": {"streaming=False": "streaming=True"},
    "doctor": {"reply.raise_for_status()\n        return DoctorResult": "return DoctorResult"},
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_kit_is_red_on_each_broken_variant(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = provider_source()
    for old, new in FAULTS[name].items():
        assert old in source
        source = source.replace(old, new)
    (found,) = outcomes(stand(source, tmp_path, monkeypatch, quick=0.2), (name,))
    assert found.verdict is Verdict.BROKEN, found.line
    assert found.line.startswith(f"MyProvider fails {name!r}: ")
