"""Attachments: what bytes are, by their content alone, and what is refused."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council import Attachment
from llm_council.errors import InvalidOption
from llm_council.models import AudioPart, DocumentPart, ImagePart
from llm_council.models._convert import dump, load
from llm_council.models._media_types import count_pages, media_type_of

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
BOX = b"\0\0\0\x18ftyp"
MOVIE = BOX + b"isom\0\0\0\0" + b"\0\0\0\x21hdlr" + b"\0" * 8 + b"%s" + b"\0" * 12

SAMPLES = {
    "image/png": [PNG],
    "image/jpeg": [b"\xff\xd8\xff\xe0\0\x10JFIF\0", b"\xff\xd8\xff\xe1\0\x10Exif\0"],
    "image/gif": [b"GIF87a\1\0\1\0\0", b"GIF89a\1\0\1\0\0"],
    "image/webp": [b"RIFF\x24\0\0\0WEBPVP8 "],
    "image/bmp": [b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0"],
    "image/tiff": [b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"],
    "image/heic": [BOX + b"heic\0\0\0\0"],
    "image/heif": [BOX + b"mif1\0\0\0\0"],
    "image/avif": [BOX + b"avif\0\0\0\0"],
    "application/pdf": [b"%PDF-1.7\n%\xe2\xe3", b"\n%PDF-2.0 plain", b"\xef\xbb\xbf%PDF-1.4 plain"],
    "audio/wav": [b"RIFF\x24\0\0\0WAVEfmt "],
    "audio/mpeg": [b"ID3\4\0\0\0", b"\xff\xfb\x90\x64\0\0", b"\xff\xf3\x40\xc4\0\0"],
    "audio/flac": [b"fLaC\0\0\0\x22"],
    "audio/aac": [b"\xff\xf1\x50\x80\0\0", b"\xff\xf9\x50\x80\0\0"],
    "audio/ogg": [b"OggS\0\2" + b"\0" * 22 + b"OpusHead"],
    "audio/aiff": [b"FORM\0\0\0\x2eAIFFCOMM", b"FORM\0\0\0\x2eAIFCCOMM"],
    "audio/mp4": [BOX + b"M4A \0\0\0\0", MOVIE % b"soun"],
    "audio/webm": [b"\x1aE\xdf\xa3\x9fB\x82\x84webm\0A_OPUS"],
}
CASES = [(name, data) for name, samples in SAMPLES.items() for data in samples]


@pytest.mark.parametrize(("media_type", "data"), CASES, ids=[f"{name}-{n}" for n, (name, _) in enumerate(CASES)])
@pytest.mark.parametrize("name", ["x.txt", "x", "https.pdf"])
def test_the_content_alone_says_what_a_file_is(media_type: str, data: bytes, name: str) -> None:
    file = Attachment(data, name=name)
    assert (file.media_type, file.data, file.text, file.name) == (media_type, data, None, name)
    kinds = {"image": ImagePart, "audio": AudioPart, "application": DocumentPart}
    part = file.part()
    assert type(part) is kinds[media_type.partition("/")[0]]
    assert part.media_type == media_type
    assert part is not file.part()
    assert part.data is file.part().data  # the requests of a run share one string


@pytest.mark.parametrize(
    "text",
    ["BMW is a car.", "GIF89a is a format.", "ID3 tags", "RIFF    WAVE", "FORM    AIFF", "fLaC", "OggS", "%PDF is one"],
)
def test_a_text_that_begins_like_another_format_is_a_text(text: str) -> None:
    assert Attachment(text.encode()).text == text


@given(st.text())
def test_every_text_without_a_zero_byte_is_a_text(text: str) -> None:
    data = text.replace("\0", "").encode()
    if media_type_of(data) != "application/pdf":
        assert Attachment(data).text == text.replace("\0", "").removeprefix("\ufeff")


@given(st.binary(max_size=64), st.sampled_from([b"", PNG, b"BM", b"RIFF", BOX, b"\xff", b"%PDF-1"]))
def test_any_bytes_are_a_file_or_are_refused_and_a_file_is_stored_without_them(tail: bytes, head: bytes) -> None:
    try:
        file = Attachment(head + tail)
    except InvalidOption:
        return
    stored = dump(file)
    assert "data" not in stored
    assert load(Attachment, stored) == file
    assert (file.text is None) == (stored.get("sha256") is not None)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04\xff", "ZIP archive or an Office document: export it as PDF"),
        (b"\xd0\xcf\x11\xe0\xa1", "Office document"),
        (b"\xff\xfeh\0i\0", "UTF-16: save it as UTF-8"),
        (MOVIE % b"vide" + b"\xff", "a video"),
        (b"\x1aE\xdf\xa3\x9fB\x82\x84webm\0V_VP9", "a video"),
        (b"PK\5\6" + b"\0" * 18, "an empty ZIP archive"),
        (b"notes.txt".ljust(257, b"\0") + b"ustar\x0000" + b"\0" * 248, "an archive: give the files in it"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "an archive"),
        (MOVIE % b"vide", "a video"),
        (b"\x7fELF\2\1\1\0", "no image, PDF or sound that is known"),
        (b"\0 \xff%PDF-1.7\n", "a PDF behind other bytes"),
        (b"a\0b", "is not UTF-8 text"),
        (b"\xfe\x01\x02", "no image, PDF or sound that is known"),
    ],
)
def test_what_is_neither_is_refused_with_a_remedy(data: bytes, words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        Attachment(data)


@pytest.mark.parametrize(
    "address", ["https://a.example/b.png", "http://x", "file:///etc/passwd", "data:,x", "s3://b/k"]
)
def test_an_address_is_refused_and_never_fetched(address: str) -> None:
    for make in (lambda: Attachment(address), lambda: Attachment(path=address)):
        with pytest.raises(InvalidOption, match="none is fetched: save the file, and give its path"):
            make()


def test_a_given_type_must_agree_with_the_content() -> None:
    assert Attachment(PNG, media_type="image/x-png").media_type == "image/png"
    assert Attachment(b"\1\2\xff", media_type="audio/amr").kind == "audio"
    assert Attachment(b"a,b", media_type="text/csv").text == "a,b"
    with pytest.raises(InvalidOption, match="is image/png by its content, not image/jpeg"):
        Attachment(PNG, media_type="image/jpeg")
    with pytest.raises(InvalidOption, match="application/zip"):
        Attachment(b"\1\2\xff", media_type="application/zip")


def test_one_source_is_needed() -> None:
    for wrong in ({}, {"data": b"x", "text": "x"}, {"path": "x", "data": b"x"}):
        with pytest.raises(InvalidOption, match="one of data, path and text"):
            Attachment(**wrong)
    with pytest.raises(InvalidOption, match="bytes"):
        Attachment(data="x.png")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="empty"):
        Attachment(b"", media_type="image/png")


def test_the_bytes_are_not_in_the_representation() -> None:
    file = Attachment(PNG)
    assert file.part().data not in repr(file)
    assert "IHDR" not in repr(file)
    assert (file.name, file.size, file.kind) == ("image.png", len(PNG), "image")


def pdf(*pages: bytes) -> bytes:
    return b"%PDF-1.7\n" + b"\n".join(pages)


def test_pages_are_counted_in_plain_and_in_compressed_objects() -> None:
    page = b"1 0 obj << /Type /Page /Parent 2 0 R >> endobj"
    packed = zlib.compress(b"<< /Type/Page >> << /Type /Pages >> << /Type /Page >>")
    stream = b"9 0 obj << /Type /ObjStm /N 3 /Filter /FlateDecode >>\nstream\r\n" + packed + b"\nendstream"
    assert count_pages(pdf(page, page)) == 2
    assert count_pages(pdf(page, stream)) == 3
    assert count_pages(pdf(b"<< /Type /Pages /Count 7 >>")) is None
    assert count_pages(pdf(page, page, b"<< /Type /Pages /Count 1 >>")) == 1  # saved twice
    assert count_pages(pdf(stream.replace(packed, b"not deflate"))) is None


def test_a_small_file_that_unpacks_to_a_large_one_is_not_unpacked_whole() -> None:
    bomb = zlib.compress(b"\0" * 40_000_000)
    stream = b"<< /Type /ObjStm >>\nstream\n" + bomb
    assert len(bomb) < 100_000
    assert count_pages(pdf(stream)) is None


def test_a_picture_that_is_larger_than_anybody_takes_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"big\.png has 50,000,001 bytes, and at most 50,000,000"):
        Attachment(PNG + b"\0" * (50_000_001 - len(PNG)), name="big.png")


def test_a_png_of_one_pixel_is_recognised() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")
    assert Attachment(b"\x89PNG\r\n\x1a\n" + body).media_type == "image/png"
