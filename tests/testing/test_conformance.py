"""The conformance kit reports each broken promise in one line; an adapter that keeps all of them passes."""

import ast
import asyncio
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar

import anyio
import anyio.lowlevel
import attrs
import httpx
import pytest

from llm_council.errors._secrets import Secret
from llm_council.providers.base import (
    DoctorResult,
    GenerateResponse,
    ProviderAdapter,
    ProviderCapabilities,
    Usage,
)
from llm_council.testing.__main__ import main
from llm_council.testing.conformance import (
    BrokenPromise,
    CannotPlay,
    Outcome,
    ProviderConformance,
    Stage,
    Verdict,
    outcomes,
    promise,
)
from llm_council.testing.conformance._base import ODD_TEXT as ODD
from llm_council.testing.fakes import ScriptedProvider
from llm_council.testing.servers import Asked, Hang


class Honest(ProviderAdapter):
    """A small adapter as an author would write it, which keeps every promise."""

    name = "honest"
    capabilities = ProviderCapabilities()

    def __init__(self, api_key: str, base_url: str) -> None:
        self._key = Secret(api_key, env="HONEST_KEY")
        self._base_url = base_url

    async def generate(self, request):
        return self._read(await self._post(self._payload(request)))

    async def _post(self, payload):
        client = await self._get_client()
        headers = {"Authorization": f"Bearer {self._key.reveal()}"}
        reply = await client.post(f"{self._base_url}/chat/completions", headers=headers, json=payload)
        reply.raise_for_status()
        return reply.json()

    def _payload(self, request):
        knobs = {"temperature": request.temperature, "top_p": request.top_p, "max_tokens": request.max_tokens}
        payload = {
            "model": request.model or "m",
            "messages": [{"role": turn.role, "content": turn.text} for turn in request.turns()],
        }
        payload |= {key: value for key, value in knobs.items() if value is not None}
        return payload | ({"stop": list(request.stop)} if request.stop else {}) | dict(request.extra)

    def _read(self, data):
        choice = data["choices"][0]
        message = choice["message"]
        counted = data.get("usage")
        counted = counted if isinstance(counted, dict) else {}
        usage = Usage(
            input_tokens=count(counted, "prompt_tokens"),
            output_tokens=count(counted, "completion_tokens"),
            cached_tokens=count(counted.get("prompt_tokens_details"), "cached_tokens"),
            cache_write_tokens=count(counted.get("prompt_tokens_details"), "cache_write_tokens"),
            reasoning_tokens=count(counted.get("completion_tokens_details"), "reasoning_tokens"),
        )
        return GenerateResponse(text=message["content"], usage=usage, finish_reason=choice.get("finish_reason"))

    def cache_identity(self):
        return f"{super().cache_identity()}:{self._base_url}"

    async def doctor(self):
        client = await self._get_client()
        reply = await client.get(f"{self._base_url}/models", headers={"Authorization": f"Bearer {self._key.reveal()}"})
        reply.raise_for_status()
        return DoctorResult(ok=True, message="the key is taken")


def count(usage, name):
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class TestHonest(ProviderConformance):
    provider = Honest
    key_variable = "HONEST_KEY"
    backends = ("asyncio", "trio")

    def make(self, url, key):
        return Honest(key, url)


class Dict(Honest):
    async def generate(self, request):
        return {"text": "It is so."}


class Deaf(Honest):
    def _payload(self, request):
        return super()._payload(attrs.evolve(request, messages=request.turns()[-1:], prompt=None))


class Stubborn(Honest):
    over = False

    async def generate(self, request):
        try:
            return await super().generate(request)
        except asyncio.CancelledError:
            while not self.over:  # longer than the door waits
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.05)
            raise

    async def aclose(self):
        self.over = True
        await super().aclose()


class Leaky(Honest):
    """Its request continues after the call was cancelled."""

    tasks: ClassVar = []

    async def generate(self, request):
        task = asyncio.get_running_loop().create_task(super().generate(request))
        self.tasks.append(task)
        return await asyncio.shield(task)

    async def aclose(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()
        await super().aclose()


class Glib(Honest):
    async def generate(self, request):
        try:
            return await super().generate(request)
        except httpx.HTTPStatusError as error:
            return f"Sorry, that did not work: {error.response.status_code}"


class OneLoop(Honest):
    loop = None

    async def generate(self, request):
        self.loop = self.loop or asyncio.get_running_loop()
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("this pool belongs to another event loop")
        return await super().generate(request)


class Crossed(Honest):
    async def generate(self, request):
        self.request = request
        await anyio.lowlevel.checkpoint()
        return await super().generate(self.request)


class Talkative(Honest):
    async def _post(self, payload):
        client = await self._get_client()
        key = self._key.reveal()
        headers = {"Authorization": f"Bearer {key}"}
        reply = await client.post(f"{self._base_url}/chat/completions?key={key}", headers=headers, json=payload)
        reply.raise_for_status()
        return reply.json()


class Eager(Honest):
    async def _post(self, payload):
        for _ in range(2):
            try:
                return await super()._post(payload)
            except httpx.HTTPStatusError:
                await asyncio.sleep(0)
        return await super()._post(payload)


class Boastful(Honest):
    capabilities = ProviderCapabilities(multimodal=True, documents=True, tool_use=True, streaming=True)


class Splitting(Honest):
    """Reads lines with httpx's own splitter."""

    async def _post(self, payload):
        client = await self._get_client()
        headers = {"Authorization": f"Bearer {self._key.reveal()}"}
        url = f"{self._base_url}/chat/completions"
        async with client.stream("POST", url, headers=headers, json=payload) as reply:
            if reply.is_error:
                await reply.aread()
            reply.raise_for_status()
            return json.loads("".join([line async for line in reply.aiter_lines()]))


class Trusting(Honest):
    def _read(self, data):
        usage = data.get("usage") or {}
        usage = Usage(input_tokens=usage.get("prompt_tokens") if isinstance(usage, dict) else None)
        return attrs.evolve(super()._read(data), usage=usage)


class Rounded(Honest):
    def _read(self, data):
        usage = data.get("usage") or {}
        tokens = usage.get("prompt_tokens", 0) if isinstance(usage, dict) else 0
        return attrs.evolve(super()._read(data), usage=Usage(input_tokens=count({"n": tokens}, "n")))


class Cheerful(Honest):
    async def doctor(self):
        client = await self._get_client()
        await client.get(f"{self._base_url}/models")
        return DoctorResult(ok=True, message="never better")


class InWords(Honest):
    async def generate(self, request):
        return (await super().generate(request)).text


class InPieces(Honest):
    async def generate(self, request):
        text = (await super().generate(request)).text or ""

        async def pieces():
            for start in range(0, len(text), 7):
                yield text[start : start + 7]

        return pieces()


class Silent(Honest):
    def _read(self, data):
        return attrs.evolve(super()._read(data), finish_reason=None, raw_finish_reason=None)


class ByHand(Honest):
    """Takes its key only as an argument, so that pickled copies have none."""

    def __init__(self, api_key, base_url):
        super().__init__(api_key, base_url)
        self._key = Secret(api_key)


class Locked(Honest):
    def __init__(self, api_key, base_url):
        super().__init__(api_key, base_url)
        self.lock = threading.Lock()


class Hurried(Honest):
    """Takes a reply that was cut for a whole answer."""

    async def generate(self, request):
        client = await self._get_client()
        headers = {"Authorization": f"Bearer {self._key.reveal()}"}
        url = f"{self._base_url}/chat/completions"
        async with client.stream("POST", url, headers=headers, json=self._payload(request)) as reply:
            text = ""
            try:
                async for piece in reply.aiter_text():
                    text += piece
            except httpx.TransportError:
                pass
        return GenerateResponse(text=text)


class Default(Honest):
    def _payload(self, request):
        return {"temperature": 0.7, **super()._payload(request)}


class Nosy(Honest):
    def _payload(self, request):
        return {**super()._payload(request), "metadata": dict(request.metadata)}


class Proud(Honest):
    async def supports(self, capability):
        return True


PROMISED = {
    "returns": "generate returns a response, a string, or an async iterator of these",
    "conversation": "every message of a conversation reaches the vendor, the system message too",
    "cancellation": "a cancelled call ends at once and closes its connection; the next call works",
    "timeouts": "a call that exceeds its deadline raises TimedOut and closes its connection",
    "errors": "an error status raises the matching error, with the vendor's message and Retry-After",
    "loops": "one instance can be used in several event loops, one after another",
    "concurrency": "concurrent calls get their own answers",
    "secrets": "the key is sent in a header, and is in no text, log, error, URL or pickle",
    "retries": "one call sends one request to the vendor: the council retries",
    "images": "images reach the vendor; without multimodal nothing is sent",
    "files": "documents and sound reach the vendor, or are refused before anything is sent",
    "tools": "tools and their results reach the vendor, and its calls are returned; without tool_use nothing is sent",
    "streaming": "if streaming is declared, chunks arrive while the vendor writes; closing early closes the connection",
    "answers": "the vendor's text is the answer, whole and as a stream",
    "odd_usage": "unexpected token counts do not fail the call, and are reported as unknown, not as 0",
    "doctor": "the doctor is free unless deep, and reports whether the vendor works; if deep, it makes a call",
    "pickling": "an adapter, an answer and an error survive pickling",
    "knobs": "a sampling parameter is sent if it is set, or an adjustment reports why not; none is sent unset",
    "extra": "the fields of a request's extra are sent unchanged, and its metadata is not sent",
    "identity": "it has a name and capabilities, and supports() agrees with them; an unknown capability is False",
    "cut": "a reply whose connection ends too early is an error, never an answer",
}
BROKEN = [
    (Dict, "returns", "generate returned dict: return a GenerateResponse, a string, or an async iterator of these"),
    (Deaf, "conversation", "the turn with 'turn-one' did not reach the vendor"),
    (Stubborn, "cancellation", "the adapter went on after its call was cancelled"),
    (Leaky, "cancellation", "the call was cancelled, but its connection to the vendor stayed open"),
    (Leaky, "timeouts", "the call exceeded its deadline, but its connection to the vendor stayed open"),
    (Glib, "errors", "the vendor refused with status 400, but the adapter returned an answer"),
    (OneLoop, "loops", "AdapterFailed: this pool belongs to another event loop (RuntimeError)"),
    (Crossed, "concurrency", "the call with number-0 got the answer of another call: 'you said: say number-7.'"),
    (Talkative, "secrets", "the key is in an address"),
    (Eager, "retries", "a failed call sent 3 requests to the vendor"),
    (Boastful, "images", "the image did not reach the vendor"),
    (Boastful, "files", "the application/pdf did not reach the vendor"),
    (Boastful, "tools", "EmptyReply: honest answered with nothing"),
    (
        Boastful,
        "streaming",
        "no chunk arrived before the vendor had finished: TimedOut: honest did not answer within 0.4 s",
    ),
    (Rounded, "odd_usage", "the token count 'missing' was reported as 0: report an unknown count as None"),
    (
        Trusting,
        "odd_usage",
        (
            "the token count -1 raised an error, 'Usage.input_tokens: a whole number of 0 or more, got -1': "
            "read counts with Usage.counted()"
        ),
    ),
    (
        Splitting,
        "answers",
        (
            f"the vendor sent {ODD!r}, with U+2028 in it, but the adapter returned {ODD.replace(chr(0x2028), '')!r}: "
            "split lines at \\n only; httpx's aiter_lines() also splits them at U+2028"
        ),
    ),
    (Cheerful, "doctor", "the vendor refused the key, but the doctor reports ok: never better"),
    (Locked, "pickling", "the adapter cannot be pickled: TypeError: cannot pickle '_thread.lock' object"),
    (Default, "knobs", "temperature was sent, but the request does not set it"),
    (Nosy, "extra", "the request's metadata was sent"),
    (Proud, "identity", "supports('streaming') returned True, but capabilities has False"),
    (Hurried, "cut", "the vendor cut its reply after 20%, but the adapter returned 'TEXT'"),
]


@pytest.mark.parametrize(("adapter", "name", "found"), BROKEN, ids=[f"{row[0].__name__}-{row[1]}" for row in BROKEN])
def test_a_broken_adapter_fails_with_a_line_that_says_what_is_wrong(adapter, name, found):
    cls = type("Broken", (TestHonest,), {"provider": adapter, "backends": ("asyncio",), "quick": 0.4})
    cls.make = lambda self, url, key: adapter(key, url)
    (outcome,) = outcomes(cls(), (name,))
    assert outcome.verdict is Verdict.BROKEN
    line = re.sub(r" in test_conformance\.py:\d+|(?<=the adapter returned ')\{.*(?=': raise)", "", outcome.line)
    line = line.replace("the adapter returned ''", "the adapter returned 'TEXT'")
    said, _, expected = line.partition(" [expected: ")
    assert expected == f"{PROMISED[name]}]"
    remedy = getattr(ProviderConformance, f"test_{name}").promise.remedy
    assert said == f"{adapter.__name__} fails {name!r}: {found}" + (f": {remedy}" if remedy else "")


@pytest.mark.parametrize(("adapter", "kept"), [(InWords, True), (InPieces, True), (Silent, False)])
@pytest.mark.slow
def test_an_adapter_that_yields_strings_needs_no_finish_reason(adapter, kept):
    cls = type("Proves", (TestHonest,), {"provider": adapter, "make": lambda self, url, key: adapter(key, url)})
    found = {outcome.name: outcome.verdict is Verdict.BROKEN for outcome in outcomes(cls())}
    assert [name for name, broken in found.items() if broken] == ([] if kept else ["finish"])


def test_a_pickled_copy_may_lack_a_key_that_was_passed_as_an_argument():
    cls = type("ProvesByHand", (ProviderConformance,), {"provider": ByHand})
    found = outcomes(cls(), ("pickling", "secrets"))
    assert [outcome.line for outcome in found if outcome.verdict is Verdict.BROKEN] == []
    cls = type("ProvesByVariable", (TestHonest,), {"provider": ByHand, "make": lambda self, url, key: ByHand(key, url)})
    (found,) = outcomes(cls(), ("pickling",))
    assert "a pickle does not contain the key" in found.line


@pytest.mark.parametrize(("adapter", "name"), [(Splitting, "answers"), (Trusting, "odd_usage")])
def test_one_fault_breaks_one_promise(adapter, name):
    cls = type("Broken", (TestHonest,), {"provider": adapter, "backends": ("asyncio",), "quick": 0.4})
    cls.make = lambda self, url, key: adapter(key, url)
    asked = ("answers", "odd_usage", "usage", "unknown_fields", "twins")
    assert [found.name for found in outcomes(cls(), asked) if found.verdict is Verdict.BROKEN] == [name]


class Scripted:
    """A player for a scripted provider, in the place of a vendor."""

    def __init__(self, said):
        self.adapter = ScriptedProvider("", pieces=5)
        self.said = said

    @property
    def said(self):
        return self._said

    @said.setter
    def said(self, said):
        if isinstance(said, Hang) and said.said is None:
            self.adapter._delay = math.inf
        elif isinstance(said, str | GenerateResponse) or callable(said):
            self.adapter._delay = 0.0
            self.adapter._script = said
        else:
            raise CannotPlay(f"a script has no {type(said).__name__}")
        self._said = said

    @property
    def asked(self):
        return [Asked(body=text_of(request).encode()) for request in self.adapter.requests]

    calls = asked

    def wait_asked(self, count=1, seconds=10.0):
        return self._wait(lambda: len(self.asked) >= count, seconds)

    def wait_left(self, seconds=10.0):
        return self._wait(lambda: self.adapter.cancelled > 0, seconds)

    def _wait(self, done, seconds):
        until = time.monotonic() + seconds
        while not done() and time.monotonic() < until:
            time.sleep(0.005)
        return done()


def text_of(request):
    """Return the request as a model sees it, in the form in which a stand-in for a program could record it."""
    knobs = {"temperature": request.temperature, "top_p": request.top_p, "max_tokens": request.max_tokens}
    tools = [[tool.name, tool.description, dict(tool.parameters)] for tool in request.tools]
    turns = [[turn.role, turn.text, [call.arguments for call in turn.tool_calls]] for turn in request.turns()]
    schema = request.structured_output and dict(request.structured_output.json_schema)
    effort = request.reasoning and request.reasoning.effort
    head = [request.model, turns, tools, request.tool_choice]
    return json.dumps([*head, schema, effort, knobs, list(request.stop), dict(request.extra)])


class Stands(ProviderConformance):
    provider = ScriptedProvider
    backends = ("asyncio", "trio")
    not_kept: ClassVar = {"knobs": "a script takes no knobs", "answers": "this is not so"}

    @contextlib.contextmanager
    def playing(self, said):
        vendor = Scripted(said)
        yield Stage(vendor.adapter, vendor)


def test_an_adapter_without_http_provides_its_own_player():
    found = {outcome.name: outcome for outcome in outcomes(Stands())}
    assert found["cancellation"].verdict is Verdict.KEPT
    assert found["cut"] == Outcome(name="cut", verdict=Verdict.SKIPPED, line="cut: a script has no Cut")
    known = "knobs: a script takes no knobs (temperature, top_p was sent, but the request does not set it)"
    assert found["knobs"] == Outcome(name="knobs", verdict=Verdict.KNOWN, line=known)
    wrong = "ScriptedProvider passes 'answers', but not_kept lists it: remove it there"
    assert found["answers"] == Outcome(name="answers", verdict=Verdict.BROKEN, line=wrong)
    assert [name for name, outcome in found.items() if outcome.verdict is Verdict.BROKEN] == ["answers"]


def test_a_subclass_can_add_a_promise():
    class Mine(TestHonest):
        @promise("it is polite")
        async def test_polite(self):
            async with self.stage("Please.") as stage:
                assert stage.adapter.name == "honest"
                raise BrokenPromise("it\nsaid no thanks")

    (outcome,) = outcomes(Mine(), ("polite",))
    assert outcome.line == "Honest fails 'polite': it said no thanks [expected: it is polite]"


def test_a_check_that_hangs_fails_after_the_patience():
    class Mine(TestHonest):
        backends = ("asyncio",)
        patience = 0.1

        @promise("it ends")
        async def test_ends(self):
            await anyio.sleep_forever()

    (outcome,) = outcomes(Mine(), ("ends",))
    assert outcome.line == "Honest fails 'ends': the check did not end within 0.1 s [expected: it ends]"


def run(*arguments, **options):
    command = [sys.executable, "-W", "error", "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.mark.slow
def test_the_command_prints_a_line_for_each_promise(tmp_path):
    here = {"cwd": Path(__file__).parent}
    done = run("llm_council.testing", "test_conformance:Dict", "--only", "returns", "--only", "answers", **here)
    assert done.stdout.splitlines()[0].startswith("broken   Dict fails 'returns': generate returned dict: ")
    assert done.stdout.splitlines()[2] == "2 broken"
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("llm_council.providers.gemini:GeminiProvider", 0, "41 kept\n"),
        ("test_conformance:TestHonest", 0, "41 kept\n"),
        ("llm_council.providers.gemini:Gemini", 2, "has no attribute 'Gemini'"),
        ("llm_council.providers.gemini", 2, "names no class: write MODULE:CLASS"),
        ("llm_council.models:Message", 2, "is neither a provider's class nor a subclass of ProviderConformance"),
        ("no_such_module:X", 2, "No module named 'no_such_module'"),
    ],
)
@pytest.mark.slow
def test_the_command_reports_a_target_that_it_cannot_test(target, status, said, capsys, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    if status == 2:
        with pytest.raises(SystemExit) as caught:
            main([target])
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
    else:
        assert main([target]) == status
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("name", ["answers", "cut", "errors", "loops"])
def test_every_line_names_the_wrong_dialect_if_the_vendor_speaks_another(name):
    """Without this, promises about cut and refused calls would pass: every call is refused."""
    cls = type("Stranger", (TestHonest,), {"speaks": "gemini", "backends": ("asyncio",)})
    (outcome,) = outcomes(cls(), (name,))
    assert outcome.verdict is Verdict.BROKEN
    assert "the adapter requested POST /chat/completions, which the dialect 'gemini' does not have" in outcome.line


def test_a_wrong_dialect_ends_the_checks_after_the_first():
    cls = type("Stranger", (TestHonest,), {"speaks": "gemini", "backends": ("asyncio",)})
    (outcome,) = outcomes(cls())
    assert (outcome.name, outcome.verdict) == ("returns", Verdict.BROKEN)
    assert "set `speaks` to its dialect" in outcome.line
    # pytest makes an instance for each test.
    (later,) = outcomes(cls(), ("cut",))
    assert later == Outcome(
        name="cut", verdict=Verdict.SKIPPED, line="cut: not checked, since 'returns' found another dialect"
    )
    right = type("Right", (cls,), {"speaks": "openai"})
    assert [found.verdict for found in outcomes(right(), ("returns", "answers"))] == [Verdict.KEPT, Verdict.KEPT]


class Wandering(Honest):
    """Calls one address that its vendor does not have."""

    async def doctor(self):
        client = await self._get_client()
        await client.post(f"{self._base_url}/health")
        return DoctorResult(ok=True, message="healthy")


def test_one_unknown_address_does_not_end_the_checks():
    cls = type("Wanders", (TestHonest,), {"provider": Wandering, "backends": ("asyncio",)})
    cls.make = lambda self, url, key: Wandering(key, url)
    found = {outcome.name: outcome.verdict for outcome in outcomes(cls(), ("answers", "doctor", "secrets", "finish"))}
    assert len(found) == 4
    assert found["doctor"] == found["secrets"] == Verdict.BROKEN
    assert found["answers"] == found["finish"] == Verdict.KEPT


def test_an_unknown_promise_on_the_command_line_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["llm_council.providers.gemini:GeminiProvider", "--only", "politeness"])
    assert "no promise is called 'politeness'; there are returns, answers, " in capsys.readouterr().err


SUITE = """
from test_conformance import Dict, TestHonest
from llm_council.testing import ProviderConformance

class TestDict(TestHonest):
    provider = Dict
    backends = ("asyncio",)
    not_kept = {"answers": "it cannot"}

    def make(self, url, key):
        return Dict(key, url)

def test_fixtures(fake_vendor, scripted_provider):
    from llm_council.providers.gemini import GeminiProvider
    vendor = fake_vendor("gemini", "It is night.")
    with GeminiProvider(base_url=vendor.url, api_key="x", default_model="m") as provider:
        assert provider.doctor_sync(deep=True).ok
    assert len(vendor.calls) == 1
    assert scripted_provider("Yes.").name == "scripted"
"""


@pytest.mark.slow
def test_pytest_prints_one_line_and_has_the_fixtures(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # else one of a folder above is taken
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    wanted = "TestDict and (returns or answers or identity) or fixtures"
    options = [
        "-q",
        "-rxf",
        "-p",
        "llm_council.testing.plugin",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestUnknownMarkWarning",
    ]
    done = run("pytest", *options, "-k", wanted, cwd=tmp_path, env=environment)
    lines = done.stdout.splitlines()
    assert lines[3].startswith("Dict fails 'returns': generate returned dict: return a GenerateResponse, a string, or")
    assert lines[4].startswith("====")  # one line, and no traceback
    assert any(line.startswith("XFAIL test_suite.py::TestDict::test_answers - answers: it cannot (") for line in lines)
    assert lines[-1].startswith("1 failed, 3 passed, "), done.stdout


def test_the_plugin_does_not_import_the_library_until_a_fixture_is_used():
    script = """
import sys, pytest
before = set(sys.modules)
import llm_council.testing.plugin
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    ours = {"llm_council", "llm_council._lazy", "llm_council.testing", "llm_council.testing.plugin"}
    assert set(ast.literal_eval(done.stdout)) <= ours, done.stderr
    found = entry_points(group="pytest11", name="llm_council")
    assert [entry.value for entry in found] == ["llm_council.testing.plugin"]


@pytest.mark.slow
def test_a_missing_dependency_is_reported_with_the_extra(python):
    """The command line works without pytest, hypothesis and responses; ``mocked`` reports what it needs."""
    script = """
        import sys
        sys.modules.update(dict.fromkeys(("hypothesis", "pytest", "responses", "trio")))
        from llm_council.errors import MissingDependency
        from llm_council.testing.__main__ import main as prove
        from llm_council.testing.servers import FakeVendor

        assert prove(["llm_council.providers.ollama:OllamaProvider", "--only", "answers"]) == 0
        try:
            FakeVendor().mocked().__enter__()
        except MissingDependency as error:
            print(error)
        """
    done = python(script)
    assert done.stderr == ""
    assert done.stdout.count("pip install 'llm-council-sdk[testing]'") == 1
