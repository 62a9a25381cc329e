"""Requests of Replicate's dialect: the names of a model's inputs, its URLs, and the payload of a prediction.

There is no common request: each model names its inputs as it likes, and Replicate silently ignores an input that the
model does not know, so that a misspelt limit on tokens would limit nothing. The names come from the schema that a model
publishes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import attrs

from llm_council.errors import InvalidOption
from llm_council.models._attrs import as_tuple, strict_init
from llm_council.models.messages import ImagePart, Message, Role
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig

__all__ = [
    "DEFAULT",
    "ModelInputs",
    "encode_request",
    "predictions_path",
    "read_inputs",
    "schema_path",
    "version_of",
]

_INSTRUCTIONS = frozenset({Role.SYSTEM, Role.DEVELOPER})
_BESIDE = ("webhook", "webhook_events_filter")  # keys of the request itself, where ``extra`` has them
_SCALARS = ("max_tokens", "temperature", "top_p")
_VERSION = re.compile(r"[0-9a-f]{64}")


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


def version_of(model: str) -> str | None:
    """Return the version that a model's name pins: ``owner/name:VERSION``, or a version alone; None where none."""
    name, _, version = model.rpartition(":")
    if name and "/" in name and version:
        return version
    return model if _VERSION.fullmatch(model) else None


def predictions_path(model: str) -> str:
    """Return the path at which a model's predictions are created.

    Args:
        model: ``owner/name``, ``owner/name:version``, a version, or ``deployments/owner/name``.

    Raises:
        InvalidOption: it is none of these.
    """
    if version_of(model) is not None:
        return "/v1/predictions"
    kind, parts = "models", model.split("/")
    if len(parts) == 3 and parts[0] == "deployments":
        kind, parts = "deployments", parts[1:]
    if len(parts) != 2 or not all(parts):
        raise InvalidOption(f"a model on Replicate is named owner/name, or owner/name:version, got {model!r:.80}")
    owner, name = (quote(part, safe="") for part in parts)
    return f"/v1/{kind}/{owner}/{name}/predictions"


def schema_path(model: str) -> str | None:
    """Return the path at which a model tells its inputs; None for one that is named by a version or a deployment."""
    name, _, version = model.partition(":")
    parts = name.split("/")
    if len(parts) != 2 or not all(parts):
        return None
    owner, own = (quote(part, safe="") for part in parts)
    pinned = f"/versions/{quote(version, safe='')}" if version else ""
    return f"/v1/models/{owner}/{own}{pinned}"


def encode_request(
    request: GenerateRequest, inputs: ModelInputs = DEFAULT, *, model: str | None = None, stream: bool | None = None
) -> dict[str, Any]:
    """Write a request. What the model has no input for is left out; ``extra`` goes among the inputs, as it is.

    A conversation is a list of turns where the model takes one, else it is written out in the prompt.

    Args:
        request: what is asked.
        inputs: what the model calls its inputs.
        model: the model's name, for a request that has none or another one.
        stream: whether to ask for a stream; None takes ``request.stream``.
    """
    spoken = [turn for turn in request.turns() if turn.role not in _INSTRUCTIONS]
    instructions = "\n\n".join(turn.text for turn in request.turns() if turn.role in _INSTRUCTIONS and turn.text)
    asked: dict[str, Any] = {}
    if inputs.messages is not None and len(spoken) > 1:
        asked[inputs.messages] = [{"role": _role(turn), "content": turn.text} for turn in _all(spoken, instructions)]
    else:
        apart = inputs.system is not None and instructions
        asked[inputs.prompt] = _prompt(spoken, "" if apart else instructions)
        if apart:
            asked[str(inputs.system)] = instructions
    known = {getattr(inputs, field): getattr(request, field) for field in _SCALARS}
    known |= {inputs.stop: _stop(request.stop, inputs), inputs.images: _images(spoken, inputs)}
    known |= _thinking(request.reasoning, inputs)
    asked.update((name, value) for name, value in known.items() if name is not None and value is not None)
    extra = dict(request.extra)
    beside = {key: extra.pop(key) for key in _BESIDE if key in extra}
    version = version_of(model or request.model or "")
    payload: dict[str, Any] = {} if version is None else {"version": version}
    payload["input"] = {**asked, **extra}
    if request.stream if stream is None else stream:
        payload["stream"] = True
    return {**payload, **beside}


def _all(spoken: list[Message], instructions: str) -> list[Message]:
    return [Message(Role.SYSTEM, instructions), *spoken] if instructions else spoken


def _role(turn: Message) -> str:
    return str(Role.USER if turn.role == Role.TOOL else turn.role)


def _prompt(spoken: list[Message], instructions: str) -> str:
    """Return the conversation as one text: a single turn as it is, several with who speaks, and whose turn it is."""
    if len(spoken) == 1 and spoken[0].role == Role.USER:
        said = [spoken[0].text]
    else:
        said = [f"{str(turn.role).capitalize()}: {turn.text}" for turn in spoken]
        said += ["Assistant:"] if spoken else []
    return "\n\n".join([*([instructions] if instructions else []), *said])


def _stop(words: tuple[str, ...], inputs: ModelInputs) -> list[str] | str | None:
    if not words or inputs.takes_list(inputs.stop):
        return list(words) or None
    return ",".join(words)


def _images(spoken: Iterable[Message], inputs: ModelInputs) -> list[str] | str | None:
    parts = [part for turn in spoken if not isinstance(turn.content, str) for part in turn.content]
    found = [part.url or f"data:{part.media_type};base64,{part.data}" for part in parts if isinstance(part, ImagePart)]
    if not found:
        return None
    return found if inputs.takes_list(inputs.images) else found[-1]


def _thinking(config: ReasoningConfig | None, inputs: ModelInputs) -> dict[str | None, Any]:
    if config is None:
        return {}
    if inputs.effort is not None and config.effort is not None:
        return {inputs.effort: str(config.effort)}
    none = config.effort is Effort.NONE
    return {inputs.budget: 0 if none else config.budget_tokens} if inputs.budget is not None else {}
