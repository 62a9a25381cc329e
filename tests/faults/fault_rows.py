"""Marks for the tests of faults: several values in one test, and providers or transports that are exceptions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["each", "exempt", "exemptions"]

Test = Callable[..., None]


def each(name: str, values: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with each value of one argument, and add the value to a failure."""

    def wrap(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def all_of_them(**fixtures: Any) -> None:
            for value in values:
                for vendor in fixtures.values():
                    if hasattr(vendor, "waits"):
                        vendor.calls.clear()
                        vendor.waits.clear()
                try:
                    test(**fixtures, **{name: value})
                except BaseException as error:
                    error.add_note(f"{name} = {value!r:.200}")
                    raise

        shown = inspect.signature(test)
        others = [parameter for parameter in shown.parameters.values() if parameter.name != name]
        all_of_them.__signature__ = shown.replace(parameters=others)  # type: ignore[attr-defined]
        return all_of_them

    return wrap


def exempt(who: str, why: str) -> Callable[[Test], Test]:
    """Mark a dialect or a transport to which a row does not apply; the reason becomes a footnote of the table.

    Args:
        who: the id of a dialect or a transport, or of a dialect on a transport: ``"anthropic over sdk"``.
        why: what it does instead, or why the row does not apply.
    """

    def mark(test: Test) -> Test:
        vars(test)["exempt"] = {**exemptions(test), who: why}
        return test

    return mark


def exemptions(test: object) -> dict[str, str]:
    """Return the dialects and transports to which a row does not apply, with the reasons."""
    found: dict[str, str] = getattr(test, "exempt", {})
    return found
