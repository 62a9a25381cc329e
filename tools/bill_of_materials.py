"""Write the software bill of materials of a wheel, in CycloneDX 1.6 JSON, beside the wheel.

Usage: ``python tools/bill_of_materials.py FOLDER``, where FOLDER holds one wheel; ``tox -e release`` does that. The
wheel is installed with all its extras in a temporary environment, which cyclonedx-py describes. To that are added the
wheel's version and hash, and which components are optional, because an extra alone brings them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str]) -> int:
    """Write the bill of the wheel in the folder ``arguments[0]`` and return the exit status."""
    (wheel,) = Path(arguments[0]).glob("*.whl")
    metadata = read_metadata(wheel)
    with tempfile.TemporaryDirectory() as folder:
        python = create_environment(Path(folder))
        install(python, str(wheel.absolute()))
        required = installed_names(python)
        install(python, f"{wheel.absolute()}[{','.join(metadata.get_all('Provides-Extra', []))}]")
        bill = complete(describe(python), wheel, metadata, required)
    text = json.dumps(bill, indent=2, ensure_ascii=False) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        sys.exit(f"the bill of materials is not valid: {problem}")
    name, version, *_ = wheel.name.split("-")
    (wheel.parent / f"{name}-{version}.cdx.json").write_text(text, encoding="utf-8")
    return 0


def read_metadata(wheel: Path) -> Message:
    """Return the core metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode("utf-8"))


def create_environment(folder: Path) -> Path:
    """Create a virtual environment and return its interpreter."""
    uv("venv", "--python", sys.executable, str(folder))
    return folder / "bin" / "python"


def install(python: Path, requirement: str) -> None:
    """Install a requirement and all that it needs."""
    uv("pip", "install", "--python", str(python), requirement)


def installed_names(python: Path) -> set[str]:
    """Return the normalised names of the distributions of an environment."""
    listed = json.loads(uv("pip", "list", "--format", "json", "--python", str(python)))
    return {canonicalize_name(row["name"]) for row in listed}


def uv(*arguments: str) -> bytes:
    """Run uv, which tox-uv brings, and return what it prints."""
    program = shutil.which("uv")
    if program is None:
        sys.exit("uv is missing: run `tox -e release`, or install it")
    return subprocess.run([program, *arguments, "--quiet"], stdout=subprocess.PIPE, check=True).stdout


def describe(python: Path) -> dict[str, Any]:
    """Return the bill that cyclonedx-py makes of an environment, without values that differ from run to run."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", str(python)]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library"]
    command += ["--spec-version", "1.6", "--output-format", "JSON", "--output-reproducible", "--no-validate"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    bill: dict[str, Any] = json.loads(printed)
    return bill


def complete(bill: dict[str, Any], wheel: Path, metadata: Message, required: set[str]) -> dict[str, Any]:
    """Add the version and the hash of the wheel, and the scope of each component."""
    described = bill["metadata"]["component"]
    described["version"] = metadata["Version"]
    described["purl"] = f"pkg:pypi/{canonicalize_name(metadata['Name'])}@{metadata['Version']}"
    described["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    for component in bill["components"]:
        component["scope"] = "required" if canonicalize_name(component["name"]) in required else "optional"
    return bill


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
