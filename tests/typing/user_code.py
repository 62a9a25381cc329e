"""Programs as users write them, judged by mypy --strict and pyright: what is inferred, and what is refused.

Nothing here runs. ``assert_type`` states what a checker must infer; an ignore comment states that it must complain
there (both checkers report an ignore comment that is not needed).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Optional, Union, assert_type

import httpx

from llm_council import (
    Budget,
    Council,
    CouncilConfig,
    CouncilResult,
    CouncilStream,
    DoctorResult,
    Event,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    Message,
    Plan,
    ProviderAdapter,
    ProviderCapabilities,
    Seat,
    get_provider,
)
from llm_council.events import RunFinished, TextDelta
from llm_council.models import PastTask
from llm_council.store import RunInfo, Store


def script() -> str | None:
    with Council(providers=["openrouter", "local:2"], budget=Budget(deadline=60, quorum=2)) as council:
        result = council.run("Review this function", subagent="reviewer")
        assert_type(result, CouncilResult)
        assert_type(council.run_sync("Review this function"), CouncilResult)
        assert_type(council.plan("Review this function"), Plan)
        assert_type(council.doctor_sync(deep=True), dict[str, DoctorResult])
        assert_type(result.drafts, dict[str, str])
        assert_type(result.success, bool)
        assert_type(result.cost.usd, float | None)
        return result.text


def conversation(council: Council, earlier: CouncilResult) -> list[PastTask]:
    second = council.run("And then?", history=earlier)
    assert_type(second, CouncilResult)
    assert_type(second.plan.follows, str | None)
    council.run_sync("And then?", history="last")
    council.plan("And then?", history=[Message("user", "Hello"), Message("assistant", "Hello.")])
    council.run("And then?", history=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    return list(second.plan.history)


def personas(adapter: ProviderAdapter) -> Council:
    seat = Seat("openai/gpt-6.1", name="sceptic", instructions="Doubt.", temperature=0.2)
    assert_type(seat.name, str | None)
    Seat("openai", "sceptic")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Seat(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return Council([seat, Seat(adapter, name="fan"), Seat(type(adapter)), "local"], config=CouncilConfig(seats=(seat,)))


async def program() -> None:
    async with Council() as council:
        assert_type(await council.run(task="Generate code", subagent="implementer"), CouncilResult)
        assert_type(await council.arun("Generate code"), CouncilResult)
        assert_type(await council.adoctor(), dict[str, DoctorResult])


def watch(council: Council) -> CouncilResult:
    with council.stream("Plan the move", "planner") as stream:
        assert_type(stream, CouncilStream)
        for event in stream:
            show(event)
    return stream.result


async def awatch(council: Council) -> CouncilResult:
    async with council.stream("Plan the move", "planner") as stream:
        async for event in stream:
            show(event)
    return stream.result


def show(event: Event) -> None:
    if isinstance(event, TextDelta):
        assert_type(event.text, str)
    elif isinstance(event, RunFinished):
        assert_type(event.elapsed, float)


def narrowed(council: Council) -> None:
    for event in council.stream("Plan the move"):
        match event:
            case TextDelta(text=text):
                assert_type(text, str)
            case RunFinished():
                assert_type(event.elapsed, float)
            case _:
                pass
        if event.type == "TextDelta":
            assert_type(event, TextDelta)


class MyProvider(ProviderAdapter):
    name: ClassVar[str] = "myprovider"
    capabilities: ClassVar[ProviderCapabilities] = ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, multimodal=False, max_tokens=4096
    )

    def __init__(self, api_key: Optional[str] = None) -> None:  # noqa: UP045 (as the guide for authors spells it)
        self._api_key = api_key or os.environ.get("MY_API_KEY")

    async def generate(self, request: GenerateRequest) -> Union[GenerateResponse, AsyncIterator[GenerateResponse]]:  # noqa: UP007
        client = await self._get_client()
        assert_type(client, httpx.AsyncClient)
        reply = await client.post("https://llm.example.com/v1", json={"prompt": request.prompt})
        return GenerateResponse(text=reply.text, content=reply.text, model=request.model, finish_reason="stop")

    async def supports(self, capability: str) -> bool:
        return self.supports_capability(capability)

    # The contract's older spelling, without `deep`: it runs, and checkers say what it lacks.
    async def doctor(self) -> DoctorResult:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return DoctorResult(ok=True, message="API accessible", latency_ms=1.0)


class Narrow(ProviderAdapter):
    """An author may promise more than the contract asks."""

    name = "narrow"
    capabilities = ProviderCapabilities()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        return GenerateResponse(text=request.prompt)

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        return DoctorResult(ok=not deep)


def providers(request: GenerateRequest) -> None:
    adapter = MyProvider(api_key="secret")
    Council(providers=[adapter, MyProvider, "openai/gpt-5"])
    assert_type(adapter.generate_sync(request), GenerateResponse)
    assert_type(adapter.doctor_sync(), DoctorResult)
    assert_type(adapter.supports_sync("streaming"), bool)
    with adapter.stream_sync(request) as chunks:
        for chunk in chunks:
            assert_type(chunk, GenerateChunk)
    assert_type(get_provider("openrouter"), ProviderAdapter)


def configured() -> Council:
    config = CouncilConfig(providers=("openrouter",), temperature=0.2, budget=Budget(usd=0.50))
    return Council(config=config)


def stored(council: Council) -> None:
    assert_type(council.replay("0f3a"), CouncilResult)
    assert_type(council.resume("0f3a", store="runs.db"), CouncilResult)
    assert_type(council.replay_sync("0f3a"), CouncilResult)
    assert_type(Store("runs.db").runs_sync(limit=3), tuple[RunInfo, ...])
    assert_type(Store("runs.db").show_sync("0f3a").info, RunInfo)
    council.run("task", store=False)


async def stored_in_a_loop(council: Council) -> None:
    assert_type(await council.replay("0f3a"), CouncilResult)
    assert_type(await council.aresume("0f3a"), CouncilResult)
    assert_type(await Store("runs.db").purge("0f3a"), tuple[str, ...])


def refused(council: Council, result: CouncilResult, request: Any) -> None:
    _ = council.run()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    _ = council.run("task", subagnet="reviewer")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Budget(60)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Budget(deadline="60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    result.text = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    ProviderAdapter()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    MyProvider().generate_sync()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
