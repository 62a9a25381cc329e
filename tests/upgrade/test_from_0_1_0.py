"""Today's code works with what 0.1.0 wrote, and runs the providers that were written against it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llm_council import Council, CouncilConfig, RetryPolicy, subagents
from llm_council.errors import (
    AdapterFailed,
    ApiError,
    AuthenticationFailed,
    CapabilityMissing,
    MissingCredentials,
    RateLimited,
    StoreError,
)
from llm_council.events import SeatFinished
from llm_council.models import (
    GenerateRequest,
    GenerateResponse,
    Message,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    Tool,
    ToolCall,
    join,
)
from llm_council.providers.base import ImagePart, ProviderAdapter, call, examine, stream
from llm_council.results import CouncilResult
from llm_council.store import Store
from llm_council.testing.cassettes import Replay
from llm_council.testing.fakes import ScriptedProvider
from llm_council.testing.servers import FakeVendor

DATA = Path(__file__).parents[1] / "data" / "0.1.0"
RUNS: dict[str, Any] = json.loads((DATA / "runs.json").read_text(encoding="utf-8"))
ENDED = ("completed", "vote", "structured", "degraded", "failed", "streamed")
ANSWER = '{"answer": "Saint-Nazaire", "reasoning": "There it meets the Atlantic."}'


def assert_includes(new: Any, old: Any, path: str = "") -> None:
    """Compare JSON values; a later version may add keys to an object."""
    if isinstance(old, dict):
        assert isinstance(new, dict), path
        for key, value in old.items():
            assert key in new, f"{path}.{key}"
            assert_includes(new[key], value, f"{path}.{key}")
    elif isinstance(old, list):
        assert isinstance(new, list), path
        assert len(new) == len(old), path
        for place, (mine, other) in enumerate(zip(new, old, strict=True)):
            assert_includes(mine, other, f"{path}[{place}]")
    else:
        assert new == old, path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a copy of the recorded store: opening one may bring its schema up to date."""
    return Path(shutil.copy(DATA / "runs.db", tmp_path / "runs.db"))


def seats(script: Any) -> list[ScriptedProvider]:
    return [ScriptedProvider(script, name=name) for name in ("ada", "bob", "cyd")]


class TestStore:
    def test_the_recorded_file_is_complete_without_a_journal(self) -> None:
        assert sorted(file.name for file in DATA.glob("runs.db*")) == ["runs.db"]

    @pytest.mark.anyio
    async def test_its_runs_are_listed(self, path: Path) -> None:
        listed = {run.run_id: run for run in await Store(path).runs()}
        assert {name: listed[run["run_id"]].status for name, run in RUNS.items()} == {
            "completed": "completed",
            "vote": "completed",
            "structured": "completed",
            "degraded": "degraded",
            "failed": "failed",
            "streamed": "completed",
            "interrupted": "interrupted",
        }
        assert len(listed) == len(RUNS)
        assert {run.version for run in listed.values()} == {"0.1.0"}
        unfinished = listed[RUNS["interrupted"]["run_id"]]
        assert (unfinished.task, unfinished.answered, unfinished.in_flight) == ("Where does the Loire end?", 2, 3)

    @pytest.mark.anyio
    @pytest.mark.parametrize("name", RUNS)
    async def test_a_run_is_shown_and_exported(self, name: str, path: Path) -> None:
        recorded, store = RUNS[name], Store(path)
        shown = await store.show(recorded["run_id"])
        assert [[one.name, one.state] for one in shown.calls] == recorded["calls"]
        assert shown.plan.run_id == recorded["run_id"]
        assert [seat.name for seat in shown.plan.seats] == ["ada", "bob", "cyd"]
        assert_includes(await store.export(recorded["run_id"]), recorded["export"])

    @pytest.mark.parametrize("name", ENDED)
    def test_a_result_is_read_and_written_back(self, name: str, path: Path) -> None:
        stored = Store(path).show_sync(RUNS[name]["run_id"]).result
        assert stored is not None
        result = CouncilResult.from_dict(stored)
        assert_includes(result.to_dict(), RUNS[name]["export"]["result"])
        assert result.to_markdown()
        if name == "failed":
            assert isinstance(result.errors["ada"], AuthenticationFailed)
            assert result.errors["ada"].status == 401

    @pytest.mark.anyio
    @pytest.mark.parametrize("name", ENDED)
    async def test_a_run_is_replayed(self, name: str, path: Path) -> None:
        """A version that words its requests otherwise would refuse with ``StoreError``, ``kind="diverged"``."""
        finished: list[str] = []

        def listen(event: object) -> None:
            if isinstance(event, SeatFinished):
                finished.append(event.seat)

        council = Council(seats("never asked"), config=CouncilConfig(), store=path, listeners=[listen])
        result = await council.areplay(RUNS[name]["run_id"])
        assert_includes(result.to_dict(), RUNS[name]["export"]["result"])
        assert len(finished) == len(RUNS[name]["calls"])

    @pytest.mark.anyio
    async def test_the_unfinished_run_is_resumed_without_repeating_answered_calls(self, path: Path) -> None:
        script = {"critique": "Good.\nRANKING: A", "synthesise": ANSWER}  # no word about drafts: they are stored
        providers = seats(script)
        council = Council(providers, config=CouncilConfig(), store=path)
        run_id = RUNS["interrupted"]["run_id"]
        with pytest.raises(StoreError):
            await council.areplay(run_id)
        result = await council.aresume(run_id)
        assert (result.status, result.output) == ("completed", json.loads(ANSWER))
        assert result.drafts == RUNS["completed"]["export"]["result"]["drafts"]
        assert len([line for line in result.warnings if "in flight" in line]) == 3
        asked = [request.metadata["phase"] for provider in providers for request in provider.requests]
        assert sorted(asked) == ["critique", "critique", "critique", "synthesise"]
        keys = {one["key"] for one in RUNS["interrupted"]["export"]["calls"]}
        critiques = [request for provider in providers for request in provider.asked("critique")]
        assert {request.idempotency_key for request in critiques} <= keys
        assert (await council.areplay(run_id)).to_dict() == result.to_dict()

    def test_a_failed_run_is_resumed(self, path: Path) -> None:
        script = {"draft": "It ends at Le Havre.", "critique": "Good.\nRANKING: A", "synthesise": ANSWER}
        council = Council(seats(script), config=CouncilConfig(), store=path)
        assert council.resume(RUNS["failed"]["run_id"]).output == json.loads(ANSWER)

    def test_a_run_of_0_1_0_is_gone_on_from(self, path: Path) -> None:
        providers = seats({"draft": "x", "critique": "x", "*": ANSWER})
        config = CouncilConfig(retry=RetryPolicy(max_retries=0))
        old = RUNS["completed"]["run_id"]
        result = Council(providers, config=config, store=path).run("And the Danube?", history=old)
        assert (result.plan.follows, len(result.plan.history)) == (old, 1)
        assert "Sulina" in result.plan.history[0].answer
        listed = {run.run_id: run.follows for run in Store(path).runs_sync()}
        assert listed == {**{run["run_id"]: None for run in RUNS.values()}, result.run_id: old}

    def test_new_runs_are_stored_beside_the_old_ones(self, path: Path) -> None:
        config = CouncilConfig(retry=RetryPolicy(max_retries=0))
        result = Council(seats({"draft": "x", "critique": "x", "*": ANSWER}), config=config, store=path).run("And?")
        assert Store(path).runs_sync(limit=1)[0].run_id == result.run_id
        Store(path).purge_sync(RUNS["completed"]["run_id"])
        assert len(Store(path).runs_sync()) == len(RUNS)


SCHEMA = {
    "type": "object",
    "properties": {"town": {"type": "string"}, "country": {"type": "string"}},
    "required": ["town", "country"],
    "additionalProperties": False,
}


@pytest.mark.anyio
class TestCassette:
    @pytest.fixture
    def ada(self) -> Replay:
        return Replay(ScriptedProvider("never asked", name="ada"), DATA / "cassette.json")

    @pytest.fixture
    def bob(self) -> Replay:
        return Replay(ScriptedProvider("never asked", name="bob"), DATA / "cassette.json")

    async def test_an_answer_is_replayed(self, ada: Replay) -> None:
        response = await call(ada, GenerateRequest(prompt="Where does the Danube end?"))
        assert response.text == "The Danube ends at Sulina.\nThat is in Romania."
        assert response.reasoning_parts == (
            ReasoningPart(text="Its delta is large.", signature="signed", vendor="scripted"),
        )
        assert (response.finish_reason, response.raw_finish_reason) == ("stop", "end_turn")
        assert (response.model, response.request_id) == ("scripted-2", "request-ada-1")
        assert response.usage is not None
        assert (response.usage.input_tokens, response.usage.cached_tokens) == (40, 8)
        assert response.cost is not None
        assert (response.cost.usd, response.cost.source) == (0.002, "reported")
        assert response.extra == {"tier": "standard"}

    async def test_a_request_with_every_field_is_found(self, ada: Replay) -> None:
        request = GenerateRequest(
            model="scripted-2",
            messages=[
                Message("system", "Be brief."),
                Message("user", "Where?", name="ann"),
                Message("assistant", "", tool_calls=[ToolCall(id="call-0", name="look_up", arguments="{}")]),
                Message("tool", "nothing found", name="look_up", tool_call_id="call-0"),
            ],
            max_tokens=50,
            temperature=0.5,
            top_p=0.9,
            stop=["END"],
            tools=[Tool(name="look_up", description="Looks up a river.", strict=True)],
            tool_choice="auto",
            structured_output=StructuredOutput(json_schema=SCHEMA, name="place", strict=False),
            reasoning=ReasoningConfig(effort="low", budget_tokens=512),
            prompt_cache="5m",
            cache="write",
            extra={"vendor_field": [1, None, "x"]},
        )
        response = await call(ada, request)
        (asked,) = response.tool_calls
        assert (asked.id, asked.name, asked.parse()) == ("call-1", "look_up", {"river": "Danube"})
        assert asked.extra == {"signature": "s"}
        assert response.finish_reason == "tool_calls"

    async def test_a_stream_is_replayed(self, bob: Replay) -> None:
        chunks = [chunk async for chunk in stream(bob, GenerateRequest(prompt="Name two words."))]
        assert join(chunks).text == "First.\nLast."

    async def test_repeated_calls_and_errors_come_in_their_order(self, bob: Replay) -> None:
        again = GenerateRequest(prompt="Again?", temperature=0.2)
        assert [(await call(bob, again)).text for _ in range(2)] == ["Once.", "Twice."]
        with pytest.raises(AdapterFailed, match="has no answer"):
            await call(bob, again)
        with pytest.raises(RateLimited) as caught:
            await call(bob, GenerateRequest(prompt="Now?"))
        error = caught.value
        assert (error.message, error.status, error.retry_after) == ("slow down", 429, 7.0)
        assert (error.request_id, error.body) == ("request-9", '{"code": 7}')


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the configuration of this machine."""
    for name in os.environ:
        if name.startswith(("LLM_COUNCIL_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UPGRADE_TEST_KEY", "house-key-0123456789")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("environment")
class TestConfiguration:
    def test_every_key_is_read_as_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLM_COUNCIL_CONFIG", str(DATA / "council.toml"))
        command = [sys.executable, "-m", "llm_council", "config", "show", "--json"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        recorded = (DATA / "configuration.json").read_text(encoding="utf-8")
        unquoted = [json.loads(text.replace("'***'", "***")) for text in (shown, recorded)]
        assert_includes(*unquoted)
        assert "0123456789" not in shown

    def test_every_provider_of_the_file_can_be_made(self) -> None:
        config = CouncilConfig.from_file(DATA / "council.toml")
        for name in config.instances:
            with Council([name], config=CouncilConfig(instances=config.instances)) as council:
                assert council.providers == (name,)

    def test_a_council_is_planned_from_the_file(self, tmp_path: Path) -> None:
        shutil.copytree(DATA / "roles", tmp_path / "roles")
        with Council(config=CouncilConfig.from_file(DATA / "council.toml")) as council:
            plan = council.plan("Where?")
        assert [seat.provider for seat in plan.seats] == ["house", "steady", "cheap", "cheap"]
        assert (plan.strategy, plan.seed, plan.temperature, plan.max_tokens) == ("vote", "a seed", 0.4, 1500)
        assert (plan.budget.deadline, plan.budget.usd, plan.retry.max_retries) == (90, 0.75, 1)

    def test_every_variable_is_read_as_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        variables = {
            "PROVIDERS": "house,local:2",
            "CHAIR": "house",
            "STRATEGY": "vote",
            "DEADLINE": "90",
            "QUORUM": "2",
            "BUDGET_USD": "0.75",
            "TEMPERATURE": "0.4",
            "MAX_TOKENS": "1500",
            "SUBAGENT_PATHS": f"roles{os.pathsep}more",
            "STORE": "runs.db",
            "SEED": "a seed",
        }
        for name, text in variables.items():
            monkeypatch.setenv(f"LLM_COUNCIL_{name}", text)
        config = CouncilConfig.from_env()
        assert (config.providers, config.chair, config.strategy) == (("house", "local:2"), "house", "vote")
        assert (config.budget.deadline, config.budget.quorum, config.budget.usd) == (90, 2, 0.75)
        assert (config.temperature, config.max_tokens) == (0.4, 1500)
        assert (config.subagent_paths, config.store, config.seed) == (("roles", "more"), "runs.db", "a seed")

    def test_the_role_is_loaded_in_both_modes(self) -> None:
        news = subagents.load("editor", paths=[str(DATA / "roles")])
        assert (news.name, news.mode, news.title) == ("editor", "news", "Editor")
        assert news.prompts.system == (
            "You edit texts for readers with little time. Keep every fact.\n\nPut the most important fact first."
        )
        assert news.schema is not None
        assert news.schema["required"] == ["text", "cuts"]
        assert (news.preferences.temperature, news.preferences.max_tokens, news.preferences.critique) == (
            0.3,
            800,
            False,
        )
        headlines = subagents.load("editor", "headlines", paths=[str(DATA / "roles")])
        assert (headlines.title, headlines.description) == ("Headline writer", "Writes headlines.")
        assert (headlines.prompts.critique, headlines.prompts.synthesise, headlines.prompts.brief) == (
            "Look for claims that the text does not make.",
            "Choose the best headlines.",
            "Write headlines.",
        )
        assert headlines.schema == {"type": "array", "items": {"type": "string"}, "minItems": 3}
        assert (headlines.preferences.temperature, headlines.preferences.critique) == (0.3, True)

    def test_a_council_plays_the_role(self) -> None:
        answer = '{"text": "Short.", "cuts": []}'
        config = CouncilConfig(subagent_paths=[str(DATA / "roles")])
        result = Council(seats({"draft": "Short.", "*": answer}), config=config).run("Shorten: long.", "editor")
        assert (result.status, result.output) == ("completed", {"text": "Short.", "cuts": []})


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"upgrade_{name}", DATA / "providers" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestInhouseProvider:
    @pytest.fixture
    def provider(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.delenv("INHOUSE_API_KEY", raising=False)
        return load("inhouse").InhouseProvider("inhouse-key-0123456789")

    @pytest.mark.anyio
    async def test_it_generates(self, provider: Any) -> None:
        response = await call(provider, GenerateRequest(prompt="hello", max_tokens=9000))
        assert (response.text, response.model, response.finish_reason) == ("seen: hello", "inhouse-1", "stop")
        assert (response.raw_finish_reason, response.request_id) == ("end_turn", "inhouse-200")
        assert [adjustment.field for adjustment in response.adjustments] == ["max_tokens"]
        assert response.usage is not None
        assert response.usage.output_tokens == 2

    @pytest.mark.anyio
    async def test_it_streams_text_and_tool_calls(self, provider: Any) -> None:
        chunks = [chunk async for chunk in stream(provider, GenerateRequest(prompt="a b"))]
        assert len(chunks) > 2
        assert join(chunks).finish_reason == "stop"
        tool = Tool(name="look_up")
        spoken = join([chunk async for chunk in stream(provider, GenerateRequest(prompt="a b", tools=[tool]))])
        assert [(one.name, one.parse()) for one in spoken.tool_calls] == [("look_up", {"text": "a b"})]

    @pytest.mark.anyio
    async def test_it_calls_tools_and_takes_their_results(self, provider: Any) -> None:
        request = GenerateRequest(prompt="Danube", tools=[Tool(name="look_up")])
        response = await call(provider, request)
        assert response.finish_reason == "tool_calls"
        (asked,) = response.tool_calls
        turns = [*request.turns(), response.to_message(), Message("tool", "Sulina", tool_call_id=asked.id)]
        assert (await call(provider, GenerateRequest(messages=turns, tools=request.tools))).text == "seen: Sulina"

    @pytest.mark.anyio
    async def test_its_errors_arrive_with_their_facts(self, provider: Any) -> None:
        with pytest.raises(RateLimited) as caught:
            await call(provider, GenerateRequest(prompt="too busy"))
        assert (caught.value.retry_after, caught.value.request_id) == (7.0, "inhouse-429")
        assert caught.value.provider == "inhouse"
        with pytest.raises(CapabilityMissing):
            await call(provider, GenerateRequest(messages=[Message("user", [ImagePart(url="https://a.example/b")])]))

    @pytest.mark.anyio
    async def test_its_doctor_is_called(self, provider: Any) -> None:
        assert (await examine(provider)).latency_ms == 1.5
        assert (await examine(provider, deep=True)).details == {"model": "inhouse-1"}
        without_key = load("inhouse").InhouseProvider()
        assert not (await examine(without_key)).ok
        with pytest.raises(MissingCredentials, match="set INHOUSE_API_KEY"):
            await Council([without_key], config=CouncilConfig()).arun("Where?")

    def test_its_blocking_methods_work(self, provider: Any) -> None:
        with provider:
            assert provider.generate_sync(GenerateRequest(prompt="hello")).text == "seen: hello"
            assert "".join(chunk.text for chunk in provider.stream_sync(GenerateRequest(prompt="hello"))).strip()
            assert provider.supports_sync("batch")
            assert provider.supports_sync("streaming")
            assert provider.doctor_sync().ok
        assert provider.closed == 1
        assert isinstance(provider, ProviderAdapter)

    @pytest.mark.anyio
    async def test_it_sits_in_a_council(self, provider: Any) -> None:
        result = await Council([provider], config=CouncilConfig()).arun("Where?", schema=SCHEMA)
        assert result.status == "completed"
        assert result.output == {"town": "town of the answer", "country": "country of the answer"}


class TestSketchProvider:
    @pytest.fixture
    def vendor(self) -> Iterator[FakeVendor]:
        said = GenerateResponse(text="echo: hello", model="sketch-1", finish_reason="stop")
        with FakeVendor("openai", said, key="sketch-key-0123456789").serve() as vendor:
            yield vendor

    @pytest.fixture(params=["SketchProvider", "DeltaProvider"])
    def kind(self, request: pytest.FixtureRequest) -> Any:
        return getattr(load("sketch"), request.param)

    @pytest.mark.anyio
    async def test_it_answers_streams_and_has_a_doctor(self, kind: Any, vendor: FakeVendor) -> None:
        request = GenerateRequest(prompt="hello", temperature=0.2, max_tokens=9000)
        async with kind("sketch-key-0123456789", vendor.url) as provider:
            response = await call(provider, request)
            assert (response.text, response.finish_reason) == ("echo: hello", "stop")
            assert vendor.calls[-1].json["max_tokens"] == 2000
            chunks = [chunk async for chunk in stream(provider, request)]
            assert join(chunks).text == "echo: hello"
            assert join(chunks).finish_reason == "stop"
            assert (await examine(provider)).message == "reachable"
            assert (await examine(provider, deep=True)).ok
            assert await provider.supports("tool_use")

    @pytest.mark.anyio
    async def test_what_it_raises_becomes_a_typed_error(self, kind: Any, vendor: FakeVendor) -> None:
        async with kind("wrong-key-0123456789", vendor.url) as provider:
            with pytest.raises(ApiError) as caught:
                await call(provider, GenerateRequest(prompt="hello"))
            assert caught.value.status == 401
            assert not (await examine(provider)).ok
        with pytest.raises(AdapterFailed, match="no key"):
            await call(kind(base_url=vendor.url), GenerateRequest(prompt="hello"))

    def test_its_blocking_methods_work(self, kind: Any, vendor: FakeVendor) -> None:
        with kind("sketch-key-0123456789", vendor.url) as provider:
            assert provider.generate_sync(GenerateRequest(prompt="hello")).text == "echo: hello"
            assert (
                "".join(chunk.text for chunk in provider.stream_sync(GenerateRequest(prompt="hello"))) == "echo: hello"
            )
            assert provider.doctor_sync().ok
