"""Rows with many spellings, which are tried within one test, and rows that not everyone can meet."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["each", "unlike", "unlikes"]

Test = Callable[..., None]


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


def unlike(who: str, why: str) -> Callable[[Test], Test]:
    """Say of a dialect or a transport that it does not keep a row, and why: the table has it as a footnote.

    Args:
        who: the id of a dialect or a transport; of a dialect on a transport: ``"anthropic over sdk"``.
        why: what it does instead, or why the row says nothing about it.
    """

    def mark(test: Test) -> Test:
        vars(test)["unlike"] = {**unlikes(test), who: why}
        return test

    return mark


def unlikes(test: object) -> dict[str, str]:
    """Return who does not keep a row, and why."""
    found: dict[str, str] = getattr(test, "unlike", {})
    return found
