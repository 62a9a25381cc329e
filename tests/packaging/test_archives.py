"""What others get from an archive: the same bytes from every build, a readable page on an index, and types."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
from email import message_from_string
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

DIST = Path(os.environ.get("LLM_COUNCIL_DIST") or "/nowhere")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)|(?:src|href|srcset)=[\"']([^\"']+)")
TYPED = """
from llm_council import Council
from llm_council.results import CouncilResult

def usd(council: Council) -> float | None:
    result = council.run("Why?", output_type=int)
    reveal_type(result.output)
    wrong: str = result.cost.usd
    return result.cost.usd
"""


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def build(folder: Path, *, umask: int, modified: int) -> dict[str, str]:
    """Build both archives in ``folder`` from a copy of the sources with other modes and times."""
    folder.mkdir(parents=True)
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    for path in [source, *source.rglob("*")]:
        path.chmod((0o777 if path.stat().st_mode & 0o100 else 0o666) & ~umask)
        os.utime(path, (modified, modified))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    environment = {name: text for name, text in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(
        command, env=environment, umask=umask, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return hashes(folder / "dist")


def test_every_build_gives_the_same_bytes(tmp_path: Path) -> None:
    first = build(tmp_path / "a", umask=0o022, modified=981_173_106)
    second = build(tmp_path / "another" / "folder", umask=0o077, modified=1_800_000_000)
    assert len(first) == 2
    assert first == second == {name: own for name, own in hashes(DIST).items() if name in first}


def test_an_index_takes_the_archives() -> None:
    archives = [str(path) for pattern in ("*.whl", "*.tar.gz") for path in DIST.glob(pattern)]
    command = [sys.executable, "-m", "twine", "check", "--strict", *archives]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_the_page_on_an_index_has_no_link_that_leads_nowhere() -> None:
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        (name,) = [name for name in archive.getnames() if name.count("/") == 1 and name.endswith("/PKG-INFO")]
        member = archive.extractfile(name)
        assert member is not None
        page = message_from_string(member.read().decode()).get_payload()
    assert isinstance(page, str)
    assert "# llm_council" in page
    links = [link for pair in LINK.findall(page) for link in pair if link]
    assert [link for link in links if not link.startswith("https://")] == []


def test_a_type_checker_sees_the_types_of_the_installed_wheel(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", os.devnull]
    command += ["--python-executable", str(Path(os.environ["LLM_COUNCIL_CLEAN"]) / "bin" / "python"), "program.py"]
    environment = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    found = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("program.py")]
    assert len(found) == 2, done.stdout
    assert found[0] == 'note: Revealed type is "int | None"'
    assert '(expression has type "float | None", variable has type "str")' in found[1]
