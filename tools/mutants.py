"""Change the code of a few modules in small ways, and check that a test fails for each change (mutation testing).

usage: python tools/mutants.py [NAME ...]       (`tox -e mutants`; outside continuous integration, up to an hour)

mutmut makes the changes; `[mutmut]` in setup.cfg lists the modules and their tests. A change that no test notices must
be listed in `tools/mutants.toml` with the reason why it may stand. NAME runs only these mutants and compares nothing.
Two kinds that show nothing further are left out, so that an hour is enough: calls that lack an argument (others have
None in its place), and strings in upper case (others have further letters).
Exits 1 when a survivor is not listed, when a listed one no longer survives, or when there are more mutants than `MOST`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

MOST = 1500
SURVIVED, UNTESTED = 0, 33  # exit codes that mutmut stores for a mutant
ROOT = Path(__file__).parents[1]

MUTMUT = """
from mutmut.__main__ import cli
from mutmut.mutation import mutators

def with_all_arguments(call):
    return (changed for changed in mutators.operator_arg_removal(call) if len(changed.args) == len(call.args))

def with_other_letters(text):
    return (changed for changed in mutators.operator_string(text) if changed.value.lower() != text.value.lower())

instead = {mutators.operator_arg_removal: with_all_arguments, mutators.operator_string: with_other_letters}
mutators.mutation_operators[:] = [
    (kind, instead.get(operator, operator)) for kind, operator in mutators.mutation_operators
]
cli()
"""
"""A program: mutmut, but without the mutants that lack an argument and those whose strings differ in case alone."""

Change = tuple[str, str, str]
"""The function, the line before and the line after: unlike mutmut's numbers, these stay when other lines change."""


def results() -> dict[str, int | None]:
    """Return the exit code of each mutant that mutmut has stored."""
    codes: dict[str, int | None] = {}
    for path in sorted((ROOT / "mutants").rglob("*.meta")):
        codes.update(json.loads(path.read_text())["exit_code_by_key"])
    return codes


def change_of(mutant: str) -> Change:
    """Return what a mutant changed."""
    shown = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "mutmut", "show", mutant],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = [line for line in shown.splitlines() if not line.startswith(("---", "+++", "#"))]
    before = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    after = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
    return mutant.rpartition("__mutmut_")[0], before, after


def listed() -> dict[Change, str]:
    """Return the survivors that may stand, with their reasons."""
    rows = tomllib.loads((ROOT / "tools" / "mutants.toml").read_text()).get("survivor", [])
    return {(row["function"], row["before"], row["after"]): row["reason"] for row in rows}


def main() -> int:
    """Run mutmut, and print the changes that no test noticed."""
    command = [sys.executable, "-W", "ignore", "-c", MUTMUT, "run", "--max-children", "2", *sys.argv[1:]]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    codes = results()
    survivors = {change_of(name): name for name, code in codes.items() if code in (SURVIVED, UNTESTED)}
    if sys.argv[1:]:
        known: dict[Change, str] = {}
    else:
        known = listed()
    unlisted = [change for change in survivors if change not in known]
    for change in unlisted:
        function, before, after = change
        print(f"survived: {survivors[change]}\n  {function}\n  - {before}\n  + {after}")  # noqa: T201
    outdated = [change for change in known if change not in survivors]
    for function, before, after in outdated:
        print(f"listed, but killed or gone: {function}\n  - {before}\n  + {after}")  # noqa: T201
    print(f"{len(codes)} mutants, {len(survivors)} survivors, {len(known)} listed")  # noqa: T201
    return 1 if unlisted or outdated or len(codes) > MOST else 0


if __name__ == "__main__":
    sys.exit(main())
