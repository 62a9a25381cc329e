"""Requests of Replicate's dialect: the names of a model's inputs, its URLs, and the payload of a prediction.

Each model names its inputs as it likes, and Replicate silently ignores inputs that a model does not know: a misspelt
limit on tokens would limit nothing. The names are therefore read from the schema that a model publishes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import attrs

from llm_council.errors import CapabilityMissing, InvalidOption
from llm_council.models._attrs import as_tuple, strict_init
from llm_council.models.messages import ImagePart, Message, Role
from llm_council.models.reply import Adjustment
from llm_council.models.request import Effort, GenerateRequest

__all__ = [
    "DEFAULT",
    "ModelInputs",
    "encode_request",
    "fit",
    "predictions_path",
    "read_inputs",
    "schema_path",
]

_INSTRUCTIONS = frozenset({Role.SYSTEM, Role.DEVELOPER})
# Fields of a prediction, and not inputs of its model (Replicate's HTTP API, "Create a prediction").
_TOP_LEVEL = ("webhook", "webhook_events_filter")
_SCALARS = ("max_tokens", "temperature", "top_p")
_VERSION = re.compile(r"[0-9a-f]{64}")  # the id of a version is a SHA-256 hash

# The names that published models use for the same input, the most common first.
_NAMES = {
    "prompt": ("prompt",),
    "messages": ("messages",),
    "system": ("system_prompt", "system_instruction", "system"),
    "max_tokens": ("max_tokens", "max_new_tokens", "max_completion_tokens", "max_output_tokens", "max_length"),
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "seed": ("seed",),
    "stop": ("stop_sequences", "stop", "stop_sequence", "stop_words"),
    "images": ("image_input", "images", "image", "input_image"),
    "effort": ("reasoning_effort", "effort", "thinking_level"),
    "budget": ("thinking_budget", "thinking_budget_tokens", "thinking_token_budget"),
}


@strict_init
@attrs.frozen(kw_only=True)
class ModelInputs:
    """The names of a model's inputs; None for an input that the model lacks.

    The defaults are those of the open language models that Replicate itself runs.

    Attributes:
        prompt: the text.
        messages: a conversation as a list of turns, used for more than one turn.
        system: instructions.
        max_tokens: the limit on answer tokens.
        temperature: sampling temperature.
        top_p: nucleus sampling.
        seed: the seed of the sampling.
        stop: texts at which the model stops.
        images: images.
        effort: how hard to think, as a word.
        budget: the limit on thinking tokens.
        lists: those of these names that take a list. For other names, stop texts are joined by commas, and only the
            last image is sent.
        efforts: the words that ``effort`` takes; empty means any.
    """

    prompt: str = "prompt"
    messages: str | None = None
    system: str | None = "system_prompt"
    max_tokens: str | None = "max_tokens"
    temperature: str | None = "temperature"
    top_p: str | None = "top_p"
    seed: str | None = None
    stop: str | None = "stop_sequences"
    images: str | None = None
    effort: str | None = None
    budget: str | None = None
    lists: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    efforts: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)

    def takes_list(self, name: str | None) -> bool:
        """Return True if an input takes a list."""
        return name in self.lists


DEFAULT = ModelInputs()
"""The inputs of a model without a known schema."""


def read_inputs(data: Any) -> ModelInputs | None:
    """Read the names of a model's inputs.

    Args:
        data: the JSON of a model, or of a model's version.

    Returns:
        The names; None if the model publishes no schema, or has no prompt.
    """
    schemas = _dig(data, "latest_version", "openapi_schema", "components", "schemas")
    schemas = schemas or _dig(data, "openapi_schema", "components", "schemas")
    properties = _dig(schemas, "Input", "properties")
    facts: dict[str, Any] = {}
    for field, names in _NAMES.items():
        facts[field] = next((name for name in names if name in properties), None)
    if facts["prompt"] is None:
        return None
    lists = [name for name in facts.values() if name and _lookup(properties[name], schemas, "type") == "array"]
    if facts["messages"] not in lists:  # some models take a conversation as a text in a format of their own
        facts["messages"] = None
    efforts = _lookup(properties.get(facts["effort"]), schemas, "enum")
    words = [word for word in efforts if isinstance(word, str)] if isinstance(efforts, list) else []
    return ModelInputs(**facts, lists=lists, efforts=words)


def _dig(value: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _lookup(node: Any, schemas: Mapping[str, Any], keyword: str) -> Any:
    """Return a keyword of a property's schema, or of the schema that it refers to, as enumerations do."""
    if not isinstance(node, dict):
        return None
    listed = node.get("allOf")
    found = [node]
    for inner in (*(listed if isinstance(listed, list) else ()), node):
        reference = inner.get("$ref") if isinstance(inner, dict) else None
        if isinstance(reference, str):
            found.append(_dig(schemas, reference.rpartition("/")[2]))
    return next((schema[keyword] for schema in found if keyword in schema), None)


def _version_of(model: str) -> str | None:
    """Return the version in a model's name: ``owner/name:VERSION``, or a version alone; None if there is none."""
    name, _, version = model.rpartition(":")
    if name and "/" in name and version:
        return version
    return model if _VERSION.fullmatch(model) else None


def predictions_path(model: str) -> str:
    """Return the path that creates predictions of a model.

    Args:
        model: ``owner/name``, ``owner/name:version``, a version, or ``deployments/owner/name``.

    Raises:
        InvalidOption: the name has another form.
    """
    if _version_of(model) is not None:
        return "/v1/predictions"  # the version is a field of the payload
    kind, parts = "models", model.split("/")
    if len(parts) == 3 and parts[0] == "deployments":
        kind, parts = "deployments", parts[1:]
    if len(parts) != 2 or not all(parts):
        raise InvalidOption(f"a model on Replicate is named owner/name, or owner/name:version, got {model!r:.80}")
    owner, name = (quote(part, safe="") for part in parts)
    return f"/v1/{kind}/{owner}/{name}/predictions"


def schema_path(model: str) -> str | None:
    """Return the path of a model's schema; None for a model that is named by a version or a deployment."""
    full_name, _, version = model.partition(":")
    parts = full_name.split("/")
    if len(parts) != 2 or not all(parts):
        return None
    owner, name = (quote(part, safe="") for part in parts)
    suffix = f"/versions/{quote(version, safe='')}" if version else ""
    return f"/v1/models/{owner}/{name}{suffix}"


def fit(request: GenerateRequest, inputs: ModelInputs) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Drop the fields of a request that a model has no input for. Pure and idempotent.

    Args:
        request: the request, already fitted to the provider.
        inputs: the names of the model's inputs.

    Returns:
        The request, and one adjustment per changed field.

    Raises:
        CapabilityMissing: the request has images, and the model takes none.
    """
    changes: dict[str, Any] = {}
    adjustments: list[Adjustment] = []

    def drop(field: str, reason: str, *, empty: Any = None) -> None:
        changes[field] = empty
        adjustments.append(Adjustment(field=field, action="dropped", asked=getattr(request, field), reason=reason))

    # Replicate ignores inputs that a model does not know, so a field without an input must be reported here.
    for field in _SCALARS:
        if getattr(request, field) is not None and getattr(inputs, field) is None:
            drop(field, "the model has no input for it")
    if request.stop and inputs.stop is None:
        drop("stop", "the model has no input for it", empty=())
    elif not inputs.takes_list(inputs.stop) and any("," in word for word in request.stop):
        drop("stop", "the model takes stop texts between commas, and one of these holds a comma", empty=())
    images = len(_images(request.messages))
    if images and inputs.images is None:
        raise CapabilityMissing("the model has no input for images; the request was not sent", capability="multimodal")
    if images > 1 and not inputs.takes_list(inputs.images):
        reason = "it takes one image"
        adjustments.append(Adjustment(field="messages", action="lowered", asked=images, sent=1, reason=reason))
    config = request.reasoning
    if config is not None and inputs.effort is not None and config.effort is not None:
        if inputs.efforts and str(config.effort) not in inputs.efforts:
            drop("reasoning", f"the model takes reasoning effort {', '.join(inputs.efforts)} only")
    elif config is not None:
        has_budget = config.budget_tokens is not None or config.effort is Effort.NONE
        if inputs.budget is None or not has_budget:
            drop("reasoning", "the model has no input for it")
    return (attrs.evolve(request, **changes) if changes else request), tuple(adjustments)


def encode_request(
    request: GenerateRequest, inputs: ModelInputs = DEFAULT, *, model: str | None = None, stream: bool | None = None
) -> dict[str, Any]:
    """Encode a request as the payload that creates a prediction. Keys of ``request.extra`` become inputs, unchanged.

    A conversation is sent as a list of turns if the model takes one, else as text in the prompt. Fields that the model
    has no input for are left out.

    Args:
        request: the request, already fitted to the model.
        inputs: the names of the model's inputs.
        model: the model's name; None means ``request.model``.
        stream: whether to ask for a stream; None means ``request.stream``.
    """
    turns = [turn for turn in request.turns() if turn.role not in _INSTRUCTIONS]
    instructions = "\n\n".join(turn.text for turn in request.turns() if turn.role in _INSTRUCTIONS and turn.text)
    encoded: dict[str, Any] = {}
    if inputs.messages is not None and len(turns) > 1:
        messages = [{"role": "system", "content": instructions}] if instructions else []
        for turn in turns:
            role = Role.USER if turn.role == Role.TOOL else turn.role
            messages.append({"role": str(role), "content": turn.text})
        encoded[inputs.messages] = messages
    elif inputs.system is not None and instructions:
        encoded[inputs.prompt] = _prompt(turns, "")
        encoded[inputs.system] = instructions
    else:
        encoded[inputs.prompt] = _prompt(turns, instructions)
    optional: dict[str | None, Any] = {getattr(inputs, field): getattr(request, field) for field in _SCALARS}
    optional[inputs.seed] = request.sample
    if request.stop:
        optional[inputs.stop] = list(request.stop) if inputs.takes_list(inputs.stop) else ",".join(request.stop)
    images = _images(turns)
    if images:
        optional[inputs.images] = images if inputs.takes_list(inputs.images) else images[-1]
    config = request.reasoning
    if config is not None and inputs.effort is not None and config.effort is not None:
        optional[inputs.effort] = str(config.effort)
    elif config is not None:
        optional[inputs.budget] = 0 if config.effort is Effort.NONE else config.budget_tokens
    encoded.update((name, value) for name, value in optional.items() if name is not None and value is not None)
    extra = dict(request.extra)
    top_level = {key: extra.pop(key) for key in _TOP_LEVEL if key in extra}
    version = _version_of(model or request.model or "")
    payload: dict[str, Any] = {} if version is None else {"version": version}
    payload["input"] = {**encoded, **extra}
    if request.stream if stream is None else stream:
        payload["stream"] = True
    return {**payload, **top_level}


def _prompt(turns: list[Message], instructions: str) -> str:
    """Return the conversation as one text. Several turns are labelled with their roles, and end with ``Assistant:``."""
    texts = [instructions] if instructions else []
    if len(turns) == 1 and turns[0].role == Role.USER:
        texts.append(turns[0].text)
    elif turns:
        texts += [f"{str(turn.role).capitalize()}: {turn.text}" for turn in turns]
        texts.append("Assistant:")
    return "\n\n".join(texts)


def _images(turns: Iterable[Message]) -> list[str]:
    parts = [part for turn in turns if not isinstance(turn.content, str) for part in turn.content]
    images = [part for part in parts if isinstance(part, ImagePart)]
    return [image.url or f"data:{image.media_type};base64,{image.data}" for image in images]
