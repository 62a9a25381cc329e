"""Whether a provider and a model take attached files: by capabilities and profiles, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence

from llm_council.models._media_types import count_pages
from llm_council.models.attachments import Attachment, shown_name
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
    images = [file for file in media if file.kind == "image"]
    if profile.max_images is not None and len(images) > profile.max_images:
        return f"{images[-1].name} is image {len(images)}, and it takes {profile.max_images} in a request"
    most = {"image": profile.image_bytes, "document": profile.document_bytes, "audio": profile.audio_bytes}
    for file in media:
        size, limit = file.size or 0, most[file.kind]
        if limit is not None and size > limit:
            return (
                f"{shown_name(file.name)} has {size:,} bytes, and it takes {_PLURALS[file.kind]} of at most {limit:,}"
            )
    fault = _page_fault(media, profile)
    if fault is not None:
        return fault
    if profile.request_bytes is not None:
        sent = sum(-(-(file.size or 0) // 3) * 4 for file in media)  # base64 writes four characters for three bytes
        if sent > profile.request_bytes:
            largest = max(media, key=lambda file: file.size or 0)
            others = f" with {len(media) - 1} other files" if len(media) > 1 else ""
            return (
                f"{shown_name(largest.name)}{others} is {sent:,} bytes long in base64, and it takes requests of at most"
                f" {profile.request_bytes:,}"
            )
    return None


def _page_fault(media: Sequence[Attachment], profile: ModelProfile) -> str | None:
    """Return which document has too many pages; None if all together have few enough, or none can be counted."""
    if profile.document_pages is None:
        return None
    # Several documents may have the same name.
    counts = [(count_pages(file.data) or 0, file) for file in media if file.kind == "document" and file.data]
    total = sum(pages for pages, _ in counts)
    if total <= profile.document_pages:
        return None
    most, largest = max(counts, key=lambda one: one[0])
    others = f", with {total - most} in other documents" if len(counts) > 1 else ""
    limit = profile.document_pages
    return f"{shown_name(largest.name)} has {most:,} pages{others}, and it takes at most {limit:,} in a request"
