"""The record of trusted project files: path and content hash, in the user's configuration folder.

A file is trusted with the content that it had at that moment. After any change, or at another path, it must be trusted
again.
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

__all__ = ["add", "contains", "folder", "forget", "record"]

_MAX_BYTES = 1 << 20  # of the record: enough for thousands of projects


def folder() -> Path:
    """Return the user's configuration folder: ``llm-council`` in ``$XDG_CONFIG_HOME``, else in ``~/.config``.

    Raises:
        ConfigurationError: there is no home directory.
    """
    named = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    try:
        return Path(named).expanduser() / "llm-council"
    except RuntimeError:
        raise ConfigurationError(
            "there is no home directory, so the configuration cannot be found: set HOME or XDG_CONFIG_HOME, or name a"
            " configuration file in LLM_COUNCIL_CONFIG"
        ) from None


def record() -> Path:
    """Return the path of the record: ``trusted.json`` in the user's configuration folder."""
    return folder() / "trusted.json"


def contains(path: Path, data: bytes) -> bool:
    """Return True if the user has trusted the file with exactly this content.

    Raises:
        UntrustedConfig: other users can write the record, so it proves nothing.
    """
    # An unknown file gets "", which no digest equals.
    return hmac.compare_digest(_read().get(_place(path), ""), _digest(data))


def add(path: Path, data: bytes) -> None:
    """Record that the user trusts the file with this content."""
    _write({**_read(), _place(path): _digest(data)})


def forget(path: Path) -> bool:
    """Remove a file from the record; return False if it was not there."""
    known = _read()
    if known.pop(_place(path), None) is None:
        return False
    _write(known)
    return True


def _place(path: Path) -> str:
    return str(path.parent.resolve() / path.name)  # not path.resolve(): a link must not borrow its target's trust


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read() -> dict[str, str]:
    path = record()
    try:
        if path.exists() and not path.is_file():  # opening a named pipe would wait for its writer
            raise ConfigurationError(f"{path}: is no file: delete it, and trust projects again")
        with path.open("rb") as file:
            owner, mode = os.fstat(file.fileno()).st_uid, os.fstat(file.fileno()).st_mode
            data = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    # The rule of OpenSSH for its own files: a record that others can write would let them trust for the user. Windows
    # has no user ids, and its folders of a user are closed to other users.
    if hasattr(os, "geteuid") and (owner not in (os.geteuid(), 0) or mode & (stat.S_IWGRP | stat.S_IWOTH)):
        remedy = "delete it, and trust projects again"
        raise UntrustedConfig(f"{path}: other users can write it, so it proves nothing: {remedy}")
    try:
        known = json.loads(data)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{path}: not valid JSON: delete it, and trust projects again") from None
    if not isinstance(known, dict):
        raise ConfigurationError(f"{path}: expected an object: delete it, and trust projects again")
    return {place: digest for place, digest in known.items() if isinstance(digest, str)}


def _write(known: dict[str, str]) -> None:
    """Replace the record atomically. Only its owner can read it, whatever the umask."""
    path = record()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".trusted-")  # mkstemp sets mode 600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(known, file, indent=2, sort_keys=True)
            Path(name).replace(path)
        except BaseException:  # also on Ctrl-C: leave no partial file behind
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from None
