"""What else a request becomes for Claude: the rules of Anthropic's API that no profile has a word for."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import attrs

from llm_council._schema import strictly
from llm_council.models.reply import Adjustment
from llm_council.models.request import Effort, GenerateRequest
from llm_council.providers._anthropic import MessagesOptions, thinking_budget

__all__ = ["enforceable", "fit"]

# What strict mode has a word for and Claude's grammar has not: answers are checked against these here (Anthropic's
# documentation, "Structured outputs", JSON Schema limitations).
_UNENFORCED = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems".split()
)
_BY_NAME = frozenset({"properties", "$defs", "definitions"})  # mappings whose keys are names, not words of JSON Schema


def fit(request: GenerateRequest, options: MessagesOptions) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Fit a request that fits its profile to what the API takes together. Pure, and a fixed point.

    Thinking with a budget needs room below ``max_tokens`` and excludes a forced tool; thinking of any kind excludes
    temperature and top_p, and these two exclude each other (Messages API reference).

    Args:
        request: what is asked; ``fitting.fit`` has made it fit the model.
        options: in what the model differs.
    """
    changes: dict[str, Any] = {}
    told: list[Adjustment] = []

    def drop(field: str, reason: str) -> None:
        changes[field] = None
        told.append(Adjustment(field=field, action="dropped", asked=getattr(request, field), reason=reason))

    config = request.reasoning
    budget = thinking_budget(request, options)
    thinks = config is not None and config.effort is not Effort.NONE
    if (
        config is not None
        and budget is not None
        and request.tools
        and request.tool_choice not in (None, "auto", "none")
    ):
        drop("reasoning", "it does not think to a budget where a tool is forced")
        thinks = False
    elif config is not None and thinks and budget is None and config.budget_tokens is not None:
        drop("reasoning", "max_tokens leaves no room for 1024 tokens of thinking")
        thinks = False
    elif config is not None and budget is not None and config.budget_tokens not in (None, budget):
        changes["reasoning"] = attrs.evolve(config, budget_tokens=budget)
        action = "lowered" if budget < (config.budget_tokens or 0) else "raised"
        reason = "a budget is of 1024 tokens or more, and smaller than max_tokens"
        told.append(
            Adjustment(field="reasoning", action=action, asked=config.budget_tokens, sent=budget, reason=reason)
        )
    if thinks:
        for field in ("temperature", "top_p"):
            if getattr(request, field) is not None:
                drop(field, "it refuses this while it thinks")
    elif request.temperature is not None and request.top_p is not None:
        drop("top_p", "it takes temperature or top_p, not both")
    return (attrs.evolve(request, **changes), tuple(told)) if changes else (request, ())


def enforceable(schema: Any) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """Return the part of a schema that Claude can be held to, and what is left out; None where that cannot be said.

    Args:
        schema: any JSON Schema.
    """
    found = _enforceable(json.dumps(schema))
    return None if found is None else (json.loads(found[0]), found[1])


@lru_cache(maxsize=128)
def _enforceable(text: str) -> tuple[str, tuple[str, ...]] | None:
    projection = strictly(json.loads(text))
    if not projection.strict or _recursive(projection.schema):
        return None
    left_out: list[str] = []
    schema = _without(projection.schema, "$", left_out)
    return json.dumps(schema), (*projection.adjustments, *left_out)


def _without(node: Any, path: str, left_out: list[str]) -> Any:
    """Return a schema without the words that are not enforced; ``left_out`` learns of them."""
    if isinstance(node, list):
        return [_without(item, f"{path}[{index}]", left_out) for index, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    kept: dict[str, Any] = {}
    for word, value in node.items():
        if word in _UNENFORCED or (word == "minItems" and value > 1) or (word == "pattern" and "\\b" in value):
            left_out.append(f"{path}: {word} is checked here, not by the vendor")
        elif word in _BY_NAME and isinstance(value, dict):
            kept[word] = {name: _without(item, f"{path}.{word}.{name}", left_out) for name, item in value.items()}
        elif word in ("enum", "const", "required"):
            kept[word] = value
        else:
            kept[word] = _without(value, f"{path}.{word}", left_out)
    return kept


def _recursive(schema: dict[str, Any]) -> bool:
    """Tell whether a definition leads back to itself, or to the root."""

    def named(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(named, node))
        if not isinstance(node, dict):
            return set()
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(named(value) for key, value in node.items() if key not in ("$defs", "definitions")))

    definitions = {
        f"#/{key}/{name}": named(item) for key in ("$defs", "definitions") for name, item in schema.get(key, {}).items()
    }
    reached = {reference: set(names) for reference, names in definitions.items()}
    for _hop in definitions:
        reached = {
            reference: names.union(*(definitions.get(name, set()) for name in names))
            for reference, names in reached.items()
        }
    return any(reference in names for reference, names in reached.items()) or any(
        not reference.startswith(("#/$defs/", "#/definitions/")) for reference in named(schema).union(*reached.values())
    )
