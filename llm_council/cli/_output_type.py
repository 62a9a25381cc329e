"""``--output-type MODULE:CLASS``: import the type of the answer. Files of the working folder run only if trusted."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import click

from llm_council.errors import InvalidOption, near
from llm_council.errors._secrets import clean

__all__ = ["load_output_type", "output_type_of_flags", "output_type_options"]

F = TypeVar("F", bound=Callable[..., Any])

_PLAIN = {"bool": bool, "int": int, "float": float, "str": str}
_SPEC = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)")


def output_type_options(command: F) -> F:
    """Add ``--output-type`` and ``--trust-cwd`` to a command."""
    trust = click.option(
        "--trust-cwd", is_flag=True, help="Let --output-type import and run files of the working folder."
    )
    kind = click.option(
        "--output-type",
        metavar="MODULE:CLASS",
        help="Python type that the answer must be one of; also bool, int, float or str.",
    )
    return kind(trust(command))


def output_type_of_flags(flags: Mapping[str, Any]) -> Any:
    """Return the type that ``--output-type`` names; None without it."""
    if flags["output_type"] is None:
        if flags["trust_cwd"]:
            raise click.UsageError("--trust-cwd is for --output-type MODULE:CLASS, which is not given")
        return None
    if flags.get("schema") is not None:
        raise click.UsageError("--output-type and --schema both give the form of the answer: give one of them")
    return load_output_type(flags["output_type"], trust_cwd=flags["trust_cwd"])


def load_output_type(spec: str, *, trust_cwd: bool) -> Any:
    """Return the type that ``--output-type`` names.

    Args:
        spec: ``"module:Class"``, or the name of a plain type such as ``"bool"``.
        trust_cwd: True if modules may be imported from the working folder.

    Raises:
        InvalidOption: there is no such module or class, or the module cannot be imported.
    """
    if spec in _PLAIN:
        return _PLAIN[spec]
    parts = _SPEC.fullmatch(spec)
    if parts is None:
        raise InvalidOption(
            f"--output-type: expected MODULE:CLASS, such as reports:Report, or one of {', '.join(_PLAIN)}; got"
            f" {spec!r:.80}"
        )
    with _import_path(trust_cwd=trust_cwd):
        found: Any = _import(parts["module"], trust_cwd=trust_cwd)
    for name in parts["name"].split("."):
        names = [known for known in dir(found) if not known.startswith("_")]
        if not hasattr(found, name):
            raise InvalidOption(f"--output-type: {parts['module']} has no {name!r:.80}{near(name, names)}")
        found = getattr(found, name)
    return found


def _import(module: str, *, trust_cwd: bool) -> Any:
    try:
        with redirect_stdout(sys.stderr):  # what a module prints is no part of the answer
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if missing != module and not module.startswith(f"{missing}."):  # a module that this one imports
            raise InvalidOption(f"--output-type: {module} cannot be imported: {clean(str(error))}") from error
        top = Path(module.partition(".")[0])
        is_here = top.with_suffix(".py").is_file() or top.is_dir()
        remedy = "install it, or name its folder in PYTHONPATH"
        if is_here and not trust_cwd:
            remedy = "it lies in this folder, whose files are run only with --trust-cwd: add it if you trust them"
        raise InvalidOption(f"--output-type: there is no module {module!r} on the import path; {remedy}") from None
    except (Exception, SystemExit) as error:
        reason = clean(f"{type(error).__name__}: {error}")
        raise InvalidOption(f"--output-type: {module} cannot be imported: {reason}") from error


@contextmanager
def _import_path(*, trust_cwd: bool) -> Iterator[None]:
    """Import from the working folder only if it is trusted.

    ``python -m llm_council`` and ``python -c`` put it first on the path. One that PYTHONPATH or an installation names
    stays.
    """
    if trust_cwd:
        sys.path.append(str(Path.cwd()))  # last, so that none of its files takes the place of another module
        yield
        return
    before = list(sys.path)
    by_module = Path(sys.argv[0]).name == "__main__.py" and not sys.flags.safe_path
    first = sys.path[0] if sys.path else None
    if first == "" or (first is not None and by_module and Path(first).resolve() == Path.cwd().resolve()):
        del sys.path[0]
    # The import system remembers the folders that it has searched.
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
