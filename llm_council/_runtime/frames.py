"""Which frames of a traceback are the library's own; they are recognised by their module's package."""

from __future__ import annotations

from types import FrameType, TracebackType
from typing import Final

__all__ = ["is_internal", "user_traceback"]

# These packages stand between a caller and an adapter. Their frames explain nothing to the author of an adapter.
_CALL_PATH_PACKAGES: Final = (
    "llm_council._runtime",
    "llm_council.middleware",
    "llm_council.providers._call",
    "llm_council.providers.base",
)

# Frames of our own adapters, and all frames below them, hold keys and what a vendor sent, word for word.
_ADAPTER_PACKAGES: Final = ("llm_council._wire", "llm_council.providers", "llm_council.transports")


def is_internal(frame: FrameType) -> bool:
    """Return True for a frame of the code that leads from a caller to an adapter."""
    return _is_in(frame, _CALL_PATH_PACKAGES)


def user_traceback(error: BaseException) -> TracebackType | None:
    """Return an error's traceback without internal frames, cut where it enters an adapter of ours.

    Frames above the first one of our own adapters or wire formats stay; those from there on are cut.
    """
    entries = []
    entry = error.__traceback__
    while entry is not None:
        internal = is_internal(entry.tb_frame)
        if not internal and _is_in(entry.tb_frame, _ADAPTER_PACKAGES):
            break
        if not internal:
            entries.append(entry)
        entry = entry.tb_next
    shown = None
    for entry in reversed(entries):
        shown = TracebackType(shown, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return shown


def _is_in(frame: FrameType, packages: tuple[str, ...]) -> bool:
    module = frame.f_globals.get("__name__") or ""
    return any(module == package or module.startswith(f"{package}.") for package in packages)
