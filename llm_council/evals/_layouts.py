"""The layouts of files with tasks: JSON Lines, the samples that lm-eval logs, tables with a header."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from llm_council.batch.lines import parse_json, table_lines
from llm_council.errors import InvalidTaskSet
from llm_council.models._lenient_json import STRICT
from llm_council.strategies._answer_form import read_number

__all__ = ["Content", "Record", "read_records"]

MAX_BYTES = 256 * 1024 * 1024
MAX_TASKS = 100_000

HEADER = "council_eval"
"""The key that makes the first line a header; its value is the version of the layout."""

_COLUMNS = ("id", "input", "target", "choices", "scorer", "metadata")


@attrs.frozen
class Record:
    """A task as it is in the file, with inspect_ai's names of fields.

    Attributes:
        line: number of its first line, from 1.
        sample: its fields.
    """

    line: int
    sample: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Content:
    """What a file holds.

    Attributes:
        header: the first line, if it is a header.
        records: the tasks.
        body: the bytes of the file that hold tasks.
        problems: lines that cannot be read, each with what is wrong.
    """

    header: Mapping[str, Any]
    records: tuple[Record, ...]
    body: bytes
    problems: tuple[tuple[int, str], ...] = ()


def read_records(file: Path) -> Content:
    """Return the tasks of a file, unchecked.

    Raises:
        InvalidTaskSet: the file cannot be opened, is empty, too large, or no table of tasks at all.
    """
    data = _read_bytes(file)
    is_table = file.suffix.lower() in (".csv", ".tsv")
    content = _read_table(file, data) if is_table else _read_json_lines(file, data)
    if not content.records and not content.problems:
        raise _refused(file, "the file holds no task: write one JSON object a line, with input, target and scorer")
    if len(content.records) > MAX_TASKS:
        raise _refused(
            file, f"{len(content.records):,} tasks are more than {MAX_TASKS:,}: take a sample, or split the file"
        )
    return content


def _read_bytes(file: Path) -> bytes:
    try:
        if file.is_dir():
            raise _refused(file, "it is a folder: name one file of it")
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise _refused(file, f"{size:,} bytes are more than {MAX_BYTES:,}: take a sample, or split the file")
        return file.read_bytes()
    except OSError as error:
        raise _refused(file, f"it cannot be read ({error.strerror}): check the path") from None


def _read_json_lines(file: Path, data: bytes) -> Content:
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0  # a byte order mark
    if data[start:].lstrip()[:1] == b"[":
        raise _refused(file, "it is one JSON list: write JSON Lines, one object a line (jq -c '.[]' does so)")
    header: Mapping[str, Any] = {}
    body = start
    records: list[Record] = []
    problems: list[tuple[int, str]] = []
    seen: set[str] = set()
    end = start
    for number, line in enumerate(data[start:].split(b"\n"), start=1):
        end += len(line) + 1
        if not line.strip():
            continue
        found = _parse_line(line)
        if isinstance(found, str):
            problems.append((number, found))
        elif HEADER in found:
            if records or problems or header:
                problems.append((number, "a header can only be the first line: move it, or remove it"))
            elif found[HEADER] != 1:
                problems.append((number, f"version {found[HEADER]!r:.40} of the layout is unknown: this one reads 1"))
            header, body = found, end
        elif _is_of_lm_eval(found):
            # A sample is logged once for each filter; its question is the same.
            if str(found["doc_id"]) in seen and "filter" in found:
                continue
            seen.add(str(found["doc_id"]))
            sample = _of_lm_eval(found)
            if isinstance(sample, str):
                problems.append((number, sample))
            else:
                records.append(Record(number, sample))
        else:
            records.append(Record(number, found))
    return Content(header=header, records=tuple(records), body=data[body:], problems=tuple(problems))


def _parse_line(line: bytes) -> dict[str, Any] | str:
    """Return the object on a line, or what is wrong with the line."""
    try:
        value = parse_json(line)
    except ValueError as error:
        return str(error)
    if not isinstance(value, dict):
        return f'expected a JSON object such as {{"input": ..., "target": ...}}, got {value!s:.60}'
    return value


def _is_of_lm_eval(found: Mapping[str, Any]) -> bool:
    return "input" not in found and "doc_id" in found and "arguments" in found


def _of_lm_eval(found: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return the fields of a task of a sample that lm-eval logged, or what is wrong with it.

    Written by ``EvaluationTracker.save_results_samples`` of lm-evaluation-harness (``lm_eval/loggers``): ``arguments``
    is a list of lists in older versions, ``{"gen_args_0": {"arg_0": ..., "arg_1": ...}}`` in newer ones. One request
    with a table of settings asks for a text; several with one context each weigh a continuation, which is a choice.
    """
    requests = _requests(found["arguments"])
    if not requests or not all(isinstance(request[0], str) for request in requests):
        return "'arguments' holds no prompt: log the samples again with lm-eval --log_samples"
    contexts = {request[0] for request in requests}
    question = _conversation(requests[0][0])
    sample = {"id": str(found["doc_id"]), "input": question, "metadata": {"doc": found.get("doc")}}
    target = found.get("target")
    if len(requests) == 1:
        # The target of GSM8K is a solution that ends with "#### 18".
        if isinstance(target, str) and "####" in target:
            target = read_number(target.rpartition("####")[2])
        return {**sample, "target": target}
    if len(contexts) > 1 or not all(len(request) > 1 and isinstance(request[1], str) for request in requests):
        return "its options have different contexts, which no question with choices has: leave such samples out"
    return {**sample, "choices": [request[1].strip() for request in requests], "target": target}


def _requests(arguments: Any) -> list[list[Any]]:
    if isinstance(arguments, Mapping):
        arguments = [list(one.values()) if isinstance(one, Mapping) else one for one in arguments.values()]
    if not isinstance(arguments, list):
        return []
    # A chat's context is a list around one text of JSON.
    requests = [one for one in arguments if isinstance(one, list) and one]
    return [[one[0][0] if isinstance(one[0], list) and one[0] else one[0], *one[1:]] for one in requests]


def _conversation(context: str) -> Any:
    """Return the messages of a chat that is logged as JSON; any other context as it is."""
    if context.lstrip().startswith("[{"):
        try:
            return STRICT.decode(context)
        except ValueError:
            pass
    return context


def _read_table(file: Path, data: bytes) -> Content:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _refused(file, "it is not UTF-8: save the file as UTF-8", line=line) from None
    try:
        names, rows = table_lines(io.StringIO(text, newline=""), "\t" if file.suffix.lower() == ".tsv" else ",")
    except ValueError as error:
        raise _refused(file, str(error)) from None
    if names and "input" not in names:
        raise _refused(
            file, f"the first line names the columns, and 'input' is not there: {', '.join(names):.200}", line=1
        )
    records: list[Record] = []
    problems: list[tuple[int, str]] = []
    for row in rows:
        if row.problem is not None:
            problems.append((row.number, row.problem))
            continue
        found = {name: _cell(name, cell) for name, cell in row.value.items()}
        cluster = {"cluster": found.pop("cluster")} if "cluster" in found else {}
        metadata = found.get("metadata", {})
        if isinstance(metadata, dict):
            found["metadata"] = {**cluster, **metadata}
        records.append(Record(row.number, {"input": "", **found}))
    return Content(header={}, records=tuple(records), body=data, problems=tuple(problems))


def _cell(name: str, cell: str) -> Any:
    """Return the value of a cell: lists and objects are JSON; choices may also be written ``iron | pear``."""
    if name not in _COLUMNS or name in ("id", "input"):
        return cell
    text = cell.strip()
    if text[:1] in "[{":
        try:
            return STRICT.decode(text)
        except ValueError:
            return cell
    if name == "choices":
        return [choice.strip() for choice in text.split("|")]
    return cell if name == "target" else text


def _refused(file: Path, problem: str, *, line: int = 0) -> InvalidTaskSet:
    where = f"line {line}: " if line else ""
    return InvalidTaskSet(f"{file}: {where}{problem}", path=str(file), faults=[(line, problem)])
