"""Fetch weights from the Hugging Face hub, or from a server that answers like it.

The hub's own client, ``huggingface_hub``, downloads a file into its own cache; its variables for endpoint, cache, token
and time limits apply. The first pull of a model records the commit and the hash of its file. Later pulls ask for that
commit, and every use compares the file with that hash, unless size and time of change are those of the last check.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from llm_council.errors import CommandFailed, MissingDependency
from llm_council.errors._secrets import clean

__all__ = ["PullRecord", "fetch", "installed", "read_record", "verify"]

ATTEMPTS = 3
"""Downloads until a pull gives up. Within each, the client goes on after a broken connection."""

STALE_SECONDS = 60.0
"""Seconds without a change after which an incomplete download of a repository was left by a killed program."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

Say = Callable[[str], None]


@attrs.frozen(kw_only=True)
class PullRecord:
    """What is known about a pulled file; stored as JSON beside the fetched weights.

    Attributes:
        repository: the hub's repository.
        file: the file's name there.
        revision: the commit of the first pull.
        sha256: the hash of the file at the first pull, in hexadecimal.
        size_bytes: its size.
        path: where the client stored it.
        changed_ns: its time of change when its hash was last computed, in nanoseconds.
    """

    repository: str
    file: str
    revision: str
    sha256: str
    size_bytes: int
    path: str
    changed_ns: int


def installed() -> None:
    """Check that the hub's client is installed, without importing it.

    Raises:
        MissingDependency: it is not.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingDependency(
            "models are fetched with the hub's client: pip install 'llm-council-sdk[local]'", provider="local"
        )


def read_record(row: Mapping[str, Any], folder: Path) -> PullRecord | None:
    """Return the record of a model's first pull; None if it was never pulled, or from another place.

    Args:
        row: the model's row in the table.
        folder: the folder of fetched weights.
    """
    try:
        record = PullRecord(**json.loads(_record_path(row, folder).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return record if (record.repository, record.file) == (row["repository"], row["file"]) else None


def verify(row: Mapping[str, Any], folder: Path, *, again: bool = False) -> None:
    """Check that a pulled file is the one of the first pull.

    Args:
        row: the model's row in the table.
        folder: the folder of fetched weights.
        again: compute the hash even if size and time of change are those of the last check.

    Raises:
        CommandFailed: it has another hash.
    """
    record = read_record(row, folder)
    if record is None:
        return
    path = Path(record.path)
    facts = path.stat()
    if not again and (facts.st_size, facts.st_mtime_ns) == (record.size_bytes, record.changed_ns):
        return
    digest = _hash(path)
    if digest != record.sha256:
        raise CommandFailed(
            f"{path} was changed: its hash is {digest}, that of the first pull was {record.sha256}; delete the file,"
            f" then run: council models pull {row['name']}",
            provider="local",
        )
    _write_record(row, folder, attrs.evolve(record, changed_ns=facts.st_mtime_ns))


def fetch(row: Mapping[str, Any], folder: Path, progress: Callable[[int, int], None], say: Say) -> PullRecord:
    """Download a model's file, check it, and record it; the caller holds the model's lock.

    Args:
        row: the model's row in the table.
        folder: the folder of fetched weights, which holds the records.
        progress: called with the bytes that have arrived and the size of the file.
        say: called with sentences for people.

    Raises:
        MissingDependency: the hub's client is not installed.
        CommandFailed: the hub cannot be reached or does not have the file, or the file is not the expected one.
    """
    installed()
    earlier = read_record(row, folder)
    marker = folder / f".pulling-{row['name']}"
    if marker.exists():
        say(f"an earlier pull of {row['name']} was interrupted; the file starts again")
    marker.touch(mode=0o600)
    path, revision = _download(row, earlier.revision if earlier else None, progress, say)
    say("checking the hash")
    record = _checked(row, folder, path, revision, earlier)
    _write_record(row, folder, record)
    marker.unlink(missing_ok=True)
    _remove_stale(path)
    return record


def _download(
    row: Mapping[str, Any], revision: str | None, progress: Callable[[int, int], None], say: Say
) -> tuple[Path, str]:
    """Return the path of the downloaded file and its commit."""
    import huggingface_hub

    # The client reads its variables when it is imported; a program may set them later.
    wanted: dict[str, Any] = {"endpoint": os.environ.get("HF_ENDPOINT") or None, "cache_dir": _cache_folder()}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            facts = huggingface_hub.hf_hub_download(
                row["repository"], row["file"], revision=revision, dry_run=True, **wanted
            )
            size = facts.file_size or row["size_bytes"]
            progress(0, size)
            path = huggingface_hub.hf_hub_download(
                row["repository"],
                row["file"],
                revision=facts.commit_hash,
                tqdm_class=_bar_class(progress, size),
                **wanted,
            )
            progress(size, size)
            return Path(path).absolute(), facts.commit_hash
        # Beside its own errors, the client raises those of the HTTP library that its version uses.
        except Exception as error:
            if attempt == ATTEMPTS or not _may_pass(error):
                raise _failure(row, error) from error
            say(f"the download broke ({_first_line(error)}); the file starts again")
    raise AssertionError  # the last attempt returns or raises


def _may_pass(error: Exception) -> bool:
    """Return True for an error of the network while the file was arriving."""
    from huggingface_hub import errors

    lasting = (errors.HfHubHTTPError, errors.EntryNotFoundError, errors.OfflineModeIsEnabled, errors.HFValidationError)
    return not isinstance(error, (*lasting, OSError))


def _failure(row: Mapping[str, Any], error: Exception) -> CommandFailed:
    from huggingface_hub import errors

    place = f"{row['repository']} on {os.environ.get('HF_ENDPOINT') or 'the hub'}"
    if isinstance(error, errors.GatedRepoError):
        reason = f"{place} wants an account that accepted its terms; set HF_TOKEN"
    elif isinstance(error, errors.RepositoryNotFoundError):
        reason = f"there is no repository {place}"
    elif isinstance(error, errors.RevisionNotFoundError):
        reason = f"{place} does not have the commit of the first pull any more"
    elif isinstance(error, errors.LocalEntryNotFoundError):
        reason = f"{place} cannot be reached; check the network, HTTPS_PROXY and HF_ENDPOINT"
    elif isinstance(error, errors.EntryNotFoundError):
        reason = f"{place} has no file {row['file']}"
    else:
        reason = f"{type(error).__name__}: {_first_line(error)}"
    return CommandFailed(f"{row['name']} could not be fetched: {reason}", provider="local")


def _first_line(error: Exception) -> str:
    return clean((str(error).strip().splitlines() or ["no reason given"])[0], limit=200)


def _checked(row: Mapping[str, Any], folder: Path, path: Path, revision: str, earlier: PullRecord | None) -> PullRecord:
    """Return the record of a downloaded file; remove the file if it is not the expected one."""
    blob = path.resolve()
    digest = _hash(blob)
    problem = None
    with blob.open("rb") as file:
        if file.read(4) != b"GGUF":
            problem = "it is not a GGUF file"
    # The client names large files in its cache by the hash that the hub gave for them.
    if _SHA256.fullmatch(blob.name) and blob.name != digest:
        problem = f"its hash is {digest}, and the hub's is {blob.name}"
    if earlier is not None and digest != earlier.sha256:
        problem = (
            f"its hash is {digest}, that of the first pull was {earlier.sha256}; if that is meant to be so, delete "
            f"{_record_path(row, folder)}"
        )
    if problem is not None:
        path.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
        raise CommandFailed(f"{row['name']} was fetched and removed again: {problem}", provider="local")
    facts = blob.stat()
    return PullRecord(
        repository=row["repository"],
        file=row["file"],
        revision=revision,
        sha256=digest,
        size_bytes=facts.st_size,
        path=str(path),
        changed_ns=facts.st_mtime_ns,
    )


def _bar_class(progress: Callable[[int, int], None], size: int) -> type[Any]:
    """Return a class of progress bars for the client; they print nothing, and call ``progress``."""

    class Bar:
        def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
            self.n = initial

        def update(self, count: float | None = 1) -> None:
            self.n += int(count or 0)
            progress(min(self.n, size), size)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def __getattr__(self, name: str) -> Any:  # what else a bar can do, such as ``set_postfix``
            if name == "update_transfer":  # the client asks whether a bar has it
                raise AttributeError(name)
            return lambda *_, **__: None

    return Bar


def _cache_folder() -> str | None:
    """Return the client's cache as the variables name it now; None for the client's default."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return folder
    home = os.environ.get("HF_HOME")
    return str(Path(home) / "hub") if home else None


def _record_path(row: Mapping[str, Any], folder: Path) -> Path:
    return folder / f"{row['name']}.json"


def _write_record(row: Mapping[str, Any], folder: Path, record: PullRecord) -> None:
    target = _record_path(row, folder)
    part = target.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(attrs.asdict(record), indent=2) + "\n", encoding="utf-8")
    part.replace(target)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_stale(path: Path) -> None:
    """Remove what killed downloads left of this repository: the client uses a new name each time."""
    limit = time.time() - STALE_SECONDS
    for left_over in path.resolve().parent.glob("*.incomplete"):
        if left_over.stat().st_mtime < limit:
            left_over.unlink(missing_ok=True)
