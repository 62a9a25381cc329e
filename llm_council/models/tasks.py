"""A task of ``Council.map``: its text, and what differs from task to task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

import attrs

from llm_council.errors import InvalidOption, UnknownOption
from llm_council.models._attrs import as_dict, as_tuple, must_be, optional, strict_init, string
from llm_council.models.attachments import Attachment

__all__ = ["Task"]

_text = must_be("text that is not empty", lambda value: isinstance(value, str) and value.strip() != "")


def _as_id(value: Any) -> Any:
    """Return a whole number as text: rows of tables and JSON number their records."""
    return str(value) if type(value) is int else value


def _as_files(value: Iterable[str | PathLike[str] | bytes | Attachment] | None) -> tuple[Attachment, ...]:
    """Convert paths and bytes to attachments; a path is not read yet."""
    try:
        return tuple(file if isinstance(file, Attachment) else Attachment(file) for file in as_tuple(value))
    except InvalidOption as error:
        raise error._reword(f"Task.files: {error.message}") from None


def _as_metadata(value: Any) -> dict[str, Any]:
    try:
        return as_dict(value)
    except InvalidOption as error:
        raise error._reword(f"Task.metadata: {error.message}") from None


@strict_init
@attrs.frozen(slots=False)
class Task:
    """One task of many. ``Task("What is 6 times 7?", id="q-17")``.

    Attributes:
        task: the task.
        id: the name under which its result is found, as ``CouncilResult.task_id``; a whole number is stored as text.
            None is the place of the task among all tasks, counted from 0.
        subagent: the name of the role for this task; None is that of all tasks.
        context: further text for every seat; None likewise.
        files: files for every seat, beside those of all tasks. Paths and bytes become attachments; a path is read when
            the run is planned.
        metadata: data of the caller, returned as ``CouncilResult.metadata``, beside that of all tasks.

    Raises:
        InvalidOption: a value is wrong; the message names it.
    """

    task: str = attrs.field(validator=_text)
    id: str | None = attrs.field(default=None, converter=_as_id, validator=optional(_text), kw_only=True)
    subagent: str | None = attrs.field(default=None, validator=optional(string), kw_only=True)
    context: str | None = attrs.field(default=None, validator=optional(string), kw_only=True)
    files: tuple[Attachment, ...] = attrs.field(default=(), converter=_as_files, kw_only=True)
    metadata: Mapping[str, Any] = attrs.field(factory=dict, converter=_as_metadata, kw_only=True)

    @classmethod
    def of(cls, given: object) -> Task:
        """Return a task as it is, and make one of its text, or of a mapping with the names of the attributes.

        In a mapping, None counts as absent.

        Raises:
            InvalidOption, UnknownOption: it is neither, a value is wrong, or a key is unknown; the message names it.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            return cls(given)
        if not isinstance(given, Mapping):
            raise InvalidOption(f"a task is text, a mapping or a Task, got {type(given).__name__}: {given!r:.80}")
        for key in given:
            if not isinstance(key, str):
                raise UnknownOption(f"Task takes no {key!r:.80}")
        if given.get("task") is None:
            raise InvalidOption(f"a task needs the key 'task', got {', '.join(given) or 'an empty mapping':.200}")
        present: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return cls(present.pop("task"), **present)
