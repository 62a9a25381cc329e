"""A value of a wrong type in a table of the configuration names its table and its field."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_council import Council, CouncilConfig, errors


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("kind = 'openai'\ntimeout = 5", "timeout: expected a table, got 5"),
        ("kind = 'openai'\ndefault_model = 5", "default_model: expected text, got 5"),
        ("kind = 'openai'\nbase_url = 5", "base_url: expected text, got 5"),
        ("kind = 'openai'\napi_key = 5", "api_key: expected text, got 5"),
        ("kind = 'openai'\nheaders = 'x'", "headers: expected a table, got 'x'"),
        ("kind = 'openai'\nextra_body = [1]", "extra_body: expected a table, got [1]"),
        ("kind = 'openai'\nallow_http = 'yes'", "allow_http: expected true or false, got 'yes'"),
        ("kind = 'openai'\nprofile = { stop = 'no' }", "profile.stop: true or false, got 'no'"),
        ("kind = 'openai'\nprofile = { max_output = 'many' }", "profile.max_output: a whole number of 1 or more"),
        ("kind = 'openai'\nprofile = { efforts = 'high' }", "profile.efforts: a list of words, got 'high'"),
        ("kind = 'openai'\nprofile = { efforts = ['hgh'] }", "profile.efforts: one of none, minimal, low"),
        ("kind = 'openai'\nprofile = { api = 'chatt' }", "profile.api: one of chat, responses, got 'chatt'"),
        ("kind = 'openai'\nprofile = { prefill = true }", "profile.prefill: one of always, never, without-reasoning"),
        ("kind = 'openai'\nprofile = { system_role = 3 }", "profile.system_role: one of system, developer, user"),
        ("kind = 'openai'\nlimits = { body = '1' }", "limits.body: a whole number of 1 or more, got '1'"),
        ("kind = 'anthropic'\nanswer_tokens = true", "answer_tokens: expected a whole number, got True"),
        ("kind = 'anthropic'\nbetas = 3", "betas: expected a list, got 3"),
        ("kind = 'replicate'\npoll = '3'", "poll: expected a number, got '3'"),
        ("kind = 'failover'\nof = ['ollama', 'vllm']\nfailures = '3'", "failures: expected a whole number, got '3'"),
        ("kind = 'cached'\nof = 'ollama'\nttl = '3'", "ttl: expected a number, got '3'"),
        ("kind = 'retry'\nof = 'ollama'\nmax_retries = '3'", "max_retries: a whole number of 0 or more"),
    ],
)
def test_a_wrong_type_names_table_and_field(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[providers.x]\n{line}\n")
    config = CouncilConfig.from_file(path)
    with pytest.raises(errors.InvalidOption) as caught:
        Council(["x"], config=config)
    assert caught.value.message.startswith(f"[providers.x] {message}")


def test_right_types_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        "[providers.x]\nkind = 'vllm'\ntimeout = { connect = 1 }\nheaders = { X-Team = 'a' }\nallow_http = true\n"
        "[providers.y]\nkind = 'hedge'\nof = 'x'\nafter = 'p95'\n"
        "[providers.z]\nkind = 'balance'\nof = ['x', 'y']\ncool_down = 3\n"
    )
    assert Council(["z"], config=CouncilConfig.from_file(path)).providers == ("z",)
