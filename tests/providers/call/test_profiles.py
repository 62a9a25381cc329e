"""Facts about models are rows: valid, dated, found by the longest prefix."""

import re

import pytest

from llm_council.models import GenerateRequest, ProviderCapabilities, ReasoningConfig
from llm_council.providers import registry
from llm_council.providers._call.fitting import fit
from llm_council.providers._call.profiles import (
    ModelProfile,
    Sampling,
    _table,
    default_model,
    family_of,
    is_known,
    profile_for,
)


def test_every_row_is_a_profile_with_a_date():
    for row in _table()["profile"]:
        ModelProfile(**row)
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row["since"]), row
        assert row["provider"]
    keys = [(row["provider"], row.get("prefix", "")) for row in _table()["profile"]]
    assert len(keys) == len(set(keys))
    assert all(prefix == prefix.lower() for _, prefix in keys)


def test_the_longest_prefix_wins_and_shorter_ones_show_through():
    mini = profile_for("openai", "o1-mini-2024-09-12")
    assert mini.system_role == "user"  # its own row
    assert mini.sampling is Sampling.NEVER  # o1's
    assert mini.token_field == "max_completion_tokens"  # the vendor's


@pytest.mark.parametrize("name", ["o30", "gpt-50", "o1x", "omni-moderation", "", None])
def test_a_prefix_ends_with_a_word(name):
    assert profile_for("openai", name).sampling is Sampling.ALWAYS


@pytest.mark.parametrize(
    ("model", "efforts"),
    [
        ("gpt-4o-mini", ""),
        ("gpt-4.1", ""),
        ("o1-mini", ""),
        ("o3", "low medium high"),
        ("gpt-5-mini", "minimal low medium high"),
        ("gpt-5-pro", "high"),
        ("gpt-5.1", "none low medium high"),
        ("gpt-5.1-codex-max", "low medium high xhigh"),
        ("gpt-5.4-mini", "none low medium high xhigh"),
        ("gpt-5.6-sol", "none low medium high xhigh max"),
        ("gpt-5.3-codex", "low medium high xhigh"),
        ("gpt-5.4-pro", "medium high xhigh"),
        ("gpt-5.4-pro-2026-03-05", "medium high xhigh"),
        ("gpt-5.5-pro", "medium high xhigh"),
        ("gpt-6-luna", "none low medium high xhigh max"),
        ("gpt-6.1-terra", "none low medium high xhigh max"),
        ("gpt-6-astra", "low medium high xhigh max"),
        ("gpt-6.1-sol", "low medium high xhigh max"),
        ("gpt-6.2-astra-law", "low medium high xhigh max"),
        ("gpt-6.2-sol", "low medium high xhigh max"),
        ("gpt-daybreak-blue-latest", "low medium high xhigh max"),
        ("chatgpt-4o-latest", ""),
        ("codex-mini-latest", "low medium high"),
        ("gpt-7", "none minimal low medium high xhigh max"),  # unknown: as asked
    ],
)
def test_openais_models_take_words_of_effort_of_their_own(model, efforts):
    assert " ".join(profile_for("openai", model).efforts) == efforts


def test_names_are_compared_without_case():
    assert profile_for("openai", "GPT-5").sampling is Sampling.NEVER


def test_an_unknown_provider_takes_everything_as_asked():
    assert profile_for("nobody", "anything") == ModelProfile(provider="nobody")
    assert not is_known("nobody")


def test_default_models_are_of_providers_that_are_known():
    for provider in _table()["defaults"]:
        assert is_known(provider)
        assert default_model(provider)
    assert default_model("vllm") is None


@pytest.mark.parametrize("name", [info.name for info in registry.list_providers() if info.error is None])
def test_what_a_provider_declares_one_of_its_models_can(name):
    cls = registry.get_class(name)
    family = family_of(cls)
    rows = [profile_for(family, row.get("prefix")) for row in _table()["profile"] if row["provider"] == family]
    rows.append(profile_for(family, "any"))
    able = {
        "reasoning": any(row.efforts for row in rows),
        "tool_use": any(row.tools for row in rows),
        "multimodal": any(row.images for row in rows),
    }
    assert [word for word, can in able.items() if cls.capabilities.has(word) and not can] == []


@pytest.mark.parametrize(
    ("provider", "model", "efforts"),
    [
        ("gemini", "gemini-3.6-flash", "minimal low medium high"),
        ("gemini", "gemini-3.7-flash", "low medium high"),
        ("gemini", "gemini-3.8-flash", "low medium high"),
        ("gemini", "gemini-4-argon", "low medium high"),
        ("gemini", "gemini-3-flash-preview", "minimal low medium high"),
        ("gemini", "gemini-flash-latest", "low medium high"),
        ("xai", "grok-3", ""),
        ("xai", "grok-3-mini-fast", "low high"),
        ("xai", "grok-4-0709", ""),
        ("xai", "grok-4-fast-reasoning", ""),
        ("xai", "grok-4.20-reasoning", ""),
        ("xai", "grok-4.3", "none low medium high"),
        ("mistral", "mistral-medium-2508", ""),
        ("mistral", "mistral-medium-latest", "none high"),
        ("cohere", "command-a-plus-05-2026", "none medium"),
        ("xai", "grok-4.5", "low medium high"),
        ("xai", "grok-4.6", "low medium high xhigh"),
        ("xai", "grok-4.7", "low medium high xhigh"),
        ("mistral", "mistral-large-2512", ""),
        ("mistral", "mistral-large-4-0", "low medium high"),
    ],
)
def test_newer_models_of_other_vendors_take_words_of_effort_of_their_own(provider, model, efforts):
    assert " ".join(profile_for(provider, model).efforts) == efforts


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("grok-3", True),
        ("grok-3-mini", False),
        ("grok-4", False),
        ("grok-4-fast-non-reasoning", True),
        ("grok-4.20-non-reasoning", True),
        ("grok-4.20-reasoning", False),
    ],
)
def test_groks_that_reason_take_no_stop_texts(model, takes):
    assert profile_for("xai", model).stop is takes


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("gpt-6-luna", "none", 0.5),
        ("gpt-6-luna", "low", None),
        ("gpt-6-luna", None, None),
        ("gpt-6-astra", "low", None),
    ],
)
def test_gpt_6_samples_only_while_it_does_not_reason(model, effort, sent):
    reasoning = None if effort is None else ReasoningConfig(effort=effort)
    request = GenerateRequest(prompt="x", model=model, temperature=0.5, reasoning=reasoning)
    fitted, adjustments = fit(request, ProviderCapabilities(reasoning=True), profile_for("openai", model))
    assert fitted.temperature == sent
    assert bool(adjustments) is (sent is None)


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("claude-opus-4-8", "after-user"),
        ("claude-opus-5", "after-user"),
        ("claude-fable-5-1", "after-user"),
        ("claude-mythos-5-1", "after-user"),
        ("claude-mythos-preview", "first"),
        ("claude-sonnet-5", "first"),
        ("claude-opus-4-7", "first"),
    ],
)
def test_instructions_between_the_turns_are_taken_by_some_models_of_anthropic(model: str, place: str) -> None:
    assert profile_for("anthropic", model).instruction_place == place
