"""Council: names become seats, and one call serves plain code and event loops, any number of runs at once."""

from __future__ import annotations

import inspect
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from llm_council import Council, CouncilConfig, CouncilResult, CouncilStream, errors
from llm_council.events import Event, PhaseFinished, RunFinished, RunStarted, SeatFinished, TextDelta
from llm_council.middleware import Retry
from llm_council.models import Budget, GenerateRequest, Limits, RetryPolicy, Status
from llm_council.testing.fakes import ScriptedProvider

ANSWER = json.dumps({"answer": "Paris", "reasoning": "It is the seat of government."})
SCRIPT = {"draft": "I say Paris.", "critique": "All claims hold.\nRANKING: A > B > C > D > E > F", "*": ANSWER}


def scripted(count: int = 3, **options: Any) -> list[ScriptedProvider]:
    return [ScriptedProvider(SCRIPT, name=f"scripted-{index}", **options) for index in range(count)]


@pytest.fixture
def council() -> Council:
    return Council(scripted(), config=CouncilConfig())


def test_run_blocks_in_a_script(council: Council) -> None:
    result = council.run("What is the capital of France?")
    assert isinstance(result, CouncilResult)
    assert (result.status, result.output) == (Status.COMPLETED, json.loads(ANSWER))
    assert result.task == "What is the capital of France?"
    assert result.subagent == "advisor"


@pytest.mark.anyio
async def test_run_is_awaited_in_an_event_loop(council: Council) -> None:
    pending = council.run("What is the capital of France?")
    with pytest.raises(errors.InsideEventLoopError, match="await"):
        _ = pending.output
    result = await pending
    assert result.output == json.loads(ANSWER)
    assert await result is result


@pytest.mark.anyio
async def test_blocking_twins_refuse_to_run_in_an_event_loop(council: Council) -> None:
    assert (await council.arun("Where?")).success
    with pytest.raises(errors.InsideEventLoopError, match="await"):
        council.run_sync("Where?")
    assert (await anyio.to_thread.run_sync(council.run_sync, "Where?")).success


@pytest.mark.anyio
async def test_several_runs_can_be_gathered(council: Council) -> None:
    results: dict[int, CouncilResult] = {}

    async def one(index: int) -> None:
        results[index] = await council.arun(f"Question {index}?")

    async with anyio.create_task_group() as group:
        for index in range(5):
            group.start_soon(one, index)
    assert [results[index].task for index in range(5)] == [f"Question {index}?" for index in range(5)]


def marked() -> list[ScriptedProvider]:
    """Seats whose words carry the marker of the task they were asked."""

    def say(request: GenerateRequest) -> str:
        text = " ".join(turn.text for turn in request.turns())
        markers = set(re.findall(r"marker-\d+", text))
        assert len(markers) == 1, f"one run saw the words of another: {markers}"
        marker = markers.pop()
        return json.dumps({"answer": marker, "reasoning": f"asked about {marker}"})

    return [ScriptedProvider(say, name=f"seat-{index}") for index in range(3)]


@pytest.mark.slow
def test_200_blocking_runs_from_16_threads_keep_their_own_answers() -> None:
    council = Council(marked(), config=CouncilConfig())
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda index: council.run(f"Say marker-{index}"), range(200)))
    assert [result.output["answer"] for result in results] == [f"marker-{index}" for index in range(200)]
    assert len({result.run_id for result in results}) == 200
    assert all(f"marker-{index}" in draft for index, r in enumerate(results) for draft in r.drafts.values())


@pytest.mark.anyio
@pytest.mark.slow
async def test_200_awaited_runs_in_one_loop_keep_their_own_answers() -> None:
    council = Council(marked(), config=CouncilConfig())
    answers: dict[int, str] = {}

    async def one(index: int) -> None:
        answers[index] = (await council.arun(f"Say marker-{index}")).output["answer"]

    async with anyio.create_task_group() as group:
        for index in range(200):
            group.start_soon(one, index)
    assert answers == {index: f"marker-{index}" for index in range(200)}


def check_events(events: list[Event], result: CouncilResult) -> None:
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    assert {event.run_id for event in events} == {result.run_id}
    assert [event.at for event in events] == sorted(event.at for event in events)
    words = "".join(e.text for e in events if isinstance(e, TextDelta) and (e.phase, e.seat) == ("draft", "scripted-0"))
    assert words == "I say Paris."
    assert [e.phase for e in events if isinstance(e, PhaseFinished)] == ["draft", "critique", "synthesise"]
    assert sum(isinstance(e, SeatFinished) for e in events) == sum(len(seat.calls) for seat in result.seats)


def test_stream_works_in_plain_code(council: Council) -> None:
    with council.stream("Where?") as stream:
        assert isinstance(stream, CouncilStream)
        events = list(stream)
    check_events(events, stream.result)


@pytest.mark.anyio
async def test_stream_works_in_an_event_loop(council: Council) -> None:
    async with council.stream("Where?") as stream:
        events = [event async for event in stream]
    check_events(events, stream.result)


@pytest.mark.anyio
async def test_leaving_a_stream_cancels_its_run_and_keeps_the_partial_result() -> None:
    seats = scripted(delay={"critique": float("inf")})
    council = Council(seats, config=CouncilConfig())
    async with council.stream("Where?") as stream:
        async for event in stream:
            if isinstance(event, PhaseFinished) and event.phase == "draft":
                break
    assert stream.result.status == Status.CANCELLED
    assert set(stream.result.drafts.values()) == {"I say Paris."}
    assert sum(seat.cancelled for seat in seats) == len(seats)


def test_listeners_get_the_events_of_every_run_and_cannot_break_it(caplog: pytest.LogCaptureFixture) -> None:
    received: list[tuple[Event, str]] = []

    def broken(event: Event) -> None:
        raise ValueError("a listener's own trouble")

    listeners = [broken, lambda event: received.append((event, threading.current_thread().name))]
    council = Council(scripted(), config=CouncilConfig(), listeners=listeners)
    first, second = council.run("One?"), council.run("Two?")
    assert {event.run_id for event, _ in received} == {first.run_id, second.run_id}
    assert first.success
    assert "listener" in caplog.text


@pytest.mark.anyio
async def test_cancellation_is_raised_and_cancels_the_seats() -> None:
    seats = scripted(delay=float("inf"))
    received: list[Event] = []
    council = Council(seats, config=CouncilConfig(), listeners=[received.append])
    with anyio.move_on_after(0.2) as scope:
        await council.arun("Where?")
    assert scope.cancelled_caught
    assert [seat.cancelled for seat in seats] == [len(seat.requests) for seat in seats]
    assert isinstance(received[-1], RunFinished)
    assert received[-1].status == Status.CANCELLED


def test_the_signature_shows_every_option() -> None:
    wanted = "task subagent output_type mode context files history schema budget strategy temperature"
    wanted += " max_tokens metadata store"
    for method in (Council.run, Council.arun, Council.run_sync, Council.stream, Council.plan):
        shown = inspect.signature(method)
        assert list(shown.parameters)[1:] == wanted.split(), method
        assert "ForwardRef" not in str(shown)


# Bad input: a typed error that names the remedy, before anything is sent.


@pytest.mark.parametrize(
    ("task", "options", "kind", "named"),
    [
        ("", {}, errors.InvalidOption, "task"),
        ("  \n", {}, errors.InvalidOption, "task"),
        ("x", {"subagent": "reviwer"}, errors.UnknownSubagent, "did you mean 'reviewer'"),
        ("x", {"subagent": "drafter", "mode": "imp"}, errors.UnknownSubagent, "did you mean 'impl'"),
        ("x", {"temprature": 1}, errors.UnknownOption, "did you mean 'temperature'"),
        ("x", {"strategy": "synthesise"}, errors.InvalidOption, "did you mean 'synthesize'"),
        (
            "x",
            {"schema": {"type": "objekt"}},
            errors.InvalidOption,
            "$.type: there is no type 'objekt'; did you mean 'object'",
        ),
        ("x", {"files": ["/nowhere/at/all.txt"]}, errors.InvalidOption, "/nowhere/at/all.txt"),
        ("x", {"files": "a.txt"}, errors.InvalidOption, "list"),
        ("x", {"budget": Budget(quorum=9)}, errors.InvalidOption, "quorum"),
        ("x", {"max_tokens": 0}, errors.InvalidOption, "max_tokens: a whole number of 1 or more, got 0"),
        ("x", {"temperature": "hot"}, errors.InvalidOption, "temperature: a number of 0 or more, got 'hot'"),
        ("x", {"context": 3}, errors.InvalidOption, "context: text, got 3"),
        ("x", {"strategy": 3}, errors.InvalidOption, "no strategy 3"),
        ("x", {"budget": {"usd": 1}}, errors.InvalidOption, "expected a Budget"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(
    task: str, options: dict[str, Any], kind: type[Exception], named: str
) -> None:
    seats = scripted()
    council = Council(seats, config=CouncilConfig())
    for ask in (council.run, council.run_sync, council.plan):
        with pytest.raises(kind) as caught:
            ask(task, **options)
        assert named in str(caught.value)
        assert isinstance(caught.value, errors.ConfigurationError)
    assert not any(seat.requests for seat in seats)


def test_a_wrong_type_of_budget_or_config_is_refused() -> None:
    with pytest.raises(errors.InvalidOption, match="expected a Budget"):
        Council(scripted(), config=CouncilConfig(), budget=0.5)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidOption, match="expected a CouncilConfig"):
        Council(scripted(), config={})  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_result_is_a_line_in_a_terminal_and_a_report_in_a_notebook(council: Council) -> None:
    pending = council.run("Where?")
    assert (pending._repr_markdown_(), pending._repr_html_()) == (None, None)
    assert repr(pending) == "<CouncilResult, not started: write 'await council.run(...)'>"
    result = await pending
    assert re.fullmatch(
        r"<CouncilResult [0-9a-f]{16}: advisor by scripted-0, scripted-1, scripted-2, completed in \d+\.\d s>",
        repr(result),
    )
    assert result._repr_markdown_() == result.to_markdown()
    assert "Where?" in (result._repr_html_() or "")


def test_only_the_named_files_are_read_into_the_plan(council: Council, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("The capital moved to Lyon.", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("never read", encoding="utf-8")
    plan = council.plan("Where?", files=[path])
    assert [(file.name, file.text) for file in plan.files] == [(str(path), "The capital moved to Lyon.")]
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(errors.InvalidOption, match="not UTF-8"):
        council.run("Where?", files=[tmp_path / "binary"])


def test_a_large_file_is_called_large_even_if_its_limit_is_within_a_character(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("é" * 3, encoding="utf-8")
    config = CouncilConfig(limits=Limits(body=4))
    with pytest.raises(errors.InvalidOption, match=r"notes\.txt is larger than 4 bytes; give a part of it"):
        Council([ScriptedProvider(SCRIPT)], config=config).plan("Where?", files=[tmp_path / "notes.txt"])
    with pytest.raises(errors.InvalidOption, match=r"attachment\.txt is larger than"):
        Council([ScriptedProvider(SCRIPT)], config=config).plan("Where?", files=["é".encode() * 3])


# Who sits.


def test_seats_get_unique_names() -> None:
    one = ScriptedProvider(SCRIPT, name="one")
    assert Council([one, one], config=CouncilConfig()).providers == ("one", "one-2")


def test_two_instances_with_one_name_get_numbered_provider_names() -> None:
    first, second = ScriptedProvider(SCRIPT, name="twin"), ScriptedProvider(SCRIPT, name="twin")
    council = Council([first, second], config=CouncilConfig())
    assert council.run("Where?").success
    assert len(council.providers) == 2
    assert len(set(council.providers)) == 2
    assert first.requests
    assert second.requests


def test_a_provider_class_is_instantiated() -> None:
    class Ready(ScriptedProvider):
        def __init__(self) -> None:
            super().__init__(SCRIPT, name="ready")

    assert Council([Ready], config=CouncilConfig()).run("Where?").success
    with pytest.raises(errors.InvalidOption, match="pass an instance"):
        Council([ScriptedProvider], config=CouncilConfig())


@pytest.mark.parametrize(
    ("providers", "kind", "named"),
    [
        ([], errors.InvalidOption, "name a provider"),
        ("openai", errors.InvalidOption, "list"),
        (["openrooter"], errors.UnknownProvider, "did you mean 'openrouter'"),
        ([3], errors.InvalidOption, "ProviderAdapter"),
        ([dict], errors.InvalidOption, "not a ProviderAdapter"),
        ([":2"], errors.ConfigurationError, ":2"),
        (["openai:0"], errors.InvalidOption, "openai:0"),
        (["openai-1", "openai:2"], errors.ConfigurationError, "openai-1"),
    ],
)
def test_wrong_seats_are_refused(providers: Any, kind: type[Exception], named: str) -> None:
    with pytest.raises(kind) as caught:
        Council(providers, config=CouncilConfig())
    assert named in str(caught.value)


def test_names_models_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "canary-canary")
    council = Council(["openrouter/anthropic/claude-sonnet-4.6", "openrouter:2"], config=CouncilConfig())
    assert council.providers == ("openrouter/anthropic/claude-sonnet-4.6", "openrouter-1", "openrouter-2")
    plan = council.plan("Where?")
    assert [seat.model for seat in plan.seats] == ["anthropic/claude-sonnet-4.6", None, None]
    assert {seat.provider for seat in plan.seats} == {"openrouter"}
    assert "canary" not in repr(plan) + repr(council)


def test_a_missing_key_is_named_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    scripted_seat = ScriptedProvider(SCRIPT)
    council = Council(["openrouter", scripted_seat], config=CouncilConfig())
    with pytest.raises(errors.MissingCredentials, match="OPENROUTER_API_KEY"):
        council.run("Where?")
    assert scripted_seat.requests == []


def test_a_missing_address_is_named_before_anything_is_sent() -> None:
    council = Council(["openai-compatible"], config=CouncilConfig())
    with pytest.raises(errors.InvalidOption, match="base_url"):
        council.run("Where?")


KEYS = ("OPENAI_API_KEY", "OPENROUTER_API_KEY")


@pytest.mark.parametrize(
    ("keys", "seats"),
    [
        (("OPENROUTER_API_KEY",), ("openrouter-1", "openrouter-2", "openrouter-3")),
        (KEYS, ("openai", "openrouter")),
    ],
)
def test_without_providers_those_with_keys_are_used(
    monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...], seats: tuple[str, ...]
) -> None:
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    for key in keys:
        monkeypatch.setenv(key, "canary-canary")
    assert Council(config=CouncilConfig()).providers == seats


def test_a_configured_instance_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = {"kind": "openai-compatible", "base_url": "https://llm.example.com/v1", "api_key": "${GATEWAY_KEY}"}
    config = CouncilConfig(instances={"gateway": {**gateway, "default_model": "house-70b"}}, providers=("gateway:2",))
    with pytest.raises(errors.MissingCredentials, match="GATEWAY_KEY"):
        Council(config=config)
    monkeypatch.setenv("GATEWAY_KEY", "canary-canary")
    assert Council(config=config).providers == ("gateway-1", "gateway-2")


def test_the_retry_policy_reaches_the_seats() -> None:
    def fails_once(policy: RetryPolicy) -> CouncilResult:
        script = [errors.ServerFailed("busy", status=503), ANSWER, ANSWER, ANSWER]
        return Council([ScriptedProvider(script)], config=CouncilConfig(retry=policy)).run("Where?")

    result = fails_once(RetryPolicy(base=0.0))
    assert result.success
    assert [attempt.error for attempt in result.seats[0].attempts][:2] == ["ServerFailed", None]
    assert fails_once(RetryPolicy(max_retries=0)).status == Status.FAILED


def test_a_provider_that_retries_already_is_not_wrapped_again() -> None:
    inner = ScriptedProvider([errors.ServerFailed("busy")] * 9)
    Council([Retry(inner, RetryPolicy(max_retries=1, base=0.0))], config=CouncilConfig()).run("Where?")
    assert len(inner.requests) == 2


@pytest.mark.anyio
async def test_doctor_blocks_and_can_be_awaited(council: Council) -> None:
    found = await council.doctor()
    assert list(found) == list(council.providers)
    assert all(result.ok for result in found.values())
    blocking = await anyio.to_thread.run_sync(council.doctor_sync)
    assert {name: result.message for name, result in blocking.items()} == {
        name: result.message for name, result in found.items()
    }


def test_a_closed_council_may_be_used_again(council: Council) -> None:
    with council:
        assert council.run("Where?").success
    council.close()
    assert council.run("Where?").success


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"subagnet": "reviewer"}, "did you mean 'subagent'?"),
        ({"temprature": 1}, "did you mean 'temperature'?"),
        ({"stream": True}, "call council.stream(task), which yields events"),
        ({"model": "m"}, 'a model is named in its seat, as in Council(["openai/gpt-5.4"])'),
        ({"chair": "a"}, "pass it to the council, as in Council(..., chair=...)"),
        ({"chiar": "a"}, "did you mean 'chair'? pass it to the council, as in Council(..., chair=...)"),
        ({"providers": ["a"]}, "pass it to the council, as in Council(..., providers=...)"),
        ({"seed": "s"}, "pass Council(..., config=CouncilConfig(seed=...))"),
        ({"deadline": 3}, "pass budget=Budget(deadline=...)"),
        ({"max_retries": 3}, "pass Council(..., config=CouncilConfig(retry=RetryPolicy(max_retries=...)))"),
    ],
)
def test_an_unknown_option_of_a_run_names_what_was_meant_or_where_it_belongs(
    council: Council, options: dict[str, Any], remedy: str
) -> None:
    for call in (council.run, council.stream, council.plan):
        with pytest.raises(errors.UnknownOption) as caught:
            call("x", **options)
        assert caught.value.message == f"a run takes no option {next(iter(options))!r}; {remedy}"


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"provider": "openai"}, "did you mean 'providers'?"),
        ({"chiar": "a"}, "did you mean 'chair'?"),
        ({"temperature": 1}, "pass it to the run, as in council.run(task, temperature=...)"),
        ({"subagent": "reviewer"}, "pass it to the run, as in council.run(task, subagent=...)"),
        ({"deadline": 3}, "pass budget=Budget(deadline=...)"),
        ({"seed": "s"}, "pass Council(..., config=CouncilConfig(seed=...))"),
    ],
)
def test_an_unknown_option_of_a_council_names_what_was_meant_or_where_it_belongs(
    options: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(errors.UnknownOption) as caught:
        Council(scripted(), config=CouncilConfig(), **options)
    assert caught.value.message == f"Council takes no option {next(iter(options))!r}; {remedy}"


def test_the_signature_of_a_council_shows_known_options_only() -> None:
    assert list(inspect.signature(Council).parameters) == [
        "providers",
        "config",
        "chair",
        "strategy",
        "budget",
        "listeners",
        "store",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"files": [3]},
        {"files": 3},
        {"files": b"x"},
        {"files": ["https://example.com/cat.png"]},
        {"store": 3},
        {"store": True},
        {"metadata": 3},
        {"schema": 3},
        {"context": 3},
        {"temperature": "warm"},
        {"max_tokens": 0},
        {"budget": 3},
    ],
)
def test_a_wrong_value_names_the_option_of_the_run(council: Council, options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidOption) as caught:
        council.run("x", **options)
    assert caught.value.message.startswith(f"{next(iter(options))}: ")


@pytest.mark.parametrize("options", [{"store": 3}, {"listeners": 3}, {"strategy": 3}, {"chair": 3}, {"budget": 3}])
def test_a_wrong_value_names_the_option_of_the_council(options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidOption) as caught:
        Council(scripted(), **{"config": CouncilConfig(), **options})
    assert caught.value.message.startswith(f"{next(iter(options))}: ")
