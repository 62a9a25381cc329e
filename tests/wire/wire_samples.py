"""Recorded replies and captured requests: where they lie, and how the tests of each dialect take them up.

Where they are absent, whatever imports this is skipped, and says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_council.models import GenerateResponse, join

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[3] / "shared")
ORACLES = SHARED / "oracles"
SAMPLES = ORACLES / "samples"

if not SAMPLES.is_dir():
    pytest.skip(f"no wire samples at {SAMPLES}: set LLM_COUNCIL_SHARED", allow_module_level=True)

INDEX: list[dict[str, Any]] = json.loads((SAMPLES / "INDEX.json").read_text())
EXPECTED: dict[str, dict[str, Any]] = json.loads((ORACLES / "EXPECTED.json").read_text())["expected"]
"""What the vendor's own client, or the vendor's documentation, makes of a sample, by its file."""


def named(rows: Sequence[dict[str, Any]]) -> Any:
    """Run a test for each of these samples, by the name of its file; there must be one."""
    assert rows
    return pytest.mark.parametrize("row", rows, ids=[row["file"].removesuffix(".meta.json") for row in rows])


def envelope(row: dict[str, Any]) -> dict[str, Any]:
    """Return what was recorded: the request, where it is known, and the response."""
    return json.loads((SAMPLES / row["file"]).read_text())


def reply(row: dict[str, Any]) -> dict[str, Any]:
    """Return the recorded response: status, headers and, of a whole reply, its body."""
    return envelope(row)["response"]


def body_of(row: dict[str, Any]) -> bytes:
    """Return the bytes of a recorded stream."""
    return (SAMPLES / row["file"]).parent.joinpath(Path(row["body_file"]).name).read_bytes()


def captured(vendor: str, name: str) -> dict[str, Any]:
    """Return the body that a vendor's own client sent."""
    return json.loads((ORACLES / "sdk_requests" / vendor / f"{name}.json").read_text())["request"]["body"]


def joined(stream: Any, pieces: Sequence[bytes]) -> GenerateResponse:
    """Feed a reader these pieces of a body, and return the answer."""
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    return join([*chunks, *stream.finish()])


def cuts(body: bytes, most: int) -> list[int]:
    """Return every place of a short body, some ``most`` of a long one."""
    return list(range(1, len(body), max(1, len(body) // most)))
