"""Nouns as the store's text: plain JSON, without a credential in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from llm_council._convert import dump, load
from llm_council._journal import Ending
from llm_council._secrets import redact
from llm_council.errors import StoreError
from llm_council.models import GenerateRequest, Message
from llm_council.models._noun import replaced

__all__ = ["MOST", "digest", "ending_from", "ending_text", "redacted", "text_of"]

MOST: Final = 64 * 1024 * 1024
"""Characters that one record may have."""

# What may differ between two requests that ask the same.
_ASIDE: Final = ("idempotency_key", "metadata", "timeout_seconds", "stream")


def redacted(value: Any) -> Any:
    """Return plain JSON values with every credential, and whatever looks like one, replaced in all their texts."""
    # Most values hold none: one look at all texts together costs a tenth of one look at each.
    joined = "\n".join(_texts(value))
    return value if redact(joined) == joined else _masked(value)


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(key): _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def text_of(noun: Any) -> str:
    """Return a noun as a record: JSON in ASCII, so that any text comes back as it was.

    Raises:
        StoreError: it is larger than a record may be.
    """
    text = json.dumps(redacted(dump(noun)), separators=(",", ":"))
    if len(text) > MOST:
        raise StoreError(f"a record of {len(text)} characters is larger than the store takes ({MOST})")
    return text


def ending_text(ending: Ending) -> str:
    """Return an ending as a record; where it is too large, the vendor's own reply is left out first."""
    try:
        return text_of(ending)
    except StoreError:
        if ending.response is None or ending.response.raw is None:
            raise
        return text_of(attrs.evolve(ending, response=attrs.evolve(ending.response, raw=None)))


def ending_from(text: str) -> Ending:
    """Read an ending back."""
    return load(Ending, json.loads(text))


def digest(request: GenerateRequest) -> str:
    """Return what tells two requests apart by what they ask, equal in every process."""
    said = [[turn.role, turn.content, turn.name, turn.tool_call_id] for turn in request.turns() if _is_plain(turn)]
    rest = {name: value for name, value in dump(_without_words(request, len(said))).items() if name not in _ASIDE}
    text = json.dumps(redacted([said, rest]), separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"llm-council").hexdigest()


def _is_plain(turn: Message) -> bool:
    return isinstance(turn.content, str) and not turn.tool_calls


def _without_words(request: GenerateRequest, plain: int) -> GenerateRequest:
    """Return a request without its words, which are most of it, where all of them are plain text."""
    return replaced(request, prompt=None, messages=()) if plain == len(request.turns()) else request
