"""Requests of Replicate's dialect: a prediction's inputs, and the address at which it is created."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from llm_council._wire.payloads import get_text, malformed, need_list, need_object
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models.messages import ImagePart, Message, Part, Role, TextPart
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig
from llm_council.providers._replicate.inputs import DEFAULT, ModelInputs

__all__ = ["decode_request", "encode_request", "predictions_path", "schema_path", "version_of"]

_INSTRUCTIONS = frozenset({Role.SYSTEM, Role.DEVELOPER})
_BESIDE = ("webhook", "webhook_events_filter")  # keys of the request itself, where ``extra`` has them
_SCALARS = ("max_tokens", "temperature", "top_p")
_VERSION = re.compile(r"[0-9a-f]{64}")


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


def decode_request(payload: Any, inputs: ModelInputs = DEFAULT, *, model: str | None = None) -> GenerateRequest:
    """Read a request: the mirror of ``encode_request``, for fake vendors.

    A conversation that was written out is one turn; what has no place in a ``GenerateRequest`` stays in ``extra``.

    Args:
        payload: the body of the request.
        inputs: what the model calls its inputs.
        model: its name, where the address says it.

    Raises:
        MalformedReply: the payload is no request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    asked = dict(need_object(rest.pop("input", None), "$.input"))
    version = get_text(rest, "version", "$")
    rest.pop("version", None)
    facts: dict[str, Any] = {
        "model": version or model,
        "messages": _decode_turns(asked, inputs),
        "stream": rest.pop("stream", False) is True,
    }
    for field in _SCALARS:
        name = getattr(inputs, field)
        if asked.get(name) is not None:
            facts[field] = asked.pop(name)
    facts.update(_decode_stop(asked, inputs))
    facts.update(_decode_thinking(asked, inputs))
    try:
        return GenerateRequest(**facts, extra={**asked, **rest})
    except InvalidOption as error:
        raise MalformedReply(str(error), path="$.input") from None


def _decode_turns(asked: dict[str, Any], inputs: ModelInputs) -> list[Message]:
    turns: list[Message] = []
    if inputs.system is not None and inputs.system in asked:
        turns.append(Message(Role.SYSTEM, get_text(asked, inputs.system, "$.input")))
        del asked[inputs.system]
    if inputs.messages is not None and inputs.messages in asked:
        listed = need_list(asked.pop(inputs.messages), f"$.input.{inputs.messages}")
        return [*turns, *(_decode_turn(turn, f"$.input.{inputs.messages}[{at}]") for at, turn in enumerate(listed))]
    if inputs.prompt not in asked:
        raise malformed(f"$.input.{inputs.prompt}", "a prompt", None)
    parts: list[Part] = [TextPart(text=get_text(asked, inputs.prompt, "$.input") or "")]
    del asked[inputs.prompt]
    return [*turns, Message(Role.USER, [*parts, *_decode_images(asked, inputs)])]


def _decode_turn(value: Any, path: str) -> Message:
    turn = need_object(value, path)
    role = get_text(turn, "role", path)
    if not role:
        raise malformed(f"{path}.role", "a role", turn.get("role"))
    return Message(role, get_text(turn, "content", path))


def _decode_images(asked: dict[str, Any], inputs: ModelInputs) -> list[ImagePart]:
    found = asked.get(inputs.images) if inputs.images is not None else None
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not listed or not all(isinstance(item, str) and item for item in listed):
        return []
    del asked[str(inputs.images)]
    try:
        return [ImagePart(url=item) for item in listed]
    except InvalidOption as error:
        raise MalformedReply(str(error), path=f"$.input.{inputs.images}") from None


def _decode_stop(asked: dict[str, Any], inputs: ModelInputs) -> dict[str, Any]:
    found = asked.get(inputs.stop) if inputs.stop is not None else None
    words = found.split(",") if isinstance(found, str) and found else found
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        return {}
    if _stop(tuple(words), inputs) != found:
        return {}
    del asked[str(inputs.stop)]
    return {"stop": words}


def _decode_thinking(asked: dict[str, Any], inputs: ModelInputs) -> dict[str, Any]:
    effort: Mapping[str, Effort] = {str(word): word for word in Effort}
    for name, field in ((inputs.effort, "effort"), (inputs.budget, "budget_tokens")):
        found = asked.get(name) if name is not None else None
        if field == "effort" and isinstance(found, str) and found in effort:
            config = ReasoningConfig(effort=effort[found])
        elif field == "budget_tokens" and isinstance(found, int) and not isinstance(found, bool) and found > 0:
            config = ReasoningConfig(budget_tokens=found)
        elif field == "budget_tokens" and found == 0 and inputs.effort is None and type(found) is int:
            config = ReasoningConfig(effort=Effort.NONE)
        else:
            continue
        del asked[str(name)]
        return {"reasoning": config}
    return {}
