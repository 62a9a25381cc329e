"""Promises: how a check is declared, run, and reported in one line."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, Protocol

import anyio
import attrs

from llm_council.errors import CouncilError
from llm_council.errors._secrets import clean
from llm_council.providers.base import ProviderAdapter
from llm_council.testing.servers import Asked, Said

__all__ = [
    "BrokenPromise",
    "CannotPlay",
    "Outcome",
    "Player",
    "Stage",
    "Verdict",
    "WrongDialect",
    "check",
    "fail",
    "promise",
    "promises",
]

# A line of a test report, with the whole message of an error but not the body of a reply.
_LINE = 600  # characters


class BrokenPromise(AssertionError):
    """An adapter does not do what every adapter must do, or what its capabilities declare."""


class WrongDialect(BrokenPromise):
    """An adapter calls addresses that the dialect of the fake vendor does not have."""


class CannotPlay(Exception):
    """The stand-in for a vendor cannot give this reply. The promise that needs it is skipped, with this reason."""


class Player(Protocol):
    """A stand-in for what an adapter calls: a ``FakeVendor``, a fake program, a fake engine.

    Attributes:
        said: the reply to every call from now on. Setting one that it cannot give raises ``CannotPlay``.
        asked: every request so far, in order.
    """

    said: Said

    @property
    def asked(self) -> list[Asked]:
        """Every request so far, in order."""
        ...

    @property
    def calls(self) -> list[Asked]:
        """The requests that ran a model."""
        ...

    def wait_asked(self, count: int = 1, seconds: float = 10.0) -> bool:
        """Wait until this many requests have arrived; return False when the seconds are over."""
        ...

    def wait_left(self, seconds: float = 10.0) -> bool:
        """Wait until an adapter left before the end of a reply; return False when the seconds are over."""
        ...


@attrs.frozen
class Stage:
    """An adapter, and the stand-in for its vendor."""

    adapter: ProviderAdapter
    vendor: Player


class Verdict(StrEnum):
    """The result of checking a promise."""

    KEPT = "kept"
    BROKEN = "broken"
    KNOWN = "known"  # broken, and listed in ``not_kept``
    SKIPPED = "skipped"


@attrs.frozen(kw_only=True)
class Outcome:
    """The result of one promise, with a line to print.

    Attributes:
        name: the promise's name, as in ``not_kept``.
        verdict: the result.
        line: one line for people.
    """

    name: str
    verdict: Verdict
    line: str


@attrs.frozen
class Promise:
    """One promise: its name, its sentence, the function that checks it, and what to do if it is broken."""

    name: str
    sentence: str
    check: Callable[[Any], Any]
    remedy: str = ""


def promise(sentence: str, *, remedy: str = "") -> Callable[[Callable[[Any], Any]], Callable[[Any], None]]:
    """Turn a method, ``async`` or not, into a pytest test that fails with one line.

    Args:
        sentence: what is promised; every line about the promise ends with it.
        remedy: what to do if it is broken; it follows what was found. Empty if each finding names its own remedy.
    """

    def decorate(method: Callable[[Any], Any]) -> Callable[[Any], None]:
        declared = Promise(method.__name__.removeprefix("test_"), sentence, method, remedy)

        @functools.wraps(method)
        def test(self: Any) -> None:
            _report_to_pytest(check(self, declared))

        # anyio's and asyncio's pytest plugins look at ``__wrapped__`` and would await the test.
        del test.__dict__["__wrapped__"]
        test.promise = declared  # type: ignore[attr-defined]
        return test

    return decorate


def promises(stand: object) -> Iterator[Promise]:
    """Yield the promises of a class or an instance, in the order in which they are written."""
    cls = stand if isinstance(stand, type) else type(stand)
    names = dict.fromkeys(name for base in cls.__mro__ for name in vars(base))
    for name in names:
        declared = getattr(getattr(cls, name, None), "promise", None)
        if isinstance(declared, Promise):
            yield declared


def fail(found: str) -> NoReturn:
    """Fail a check with a description of what was found."""
    raise BrokenPromise(found)


def check(stand: Any, declared: Promise) -> Outcome:
    """Check one promise of an adapter."""
    name, who, known = declared.name, stand.who(), stand.not_kept.get(declared.name)
    stopped = stand.stopped_by()
    if stopped not in (None, name):
        return _outcome(name, Verdict.SKIPPED, f"{name}: not checked, since {stopped!r} found another dialect")
    try:
        _run(stand, declared)
    except KeyboardInterrupt:
        raise
    except CannotPlay as reason:
        return _outcome(name, Verdict.SKIPPED, f"{name}: {reason}")
    except BaseException as raised:  # noqa: BLE001 - an adapter may raise anything, SystemExit included
        error = _without_groups(raised)
        found = _describe(error)
        stand.note_failure(declared.name, error)
        # A wrong dialect explains every error, and has a remedy of its own.
        remedy = "" if isinstance(error, WrongDialect) else declared.remedy
    else:
        if known is not None:
            return _outcome(name, Verdict.BROKEN, f"{who} passes {name!r}, but not_kept lists it: remove it there")
        return _outcome(name, Verdict.KEPT, f"{name}: {declared.sentence}")
    if known is not None:
        return _outcome(name, Verdict.KNOWN, f"{name}: {known} ({found})")
    advised = f"{found}: {remedy}" if remedy else found
    return _outcome(name, Verdict.BROKEN, f"{who} fails {name!r}: {advised} [expected: {declared.sentence}]")


def _outcome(name: str, verdict: Verdict, text: str) -> Outcome:
    return Outcome(name=name, verdict=verdict, line=clean(" ".join(text.split()), limit=_LINE))


def _run(stand: Any, declared: Promise) -> None:
    if not inspect.iscoroutinefunction(declared.check):
        declared.check(stand)
        return

    async def bounded() -> None:
        with anyio.move_on_after(stand.patience) as scope:
            await declared.check(stand)
        if scope.cancelled_caught:
            fail(f"the check did not end within {stand.patience:g} s")

    for backend in stand.backends:
        anyio.run(bounded, backend=backend)


def _without_groups(error: BaseException) -> BaseException:
    # Task groups wrap what is raised in them.
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _describe(error: BaseException) -> str:
    if isinstance(error, BrokenPromise):
        return str(error)
    if isinstance(error, CouncilError):
        return f"{type(error).__name__}: {error.message}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _report_to_pytest(outcome: Outcome) -> None:
    import pytest  # here: the command line needs no pytest

    # Without a traceback: it would show the kit's code, while the line names what the adapter did.
    match outcome.verdict:
        case Verdict.BROKEN:
            pytest.fail(outcome.line, pytrace=False)
        case Verdict.KNOWN:
            pytest.xfail(outcome.line)
        case Verdict.SKIPPED:
            pytest.skip(outcome.line)
        case Verdict.KEPT:
            return
