"""What a model on Replicate calls its inputs, read from the schema that it publishes.

There is no common request: each model names its inputs as it likes, and an input that it does not know is ignored
without a word. A limit on tokens that is spelled wrongly would limit nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llm_council.models._attrs import as_tuple, strict_init

__all__ = ["DEFAULT", "ModelInputs", "read_inputs"]

# What published models call the same thing, the most common first.
_NAMES = {
    "prompt": ("prompt",),
    "messages": ("messages",),
    "system": ("system_prompt", "system_instruction", "system"),
    "max_tokens": ("max_tokens", "max_new_tokens", "max_completion_tokens", "max_output_tokens", "max_length"),
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "stop": ("stop_sequences", "stop", "stop_sequence", "stop_words"),
    "images": ("image_input", "images", "image", "input_image"),
    "effort": ("reasoning_effort", "effort", "thinking_level"),
    "budget": ("thinking_budget", "thinking_budget_tokens", "thinking_token_budget"),
}


@strict_init
@attrs.frozen(kw_only=True)
class ModelInputs:
    """The names of a model's inputs; None where it has none of the kind.

    The defaults are those of the open language models that Replicate itself runs.

    Attributes:
        prompt: the text.
        messages: a conversation as a list of turns, for what a prompt cannot hold.
        system: instructions.
        max_tokens: most tokens of the answer.
        temperature: sampling temperature.
        top_p: nucleus sampling.
        stop: texts at which the model stops.
        images: images.
        effort: how hard to think, in a word.
        budget: most tokens of thinking.
        lists: of these names, those that take a list: stop texts are joined by commas, and images are one, where they
            do not.
        efforts: the words that ``effort`` takes; none stands for any.
    """

    prompt: str = "prompt"
    messages: str | None = None
    system: str | None = "system_prompt"
    max_tokens: str | None = "max_tokens"
    temperature: str | None = "temperature"
    top_p: str | None = "top_p"
    stop: str | None = "stop_sequences"
    images: str | None = None
    effort: str | None = None
    budget: str | None = None
    lists: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    efforts: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)

    def takes_list(self, name: str | None) -> bool:
        """Tell whether an input takes a list."""
        return name in self.lists


DEFAULT = ModelInputs()
"""What a model whose schema is not known is taken for."""


def read_inputs(data: Any) -> ModelInputs | None:
    """Read what a model calls its inputs.

    Args:
        data: the JSON of a model, or of a version of one.

    Returns:
        Its inputs; None where it publishes no schema, or has no input that is a prompt.
    """
    parts = _dig(data, "latest_version", "openapi_schema", "components", "schemas")
    parts = parts or _dig(data, "openapi_schema", "components", "schemas")
    known = _dig(parts, "Input", "properties")
    if not known:
        return None
    found: dict[str, Any] = {
        field: next((name for name in names if name in known), None) for field, names in _NAMES.items()
    }
    if found["prompt"] is None:
        return None
    lists = [name for name in found.values() if name is not None and _type(known[name], parts) == "array"]
    if found["messages"] not in lists:  # some take a conversation as a text of their own making
        found["messages"] = None
    efforts = _words(known.get(found["effort"]), parts) if found["effort"] else ()
    return ModelInputs(**{**found, "lists": tuple(lists), "efforts": tuple(efforts)})


def _dig(value: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _schemas(node: Any, parts: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Yield a property's schema, and those that it refers to: an enumeration stands beside the inputs."""
    if not isinstance(node, dict):
        return
    yield node
    listed = node.get("allOf")
    for inner in (*(listed if isinstance(listed, list) else ()), node):
        name = inner.get("$ref") if isinstance(inner, dict) else None
        target = parts.get(name.rpartition("/")[2]) if isinstance(name, str) else None
        if isinstance(target, dict):
            yield target


def _type(node: Any, parts: Mapping[str, Any]) -> Any:
    return next((schema["type"] for schema in _schemas(node, parts) if "type" in schema), None)


def _words(node: Any, parts: Mapping[str, Any]) -> list[str]:
    found: Any = next((schema["enum"] for schema in _schemas(node, parts) if "enum" in schema), ())
    return [word for word in found if isinstance(word, str)] if isinstance(found, list) else []
