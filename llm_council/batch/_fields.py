"""Which parts of a result become columns, and of which type they are."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from llm_council.batch._columns import Kind
from llm_council.errors import CouncilError, InvalidOption, near
from llm_council.results import CouncilResult

__all__ = ["Field", "fields_for"]

_KINDS: Final = {
    "run_id": Kind.TEXT,
    "text": Kind.TEXT,
    "chair": Kind.TEXT,
    "status": Kind.TEXT,
    "error": Kind.TEXT,
    "success": Kind.BOOLEAN,
    "duration": Kind.NUMBER,
    "overruled": Kind.BOOLEAN,
    "spared_calls": Kind.INTEGER,
    "cost.usd": Kind.NUMBER,
    "cost.complete": Kind.BOOLEAN,
    "usage.input_tokens": Kind.INTEGER,
    "usage.output_tokens": Kind.INTEGER,
    "usage.total_tokens": Kind.INTEGER,
    "agreement.level": Kind.TEXT,
    "agreement.share": Kind.NUMBER,
    "agreement.margin": Kind.NUMBER,
}
"""The types of fields; one that is not listed becomes text: strings as they are, anything else as JSON."""

_INTEGER_LIMIT: Final = 2**63
_NUMBER_LIMIT: Final = sys.float_info.max

_OPEN: Final = ("output", "drafts", "critiques", "answers", "otherwise", "bias", "metadata")
"""Fields with names of the caller or of the seats inside."""

_SCHEMA_KINDS: Final = {
    "string": Kind.TEXT,
    "integer": Kind.INTEGER,
    "number": Kind.NUMBER,
    "boolean": Kind.BOOLEAN,
}


@attrs.frozen
class Field:
    """A part of a result that becomes a column.

    Attributes:
        name: name of the column.
        path: names of a field and of what is inside of it, such as ``("cost", "usd")``.
        kind: type of the values.
    """

    name: str
    path: tuple[str, ...]
    kind: Kind

    def value(self, outcome: CouncilResult[Any] | CouncilError) -> Any:
        """Return the value of a column for one row.

        Args:
            outcome: the result, or the error of a task for which no run started. None where there is no value; the
                error of a run that has none is an empty text, so that the column has a type in every batch.
        """
        if self.path == ("error",):
            error = outcome if isinstance(outcome, CouncilError) else outcome.error
            return "" if error is None else f"{type(error).__name__}: {error.message}"
        if isinstance(outcome, CouncilError):
            return {"status": "failed", "success": False}.get(".".join(self.path))
        value: Any = outcome
        for step in ("output_value" if self.path[0] == "output" else self.path[0], *self.path[1:]):
            value = value.get(step) if isinstance(value, Mapping) else getattr(value, step, None)
        return self._converted(value)

    def _converted(self, value: Any) -> Any:
        if value is None:
            return None
        if self.kind is Kind.BOOLEAN:
            return bool(value)
        # A number that its column cannot hold is missing: it must not cost the other rows of the batch.
        if self.kind is Kind.INTEGER:
            return int(value) if abs(value) < _INTEGER_LIMIT else None
        if self.kind is Kind.NUMBER:
            return float(value) if abs(value) < _NUMBER_LIMIT else None
        if isinstance(value, str):
            text = str(value)  # a plain one, also of a StrEnum
        else:
            from llm_council.models._convert import dump  # imports cattrs

            text = json.dumps(dump(value), ensure_ascii=False)
        return text.encode("utf-8", "replace").decode()  # half of a surrogate pair, which Arrow refuses


def fields_for(columns: Mapping[str, str] | Sequence[str] | None, schema: Mapping[str, Any] | None) -> list[Field]:
    """Return the fields of the new columns; ``status`` and ``error`` are always among them.

    Args:
        columns: names of columns with the paths of their fields, or the names of fields; None is the output.
        schema: the JSON Schema of the output, from which the columns of the output take their types.

    Raises:
        InvalidOption: there is no such field; the message names the nearest one.
    """
    if isinstance(columns, str):
        raise InvalidOption(f"columns: expected names in a list, as in columns=[{columns!r}], got one text")
    chosen = columns if columns is not None else ["output"]
    paths = dict(chosen) if isinstance(chosen, Mapping) else {name: name for name in chosen}
    for always in ("status", "error"):
        if always not in paths.values():
            paths[always] = always
    return [_field(name, path, schema) for name, path in paths.items()]


def _field(name: object, path: object, schema: Mapping[str, Any] | None) -> Field:
    if not isinstance(name, str) or not isinstance(path, str) or not name or not path:
        raise InvalidOption(f"columns: expected names of columns and of fields, got {name!r:.80}: {path!r:.80}")
    steps = tuple(path.split("."))
    known = [field.name for field in attrs.fields(CouncilResult) if not field.name.startswith("_")] + ["success"]
    if steps[0] not in known:
        raise InvalidOption(f"columns: a result has no field {steps[0]!r:.80}{near(steps[0], known)}")
    if len(steps) > 1 and steps[0] not in _OPEN and path not in _KINDS:
        raise InvalidOption(f"columns: no column can be made of {path!r:.80}{near(path, _KINDS)}")
    kind = _output_kind(steps[1:], schema) if steps[0] == "output" else _KINDS.get(path, Kind.TEXT)
    return Field(name, steps, kind)


def _output_kind(steps: Sequence[str], schema: Mapping[str, Any] | None) -> Kind:
    """Return the type of a part of the output: text, unless the schema gives it one other type."""
    part: Any = schema
    for step in steps:
        part = _resolved(part, schema)
        properties = part.get("properties") if isinstance(part, Mapping) else None
        if not isinstance(properties, Mapping):
            return Kind.TEXT
        if step not in properties and part.get("additionalProperties") is False:
            raise InvalidOption(f"columns: the output has no field {step!r:.80}{near(step, properties)}")
        part = properties.get(step)
    part = _resolved(part, schema)
    named = part.get("type") if isinstance(part, Mapping) else None
    kinds = [str(kind) for kind in (named if isinstance(named, list) else [named]) if kind != "null"]
    return _SCHEMA_KINDS.get(kinds[0], Kind.TEXT) if len(kinds) == 1 else Kind.TEXT


def _resolved(part: Any, root: Mapping[str, Any] | None) -> Any:
    """Follow the references of a schema into its definitions, and the only alternative to null."""
    for _ in range(20):  # references may form a circle
        if not isinstance(part, Mapping):
            return part
        reference = part.get("$ref")
        choices = [one for one in part.get("anyOf", ()) if one != {"type": "null"}]
        if isinstance(reference, str) and root is not None:
            definitions = {**root.get("definitions", {}), **root.get("$defs", {})}
            part = definitions.get(reference.rpartition("/")[2])
        elif len(choices) == 1:
            part = choices[0]
        else:
            return part
    return None
