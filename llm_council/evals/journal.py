"""The journal of an evaluation: one JSON line for each finished cell, so that a killed evaluation can be resumed.

A cell is a draft of the pool, one run of an arm on a task, or the grade that a judge gives to a text. Each line is
written at once when its cell has finished: a process that is killed loses no finished cell. Lines are flushed to the
disk after each task. The last line of a killed process may be torn; it is dropped when the journal is opened again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

from llm_council.batch.line_file import LineFile
from llm_council.errors import ConfigurationError, InvalidOption
from llm_council.errors._secrets import may_hold_keys
from llm_council.models import Answer
from llm_council.models._attrs import strict_init
from llm_council.models._convert import dump, load
from llm_council.store._encoding import mask

__all__ = ["ArmCell", "Cell", "DraftCell", "EvalJournal", "GradeCell", "digest", "identities_of"]

FILE: Final = "journal.jsonl"
FORMAT: Final = 1


@strict_init
@attrs.frozen(kw_only=True)
class DraftCell:
    """One draft of the pool.

    Attributes:
        set: hash of the task set.
        item: id of the task.
        seat: name of the seat.
        identity: hash of the provider's identity and of the model, so that another seat of this name has another key;
            of seats with equal ones, the later ones add a number.
        prompt: hash of the request.
        sample: number of the draft, from 0.
        text: the answer; None after an error.
        structured: the answer as a JSON value, for drafts in the form of a schema.
        model: the model that answered.
        usd: what the call was billed; None if the price is unknown.
        input_tokens: tokens in, estimated where the provider reports none.
        output_tokens: tokens out, likewise.
        seconds: duration of the call in seconds.
        error: why there is no answer.
    """

    set: str
    item: str
    seat: str
    identity: str
    prompt: str
    sample: int
    text: str | None = None
    structured: Any = None
    model: str | None = None
    usd: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    error: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """The key that finds this cell again in another process."""
        return ("draft", self.set, self.item, self.identity, self.prompt, self.sample)

    @property
    def calls(self) -> int:
        """A draft is one call."""
        return 1


@strict_init
@attrs.frozen(kw_only=True)
class ArmCell:
    """One run of a called arm on a task.

    Attributes:
        set: hash of the task set.
        item: id of the task.
        arm: name of the arm.
        replicate: number of the run, from 0.
        plan: hash of what decides the run: the seats, the strategy with its options, and the drafts that it was given.
        status: status of the run: ``completed``, ``degraded``, ``abstained`` or ``failed``.
        answer: the final answer, as it was read; None if it cannot be read, or there is none.
        text: the final text.
        usd: what all calls of the arm were billed, the pooled drafts included; None if a price is unknown.
        new_usd: the part of ``usd`` that was spent on calls beside the pool.
        input_tokens: tokens in.
        output_tokens: tokens out.
        calls: number of calls.
        seconds: how long the run took, with each pooled draft as long as it took when it was drawn.
        overruled: True if the arm gave another answer than most drafts.
        error: why there is no answer.
    """

    set: str
    item: str
    arm: str
    replicate: int
    plan: str
    status: str
    answer: Answer | None = None
    text: str | None = None
    usd: float | None = None
    new_usd: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    seconds: float = 0.0
    overruled: bool | None = None
    error: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """The key that finds this cell again in another process."""
        return ("arm", self.set, self.item, self.arm, self.replicate, self.plan)


@strict_init
@attrs.frozen(kw_only=True)
class GradeCell:
    """What a judge says of one text.

    Attributes:
        set: hash of the task set.
        item: id of the task.
        judge: hash of the judge's provider, address, account and model.
        text: hash of the rubric and the text.
        sample: 0 for the grade that scores the text, 1 for the one by which the best of several is chosen.
        value: from 0 to 1; None if no reply could be read.
        usd: what the calls were billed; None if the price is unknown.
        input_tokens: tokens in.
        output_tokens: tokens out.
        calls: calls that it took.
        error: why there is no grade.
    """

    set: str
    item: str
    judge: str
    text: str
    sample: int
    value: float | None = None
    usd: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    error: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """The key that finds this cell again in another process."""
        return ("grade", self.set, self.item, self.judge, self.text, self.sample)


Cell: TypeAlias = DraftCell | ArmCell | GradeCell


_KINDS: Final[Mapping[type, str]] = {DraftCell: "draft", ArmCell: "arm", GradeCell: "grade"}


def digest(*parts: Any) -> str:
    """Return a short hash of JSON values, the same in every process."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def identities_of(seats: Iterable[tuple[str, Sequence[Any]]]) -> dict[str, str]:
    """Return the hash that identifies each seat; seats with equal facts, such as those of ``local:3``, differ too.

    Args:
        seats: the name of each seat, and facts that other seats of that name would not share.
    """
    found: dict[str, str] = {}
    for name, facts in seats:
        identity, number = digest(*facts), 1
        while identity in found.values():
            number += 1
            identity = digest(*facts, number)
        found[name] = identity
    return found


class EvalJournal:
    """The finished cells of an evaluation, in memory and in the file ``journal.jsonl`` of a folder.

    Args:
        folder: the folder; None keeps the cells in memory only.
        cells: finished cells, by key.
        header: what the evaluation was started with.

    Attributes:
        header: what the evaluation was started with, the last time.
        dropped: True if a torn last line was dropped.
    """

    def __init__(
        self,
        folder: Path | None = None,
        cells: Mapping[tuple[Any, ...], Cell] | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.header: dict[str, Any] = dict(header or {})
        self.dropped = False
        self._cells: dict[tuple[Any, ...], Cell] = dict(cells or {})
        self._file: LineFile | None = None

    @classmethod
    def read(cls, folder: Path) -> EvalJournal:
        """Return the journal of a folder, for reading only.

        Raises:
            InvalidOption: the folder has no journal, or a line is not a cell.
        """
        path = folder / FILE
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise InvalidOption(f"there is no journal at {path}: name the folder that --out named") from None
        except OSError as error:
            raise InvalidOption(f"{path}: {error.strerror or error}") from None
        whole, torn = _whole_lines(content)
        journal = cls(folder)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                journal._take(json.loads(line))
            except (ValueError, KeyError, TypeError, ConfigurationError) as error:
                raise InvalidOption(
                    f"{path}: line {number} is no cell of an evaluation ({error}): remove the line, or use another"
                    " folder"
                ) from None
        journal.dropped = torn
        return journal

    @classmethod
    def open(cls, folder: Path, *, resume: bool) -> EvalJournal:
        """Open the journal of a folder for writing, and make the folder if it does not exist.

        Args:
            folder: the folder.
            resume: use the cells of an earlier process; False refuses a folder that has some.

        Raises:
            InvalidOption: the folder has a journal and ``resume`` is False, an evaluation is still writing it, or it
                cannot be written.
        """
        path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            exists = path.exists() and path.stat().st_size > 0
        except OSError as error:
            raise InvalidOption(f"{folder}: {error.strerror or error}: name another folder") from None
        if exists and not resume:
            raise InvalidOption(
                f"{path} exists: pass resume=True (--resume) to go on with it, or name another folder for a new one"
            )
        busy = (
            f"{folder}: another evaluation is working in this folder: wait until it has ended, or name another folder"
        )
        file: LineFile | None = None
        try:
            file = LineFile(path, busy=busy)
            journal = cls.read(folder) if exists else cls(folder)
            if journal.dropped:
                whole, _ = _whole_lines(path.read_bytes())
                file.truncate(len(whole))
        except (OSError, InvalidOption) as error:
            if file is not None:
                file.close()
            if isinstance(error, InvalidOption):
                raise
            raise InvalidOption(f"{path}: {error.strerror or error}: name another folder") from None
        journal._file = file
        return journal

    def _take(self, value: dict[str, Any]) -> None:
        kind = value.pop("cell", None)
        if "council_eval_journal" in value:
            if value["council_eval_journal"] != FORMAT:
                raise ValueError(f"format {value['council_eval_journal']!r}")
            self.header = value
        elif kind == "draft":
            self._keep(_draft(value))
        elif kind == "arm":
            answer = value.pop("answer", None)
            self._keep(ArmCell(**value, answer=None if answer is None else load(Answer, answer)))
        elif kind == "grade":
            self._keep(GradeCell(**value))
        else:
            raise ValueError(f"unknown kind {kind!r:.40}")

    def _keep(self, cell: Cell) -> None:
        self._cells[cell.key] = cell

    def get(self, key: tuple[Any, ...]) -> Cell | None:
        """Return a finished cell; None if it has not finished."""
        return self._cells.get(key)

    def cells(self) -> Iterator[Cell]:
        """Yield all finished cells, in the order in which they finished."""
        yield from self._cells.values()

    def begin(self, header: Mapping[str, Any]) -> None:
        """Write what the evaluation is started with."""
        value = {"council_eval_journal": FORMAT, **header}
        if value != self.header:
            self.header = value
            self._write(value)

    def add(self, cell: Cell) -> None:
        """Write a finished cell."""
        self._keep(cell)
        if self._file is None:
            return
        value = {"cell": _KINDS[type(cell)]}
        for field in attrs.fields(type(cell)):
            item = getattr(cell, field.name)
            if item is not None:
                value[field.name] = dump(item)
        self._write(value)

    def _write(self, value: Any) -> None:
        if self._file is None:
            return
        line = json.dumps(value, separators=(",", ":"))
        if may_hold_keys(line):
            line = json.dumps(mask(value), separators=(",", ":"))
        self._file.append(line.encode())

    def flush(self) -> None:
        """Flush the written lines to the disk."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Flush and close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _draft(value: dict[str, Any]) -> DraftCell:
    return DraftCell(**value)


def _whole_lines(content: bytes) -> tuple[bytes, bool]:
    """Return the lines that end with a line break, and whether there was a torn one behind them."""
    end = content.rfind(b"\n") + 1
    return content[:end], end < len(content)
