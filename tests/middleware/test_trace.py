"""Traced: a span and its measurements for each call, by OpenTelemetry's conventions."""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
import pytest

from llm_council.errors import MissingDependency, RateLimited
from llm_council.middleware import Failover, Traced
from llm_council.models import GenerateRequest, GenerateResponse, ImagePart, Message, ToolCall, Usage
from llm_council.providers.base import call, stream
from llm_council.testing.fakes import ScriptedProvider

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

pytestmark = pytest.mark.anyio

CANARY = "canary-of-the-content"
REQUEST = GenerateRequest(
    prompt=CANARY, model="m-1", max_tokens=50, temperature=0.5, top_p=0.9, stop=["END"], metadata={"phase": "draft"}
)


class Telemetry:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.options = {"tracer_provider": self.tracers, "meter_provider": self.meters}

    def spans(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        return {metric.name: list(metric.data.data_points) for metric in metrics}


@pytest.fixture
def telemetry() -> Any:
    found = Telemetry()
    yield found
    found.tracers.shutdown()
    found.meters.shutdown()


async def test_a_call_is_a_span_with_the_conventions_attributes(telemetry: Telemetry, clock: Any, turns: Any) -> None:
    answer = GenerateResponse(
        text=f"{CANARY} back",
        model="m-1-2026",
        finish_reason="stop",
        request_id="r-1",
        usage=Usage(input_tokens=7, output_tokens=3, cached_tokens=2, reasoning_tokens=1),
    )
    await call(Traced(turns("gemini", answer), clock=clock, **telemetry.options), REQUEST)
    (span,) = telemetry.spans()
    assert (span.name, span.kind, span.status.status_code) == (
        "chat m-1",
        trace.SpanKind.CLIENT,
        trace.StatusCode.UNSET,
    )
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "m-1",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.response.model": "m-1-2026",
        "gen_ai.response.id": "r-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 1,
        "llm_council.attempts": 1,
        "llm_council.phase": "draft",
    }
    assert CANARY not in span.to_json()


@pytest.mark.parametrize(("extra", "waited"), [({"pace": {"waited": 1.5}}, 1.5), ({"pace": "fast"}, None), ({}, None)])
async def test_the_span_of_a_call_that_waited_for_its_turn_says_how_long(
    telemetry: Telemetry, turns: Any, extra: dict[str, Any], waited: float | None
) -> None:
    await call(Traced(turns("a", GenerateResponse(text="x", extra=extra)), **telemetry.options), REQUEST)
    (span,) = telemetry.spans()
    assert dict(span.attributes).get("llm_council.waited") == waited


async def test_duration_and_tokens_of_calls_are_recorded_as_metrics(
    telemetry: Telemetry, clock: Any, turns: Any
) -> None:
    answer = GenerateResponse(text="x", usage=Usage(input_tokens=7, output_tokens=3))
    traced = Traced(turns("a", answer, RateLimited("no")), clock=clock, **telemetry.options)
    await call(traced, REQUEST)
    with pytest.raises(RateLimited):
        await call(traced, REQUEST)
    points = telemetry.points()
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in points["gen_ai.client.token.usage"]}
    assert tokens == {"input": 7, "output": 3}
    ended = [point.attributes.get("error.type") for point in points["gen_ai.client.operation.duration"]]
    assert sorted(ended, key=str) == [None, "RateLimited"]
    labels = dict(points["gen_ai.client.operation.duration"][0].attributes)
    assert {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "a"}.items() <= labels.items()


async def test_a_failure_has_its_type_and_not_its_message(telemetry: Telemetry, turns: Any) -> None:
    with pytest.raises(RateLimited):
        await call(Traced(turns("a", RateLimited(f"you said {CANARY}", status=429)), **telemetry.options), REQUEST)
    (span,) = telemetry.spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.attributes["error.type"] == "RateLimited"
    assert span.attributes["http.response.status_code"] == 429
    assert CANARY not in span.to_json()


async def test_a_cancellation_ends_the_span(telemetry: Telemetry) -> None:
    with anyio.move_on_after(0.02):
        await call(Traced(ScriptedProvider("x", delay=float("inf")), **telemetry.options), REQUEST)
    (span,) = telemetry.spans()
    assert (span.attributes["error.type"], span.status.status_code) == ("cancelled", trace.StatusCode.UNSET)


async def test_content_is_traced_only_when_asked_for(telemetry: Telemetry, turns: Any) -> None:
    request = GenerateRequest(
        messages=[
            Message("system", "Be brief."),
            Message("user", [ImagePart(url="https://a.example/b.png")]),
            Message("assistant", "", tool_calls=(ToolCall(id="c", name="look", arguments="{}"),)),
        ]
    )
    await call(Traced(turns("a", "yes", multimodal=True), content=True, **telemetry.options), request)
    (span,) = telemetry.spans()
    turns_in = json.loads(span.attributes["gen_ai.input.messages"])
    assert [turn["role"] for turn in turns_in] == ["system", "user", "assistant"]
    assert turns_in[0]["parts"] == [{"type": "text", "content": "Be brief."}]
    assert turns_in[1]["parts"][0]["uri"] == "https://a.example/b.png"
    assert turns_in[2]["parts"][-1]["name"] == "look"
    assert json.loads(span.attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "yes"}], "finish_reason": "stop"}
    ]


async def test_the_span_of_a_stream_ends_with_the_stream(telemetry: Telemetry) -> None:
    tracer = telemetry.tracers.get_tracer("consumer")
    traced = Traced(ScriptedProvider("one two three"), **telemetry.options)
    async for _ in stream(traced, REQUEST):
        assert [span.name for span in telemetry.spans() if span.name.startswith("chat")] == []
        with tracer.start_as_current_span("consumer's"):
            pass
    *others, span = telemetry.spans()
    assert span.name == "chat m-1"
    assert span.attributes["gen_ai.usage.output_tokens"] == 3
    assert {other.parent for other in others} == {None}, "what the consumer does is not the call's"
    assert "gen_ai.client.operation.time_to_first_chunk" in telemetry.points()


async def test_closing_a_stream_early_ends_its_span(telemetry: Telemetry) -> None:
    chunks = stream(Traced(ScriptedProvider("one two three"), **telemetry.options), REQUEST)
    await anext(chunks)
    await chunks.aclose()
    (span,) = telemetry.spans()
    assert span.attributes["error.type"] == "cancelled"


async def test_spans_are_nested_like_the_providers(telemetry: Telemetry, turns: Any) -> None:
    a = Traced(turns("a", RateLimited("no")), **telemetry.options)
    b = Traced(turns("b"), **telemetry.options)
    outer = Traced(Failover([a, b], name="fast"), **telemetry.options)
    await call(outer, REQUEST)
    assert "".join([chunk.text async for chunk in stream(outer, REQUEST)]) == "b answers"
    spans = telemetry.spans()
    assert [span.attributes["gen_ai.provider.name"] for span in spans] == ["a", "b", "fast"] * 2
    for first, second, whole in (spans[:3], spans[3:]):
        assert first.parent.span_id == second.parent.span_id == whole.context.span_id
        assert whole.parent is None


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(MissingDependency, match=r"llm-council-sdk\[otel\]"):
        Traced(ScriptedProvider("x"))


def test_nothing_is_imported_before_it_is_used(python: Any) -> None:
    done = python(
        """
        import sys
        from llm_council import Council
        from llm_council.middleware import Logged, Traced
        from llm_council.testing.fakes import ScriptedProvider
        Council([Logged(ScriptedProvider("x"))])
        print([name for name in sys.modules if name.split(".")[0] in ("opentelemetry", "limits", "redis", "sqlite3")])
        """
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
