"""What the vendors' own command-line agents wrote, read as what it was."""

from __future__ import annotations

from typing import Any

import pytest
from agent_mirrors import decode_response
from wire_samples import INDEX, SAMPLES, envelope, named

from llm_council.errors import (
    AuthenticationFailed,
    CommandFailed,
    ConnectFailed,
    ContentFiltered,
    ContextTooLong,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    ProviderError,
    RateLimited,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import join
from llm_council.providers._agents import claude_code, codex, gemini_cli
from llm_council.providers._agents.errors import Ended

pytestmark = pytest.mark.slow

DIALECTS: dict[str, Any] = {"codex_cli": codex, "claude_code": claude_code, "gemini_cli": gemini_cli}
READERS: dict[str, Any] = {
    "codex_cli": codex.CodexEvents,
    "claude_code": claude_code.ClaudeCodeEvents,
    "gemini_cli": gemini_cli.GeminiCliEvents,
}
ROWS = [row for row in INDEX if row["api"] in DIALECTS]
PARIS = "Paris is the capital of France. — café 🗼"

# The kind of a recording, and what it means. Where the three differ, the API's name stands before.
MEANINGS: dict[str, tuple[type[ProviderError], bool]] = {
    "error_400": (ContextTooLong, False),
    "error_401": (AuthenticationFailed, False),
    "stream_error_401": (AuthenticationFailed, False),
    "error_404": (ModelNotFound, False),
    "error_429": (RateLimited, True),
    "gemini_cli error_429": (OutOfCredit, False),  # the quota of a day
    "stream_error_429": (RateLimited, True),
    "error_529": (ServerFailed, True),
    "error_max_turns": (CommandFailed, False),
    "error_midstream_quota": (OutOfCredit, False),
    "error_not_logged_in": (AuthenticationFailed, False),
    "codex_cli error_not_logged_in": (ConnectFailed, True),  # it had no network, and was killed for its time
    "error_quota": (OutOfCredit, False),
    "error_truncated_stream": (TruncatedReply, True),
    "error_usage": (CommandFailed, False),
    "length": (TruncatedReply, False),
    "plain_text_output": (MalformedReply, True),  # nobody asked for it
    "refusal": (ContentFiltered, False),
    "stream_refusal": (ContentFiltered, False),
}


def recording(row: dict[str, Any]) -> tuple[bytes, Ended]:
    meta = envelope(row)
    folder = (SAMPLES / row["file"]).parent
    out = (folder / meta["stdout_file"]).read_bytes() if meta["stdout_file"] else b""
    err = (folder / meta["stderr_file"]).read_text() if meta["stderr_file"] else ""
    return out, Ended(exit_code=meta["exit_code"], stderr=err)


def meaning(row: dict[str, Any]) -> tuple[type[ProviderError], bool] | None:
    (kind,) = row["kinds"]
    return MEANINGS.get(f"{row['api']} {kind}", MEANINGS.get(kind))


GOOD = [row for row in ROWS if meaning(row) is None]


def test_the_collection_is_there() -> None:
    assert len(ROWS) >= 30
    assert len(GOOD) >= 8


@named(GOOD)
def test_an_answer(row: dict[str, Any]) -> None:
    out, ended = recording(row)
    response = decode_response(DIALECTS[row["api"]], out, ended)
    structured = row["kinds"] == ["structured"]
    assert response.text == ('{"capital":"Paris"}' if structured else PARIS)
    assert response.structured == ({"capital": "Paris"} if structured else None)
    assert response.finish_reason == "stop"
    assert response.model in ("claude-opus-4-8", "gemini-2.5-flash")
    assert response.usage is not None
    assert response.usage.total_tokens
    assert response.request_id
    assert (response.cost is not None) == (row["api"] == "claude_code")


@named([row for row in ROWS if meaning(row) is not None])
def test_a_failure(row: dict[str, Any]) -> None:
    out, ended = recording(row)
    cls, retryable = meaning(row) or (ProviderError, False)
    with pytest.raises(cls) as caught:
        decode_response(DIALECTS[row["api"]], out, ended)
    assert type(caught.value) is cls
    assert caught.value.retryable is retryable
    assert caught.value.message
    if cls is AuthenticationFailed:
        assert "or set" in caught.value.message  # it says what to do


@named(ROWS)
def test_pieces_of_any_size_are_the_same(row: dict[str, Any]) -> None:
    out, ended = recording(row)

    def outcome(size: int) -> Any:
        reader = READERS[row["api"]]()
        pieces = []
        try:
            for start in range(0, len(out), size):
                pieces += reader.feed(out[start : start + size])
            return join([*pieces, *reader.finish(ended)])
        except ProviderError as error:
            return type(error), error.message

    whole = outcome(1 << 20)
    for size in (1, 7, 64):
        assert outcome(size) == whole


def test_usage_and_cost() -> None:
    by_name = {row["file"]: row for row in ROWS}
    out, ended = recording(by_name["claude_code/stream_text-stream.meta.json"])
    response = decode_response(claude_code, out, ended)
    assert response.usage is not None
    assert response.cost is not None
    # The wire leaves the cache out of its input; ours counts everything that went in.
    assert (response.usage.input_tokens, response.usage.cached_tokens, response.usage.cache_write_tokens) == (
        1125,
        1000,
        100,
    )
    assert response.usage.output_tokens == 15
    assert response.cost.usd == pytest.approx(0.001625)
    out, ended = recording(by_name["gemini_cli/stream_text-stream.meta.json"])
    usage = decode_response(gemini_cli, out, ended).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == (100, 29, 64, 20)
