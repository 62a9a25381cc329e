"""Configuration: sources, their order, and what a project's file may not do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council import Council
from llm_council.config import CouncilConfig, _trust, reaches, trust_project, user_file
from llm_council.errors import ConfigurationError, InvalidOption, UnknownOption, UntrustedConfig
from llm_council.models import Budget


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in tuple(os.environ):
        if name.startswith("LLM_COUNCIL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_without_any_file() -> None:
    assert CouncilConfig.load() == CouncilConfig()


def test_a_file_sets_every_kind_of_field(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.toml",
        """
        [council]
        providers = ["openrouter/anthropic/claude-sonnet-4.6", "local:2"]
        budget = { deadline = 60, quorum = 2, usd = 0.5 }
        reasoning = { effort = "low" }
        [subagents]
        paths = ["roles"]
        [providers.gateway]
        kind = "openai-compatible"
        base_url = "https://llm.example.com/v1"
        api_key = "${GATEWAY_KEY}"
        """,
    )
    config = CouncilConfig.from_file(path)
    assert config.providers == ("openrouter/anthropic/claude-sonnet-4.6", "local:2")
    assert config.budget == Budget(deadline=60, quorum=2, usd=0.5)
    assert config.reasoning is not None
    assert config.reasoning.effort == "low"
    assert config.subagent_paths == ("roles",)
    assert config.instances["gateway"]["api_key"] == "${GATEWAY_KEY}"


def test_a_literal_key_is_masked(tmp_path: Path) -> None:
    path = write(tmp_path / "c.toml", '[providers.x]\nkind = "openai"\napi_key = "canary-canary"\n')
    assert "canary" not in repr(CouncilConfig.from_file(path))


def test_environment_beats_project_beats_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(user_file(), '[council]\nchair = "user"\nmax_tokens = 10\ntemperature = 0.1\n')
    write(tmp_path / "council.toml", '[council]\nchair = "project"\nmax_tokens = 20\n')
    monkeypatch.setenv("LLM_COUNCIL_CHAIR", "environment")
    config = CouncilConfig.discover(tmp_path)
    assert (config.chair, config.max_tokens, config.temperature) == ("environment", 20, 0.1)
    assert CouncilConfig.load().max_tokens == 10, "load() does not read the project's file"


def test_environment_sets_one_limit_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    write(user_file(), "[council]\nbudget = { quorum = 2, deadline = 50 }\n")
    monkeypatch.setenv("LLM_COUNCIL_DEADLINE", "7.5")
    monkeypatch.setenv("LLM_COUNCIL_PROVIDERS", "a, b/c:2,")
    config = CouncilConfig.load()
    assert config.budget == Budget(quorum=2, deadline=7.5)
    assert config.providers == ("a", "b/c:2")


@given(mine=st.floats(1, 1e6), theirs=st.floats(1, 1e6))
def test_a_project_can_only_lower_the_budget(mine: float, theirs: float) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        home = write(Path(folder) / "user.toml", f"[council]\nbudget = {{ deadline = {mine!r} }}\n")
        patch.setenv("LLM_COUNCIL_CONFIG", str(home))
        write(Path(folder) / "council.toml", f"[council]\nbudget = {{ deadline = {theirs!r}, usd = 3 }}\n")
        budget = CouncilConfig.discover(folder).budget
        assert budget == Budget(deadline=min(mine, theirs), usd=3)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            '[providers.openai]\nkind = "openai"\nbase_url = "https://evil.example"\n',
            "[providers.openai] kind, base_url",
        ),
        ("[council]\nlimits = { body = 1 }\n", "limits"),
        ("[council]\nretry = { max_retries = 99 }\n", "retry"),
        ('[council]\nseed = "x"\n', "seed"),
        ('[subagents]\npaths = ["../outside"]\n', "outside"),
        ('[council]\nsubagent_paths = ["/etc"]\n', "/etc"),
        ('[council]\nsubagent_paths = ["~/roles"]\n', "~/roles"),
        ('[council]\nsubagent_paths = ["~root"]\n', "~root"),
        ('[council]\nstore = "runs.db"\n', "store"),
        ('[council]\nproviders = ["openai/gpt:9", "local:4"]\n', "13 seats"),
        ('[council]\nproviders = ["openai:999"]\n', "999 seats"),
    ],
)
def test_an_untrusted_project_is_refused_restricted_settings(tmp_path: Path, text: str, named: str) -> None:
    path = write(tmp_path / "council.toml", text)
    with pytest.raises(UntrustedConfig) as caught:
        CouncilConfig.discover(tmp_path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_paths_of_a_project_are_relative_to_its_file(tmp_path: Path) -> None:
    write(tmp_path / "project" / "council.toml", '[subagents]\npaths = ["roles", "./more"]\n')
    paths = CouncilConfig.discover(tmp_path / "project").subagent_paths
    assert [Path(path) for path in paths] == [tmp_path / "project" / "roles", tmp_path / "project" / "more"]
    write(tmp_path / "project" / "council.toml", '[subagents]\npaths = ["~no-such-user-here/x"]\n')
    with pytest.raises(InvalidOption, match="there is no user of this name"):
        CouncilConfig.discover(tmp_path / "project")


def test_a_project_path_that_links_outside_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "project"
    write(inside / "council.toml", '[subagents]\npaths = ["link"]\n')
    (inside / "link").symlink_to("/etc")
    with pytest.raises(UntrustedConfig):
        CouncilConfig.discover(inside)


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        ("[council\n", ConfigurationError, "line 1"),
        ("[counsel]\n", UnknownOption, "did you mean 'council'"),
        ('[council]\nprovider = ["a"]\n', UnknownOption, "did you mean 'providers'"),
        ("[council]\nbudget = { deadlin = 1 }\n", UnknownOption, "did you mean 'deadline'"),
        ("[council]\nbudget = 5\n", InvalidOption, "budget must be a table"),
        ("[council]\nbudget = { deadline = -1 }\n", InvalidOption, "above 0"),
        ('[council]\nproviders = "openai"\n', InvalidOption, "put it in a list"),
        ("[council]\nproviders = [1]\n", InvalidOption, "provider names"),
        ("[council]\nmax_tokens = 1.5\n", InvalidOption, "whole number"),
        ("[council]\nmax_tokens = true\n", InvalidOption, "whole number"),
        ("[providers.x]\nbase_url = 'x'\n", InvalidOption, "kind"),
        ("council = 1\n", InvalidOption, "must be a table"),
        ("[subagents]\nfolder = 1\n", UnknownOption, "folder"),
    ],
)
def test_an_invalid_file_is_refused_with_its_path_and_the_remedy(
    tmp_path: Path, text: str, kind: type[ConfigurationError], named: str
) -> None:
    path = write(tmp_path / "c.toml", text)
    with pytest.raises(kind) as caught:
        CouncilConfig.from_file(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


AT_LARGE = '[providers.gateway]\nkind = "openai-compatible"\nbase_url = "https://llm.example.com/v1"\n'


def test_a_trusted_project_may_set_what_the_user_may_set(tmp_path: Path) -> None:
    path = write(tmp_path / "council.toml", f"[council]\nlimits = {{ body = 1000 }}\n{AT_LARGE}")
    assert reaches(path) == ("limits", "[providers.gateway] kind, base_url")
    trust_project(path)
    config = CouncilConfig.discover(tmp_path)
    assert config.instances["gateway"]["base_url"] == "https://llm.example.com/v1"
    assert config.limits.body == 1000
    assert not CouncilConfig.load().instances, "load() does not read the project's file"


def test_even_a_trusted_project_only_lowers_the_budget(tmp_path: Path) -> None:
    write(user_file(), "[council]\nmax_repairs = 1\nbudget = { usd = 1.0 }\n")
    budget = "[council]\nmax_repairs = 9\nbudget = { usd = 100.0, deadline = 7, quorum = 2 }\n"
    path = write(tmp_path / "council.toml", budget + AT_LARGE)
    trust_project(path)
    config = CouncilConfig.discover(tmp_path)
    assert config.budget == Budget(usd=1.0, deadline=7, quorum=2)
    assert config.max_repairs == 1


def test_a_changed_copied_or_moved_file_must_be_trusted_again(tmp_path: Path) -> None:
    path = write(tmp_path / "project" / "council.toml", AT_LARGE)
    trust_project(path)
    CouncilConfig.discover(tmp_path / "project")
    copied = write(tmp_path / "elsewhere" / "council.toml", AT_LARGE)
    with pytest.raises(UntrustedConfig):
        CouncilConfig.discover(copied.parent)
    write(path, AT_LARGE.replace("llm.", "evil."))
    with pytest.raises(UntrustedConfig, match="council config trust") as caught:
        CouncilConfig.discover(tmp_path / "project")
    assert caught.value.path == str(path)
    assert caught.value.field == "[providers.gateway] kind, base_url"
    write(path, AT_LARGE)
    CouncilConfig.discover(tmp_path / "project")
    assert _trust.forget(path)
    assert not _trust.forget(path)
    with pytest.raises(UntrustedConfig):
        CouncilConfig.discover(tmp_path / "project")


def test_trust_does_not_depend_on_the_path_that_leads_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust_project(write(tmp_path / "project" / "council.toml", AT_LARGE))
    (tmp_path / "link").symlink_to(tmp_path / "project")
    CouncilConfig.discover(tmp_path / "link")
    monkeypatch.chdir(tmp_path / "project")
    assert CouncilConfig.discover().instances


def test_the_trust_record_is_private_to_its_owner(tmp_path: Path) -> None:
    path = write(tmp_path / "council.toml", AT_LARGE)
    old = os.umask(0)
    try:
        trust_project(path)
    finally:
        os.umask(old)
    record = _trust.record()
    assert not record.is_relative_to(path.parent / "council.toml")
    assert record.stat().st_mode & 0o777 == 0o600
    assert record.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in record.parent.iterdir()] == ["trusted.json"]
    record.chmod(0o622)
    with pytest.raises(UntrustedConfig, match="other users can write it"):
        CouncilConfig.discover(tmp_path)


@pytest.mark.parametrize("junk", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_broken_trust_record_is_an_error(tmp_path: Path, junk: bytes) -> None:
    path = write(tmp_path / "council.toml", AT_LARGE)
    trust_project(path)
    _trust.record().write_bytes(junk)
    with pytest.raises(ConfigurationError, match=r"trusted\.json"):
        CouncilConfig.discover(tmp_path)


def test_an_invalid_file_cannot_be_trusted(tmp_path: Path) -> None:
    path = write(tmp_path / "council.toml", "[council]\nbudget = { deadlin = 1 }\n")
    with pytest.raises(UnknownOption):
        trust_project(path)
    assert not _trust.record().exists()


def test_keys_in_headers_are_masked_and_still_sent(tmp_path: Path) -> None:
    from llm_council.providers.registry import get_provider

    headers = 'headers = { Authorization = "Bearer canary-canary", X-Team = "blue" }\n'
    config = CouncilConfig.from_file(write(tmp_path / "c.toml", AT_LARGE + headers))
    assert "canary" not in repr(config)
    assert "blue" in repr(config)
    options = {**config.instances["gateway"]}
    provider = get_provider(options.pop("kind"), name="gateway", **options)
    assert provider.headers()["Authorization"] == "Bearer canary-canary"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x = " + b"[" * 5000, b"#" * (1 << 20) + b"#"])
def test_any_content_of_a_file_is_loaded_or_refused_with_a_typed_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "council.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"council\.toml"):
        CouncilConfig.discover(tmp_path)


def test_an_unreadable_file_and_an_invalid_variable_raise_typed_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        CouncilConfig.from_file(tmp_path / "none.toml")
    monkeypatch.setenv("LLM_COUNCIL_CONFIG", str(tmp_path / "named.toml"))
    with pytest.raises(ConfigurationError, match=r"named\.toml"):
        CouncilConfig.load()
    monkeypatch.delenv("LLM_COUNCIL_CONFIG")
    monkeypatch.setenv("LLM_COUNCIL_DEADLINE", "soon")
    with pytest.raises(InvalidOption, match="LLM_COUNCIL_DEADLINE"):
        CouncilConfig.load()


def test_variables_are_replaced_in_api_key_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CANARY", "canary-value")
    path = write(tmp_path / "c.toml", '[council]\nsystem_context = "${CANARY}"\n')
    assert CouncilConfig.from_file(path).system_context == "${CANARY}"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DEADLINE", "soon", "LLM_COUNCIL_DEADLINE: expected a number, got 'soon'"),
        ("DEADLINE", "-1", "LLM_COUNCIL_DEADLINE: budget.deadline: a number above 0, got -1.0"),
        ("QUORUM", "1.5", "LLM_COUNCIL_QUORUM: expected a whole number, got '1.5'"),
        ("QUORUM", "0", "LLM_COUNCIL_QUORUM: budget.quorum: a whole number of 1 or more, got 0"),
        ("BUDGET_USD", "$5", "LLM_COUNCIL_BUDGET_USD: expected a number, got '$5'"),
        ("MAX_TOKENS", "0", "LLM_COUNCIL_MAX_TOKENS: max_tokens: a whole number of 1 or more, got 0"),
        ("TEMPERATURE", "nan", "LLM_COUNCIL_TEMPERATURE: temperature: a number of 0 or more, got nan"),
        ("STRATEGY", "votee", "LLM_COUNCIL_STRATEGY: there is no strategy 'votee'; did you mean 'vote'?"),
        ("STORE", "/", "LLM_COUNCIL_STORE: / is a folder: name a file in it"),
        ("CONFIG", "/no/such", "LLM_COUNCIL_CONFIG: there is no file /no/such"),
        ("ALLOW_HTTP", "yes", "LLM_COUNCIL_ALLOW_HTTP: expected 1 or 0, got 'yes'"),
        ("PROVIDER", "openai", "no environment variable LLM_COUNCIL_PROVIDER; did you mean LLM_COUNCIL_PROVIDERS?"),
        ("BUDGET", "3", "no environment variable LLM_COUNCIL_BUDGET; did you mean LLM_COUNCIL_BUDGET_USD?"),
    ],
)
def test_an_error_about_a_variable_names_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"LLM_COUNCIL_{variable}", value)
    with pytest.raises(ConfigurationError) as caught:
        CouncilConfig.load()
    assert message in caught.value.message


def test_a_variable_unlike_any_of_ours_is_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLM_COUNCIL_TEAM", "search")
    caplog.set_level("INFO", "llm_council")
    assert CouncilConfig.load() == CouncilConfig()
    assert "LLM_COUNCIL_TEAM is ignored" in caplog.text


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PROVIDERS", "opnai"), ("CHAIR", "nobody"), ("QUORUM", "9"), ("PROVIDERS", "gpt-5"), ("SUBAGENT_PATHS", "/no")],
)
def test_a_variable_that_does_not_fit_the_seats_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("LLM_COUNCIL_PROVIDERS", "vllm:2")
    monkeypatch.setenv(f"LLM_COUNCIL_{variable}", value)
    with pytest.raises(ConfigurationError, match=rf"^LLM_COUNCIL_{variable}: "):
        Council().plan("Where?")


@pytest.mark.parametrize("project", [True, False], ids=["council.toml", "the user's file"])
@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[council]\nchair = 'nobody'", "chair"),
        ("[council]\nproviders = ['opnai']", "providers"),
        ("[council]\nbudget = { quorum = 9 }", "budget.quorum"),
        ("[subagents]\npaths = ['none']", "[subagents] paths"),
    ],
)
def test_a_file_that_does_not_fit_the_seats_is_named_with_its_field(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, field: str, project: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(Path("council.toml") if project else user_file(), text)
    config = CouncilConfig.discover()
    with pytest.raises(ConfigurationError) as caught:
        Council(None if config.providers else ["vllm:2"], config=config).plan("Where?")
    assert caught.value.message.startswith(f"{path}: {field}: ")


@pytest.mark.parametrize(
    "variable", ["LLM_COUNCL_STORE", "LLM_COUNCILS_STORE", "LLMCOUNCIL_STORE", "llm_council_store"]
)
def test_a_misspelt_prefix_of_a_variable_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    monkeypatch.setenv("COUNTRY", "NZ")
    monkeypatch.setenv("COUNCIL_SEED", "7")
    monkeypatch.setenv(variable, "runs.db")
    assert CouncilConfig.load() == CouncilConfig()
    assert caplog.messages == [f"the environment variable {variable} is ignored; did you mean LLM_COUNCIL_STORE?"]


def test_an_argument_in_the_place_of_a_variable_is_not_blamed_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COUNCIL_CHAIR", "vllm-1")
    with pytest.raises(ConfigurationError, match=r"^no seat is named 'nobody'"):
        Council(["vllm:2"], chair="nobody").plan("Where?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[council]\nbudget = { deadline = '60' }", "budget.deadline: a number above 0, got '60'"),
        ("[council]\nretry = { max_retries = 'x' }", "retry.max_retries: a whole number of 0 or more, got 'x'"),
        ("[council]\nreasoning = { effort = 3 }", "reasoning.effort: one of none, minimal"),
        ("[council]\nchair = 3", "chair: text, got 3"),
        ("[council]\nstore = true", "store: a path, got True"),
        ("[council]\nproviders = 'openai'", "providers: expected a list, got 'openai'; put it in a list"),
        ("[council]\nproviders = [3]", "providers: a list of provider names, got (3,)"),
        ("[subagents]\npaths = 'roles'", "[subagents] paths: expected a list of paths, got 'roles'"),
        ("[council]\nstrategy = 'votee'", "strategy: there is no strategy 'votee'; did you mean 'vote'? (known:"),
        ("[subagents]\npaths = [3]", "[subagents] paths: expected a list of paths, got [3]"),
        ("providers = ['openai']", "providers belongs under [council]: write [council], on a line above providers"),
        ("chair = 'openai'", "chair belongs under [council]: write [council], on a line above chair"),
        ("[budget]\nusd = 1", "budget belongs under [council]: write [council.budget]"),
        ("[providers.x]\nkind = 3", "[providers.x] needs kind"),
        ("[providers.x]\nkind = 'vllm'\nheaders = { a = 1 }", "[providers.x] headers: the value of header 'a' must"),
    ],
)
def test_a_wrong_type_names_the_file_and_the_field_even_if_another_source_is_read_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str
) -> None:
    home = write(user_file(), text)
    write(tmp_path / "council.toml", "[council]\nmax_tokens = 20\n")
    monkeypatch.setenv("LLM_COUNCIL_SEED", "7")
    with pytest.raises(ConfigurationError) as caught:
        CouncilConfig.discover(tmp_path)
    assert caught.value.message.startswith(f"{home}: {message}")
