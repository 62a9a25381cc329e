"""Score an answer against the target of a task, from 0 to 1, with pure functions.

Answers are read with the reader of the strategies (``AnswerForm``), so a vote and its score see the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import attrs

from llm_council import _schema
from llm_council.errors import InvalidOption, InvalidOutput, near
from llm_council.models import Answer, AnswerKind
from llm_council.models._attrs import as_dict, boolean, is_number, must_be, non_negative, optional, strict_init, string
from llm_council.strategies._answer_form import (
    AnswerForm,
    form_of,
    part_of,
    read_number,
    same_words,
    words_key,
)

if TYPE_CHECKING:
    from llm_council.evals.tasks import EvalTask

__all__ = ["FieldPath", "Score", "Scorer", "ScorerKind", "read_answer", "schema_of", "score", "target_problem"]

_SHOWN = 200  # characters of a text that a judge scored, in a report


class ScorerKind(StrEnum):
    """How an answer is compared with the target."""

    EXACT = "exact"  # the same words, without case, punctuation and articles
    NUMBER = "number"  # equal within a tolerance
    CHOICE = "choice"  # one of the task's choices
    BOOL = "bool"  # yes or no
    REGEX = "regex"  # the target is a pattern
    FIELDS = "fields"  # parts of a JSON value
    CONTAINS = "contains"  # the target's words are in the answer, side by side
    JUDGE = "judge"  # a model says how good it is


def _path(value: Any) -> str:
    """Return a path such as ``$.items.0.price`` in one spelling: without ``$``, with dots alone."""
    path = re.sub(r"\[\s*(?:(\d+)|'([^']*)'|\"([^\"]*)\")\s*\]", _as_step, value) if isinstance(value, str) else ""
    path = path.strip().removeprefix("$").removeprefix(".")
    if not path or any(not step or step == "*" or "[" in step for step in path.split(".")):
        raise InvalidOption(
            f"a path names one part of a JSON value, such as '$.verdict' or '$.items[0].price', got {value!r:.80}"
        )
    return path


def _as_step(found: re.Match[str]) -> str:
    return "." + next(group for group in found.groups() if group is not None)


@strict_init
@attrs.frozen(kw_only=True)
class FieldPath:
    """A part of a JSON answer that is compared with the same part of the target.

    Attributes:
        path: such as ``$.verdict`` or ``$.items[0].price``; stored without ``$``, with dots.
        compare: ``"exact"`` or ``"number"``; None compares numbers as numbers, and all else as exact.
        rel: tolerance of a number as a share of the target.
        abs: absolute tolerance of a number. The larger one of both counts.
    """

    path: str = attrs.field(converter=_path)
    compare: str | None = attrs.field(
        default=None, validator=optional(must_be("'exact' or 'number'", lambda v: v in ("exact", "number")))
    )
    rel: float = attrs.field(default=1e-6, validator=non_negative)
    abs: float = attrs.field(default=0.0, validator=non_negative)

    @property
    def steps(self) -> tuple[str, ...]:
        """The keys and indices of the path."""
        return tuple(self.path.split("."))


def _field_paths(value: Any) -> tuple[FieldPath, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidOption(f"paths: expected a list of paths such as '$.verdict', got {value!r:.80}")
    return tuple(
        one if isinstance(one, FieldPath) else FieldPath(**one) if isinstance(one, Mapping) else FieldPath(path=one)
        for one in value
    )


def _units(value: Any) -> dict[str, float]:
    units: dict[Any, Any] = as_dict(value)
    if not all(isinstance(name, str) and name and is_number(factor) and factor for name, factor in units.items()):
        raise InvalidOption(f"units: expected units with their factors, such as {{'m': 1, 'km': 1000}}, got {units!r}")
    return units


def _kind(value: Any) -> ScorerKind:
    if value not in list(ScorerKind):
        known = [str(kind) for kind in ScorerKind]
        remedy = near(str(value), known)
        raise InvalidOption(f"there is no scorer {value!r:.80}{remedy}; the scorers are {', '.join(known)}")
    return ScorerKind(value)


_KEY_IS_JUDGE = "scorer judge: key is a judge, too: name one that measures, such as 'contains'"


def _key(spec: Any) -> Scorer | None:
    if spec == ScorerKind.JUDGE:  # by its name alone, it would be refused for want of a rubric
        raise InvalidOption(_KEY_IS_JUDGE)
    return None if spec is None else Scorer.of(spec)


@strict_init
@attrs.frozen(kw_only=True)
class Scorer:
    """How the answers to a task are scored.

    Attributes:
        kind: what is compared; the other attributes each belong to one kind.
        rel: ``number``: tolerance as a share of the target.
        abs: ``number``: absolute tolerance. The larger one of both counts.
        units: ``number``: unit -> factor, such as ``{"m": 1, "km": 1000}``; the target is in the unit with the factor
        1.
        full: ``regex``: the pattern must match the whole answer, not a part of it.
        paths: ``fields``: the parts that are compared; empty takes all keys of the target.
        whole: ``fields``: True scores 1 if all parts are right, else 0; False scores the share of right parts.
        schema: ``fields``: JSON Schema of the answer; None takes an object with the keys and types of the target.
        rubric: ``judge``: what makes an answer good.
        key: ``judge``: a scorer that measures the answer as well, by the target, to find out how far the judge can be
            trusted. It may not be a judge.
    """

    kind: ScorerKind = attrs.field(converter=_kind)
    rel: float = attrs.field(default=1e-6, validator=non_negative)
    abs: float = attrs.field(default=0.0, validator=non_negative)
    units: Mapping[str, float] = attrs.field(factory=dict, converter=_units)
    full: bool = attrs.field(default=False, validator=boolean)
    paths: tuple[FieldPath, ...] = attrs.field(default=(), converter=_field_paths)
    whole: bool = attrs.field(default=False, validator=boolean)
    schema: Mapping[str, Any] | None = attrs.field(default=None, converter=attrs.converters.optional(as_dict))
    rubric: str | None = attrs.field(default=None, validator=optional(string))
    key: Scorer | None = attrs.field(default=None, converter=_key)

    def __attrs_post_init__(self) -> None:
        defaults = {field.name: field for field in attrs.fields(type(self))}
        for name, kind in _OWNERS.items():
            default = defaults[name].default
            value = getattr(self, name)
            unset = not value if isinstance(default, attrs.Factory) else value == default  # type: ignore[arg-type]
            if self.kind != kind and not unset:
                raise InvalidOption(f"scorer {self.kind}: {name} belongs to the scorer {kind}: leave it out")
        if self.kind == ScorerKind.JUDGE and not (self.rubric or "").strip():
            raise InvalidOption("scorer judge: rubric is missing: say what makes an answer good")
        if self.key is not None and self.key.kind == ScorerKind.JUDGE:
            raise InvalidOption(_KEY_IS_JUDGE)
        if self.schema is not None:
            _schema.compile(self.schema)

    @classmethod
    def of(cls, spec: Scorer | str | Mapping[str, Any]) -> Scorer:
        """Return the scorer that a task set names: a kind, or a table with ``kind`` and its options.

        Raises:
            InvalidOption: it is neither; the message names the remedy.
        """
        if isinstance(spec, cls):
            return spec
        if isinstance(spec, str):
            return cls(kind=spec)
        if isinstance(spec, Mapping):
            if "kind" not in spec:
                raise InvalidOption(f"scorer: 'kind' is missing; one of {', '.join(ScorerKind)}")
            return cls(**spec)
        if isinstance(spec, list | tuple):
            raise InvalidOption("scorer: a task has one scorer, not a list: split the task in two, with two ids")
        raise InvalidOption(f"scorer: expected a name or a table with 'kind', got {spec!r:.80}")

    def to_dict(self) -> dict[str, Any]:
        """Return the table of a task set that names this scorer."""
        table = attrs.asdict(self, filter=lambda field, value: field.name == "kind" or value != _default(field))
        key = {} if self.key is None else {"key": self.key.to_dict()}
        return {**table, "kind": str(self.kind), **key}


_OWNERS = {
    "rel": ScorerKind.NUMBER,
    "abs": ScorerKind.NUMBER,
    "units": ScorerKind.NUMBER,
    "full": ScorerKind.REGEX,
    "paths": ScorerKind.FIELDS,
    "whole": ScorerKind.FIELDS,
    "schema": ScorerKind.FIELDS,
    "rubric": ScorerKind.JUDGE,
    "key": ScorerKind.JUDGE,
}


def _default(field: attrs.Attribute[Any]) -> Any:
    return {} if isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]


@strict_init
@attrs.frozen(kw_only=True)
class Score:
    """The score of an answer.

    Attributes:
        value: from 0 to 1; None if the answer cannot be read, which counts as wrong.
        answer: the answer as it was read; None if it cannot be.
        valid: ``fields`` alone: whether the JSON value meets the schema; None if there is no JSON value.
    """

    value: float | None = None
    answer: Answer | None = None
    valid: bool | None = None

    @property
    def points(self) -> float:
        """The value; 0 for an answer that cannot be read."""
        return self.value or 0.0


def schema_of(scorer: Scorer, choices: Sequence[str], target: Any) -> dict[str, Any] | None:
    """Return the JSON Schema with which a council counts the answers to a task; None for text.

    Of the target, it reveals only keys and types.
    """
    match scorer.kind:
        case ScorerKind.CHOICE:
            return {"type": "string", "enum": list(choices)}
        case ScorerKind.NUMBER:
            return {"type": "number", "units": dict(scorer.units)} if scorer.units else {"type": "number"}
        case ScorerKind.BOOL:
            return {"type": "boolean"}
        case ScorerKind.FIELDS:
            return dict(scorer.schema) if scorer.schema is not None else _shape(target)
    return None


def _shape(value: Any) -> dict[str, Any]:
    """Return a schema with the keys and types of a JSON value, but without its values."""
    if isinstance(value, Mapping):
        properties = {str(key): _shape(part) for key, part in value.items()}
        return {"type": "object", "properties": properties, "required": list(properties)}
    if isinstance(value, list | tuple):
        shapes = [_shape(part) for part in value]
        return (
            {"type": "array", "items": shapes[0]}
            if shapes and shapes.count(shapes[0]) == len(shapes)
            else {"type": "array"}
        )
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int | float):
        return {"type": "number"}
    return {"type": "string"} if isinstance(value, str) else {}


def read_answer(task: EvalTask, given: Any) -> Answer | None:
    """Return the answer in a model's text, or in the value of a run's output; None if it cannot be read.

    Where a judge scores, the whole text is the answer.
    """
    if given is None or isinstance(given, Answer):
        return given
    if task.scorer.kind == ScorerKind.JUDGE:
        text = _schema.drop_thinking(str(given)).strip()
        shown = " ".join(text.split())
        return Answer(kind=AnswerKind.TEXT, value=text, key=text, shown=f"{shown:.{_SHOWN}}") if text else None
    form = task.form
    if isinstance(given, str):
        return form.read_text(given)
    if form.schema is not None and not _schema.compile(form.schema).accepts(given):
        return None
    return form.answer_of(given)


def score(task: EvalTask, given: Any) -> Score:
    """Score an answer to a task.

    Args:
        task: the task. Its scorer must not be ``judge``, which needs a model.
        given: the text of a model, the value that a run returned (``result.output``), or an ``Answer`` of either.

    Returns:
        The score; its value is None if the answer cannot be read.

    Raises:
        InvalidOption: the scorer of the task is ``judge``.
    """
    scorer = task.scorer
    if scorer.kind == ScorerKind.JUDGE:
        raise InvalidOption(
            f"task {task.id!r}: its scorer is a judge, which is a model: use grade_request and read_grade of"
            " llm_council.evals.judging"
        )
    answer = read_answer(task, given)
    if answer is None:
        return Score(valid=_is_valid_json(task.form, given) if scorer.kind == ScorerKind.FIELDS else None)
    points = _points(scorer, task.choices, task.target, answer.value)
    return Score(value=points, answer=answer, valid=True if scorer.kind == ScorerKind.FIELDS else None)


def _points(scorer: Scorer, choices: Sequence[str], target: Any, value: Any) -> float:
    targets = target if isinstance(target, list | tuple) else [target]
    match scorer.kind:
        case ScorerKind.EXACT:
            return float(words_key(str(value)) in {words_key(str(one)) for one in targets})
        case ScorerKind.CONTAINS:
            return float(any(same_words(str(value), str(one)) for one in targets))
        case ScorerKind.REGEX:
            return float(any(_pattern(str(one), full=scorer.full).accepts(str(value)) for one in targets))
        case ScorerKind.CHOICE:
            return float(value == choices[_choice_index(choices, targets[0])])
        case ScorerKind.BOOL:
            return float(value is _as_bool(targets[0]))
        case ScorerKind.NUMBER:
            wanted = [_as_number(one, scorer.units) for one in targets]
            return float(any(_is_close(value, one, scorer.rel, scorer.abs) for one in wanted if one is not None))
    right = [_is_right(field, value, target) for field in field_paths(scorer, target)]
    return float(all(right)) if scorer.whole else sum(right) / len(right)


def field_paths(scorer: Scorer, target: Any) -> tuple[FieldPath, ...]:
    """Return the parts of a JSON answer that are compared: those of the scorer, else all keys of the target."""
    return scorer.paths or tuple(FieldPath(path=str(key)) for key in target)


def _is_right(field: FieldPath, value: Any, target: Any) -> bool:
    given, wanted = part_of(value, field.steps), part_of(target, field.steps)
    if field.compare == "number" or (field.compare is None and is_number(wanted)):
        number, goal = _as_number(given), _as_number(wanted)
        return number is not None and goal is not None and _is_close(number, goal, field.rel, field.abs)
    if isinstance(given, str) and isinstance(wanted, str):
        return words_key(given) == words_key(wanted) if words_key(wanted) else given.strip() == wanted.strip()
    return type(given) is type(wanted) and bool(given == wanted)


def _is_valid_json(form: AnswerForm, given: Any) -> bool | None:
    """Return False for an answer that is JSON and does not meet the schema; None for one that is no JSON."""
    if not isinstance(given, str):
        return None if given is None else False
    try:
        _schema.extract_json(_schema.drop_thinking(given))
    except InvalidOutput:
        return None
    return False


def _is_close(value: Any, target: float, rel: float, absolute: float) -> bool:
    return is_number(value) and abs(value - target) <= max(rel * abs(target), absolute)


def _as_number(value: Any, units: Mapping[str, float] | None = None) -> int | float | None:
    """Return a number, or the number that the last line of a text holds; None if there is none."""
    if isinstance(value, str):
        return read_number((value.strip().splitlines() or [""])[-1], units or {})
    return value if is_number(value) else None


def _as_bool(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    answer = AnswerForm(kind=AnswerKind.BOOL).read_text(value) if isinstance(value, str) else None
    return None if answer is None else bool(answer.value)


def _choice_index(choices: Sequence[str], target: Any) -> int:
    """Return the index of the right choice: its text, its letter, or its index from 0.

    Raises:
        InvalidOption: it is none of these, or may be two of them.
    """
    found = {index for index, choice in enumerate(choices) if choice == target}
    if isinstance(target, str) and re.fullmatch(r"[A-Z]", target.strip()):
        found.add(ord(target.strip()) - ord("A"))
    elif not found and isinstance(target, str) and target.strip().isdecimal():
        found.add(int(target))
    elif isinstance(target, int) and not isinstance(target, bool):
        found.add(target)
    if not found and isinstance(target, str) and words_key(target):
        found = {index for index, choice in enumerate(choices) if words_key(choice) == words_key(target)}
    if len(found) > 1:
        raise InvalidOption(
            f"target {target!r:.40} is the letter of one choice and the text of another: write the text"
        )
    index = next(iter(found), -1)
    if not 0 <= index < len(choices):
        raise InvalidOption(
            f"target {target!r:.80} is none of the {len(choices)} choices: write a choice's text, its letter (A is the"
            " first), or its index (0 is the first)"
        )
    return index


@lru_cache(maxsize=256)
def _pattern(pattern: str, *, full: bool) -> _schema.Validator:
    """Return a pattern that is compiled to take linear time, or a bounded number of steps with look-around.

    The engine is that of JSON Schema's ``pattern``. A bound in steps, unlike one in seconds, gives the same score on a
    slow machine. Python's ``re`` has none, and may take years for a short text.
    """
    return _schema.compile({"type": "string", "pattern": rf"^(?:{pattern})$" if full else pattern})


def target_problem(scorer: Scorer, choices: Sequence[str], target: Any) -> str | None:
    """Return why no answer could ever be scored against a target, with the remedy; None if it can be."""
    try:
        return _target_problem(scorer, choices, target)
    except InvalidOption as error:
        return error.message


def _target_problem(scorer: Scorer, choices: Sequence[str], target: Any) -> str | None:
    kind = scorer.kind
    if kind == ScorerKind.JUDGE:
        return None if scorer.key is None else _target_problem(scorer.key, choices, target)
    if target is None or target == "" or target == []:
        return f"target is missing: the scorer {kind} compares with it"
    targets = target if isinstance(target, list) else [target]
    if kind == ScorerKind.CHOICE:
        return _choice_problem(choices, targets)
    if kind == ScorerKind.FIELDS:
        return _fields_problem(scorer, target)
    if choices:
        return f"the task has choices, and the scorer {kind} does not read them: use 'choice', or leave them out"
    if kind == ScorerKind.BOOL and (len(targets) > 1 or _as_bool(targets[0]) is None):
        return f"target {target!r:.80} is neither true nor false, as the scorer bool needs it: write true or false"
    if kind == ScorerKind.NUMBER:
        bad = [one for one in targets if _as_number(one, scorer.units) is None]
        return f"target {bad[0]!r:.80} is no number, as the scorer number needs it: write the digits" if bad else None
    if kind in (ScorerKind.EXACT, ScorerKind.CONTAINS):
        bad = [one for one in targets if isinstance(one, bool | dict | list) or not words_key(str(one))]
        return f"target {bad[0]!r:.80} has no words: use the scorer regex, or another target" if bad else None
    if kind == ScorerKind.REGEX:
        return _pattern_problem(scorer, targets)
    return None


def _choice_problem(choices: Sequence[str], targets: Sequence[Any]) -> str | None:
    if len(choices) < 2:
        return "the scorer choice needs 'choices': a list of two or more texts"
    keys = [words_key(choice) for choice in choices]
    if not all(keys) or len(set(keys)) < len(keys):
        return "two choices are the same without case, punctuation and articles, or have no words: tell them apart"
    if len(targets) != 1:
        return f"the scorer choice takes one target, got {len(targets)}: leave one, or ask for a list with 'fields'"
    _choice_index(choices, targets[0])
    return None


def _fields_problem(scorer: Scorer, target: Any) -> str | None:
    if not isinstance(target, dict) or not target:
        return f'target {target!r:.80} is no JSON object, as the scorer fields needs it: write {{"key": value}}'
    for field in field_paths(scorer, target):
        wanted = part_of(target, field.steps)
        if wanted is None and not _has(target, field.steps):
            return f"target has no ${'.' + field.path}: add it, or leave the path out of the scorer"
        if field.compare == "number" and _as_number(wanted) is None:
            return f"target ${'.' + field.path} is no number: {wanted!r:.80}; write the digits, or compare 'exact'"
    schema = schema_of(scorer, (), target) or {}
    problems = _schema.compile(schema).problems(target)
    if problems:
        return f"target does not meet the scorer's schema: {problems[0].path}: {problems[0].message}"
    form_of(schema, ["$." + field.path for field in field_paths(scorer, target)])
    return None


def _has(value: Any, steps: Sequence[str]) -> bool:
    """Return True if a JSON value has a part at a path, be it null."""
    parent = part_of(value, steps[:-1])
    if isinstance(parent, list):
        return steps[-1].isdecimal() and int(steps[-1]) < len(parent)
    return isinstance(parent, Mapping) and steps[-1] in parent


def _pattern_problem(scorer: Scorer, targets: Sequence[Any]) -> str | None:
    for one in targets:
        if not isinstance(one, str):
            return f"target {one!r:.80} is no pattern: write a regular expression as text"
        try:
            _pattern(one, full=scorer.full)
        except InvalidOption:
            return f"target {one!r:.80} is no regular expression that this scorer reads: see its syntax in the guide"
    return None
