"""Record the journal in ``tests/data/evals``, which tests replay: ``python -m tests.evals.record``."""

from __future__ import annotations

import shutil
from pathlib import Path

from llm_council.evals import evaluate
from tests.evals._council import council_of, tasks_of

FOLDER = Path(__file__).parent.parent / "data" / "evals" / "simulated"


def main() -> None:
    """Run all arms on twelve tasks with simulated seats."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    evaluate(council_of(), tasks_of(12, clusters=6), arms=["all"], samples=3, out=FOLDER)
    for name in ("report.html", "report.md"):
        (FOLDER / name).unlink()


if __name__ == "__main__":
    main()
