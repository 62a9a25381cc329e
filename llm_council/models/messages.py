"""Messages of a conversation and their parts."""

from __future__ import annotations

import base64
import json
import mimetypes
import secrets
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeAlias

import attrs

from llm_council.errors import InvalidOption
from llm_council.models._attrs import as_dict, as_tuple, strict_init, string
from llm_council.models._lenient_json import read_arguments

__all__ = [
    "AudioPart",
    "DocumentPart",
    "ImagePart",
    "Message",
    "Part",
    "ReasoningPart",
    "Role",
    "TextPart",
    "ToolCall",
    "new_call_id",
    "registered_type",
]


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


def _as_base64(value: str | bytes | None) -> str | None:
    """Return data in base64: bytes are encoded, a string is taken for base64."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    raise InvalidOption(f"data: bytes, or a string in base64, got {type(value).__name__}")


# Names that are in use beside the registered ones (IANA, "Media Types").
_MEDIA_TYPES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "application/x-pdf": "application/pdf",
    "audio/mp3": "audio/mpeg",
    "audio/x-mp3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-flac": "audio/flac",
    "audio/x-aiff": "audio/aiff",
    "audio/x-m4a": "audio/mp4",
    "audio/m4a": "audio/mp4",
}


def registered_type(value: str | None) -> str | None:
    """Return the registered name of a media type, in lower case and without parameters."""
    if not isinstance(value, str):
        return value
    name = value.partition(";")[0].strip().lower()
    return _MEDIA_TYPES.get(name, name)


def _check_source(part: Any, default: str | None) -> None:
    """Split a ``data:`` URL into data and media type, and check that a part has one source.

    Args:
        part: the frozen part, which is completed.
        default: the media type of a ``data:`` URL without one; None requires it.
    """
    name = type(part).__name__
    # Vendors take data in a field of its own; only OpenAI's dialects take it in a URL.
    if part.url is not None and part.url.startswith("data:") and part.data is None:
        head, comma, data = part.url[5:].partition(",")
        media_type, *options = head.split(";")
        if not comma or "base64" not in options:
            raise InvalidOption(f"{name}.url: a data: URL must read data:<media type>;base64,<data>")
        object.__setattr__(part, "url", None)  # attrs' own way to finish a frozen instance
        object.__setattr__(part, "data", data)
        object.__setattr__(part, "media_type", registered_type(media_type) or default)
    if (part.url is None) == (part.data is None):
        raise InvalidOption(f"{name} takes either url or data")
    if part.data is not None and not part.media_type:
        raise InvalidOption(f'{name}.data needs media_type, such as "{_EXAMPLES[name]}"')


_EXAMPLES = {"ImagePart": "image/png", "DocumentPart": "application/pdf", "AudioPart": "audio/wav"}


@strict_init
@attrs.frozen(kw_only=True)
class ImagePart:
    """An image in a message: a URL, or data with a media type. The library never fetches a URL.

    Attributes:
        url: ``https://...``, or a ``data:`` URL, which is split into the next two fields.
        data: the image: bytes, which are encoded, or a string in base64.
        media_type: such as ``"image/png"``; required with ``data``. ``image/jpg`` is stored as ``image/jpeg``.
        detail: ``"auto"``, ``"low"`` or ``"high"``, where the vendor supports it.
    """

    url: str | None = None
    data: str | None = attrs.field(default=None, converter=_as_base64, repr=False)
    media_type: str | None = attrs.field(default=None, converter=registered_type)
    detail: str | None = None

    def __attrs_post_init__(self) -> None:
        _check_source(self, "image/png")


@strict_init
@attrs.frozen(kw_only=True)
class DocumentPart:
    """A document in a message, such as a PDF: a URL, or data with a media type. The library never fetches a URL.

    Attributes:
        url: ``https://...``, where the vendor takes addresses, or a ``data:`` URL.
        data: the document: bytes, which are encoded, or a string in base64.
        media_type: such as ``"application/pdf"`` or ``"text/plain"``; required with ``data``.
        name: the file's name, where the vendor shows it to the model; None takes ``document`` with a fitting ending.
    """

    url: str | None = None
    data: str | None = attrs.field(default=None, converter=_as_base64, repr=False)
    media_type: str | None = attrs.field(default=None, converter=registered_type)
    name: str | None = None

    def __attrs_post_init__(self) -> None:
        _check_source(self, "application/pdf")

    @property
    def filename(self) -> str:
        """The file's name: the given one, that in the URL, or a made-up one with the ending of the media type."""
        found = self.name or (self.url or "").partition("?")[0].rpartition("/")[2]
        if found:
            return found
        ending = mimetypes.guess_extension(self.media_type or "") or ".bin"
        return f"document{ending}"


@strict_init
@attrs.frozen(kw_only=True)
class AudioPart:
    """Sound in a message: data with a media type, or a URL where the vendor takes addresses.

    Attributes:
        url: ``https://...``, or a ``data:`` URL.
        data: the sound: bytes, which are encoded, or a string in base64.
        media_type: such as ``"audio/wav"`` or ``"audio/mpeg"``; required with ``data``. ``audio/mp3`` is stored as
            ``audio/mpeg``.
    """

    url: str | None = None
    data: str | None = attrs.field(default=None, converter=_as_base64, repr=False)
    media_type: str | None = attrs.field(default=None, converter=registered_type)

    def __attrs_post_init__(self) -> None:
        _check_source(self, None)

    @property
    def format(self) -> str:
        """The short name of the format, such as ``wav`` or ``mp3``, as OpenAI's dialects write it."""
        kind = (self.media_type or "").partition("/")[2]
        return {"mpeg": "mp3", "mp4": "m4a"}.get(kind, kind)


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


Part: TypeAlias = TextPart | ImagePart | DocumentPart | AudioPart | ReasoningPart
_KINDS = (TextPart, ImagePart, DocumentPart, AudioPart, ReasoningPart)


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
            ValueError: the arguments are not a JSON object of finite numbers, or can be read in two ways.
        """
        try:
            return read_arguments(self.arguments)
        except json.JSONDecodeError:
            raise
        except ValueError:
            raise ValueError(f"the arguments of {self.name!r} are not a JSON object") from None


def new_call_id(index: int) -> str:
    """Return an id for a tool call of a server that gives none.

    It differs from those of other turns and other servers: Anthropic refuses a conversation in which an id repeats.

    Args:
        index: which call of the answer it is, from 0.
    """
    return f"call_{index}{_distinct()}"


def _distinct() -> str:
    return f"_{secrets.token_hex(8)}"


def _content(value: str | Iterable[Part] | None) -> str | tuple[Part, ...]:
    """Normalise content: text without cache marks becomes a plain string, as adapters for simple vendors expect."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = tuple(TextPart(text=part) if isinstance(part, str) else part for part in as_tuple(value))
    for part in parts:
        if not isinstance(part, _KINDS):
            known = ", ".join(kind.__name__ for kind in _KINDS)
            raise InvalidOption(f"Message.content: parts are {known}, got {part!r:.80}")
    if all(isinstance(part, TextPart) and not part.cache for part in parts):
        return "".join(part.text for part in parts if isinstance(part, TextPart))
    return parts


def _role(value: Any) -> str:
    if type(value) is Role:
        return value
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
        """The text without images, documents, sound and reasoning."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))
