"""Facts about model families, read from ``profiles.toml`` and, about attached files, from ``files.toml``.

A new model is one dated row there, and no code.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from typing import Any, TypeVar

import attrs

from llm_council._wire.history import InstructionPlace
from llm_council.errors import InvalidOption
from llm_council.models._attrs import (
    as_tuple,
    boolean,
    must_be,
    non_negative,
    non_negative_int,
    optional,
    positive_int,
    strict_init,
    string,
)
from llm_council.models.request import Effort, GenerateRequest

__all__ = [
    "Api",
    "ModelProfile",
    "Sampling",
    "api_for_tools",
    "default_model",
    "default_model_of",
    "family_of",
    "is_known",
    "profile_for",
]

# OpenAI's answer for these models over Chat Completions: "Function tools with reasoning_effort are not supported ...
# use /v1/responses or set reasoning_effort to 'none'" (openai/openai-openapi#541; BerriAI/litellm#34569: also where the
# model reasons by default).
_TOOLS_NEED_RESPONSES = re.compile(r"(?:gpt-5\.[4-9]|gpt-[6-9])(?!\d)")


E = TypeVar("E", bound=StrEnum)


class Api(StrEnum):
    """The OpenAI API by which a model is called."""

    CHAT = "chat"
    RESPONSES = "responses"


class Sampling(StrEnum):
    """When a model accepts what it does not accept while it reasons: sampling parameters, or a prefill."""

    ALWAYS = "always"
    NEVER = "never"
    WITHOUT_REASONING = "without-reasoning"


def _word(kind: type[E], field: str, value: Any) -> E:
    """Return the member of an enumeration; the error for another word names the field."""
    try:
        return kind(value)
    except ValueError:
        raise InvalidOption(f"ModelProfile.{field}: one of {', '.join(kind)}, got {value!r:.80}") from None


def _api(value: Any) -> Api:
    return _word(Api, "api", value)


def _sampling(value: Any) -> Sampling:
    return _word(Sampling, "sampling", value)


def _prefill(value: Any) -> Sampling:
    return _word(Sampling, "prefill", value)


def _instruction_place(value: Any) -> InstructionPlace:
    return _word(InstructionPlace, "instruction_place", value)


def _efforts(words: Any) -> tuple[Effort, ...]:
    if isinstance(words, str) or not isinstance(words, Iterable):
        raise InvalidOption(f"ModelProfile.efforts: a list of words, got {words!r:.80}")
    return tuple(_word(Effort, "efforts", word) for word in words)


def _flag(*, default: bool) -> Any:
    return attrs.field(default=default, validator=boolean)


def _text(default: str, *words: str) -> Any:
    """Return a field that holds text; with ``words``, one of these."""
    allowed = must_be(f"one of {', '.join(words)}", lambda value: value in words) if words else string
    return attrs.field(default=default, validator=allowed)


def _number(is_valid: Callable[[Any, Any, Any], None]) -> Any:
    return attrs.field(default=None, validator=optional(is_valid))


@strict_init
@attrs.frozen(kw_only=True)
class ModelProfile:
    """What a model accepts. The defaults describe an unknown model, which is sent every parameter as it is.

    Attributes:
        provider: the provider of the row; empty is every provider.
        prefix: the beginning of the names of its models; empty is every model.
        since: the day when the facts were last checked, ``YYYY-MM-DD``.
        api: the API to use for the model, where the provider has several.
        token_field: the wire name of the limit on the tokens of an answer.
        max_output: the highest number of tokens of an answer; None is unknown.
        sampling: when ``temperature`` and ``top_p`` are accepted.
        streams: True if an answer can be streamed; the others arrive whole, as one piece.
        prefill: when a conversation may end with a turn of the model, whose text the answer continues.
        max_temperature: the highest accepted temperature; None is unknown.
        stop: True if stop sequences are accepted.
        max_stops: the highest number of stop sequences; None is unknown.
        efforts: the accepted words of effort; empty if reasoning cannot be controlled.
        reasons: True if the model reasons by default.
        reasoning_budget: True if a budget of reasoning tokens is accepted.
        reasoning_style: how the wire spells reasoning, in a word of the dialect: OpenAI's is one of ``ReasoningStyle``,
            where ``"effort"`` is ``reasoning_effort``; Ollama's is ``"switch"`` or ``"level"``, Anthropic's
            ``"adaptive"``, ``"between-tools"`` or ``"budget"``.
        system_role: the role of instructions: ``"system"``, ``"developer"``, or ``"user"`` if there is none.
        structured: the strongest constraint on answers: ``"json_schema"``, ``"json_object"`` or ``"none"``.
        strict_schema: True if a schema must be projected to OpenAI's strict subset to be enforced.
        schema_subset: the vendor's own subset of JSON Schema, to which schemas of answers and strict tools are
            projected: ``"openai"``, ``"codex"``, ``"anthropic"``, ``"gemini"`` or ``"cohere"``; empty is that of
            ``strict_schema``, or none.
        instruction_place: where system and developer turns are taken: ``"anywhere"``, ``"after-user"`` (between a
            user's turn and the answer) or ``"first"``. Others are moved there.
        user_after_tool: True if a user's turn may follow the result of a tool.
        images: True if turns may hold images.
        image_urls: True if an image may be an address.
        documents: True if turns may hold documents, where the provider takes any.
        audio: True if turns may hold sound, where the provider takes any.
        image_types: the media types of images that are accepted; empty is unknown.
        document_types: those of documents.
        audio_types: those of sound.
        image_bytes: the most bytes of one image, before it is encoded; None is unknown.
        document_bytes: likewise of one document.
        max_images: the most images of a request; None is unknown.
        document_pages: the most pages of all documents of a request; None is unknown.
        audio_bytes: the most bytes of one file of sound.
        request_bytes: the most bytes of a whole request, in which files are base64; None is unknown.
        tools: True if tools may be offered.
        tool_choice: True if a tool may be forced or forbidden.
        named_tool_choice: True if one tool may be forced by name.
        prompt_cache: how the vendor caches a stable prefix: ``"marks"`` (up to ``cache_control``), ``"breakpoints"``
            (by itself, and up to ``prompt_cache_breakpoint``), ``"automatic"`` or ``"none"``.
        cache_minimum: tokens of the shortest prefix that is cached up to a mark; None is unknown.
        prose_first: True if the model is so small that it must answer in prose before it answers in a schema.
        plain_prompts: True if the model is so small that it repeats fences, labels and names of roles from its prompt.
        grammar: True if a grammar makes every answer meet its schema.
        warning: a sentence about the model for the warnings of a result; empty for none.
    """

    provider: str = _text("")
    prefix: str = _text("")
    since: str = _text("")
    api: Api = attrs.field(default=Api.CHAT, converter=_api)
    token_field: str = _text("max_tokens")
    max_output: int | None = _number(positive_int)
    sampling: Sampling = attrs.field(default=Sampling.ALWAYS, converter=_sampling)
    streams: bool = _flag(default=True)
    prefill: Sampling = attrs.field(default=Sampling.ALWAYS, converter=_prefill)
    max_temperature: float | None = _number(non_negative)
    stop: bool = _flag(default=True)
    max_stops: int | None = _number(non_negative_int)
    efforts: tuple[Effort, ...] = attrs.field(default=tuple(Effort), converter=_efforts)
    reasons: bool = _flag(default=False)
    reasoning_budget: bool = _flag(default=True)
    reasoning_style: str = _text("effort")
    system_role: str = _text("system", "system", "developer", "user")
    structured: str = _text("json_schema", "json_schema", "json_object", "none")
    strict_schema: bool = _flag(default=False)
    schema_subset: str = _text("")
    instruction_place: InstructionPlace = attrs.field(default=InstructionPlace.ANYWHERE, converter=_instruction_place)
    user_after_tool: bool = _flag(default=True)
    images: bool = _flag(default=True)
    image_urls: bool = _flag(default=True)
    documents: bool = _flag(default=True)
    audio: bool = _flag(default=True)
    image_types: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    document_types: tuple[str, ...] = attrs.field(default=("application/pdf",), converter=as_tuple)
    audio_types: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    image_bytes: int | None = _number(positive_int)
    max_images: int | None = _number(positive_int)
    document_bytes: int | None = _number(positive_int)
    document_pages: int | None = _number(positive_int)
    audio_bytes: int | None = _number(positive_int)
    request_bytes: int | None = _number(positive_int)
    tools: bool = _flag(default=True)
    tool_choice: bool = _flag(default=True)
    named_tool_choice: bool = _flag(default=True)
    prompt_cache: str = _text("marks", "marks", "breakpoints", "automatic", "none")
    cache_minimum: int | None = _number(positive_int)
    prose_first: bool = _flag(default=False)
    plain_prompts: bool = _flag(default=False)
    grammar: bool = _flag(default=False)
    warning: str = _text("")


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Any]:
    return _read("profiles.toml")


@lru_cache(maxsize=1)
def _file_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _read("files.toml")["takes"]
    return rows


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


@lru_cache(maxsize=512)
def profile_for(provider: str, model: str | None) -> ModelProfile:
    """Return the facts about a provider's model.

    They are merged from all matching rows, the longest prefix last: a row lists only what differs from shorter ones.

    Args:
        provider: the provider's name.
        model: the vendor's name of the model; None merges the provider's general rows only.
    """
    name = (model or "").lower()
    facts = _merged(_file_rows(), provider, name)
    for key in ("prefix", "since"):  # those of profiles.toml, where there is a row
        facts.pop(key, None)
    return ModelProfile(**{"provider": provider, **facts, **_merged(_table()["profile"], provider, name)})


def _merged(table: Iterable[Mapping[str, Any]], provider: str, name: str) -> dict[str, Any]:
    """Return the facts of all rows that match."""
    rows = [row for row in table if row["provider"] == provider and _begins(name, row.get("prefix", ""))]
    facts: dict[str, Any] = {}
    # ``sorted`` is stable: of two rows with equal prefixes, the later one in the file wins.
    for row in sorted(rows, key=lambda row: len(row.get("prefix", ""))):
        facts |= row
    return facts


def api_for_tools(request: GenerateRequest, api: Api, *, chosen: Api | None) -> Api:
    """Return the API for a request to OpenAI's models at an address that speaks Chat Completions by default.

    Args:
        request: the fitted request.
        api: the API that the model is used by otherwise.
        chosen: the API that the user chose, which always holds.
    """
    model = request.model or ""
    if chosen is not None or not request.tools or _TOOLS_NEED_RESPONSES.match(model) is None:
        return api
    effort = None if request.reasoning is None else request.reasoning.effort
    reasons = profile_for("openai", model).reasons if effort is None else effort is not Effort.NONE
    return Api.RESPONSES if reasons else api


def is_known(provider: str) -> bool:
    """Return True if there is a row for the provider."""
    return any(row["provider"] == provider for row in _table()["profile"])


def _begins(name: str, prefix: str) -> bool:
    """Return True if a name begins with a prefix, and a word of it ends there: ``o30`` does not begin with ``o3``."""
    return name.startswith(prefix) and not (prefix and name[len(prefix) : len(prefix) + 1].isalnum())


def default_model(provider: str) -> str | None:
    """Return the model that a provider uses by default; None if the caller must name one."""
    model: str | None = _table()["defaults"].get(provider)
    return model


def default_model_of(cls: type) -> str | None:
    """Return the default model of a provider's class, if the class sets a name of its own."""
    name = vars(cls).get("name")
    return default_model(name) if isinstance(name, str) else None


def family_of(cls: type) -> str:
    """Return the name whose profiles apply to a class: its own, or that of the nearest ancestor with rows."""
    names = [vars(base).get("name") for base in cls.__mro__]
    return next((name for name in names if isinstance(name, str) and is_known(name)), "")
