"""What a reply without text holds instead, by the words of each vendor: another kind of answer, or why it failed."""

from __future__ import annotations

from llm_council.models.reply import GenerateResponse

__all__ = ["error_details", "is_unfinished", "other_content"]

# Keys of ``extra`` whose values are an answer: pictures and sound of OpenAI's chat dialect, parts of other types.
_ANSWERS = {"images": "pictures", "audio": "sound", "parts": "parts that are no text"}
# A turn that the caller is to send back, to continue it: Anthropic's stop reasons.
_CONTINUED = ("pause_turn", "compaction")
# Items that are an answer, or that the caller is to act on: pictures, and tools that the caller runs (OpenAI's API
# reference, "The response object", output).
_ITEMS = {
    "image_generation_call",
    "computer_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "mcp_approval_request",
}
# Google's parts have no type: these keys hold an answer.
_MEDIA = ("inlineData", "fileData")
_ERROR_KEYS = ("error", "finishMessage")  # of ``extra``: Cohere's words for a failure in an answer, and Google's
_WAITING = ("queued", "in_progress")  # Responses: the reply is made in the background


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
    if response.raw_finish_reason in _CONTINUED:
        return f"a turn to continue ({response.raw_finish_reason})"
    for part in response.reasoning_parts:
        data = part.data or {}
        if any(data.get(key) for key in _MEDIA):
            return "pictures or sound"
        word = data.get("type")
        is_search = word == "tool_search_call" and data.get("execution") == "client"
        if is_search or (isinstance(word, str) and word in _ITEMS):
            return f"a part of type {word!r}"
    return None


def error_details(response: GenerateResponse) -> str | None:
    """Return the vendor's words for the error that ended an answer; None if there are none."""
    found = next((response.extra[key] for key in _ERROR_KEYS if response.extra.get(key)), None)
    return found if isinstance(found, str) else None


def is_unfinished(response: GenerateResponse) -> bool:
    """Return True for a reply that the vendor still makes in the background."""
    return response.raw_finish_reason in _WAITING
