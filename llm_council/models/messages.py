"""Messages of a conversation and their parts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeAlias

import attrs

from llm_council.errors import InvalidOption
from llm_council.models._attrs import as_dict, as_tuple, strict_init, string
from llm_council.models._lenient_json import read_arguments

__all__ = ["ImagePart", "Message", "Part", "ReasoningPart", "Role", "TextPart", "ToolCall"]


class Role(StrEnum):
    """The author of a message."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@strict_init
@attrs.frozen(kw_only=True)
class TextPart:
    """Text in a message.

    Attributes:
        text: the text.
        cache: mark the end of the prefix that the vendor should cache, where it supports such marks.
    """

    text: str = attrs.field(validator=string)
    cache: bool = False


@strict_init
@attrs.frozen(kw_only=True)
class ImagePart:
    """An image in a message: a URL, or data with a media type. The library never fetches a URL.

    Attributes:
        url: ``https://...``, or a ``data:`` URL, which is split into the next two fields.
        data: the image in base64.
        media_type: such as ``"image/png"``; required with ``data``.
        detail: ``"auto"``, ``"low"`` or ``"high"``, where the vendor supports it.
    """

    url: str | None = None
    data: str | None = attrs.field(default=None, repr=False)
    media_type: str | None = None
    detail: str | None = None

    def __attrs_post_init__(self) -> None:
        # Vendors take an image's data in a field of its own; only OpenAI's dialects take it in a URL.
        if self.url is not None and self.url.startswith("data:") and self.data is None:
            head, comma, data = self.url[5:].partition(",")
            media_type, *options = head.split(";")
            if not comma or "base64" not in options:
                raise InvalidOption("ImagePart.url: a data: URL must read data:<media type>;base64,<data>")
            object.__setattr__(self, "url", None)  # attrs' own way to finish a frozen instance
            object.__setattr__(self, "data", data)
            object.__setattr__(self, "media_type", media_type or "image/png")
        if (self.url is None) == (self.data is None):
            raise InvalidOption("ImagePart takes either url or data")
        if self.data is not None and not self.media_type:
            raise InvalidOption('ImagePart.data needs media_type, such as "image/png"')


@strict_init
@attrs.frozen(kw_only=True)
class ReasoningPart:
    """A model's reasoning, to be sent back to the vendor that signed it.

    Attributes:
        text: the readable reasoning; empty if the vendor hides it.
        signature: the vendor's signature of the reasoning.
        vendor: the dialect it came from. It is sent back to that dialect only.
        data: the vendor's own block, unchanged, if it has more than text and signature.
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
    """A tool call that the model asks for.

    Attributes:
        id: the vendor's id; the tool's result refers to it.
        name: the tool's name.
        arguments: JSON text as the model wrote it; may be empty or invalid. A mapping is encoded as JSON.
        extra: vendor-specific fields, such as a thought signature.
    """

    id: str
    name: str
    arguments: str = attrs.field(default="", converter=_arguments)
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)

    def parse(self) -> dict[str, Any]:
        """Return the arguments as a dict; empty text is an empty dict.

        A placeholder before the arguments, lone backslashes and trailing commas are read as they were meant.

        Raises:
            ValueError: the arguments are not a JSON object, or can be read in two ways.
        """
        try:
            return read_arguments(self.arguments)
        except ValueError:
            raise ValueError(f"the arguments of {self.name!r} are not a JSON object") from None


def _content(value: str | Iterable[Part] | None) -> str | tuple[Part, ...]:
    """Normalise content: text without cache marks becomes a plain string, as adapters for simple vendors expect."""
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
    """One message of a conversation.

    Attributes:
        role: a ``Role``. Another string is stored as it is, for vendors with roles of their own.
        content: a string, or a tuple of parts; text alone is always a string.
        name: the author's name, where the vendor supports it; for a tool's result, the tool's name.
        tool_calls: the tool calls of an assistant message.
        tool_call_id: for a tool's result, the id of the call.
    """

    role: str = attrs.field(converter=_role)
    content: str | tuple[Part, ...] = attrs.field(default="", converter=_content)
    # Role and content may be positional, so the others are marked one by one.
    name: str | None = attrs.field(default=None, kw_only=True)
    tool_calls: tuple[ToolCall, ...] = attrs.field(default=(), converter=as_tuple, kw_only=True)
    tool_call_id: str | None = attrs.field(default=None, kw_only=True)

    @property
    def text(self) -> str:
        """The text without images and reasoning."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))
