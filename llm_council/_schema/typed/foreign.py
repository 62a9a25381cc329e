"""pydantic models and msgspec structs, through their own methods. Neither package is imported here.

A class of theirs exists only if its package has been imported, so the package is looked up among the loaded modules.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Container, Mapping
from typing import Any

import attrs

from llm_council._schema.typed.fields import origin_of

__all__ = ["Foreign", "apart", "foreign_class"]


@attrs.frozen(kw_only=True)
class Foreign:
    """The schema and the conversions that the package of a class offers for it.

    Attributes:
        schema: returns its JSON Schema; definitions are below ``$defs``.
        read: returns the instance of a JSON value; raises the package's own error.
        write: returns the JSON value of an instance.
        problems: returns path and message of each thing that an error of ``read`` reports; empty for another error.
    """

    schema: Callable[[], dict[str, Any]]
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]
    problems: Callable[[Exception], list[tuple[str, str]]]


def foreign_class(kind: Any) -> Foreign | None:
    """Return the methods of pydantic or msgspec for a class; None for a class of neither package."""
    if not isinstance(origin_of(kind), type):
        return None
    cls: Any = origin_of(kind)
    pydantic, msgspec = sys.modules.get("pydantic"), sys.modules.get("msgspec")
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return _pydantic(
            cls.model_json_schema,
            cls.model_validate_json,
            lambda instance: instance.model_dump(mode="json", by_alias=True),
        )
    if pydantic is not None and "__pydantic_validator__" in vars(cls):  # a dataclass of pydantic
        adapter = pydantic.TypeAdapter(kind)
        return _pydantic(
            adapter.json_schema,
            adapter.validate_json,
            lambda instance: adapter.dump_python(instance, mode="json", by_alias=True),
        )
    if msgspec is not None and issubclass(cls, msgspec.Struct):
        return _msgspec(msgspec, kind)
    return None


def _pydantic(
    schema: Callable[[], dict[str, Any]], read_json: Callable[[str], Any], write: Callable[[Any], Any]
) -> Foreign:
    def problems(error: Exception) -> list[tuple[str, str]]:
        listed = getattr(error, "errors", None)
        if not callable(listed):
            return []
        found = []
        for one in listed():
            steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in one["loc"])
            found.append(("".join(steps), one["msg"]))
        return found

    return Foreign(
        schema=schema,
        # As JSON text: from a dict, pydantic in strict mode takes dates and the like only as instances.
        read=lambda value: read_json(json.dumps(value)),
        write=write,
        problems=problems,
    )


def _msgspec(msgspec: Any, kind: Any) -> Foreign:
    def problems(error: Exception) -> list[tuple[str, str]]:
        if not isinstance(error, msgspec.ValidationError):
            return []
        found = re.fullmatch(r"(?P<what>.*?)(?: - at `(?P<path>\$.*)`)?", str(error), re.DOTALL)
        return [((found["path"] or "$")[1:], found["what"])] if found else [("", str(error))]

    return Foreign(
        schema=lambda: msgspec.json.schema(kind),
        read=lambda value: msgspec.convert(value, kind),
        write=msgspec.to_builtins,
        problems=problems,
    )


def apart(schema: Mapping[str, Any], taken: Container[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a schema without its ``$defs``, and the definitions, renamed where a name is taken.

    Args:
        schema: a schema that pydantic or msgspec made.
        taken: names of definitions that exist already.
    """
    schema = dict(schema)
    listed = schema.pop("$defs", {})
    names: dict[str, str] = {}
    for name in listed:
        new = name
        while new in taken or new in names.values():
            new += "_"
        names[name] = new
    definitions = {names[name]: _renamed(body, names) for name, body in listed.items()}
    whole = _renamed(schema, names)
    if set(whole) == {"$ref"}:  # the class itself is among its definitions
        name = whole["$ref"].removeprefix("#/$defs/")
        whole = dict(definitions[name])
        if json.dumps(f"#/$defs/{name}") not in json.dumps(definitions, default=str):  # no definition refers to it
            del definitions[name]
    return whole, definitions


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, list):
        return [_renamed(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    renamed = {key: _renamed(value, names) for key, value in node.items()}
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        renamed["$ref"] = f"#/$defs/{names[reference.removeprefix('#/$defs/')]}"
    return renamed
