"""The wheel and the sdist as built, and the wheel as installed in an environment that holds nothing else.

The environment ``pkg`` builds and installs; it says where in ``LLM_COUNCIL_DIST`` and ``LLM_COUNCIL_CLEAN``.
"""

import json
import os
import subprocess
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def declared() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel() -> zipfile.ZipFile:
    (path,) = Path(os.environ["LLM_COUNCIL_DIST"]).glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def sdist() -> tarfile.TarFile:
    (path,) = Path(os.environ["LLM_COUNCIL_DIST"]).glob("*.tar.gz")
    return tarfile.open(path)


@pytest.fixture
def clean(tmp_path: Path) -> "Clean":
    return Clean(Path(os.environ["LLM_COUNCIL_CLEAN"]) / "bin", tmp_path)


class Clean:
    """The environment where only the wheel and its dependencies are installed, seen from an empty folder and home."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries = binaries
        self.folder = folder

    def run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        command = [str(self.binaries / program), *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def python(self, code: str) -> Any:
        done = self.run("python", "-I", "-W", "error", "-c", code)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def version(clean: Clean) -> str:
    """The metadata of the installed package."""
    printed = clean.python("import json, llm_council; print(json.dumps(llm_council.__version__))")
    assert isinstance(printed, str)
    return printed


def package_files() -> set[str]:
    """Name the files of the package in the tree, without what Python and tools leave there."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "llm_council").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_every_module_and_data_file(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == package_files()
    assert "llm_council/py.typed" in shipped


def test_the_wheels_metadata_equals_pyproject(wheel: zipfile.ZipFile, declared: dict[str, Any], version: str) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = message_from_string(wheel.read(name).decode())
    assert (metadata["Name"], metadata["Version"]) == (declared["name"], version)
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == declared["requires-python"]
    assert sorted(metadata.get_all("Provides-Extra", [])) == sorted(declared["optional-dependencies"])
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


def test_the_sdist_contains_all_that_its_build_needs(sdist: tarfile.TarFile, wheel: zipfile.ZipFile) -> None:
    held = {name.partition("/")[2] for name in sdist.getnames()}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} <= held
    assert {"pyproject.toml", "setup.cfg", "tox.ini", "README.md", "LICENSE", "tests/packaging/test_wheel.py"} <= held


def test_installed_files_are_typed_and_complete(clean: Clean) -> None:
    found = clean.python(
        "import json; from importlib.resources import files; from pathlib import Path\n"
        "root = Path(str(files('llm_council')))\n"
        "print(json.dumps([path.relative_to(root.parent).as_posix() for path in root.rglob('*')]))"
    )
    assert package_files() <= set(found)


def test_every_module_imports_with_the_core_dependencies_only(clean: Clean, declared: dict[str, Any]) -> None:
    """A module that needs an extra raises a typed error, or an ImportError for a package of that extra."""
    refused = clean.python(
        "import importlib, json, pkgutil, llm_council\n"
        "from llm_council.errors import MissingDependency\n"
        "refused = {}\n"
        "for module in pkgutil.walk_packages(llm_council.__path__, 'llm_council.', onerror=str):\n"
        "    if module.name.split('.')[-1] == '__main__': continue\n"
        "    try: importlib.import_module(module.name)\n"
        "    except ImportError as error: refused[module.name] = error.name\n"
        "    except MissingDependency as error: refused[module.name] = error.message\n"
        "print(json.dumps(refused))"
    )
    # Classes of inspect_ai are its base classes; inspect_ai loads it by an entry point.
    assert refused.pop("llm_council.evals._inspect_models") == "inspect_ai"
    # A server is started by a command, which says what is missing.
    served = {name: why for name, why in refused.items() if name.startswith("llm_council.serve.")}
    extras = declared["optional-dependencies"]
    assert set(served.values()) <= {
        Requirement(text).name.replace("-", "_").lower() for text in [*extras["serve"], *extras["mcp"]]
    }
    refused = {name: why for name, why in refused.items() if name not in served}
    assert "psycopg" in refused.pop("llm_council.store._postgres")
    assert {name for name in refused if not name.startswith("llm_council.testing.")} == set()
    missing = {why for why in refused.values() if not why.endswith("pip install 'llm-council-sdk[testing]'")}
    assert missing <= {"hypothesis", "pytest", "responses", "trio"}


def test_entry_points_name_classes_that_answer_to_the_name(clean: Clean, declared: dict[str, Any]) -> None:
    group = "llm_council.providers"
    found = clean.python(
        "import json; from importlib.metadata import entry_points\n"
        f"points = entry_points(group={group!r})\n"
        "print(json.dumps({point.name: [point.value, point.load().name] for point in points}))"
    )
    assert {name: value for name, (value, _) in found.items()} == declared["entry-points"][group]
    assert {name: own for name, (_, own) in found.items()} == {name: name for name in found}


def test_the_version_has_one_source(clean: Clean, version: str) -> None:
    done = clean.run("council", "version")
    assert (done.returncode, done.stderr) == (0, "")
    assert version in done.stdout.split()
    assert clean.run("python", "-m", "llm_council", "version").stdout == done.stdout


def test_a_council_without_keys_or_extras_reports_what_to_do(clean: Clean) -> None:
    done = clean.run("council", "run", "What is two plus two?")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "llm-council-sdk[local]" in done.stderr
