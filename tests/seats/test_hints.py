"""A seat that is written in another way gets a suggestion that works."""

from __future__ import annotations

import re

import pytest

from llm_council import Council, CouncilConfig, errors


def message(seat: str) -> str:
    with pytest.raises(errors.UnknownProvider) as caught:
        Council([seat], config=CouncilConfig())
    return caught.value.message


@pytest.mark.parametrize(
    ("seat", "suggested"),
    [
        ("openai:gpt-5", ["openai/gpt-5"]),
        ("openai:gpt-5:2", ["openai/gpt-5:2"]),
        ("opnai:gpt-5", ["openai/gpt-5"]),
        ("openrouter:anthropic/claude-sonnet-4.6", ["openrouter/anthropic/claude-sonnet-4.6"]),
        ("ollama:llama3.2:1b", ["ollama/llama3.2:1b"]),
        ("gpt-5", ["openai/gpt-5", "openrouter/openai/gpt-5"]),
        ("gpt-5:3", ["openai/gpt-5", "openrouter/openai/gpt-5"]),
        ("o3-mini", ["openai/o3-mini", "openrouter/openai/o3-mini"]),
        (
            "claude-opus-5",
            ["anthropic/claude-opus-5", "vertex/claude-opus-5", "openrouter/anthropic/claude-opus-5"],
        ),
        ("llama3.2:1b", ["ollama/llama3.2:1b"]),
        ("qwen3:8b", ["ollama/qwen3:8b"]),
        ("google/gemini-3-pro", ["openrouter/google/gemini-3-pro"]),
        ("claude", ["anthropic", "vertex"]),
        ("opnai", ["openai"]),
        ("opnai/gpt-5", ["openai"]),
    ],
)
def test_the_message_suggests_how_to_write_the_seat(seat: str, suggested: list[str]) -> None:
    _, _, hint = message(seat).partition(";")
    assert re.findall(r"'([^']+)'", hint) == suggested
    for name in suggested:
        assert Council([name], config=CouncilConfig()).providers


def test_a_name_like_no_other_lists_the_providers() -> None:
    assert "there are ai21, anthropic" in message("nonsense-thing")


def test_a_configured_name_is_suggested_too() -> None:
    config = CouncilConfig(instances={"gateway": {"kind": "vllm"}})
    with pytest.raises(errors.UnknownProvider, match="did you mean 'gateway/house-70b'"):
        Council(["gatewy:house-70b"], config=config)


def test_a_slash_without_a_model_is_refused() -> None:
    with pytest.raises(errors.InvalidOption, match="name/model"):
        Council(["openai/"], config=CouncilConfig())


@pytest.mark.parametrize(
    ("seat", "suggested"),
    [
        ("vllm:-1", "vllm:3"),
        ("vllm:0", "vllm:3"),
        ("vllm:1.5", "vllm:3"),
        ("vllm:1000", "vllm:3"),
        ("vllm:", "vllm:3"),
        ("vllm/good:x", "vllm/good:3"),
        ("vllm/good:x3", "vllm/good:3"),
        ("vllm/good:3x", "vllm/good:3"),
        ("vllm/good:-1", "vllm/good:3"),
        ("vllm/good:", "vllm/good:3"),
    ],
)
def test_what_was_meant_as_a_count_is_refused(seat: str, suggested: str) -> None:
    with pytest.raises(errors.InvalidOption, match=f"1 to 999, such as '{suggested}'"):
        Council([seat], config=CouncilConfig())


@pytest.mark.parametrize("seat", ["ollama/llama3.2:1b", "ollama/m:8x7b", "vllm/m:2409", "openrouter/a/b:free"])
def test_the_tag_of_a_model_is_part_of_its_name(seat: str) -> None:
    assert Council([seat], config=CouncilConfig()).providers == (seat,)
