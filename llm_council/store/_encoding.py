"""Encode values as the text that the store's file holds: JSON in ASCII, with every secret masked."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from llm_council.errors import StoreError
from llm_council.errors._secrets import may_hold_keys, redact
from llm_council.models import Attachment, AudioPart, DocumentPart, GenerateRequest, ImagePart, Message, Plan
from llm_council.models._convert import dump, load
from llm_council.models._journal import CallRecord

__all__ = [
    "FILE",
    "MAX_LENGTH",
    "decode_ending",
    "encode",
    "encode_ending",
    "encode_files",
    "mask",
    "request_digest",
    "with_files",
]

MAX_LENGTH: Final = 64 * 1024 * 1024
"""Most characters of one text."""

FILE: Final = "file:"
"""The beginning of the kind of a paper that holds an attached file in base64; its hash follows."""

# Not part of a request's digest: the turns have their own place in it, and the other fields differ between two requests
# that ask the same.
_NOT_PARAMETERS: Final = {"prompt", "messages", "idempotency_key", "metadata", "timeout_seconds", "stream", "sample"}
_PARAMETERS: Final = tuple(field.name for field in attrs.fields(GenerateRequest) if field.name not in _NOT_PARAMETERS)

_to_json: Final = json.JSONEncoder(separators=(",", ":")).encode


def mask(value: Any) -> Any:
    """Replace every secret, and all text that looks like one, in plain JSON values."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(key): mask(item) for key, item in value.items()}
    return [mask(item) for item in value] if isinstance(value, list) else value


def encode(value: Any) -> str:
    """Encode plain JSON values, with secrets masked.

    The text is ASCII, because SQLite cannot store lone surrogates, which models do send.

    Raises:
        StoreError: the text is longer than ``MAX_LENGTH``.
    """
    text = _to_json(value)
    if may_hold_keys(text):  # one search of the whole text, because most hold none
        text = _to_json(mask(value))
    if len(text) > MAX_LENGTH:
        raise StoreError(f"a record of {len(text)} characters is larger than the store takes ({MAX_LENGTH})")
    return text


def encode_ending(ending: CallRecord) -> str:
    """Encode an ending. If it is too long, the vendor's raw reply is left out.

    Raises:
        StoreError: it is too long without the raw reply, too.
    """
    value = dump(ending)
    response = value["response"]
    if response is not None and response["content"] == response["text"]:  # ``load`` fills the one in from the other
        del response["content"]
    try:
        return encode(value)
    except StoreError:
        if response is None or response["raw"] is None:
            raise
        response["raw"] = None
        return encode(value)


def decode_ending(text: str) -> CallRecord:
    """Decode the text of ``encode_ending``."""
    return load(CallRecord, json.loads(text))


def encode_files(plan: Plan) -> dict[str, str]:
    """Return the bytes of attached images, documents and sound in base64, each once, by their hash.

    They are stored as they are: a search for secrets would find some in the base64 of pictures, and damage them.
    """
    return {
        file.sha256: base64.b64encode(file.data).decode()
        for file in plan.files
        if file.data is not None and file.sha256 is not None
    }


def with_files(plan: Plan, stored: Mapping[str, str]) -> Plan:
    """Return a plan with the bytes of its files that ``encode_files`` returned.

    Raises:
        StoreError: a file is not stored, or not whole.
    """
    files = []
    for file in plan.files:
        if file.sha256 is not None and file.data is None:
            data = base64.b64decode(stored.get(file.sha256, ""))
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise StoreError(f"the run {plan.run_id}: its file {file.name} is not stored whole", kind="corrupt")
            file = Attachment(data, media_type=file.media_type, name=file.name)
        files.append(file)
    return attrs.evolve(plan, files=files)


def request_digest(request: GenerateRequest) -> str:
    """Return a hash of what a request asks: the same in every process, different for different requests."""
    turns = []
    for turn in request.turns():
        is_plain = not turn.tool_calls and turn.name is None and turn.tool_call_id is None
        turns.append([turn.role, turn.content if is_plain and isinstance(turn.content, str) else _dump_turn(turn)])
    parameters = {}
    for name in _PARAMETERS:
        value = getattr(request, name)
        if value is not None and value != ():
            parameters[name] = dump(value)
    text = json.dumps([turns, parameters], separators=(",", ":"), sort_keys=True)
    if may_hold_keys(text):
        text = json.dumps(mask([turns, parameters]), separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"llm-council").hexdigest()


def _dump_turn(turn: Message) -> Any:
    """Return a turn as plain JSON values, with hashes in place of images, documents and sound."""
    if isinstance(turn.content, str):
        return dump(turn)
    parts = []
    for part in turn.content:
        if isinstance(part, ImagePart | DocumentPart | AudioPart) and part.data is not None:
            part = attrs.evolve(part, data=hashlib.sha256(part.data.encode()).hexdigest())
        parts.append(part)
    return dump(attrs.evolve(turn, content=tuple(parts)))
