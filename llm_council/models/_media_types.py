"""Tell the media type of bytes by their content.

The signatures are those of the WHATWG standard "MIME Sniffing" (mimesniff.spec.whatwg.org, sections 6 and 7). Formats
that it leaves out have their own source beside them.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

__all__ = ["EXTENSIONS", "count_pages", "kind_of", "media_type_of", "name_refused"]

EXTENSIONS: Final = {
    "application/pdf": "pdf",
    "audio/aac": "aac",
    "audio/aiff": "aiff",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/wav": "wav",
    "audio/webm": "webm",
    "image/avif": "avif",
    "image/bmp": "bmp",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/tiff": "tiff",
    "image/webp": "webp",
}
"""The media types that are recognised, with the usual ending of a file's name."""

_STARTS: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),  # TIFF 6.0, section 2
    (b"MM\x00*", "image/tiff"),
    (b"fLaC", "audio/flac"),  # RFC 9639, section 6
    (b"ID3", "audio/mpeg"),
)
# RIFF and IFF files name their form at byte 8.
_FORMS: Final = {
    (b"RIFF", b"WEBP"): "image/webp",
    (b"RIFF", b"WAVE"): "audio/wav",
    (b"FORM", b"AIFF"): "audio/aiff",
    (b"FORM", b"AIFC"): "audio/aiff",
}
# ISO 23008-12 (HEIF), annex B, and the AV1 Image File Format, section 9: the major brand of the file type box.
_IMAGE_BRANDS: Final = {
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"hevc": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"avif": "image/avif",
    b"avis": "image/avif",
}
_PDF: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*%PDF-\d")
# ISO/IEC 11172-3, 2.4.1.3: eleven bits of sync word, then version, layer, bit rate and sampling rate.
_MP3_LAYERS: Final = frozenset(b"\xfa\xfb\xf2\xf3\xe2\xe3")
_ADTS: Final = frozenset(b"\xf0\xf1\xf8\xf9")  # ISO/IEC 13818-7, 6.2: the layer is 0

_ARCHIVE: Final = "an archive: give the files in it"
_REFUSED: Final = (
    (b"PK\x03\x04", "a ZIP archive or an Office document: export it as PDF, or give the files in it"),
    (b"PK\x05\x06", "an empty ZIP archive: leave it out"),
    (b"Rar!\x1a\x07", _ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", _ARCHIVE),  # 7zFormat.txt of the LZMA SDK
    (b"\xd0\xcf\x11\xe0", "an old Office document: export it as PDF"),
    (b"\x1f\x8b", "compressed: unpack it first"),
    (b"\xff\xfe", "text in UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16: save it as UTF-8"),
    (b"\x1aE\xdf\xa3", "a video: give single pictures, or its sound"),
)


def media_type_of(data: bytes) -> str | None:
    """Return the media type of an image, a PDF or sound by its content; None for text and everything else."""
    if _PDF.match(data[:64]):
        return "application/pdf"
    found = _by_signature(data)
    # Some signatures are plain letters, and a text that begins with them is a text.
    return found if found is None or b"\0" in data or not _is_utf8(data) else None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _by_signature(data: bytes) -> str | None:
    for start, name in _STARTS:
        if data.startswith(start):
            return name
    form = _FORMS.get((data[:4], data[8:12]))
    if form is not None:
        return form
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0":  # the reserved fields of a bitmap's header
        return "image/bmp"
    if data[4:8] == b"ftyp":
        return _by_boxes(data)
    if data.startswith(b"OggS"):  # RFC 3533; the first packet names the codec
        return None if b"theora" in data[:256] else "audio/ogg"
    if data.startswith(b"\x1aE\xdf\xa3") and b"webm" in data[:64]:
        return None if b"V_" in data[:4096] else "audio/webm"  # the names of video codecs begin so
    if data[:1] == b"\xff" and len(data) > 3:
        if data[1] in _ADTS:
            return "audio/aac"
        if data[1] in _MP3_LAYERS and data[2] >> 4 not in (0, 15) and data[2] >> 2 & 3 != 3:
            return "audio/mpeg"
    return None


def _by_boxes(data: bytes) -> str | None:
    """Return the type of a file of ISO 14496-12: an image by its brand, sound if it has no track of pictures."""
    brand = data[8:12]
    if brand in _IMAGE_BRANDS:
        return _IMAGE_BRANDS[brand]
    if brand in (b"M4A ", b"M4B "):
        return "audio/mp4"
    handlers = {data[at.end() + 8 : at.end() + 12] for at in re.finditer(b"hdlr", data)}
    return "audio/mp4" if b"soun" in handlers and b"vide" not in handlers else None


def name_refused(data: bytes) -> str | None:
    """Return what bytes are that cannot be attached, with the remedy; None if that is unknown.

    The bytes are no text: some signatures are plain letters.
    """
    if data[4:8] == b"ftyp" or (data[:4] == b"RIFF" and data[8:11] == b"AVI"):
        return "a video: give single pictures, or its sound"
    if data[257:262] == b"ustar":  # the header block of tar, in the standard of POSIX for pax
        return _ARCHIVE
    if b"%PDF-" in data[:1024]:  # some readers take it, and no vendor says so
        return "a PDF behind other bytes: remove these, or save it anew"
    return next((words for start, words in _REFUSED if data.startswith(start)), None)


def kind_of(media_type: str) -> str | None:
    """Return ``"image"``, ``"audio"``, ``"document"`` or ``"text"``; None for another type."""
    kind = media_type.partition("/")[0]
    if media_type == "application/pdf":
        return "document"
    return kind if kind in ("image", "audio", "text") else None


_PAGE: Final = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_COUNT: Final = re.compile(rb"/Count\s+(\d{1,9})")
_OBJECTS: Final = re.compile(rb"/Type\s*/ObjStm\b.{0,300}?stream\r?\n", re.DOTALL)
_MOST_UNPACKED: Final = 32 * 1024 * 1024  # bytes: a small file may unpack to any size


def count_pages(data: bytes) -> int | None:
    """Return the number of pages of a PDF; None if it cannot be told, as for an encrypted one.

    Pages are objects, which stand in the file itself or in compressed streams of objects (ISO 32000-1, 7.5.7). A file
    that was changed may hold a page several times, so the largest count of its tree of pages is an upper bound (7.7.3).
    """
    pages, counts, left = len(_PAGE.findall(data)), _COUNT.findall(data), _MOST_UNPACKED
    for found in _OBJECTS.finditer(data):
        end = data.find(b"endstream", found.end())
        try:
            unpacked = zlib.decompressobj().decompress(data[found.end() : end if end >= 0 else None], left)
        except zlib.error:
            return None
        pages += len(_PAGE.findall(unpacked))
        counts += _COUNT.findall(unpacked)
        left -= len(unpacked)
        if left <= 0:
            return None
    return min(pages, max(map(int, counts), default=0) or pages) or None
