"""Whether a provider and a model take attached files: by capabilities and profiles, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence

from llm_council.models.attachments import Attachment
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.providers._call.profiles import ModelProfile

__all__ = ["kind_fault", "size_fault"]

_CAPABILITIES = {"image": "multimodal", "document": "documents", "audio": "audio"}
_PLURALS = {"image": "images", "document": "documents", "audio": "sound"}


def kind_fault(file: Attachment, capabilities: ProviderCapabilities, profile: ModelProfile | None) -> str | None:
    """Return why a model cannot see or hear a file, as ``"takes no images"``; None if it can, and for text."""
    if file.kind not in _CAPABILITIES:
        return None
    profile = profile or ModelProfile()
    taken = {"image": profile.images, "document": profile.documents, "audio": profile.audio}
    if not (capabilities.has(_CAPABILITIES[file.kind]) and taken[file.kind]):
        return f"takes no {_PLURALS[file.kind]}"
    types = {"image": profile.image_types, "document": profile.document_types, "audio": profile.audio_types}[file.kind]
    if types and file.media_type not in types:
        return f"takes no {file.media_type}, only {', '.join(types)}"
    return None


def size_fault(files: Sequence[Attachment], profile: ModelProfile | None) -> str | None:
    """Return which file exceeds a limit of the vendor, with its size and the limit; None if all are small enough.

    Args:
        files: the attached files; text is not limited here.
        profile: the limits of the model; None is without.
    """
    if profile is None:
        return None
    media = [file for file in files if file.kind in _CAPABILITIES]
    most = {"image": profile.image_bytes, "document": profile.document_bytes, "audio": profile.audio_bytes}
    for file in media:
        size, limit = file.size or 0, most[file.kind]
        if limit is not None and size > limit:
            return f"{file.name} has {size:,} bytes, and it takes {_PLURALS[file.kind]} of at most {limit:,}"
    if profile.request_bytes is not None:
        sent = sum(-(-(file.size or 0) // 3) * 4 for file in media)  # base64 writes four characters for three bytes
        if sent > profile.request_bytes:
            largest = max(media, key=lambda file: file.size or 0)
            others = f" with {len(media) - 1} other files" if len(media) > 1 else ""
            return (
                f"{largest.name}{others} is {sent:,} bytes long in base64, and it takes requests of at most"
                f" {profile.request_bytes:,}"
            )
    return None
