"""The file of results: one JSON object a line, written when its run ends, and read again by a restart."""

from __future__ import annotations

import json
import os
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

__all__ = ["Finished", "ResultFile", "result_line", "result_values"]

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
    return {"id": name, **values}


def result_line(values: Mapping[str, Any]) -> bytes:
    """Return a line of results without its end, with secrets masked; the id is left as it is."""
    line = json.dumps(values, ensure_ascii=False)
    if may_hold_keys(json.dumps(values)):
        line = json.dumps({**mask(dict(values)), "id": values["id"]}, ensure_ascii=False)
    return line.encode("utf-8", "replace")


class ResultFile:
    """The results of a batch. A killed process leaves whole lines, and at most one torn one, which is cut off here.

    Each line is written at once when its run ends, and flushed to the disk with those of a second. No other process can
    open the file meanwhile.

    Args:
        path: the file; created if it does not exist, readable by its owner alone.

    Attributes:
        finished: the tasks that have a line, by id; of several lines with one id, the last.
        torn: True if a torn last line was cut off.

    Raises:
        InvalidOption: the file holds something else, cannot be read and written, or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.finished: dict[str, Finished] = {}
        self.torn = False
        self._count = 0
        self._flushed = time.monotonic()
        self._file = self._open(path)
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def add(self, values: Mapping[str, Any]) -> None:
        """Write a line of results.

        Raises:
            OSError: it cannot be written; the file is as before.
        """
        self._file.append(result_line(values))
        self._note(values)
        now = time.monotonic()
        if now - self._flushed >= FLUSH_INTERVAL:
            self._file.flush()
            self._flushed = now

    def drop_failed(self) -> int:
        """Replace the file by one without the lines of failed runs; return how many there were.

        A process that is killed meanwhile leaves the old file.
        """
        names = {name for name, entry in self.finished.items() if entry.status == Status.FAILED}
        if not names:
            return 0
        beside = self.path.with_name(f".{self.path.name}.new")
        beside.unlink(missing_ok=True)
        new = self._open(beside)
        try:
            with self.path.open("rb") as old:
                for line in old:
                    if json.loads(line)["id"] not in names:
                        new.append(line.removesuffix(b"\n"))
            new.flush()
            os.replace(beside, self.path)  # noqa: PTH105
        except BaseException:
            new.close()
            beside.unlink(missing_ok=True)
            raise
        self._file.close()
        self._file = new
        self.finished = {}
        self._read()
        return len(names)

    def close(self) -> None:
        """Write all lines to the disk, and close the file."""
        self._file.close()

    def _open(self, path: Path) -> LineFile:
        busy = f"{path}: another process is writing these results: wait until it has ended, or name another file"
        try:
            return LineFile(path, busy=busy)
        except OSError as error:
            raise InvalidOption(f"{path}: {error.strerror or error}: name another file") from None

    def _read(self) -> None:
        self._count = 0
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    self._mend(line, end)
                    return
                self._take(line)
                end += len(line)

    def _take(self, line: bytes) -> None:
        values = _values(line)
        if values is None:
            raise self._foreign(self._count + 1)
        self._note(values)

    def _mend(self, rest: bytes, end: int) -> None:
        """Complete a last line without its end, or cut it off if it is torn."""
        values = _values(rest)
        # Where the machine ended, not only the process, the disk may hold zeros in place of the last pieces.
        start = rest.rstrip(b"\0")[: len(_BEGINNING)]
        if values is None and not _BEGINNING.startswith(start):
            raise self._foreign(self._count + 1)
        self._file.truncate(end)
        if values is None:
            self.torn = True
        else:
            self._file.append(rest)
            self._note(values)

    def _note(self, values: Mapping[str, Any]) -> None:
        self._count += 1
        usd = (values.get("cost") or {}).get("usd")
        entry = Finished(self._count, values["run_id"], str(values["status"]), usd)
        self.finished[values["id"]] = entry

    def _foreign(self, number: int) -> InvalidOption:
        return InvalidOption(
            f"{self.path}: line {number} is no result of `council batch`: name another file for the results"
        )


def _values(line: bytes) -> dict[str, Any] | None:
    """Return the values of a line; None if it is no line of results."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if not isinstance(values, dict) or not all(isinstance(values.get(key), str) for key in ("id", "run_id", "status")):
        return None
    return values
