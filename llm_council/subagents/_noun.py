"""What a subagent is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from llm_council.errors import InvalidOption
from llm_council.models._attrs import as_dict, as_tuple, non_negative, optional, positive_int, strict_init
from llm_council.models.deliberation import RolePrompts

__all__ = ["NAME", "Preferences", "Subagent", "SubagentInfo"]

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a subagent or a mode may be called."""


def _name(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidOption(f"{attribute.name}: 1 to 64 letters, digits, '-' or '_', got {value!r:.80}")


@strict_init
@attrs.frozen(kw_only=True)
class Preferences:
    """How a subagent likes to be run; what the caller or the configuration says goes first.

    Attributes:
        temperature: sampling temperature; None leaves it to the model.
        max_tokens: most tokens of one answer; None leaves it to the model.
        critique: whether peers criticise the drafts before the chair decides.
    """

    temperature: float | None = attrs.field(default=None, validator=optional(non_negative))
    max_tokens: int | None = attrs.field(default=None, validator=optional(positive_int))
    critique: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))


@strict_init
@attrs.frozen(kw_only=True)
class Subagent:
    """A role for one run: its words, the shape of its answer, how it likes to be run.

    Attributes:
        name: canonical name: ``drafter`` for what was loaded as ``implementer``.
        mode: the variant; None where there is none.
        title: its name for people.
        description: what it is for, in one sentence.
        prompts: its words for each phase, without those that all subagents share.
        schema: JSON Schema of the answer; None for free text.
        preferences: how it likes to be run.
        source: where it comes from: ``"built-in"``, a file's path or a distribution's name.
    """

    name: str = attrs.field(validator=_name)
    mode: str | None = attrs.field(default=None, validator=attrs.validators.optional(_name))
    title: str = ""
    description: str = ""
    prompts: RolePrompts = RolePrompts()
    schema: Mapping[str, Any] | None = attrs.field(default=None, converter=attrs.converters.optional(as_dict))
    preferences: Preferences = Preferences()
    source: str = ""


@strict_init
@attrs.frozen(kw_only=True)
class SubagentInfo:
    """A line of the list of subagents.

    Attributes:
        name: canonical name.
        description: what it is for, in one sentence.
        modes: its variants, the default first; empty where it has none.
        aliases: other names, each with the mode it stands for.
        source: where it comes from: ``"built-in"``, a file's path or a distribution's name.
        error: why it cannot be loaded; None for one that can.
    """

    name: str
    description: str = ""
    modes: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    aliases: Mapping[str, str | None] = attrs.field(factory=dict, converter=as_dict)
    source: str = ""
    error: str | None = None
