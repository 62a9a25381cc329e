"""Which project files a person has agreed to: by path and content, written down where no project can write.

A file is trusted as it was when the person said so. Any change to it, and any other place, needs their word again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
import tempfile
from pathlib import Path

from llm_council.errors import ConfigurationError, UntrustedConfig

__all__ = ["agree", "forget", "is_agreed", "record"]

_MOST = 1 << 20  # bytes of the record: thousands of projects


def record() -> Path:
    """Return where agreements are written down: ``llm-council/trusted.json`` in the user's config home."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return home / "llm-council" / "trusted.json"


def is_agreed(path: Path, data: bytes) -> bool:
    """Tell whether a person has agreed to this file with this very content.

    Raises:
        UntrustedConfig: others can write the record, so nothing in it means anything.
    """
    return hmac.compare_digest(_read().get(_place(path), ""), _digest(data))


def agree(path: Path, data: bytes) -> None:
    """Write down that this file may do what a person's own may, as long as it is as it is now."""
    _write({**_read(), _place(path): _digest(data)})


def forget(path: Path) -> bool:
    """Take an agreement back; return whether there was one."""
    known = _read()
    if known.pop(_place(path), None) is None:
        return False
    _write(known)
    return True


def _place(path: Path) -> str:
    return str(path.parent.resolve() / path.name)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read() -> dict[str, str]:
    path = record()
    try:
        with path.open("rb") as file:
            owner, mode = os.fstat(file.fileno()).st_uid, os.fstat(file.fileno()).st_mode
            data = file.read(_MOST)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if owner not in (os.geteuid(), 0) or mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UntrustedConfig(f"{path}: others can write it, so it proves nothing: delete it, and trust projects again")
    try:
        known = json.loads(data)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{path}: not valid JSON: delete it, and trust projects again") from None
    if not isinstance(known, dict):
        raise ConfigurationError(f"{path}: expected an object: delete it, and trust projects again")
    return {place: digest for place, digest in known.items() if isinstance(digest, str)}


def _write(known: dict[str, str]) -> None:
    """Replace the record in one step, readable by its owner alone whatever the umask."""
    path = record()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".trusted-")  # made with mode 600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(known, file, indent=2, sort_keys=True)
            Path(name).replace(path)
        except BaseException:  # whatever ended it, Ctrl-C too: half a record stays nowhere
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from None
