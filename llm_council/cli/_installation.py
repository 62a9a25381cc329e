"""Finding what other distributions have put into our package's folder: several use the same import name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import llm_council

__all__ = ["check_installation"]

NAME = "llm-council-sdk"


def check_installation() -> list[str]:
    """Return one sentence for each fault of this installation, with its remedy; none when all is well."""
    others = sorted(set(packages_distributions().get("llm_council", ())) - {NAME})
    if others:
        cure = f"pip uninstall {' '.join(others)}; pip install --force-reinstall {NAME}"
        return [f"{', '.join(others)} installs into llm_council/ too, and one overwrites the other; run: {cure}"]
    try:
        ours = distribution(NAME)
    except PackageNotFoundError:
        return [f"{NAME} is not installed, so its providers are not found; run: pip install {NAME}"]
    foreign = sorted(_foreign(ours))
    if foreign:
        shown = ", ".join([*foreign[:5], *(["..."] if len(foreign) > 5 else [])])
        cure = f"delete them, then run: pip install --force-reinstall {NAME}"
        return [f"llm_council/ holds files that {NAME} did not install: {shown}; {cure}"]
    return []


def _foreign(ours: Distribution) -> Iterator[str]:
    if ours.read_text("RECORD") is None:  # metadata of a source tree, which lists what it would install
        return
    folder = Path(llm_council.__file__).parent
    recorded = {Path(str(file.locate())).resolve() for file in ours.files or () if file.parts[0] == "llm_council"}
    if not recorded:  # an editable installation records no files of the package
        return
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".pyc" and path.resolve() not in recorded:
            yield str(path.relative_to(folder))
