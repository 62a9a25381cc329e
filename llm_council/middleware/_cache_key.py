"""What makes two requests the same, and an answer worth keeping."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import attrs

from llm_council.models.reply import FinishReason, GenerateResponse
from llm_council.models.request import GenerateRequest

__all__ = ["is_worth_keeping", "key_of"]

_VERSION = 1
_LEFT_OUT = frozenset(["timeout_seconds", "idempotency_key", "metadata", "stream", "cache"])


def key_of(request: GenerateRequest, identity: str) -> str | None:
    """Return a name for a request to a provider: a hash, from which neither can be read.

    Args:
        request: what is asked. How long it may take, for whom, and whether it is streamed make no other request of it.
        identity: the provider's ``cache_identity``.

    Returns:
        64 hexadecimal digits; None for a request that holds what JSON cannot say.
    """
    fields = {
        name: _plain(value)
        for name in _names(GenerateRequest)
        if name not in _LEFT_OUT and (value := getattr(request, name)) is not None
    }
    try:
        text = json.dumps([_VERSION, identity, fields], sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            return object()  # which json refuses
        return {key: _plain(item) for key, item in value.items()}
    cls = type(value)
    if not attrs.has(cls):
        return value
    fields = {name: _plain(part) for name in _names(cls) if (part := getattr(value, name)) is not None}
    return {cls.__name__: fields}


@cache
def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(cls))


def is_worth_keeping(response: GenerateResponse) -> bool:
    """Tell whether an answer is whole: not cut, not filtered, not refused, and not of an unknown end.

    An adapter that gives no reason at all is taken at its word.
    """
    if response.refusal:
        return False
    if response.finish_reason is None:
        return response.raw_finish_reason is None
    return response.finish_reason in (FinishReason.STOP, FinishReason.TOOL_CALLS)
