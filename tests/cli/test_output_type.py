"""``council run --output-type MODULE:CLASS``: which modules are imported, and what the answer is checked by."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import Council

MODULE = """
from pathlib import Path
Path("imported").touch()
print("imported")
import attrs

@attrs.frozen
class Report:
    title: str
    pages: int = attrs.field(validator=attrs.validators.ge(1))

    class Part:
        pass

class Outer:
    @attrs.frozen
    class Inner:
        title: str
"""


@pytest.fixture(autouse=True)
def own_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("reports_", "broken_")):
            del sys.modules[name]


@pytest.fixture
def ann() -> Iterator[ScriptedProvider]:
    texts = [json.dumps({"title": "x", "pages": pages}) for pages in (0, 3)]
    provider = ScriptedProvider({"draft": texts[:1], "repair": texts[1:], "*": texts[0]}, name="ann")
    with registry.overriding(ann=provider):
        yield provider


def test_a_type_of_the_working_folder_is_imported_only_if_the_folder_is_trusted(
    council: Council, ann: ScriptedProvider
) -> None:
    Path("reports_here.py").write_text(MODULE)
    words = ("run", "What?", "-p", "ann", "--output-type", "reports_here:Report", "--json")
    status, out, err = council(*words)
    assert status == 2
    assert out == ""
    assert "it lies in this folder, whose files are run only with --trust-cwd" in err
    assert not Path("imported").exists()
    assert ann.requests == []
    status, out, err = council(*words, "--trust-cwd")
    assert (status, json.loads(out)["output"]) == (0, {"title": "x", "pages": 3})
    assert err.startswith("imported\n")
    assert Path("imported").exists()
    (repair,) = ann.asked("repair")
    assert "'pages' must be >= 1: 0" in repair.messages[-1].text


def test_python_dash_m_does_not_import_from_the_working_folder_either(tmp_path: Path) -> None:
    (tmp_path / "reports_here.py").write_text(MODULE)
    command = [sys.executable, "-m", "llm_council", "run", "What?", "--output-type", "reports_here:Report"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "only with --trust-cwd" in done.stderr
    assert not (tmp_path / "imported").exists()


def test_a_type_on_the_import_path_needs_no_trust(
    council: Council, ann: ScriptedProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "reports_there.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    status, out, _ = council(
        "run", "What?", "-p", "ann", "--output-type", "reports_there:Outer.Inner", "--dry-run", "--json"
    )
    assert status == 0
    plan = json.loads(out)
    assert plan["output_type"] == "Inner"
    assert plan["schema"]["required"] == ["title"]


@pytest.mark.parametrize("name", ["bool", "int", "float", "str"])
def test_plain_types_have_their_names(council: Council, ann: ScriptedProvider, name: str) -> None:
    status, out, _ = council("run", "What?", "-p", "ann", "--output-type", name, "--dry-run", "--json")
    assert status == 0
    assert f'"output_type": "{name}"' in out


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("Report", "expected MODULE:CLASS"),
        ("reports.py:Report", "there is no module 'reports.py'"),
        ("../reports:Report", "expected MODULE:CLASS"),
        ("no_such_module_at_all:Report", "install it, or name its folder in PYTHONPATH"),
        ("no_such.module:Report", "there is no module 'no_such.module'"),
        ("reports_x:Reprot", "reports_x has no 'Reprot'; did you mean 'Report'?"),
        ("reports_x:Report.Part", "Part cannot be described"),
        ("broken_x:Report", "broken_x cannot be imported: ZeroDivisionError"),
        ("broken_y:Report", "broken_y cannot be imported: SystemExit: 3"),
        ("broken_z:Report", "broken_z cannot be imported: No module named 'reports_missing'"),
    ],
)
def test_what_cannot_be_used_is_a_usage_error_that_names_the_remedy(
    council: Council, ann: ScriptedProvider, spec: str, message: str
) -> None:
    Path("reports_x.py").write_text(MODULE)
    Path("broken_x.py").write_text("1 / 0")
    Path("broken_y.py").write_text("raise SystemExit(3)")
    Path("broken_z.py").write_text("import reports_missing")
    status, out, err = council("run", "What?", "-p", "ann", "--output-type", spec, "--trust-cwd")
    assert status == 2
    assert out == ""
    assert message in " ".join(err.split())
    assert ann.requests == []


def test_a_schema_beside_a_type_and_trust_without_a_type_are_refused(council: Council, ann: ScriptedProvider) -> None:
    Path("schema.json").write_text("{}")
    status, _, err = council("run", "What?", "-p", "ann", "--output-type", "int", "--schema", "schema.json")
    assert (status, "give one of them" in err) == (2, True)
    status, _, err = council("run", "What?", "-p", "ann", "--trust-cwd")
    assert (status, "--trust-cwd is for --output-type" in err) == (2, True)


def test_a_stored_run_is_replayed_and_resumed_with_its_type(council: Council, ann: ScriptedProvider) -> None:
    Path("reports_here.py").write_text(MODULE)
    typed = ("--output-type", "reports_here:Report", "--trust-cwd", "--store", "runs.db", "--json")
    status, out, _ = council("run", "What?", "-p", "ann", *typed)
    assert status == 0
    asked = len(ann.requests)
    for command in ("replay", "resume"):
        status, again, _ = council(command, "last", *typed)
        assert (status, json.loads(again)["output"]) == (0, json.loads(out)["output"])
    status, _, err = council("replay", "last", "--store", "runs.db")
    assert status != 0
    assert "its answers were checked by Report" in " ".join(err.split())
    assert len(ann.requests) == asked
