"""Copy, compile and apply JSON Schemas; ``jsonschema_rs`` validates, with bounds on its work and on its messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from llm_council._schema.extract import extract_json
from llm_council.errors import InvalidOption, InvalidOutput, near
from llm_council.errors._secrets import clean
from llm_council.models._attrs import mask_secrets
from llm_council.models.deliberation import Problem

if TYPE_CHECKING:
    import jsonschema_rs

    from llm_council._schema.project import Projection

__all__ = ["MAX_PROBLEMS", "WRAPPER", "Answer", "Validator", "compile", "compile_plain", "json_path", "plain_schema"]

MAX_DEPTH = 64
"""Maximum levels of nesting in a schema."""

MAX_NODES = 20_000
"""Maximum number of values in a schema."""

MAX_PROBLEMS = 20
"""Maximum number of problems reported for an answer, which bounds the repair prompt."""

WRAPPER = "value"
"""The only key of the object around an answer that is not an object, for dialects that require an object."""

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

# Replaces the value in messages: they go into repair prompts, where a model's text could act as an instruction.
_MASKED_VALUE = "this value"


@attrs.frozen(kw_only=True)
class Answer:
    """The answer that was read from a model's text.

    Attributes:
        value: the JSON value; None if the text contains none.
        problems: why the value is not valid; empty for a valid answer.
        found: True if the text contains a JSON value.
    """

    value: Any = None
    problems: tuple[Problem, ...] = ()
    found: bool = True


@attrs.frozen(kw_only=True, eq=False)
class Validator:
    """A compiled schema: immutable, and safe to share between threads and runs."""

    _compiled: jsonschema_rs.Validator = attrs.field(repr=False, alias="compiled")
    _text: str = attrs.field(repr=False, alias="text")  # the schema

    def accepts(self, value: Any) -> bool:
        """Return True if a value is valid."""
        try:
            return self._compiled.is_valid(value)
        except ValueError:  # not a JSON value
            return False

    def problems(self, value: Any) -> tuple[Problem, ...]:
        """Return the problems of a value, at most ``MAX_PROBLEMS`` and ordered by path; none for a valid value."""
        try:
            errors = list(islice(self._compiled.iter_errors(value), MAX_PROBLEMS))
        except ValueError:
            return (Problem(path="$", message="not a JSON value"),)
        found = {(json_path(error.instance_path), clean(error.message, limit=400)) for error in errors}
        return tuple(Problem(path=path, message=message) for path, message in sorted(found))

    def read(self, text: str) -> Answer:
        """Find the answer in a model's text and validate it; never raises.

        Of several JSON values, a valid one is preferred. A model that was given a projected schema may wrap an answer
        that is not an object, and may write null for an optional property; so do models that have the schema in their
        prompt. Both are undone in an answer that is not valid otherwise.
        """
        try:
            value = extract_json(text, accepts=lambda value: self.accepts(self._restored(value))).value
        except InvalidOutput as failure:
            return Answer(problems=failure.problems, found=False)
        value = mask_secrets(self._restored(value))  # the text may hold a key in escapes, such as "\\u0073k-..."
        return Answer(value=value, problems=self.problems(value))

    def without_additions(self, value: Any) -> Any:
        """Return a value, which may be incomplete, without the wrapper and the nulls of a projected schema."""
        return _reading_of(self._text).restore(value)

    def _restored(self, value: Any) -> Any:
        """Return a valid value as it is; another one as it was before any projection, if it is not worse then."""
        if self.accepts(value):
            return value
        restored = self.without_additions(value)
        if restored is value or len(self.problems(restored)) > len(self.problems(value)):
            return value
        return restored


def compile(schema: Mapping[str, Any]) -> Validator:  # noqa: A001 - as in re.compile
    """Compile a JSON Schema and check it against its meta-schema; the last 128 are cached.

    Args:
        schema: a schema of draft 4 or later; without ``$schema``, of draft 2020-12. References to other documents are
            not followed.

    Returns:
        The validator.

    Raises:
        InvalidOption: the value is not a JSON Schema, refers to another document, or is too deep or too large. The
            message names the path.
    """
    return compile_plain(plain_schema(schema))


def compile_plain(schema: Mapping[str, Any]) -> Validator:
    """Compile what ``plain_schema`` returned; see ``compile``."""
    try:
        text = json.dumps(schema, allow_nan=False)
    except ValueError:
        raise InvalidOption("the schema contains NaN or an infinity, which JSON cannot represent") from None
    return _compile_text(text)


@lru_cache(maxsize=128)
def _compile_text(text: str) -> Validator:
    import jsonschema_rs  # on first use: most programs that import the package use no schema

    # Patterns without look-around and back-references run in linear time. The others backtrack, so they get a limit,
    # which is reached after a few milliseconds.
    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000, size_limit=1 << 20, dfa_size_limit=1 << 20)
    try:
        compiled = jsonschema_rs.validator_for(
            json.loads(text), retriever=_refuse_reference, pattern_options=patterns, mask=_MASKED_VALUE
        )
    except jsonschema_rs.ValidationError as error:
        path, value, message = list(error.instance_path), error.instance, error.message
        if path and path[-1] == "type" and isinstance(value, str):
            message = f"there is no type {value!r:.80}{near(value, _TYPES)}"
        raise InvalidOption(f"not a JSON Schema: {json_path(path)}: {message}") from None
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise InvalidOption(f"not a JSON Schema: {error}") from None
    return Validator(compiled=compiled, text=text)


@lru_cache(maxsize=128)
def _reading_of(text: str) -> Projection:
    """Return the projection whose inverse reads the answers of any vendor: optional properties may be null."""
    from llm_council._schema.project import project_strict  # it compiles the branches of unions with this module
    from llm_council._schema.subsets import ANY

    return project_strict(json.loads(text), ANY)


def _refuse_reference(uri: str) -> NoReturn:
    raise ValueError("references are not fetched; copy the schema that the reference names into $defs")


def plain_schema(schema: object) -> dict[str, Any]:
    """Return a copy of a schema that consists of dicts and lists of its own.

    Raises:
        InvalidOption: the schema contains a value that is not JSON, or is too deep or too large. The message names the
            path.
    """
    nodes = 0

    def copy(value: object, path: tuple[str | int, ...]) -> Any:
        nonlocal nodes
        nodes += 1
        if nodes > MAX_NODES:
            raise InvalidOption(f"the schema has more than {MAX_NODES} values")
        if len(path) > MAX_DEPTH:
            raise InvalidOption(f"the schema is nested deeper than {MAX_DEPTH} levels, at {json_path(path[:4])}...")
        if value is None or isinstance(value, str | bool | int | float):
            return value
        if isinstance(value, list | tuple):
            return [copy(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, Mapping):
            raise InvalidOption(f"not a JSON Schema: {json_path(path)}: a {type(value).__name__} is not a JSON value")
        for key in value:
            if not isinstance(key, str):
                raise InvalidOption(f"not a JSON Schema: {json_path(path)}: the key {key!r:.80} is not text")
        return {key: copy(item, (*path, key)) for key, item in value.items()}

    if not isinstance(schema, Mapping):
        raise InvalidOption(f"not a JSON Schema: expected a mapping, got {schema!r:.80}")
    plain: dict[str, Any] = copy(schema, ())
    return plain


def json_path(parts: Iterable[str | int]) -> str:
    """Return a path as text, such as ``$.issues[0].severity``."""
    path = "$"
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if part.isidentifier() else f"[{json.dumps(part, ensure_ascii=False)}]"
    return path
