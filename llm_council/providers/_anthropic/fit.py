"""Rules of Anthropic's API that model profiles cannot express: which fields exclude each other, and schema limits."""

from __future__ import annotations

import json
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

import attrs

from llm_council._schema import project_strict
from llm_council.models.reply import Adjustment
from llm_council.models.request import Effort, GenerateRequest
from llm_council.providers._anthropic.request import MessagesOptions, thinking_budget

__all__ = ["enforceable", "fit"]

# JSON Schema keywords that Claude's structured outputs do not support, although strict mode elsewhere does (Anthropic's
# docs, "Structured outputs", JSON Schema limitations). Answers are checked against the full schema after the call.
_UNENFORCED = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems".split()
)
_DEFINITIONS = ("$defs", "definitions")
_BY_NAME = ("properties", *_DEFINITIONS)  # keywords whose value maps names to schemas


def fit(request: GenerateRequest, options: MessagesOptions) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Drop or change the fields of a request that the API does not accept together. Pure and idempotent.

    A thinking budget needs room below ``max_tokens`` and excludes a forced tool. Thinking of any kind excludes
    ``temperature`` and ``top_p``, and these two exclude each other (Messages API reference).

    Args:
        request: the request, already fitted to the model's profile.
        options: how the model differs.

    Returns:
        The request, and one adjustment per changed field.
    """
    changes: dict[str, Any] = {}
    adjustments: list[Adjustment] = []

    def drop(field: str, reason: str) -> None:
        changes[field] = None
        adjustments.append(Adjustment(field=field, action="dropped", asked=getattr(request, field), reason=reason))

    config = request.reasoning
    thinks = config is not None and config.effort is not Effort.NONE
    if config is not None and thinks:
        asked, budget = config.budget_tokens, thinking_budget(request, options)
        is_forced = request.tools and request.tool_choice not in (None, "auto", "none")
        if budget is not None and is_forced:
            drop("reasoning", "the API does not accept a thinking budget beside a forced tool")
            thinks = False
        elif budget is None and asked is not None:
            drop("reasoning", "max_tokens leaves no room for the smallest budget, 1024 tokens")
            thinks = False
        elif budget is not None and asked is not None and asked != budget:
            changes["reasoning"] = attrs.evolve(config, budget_tokens=budget)
            adjustments.append(
                Adjustment(
                    field="reasoning",
                    action="lowered" if budget < asked else "raised",
                    asked=asked,
                    sent=budget,
                    reason="a budget must be at least 1024 tokens, and smaller than max_tokens",
                )
            )
    if thinks:
        for field in ("temperature", "top_p"):
            if getattr(request, field) is not None:
                drop(field, "the API does not accept it while the model thinks")
    elif request.temperature is not None and request.top_p is not None:
        drop("top_p", "the API takes temperature or top_p, not both")
    return (attrs.evolve(request, **changes) if changes else request), tuple(adjustments)


def enforceable(schema: Any) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """Project a JSON Schema onto the part that Claude enforces.

    Returns:
        The projected schema, and a note for each keyword that was left out; None if the schema cannot be projected.
    """
    found = _enforceable(json.dumps(schema))
    return None if found is None else (json.loads(found[0]), found[1])


# Projecting a schema of a built-in role takes 0.7 ms, and a run sends the same few schemas again and again.
@lru_cache(maxsize=128)
def _enforceable(text: str) -> tuple[str, tuple[str, ...]] | None:
    projection = project_strict(json.loads(text))
    if not projection.strict or _is_recursive(projection.schema):
        return None
    notes: list[str] = []
    schema = _without_unenforced(projection.schema, "$", notes)
    return json.dumps(schema), (*projection.adjustments, *notes)


def _without_unenforced(node: Any, path: str, notes: list[str]) -> Any:
    """Return a schema without keywords that are not enforced, and add a note for each to ``notes``."""
    if isinstance(node, list):
        return [_without_unenforced(item, f"{path}[{index}]", notes) for index, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    schema: dict[str, Any] = {}
    for keyword, value in node.items():
        # minItems is supported for 0 and 1, and patterns without word boundaries.
        too_many = keyword == "minItems" and value > 1
        if keyword in _UNENFORCED or too_many or (keyword == "pattern" and "\\b" in value):
            notes.append(f"{path}: {keyword} is checked here, not by the vendor")
        elif keyword in _BY_NAME and isinstance(value, dict):
            schema[keyword] = {
                name: _without_unenforced(item, f"{path}.{keyword}.{name}", notes) for name, item in value.items()
            }
        elif keyword in ("enum", "const", "required"):
            schema[keyword] = value
        else:
            schema[keyword] = _without_unenforced(value, f"{path}.{keyword}", notes)
    return schema


def _is_recursive(schema: dict[str, Any]) -> bool:
    """Return True if a definition refers to itself, directly or through others, or if a reference is to the root.

    Recursive schemas are not supported (Anthropic's docs, "Structured outputs").
    """
    definitions = {f"#/{key}/{name}": item for key in _DEFINITIONS for name, item in schema.get(key, {}).items()}
    graph = {"": _references(schema)} | {name: _references(item) for name, item in definitions.items()}
    if not all(name.startswith(("#/$defs/", "#/definitions/")) for names in graph.values() for name in names):
        return True
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return True
    return False


def _references(node: Any) -> set[str]:
    """Return every ``$ref`` in a schema, except those inside its definitions."""
    if isinstance(node, list):
        return set().union(*map(_references, node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    return own.union(*(_references(value) for key, value in node.items() if key not in _DEFINITIONS))
