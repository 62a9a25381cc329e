"""The software bill of materials that ``tox -e release`` writes beside the wheel."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest

cyclonedx = pytest.importorskip("cyclonedx.validation.json", reason="tox -e release installs it")
from cyclonedx.schema import SchemaVersion  # noqa: E402
from packaging.requirements import Requirement  # noqa: E402
from packaging.utils import canonicalize_name  # noqa: E402

pytestmark = pytest.mark.packaging


@pytest.fixture(scope="module")
def dist() -> Path:
    return Path(os.environ["LLM_COUNCIL_DIST"])


@pytest.fixture(scope="module")
def text(dist: Path) -> str:
    (path,) = dist.glob("*.cdx.json")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bill(text: str) -> dict[str, Any]:
    return json.loads(text)


@pytest.fixture(scope="module")
def requirements(dist: Path) -> list[Requirement]:
    (wheel,) = dist.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    listed = message_from_string(archive.read(name).decode()).get_all("Requires-Dist", [])
    return [Requirement(line) for line in listed]


def test_it_is_valid(text: str, bill: dict[str, Any]) -> None:
    validator = cyclonedx.JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(json.dumps({**bill, "components": [{"name": "no type"}]})) is not None


def test_it_describes_the_wheel(bill: dict[str, Any], dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    described = bill["metadata"]["component"]
    version = wheel.name.split("-")[1]
    assert (described["name"], described["version"]) == ("llm-council-sdk", version)
    assert described["purl"] == f"pkg:pypi/llm-council-sdk@{version}"
    assert described["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]


def test_it_lists_every_requirement_in_a_version_that_meets_it(
    bill: dict[str, Any], requirements: list[Requirement]
) -> None:
    needs = {row["ref"]: row.get("dependsOn", []) for row in bill["dependencies"]}
    direct = needs[bill["metadata"]["component"]["bom-ref"]]
    versions = {
        canonicalize_name(one["name"]): one["version"] for one in bill["components"] if one["bom-ref"] in direct
    }
    assert versions.keys() == {canonicalize_name(requirement.name) for requirement in requirements}
    assert [one for one in requirements if versions[canonicalize_name(one.name)] not in one.specifier] == []


def test_it_lists_all_that_its_components_need(bill: dict[str, Any]) -> None:
    components = {component["bom-ref"] for component in bill["components"]}
    assert {ref for row in bill["dependencies"] for ref in row.get("dependsOn", [])} <= components
    assert all(component["purl"].startswith("pkg:pypi/") for component in bill["components"])
    assert all(component.get("version") for component in bill["components"])


def test_what_an_extra_alone_brings_is_optional(bill: dict[str, Any], requirements: list[Requirement]) -> None:
    scopes = {canonicalize_name(component["name"]): component["scope"] for component in bill["components"]}
    core = [canonicalize_name(one.name) for one in requirements if "extra" not in str(one.marker)]
    assert {scopes[name] for name in core} == {"required"}
    assert scopes["idna"] == "required"  # of httpx
    assert {scopes[name] for name in ("xllamacpp", "inspect-ai", "pytest", "pyarrow")} == {"optional"}


def test_it_tells_nothing_of_the_machine(text: str, bill: dict[str, Any]) -> None:
    assert "file://" not in text
    assert str(Path.home()) not in text
    assert {"serialNumber", "timestamp"}.isdisjoint({*bill, *bill["metadata"]})
