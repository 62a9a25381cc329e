"""What Vertex AI puts around the dialects of Gemini and of Claude: hosts, addresses, and whose error an error is.

The bodies are Google's and Anthropic's own. Claude's lacks the model, which stands in the address, and says the version
of Anthropic's API, which elsewhere is a header.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from llm_council._wire.payloads import loads
from llm_council.errors import ApiError, InvalidOption, MalformedReply
from llm_council.providers._anthropic import errors as anthropic_errors
from llm_council.providers._google import errors as gemini_errors

__all__ = ["decode_error", "encode_claude", "host", "is_claude", "resource"]

_MULTI_REGIONS = frozenset({"us", "eu"})
_OTHERS = "Vertex AI is spoken to about models of Google and Anthropic"


def host(location: str) -> str:
    """Return the address of a location: ``"global"``, a continent such as ``"eu"``, or a region."""
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def is_claude(model: str) -> bool:
    """Tell whether a model is Anthropic's; every other one is taken for Google's.

    Args:
        model: ``"claude-..."``, or with its publisher before it: ``"anthropic/claude-..."``.
    """
    publisher, _, name = model.rpartition("/")
    return publisher.rpartition("/")[2] == "anthropic" or (not publisher and name.startswith("claude"))


def resource(model: str, *, project: str, location: str) -> str:
    """Return the path of a model, from ``/projects``.

    Args:
        model: its name, with or without its publisher; a date may follow ``@``. ``endpoints/NUMBER`` is a tuned model.
        project: the project's id.
        location: where it is served.

    Raises:
        InvalidOption: the publisher is neither Google nor Anthropic.
    """
    publisher, _, name = model.rpartition("/")
    publisher = publisher.rpartition("/")[2] or ("anthropic" if is_claude(model) else "google")
    within = f"/projects/{quote(project, safe=':')}/locations/{quote(location, safe='')}"
    if publisher == "endpoints":
        return f"{within}/endpoints/{quote(name, safe='')}"
    if publisher not in ("google", "anthropic", "models"):  # models/NAME is how the Gemini API writes it
        raise InvalidOption(f"{_OTHERS}, not of {publisher!r:.80}")
    publisher = "google" if publisher == "models" else publisher
    return f"{within}/publishers/{publisher}/models/{quote(name, safe='@')}"


def encode_claude(payload: Mapping[str, Any], *, version: str) -> dict[str, Any]:
    """Return a request of Anthropic's dialect as it goes to Vertex AI.

    Args:
        payload: the request.
        version: what ``anthropic_version`` says.
    """
    body = {key: value for key, value in payload.items() if key != "model"}
    return {"anthropic_version": version, **body}


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    now: float | None = None,
    request_id: str | None = None,
) -> ApiError:
    """Read the reply to a refused request for Claude: the platform's refusals are Google's, the model's Anthropic's.

    Arguments are those of ``failures.DecodeError``.
    """
    try:
        value = loads(body)
    except MalformedReply:
        value = None
    theirs = isinstance(value, dict) and value.get("type") == "error"
    decode = anthropic_errors.decode_error if theirs else gemini_errors.decode_error
    return decode(status, headers, body, now=now, request_id=request_id)
