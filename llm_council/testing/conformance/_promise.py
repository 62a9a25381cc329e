"""A promise, how it is proved, and what is said of one that is broken."""

from __future__ import annotations

import functools
import inspect
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
    "broken",
    "promise",
    "promises",
    "prove",
]

_LINE = 400  # characters of one line


class BrokenPromise(AssertionError):
    """An adapter does not do what every adapter must, or what it says that it does."""


class CannotPlay(Exception):
    """A stand-in for a vendor cannot say this; the promise that needs it is skipped, with this reason."""


class Player(Protocol):
    """A stand-in for what is behind an adapter: a ``FakeVendor``, a fake program, a fake engine.

    Attributes:
        said: what it says from now on; setting what it cannot say raises ``CannotPlay``.
        asked: everything it was asked, in order.
    """

    said: Said

    @property
    def asked(self) -> list[Asked]:
        """Everything it was asked, in order."""
        ...

    @property
    def calls(self) -> list[Asked]:
        """Of this, what made a model work."""
        ...

    def wait_asked(self, count: int = 1, seconds: float = 10.0) -> bool:
        """Wait until it was asked so many times; tell whether it was."""
        ...

    def wait_left(self, seconds: float = 10.0) -> bool:
        """Wait until an adapter let go of it before it had ended; tell whether one did."""
        ...


@attrs.frozen
class Stage:
    """An adapter, and what plays its vendor."""

    adapter: ProviderAdapter
    vendor: Player


class Verdict(StrEnum):
    """What became of a promise."""

    KEPT = "kept"
    BROKEN = "broken"
    KNOWN = "known"  # broken, and said so by the adapter's own tests
    SKIPPED = "skipped"


@attrs.frozen(kw_only=True)
class Outcome:
    """What was found about one promise.

    Attributes:
        name: the promise's, by which it is listed in ``not_kept``.
        verdict: what became of it.
        line: one line for people.
    """

    name: str
    verdict: Verdict
    line: str


@attrs.frozen
class Promise:
    """One promise: its name, what is promised, and the check that proves it."""

    name: str
    sentence: str
    check: Callable[[Any], Any]


def promise(sentence: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], None]]:
    """Make a check into a test of pytest, which fails with one line. Checks are methods, ``async`` or not.

    Args:
        sentence: what is promised; it ends every line about it.
    """

    def made(check: Callable[[Any], Any]) -> Callable[[Any], None]:
        kept = Promise(check.__name__.removeprefix("test_"), sentence, check)

        @functools.wraps(check)
        def test(self: Any) -> None:
            _tell_pytest(prove(self, kept))

        del test.__dict__["__wrapped__"]  # else plugins take it for the coroutine function that it wraps
        test.promise = kept  # type: ignore[attr-defined]
        return test

    return made


def promises(stand: object) -> Iterator[Promise]:
    """Yield the promises of a class or an instance, in the order in which they are written."""
    cls = stand if isinstance(stand, type) else type(stand)
    seen = set()
    for base in cls.__mro__:
        for name in vars(base):
            kept = getattr(getattr(cls, name, None), "promise", None)
            if isinstance(kept, Promise) and name not in seen:
                seen.add(name)
                yield kept


def broken(found: str) -> NoReturn:
    """Fail a check, saying what was found."""
    raise BrokenPromise(found)


def prove(stand: Any, kept: Promise) -> Outcome:
    """Check one promise of an adapter."""
    who, known = stand.who(), stand.not_kept.get(kept.name)
    try:
        _check(stand, kept)
    except CannotPlay as reason:
        return Outcome(name=kept.name, verdict=Verdict.SKIPPED, line=_one_line(f"{kept.name}: {reason}"))
    except BaseException as error:  # what an adapter raises may be anything
        if isinstance(error, KeyboardInterrupt):
            raise
        found = _found(error)
    else:
        if known is None:
            return Outcome(name=kept.name, verdict=Verdict.KEPT, line=_one_line(f"{kept.name}: {kept.sentence}"))
        line = f"{who} keeps {kept.name!r} after all: take it out of not_kept"
        return Outcome(name=kept.name, verdict=Verdict.BROKEN, line=_one_line(line))
    if known is not None:
        line = f"{kept.name}: {known} ({found})"
        return Outcome(name=kept.name, verdict=Verdict.KNOWN, line=_one_line(line))
    line = f"{who} breaks {kept.name!r}: {found} [promised: {kept.sentence}]"
    return Outcome(name=kept.name, verdict=Verdict.BROKEN, line=_one_line(line))


def _check(stand: Any, kept: Promise) -> None:
    if not inspect.iscoroutinefunction(kept.check):
        kept.check(stand)
        return

    async def bounded() -> None:
        with anyio.move_on_after(stand.patience) as scope:
            await kept.check(stand)
        if scope.cancelled_caught:
            broken(f"it did not end within {stand.patience:g} s")

    for backend in stand.backends:
        anyio.run(bounded, backend=backend)


def _found(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, BrokenPromise):
        return str(error)
    if isinstance(error, CouncilError):
        return f"{type(error).__name__}: {error.message}"
    return f"{type(error).__name__}: {error}{_where(error)}"


def _where(error: BaseException) -> str:
    traceback = error.__traceback__
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f" in {Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"


def _one_line(text: str) -> str:
    return clean(" ".join(text.split()), limit=_LINE)


def _tell_pytest(outcome: Outcome) -> None:
    import pytest  # the kit runs without it, too

    match outcome.verdict:
        case Verdict.BROKEN:
            pytest.fail(outcome.line, pytrace=False)
        case Verdict.KNOWN:
            pytest.xfail(outcome.line)
        case Verdict.SKIPPED:
            pytest.skip(outcome.line)
        case Verdict.KEPT:
            return
