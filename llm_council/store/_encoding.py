"""Encode values as the text that the store's file holds: JSON in ASCII, with every secret masked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from llm_council.errors import StoreError
from llm_council.errors._secrets import may_hold_keys, redact
from llm_council.models import GenerateRequest
from llm_council.models._convert import dump, load
from llm_council.models._journal import CallRecord

__all__ = ["MAX_LENGTH", "decode_ending", "encode", "encode_ending", "mask", "request_digest"]

MAX_LENGTH: Final = 64 * 1024 * 1024
"""Most characters of one text."""

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


def request_digest(request: GenerateRequest) -> str:
    """Return a hash of what a request asks: the same in every process, different for different requests."""
    turns = []
    for turn in request.turns():
        is_plain = not turn.tool_calls and turn.name is None and turn.tool_call_id is None
        turns.append([turn.role, turn.content if is_plain and isinstance(turn.content, str) else dump(turn)])
    parameters = {}
    for name in _PARAMETERS:
        value = getattr(request, name)
        if value is not None and value != ():
            parameters[name] = dump(value)
    text = json.dumps([turns, parameters], separators=(",", ":"), sort_keys=True)
    if may_hold_keys(text):
        text = json.dumps(mask([turns, parameters]), separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"llm-council").hexdigest()
