"""Councils in worker processes: a recipe travels, and each process makes one council from it and closes it at exit."""

from __future__ import annotations

import atexit
import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol, Self
from uuid import uuid4

import attrs

from llm_council.errors import CouncilError

__all__ = ["CouncilRecipe"]

_MOST: Final = 8  # councils that a worker process holds


class _Council(Protocol):
    def close(self) -> None: ...

    def __reduce__(self) -> tuple[Any, ...]: ...


@attrs.frozen
class CouncilRecipe:
    """What a pickle of a council holds: names and settings, no key. A council is made from it only where it runs.

    Unpickling a ``Council`` makes one each time. A recipe is unpickled with every task of a data engine, and all
    recipes with one key share the council of their process.

    Attributes:
        make: makes a council of the arguments.
        arguments: its arguments.
        key: the same for equal councils, where they can be pickled.
    """

    make: Callable[..., Any]
    arguments: tuple[Any, ...]
    key: str

    @classmethod
    def of(cls, council: _Council) -> Self:
        """Return the recipe of a council.

        Raises:
            TypeError: the council holds adapter instances, or a key outside the fields for keys.
        """
        make, arguments = council.__reduce__()[:2]
        try:
            # Equal keys in equal programs: datasets finds the cached results of a function by its pickle.
            key = hashlib.sha256(pickle.dumps((make, arguments))).hexdigest()
        except (pickle.PicklingError, AttributeError, TypeError):  # cloudpickle and dill take more than pickle does
            key = uuid4().hex
        return cls(make, arguments, key)

    def council(self) -> Any:
        """Return the council of this process; it reads its keys from the environment of the process.

        Raises:
            ConfigurationError: the council cannot be made here.
        """
        council = _councils.get(self.key)
        if council is None:
            if not _councils:
                _at_exit(close_councils)
            while len(_councils) >= _MOST:  # a worker may serve for weeks; a council that is collected closes itself
                _councils.pop(next(iter(_councils)), None)
            council = _councils.setdefault(self.key, self.make(*self.arguments))  # of two threads, one made it in vain
        return council


_councils: dict[str, _Council] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_councils.clear)  # a forked worker makes its own, and closes them


def _at_exit(function: Callable[[], None]) -> None:
    """Call a function at the exit of this process; those that multiprocessing forked know no atexit."""
    atexit.register(function)
    for name in ("multiprocessing", "multiprocess"):  # the second is that of datasets
        process, util = sys.modules.get(f"{name}.process"), sys.modules.get(f"{name}.util")
        if process is not None and util is not None and process.parent_process() is not None:
            util.Finalize(None, function, exitpriority=10)


def close_councils() -> None:
    """Close the councils of this process."""
    while _councils:
        _, council = _councils.popitem()
        with suppress(CouncilError):
            council.close()
