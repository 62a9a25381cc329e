"""What a reply without text holds instead, by the words that each vendor's decoder declares.

Behind wrappers it is not known from which vendor a reply came, so the words of all are looked through.
"""

from __future__ import annotations

from llm_council._wire.other_content import OtherContent, declared
from llm_council.models.reply import GenerateResponse

__all__ = ["error_details", "is_unfinished", "other_content"]


# Keys of ``extra`` under which any adapter may put an answer, and words for it.
_ANSWERS = {"images": "pictures", "audio": "sound", "parts": "parts that are no text"}


def other_content(response: GenerateResponse) -> str | None:
    """Name what a reply holds that is an answer, or asks the caller to act, and is neither text nor a tool call.

    Asking again would not bring text, but pay for the same again: pictures, sound, calls of tools that the caller runs
    by other rules, a turn that waits to be continued.

    Returns:
        A few words for a message; None if there is nothing of the kind.
    """
    for key, words in _ANSWERS.items():
        if response.extra.get(key):
            return words
    found = (_found(response, dialect) for dialect in declared())
    return next((words for words in found if words is not None), None)


def _found(response: GenerateResponse, dialect: OtherContent) -> str | None:
    if response.raw_finish_reason in dialect.continued:
        return f"a turn to continue ({response.raw_finish_reason})"
    for part in response.reasoning_parts:
        data = part.data or {}
        if any(data.get(key) for key in dialect.media):
            return "pictures or sound"
        word = data.get("type")
        if not isinstance(word, str):
            continue
        if word in dialect.parts or (word in dialect.client_parts and data.get("execution") == "client"):
            return f"a part of type {word!r}"
    return None


def error_details(response: GenerateResponse) -> str | None:
    """Return the vendor's words for the error that ended an answer; None if there are none."""
    keys = [key for dialect in declared() for key in dialect.errors]
    found = next((response.extra[key] for key in keys if response.extra.get(key)), None)
    return found if isinstance(found, str) else None


def is_unfinished(response: GenerateResponse) -> bool:
    """Return True for a reply that the vendor still makes in the background."""
    return any(response.raw_finish_reason in dialect.waiting for dialect in declared())
