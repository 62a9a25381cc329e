"""Read the files that the caller attaches to a task. A run reads no other files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from llm_council.errors import InvalidOption
from llm_council.models import Attachment, Limits
from llm_council.models._media_types import kind_of, media_type_of
from llm_council.models.attachments import MAX_BYTES, shown_name

__all__ = ["find_empty", "read_fault", "read_files"]


def read_files(files: Sequence[str | PathLike[str] | bytes | Attachment], limits: Limits) -> tuple[Attachment, ...]:
    """Return the files with their contents.

    Args:
        files: paths, bytes and attachments. What a file is depends on its content, never on its name.
        limits: ``body`` is the maximum size of a text file in bytes.

    Raises:
        InvalidOption: a file cannot be read or is too large, is an address, or is neither UTF-8 text nor an image, a
            PDF or sound.
    """
    if isinstance(files, str | bytes | PathLike | Attachment) or not isinstance(files, Iterable):
        raise InvalidOption(f"files: expected a list of paths, got {files!r:.80}; put it in a list")
    given = list(files)
    if any(file is None for file in given):
        raise InvalidOption("files: expected a path, bytes or an Attachment, got None")
    return tuple(_read(file if isinstance(file, Attachment) else Attachment(file), limits) for file in given)


def find_empty(files: Iterable[Attachment]) -> tuple[str, ...]:
    """Return a warning for each text file that holds nothing."""
    return tuple(
        f"the file {shown_name(one.name)} is empty" for one in files if one.text is not None and not one.text.strip()
    )


def read_fault(error: OSError) -> str:
    """Return why a file cannot be read, with the remedy."""
    remedy = "check the path"
    if isinstance(error, IsADirectoryError):
        remedy = "name a file in it"
    elif isinstance(error, PermissionError):
        remedy = "change its permissions, or name another file"
    return f"{error.strerror}; {remedy}"


def _read(file: Attachment, limits: Limits) -> Attachment:
    if file.path is None:
        if file.text is None and file.data is None:
            raise InvalidOption(
                f"files: {shown_name(file.name)} is the file of a stored plan, without its bytes; name it anew"
            )
        if file.text is not None and len(file.text.encode("utf-8", "replace")) > limits.body:
            raise _too_large(file.name, limits)
        return file
    path = Path(file.path)
    try:
        with path.open("rb") as opened:
            data = opened.read(max(limits.body, MAX_BYTES) + 1)  # one more byte than allowed shows that it is too large
    except OSError as error:
        raise InvalidOption(f"files: cannot read {shown_name(str(path))}: {read_fault(error)}") from None
    except ValueError:  # a null byte, or half of a surrogate pair
        raise InvalidOption(f"files: {file.path!r:.80} is no path: it has a character that no path may have") from None
    is_text = kind_of(media_type_of(data) or file.media_type or "text/plain") == "text"
    if is_text and len(data) > limits.body:  # checked first: the cut may be in the middle of a character
        raise _too_large(str(path), limits)
    return Attachment(data, media_type=file.media_type, name=file.name)


def _too_large(name: str, limits: Limits) -> InvalidOption:
    size = f"{limits.body // 1024**2} MiB" if limits.body % 1024**2 == 0 else f"{limits.body:,} bytes"
    return InvalidOption(f"files: {shown_name(name)} is larger than {size}; give a part of it, or raise limits.body")
