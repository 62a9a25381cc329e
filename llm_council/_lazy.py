"""Module-level ``__getattr__`` functions (PEP 562): public names that load on first use, and deprecated modules."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["deprecated_module", "lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], Sequence[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package whose public names load on first use.

    Type checkers do not follow this: the package imports the same names under ``if TYPE_CHECKING``.

    Args:
        package: the package's ``__name__``.
        homes: for each submodule, relative to the package, the names that it defines.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def load(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted(sys.modules[package].__all__)


def deprecated_module(
    old: str, target: ModuleType, instead: str, *, renamed: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a deprecated module: it warns and takes the name from ``target``.

    Args:
        old: the ``__name__`` of the deprecated module.
        target: the module that defines the names now.
        instead: the public module that the warning names.
        renamed: names of the deprecated module whose objects have another name in ``target``.
    """
    names = renamed or {}

    def load(name: str) -> Any:
        value = getattr(target, names.get(name, name))
        message = f"{old} will be removed in 0.3.0: import from {instead}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return value

    return load
