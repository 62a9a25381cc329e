"""Turns of a conversation, and what they are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeAlias

import attrs

from llm_council.errors import InvalidOption
from llm_council.models._attrs import as_dict, as_tuple, strict_init, string

__all__ = ["ImagePart", "Message", "Part", "ReasoningPart", "Role", "TextPart", "ToolCall"]


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@strict_init
@attrs.frozen(kw_only=True)
class TextPart:
    """Text inside a turn.

    Attributes:
        text: the text.
        cache: mark the end of a stable prefix here, for vendors that take such marks.
    """

    text: str = attrs.field(validator=string)
    cache: bool = False


@strict_init
@attrs.frozen(kw_only=True)
class ImagePart:
    """An image inside a turn: an address, or data with its media type. The library never fetches an address.

    Attributes:
        url: ``https://...``, or a ``data:`` URL, which is taken apart into the two fields below.
        data: the bytes in base64.
        media_type: such as ``"image/png"``; required with ``data``.
        detail: ``"auto"``, ``"low"`` or ``"high"``, where the vendor takes it.
    """

    url: str | None = None
    data: str | None = attrs.field(default=None, repr=False)
    media_type: str | None = None
    detail: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.url is not None and self.url.startswith("data:") and self.data is None:
            head, comma, data = self.url[5:].partition(",")
            media_type, *options = head.split(";")
            if not comma or "base64" not in options:
                raise InvalidOption("ImagePart.url: a data: URL must read data:<media type>;base64,<data>")
            object.__setattr__(self, "url", None)
            object.__setattr__(self, "data", data)
            object.__setattr__(self, "media_type", media_type or "image/png")
        if (self.url is None) == (self.data is None):
            raise InvalidOption("ImagePart takes either url or data")
        if self.data is not None and not self.media_type:
            raise InvalidOption('ImagePart.data needs media_type, such as "image/png"')


@strict_init
@attrs.frozen(kw_only=True)
class ReasoningPart:
    """A model's reasoning, kept so that it can be sent back to the vendor that signed it.

    Attributes:
        text: the readable reasoning; empty where the vendor hides it.
        signature: the vendor's signature over it.
        vendor: the dialect that it came from; other dialects leave it out.
        data: the vendor's own block, unchanged, where text and signature do not say it all.
    """

    text: str = attrs.field(default="", validator=string)
    signature: str | None = None
    vendor: str | None = None
    data: Mapping[str, Any] | None = attrs.field(default=None, converter=attrs.converters.optional(as_dict))


Part: TypeAlias = TextPart | ImagePart | ReasoningPart


def _arguments(value: str | Mapping[str, Any] | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@strict_init
@attrs.frozen(kw_only=True)
class ToolCall:
    """A model's wish to have a tool called.

    Attributes:
        id: the vendor's id, to which the tool's result refers.
        name: the tool's name.
        arguments: JSON text as the model wrote it, which may be empty or invalid; a mapping given here is encoded.
        extra: the vendor's own additions, a thought signature for one.
    """

    id: str
    name: str
    arguments: str = attrs.field(default="", converter=_arguments)
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)

    def parse(self) -> dict[str, Any]:
        """Return the arguments as a dict; none at all is an empty one.

        Raises:
            ValueError: the model wrote something else than a JSON object.
        """
        value = json.loads(self.arguments) if self.arguments.strip() else {}
        if value is None:  # how some models write that there are none
            value = {}
        if not isinstance(value, dict):
            raise ValueError(f"the arguments of {self.name!r} are not a JSON object")
        return value


def _content(value: str | Iterable[Part] | None) -> str | tuple[Part, ...]:
    """Keep text as text: adapters written for plain strings encode it as it is."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = tuple(TextPart(text=part) if isinstance(part, str) else part for part in as_tuple(value))
    for part in parts:
        if not isinstance(part, TextPart | ImagePart | ReasoningPart):
            raise InvalidOption(f"Message.content: parts are TextPart, ImagePart or ReasoningPart, got {part!r:.80}")
    if all(isinstance(part, TextPart) and not part.cache for part in parts):
        return "".join(part.text for part in parts if isinstance(part, TextPart))
    return parts


def _role(value: Any) -> str:
    try:
        return Role(value)
    except ValueError:
        if isinstance(value, str) and value:
            return value
        raise InvalidOption(f"Message.role: one of {', '.join(Role)}, got {value!r:.80}") from None


@strict_init
@attrs.frozen
class Message:
    """One turn.

    Attributes:
        role: a ``Role``; another word is kept as it is.
        content: a string, or a tuple of parts; content that is text alone is always a string.
        name: the speaker's name, where the vendor takes one; for a tool's result, the tool's name.
        tool_calls: the calls that an assistant's turn asked for.
        tool_call_id: for a tool's result, the id of the call it answers.
    """

    role: str = attrs.field(converter=_role)
    content: str | tuple[Part, ...] = attrs.field(default="", converter=_content)
    name: str | None = attrs.field(default=None, kw_only=True)
    tool_calls: tuple[ToolCall, ...] = attrs.field(default=(), converter=as_tuple, kw_only=True)
    tool_call_id: str | None = attrs.field(default=None, kw_only=True)

    @property
    def text(self) -> str:
        """The turn's text without images and reasoning."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))
