"""Nouns as the store's text: plain JSON, without a credential in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from llm_council.errors import StoreError
from llm_council.errors._secrets import may_hold_keys, redact
from llm_council.models import GenerateRequest, Message
from llm_council.models._convert import dump, load
from llm_council.models._journal import Ending

__all__ = ["MOST", "digest", "ending_from", "ending_text", "plain_text", "redacted", "text_of"]

MOST: Final = 64 * 1024 * 1024
"""Characters that one record may have."""

# What a request asks beside its words; what stands in neither may differ between two requests that ask the same.
_ASIDE: Final = {"prompt", "messages", "idempotency_key", "metadata", "timeout_seconds", "stream"}
_KNOBS: Final = tuple(field.name for field in attrs.fields(GenerateRequest) if field.name not in _ASIDE)


def redacted(value: Any) -> Any:
    """Return plain JSON values with every credential, and whatever looks like one, replaced in all their texts."""
    return _masked(value) if may_hold_keys(_json(value)) else value


_json: Final = json.JSONEncoder(separators=(",", ":")).encode


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(key): _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def text_of(noun: Any) -> str:
    """Return a noun as a record.

    Raises:
        StoreError: it is larger than a record may be.
    """
    return plain_text(dump(noun))


def plain_text(value: Any) -> str:
    """Return plain JSON values as a record: JSON in ASCII, so that any text comes back as it was.

    Raises:
        StoreError: it is larger than a record may be.
    """
    text = _json(value)
    if may_hold_keys(text):
        text = _json(_masked(value))
    if len(text) > MOST:
        raise StoreError(f"a record of {len(text)} characters is larger than the store takes ({MOST})")
    return text


def ending_text(ending: Ending) -> str:
    """Return an ending as a record; where it is too large, the vendor's own reply is left out first."""
    value = dump(ending)
    response = value["response"]
    if response is not None and response["content"] == response["text"]:  # the one is filled in from the other
        del response["content"]
    try:
        return plain_text(value)
    except StoreError:
        if response is None or response["raw"] is None:
            raise
        response["raw"] = None
        return plain_text(value)


def ending_from(text: str) -> Ending:
    """Read an ending back."""
    return load(Ending, json.loads(text))


def digest(request: GenerateRequest) -> str:
    """Return what tells two requests apart by what they ask, equal in every process."""
    said = [[turn.role, turn.content if _is_plain(turn) else dump(turn)] for turn in request.turns()]
    knobs = {name: getattr(request, name) for name in _KNOBS}
    rest = {name: dump(value) for name, value in knobs.items() if value is not None and value != ()}
    text = json.dumps([said, rest], separators=(",", ":"), sort_keys=True)
    if may_hold_keys(text):
        text = json.dumps(_masked([said, rest]), separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"llm-council").hexdigest()


def _is_plain(turn: Message) -> bool:
    return isinstance(turn.content, str) and not turn.tool_calls and turn.name is None and turn.tool_call_id is None
