"""Decompression within a limit."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.transports import _reply
from llm_council.transports._reply import BadEncoding, BodyOverflow, Decompressor


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def unpack(chunks: list[bytes], encoding: str, limit: int = 10**9) -> bytes:
    decompressor = Decompressor(encoding, limit)
    got = b"".join(piece for chunk in chunks for piece in decompressor.feed(chunk))
    decompressor.finish()
    return got


PACK = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes, "": bytes}
cuts = st.lists(st.integers(0, 10**6), max_size=8)


@given(body=st.binary(max_size=2000), encoding=st.sampled_from(sorted(PACK)), cuts=cuts)
def test_the_result_does_not_depend_on_how_the_body_is_split(body, encoding, cuts):
    assert unpack(split(PACK[encoding](body), cuts), encoding) == body


@given(bodies=st.lists(st.binary(max_size=200), min_size=1, max_size=4), padding=st.integers(0, 9), cuts=cuts)
def test_gzip_members_are_joined_and_padding_is_ignored(bodies, padding, cuts):
    packed = b"".join(gzip.compress(body, mtime=0) for body in bodies) + bytes(padding)
    assert unpack(split(packed, cuts), "gzip") == b"".join(bodies)


@given(body=st.binary(min_size=1, max_size=2000), missing=st.integers(1, 2000), cuts=cuts)
def test_a_truncated_body_raises_bad_encoding(body, missing, cuts):
    packed = gzip.compress(body, mtime=0)
    short = packed[: max(1, len(packed) - missing)]
    with pytest.raises(BadEncoding):
        unpack(split(short, cuts), "gzip")


@given(data=st.binary(min_size=3, max_size=200))
def test_a_body_that_is_not_gzip_raises_bad_encoding(data):
    if data[:2] != b"\x1f\x8b" and (data[0] & 15 != 8 or int.from_bytes(data[:2]) % 31):
        with pytest.raises(BadEncoding):
            unpack([data], "gzip")


@given(
    size=st.integers(1, 300_000),
    limit=st.integers(1, 300_000),
    encoding=st.sampled_from(["gzip", "identity"]),
    cuts=cuts,
)
def test_at_most_limit_bytes_are_returned(size, limit, encoding, cuts):
    body = b"ab" * (size // 2) + b"c"
    packed = PACK[encoding](body)
    decompressor = Decompressor(encoding, limit)
    got = b""
    try:
        for chunk in split(packed, cuts):
            for piece in decompressor.feed(chunk):
                got += piece
                assert len(piece) <= max(_reply.STEP, len(chunk))
    except BodyOverflow:
        assert max(len(body), len(packed)) > limit
        assert body.startswith(got)
        if encoding == "identity":
            assert len(got) == limit
    else:
        assert got == body
    assert len(got) <= limit


def test_a_bomb_is_decompressed_at_most_one_step_beyond_the_limit(monkeypatch):
    """64 MiB are compressed to 64 KiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    megabyte = bytes(2**20)
    bomb = b"".join(packer.compress(megabyte) for _ in range(64)) + packer.flush()
    assert len(bomb) < 2**17
    unpacked = 0

    class Counting:
        def __init__(self, real):
            self.real = real

        def __getattr__(self, name):
            return getattr(self.real, name)

        def decompress(self, data, most):
            nonlocal unpacked
            piece = self.real.decompress(data, most)
            unpacked += len(piece)
            return piece

    real = zlib.decompressobj
    monkeypatch.setattr(_reply.zlib, "decompressobj", lambda wbits: Counting(real(wbits)))
    with pytest.raises(BodyOverflow, match=str(2**20)):
        unpack([bomb], "gzip", limit=2**20)
    assert 2**20 < unpacked <= 2**20 + _reply.STEP


def test_too_many_gzip_members_raise_bad_encoding():
    with pytest.raises(BadEncoding, match="members"):
        unpack([gzip.compress(b"", mtime=0) * 1000], "gzip")


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "nonsense"])
def test_an_encoding_that_was_not_requested_is_refused(encoding):
    with pytest.raises(BadEncoding):
        Decompressor(encoding, 10)


def test_an_empty_body_needs_no_gzip_header():
    assert unpack([], "gzip") == b""
    assert unpack([b""], "gzip") == b""
