"""Files that the caller attaches to a task: text, images, documents and sound."""

from __future__ import annotations

import base64
import hashlib
import re
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

import attrs

from llm_council.errors import InvalidOption
from llm_council.errors._visible import visible
from llm_council.models._attrs import optional, strict_init, string
from llm_council.models._media_types import EXTENSIONS, kind_of, media_type_of, name_refused
from llm_council.models.messages import AudioPart, DocumentPart, ImagePart, registered_type

__all__ = ["MAX_BYTES", "Attachment", "shown_name"]

MAX_BYTES: Final = 50_000_000
"""Most bytes of an image, a document or sound. No vendor takes a larger file in a request."""

# Longer than one letter before the colon: ``C:`` is a drive of Windows.
_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+://|data:)")


@strict_init
@attrs.frozen(init=False, kw_only=True)
class Attachment:
    """A file for the seats of a run: text that they read, or an image, a document or sound that they see or hear.

    What a file is depends on its content, never on its name. ``Attachment(b"...")``, ``Attachment("photo.png")`` and
    the keywords ``data`` and ``path`` mean the same. A path is read when a run is planned.

    Args:
        source: bytes, or the path of a file.
        data: bytes, in place of ``source``.
        path: the path of a file, likewise.
        text: text, likewise.
        media_type: such as ``"image/png"``, for content that is not recognised; it must agree with content that is.
        name: the name that the models see; None is the path, or a name by the type, such as ``"image.png"``.

    Attributes:
        name: the name.
        text: the text; None for other files.
        data: the bytes of an image, a document or sound; None for text, for a path that was not read, and in the plan
            of a stored run. They are not part of events, results and plans that are written as JSON.
        path: a path that was not read yet; else None.
        media_type: the type of the bytes; None for text.
        size: the number of bytes; None for text.
        sha256: their hash, as hexadecimal digits; None for text.

    Raises:
        InvalidOption: there is no source or several, an address is given for a path, or the bytes are neither text in
            UTF-8 nor an image, a PDF or sound.
    """

    name: str = attrs.field(validator=string)
    text: str | None = attrs.field(default=None, validator=optional(string))
    # Two attachments are equal if the hashes are: a stored plan has the hash alone.
    data: bytes | None = attrs.field(default=None, repr=False, eq=False)
    path: str | None = None
    media_type: str | None = None
    size: int | None = None
    sha256: str | None = None
    # Filled by the first part, so that all requests share one string.
    _base64: list[str] = attrs.field(init=False, factory=list, repr=False, eq=False)

    def __init__(
        self,
        source: bytes | str | PathLike[str] | None = None,
        /,
        *,
        data: bytes | None = None,
        path: str | PathLike[str] | None = None,
        text: str | None = None,
        media_type: str | None = None,
        name: str | None = None,
        size: int | None = None,
        sha256: str | None = None,
    ) -> None:
        if isinstance(source, bytes | bytearray | memoryview):
            data = _only(data, bytes(source))
        elif source is not None:
            path = _only(path, source)
        given = [value is not None for value in (data, path, text, sha256 if data is None else None)]
        if sum(given) != 1:
            raise InvalidOption("an attachment takes one of data, path and text")
        if path is not None:
            path = _checked_path(path)
        media_type = registered_type(media_type)
        if data is not None:
            if not isinstance(data, bytes | bytearray | memoryview):
                raise InvalidOption(f"Attachment.data: bytes, got {type(data).__name__}; a path goes into path=")
            data, text, media_type = _read(bytes(data), media_type, shown_name(name or "the attachment"))
        if data is not None:
            size, sha256 = len(data), hashlib.sha256(data).hexdigest()
        self.__attrs_init__(
            name=name if name is not None else path or _default_name(media_type),
            text=text,
            data=data,
            path=path,
            media_type=media_type,
            size=size,
            sha256=sha256,
        )

    @property
    def kind(self) -> str:
        """``"text"``, ``"image"``, ``"document"`` or ``"audio"``; ``"unread"`` for a path that was not read."""
        if self.path is not None:
            return "unread"
        return "text" if self.media_type is None else kind_of(self.media_type) or "document"

    def part(self) -> ImagePart | DocumentPart | AudioPart:
        """Return an image, a document or sound as the part of a message.

        Raises:
            InvalidOption: there is no data: it is text, was not read, or comes from a stored plan.
        """
        if self.data is None:
            raise InvalidOption(f"{self.name}: there is no data for a message")
        if not self._base64:
            self._base64.append(base64.b64encode(self.data).decode())
        facts: dict[str, Any] = {"data": self._base64[0], "media_type": self.media_type}
        if self.kind == "image":
            return ImagePart(**facts)
        if self.kind == "audio":
            return AudioPart(**facts)
        return DocumentPart(**facts, name=self.file_name)

    @property
    def file_name(self) -> str:
        """The last part of the name, without the folders that lead to the file."""
        return Path(self.name.replace("\\", "/")).name or self.name


def shown_name(name: str) -> str:
    """Return the name of a file for a message: in one line, with visible control characters."""
    return visible(name).replace("\n", "\u2424")


def _only(value: Any, source: Any) -> Any:
    if value is not None:
        raise InvalidOption("an attachment takes one of data, path and text")
    return source


def _checked_path(path: object) -> str:
    if not isinstance(path, str | PathLike):
        raise InvalidOption(f"files: expected a path, bytes or an Attachment, got {path!r:.80}")
    name = fspath(path)
    if not name:
        raise InvalidOption("files: expected a path, got an empty text")
    if isinstance(path, str) and _ADDRESS.match(path):
        raise InvalidOption(f"files: {path!r:.80} is an address, and none is fetched: save the file, and give its path")
    return str(name)


def _read(data: bytes, media_type: str | None, name: str) -> tuple[bytes | None, str | None, str | None]:
    """Return bytes with their type, or the text that they are: data, text and media type.

    Raises:
        InvalidOption: they are neither text nor a known type, are not what ``media_type`` says, or are too large.
    """
    found = media_type_of(data)
    if found is not None and media_type is not None and not _agree(found, media_type):
        raise InvalidOption(f"files: {name} is {found} by its content, not {media_type}: leave media_type out")
    named = media_type or found
    if named is None or kind_of(named) == "text":
        try:
            if b"\0" not in data:  # UTF-8, but archives, programs and videos may consist of nothing else
                return None, data.decode("utf-8-sig"), None  # editors on Windows write a byte order mark
        except UnicodeDecodeError:
            pass
        known = name_refused(data)
        if known is not None:
            raise InvalidOption(f"files: {name} is not UTF-8 text, but {known}")
        raise InvalidOption(
            f"files: {name} is not UTF-8 text, and no image, PDF or sound that is known; save it as one of these,"
            " or leave it out"
        )
    if kind_of(named) is None:
        raise InvalidOption(f"files: {name}: expected text, an image, a PDF or sound, got the type {named!r:.80}")
    if not data:
        raise InvalidOption(f"files: {name} is empty")
    if len(data) > MAX_BYTES:
        raise InvalidOption(
            f"files: {name} has {len(data):,} bytes, and at most {MAX_BYTES:,} are sent; give a smaller one"
        )
    return data, None, named


def _agree(found: str, named: str) -> bool:
    # A caller may know better which of two near types a container holds.
    return found == named or {found, named} <= {"image/heic", "image/heif"}


def _default_name(media_type: str | None) -> str:
    if media_type is None:
        return "attachment.txt"
    return f"{kind_of(media_type) or 'attachment'}.{EXTENSIONS.get(media_type, 'bin')}"
