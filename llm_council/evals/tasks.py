"""Tasks to evaluate on, and the files that hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import attrs

from llm_council.errors import ConfigurationError, InvalidOption, InvalidTaskSet
from llm_council.evals._layouts import Record, read_records
from llm_council.evals.scorers import Scorer, ScorerKind, field_paths, schema_of, score, target_problem
from llm_council.models import Message
from llm_council.models._attrs import as_dict, as_tuple, is_number, must_be, optional, strict_init, string
from llm_council.strategies._answer_form import AnswerForm, form_of

__all__ = ["EvalTask", "TaskSet", "example_tasks", "read_tasks"]

MOST_SHOWN = 3
"""Problems of a file that the message lists."""


def _input(value: Any) -> str | tuple[Message, ...]:
    if isinstance(value, str):
        if not value.strip():
            raise InvalidOption("input is empty: write the question")
        return value
    if not isinstance(value, list | tuple) or not value:
        raise InvalidOption(f"input: expected text, or a list of messages with role and content, got {value!r:.80}")
    return tuple(one if isinstance(one, Message) else _message(one) for one in value)


def _message(value: Any) -> Message:
    """Return a message of a task set: a role, and text or parts of text as inspect_ai and OpenAI write them."""
    role = value.get("role") if isinstance(value, Mapping) else None
    content = value.get("content") if isinstance(value, Mapping) else None
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise InvalidOption(f"input: a message has a role and content of text, got {value!r:.80}")
    return Message(role, content)


def _choices(value: Any) -> tuple[str, ...]:
    choices = as_tuple(value)
    if not all(isinstance(one, str) for one in choices):
        raise InvalidOption(f"choices: expected a list of texts, got {choices!r:.80}; put quotes around numbers")
    return choices


def _scorer(value: Scorer | str | Mapping[str, Any]) -> Scorer:
    return Scorer.of(value)


# No slots: the form is computed once.
@strict_init
@attrs.frozen(kw_only=True, slots=False)
class EvalTask:
    """A question with a target.

    Creating one raises ``InvalidOption`` if no answer could ever be scored against its target.

    Attributes:
        id: unique in its set.
        input: the question, as text or as a conversation.
        target: what the scorer compares an answer with; a list holds several accepted targets.
        choices: the texts to choose from; empty except for the scorer ``choice``, which needs two or more.
        scorer: how answers are scored; a name or a table becomes a ``Scorer``.
        metadata: anything else. Tasks with the same ``metadata["cluster"]`` are treated as one group by the statistics.
            Where a judge scores, ``metadata["labels"]`` may list answers that people graded, each a table with
            ``answer`` and a ``grade`` from 0 to 1, to find out how far the judge can be trusted.
    """

    id: str = attrs.field(validator=must_be("text that is not empty", lambda v: isinstance(v, str) and v.strip() != ""))
    input: str | tuple[Message, ...] = attrs.field(converter=_input)
    target: Any = None
    choices: tuple[str, ...] = attrs.field(default=(), converter=_choices)
    scorer: Scorer = attrs.field(converter=_scorer)
    metadata: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)

    def __attrs_post_init__(self) -> None:
        problem = target_problem(self.scorer, self.choices, self.target)
        if problem is not None:
            raise InvalidOption(problem)
        if self.is_judged:
            self.labels  # noqa: B018 - checked before anything is sent

    @property
    def cluster(self) -> str:
        """The group whose tasks are alike, such as questions on one text: ``metadata["cluster"]``, else the id."""
        cluster = self.metadata.get("cluster")
        return self.id if cluster is None else str(cluster)

    @property
    def is_judged(self) -> bool:
        """True if a judge scores the answers."""
        return self.scorer.kind == ScorerKind.JUDGE

    @property
    def labels(self) -> tuple[tuple[str, float], ...]:
        """Answers that people graded, with their grades from 0 to 1."""
        listed = self.metadata.get("labels") or ()
        wrong = InvalidOption(
            'metadata.labels: expected a list such as [{"answer": "...", "grade": 0.8}], with grades from 0 to 1, got'
            f" {listed!r:.80}"
        )
        if not isinstance(listed, list | tuple):
            raise wrong
        found = []
        for label in listed:
            if not isinstance(label, Mapping):
                raise wrong
            answer, grade = label.get("answer"), label.get("grade")
            if not isinstance(answer, str) or not answer.strip() or not isinstance(grade, int | float):
                raise wrong
            if not is_number(grade) or not 0 <= grade <= 1:
                raise wrong
            found.append((answer.strip(), float(grade)))
        return tuple(found)

    def known_score(self, text: str) -> float | None:
        """Return what the key of a judged task measures of a text; None if there is no key, or nothing to read."""
        if self.scorer.key is None:
            return None
        measured = attrs.evolve(self, scorer=self.scorer.key)
        return score(measured, text).value

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON Schema with which a council counts answers to this task; None for text."""
        return schema_of(self.scorer, self.choices, self.target)

    @property
    def vote_on(self) -> tuple[str, ...]:
        """The parts of a JSON answer that a council counts; empty for other kinds."""
        if self.scorer.kind != ScorerKind.FIELDS:
            return ()
        return tuple(f"$.{field.path}" for field in field_paths(self.scorer, self.target))

    @cached_property
    def form(self) -> AnswerForm:
        """How answers are asked for and read, by the strategies and by the scorer."""
        return form_of(self.schema, self.vote_on)

    @property
    def instruction(self) -> str:
        """What the question of a draft ends with, so that its answer can be read; empty where a judge reads it."""
        return "" if self.is_judged else self.form.instruction

    def to_dict(self) -> dict[str, Any]:
        """Return the task as the JSON object of one line of a task set."""
        question: Any = self.input
        if not isinstance(question, str):
            question = [{"role": message.role, "content": message.text} for message in question]
        table = {
            "id": self.id,
            "input": question,
            "choices": list(self.choices),
            "target": self.target,
            "scorer": self.scorer.to_dict(),
            "metadata": dict(self.metadata),
        }
        return {key: value for key, value in table.items() if value not in ([], {}, None)}


@strict_init
@attrs.frozen(kw_only=True)
class TaskSet:
    """Tasks that belong together.

    Attributes:
        name: its name; that of the file if it gives none.
        tasks: the tasks, one or more, with unique ids.
        sha256: hash of the lines of the file that hold tasks, as 64 hexadecimal digits.
        licence: the licence of the tasks; None if the file does not give it.
        source: where the tasks come from; None likewise.
    """

    name: str = attrs.field(validator=string)
    tasks: tuple[EvalTask, ...] = attrs.field(converter=as_tuple)
    sha256: str = attrs.field(validator=string)
    licence: str | None = attrs.field(default=None, validator=optional(string))
    source: str | None = attrs.field(default=None, validator=optional(string))

    def __attrs_post_init__(self) -> None:
        problems = _set_problems([(0, task) for task in self.tasks])
        if problems:
            raise InvalidTaskSet(problems[0][1], faults=problems)

    @property
    def clusters(self) -> int:
        """The number of clusters: groups of tasks that are alike."""
        return len({task.cluster for task in self.tasks})


def read_tasks(path: str | PathLike[str], *, scorer: Scorer | str | Mapping[str, Any] | None = None) -> TaskSet:
    """Read a task set and check all of it.

    The file holds JSON Lines with inspect_ai's fields of a Sample (``input``, ``target``, ``choices``, ``id``,
    ``metadata``) and ``scorer``, the samples that lm-eval logs with ``--log_samples``, or, if its name ends in
    ``.csv`` or ``.tsv``, a table whose first line names these fields. The first line of JSON Lines may be a header:
    ``{"council_eval": 1, "name": ..., "licence": ..., "source": ..., "scorer": ..., "sha256": ...}``.

    Args:
        path: the file, of at most 256 MB and 100,000 tasks.
        scorer: for tasks that name none; it replaces the header's. If neither is given, the scorer follows from the
            targets, which then must all be of one kind.

    Raises:
        InvalidTaskSet: the file cannot be read, or a line is wrong. The message names line and remedy, ``faults``
            has all of them.
    """
    file = Path(path)
    content = read_records(file)
    header = content.header
    problems = list(content.problems)
    default = scorer if scorer is not None else header.get("scorer")
    if default is None:
        problems += _scorer_problems(content.records)
    else:
        try:
            default = Scorer.of(default)
        except ConfigurationError as error:
            raise _invalid(file, [(0 if scorer is not None else 1, error.message)]) from None
    tasks: list[tuple[int, EvalTask]] = []
    for number, record in enumerate(content.records, start=1):
        try:
            tasks.append((record.line, _task(record, number, default)))
        except ConfigurationError as error:
            problems.append((record.line, error.message.removeprefix("EvalTask.")))
    problems += _set_problems(tasks)
    digest = hashlib.sha256(content.body).hexdigest()
    if header.get("sha256") not in (None, digest):
        problems.append((1, "the tasks are not those that the header's sha256 names: take the original, or remove it"))
    if problems:
        raise _invalid(file, problems)
    return TaskSet(
        name=str(header.get("name") or file.stem),
        tasks=tuple(task for _, task in tasks),
        sha256=digest,
        licence=_text(header.get("licence", header.get("license"))),
        source=_text(header.get("source")),
    )


def example_tasks() -> TaskSet:
    """Return the set that ships with the package: 352 questions in 88 clusters, whose answers code computed.

    Arithmetic, tables, programs, rates, seating, dates, schedules, knights and knaves, routes, letters and logs, of
    rising difficulty. The file is ``llm_council/evals/sets/reasoning.jsonl``, under this project's licence.
    """
    return read_tasks(Path(__file__).parent / "sets" / "reasoning.jsonl")


def _task(record: Record, number: int, default: Any) -> EvalTask:
    sample = record.sample
    unknown = sorted(set(sample) - {"id", "input", "target", "choices", "scorer", "metadata", *_OF_INSPECT})
    if "input" not in sample:
        has = ", ".join(map(str, sample)) or "nothing"
        raise InvalidOption(f"'input' is missing: name the field of the question so; the line has {has:.200}")
    chosen = sample.get("scorer") if sample.get("scorer") is not None else default
    metadata = as_dict(sample.get("metadata"))
    # A key beside the known ones is kept, as most data sets have some.
    metadata = {**{key: sample[key] for key in unknown}, **metadata}
    target = sample.get("target")
    choices = sample.get("choices") or ()
    return EvalTask(
        id=str(number) if sample.get("id") is None else str(sample["id"]),
        input=sample["input"],
        target=target,
        choices=choices,
        scorer=chosen if chosen is not None else _natural_scorer(choices, target),
        metadata=metadata,
    )


# Fields of an inspect_ai Sample that are ignored: they belong to tasks with tools.
_OF_INSPECT = frozenset({"sandbox", "files", "setup"})


def _natural_scorer(choices: Any, target: Any) -> Scorer:
    """Return the scorer that fits a task without one."""
    if choices:
        return Scorer(kind=ScorerKind.CHOICE)
    one = target[0] if isinstance(target, list) and target else target
    if isinstance(one, bool):
        return Scorer(kind=ScorerKind.BOOL)
    if isinstance(one, int | float):
        return Scorer(kind=ScorerKind.NUMBER)
    return Scorer(kind=ScorerKind.FIELDS if isinstance(one, dict) else ScorerKind.EXACT)


def _scorer_problems(records: Sequence[Record]) -> list[tuple[int, str]]:
    """Return the first line without a scorer where other lines have one, or whose target suggests another scorer."""
    silent = [record for record in records if record.sample.get("scorer") is None]
    if not silent:
        return []
    if len(silent) < len(records):
        problem = (
            "mixed scorers: this line has no 'scorer', and others have one: give every line one, or give the set one,"
            " with the header's 'scorer' or with scorer="
        )
        return [(silent[0].line, problem)]
    kinds = [_natural_scorer(record.sample.get("choices"), record.sample.get("target")).kind for record in records]
    for record, kind in zip(records, kinds, strict=True):
        if kind != kinds[0]:
            problem = (
                f"mixed scorers: the target looks like {kind!s}, and that of line {records[0].line} like {kinds[0]!s}:"
                " write a 'scorer' on every line"
            )
            return [(record.line, problem)]
    return []


def _set_problems(tasks: Sequence[tuple[int, EvalTask]]) -> list[tuple[int, str]]:
    """Return what is wrong with tasks together: none, two with one id, or judged and measured ones."""
    if not tasks:
        return []
    problems: list[tuple[int, str]] = []
    first: dict[str, int] = {}
    for line, task in tasks:
        if task.id in first:
            where = f"line {first[task.id]} has it, too" if line else "another task has it, too"
            problems.append((line, f"the id {task.id!r:.80} is not unique: {where}; write another one"))
        first.setdefault(task.id, line)
    judged = [line for line, task in tasks if task.scorer.kind == ScorerKind.JUDGE]
    if judged and len(judged) < len(tasks):
        problem = (
            "mixed scorers: this task is judged by a model, and others are measured, which no common figure can say:"
            " put the judged ones into a set of their own"
        )
        problems.append((judged[0], problem))
    return problems


def _invalid(file: Path, problems: Iterable[tuple[int, str]]) -> InvalidTaskSet:
    ordered = sorted(set(problems))
    shown = [f"{f'line {line}: ' if line else ''}{text}" for line, text in ordered[:MOST_SHOWN]]
    more = len(ordered) - MOST_SHOWN
    if more > 0:
        shown.append(f"and {more} more")
    return InvalidTaskSet(f"{file}: {'; '.join(shown)}", path=str(file), faults=ordered)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
