"""Names to providers: lazy, near names, broken plugins visible, no name of ours taken."""

import sys
import textwrap
import threading
import tomllib
from pathlib import Path

import pytest

from llm_council import get_provider, list_providers, register_provider
from llm_council.errors import (
    ConfigurationError,
    InvalidOption,
    MissingCredentials,
    NotAnAdapter,
    PluginLoadError,
    UnknownOption,
    UnknownProvider,
)
from llm_council.providers import registry
from llm_council.providers.base import GenerateRequest, ProviderAdapter, ProviderCapabilities

ASK = GenerateRequest(prompt="x")
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
BUILT_IN = set(PROJECT["entry-points"][registry.GROUP])


class Mine(ProviderAdapter):
    name = "mine"
    capabilities = ProviderCapabilities()

    def __init__(self, *, answer="42", loud=False):
        self.answer = answer

    async def generate(self, request):
        return self.answer


class Other(Mine):
    pass


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_overrides", {})
    for variable in ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "VLLM_API_KEY", "LMSTUDIO_API_KEY", "OLLAMA_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


GOOD = """
    from llm_council.providers.base import ProviderAdapter, ProviderCapabilities
    print("imported", __name__)

    class Plugged(ProviderAdapter):
        name = "plugged"
        capabilities = ProviderCapabilities(streaming=True)
        async def generate(self, request):
            return "plugged"
    """


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution that offers providers, as the files that an installer writes."""

    def put(distribution, version, modules, **entries):
        site = tmp_path / distribution
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = [f"{name.replace('_', '-')} = {target}" for name, target in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[llm_council.providers]", *lines, ""]))
        for module, source in modules.items():
            (site / f"{module}.py").write_text(textwrap.dedent(source))
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(site)

    return put


def test_every_built_in_can_be_made_and_listed():
    found = {info.name: info for info in list_providers()}
    assert found.keys() >= BUILT_IN
    for name in BUILT_IN:
        info = found[name]
        assert (info.kind, info.distribution, info.error) == ("built-in", "llm-council-sdk", None)
        assert info.version
        assert info.capabilities is not None
        assert get_provider(name).name == name
    assert found["openrouter"].key_variable == "OPENROUTER_API_KEY"


def test_a_near_name_is_suggested():
    with pytest.raises(UnknownProvider, match="no provider is named 'opnrouter'; did you mean 'openrouter'"):
        get_provider("opnrouter")
    with pytest.raises(UnknownProvider, match=r"there are .*lmstudio, local"):
        get_provider("zzz")


def test_options_go_to_the_class():
    register_provider("mine", Mine)
    assert get_provider("mine", answer="43").generate_sync(ASK).text == "43"
    with pytest.raises(UnknownOption, match="takes no 'anser'; did you mean 'answer'"):
        get_provider("mine", anser="43")
    assert get_provider("openrouter", default_model="a/b", title="t").default_model == "a/b"
    with pytest.raises(UnknownOption, match="did you mean 'default_model'"):
        get_provider("openrouter", defaultmodel="a/b")
    with pytest.raises(MissingCredentials):
        get_provider("openai", api_key="${NO_SUCH_VARIABLE}")


def test_a_class_that_needs_more_says_what():
    class Needy(Mine):
        def __init__(self, endpoint, *, region):
            raise AssertionError

    register_provider("needy", Needy)
    with pytest.raises(InvalidOption, match="'needy' needs endpoint, region"):
        get_provider("needy")


@pytest.mark.parametrize("raised", [ValueError("no"), SystemExit(1), ModuleNotFoundError("no torch")])
def test_a_class_that_cannot_be_made_says_why(raised):
    class Failing(Mine):
        def __init__(self):
            raise raised

    register_provider("failing", Failing)
    with pytest.raises(PluginLoadError, match=f"provider 'failing': .*failed: {type(raised).__name__}"):
        get_provider("failing")


def test_registering_twice():
    register_provider("mine", Mine)
    register_provider("mine", Mine)
    with pytest.raises(ValueError, match="belongs to Mine; pass replace=True"):
        register_provider("mine", Other)
    register_provider("mine", Other, replace=True)
    assert type(get_provider("mine")) is Other
    assert {info.name: info.kind for info in list_providers()}["mine"] == "registered"


def test_a_built_in_is_replaced_only_when_asked():
    with pytest.raises(InvalidOption, match="belongs to llm-council-sdk"):
        register_provider("openai", Mine)
    assert type(get_provider("openai")) is not Mine
    register_provider("openai", Mine, replace=True)
    assert type(get_provider("openai")) is Mine


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a:2", "-a", "x" * 65, None])
def test_names_that_seats_could_not_say_are_refused(name):
    with pytest.raises(InvalidOption, match="a provider's name has"):
        register_provider(name, Mine)


def test_what_is_no_adapter_is_refused():
    nameless = type("Nameless", (ProviderAdapter,), {"generate": Mine.generate})
    abstract = type("Abstract", (ProviderAdapter,), {"name": "a", "capabilities": ProviderCapabilities()})
    for cls, message in ((dict, "expected a subclass"), (Mine(), "expected a subclass"), (nameless, "lacks name, cap")):
        with pytest.raises(TypeError, match=message):
            register_provider("x", cls)
    with pytest.raises(NotAnAdapter, match="lacks generate"):
        register_provider("x", abstract)


def test_a_plugin_is_found_and_only_when_asked_for_imported(install, capsys):
    install("good-plugin", "1.2", {"good_plugin": GOOD}, plugged="good_plugin:Plugged")
    install("idle-plugin", "1.0", {"idle_plugin": GOOD}, idle="idle_plugin:Plugged")
    assert get_provider("plugged").generate_sync(ASK).text == "plugged"
    assert capsys.readouterr().out == "imported good_plugin\n"
    info = {found.name: found for found in list_providers()}["plugged"]
    assert (info.kind, info.distribution, info.version) == ("plugin", "good-plugin", "1.2")
    assert info.capabilities == ProviderCapabilities(streaming=True)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(7)", "SystemExit: 7"),
        ("raise BaseException('odd')", "BaseException: odd"),
        ("Plugged = dict", "expected a subclass of ProviderAdapter"),
        ("", "AttributeError"),
    ],
)
def test_a_broken_plugin_is_named_and_in_nobodys_way(install, source, reason):
    install("bad-plugin", "0.3", {"bad_plugin": source}, bad="bad_plugin:Plugged")
    with pytest.raises(PluginLoadError, match=f"'bad' of bad-plugin 0.3.*{reason}"):
        get_provider("bad")
    found = {info.name: info for info in list_providers()}
    assert "bad-plugin 0.3" in found["bad"].error
    assert found["bad"].capabilities is None
    assert found["openai"].error is None
    assert get_provider("openai")


def test_a_plugin_that_failed_once_may_be_mended(install, tmp_path):
    install("bad-plugin", "0.3", {"bad_plugin": "import nothing_such"}, bad="bad_plugin:Plugged")
    with pytest.raises(PluginLoadError):
        get_provider("bad")
    (tmp_path / "bad-plugin" / "bad_plugin.py").write_text(textwrap.dedent(GOOD))
    assert get_provider("bad").generate_sync(ASK).text == "plugged"


def test_our_names_cannot_be_taken(install):
    install("impostor", "6.6", {"impostor": GOOD}, openai="impostor:Plugged")
    with pytest.warns(RuntimeWarning, match=r"impostor 6\.6 offers .*'openai'.*llm-council-sdk"):
        provider = get_provider("openai")
    assert type(provider).__module__ == "llm_council.providers.openai"


def test_two_plugins_with_one_name_are_both_named(install):
    install("first", "1", {"first_plugin": GOOD}, twin="first_plugin:Plugged")
    install("second", "2", {"second_plugin": GOOD}, twin="second_plugin:Plugged")
    with pytest.raises(PluginLoadError, match="both offer a provider named 'twin'") as caught:
        get_provider("twin")
    assert "first 1" in caught.value.message
    assert "second 2" in caught.value.message


def test_plugins_can_be_turned_off(install, monkeypatch):
    install("good-plugin", "1.2", {"good_plugin": GOOD}, plugged="good_plugin:Plugged")
    monkeypatch.setenv("LLM_COUNCIL_NO_PLUGINS", "1")
    with pytest.raises(UnknownProvider):
        get_provider("plugged")
    assert {info.name for info in list_providers()} == BUILT_IN


def test_overriding_holds_in_every_thread_and_ends():
    outer, inner = Mine(answer="outer"), Mine(answer="inner")
    seen = []
    with registry.overriding({"openai": outer}, mine=outer):
        with registry.overriding(openai=inner):
            thread = threading.Thread(target=lambda: seen.append(get_provider("openai")))
            thread.start()
            thread.join()
        assert get_provider("openai") is outer
        assert get_provider("mine") is outer
    assert seen == [inner]
    assert get_provider("openai") is not outer
    with pytest.raises(ConfigurationError, match="takes a ProviderAdapter"), registry.overriding(openai="x"):
        pass


def test_providers_with_keys(monkeypatch):
    assert registry.with_keys() == ()
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-1234567890")
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    assert registry.with_keys() == ("openrouter",)


def test_every_gateway_row_has_its_entry_point():
    from llm_council.providers import gateways

    for name in gateways.rows():
        assert registry.get_class(name).name == name
