"""Files of tasks: each line is checked and gets an id, by which a restart finds it again."""

from __future__ import annotations

import hashlib
import heapq
import io
import json
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

from llm_council.batch.lines import Line, json_lines, table_lines
from llm_council.batch.parquet import parquet_lines
from llm_council.errors import ConfigurationError, InvalidOption, InvalidTaskSet, near

__all__ = ["FileTask", "Scan", "TaskFile", "digest"]

MAX_PIPED: Final = 256 * 1024 * 1024
"""Bytes of tasks that come through a pipe: they are held in memory."""

_KNOWN: Final = ("id", "task", "input", "subagent", "context", "files", "metadata")
_JSON_CELLS: Final = ("files", "metadata")
_LONGEST_ID: Final = 256


def digest(value: Any, length: int = 16) -> str:
    """Return a hash of a JSON value in hexadecimal digits, the same in every process."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


@attrs.frozen(kw_only=True)
class FileTask:
    """A task of a file.

    Attributes:
        line: number of its line.
        id: its id: that of the line, else a hash of the line. Equal lines without an id get different ones.
        key: hash of the id and of all that is asked.
        task: the task.
        subagent: the subagent that the line names; None for that of the command.
        context: further text for every seat.
        files: names of files for every seat.
        metadata: the other fields of the line.
    """

    line: int
    id: str
    key: str
    task: str
    subagent: str | None = None
    context: str | None = None
    files: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Scan:
    """What a file of tasks holds.

    Attributes:
        tasks: number of tasks that can be run.
        problems: lines that cannot, each with what is wrong.
        hints: what else the author of the file may want to know.
    """

    tasks: int
    problems: tuple[tuple[int, str], ...] = ()
    hints: tuple[str, ...] = ()


class TaskFile:
    """A file of tasks, read line by line as often as needed: JSON Lines, a table (.csv, .tsv) or Parquet (.parquet).

    A line is an object with the field ``task`` (or ``input``), and optionally ``id``, ``subagent``,
    ``context``, ``files`` and ``metadata``. Other fields become part of ``metadata``. A line of JSON may also be the
    text of the task alone.

    Args:
        path: the file; a pipe is read to its end at once.
        piped: the content, if it has been read already.
        check: called with each task; a ``ConfigurationError`` that it raises is the problem of the line.

    Raises:
        InvalidTaskSet: the file cannot be read, or is of another kind.
    """

    def __init__(
        self, path: str, piped: bytes | None = None, *, check: Callable[[FileTask], object] | None = None
    ) -> None:
        self._check = check
        self.name = path if piped is None else "standard input"
        self._path = Path(path)
        self._content = piped if piped is not None else self._read_pipe()
        self._kind = "" if piped is not None else self._path.suffix.lower()
        self.unit = "row" if self._kind == ".parquet" else "line"

    def lines(self) -> Iterator[Line]:
        """Yield the lines as they are in the file, unchecked."""
        try:
            yield from self._lines()
        except OSError as error:
            raise self._refused(f"it cannot be read ({error.strerror or error}): check the path") from None

    def tasks(self) -> Iterator[FileTask | Line]:
        """Yield the task of each line, or the line with its problem."""
        copies = Counter[str]()
        first: dict[str, int] = {}
        for line in self.lines():
            if line.problem is not None:
                yield line
                continue
            try:
                task = self._task(line, copies)
                if self._check is not None:
                    self._check(task)
            except ConfigurationError as error:
                yield Line(line.number, problem=error.message)
                continue
            if task.id in first:
                where = f"{self.unit} {first[task.id]} has it, too"
                yield Line(line.number, problem=f"the id {task.id!r:.80} is not unique: {where}; write another one")
                continue
            first[task.id] = line.number
            yield task

    def scan(self, visit: Callable[[FileTask], object] | None = None) -> Scan:
        """Read the whole file, and return what it holds.

        Args:
            visit: called with each task; what it raises ends the reading.

        Raises:
            InvalidTaskSet: it holds no line at all.
        """
        count = 0
        problems: list[tuple[int, str]] = []
        extra: dict[str, None] = {}
        for task in self.tasks():
            if isinstance(task, Line):
                problems.append((task.number, task.problem or ""))
            else:
                count += 1
                extra.update(dict.fromkeys(task.metadata))
                if visit is not None:
                    visit(task)
        if not count and not problems:
            raise self._refused('it holds no task: write one JSON object a line, such as {"id": "a", "task": "..."}')
        hints = ((name, near(name, _KNOWN)) for name in extra)
        return Scan(
            tasks=count,
            problems=tuple(problems),
            hints=tuple(
                f"the field {name!r:.80} is not sent, but copied into the results{hint}" for name, hint in hints if hint
            ),
        )

    def sample(self, size: int, seed: str) -> frozenset[str]:
        """Return the ids of a random sample: the same ones for the same seed, and among those of any larger sample.

        Args:
            size: number of tasks; all if the file has fewer.
            seed: decides which.
        """
        ids = (task.id for task in self.tasks() if isinstance(task, FileTask))
        return frozenset(heapq.nsmallest(size, ids, key=lambda name: digest([seed, name], 64)))

    def _read_pipe(self) -> bytes | None:
        """Return the content of what can be read only once; None for a file."""
        try:
            mode = self._path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise self._refused("it is a folder: name one file of it")
            if stat.S_ISREG(mode):
                with self._path.open("rb"):
                    return None
            with self._path.open("rb") as file:
                content = file.read(MAX_PIPED + 1)
        except OSError as error:
            raise self._refused(f"it cannot be read ({error.strerror or error}): check the path") from None
        if len(content) > MAX_PIPED:
            raise self._refused(f"more than {MAX_PIPED:,} bytes come through a pipe: write them to a file first")
        return content

    def _lines(self) -> Iterator[Line]:
        if self._kind == ".parquet":
            yield from parquet_lines(self._path if self._content is None else io.BytesIO(self._content), self.name)
            return
        with self._opened() as file:
            start = file.read(4096)
            file.seek(0)
            if self._kind in (".csv", ".tsv"):
                yield from self._table(file)
            elif start.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise self._refused("it is not UTF-8: save the file as UTF-8")
            elif start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
                raise self._refused("it is one JSON list: write JSON Lines, one object a line (jq -c '.[]' does so)")
            else:
                yield from json_lines(file)

    def _opened(self) -> AbstractContextManager[BinaryIO]:
        if self._content is None:
            return self._path.open("rb")
        return nullcontext(io.BytesIO(self._content))

    def _table(self, file: BinaryIO) -> Iterator[Line]:
        # A byte that is not UTF-8 becomes a lone surrogate, by which the row is found.
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            names, rows = table_lines(text, "\t" if self._kind == ".tsv" else ",")
            if any("\udc80" <= character <= "\udcff" for name in names for character in name):
                raise self._refused("it is not UTF-8: save the file as UTF-8")
            if names and not {"task", "input"} & set(names):
                raise self._refused(
                    f"line 1: it names the columns, and 'task' is not there: {', '.join(names):.200}; name the column"
                    " of the question so"
                )
            yield from rows
        except ValueError as error:
            raise self._refused(str(error)) from None
        finally:
            text.detach()

    def _task(self, line: Line, copies: Counter[str]) -> FileTask:
        """Return the task of a line; ``copies`` counts equal lines without an id."""
        fields = {"task": line.value} if isinstance(line.value, str) else line.value
        if not isinstance(fields, dict):
            raise InvalidOption(f'expected a JSON object such as {{"id": "a", "task": "..."}}, got {line.value!s:.60}')
        if self._kind in (".csv", ".tsv"):
            fields = {name: _cell(name, cell) for name, cell in fields.items()}
        fields = {name: value for name, value in fields.items() if value is not None}
        words = [name for name in ("task", "input") if name in fields]
        if len(words) != 1:
            has = ", ".join(map(str, fields)) or "nothing"
            raise InvalidOption(
                "it has both 'task' and 'input': leave one out"
                if words
                else f"'task' is missing: name the field of the question so; the {self.unit} has {has:.200}"
            )
        question = fields[words[0]]
        if not isinstance(question, str) or not question.strip():
            raise InvalidOption(f"{words[0]}: expected text that is not empty, got {question!r:.80}")
        asked: dict[str, Any] = {"task": question}
        for name in ("subagent", "context"):
            asked[name] = _text(name, fields.get(name))
        asked["files"] = _paths(fields.get("files"))
        metadata = {name: value for name, value in fields.items() if name not in _KNOWN}
        metadata |= _metadata(fields.get("metadata"))
        name = _given_id(fields["id"]) if "id" in fields else _derived_id(fields, copies)
        return FileTask(line=line.number, id=name, key=digest([name, asked]), **asked, metadata=metadata)

    def _refused(self, problem: str) -> InvalidTaskSet:
        return InvalidTaskSet(f"{self.name}: {problem}", path=self.name, faults=[(0, problem)])


def _cell(name: str, cell: str) -> Any:
    text = cell.strip()
    if name in _JSON_CELLS and text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise InvalidOption(f"{name}: not JSON: {error}") from None
    return cell


def _derived_id(fields: Mapping[str, Any], copies: Counter[str]) -> str:
    """Return the id of a line without one: it stays the same when other lines are added or moved."""
    name = digest(fields, 12)
    copies[name] += 1
    return name if copies[name] == 1 else f"{name}-{copies[name]}"


def _given_id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidOption(f"id: expected text or a whole number, got {value!r:.80}")
    name = str(value)
    if not name.strip() or len(name) > _LONGEST_ID:
        raise InvalidOption(f"id: expected text of 1 to {_LONGEST_ID} characters, got {name!r:.80}")
    if any("\ud800" <= character <= "\udfff" for character in name):  # it could not be written into the results
        raise InvalidOption(f"id: it holds half of a surrogate pair, got {name!r:.80}: write another one")
    return name


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidOption(f"{name}: expected text, got {value!r:.80}")
    return value


def _metadata(value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise InvalidOption(f"metadata: expected a JSON object, got {value!r:.80}")
    return value or {}


def _paths(value: Any) -> tuple[str, ...]:
    paths = [value] if isinstance(value, str) else value or []
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise InvalidOption(f"files: expected a list of paths, got {value!r:.80}")
    return tuple(paths)
