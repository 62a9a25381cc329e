"""Marks for the tests of faults: several values in one test, and providers or transports that are exceptions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["each", "unlike", "unlikes"]

Test = Callable[..., None]


def each(name: str, values: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with each value of one argument, and add the value to a failure."""

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
    """Mark a dialect or a transport to which a row does not apply; the reason becomes a footnote of the table.

    Args:
        who: the id of a dialect or a transport, or of a dialect on a transport: ``"anthropic over sdk"``.
        why: what it does instead, or why the row does not apply.
    """

    def mark(test: Test) -> Test:
        vars(test)["unlike"] = {**unlikes(test), who: why}
        return test

    return mark


def unlikes(test: object) -> dict[str, str]:
    """Return the dialects and transports to which a row does not apply, with the reasons."""
    found: dict[str, str] = getattr(test, "unlike", {})
    return found
