"""Write the distribution that the page about strategies shows, copied from its blocks, as a reader would.

Usage: ``python tests/packaging/write_strategy.py FOLDER``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "strategies.md"


def main(folder: Path) -> None:
    """Write ``pyproject.toml`` and the module with the class."""
    page = PAGE.read_text(encoding="utf-8")
    (source,) = (block for block in _blocks(page, "python") if "class Approve(Strategy)" in block)
    (project,) = (block for block in _blocks(page, "toml") if "# pyproject.toml" in block)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "council_approve.py").write_text(source.partition("\n\n\nresult = ")[0] + "\n", encoding="utf-8")
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
