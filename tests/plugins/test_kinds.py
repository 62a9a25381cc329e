"""Middleware, commands, providers and subagents of other distributions: used by name, and harmless when broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from llm_council import Council, CouncilConfig, get_provider, subagents
from llm_council.cli._main import cli, load_command
from llm_council.errors import (
    ConfigurationError,
    InvalidOption,
    PluginLoadError,
    UnknownOption,
    UnknownProvider,
    UnknownSubagent,
)
from llm_council.providers import registry
from llm_council.testing.cassettes import Cassette, Recorder, Replay
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import Council as Command

Install = Callable[..., None]

PROVIDER = """
from llm_council.models import GenerateResponse, ProviderCapabilities
from llm_council.providers.base import ProviderAdapter

class Mine(ProviderAdapter):
    name = "mine"
    capabilities = ProviderCapabilities()

    def __init__(self, api_key: str | None = None, base_url: str = "https://a.example", headers: dict | None = None):
        self.sent = {"Authorization": f"Bearer {api_key}", **(headers or {})}
        self.base_url = base_url

    async def generate(self, request):
        return GenerateResponse(text='{"answer": "yes", "reasoning": "none"}')
"""

MIDDLEWARE = """
from llm_council.middleware import Wrapper
from llm_council.providers.base import ProviderAdapter, call

class Loud(Wrapper):
    def __init__(self, inner, *, mark: str = "!", times: int = 1):
        super().__init__(inner)
        self.mark = mark * times

class First(ProviderAdapter):
    name = "first"

    def __init__(self, providers):
        self.providers = providers
        self.capabilities = providers[0].capabilities

    async def generate(self, request):
        return await call(self.providers[0], request)

class Refusing(Wrapper):
    def __init__(self, inner):
        raise RuntimeError("no licence")

NOTHING = 3
"""

COMMAND = """
import click

@click.command()
@click.argument("name")
@click.option("--fail", is_flag=True)
def greet(name, fail):
    '''Greet somebody.'''
    if fail:
        raise click.UsageError("no name")
    click.echo(f"Hello {name}!")
    return 3

NOTHING = 3
"""


@pytest.fixture
def plugins(install: Install) -> None:
    install("house", PROVIDER + MIDDLEWARE, providers={"mine": "Mine"}, middleware={"loud": "Loud", "first": "First"})
    install("shop", COMMAND, commands={"greet": "greet"})


@pytest.fixture
def user_file(new_user: None, tmp_path: Path) -> Callable[[str], None]:
    def write(text: str) -> None:
        path = tmp_path / "home" / "llm-council" / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


def made(**table: Any) -> Any:
    return Council(["it"], config=CouncilConfig(instances={"it": table}))._seating.providers["it"]


def test_a_provider_without_a_name_argument_is_an_instance_of_the_configuration(plugins: None) -> None:
    instances = {"north": {"kind": "mine", "base_url": "https://n.example"}, "south": {"kind": "mine"}}
    council = Council(["north", "south"], config=CouncilConfig(instances=instances))
    assert council.providers == ("north", "south")
    result = council.run("Is it night?")
    assert result.success
    assert {report.provider for report in result.seats} == {"north", "south"}


def test_a_registered_class_may_be_a_kind_too(plugins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    registry.register_provider("ours", registry.get_class("mine"))
    assert made(kind="ours").inner.name == "it"


def test_a_key_and_headers_reach_a_class_that_knows_no_secret(plugins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSE_KEY", "key-of-the-house-1")
    sent = made(kind="mine", api_key="${HOUSE_KEY}", headers={"X-Api-Key": "second-key-2"}).inner.sent
    assert sent == {"Authorization": "Bearer key-of-the-house-1", "X-Api-Key": "second-key-2"}


def test_a_wrong_option_names_the_accepted_ones(plugins: None) -> None:
    with pytest.raises(UnknownOption, match=r"provider 'mine' takes no 'basurl'.*it takes api_key, base"):
        made(kind="mine", basurl="x")
    with pytest.raises(UnknownOption, match=r"it\] kind 'loud' takes no 'marc'.*it takes inner, mark, times"):
        made(kind="loud", of="mine", marc="x")
    with pytest.raises(InvalidOption, match="times: expected a whole number"):
        made(kind="loud", of="mine", times="x")


def test_get_provider_and_the_cassette_know_configured_instances(
    plugins: None, user_file: Callable[[str], None], tmp_path: Path
) -> None:
    user_file('[providers.north]\nkind = "mine"\nbase_url = "https://n.example"\napi_key = "${HOUSE_KEY}"\n')
    replay = Replay("north", Cassette(tmp_path / "c.json"))
    assert replay.name == "north"
    provider = get_provider("north", api_key="key-12345678")
    assert (provider.name, provider.base_url) == ("north", "https://n.example")
    assert get_provider("north", api_key="key-12345678", base_url="https://m.example").base_url == "https://m.example"
    with pytest.raises(UnknownProvider, match="did you mean 'north'"):
        get_provider("nort")
    with registry.overriding(north=ScriptedProvider("night", name="north")):
        assert Recorder("north", tmp_path / "d.json").inner.generate_sync(_ask()).text == "night"


def test_get_provider_needs_no_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "LLM_COUNCIL_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where the user has no entry in /etc/passwd
    assert get_provider("ollama").name == "ollama"


def test_get_provider_reports_a_configuration_that_cannot_be_read(user_file: Callable[[str], None]) -> None:
    user_file("[providers.openai")
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        get_provider("openai")


def _ask() -> Any:
    from llm_council import GenerateRequest

    return GenerateRequest(prompt="Is it night?")


def test_the_command_knows_configured_instances(
    plugins: None, council: Command, user_file: Callable[[str], None]
) -> None:
    user_file('[providers.north]\nkind = "mine"\n[providers.l]\nkind = "loud"\nof = ["north"]\nmark = "?"\n')
    status, out, _ = council("doctor", "l", "north", "--json")
    assert status == 0
    assert json.loads(out)["seats"].keys() == {"l", "north"}
    status, out, err = council("run", "-p", "l", "Is it night?", "--json")
    assert (status, json.loads(out)["output"]["answer"]) == (0, "yes"), err
    assert {info["name"] for info in json.loads(council("providers", "--json")[1])} > {"l", "north", "mine"}


def test_middleware_wraps_one_or_several(plugins: None) -> None:
    with registry.overriding(ann=ScriptedProvider("a", name="ann"), ben=ScriptedProvider("b", name="ben")):
        loud = made(kind="loud", of=["ann"], mark="?", times=2).inner
        assert (loud.name, loud.mark, loud.inner.name) == ("it", "??", "ann")
        first = made(kind="first", of=["ben", "ann"]).inner
        assert [provider.name for provider in first.providers] == ["ben", "ann"]
        with pytest.raises(InvalidOption, match="kind 'loud' wraps one provider"):
            made(kind="loud", of=["ann", "ben"])
    with pytest.raises(InvalidOption, match="kind 'loud' needs of"):
        made(kind="loud")


def test_a_name_may_be_a_provider_and_a_middleware(install: Install) -> None:
    install("house", PROVIDER + MIDDLEWARE, providers={"mine": "Mine"}, middleware={"mine": "Loud"})
    assert type(made(kind="mine").inner).__name__ == "Mine"
    assert type(made(kind="mine", of="mine").inner).__name__ == "Loud"


def test_a_command_of_a_plugin_is_one_of_council(plugins: None, council: Command) -> None:
    assert council("greet", "Ann") == (3, "Hello Ann!\n", "")
    status, _, err = council("greet", "Ann", "--fail")
    assert (status, "no name" in err) == (2, True)
    out = council("--help")[1]
    assert "Commands of plugins:" in out
    assert "Greet somebody." in out
    assert "did you mean 'greet'" in council("gret", "Ann")[2]


def test_the_shell_completes_commands_of_plugins_and_shows_no_error(install: Install, plugins: None) -> None:
    install("bad", "import no_such_module", commands={"broken": "x"})
    shell = ShellComplete(cli, {}, "council", "_COUNCIL_COMPLETE")
    assert [item.value for item in shell.get_completions([], "gre")] == ["greet"]
    assert "--fail" in [item.value for item in shell.get_completions(["greet"], "--")]
    assert shell.get_completions(["broken"], "") is not None


KINDS = {"providers": "provider", "middleware": "middleware", "commands": "command", "subagents": "subagent"}


@pytest.mark.slow
@pytest.mark.parametrize("source", ["import no_such_module", "raise SystemExit(3)", "bad = 3"])
def test_a_broken_plugin_of_each_kind_is_shown_by_the_doctor_and_harms_nobody(
    install: Install, council: Command, seat: Any, source: str
) -> None:
    install("bad", source, **{group: {"bad": "bad"} for group in KINDS})
    status, out, _ = council("doctor", "scripted", "--json")
    assert status == 0
    fault = json.loads(out)["plugins"]["bad"]
    assert [kind for kind in KINDS.values() if f"{kind} 'bad' of bad 1.2: " in fault] == list(KINDS.values())
    assert council("run", "-p", "scripted", "What is the capital?")[0] == 0
    assert "bad" in council("--help")[1]


def test_a_broken_plugin_fails_with_its_distribution_when_it_is_used(install: Install, council: Command) -> None:
    install("bad", MIDDLEWARE, middleware={"a": "NOTHING", "b": "Refusing", "c": "Absent"}, commands={"d": "NOTHING"})
    with registry.overriding(ann=ScriptedProvider("a", name="ann")):
        for kind, words in (("a", "expected a subclass"), ("b", "RuntimeError: no licence"), ("c", "AttributeError")):
            with pytest.raises(PluginLoadError, match=rf"middleware '{kind}' of bad 1.2.*{words}"):
                made(kind=kind, of="ann")
    status, _, err = council("d")
    assert (status, "command 'd' of bad 1.2: expected a click command" in err) == (2, True)


def test_two_distributions_with_one_name_are_both_named(install: Install, council: Command, seat: Any) -> None:
    install("one", COMMAND, commands={"greet": "greet"})
    install("two", COMMAND, commands={"greet": "greet"})
    status, _, err = council("greet", "Ann")
    assert status == 2
    assert "one 1.2" in err
    assert "two 1.2" in err
    with pytest.raises(PluginLoadError, match="both offer a command named 'greet'"):
        load_command("greet")


def test_our_own_names_cannot_be_taken(install: Install, council: Command, seat: Any) -> None:
    install("thief", COMMAND + MIDDLEWARE, commands={"version": "greet"}, middleware={"retry": "Loud"})
    assert council("version")[1].startswith("llm-council-sdk ")
    with registry.overriding(ann=ScriptedProvider("a", name="ann")):
        assert type(made(kind="retry", of="ann")).__name__ == "Retry"
    out = council("doctor", "scripted")[1]
    assert "command 'version': the name is one of llm-council-sdk's own" in " ".join(out.split())
    assert "middleware 'retry': the name is one of llm-council-sdk's own" in " ".join(out.split())


def test_the_variable_that_disables_plugins_is_named_in_the_errors_that_it_causes(
    install: Install, plugins: None, council: Command, seat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("roles", "FILE = 'x.toml'", subagents={"poet": "FILE"})
    monkeypatch.setenv("LLM_COUNCIL_NO_PLUGINS", "1")
    words = "1.2 offers it, but LLM_COUNCIL_NO_PLUGINS is set"
    with pytest.raises(UnknownProvider, match=f"house {words}"):
        get_provider("mine")
    with pytest.raises(UnknownProvider, match=f"house {words}"):
        Council(["mine"])
    with pytest.raises(InvalidOption, match=f"house {words}"):
        made(kind="loud", of="mine")
    with pytest.raises(UnknownSubagent, match=f"roles {words}"):
        subagents.load("poet")
    assert f"shop {words}" in " ".join(council("greet", "Ann")[2].split())
    assert "middleware loud" in council("doctor", "scripted")[1]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=r"note: LLM_COUNCIL_NO_PLUGINS is set, so .* not used: mine"):
        Council()
    with pytest.raises(UnknownProvider) as caught:
        get_provider("nobody")
    assert "NO_PLUGINS" not in caught.value.message
