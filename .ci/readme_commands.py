"""Print the two set-up commands of a README, one a line, so that CI can run exactly what a newcomer would copy.

Usage: ``python .ci/readme_commands.py README.md``. A set-up command is a line of a ``console`` block that starts with
``$ python3 -m venv``. Any other number of them than two is an error: exit status 1 and a message on stderr.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

CONSOLE_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETUP_COMMAND = re.compile(r"^\$ (python3 -m venv .*)$", re.MULTILINE)
EXPECTED = 2  # install and ask, then test


def setup_commands(text: str) -> list[str]:
    """Return the set-up commands in Markdown ``text``, in order; lines continued with a backslash are joined."""
    commands: list[str] = []
    for block in CONSOLE_BLOCK.findall(text):
        commands += SETUP_COMMAND.findall(block.replace("\\\n", ""))
    return commands


def main(arguments: Sequence[str]) -> int:
    """Print the set-up commands of the file ``arguments[0]`` and return the exit status."""
    commands = setup_commands(Path(arguments[0]).read_text(encoding="utf-8"))
    if len(commands) != EXPECTED:
        found = f"found {len(commands)}: {commands}"
        print(f"{arguments[0]}: expected {EXPECTED} set-up commands, {found}", file=sys.stderr)
        return 1
    print("\n".join(commands))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
