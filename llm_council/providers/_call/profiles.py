"""Facts about model families, as rows of ``profiles.toml``: a new model is one dated row, never an ``if``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import attrs

from llm_council.models._attrs import as_tuple, strict_init
from llm_council.models.request import Effort

__all__ = [
    "Api",
    "ModelProfile",
    "Sampling",
    "default_model",
    "default_model_of",
    "family_of",
    "is_known",
    "profile_for",
]


class Api(StrEnum):
    """By which of OpenAI's APIs a model is spoken to."""

    CHAT = "chat"
    RESPONSES = "responses"


class Sampling(StrEnum):
    """When a model takes ``temperature`` and ``top_p``."""

    ALWAYS = "always"
    NEVER = "never"
    WITHOUT_REASONING = "without-reasoning"


def _efforts(words: Any) -> tuple[Effort, ...]:
    return tuple(Effort(word) for word in as_tuple(words))


@strict_init
@attrs.frozen(kw_only=True)
class ModelProfile:
    """What a model takes. The defaults are those of a model that nothing is known of: everything, as asked.

    Attributes:
        provider: the provider that the row speaks of; empty is every one.
        prefix: the beginning of the names of the models it speaks of; empty is every one.
        since: the day on which the facts were last checked, ``YYYY-MM-DD``.
        api: the API that a provider with several takes for the model.
        token_field: how the most tokens of an answer are spelled on the wire.
        max_output: most tokens of an answer; None is unknown.
        sampling: when temperature and top_p are taken.
        max_temperature: the highest temperature that is taken; None is unknown.
        stop: whether stop texts are taken.
        max_stops: how many; None is unknown.
        efforts: the words of effort that are taken; empty when reasoning cannot be controlled.
        reasons: whether the model reasons when nothing is said about it.
        reasoning_budget: whether a budget of reasoning tokens is taken.
        reasoning_style: how reasoning is spelled, in a word of the dialect: OpenAI's is one of ``ReasoningStyle``,
            where ``"effort"`` is ``reasoning_effort``; Ollama's is ``"switch"`` or ``"level"``.
        system_role: the role of instructions: ``"system"``, ``"developer"``, or ``"user"`` where there is none.
        structured: the strongest constraint on answers: ``"json_schema"``, ``"json_object"`` or ``"none"``.
        strict_schema: whether a schema must be projected to the vendor's strict subset to be enforced.
        images: whether turns may hold images.
        image_urls: whether those may be addresses.
        tools: whether tools may be offered.
        tool_choice: whether a tool may be forced or forbidden.
        named_tool_choice: whether one tool may be forced by name.
        prompt_cache: how the vendor caches a stable prefix: ``"marks"``, ``"automatic"`` or ``"none"``.
        prose_first: whether the model is so small that it must answer in prose before it is held to a schema.
    """

    provider: str = ""
    prefix: str = ""
    since: str = ""
    api: Api = attrs.field(default=Api.CHAT, converter=Api)
    token_field: str = "max_tokens"  # noqa: S105
    max_output: int | None = None
    sampling: Sampling = attrs.field(default=Sampling.ALWAYS, converter=Sampling)
    max_temperature: float | None = None
    stop: bool = True
    max_stops: int | None = None
    efforts: tuple[Effort, ...] = attrs.field(default=tuple(Effort), converter=_efforts)
    reasons: bool = False
    reasoning_budget: bool = True
    reasoning_style: str = "effort"
    system_role: str = "system"
    structured: str = "json_schema"
    strict_schema: bool = False
    images: bool = True
    image_urls: bool = True
    tools: bool = True
    tool_choice: bool = True
    named_tool_choice: bool = True
    prompt_cache: str = "marks"
    prose_first: bool = False


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("profiles.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=512)
def profile_for(provider: str, model: str | None) -> ModelProfile:
    """Return what is known of a provider's model.

    Every row that matches counts, the longest prefix last: a row says only what differs from the shorter one.

    Args:
        provider: the provider's name.
        model: the vendor's name of the model; None knows only the provider.
    """
    name = (model or "").lower()
    rows = [
        (len(row.get("prefix", "")), index)
        for index, row in enumerate(_table()["profile"])
        if row["provider"] == provider and _begins(name, row.get("prefix", ""))
    ]
    return _merged(provider, tuple(index for _, index in sorted(rows)))


@cache
def _merged(provider: str, rows: tuple[int, ...]) -> ModelProfile:
    facts: dict[str, Any] = {"provider": provider}
    for index in rows:
        facts.update(_table()["profile"][index])
    return ModelProfile(**facts)


def is_known(provider: str) -> bool:
    """Tell whether there is a row for a provider."""
    return any(row["provider"] == provider for row in _table()["profile"])


def _begins(name: str, prefix: str) -> bool:
    """Tell whether a name begins with a prefix that ends where a word of it ends: ``o3`` is not in ``o30``."""
    return name.startswith(prefix) and not (prefix and name[len(prefix) : len(prefix) + 1].isalnum())


def default_model(provider: str) -> str | None:
    """Return the model that a provider uses when none is named; None where the caller must name one."""
    model: str | None = _table()["defaults"].get(provider)
    return model


def default_model_of(cls: type) -> str | None:
    """Return the model that a class of providers uses when none is named, if it has a name of its own."""
    name = vars(cls).get("name")
    return default_model(name) if isinstance(name, str) else None


def family_of(cls: type) -> str:
    """Return the nearest name in a class's ancestry that profiles have rows for: a subclass is of its parent's kind."""
    names = [vars(base).get("name") for base in cls.__mro__]
    return next((name for name in names if isinstance(name, str) and is_known(name)), "")
