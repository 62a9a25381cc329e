"""Rows with many spellings: each is tried within one test, since a test costs more than a spelling."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["each"]


def each(name: str, values: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with each of the values of one argument, and name the one that it fails with."""

    def wrap(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def all_of_them(**fixtures: Any) -> None:
            for value in values:
                for bench in fixtures.values():
                    if hasattr(bench, "waits"):
                        bench.calls.clear()
                        bench.waits.clear()
                try:
                    test(**fixtures, **{name: value})
                except BaseException as error:
                    error.add_note(f"{name} = {value!r:.200}")
                    raise

        shown = inspect.signature(test)
        kept = [parameter for parameter in shown.parameters.values() if parameter.name != name]
        all_of_them.__signature__ = shown.replace(parameters=kept)  # type: ignore[attr-defined]
        return all_of_them

    return wrap
