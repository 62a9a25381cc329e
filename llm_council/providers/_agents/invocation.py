"""Shared by the agents' dialects: writing a conversation as a prompt, and reading lines of JSON events.

Agents mix their events with banners, colours and unfinished lines, so ``AgentEvents`` skips what is not a JSON object.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import attrs

from llm_council._wire.payloads import dumps, loads, well_formed
from llm_council._wire.reading import join_texts, share_texts
from llm_council._wire.sse import LineSplitter
from llm_council.errors import CouncilError, EmptyReply, InvalidOption, MalformedReply, TruncatedReply
from llm_council.errors._secrets import MaskedText
from llm_council.models.limits import Limits
from llm_council.models.messages import ImagePart, Message
from llm_council.models.reply import GenerateChunk
from llm_council.models.request import GenerateRequest
from llm_council.providers._agents.errors import Ended, failed, stderr_suffix

__all__ = [
    "AgentEvents",
    "Argument",
    "Attached",
    "Invocation",
    "attached_images",
    "flags",
    "images_of",
    "instructions",
    "message_of",
    "prompt",
]

_LIMITS = Limits()
_INSTRUCTING = ("system", "developer")
_CONTINUE = "Here is a conversation as JSON, oldest turn first. Write the assistant's next turn: its text alone."
_SHOWN = 300  # characters of an agent's own words in a message


@attrs.frozen(kw_only=True)
class Attached:
    """A file passed to the program; its path takes its place among the arguments.

    Attributes:
        name: the file's name.
        content: the file's bytes.
    """

    name: str
    content: bytes = attrs.field(repr=False)


Argument: TypeAlias = str | Attached


@attrs.frozen(kw_only=True)
class Invocation:
    """Arguments, stdin and environment variables that carry one request.

    Attributes:
        arguments: the command line. Every user of the machine can read it, so it holds no prompt.
        stdin: the prompt.
        variables: environment variables, added to those of the machine.
    """

    arguments: tuple[Argument, ...]
    stdin: bytes = attrs.field(default=b"", repr=False)
    variables: Mapping[str, Argument] = attrs.field(factory=dict)


# Asking.


def prompt(turns: Sequence[Message], *, system: bool = True) -> str:
    """Write a conversation as one prompt.

    A single user turn is written unchanged, after the instructions if there are any. A longer conversation is written
    as JSON, so that the text of one turn cannot imitate another turn. Instructions alone become the prompt.

    Args:
        turns: the conversation.
        system: include the instructions; False if they are passed in another way.
    """
    rest = [turn for turn in turns if turn.role not in _INSTRUCTING]
    if not rest:
        return instructions(turns)
    text = rest[0].text
    if len(rest) > 1 or rest[0].role != "user":
        rows = json.dumps([_row(turn) for turn in rest], ensure_ascii=False, indent=1)
        text = f"{_CONTINUE}\n\n{rows}"
    head = instructions(turns) if system else ""
    return well_formed(f"{head}\n\n{text}" if head else text)


def instructions(turns: Sequence[Message]) -> str:
    """Return the texts of the system and developer turns, joined by blank lines."""
    return well_formed("\n\n".join(turn.text for turn in turns if turn.role in _INSTRUCTING and turn.text))


def _row(turn: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.tool_calls:
        row["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in turn.tool_calls
        ]
    if turn.name:
        row["name"] = turn.name
    if turn.tool_call_id:
        row["tool_call_id"] = turn.tool_call_id
    return row


def images_of(request: GenerateRequest) -> list[ImagePart]:
    """Return the images of a conversation, in order.

    Raises:
        InvalidOption: an image is a URL.
    """
    parts = [part for turn in request.messages if not isinstance(turn.content, str) for part in turn.content]
    images = [part for part in parts if isinstance(part, ImagePart)]
    if any(image.data is None for image in images):
        raise InvalidOption("images are taken as data only: pass ImagePart(data=..., media_type=...)")
    return images


def attached_images(request: GenerateRequest) -> tuple[Attached, ...]:
    """Return the images of a conversation as files.

    Raises:
        InvalidOption: an image is a URL, or its data is not base64.
    """
    files = []
    for index, image in enumerate(images_of(request)):
        try:
            content = base64.b64decode(image.data or "", validate=True)
        except (binascii.Error, ValueError):
            raise InvalidOption("ImagePart.data is not base64") from None
        kind = re.sub("[^a-z0-9]", "", (image.media_type or "").partition("/")[2].lower()) or "png"
        files.append(Attached(name=f"image-{index}.{kind}", content=content))
    return tuple(files)


def flags(extra: Mapping[str, Any]) -> list[str]:
    """Write ``extra`` as long options: True is a bare option, a list repeats the option, None and False add none."""
    words = []
    for name, value in extra.items():
        option = f"--{name.replace('_', '-')}"
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is True:
                words.append(option)
            elif item is not None and item is not False:
                # Joined by "=": a value of its own that begins with a dash would be read as another option.
                words.append(f"{option}={item if isinstance(item, str) else dumps(item).decode()}")
    return words


# Reading.


def message_of(value: Any) -> str:
    """Return the message of an event or error, which may be a text itself; empty if it has none."""
    found = value.get("message") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""


# ECMA-48: control sequences, operating system commands, and the two-character escapes.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


class AgentEvents(ABC):
    """Decodes an agent's stdout as it arrives: bytes in, pieces of the answer out.

    Lines that are not JSON objects are skipped. A pretty-printed object may span several lines.

    Args:
        limits: ``event`` bounds each line, ``json_depth`` each event.

    Attributes:
        note: the agent's last status message, used in error messages.
    """

    def __init__(self, limits: Limits = _LIMITS) -> None:
        self.note = ""
        self._texts: list[str] = []  # of the answer, where it comes in pieces
        self._limits = limits
        self._lines = LineSplitter(limits)
        self._open: list[str] = []  # the lines of an object that has not ended
        self._open_size = 0
        self._noise = ""
        self._seen = 0
        self._replaced = False
        self._warnings: list[str] = []

    @property
    def partial(self) -> str:
        """The answer's text so far."""
        return "".join(self._texts)

    @property
    def finished(self) -> bool:
        """True once the agent has reported the end of its work; later output is ignored."""
        return False

    @property
    def words(self) -> MaskedText | None:
        """The answer's text so far, as errors carry it; None if there is none."""
        return MaskedText(self._texts) or None

    @abstractmethod
    def _event(self, event: dict[str, Any]) -> GenerateChunk | None:
        """Decode one event and return the piece that it adds to the answer, if any."""

    @abstractmethod
    def _end(self, ended: Ended) -> GenerateChunk:
        """Return the last piece of the answer, or raise the error that the end of the program means."""

    def feed(self, data: bytes) -> list[GenerateChunk]:
        """Return the pieces that these bytes add to the answer.

        Raises:
            ReplyTooLarge: a line is too long.
            MalformedReply: an event breaks the dialect.
        """
        known = len(self._texts)
        pieces = join_texts(self._pieces(self._lines.lines(data)))
        share_texts(self._texts, known, pieces)
        return pieces

    def finish(self, ended: Ended) -> list[GenerateChunk]:
        """Return the last pieces of the answer, after the program has ended.

        Args:
            ended: exit status and stderr.

        Raises:
            ProviderError: the program failed, or its answer is incomplete.
        """
        pieces = self._pieces(self._lines.last())
        try:
            last = self._end(ended)
        except CouncilError as error:
            if hasattr(type(error), "partial"):
                error.fill(partial=self.words)
            raise
        if self._replaced:
            self._warnings.append("stdout was not UTF-8: what could not be read became U+FFFD")
        if self._warnings:
            last = attrs.evolve(last, extra={**last.extra, "warnings": tuple(self._warnings[:20])})
        return [*pieces, last]

    def _pieces(self, lines: list[bytes]) -> list[GenerateChunk]:
        pieces = []
        for line in lines:
            if len(line) > self._limits.event:
                raise self._lines.too_large()
            for event in self._events(self._text(line)):
                self._seen += 1
                piece = self._event(event)
                if piece is not None:
                    pieces.append(piece)
        return pieces

    def _text(self, line: bytes) -> str:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = line.decode("utf-8", "replace")
            self._replaced = True
        text = text.removeprefix("\ufeff")
        return _ANSI.sub("", text) if "\x1b" in text else text

    def _events(self, line: str) -> list[dict[str, Any]]:
        """Return the events that are complete with this line."""
        if line.startswith(("{", "[")):
            events = self._parsed(line)
            if events:
                self._open.clear()  # what stood before was no object
                return events
            if line.startswith("{"):
                self._open, self._open_size = [line], len(line)
                return []
        if self._open:
            self._open.append(line)
            self._open_size += len(line) + 1
            if self._open_size > self._limits.event:
                raise self._lines.too_large()
            if line.startswith("}"):
                text = "\n".join(self._open)
                self._open = []
                return self._parsed(text)
            return []
        if line.strip():
            self._noise = line.strip()[:_SHOWN]
        return []

    def _parsed(self, text: str) -> list[dict[str, Any]]:
        try:
            value = loads(text, self._limits)
        except MalformedReply:
            return []
        found = value if isinstance(value, list) else [value]
        return [event for event in found if isinstance(event, dict)]

    def _warn(self, text: Any) -> None:
        if isinstance(text, str) and text:
            self._warnings.append(text[:_SHOWN])

    def _broke_off(self, ended: Ended, name: str, remedy: str) -> NoReturn:
        """Raise the error of a program that ended without a final event."""
        if ended.exit_code:
            raise failed(self.note or self._noise, ended, name, remedy)
        if self._open or self._seen:
            raise TruncatedReply(f"{name} ended before its answer did", partial=self.partial or None)
        if self._noise:
            raise MalformedReply(f"{name} wrote no JSON event; its last line begins {self._noise[:80]!r}", path="$")
        raise EmptyReply(f"{name} ended without a word{stderr_suffix(ended.stderr)}")
