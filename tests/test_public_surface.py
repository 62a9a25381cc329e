"""Everything that was public in 0.1.0 is still there, unless it is listed here with a reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "tests" / "data" / "0.1.0" / "public.json"

# The start of a reported difference, and why it is intended. Each also needs an entry in the changelog.
INTENDED: dict[str, str] = {
    "changed: commands / council run / --budget-usd": "the help says 'number'; the range is the same",
    "changed: commands / council run / --deadline": "the help says 'number'; the range is the same",
    "changed: commands / council run / --quorum": "the help says 'whole number'; the range is the same",
    "changed: modules / llm_council / CouncilResult / fields / output": "may be of a type that the caller gives",
    "changed: modules / llm_council.results / CouncilResult / fields / output": "may be of a type given by the caller",
    "changed: modules / llm_council.models / Part / value": "messages hold documents and sound too",
    "changed: modules / llm_council.models.messages / Part / value": "messages hold documents and sound too",
    "changed: modules / llm_council.transports / api_error / returns": "a withheld prompt is no ApiError",
    "changed: modules / llm_council / CouncilConfig / fields / strategy": "the default is 'auto'",
    "changed: modules / llm_council.config / CouncilConfig / fields / strategy": "the default is 'auto'",
    "removed: modules / llm_council.testing.strategies": "hypothesis strategies are part of the tests, not of the kit",
}
# The annotation of a parameter may only become wider.
_WIDER = {
    f"changed: modules / {module} / Council / members / {method} / parameters / subagent": "takes a Subagent too"
    for module in ("llm_council", "llm_council.council")
    for method in ("run", "arun", "run_sync", "stream", "plan")
}
_WIDER |= {
    f"changed: modules / {module} / Council / {member}parameters / strategy": "takes a Strategy too"
    for module in ("llm_council", "llm_council.council")
    for member in ("", *(f"members / {method} / " for method in ("run", "arun", "run_sync", "stream", "plan")))
}
_WIDER |= {
    f"changed: modules / {module} / Council / parameters / providers": "takes a Seat too"
    for module in ("llm_council", "llm_council.council")
}
_WIDER |= {
    f"changed: modules / {module} / Council / members / {method} / parameters / files": "takes bytes, Attachments too"
    for module in ("llm_council", "llm_council.council")
    for method in ("run", "arun", "run_sync", "stream", "plan")
}
_WIDER |= {
    f"changed: modules / {module} / Attachment / fields / text": "None for an image, a document or sound"
    for module in ("llm_council.models", "llm_council.models.deliberation")
}
_WIDER["changed: modules / llm_council.council / RunOptions / members / strategy / type"] = "takes a Strategy too"
_WIDER["changed: modules / llm_council.council / RunOptions / members / files / type"] = "takes bytes, Attachments too"
INTENDED |= _WIDER


@pytest.mark.slow
def test_nothing_public_is_missing_or_changed_since_0_1_0() -> None:
    command = [sys.executable, str(ROOT / "tools" / "public_surface.py"), "--check", str(RECORDED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode in (0, 1), done.stderr
    unexpected = [line for line in done.stdout.splitlines() if not line.startswith(tuple(INTENDED))]
    assert unexpected == []
    assert done.stderr == ""


def test_the_record_holds_nothing_that_differs_between_processes() -> None:
    text = RECORDED.read_text(encoding="utf-8")
    assert " at 0x" not in text
    assert str(Path.home()) not in text
    sections = json.loads(text)
    assert set(sections) == {"modules", "commands", "exit_statuses", "json", "names"}
    assert all(sections.values())


OLD = {"f": {"kind": "function", "parameters": {"a": "0: int", "b": "keyword: str = ''"}}, "keys": ["x", "y"]}


@pytest.mark.parametrize(
    ("new", "reported"),
    [
        (OLD, []),
        ({**OLD, "g": {}, "keys": ["z", "y", "x"]}, []),
        ({"keys": ["x", "y"]}, ["removed: f"]),
        ({**OLD, "keys": ["x"]}, ["removed: keys / y"]),
        ({**OLD, "f": {**OLD["f"], "kind": "class"}}, ["changed: f / kind: function -> class"]),
        ({**OLD, "f": {**OLD["f"], "parameters": {"a": "0: int"}}}, ["removed: f / parameters / b"]),
        ({**OLD, "f": {**OLD["f"], "parameters": {**OLD["f"]["parameters"], "c": "keyword: int = 1"}}}, []),
        (
            {**OLD, "f": {**OLD["f"], "parameters": {**OLD["f"]["parameters"], "c": "1: int"}}},
            ["now required: f / parameters / c"],
        ),
    ],
)
def test_the_comparison_reports_removals_and_changes_but_not_additions(
    new: object, reported: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from public_surface import differences

    assert list(differences(OLD, new)) == reported


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("_runtime.BlockingStream[GenerateChunk]", "BlockingStream[GenerateChunk]"),
        ("'llm_council._engine.plan.Wishes' | None", "Wishes | None"),
        ("tuple[str, ...]", "tuple[str, ...]"),
        (int, "int"),
        (dict[str, Path], "dict[str, Path]"),
    ],
)
def test_annotations_are_compared_without_their_modules(
    written: object, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from public_names import annotation_text

    assert annotation_text(written) == text


def test_a_name_that_is_only_a_deprecated_alias_still_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "old_module.py").write_text(
        "__all__ = []\ndef __getattr__(name):\n    if name == 'Old': return int\n    raise AttributeError(name)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from public_names import describe_module

    assert set(describe_module("old_module", ["Old", "Gone"]) or ()) == {"Old"}
    assert describe_module("no_such_module", []) is None
