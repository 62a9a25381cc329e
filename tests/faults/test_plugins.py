"""Third-party adapters that are broken, blocking or late."""

from __future__ import annotations

import sys
import threading
import time
import warnings

import anyio
import attrs
import pytest

from llm_council import Council, _plugins, errors
from llm_council.config import CouncilConfig
from llm_council.models import Budget, GenerateChunk, GenerateRequest, GenerateResponse
from llm_council.providers import registry
from llm_council.providers.base import ProviderAdapter, ProviderCapabilities
from llm_council.testing.fakes import ScriptedProvider

ASK = GenerateRequest(prompt="?", timeout_seconds=20)


def made(generate, name="made"):
    body = {"name": name, "capabilities": ProviderCapabilities(streaming=True), "generate": staticmethod(generate)}
    return type("Made", (ProviderAdapter,), body)()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a plugin's distribution: a module and its entry point."""

    def plugin(name, source, dist="some-dist"):
        module = f"plugin_{name}"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{dist.replace('-', '_')}-1.2.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
        with (info / "entry_points.txt").open("a") as file:
            file.write(f"[llm_council.providers]\n{name} = {module}:Plugin\n")
        return module

    monkeypatch.syspath_prepend(str(tmp_path))
    yield plugin
    for module in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[module]


BROKEN = {
    "a broken import": "import no_such_module_anywhere",
    "a syntax error": "def f(:",
    "an exit": "import sys\nsys.exit(3)",
    "an interrupt of its own": "class Odd(BaseException): pass\nraise Odd('at import')",
    "no such class": "Plug = 1",
    "a class of another kind": "class Plugin: pass",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_at_import(install, fault):
    """A plugin that cannot be imported is listed with its name, distribution and error; the others work."""
    install("bad", BROKEN[fault])
    shown = {info.name: info for info in registry.list_providers()}
    assert "openai" in shown
    assert shown["bad"].distribution == "some-dist"
    with pytest.raises(errors.ConfigurationError, match="some-dist") as caught:
        registry.get_provider("bad")
    assert isinstance(caught.value, errors.PluginLoadError | errors.NotAnAdapter)
    assert registry.get_provider("openai", api_key="key-1234", base_url="https://a.example").name == "openai"


def test_loaded_lazily(install):
    """Only the requested plugin is imported."""
    module = install("lazy", "raise RuntimeError('imported')")
    registry.get_provider("openai", api_key="key-1234", base_url="https://a.example")
    Council([ScriptedProvider("x")], config=CouncilConfig())
    assert module not in sys.modules


def test_name_of_a_built_in(install):
    """A plugin with the name of a built-in provider does not replace it."""
    module = install("openai", "raise RuntimeError('imported')", dist="evil-dist")
    with pytest.warns(RuntimeWarning, match="evil-dist"):
        assert "openai" in {info.name for info in registry.list_providers()}
    with warnings.catch_warnings(action="ignore"):
        assert type(registry.get_provider("openai", api_key="key-1234")).__module__.startswith("llm_council.")
    assert module not in sys.modules


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("not even this")

    __repr__ = __str__


class Bare(BaseException):
    """Not an Exception."""


class Frozen(Exception):
    def __setattr__(self, name, value):
        raise AttributeError(name)


ODD = [
    ValueError("mine"),
    Bare("mine"),
    StopIteration(3),
    StopAsyncIteration(),
    SystemExit(4),
    GeneratorExit(),
    Unprintable(),
    Frozen("mine"),
    RecursionError(),
    MemoryError(),
    UnicodeDecodeError("utf-8", b"\xff secret-word", 0, 1, "bad"),
    AssertionError(),
    ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
    OSError(5, "io"),
    NotImplementedError(),
    Warning("mine"),
]


@pytest.mark.parametrize("raised", ODD, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("where", ["generate", "stream", "a run"])
def test_odd_exceptions(raised, where):
    """Any exception of an adapter, also `SystemExit` and unprintable ones: a typed error with its name; other seats go
    on.
    """

    async def generate(request):
        await anyio.sleep(0)
        raise raised

    adapter = made(generate)
    if where == "a run":
        result = Council([adapter, ScriptedProvider('{"a": 1}')], config=CouncilConfig()).run(
            "?", schema={"type": "object"}
        )
        assert result.drafts or result.output == {"a": 1}
        error = result.errors.get("made")
        assert error is None or isinstance(error, errors.ProviderError)
        return
    with pytest.raises(errors.ProviderError) as caught:
        adapter.generate_sync(ASK) if where == "generate" else list(adapter.stream_sync(ASK))
    assert caught.value.provider == "made"
    assert caught.value.message
    assert "secret-word" not in repr(vars(caught.value))
    if not isinstance(raised, Unprintable):
        assert "secret-word" not in repr(caught.value.__cause__)


def test_blocks_in_a_plain_def():
    """A plain `def` that blocks gets a worker thread: other seats go on, and the deadline holds."""
    go = threading.Event()

    def generate(request):
        go.wait(20)
        return GenerateResponse(text="late")

    council = Council(
        [made(generate), ScriptedProvider('{"a": 1}')], config=CouncilConfig(), budget=Budget(deadline=1.0)
    )
    result = council.run("?", schema={"type": "object"})
    go.set()
    assert result.output == {"a": 1}


def test_blocks_the_loop(caplog):
    """An `async def` that blocks the loop: a blocking caller has its result soon after the deadline; a log names the
    adapter.

    Limits: a coroutine that blocks its own loop cannot be stopped from that loop: an awaiting caller gets a warning
    once the step has ended.
    """
    go = threading.Event()

    async def generate(request):
        await anyio.sleep(0.1)
        go.wait(30)
        return GenerateResponse(text="late")

    began = time.monotonic()
    council = Council(
        [ScriptedProvider("a draft"), made(generate)], config=CouncilConfig(), budget=Budget(deadline=0.5)
    )
    result = council.run("?")
    took = time.monotonic() - began
    go.set()
    assert took < 10
    assert result.drafts == {"scripted": "a draft"}
    assert isinstance(result.errors["made"], errors.TimedOut)
    assert "made has blocked the event loop" in caplog.text


@pytest.mark.parametrize("where", ["generate", "stream"])
def test_swallows_its_cancellation(where, caplog, monkeypatch):
    """An adapter that ignores every cancellation is abandoned a second after the deadline, and a warning names it."""
    from llm_council.providers._call import bounded

    monkeypatch.setattr(bounded, "GRACE", 0.1)
    go = threading.Event()

    async def deaf(request):
        while not go.is_set():
            try:
                await anyio.sleep(0.02)
            except anyio.get_cancelled_exc_class():
                pass
        return GenerateResponse(text="late")

    async def deaf_stream(request):
        yield GenerateChunk(text="a")
        yield GenerateChunk(text=(await deaf(request)).text)

    adapter = made(deaf if where == "generate" else deaf_stream)
    request = GenerateRequest(prompt="?", timeout_seconds=0.2)
    try:
        with pytest.raises(errors.TimedOut):
            adapter.generate_sync(request) if where == "generate" else list(adapter.stream_sync(request))
    finally:
        go.set()
    assert "made ignores its cancellation" in caplog.text


async def _text(text):
    return text


class Hooked(str):
    def __str__(self):
        raise RuntimeError("a hook ran")

    __format__ = __eq__ = __str__
    __hash__ = str.__hash__


NONSENSE = {
    "None": lambda: None,
    "a number": lambda: 5,
    "bytes": lambda: b"text",
    "a list": lambda: ["text"],
    "a dict": lambda: {"text": "x"},
    "a generator": lambda: (x for x in "ab"),
    "a class": lambda: GenerateResponse,
    "a text of None": lambda: GenerateResponse(text=None),
    "an empty text": lambda: "",
    "an object": object,
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_invalid_return_value(kind):
    """None, a number, a generator, an invalid text: a typed error that names the value and what to return."""

    async def generate(request):
        return NONSENSE[kind]()

    with pytest.raises((errors.AdapterFailed, errors.EmptyReply)):
        made(generate).generate_sync(ASK)


@pytest.mark.parametrize("kind", ["a string", "a forgotten await", "a str with hooks"])
def test_accepted_return_values(kind):
    """A string, a coroutine that was not awaited, a subclass of `str` with hooks: used as the plain text."""

    async def generate(request):
        if kind == "a forgotten await":
            return _text("fine")
        return Hooked("fine") if kind == "a str with hooks" else "fine"

    answer = made(generate).generate_sync(ASK)
    assert type(answer.text) is str
    assert answer.text == "fine"


def test_request_is_frozen():
    """A request cannot be changed by one adapter before another gets it."""

    async def generate(request):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            request.prompt = "mine"
        return "fine"

    assert made(generate).generate_sync(ASK).text == "fine"


def test_malformed_metadata(install, tmp_path):
    """A distribution whose `entry_points.txt` is malformed: it hides no other providers; its readable lines work."""
    install("fine", "from llm_council.providers.ollama import OllamaProvider as Plugin")
    for text in (b"[some.other.group]\nnonsense\n", b"\xff\xfe\x00"):
        info = tmp_path / "elsewhere-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_bytes(b"Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
        (info / "entry_points.txt").write_bytes(text)
        _plugins.scan.cache_clear()
        assert {"fine", "openai"} <= {info.name for info in registry.list_providers() if info.error is None}
