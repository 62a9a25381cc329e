"""Validating answers: the library does it; here it is bounded, and its findings become ``Problem``s."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from llm_council._schema.extract import extract_json
from llm_council._schema.plain import WRAPPER, json_path, plain_schema
from llm_council.errors import InvalidOption, InvalidOutput, near
from llm_council.errors._secrets import clean
from llm_council.models.deliberation import Problem

if TYPE_CHECKING:
    import jsonschema_rs

__all__ = ["MAX_PROBLEMS", "Answer", "Validator", "compile"]

MAX_PROBLEMS = 20
"""Problems told of one answer: a repair prompt holds no more."""

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

_NAMELESS = "this value"  # stands for the value in messages: a model's text is not for us to repeat


@attrs.frozen(kw_only=True)
class Answer:
    """What was read out of a model's text.

    Attributes:
        value: the JSON value; None when there is none.
        problems: what is wrong with it; empty for an answer that meets its schema.
        found: whether the text held a JSON value at all.
    """

    value: Any = None
    problems: tuple[Problem, ...] = ()
    found: bool = True


@attrs.frozen(kw_only=True, eq=False)
class Validator:
    """A compiled schema: immutable, and safe to share between threads and runs."""

    _compiled: jsonschema_rs.Validator = attrs.field(repr=False, alias="compiled")

    def accepts(self, value: Any) -> bool:
        """Tell whether a value meets the schema."""
        try:
            return self._compiled.is_valid(value)
        except ValueError:  # not a JSON value
            return False

    def problems(self, value: Any) -> tuple[Problem, ...]:
        """Say what is wrong with a value: at most ``MAX_PROBLEMS``, ordered by path; nothing for a valid one."""
        try:
            errors = list(islice(self._compiled.iter_errors(value), MAX_PROBLEMS))
        except ValueError:
            return (Problem(path="$", message="not a JSON value"),)
        found = {(json_path(error.instance_path), clean(error.message, limit=400)) for error in errors}
        return tuple(Problem(path=path, message=message) for path, message in sorted(found))

    def read(self, text: str) -> Answer:
        """Find the answer in a model's text and validate it; never raises.

        Of several JSON values one that meets the schema is preferred. Two habits that come from projected schemas are
        undone where the schema itself does not take them: the one-key wrapper around an answer that is not an object,
        and null for a property that may be left out.
        """
        try:
            value = extract_json(text, accepts=lambda value: self.accepts(self._adapted(value))).value
        except InvalidOutput as failure:
            return Answer(problems=failure.problems, found=False)
        value = self._adapted(value)
        return Answer(value=value, problems=self.problems(value))

    def _adapted(self, value: Any) -> Any:
        """Return the value with the habits of projected schemas undone, as far as that helps."""
        errors = self._errors(value)
        if errors and isinstance(value, dict) and value.keys() == {WRAPPER} and any(not path for path in errors):
            value = value[WRAPPER]
            errors = self._errors(value)
        for path in dict.fromkeys(map(tuple, errors)):
            if path and isinstance(path[-1], str) and _at(value, path) is None:
                without = deepcopy(value)
                del _at(without, path[:-1])[path[-1]]
                if len(self._errors(without)) < len(errors):
                    value, errors = without, self._errors(without)
        return value

    def _errors(self, value: Any) -> list[list[str | int]]:
        """Return the path of each error, the whole's for what is not a JSON value."""
        try:
            return [list(error.instance_path) for error in islice(self._compiled.iter_errors(value), MAX_PROBLEMS)]
        except ValueError:
            return [[]]


def compile(schema: Mapping[str, Any]) -> Validator:  # noqa: A001 - as in re.compile
    """Compile a JSON Schema, checking it against its meta-schema; the last 128 are kept.

    Args:
        schema: any draft from 4 on; 2020-12 where ``$schema`` names none. Only references within it are followed.

    Returns:
        The validator.

    Raises:
        InvalidOption: it is not a JSON Schema, points outside itself, or is too deep or too large; names the path.
    """
    plain = plain_schema(schema)
    try:
        text = json.dumps(plain, allow_nan=False)
    except ValueError:
        raise InvalidOption("the schema holds NaN or an infinity, which JSON has no word for") from None
    return _compiled(text)


@lru_cache(maxsize=128)
def _compiled(text: str) -> Validator:
    import jsonschema_rs  # by the first schema: a council is made without it

    # Plain patterns run in linear time; look-around and back-references backtrack: cut off after some milliseconds.
    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000, size_limit=1 << 20, dfa_size_limit=1 << 20)
    try:
        engine = jsonschema_rs.validator_for(
            json.loads(text), retriever=_refuse, pattern_options=patterns, mask=_NAMELESS
        )
    except jsonschema_rs.ValidationError as error:
        path, found = list(error.instance_path), error.instance
        said = error.message
        if path and path[-1] == "type" and isinstance(found, str):
            said = f"there is no type {found!r:.80}{near(found, _TYPES)}"
        raise InvalidOption(f"not a JSON Schema: {json_path(path)}: {said}") from None
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise InvalidOption(f"not a JSON Schema: {error}") from None
    return Validator(compiled=engine)


def _refuse(uri: str) -> NoReturn:
    raise ValueError("references are not fetched; put what it names under $defs")


def _at(value: Any, path: Iterable[Any]) -> Any:
    for part in path:
        value = value[part]
    return value
