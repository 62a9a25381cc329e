"""Print the public surface of the installed llm_council as JSON, or compare it with a recorded one.

``python tools/public_surface.py`` prints it. ``python tools/public_surface.py --check FILE`` prints what FILE has and
this version lacks or has changed, one difference a line, and exits with 1 if there are any. Additions are fine.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
from public_json import collect_json, run_command
from public_names import all_modules


def surface(recorded: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the surface; names of ``recorded`` that can still be imported are part of it."""
    return {
        "modules": all_modules(recorded["modules"] if recorded else {}),
        "commands": dict(commands(captured_program(), "council")),
        **collect_json(),
    }


def captured_program() -> click.Group:
    """Return the click group that ``council`` runs, whichever module holds it."""
    groups: list[click.Group] = []

    def capture(self: click.Group, *args: Any, **options: Any) -> int:
        groups.append(self)
        return 0

    with patch.object(click.Command, "main", capture):
        run_command()
    return groups[0]


def commands(command: click.Command, path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each command with its options and arguments."""
    yield path, {name: _option(parameter) for parameter in command.params for name in parameter.opts}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from commands(found, f"{path} {name}")


def _option(parameter: click.Parameter) -> str:
    """Describe an option or argument: its type, and whether it is required or repeatable."""
    if getattr(parameter, "is_flag", False):
        return "flag"
    words = [parameter.param_type_name, parameter.type.name]
    if isinstance(parameter.type, click.Choice):
        words.append(f"({' | '.join(map(str, parameter.type.choices))})")
    if parameter.multiple or parameter.nargs == -1:
        words.append("repeatable")
    if parameter.required:
        words.append("required")
    if isinstance(parameter.default, str):
        words.append(f"= {parameter.default}")
    return " ".join(words)


def differences(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield what an older surface has and a newer one lacks or has changed."""
    where = " / ".join(path)
    if isinstance(old, dict) and isinstance(new, dict):
        for name, value in old.items():
            if name in new:
                yield from differences(value, new[name], (*path, name))
            else:
                yield f"removed: {' / '.join((*path, name))}"
        if path and path[-1] in ("parameters", "fields"):
            for name in new.keys() - old.keys():
                if " = " not in new[name] and not name.startswith("*"):
                    yield f"now required: {' / '.join((*path, name))}"
    elif isinstance(old, list) and isinstance(new, list):
        yield from (f"removed: {where} / {item}" for item in old if item not in new)
    elif old != new:
        yield f"changed: {where}: {old} -> {new}"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=Path, metavar="FILE", help="compare with this file instead of printing")
    arguments = parser.parse_args()
    recorded = json.loads(arguments.check.read_text(encoding="utf-8")) if arguments.check else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        current = surface(recorded)
    if recorded is None:
        sys.stdout.write(json.dumps(current, indent=1, sort_keys=True) + "\n")
        return 0
    found = list(differences(recorded, current))
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
