"""The file of results: one JSON object a line, written when its run ends, and read again by a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from llm_council.batch.line_file import LineFile
from llm_council.errors import InvalidOption
from llm_council.errors._secrets import may_hold_keys
from llm_council.models import Status
from llm_council.results import CouncilResult
from llm_council.store._encoding import mask

__all__ = ["Contents", "Finished", "ResultFile", "read_results", "result_line", "result_values"]

FLUSH_INTERVAL: Final = 1.0
"""Seconds between two flushes to the disk: the end of the machine costs at most the lines of this time."""

_BEGINNING: Final = b'{"id": "'

_COMPACT: Final = (
    "task",
    "status",
    "success",
    "output",
    "text",
    "agreement",
    "error",
    "warnings",
    "cost",
    "usage",
    "duration",
    "run_id",
    "metadata",
)
"""The keys of a compact line, behind ``id``: those of ``CouncilResult.to_dict``."""

_COMPACT_ERROR: Final = ("type", "message")


@attrs.frozen
class Finished:
    """A task that has a line in the file of results.

    Attributes:
        line: number of the line.
        run_id: id of the run.
        status: status of the run.
        usd: what the run cost in US dollars; None if unknown.
    """

    line: int
    run_id: str
    status: str
    usd: float | None


def result_values(name: str, result: CouncilResult[Any], *, full: bool) -> dict[str, Any]:
    """Return what a line of results holds.

    Args:
        name: the id of the task.
        result: its result.
        full: True for all of the result, drafts, calls and plan included.
    """
    values = result.to_dict()
    if not full:
        values = {key: values[key] for key in _COMPACT}
        if values["error"] is not None:
            values["error"] = {key: values["error"][key] for key in _COMPACT_ERROR}
    return {"id": name, **values}


def result_line(values: Mapping[str, Any]) -> bytes:
    """Return a line of results without its end, with secrets masked; the id is left as it is."""
    line = json.dumps(values, ensure_ascii=False)
    if may_hold_keys(json.dumps(values)):
        line = json.dumps({**mask(dict(values)), "id": values["id"]}, ensure_ascii=False)
    return line.encode("utf-8", "replace")


@attrs.define
class Contents:
    """What a file of results holds.

    Attributes:
        finished: the tasks that have a line, by id; of several lines with one id, the last.
        whole: bytes of the whole lines.
        rest: bytes of a last line without its end.
        lines: number of the whole lines.
    """

    finished: dict[str, Finished] = attrs.field(factory=dict)
    whole: int = 0
    rest: bytes = b""
    lines: int = 0

    def add(self, values: Mapping[str, Any]) -> None:
        """Count the values of one more line."""
        self.lines += 1
        usd = (values.get("cost") or {}).get("usd")
        self.finished[values["id"]] = Finished(self.lines, values["run_id"], str(values["status"]), usd)


def read_results(path: Path) -> Contents:
    """Return what a file of results holds; nothing if it does not exist. Nothing is changed.

    Raises:
        InvalidOption: the file holds something else, or cannot be read.
    """
    found = Contents()
    try:
        with path.open("rb") as file:
            for line in file:
                values = _values(line)
                if not line.endswith(b"\n"):
                    found.rest = line
                    # Where the machine ended, not only the process, the disk may hold zeros for the last pieces.
                    start = line.rstrip(b"\0")[: len(_BEGINNING)]
                    if values is None and not _BEGINNING.startswith(start):
                        raise _foreign(path, found.lines + 1)
                elif values is None:
                    raise _foreign(path, found.lines + 1)
                else:
                    found.add(values)
                    found.whole += len(line)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InvalidOption(f"{path}: {error.strerror or error}: name another file") from None
    return found


class ResultFile:
    """The results of a batch. A killed process leaves whole lines, and at most one torn one, which is cut off here.

    Each line is written at once when its run ends, and flushed to the disk with those of a second. No other process can
    open the file meanwhile.

    Args:
        path: the file; created if it does not exist, readable by its owner alone.

    Attributes:
        torn: True if a torn last line was cut off.

    Raises:
        InvalidOption: the file holds something else, cannot be read and written, or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = False
        self._contents = Contents()
        self._is_new = not path.exists()
        self._flushed = time.monotonic()
        self._file = _open(path)
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    @property
    def finished(self) -> Mapping[str, Finished]:
        """The tasks that have a line, by id."""
        return self._contents.finished

    def add(self, values: Mapping[str, Any]) -> None:
        """Write a line of results.

        Raises:
            OSError: it cannot be written; the file is as before.
        """
        self._file.append(result_line(values))
        self._contents.add(values)
        now = time.monotonic()
        if now - self._flushed >= FLUSH_INTERVAL:
            self._file.flush()
            self._flushed = now

    def drop_failed(self) -> int:
        """Replace the file by one without the lines of failed runs; return how many there were.

        A process that is killed meanwhile leaves the old file.

        Raises:
            OSError: the new file cannot be written; the old one stays.
        """
        names = {name for name, entry in self.finished.items() if entry.status == Status.FAILED}
        if not names:
            return 0
        beside = self.path.with_name(f".{self.path.name}.new")
        beside.unlink(missing_ok=True)
        new = _open(beside)
        try:
            with self.path.open("rb") as old:
                for line in old:
                    if json.loads(line)["id"] not in names:
                        new.append(line.removesuffix(b"\n"))
            new.flush()
            beside.replace(self.path)
        except BaseException:
            new.close()
            beside.unlink(missing_ok=True)
            raise
        self._file.close()
        self._file = new
        self._read()
        return len(names)

    def close(self) -> None:
        """Write all lines to the disk, and close the file. One that was created and got no line is removed."""
        if self._is_new and not self._contents.lines:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def _read(self) -> None:
        found = self._contents = read_results(self.path)
        if not found.rest:
            return
        self._file.truncate(found.whole)
        values = _values(found.rest)
        if values is None:
            self.torn = True
        else:  # only its end is missing
            self._file.append(found.rest)
            found.add(values)


def _open(path: Path) -> LineFile:
    busy = f"{path}: another process is writing these results: wait until it has ended, or name another file"
    try:
        return LineFile(path, busy=busy)
    except OSError as error:
        raise InvalidOption(f"{path}: {error.strerror or error}: name another file") from None


def _foreign(path: Path, number: int) -> InvalidOption:
    return InvalidOption(f"{path}: line {number} is no result of `council batch`: name another file for the results")


def _values(line: bytes) -> dict[str, Any] | None:
    """Return the values of a line; None if it is no line of results."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if not isinstance(values, dict) or not all(isinstance(values.get(key), str) for key in ("id", "run_id")):
        return None
    return values if values.get("status") in set(Status) else None
