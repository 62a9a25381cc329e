"""How dialects say that a reply holds no text but something else: another kind of answer, or why it failed."""

from __future__ import annotations

import attrs

__all__ = ["OtherContent", "declare", "declared"]


@attrs.frozen(kw_only=True)
class OtherContent:
    """The words of one dialect, which its ``reply.py`` declares.

    Attributes:
        parts: types of parts of a turn that are an answer, or that the caller is to act on.
        client_parts: types of parts of which that holds if their ``execution`` is ``"client"``.
        media: keys of parts without a type that hold an answer.
        continued: the vendor's finish reasons of a turn that the caller is to send back, to continue it.
        waiting: those of a reply that is still being made in the background.
        errors: keys of ``extra`` that hold why an answer failed.
    """

    parts: frozenset[str] = frozenset()
    client_parts: frozenset[str] = frozenset()
    media: tuple[str, ...] = ()
    continued: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


_declared: list[OtherContent] = []


def declare(words: OtherContent) -> None:
    """Add the words of a dialect. A decoder does so when it is imported, before there is a reply of its dialect."""
    _declared.append(words)


def declared() -> tuple[OtherContent, ...]:
    """Return the words of all dialects whose decoders are imported."""
    return tuple(_declared)
