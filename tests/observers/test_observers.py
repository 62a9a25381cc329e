"""The listeners for logs and OpenTelemetry: the records and the trace of a run."""

from __future__ import annotations

import logging
import sys
from typing import Any

import anyio
import pytest

from llm_council import Council, CouncilConfig
from llm_council.errors import MissingDependency, ServerFailed
from llm_council.middleware import Traced
from llm_council.models import Budget, RetryPolicy, Status
from llm_council.observers import log_runs, trace_runs
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
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
SCRIPT = {"draft": f"{CANARY} draft", "critique": "Ranking: A > B", "*": '{"answer": "yes"}'}


class Telemetry:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.options = {"tracer_provider": self.tracers, "meter_provider": self.meters}

    def tree(self) -> dict[tuple[str, ...], list[Any]]:
        """Return the finished spans by their path of names from the root."""
        spans = {span.context.span_id: span for span in self.exporter.get_finished_spans()}

        def path(span: Any) -> tuple[str, ...]:
            above = spans.get(span.parent.span_id) if span.parent is not None else None
            return (*(path(above) if above is not None else ()), span.name)

        found: dict[tuple[str, ...], list[Any]] = {}
        for span in spans.values():
            found.setdefault(path(span), []).append(span)
        return found


@pytest.fixture
def telemetry() -> Any:
    found = Telemetry()
    yield found
    found.tracers.shutdown()
    found.meters.shutdown()


def council(*seats: Any, listeners: Any, **options: Any) -> Council:
    config = CouncilConfig(retry=RetryPolicy(max_retries=1, base=0.0), seed="s", **options)
    return Council(list(seats), config=config, listeners=listeners)


async def test_a_run_is_one_trace_of_phases_and_calls(telemetry: Telemetry) -> None:
    seats = [ScriptedProvider(SCRIPT, name=name) for name in ("ann", "ben")]
    listener = trace_runs(**telemetry.options)
    with telemetry.tracers.get_tracer("caller").start_as_current_span("request"):
        result = await council(*seats, listeners=[listener]).arun(CANARY, schema=SCHEMA)
        assert trace.get_current_span().name == "request", "the caller's own span is the current one again"  # type: ignore[attr-defined]
    assert result.status is Status.COMPLETED
    tree = telemetry.tree()
    assert {path: len(spans) for path, spans in tree.items()} == {
        ("request",): 1,
        ("request", "invoke_agent advisor"): 1,
        ("request", "invoke_agent advisor", "draft"): 1,
        ("request", "invoke_agent advisor", "draft", "chat"): 2,
        ("request", "invoke_agent advisor", "critique"): 1,
        ("request", "invoke_agent advisor", "critique", "chat"): 2,
        ("request", "invoke_agent advisor", "synthesise"): 1,
        ("request", "invoke_agent advisor", "synthesise", "chat"): 1,
    }
    spans = telemetry.exporter.get_finished_spans()
    assert len({span.context.trace_id for span in spans}) == 1
    (run,) = tree["request", "invoke_agent advisor"]
    assert run.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert run.attributes["llm_council.run.id"] == result.run_id
    assert run.attributes["llm_council.status"] == "completed"
    (call,) = tree["request", "invoke_agent advisor", "synthesise", "chat"]
    assert call.kind is trace.SpanKind.CLIENT
    assert call.attributes["llm_council.seat"] == result.chair
    assert call.attributes["gen_ai.response.model"] == "scripted-1"
    assert call.attributes["gen_ai.usage.output_tokens"] == 2
    assert not any(CANARY in span.to_json() for span in spans)


async def test_failures_are_recorded_in_their_spans(telemetry: Telemetry) -> None:
    seats = [
        ScriptedProvider({**SCRIPT, "draft": [ServerFailed(CANARY, status=503), "fine"]}, name="ann"),
        ScriptedProvider({**SCRIPT, "draft": lambda request: ServerFailed(CANARY, status=500)}, name="ben"),
    ]
    result = await council(*seats, listeners=[trace_runs(**telemetry.options)]).arun("?", schema=SCHEMA)
    assert result.status is Status.DEGRADED
    drafts = telemetry.tree()["invoke_agent advisor", "draft", "chat"]
    by_seat = {span.attributes["llm_council.seat"]: span for span in drafts}
    assert [event.name for event in by_seat["ann"].events] == ["attempt failed"]
    assert by_seat["ann"].events[0].attributes["http.response.status_code"] == 503
    assert by_seat["ann"].status.status_code is trace.StatusCode.UNSET
    assert by_seat["ben"].status.status_code is trace.StatusCode.ERROR
    assert by_seat["ben"].attributes["error.type"] == "ServerFailed"
    assert not any(CANARY in span.to_json() for span in telemetry.exporter.get_finished_spans())


async def test_spans_of_traced_providers_are_children_of_the_call_and_metrics_count_once(telemetry: Telemetry) -> None:
    seat = Traced(ScriptedProvider(SCRIPT, name="ann"), **telemetry.options)
    await council(seat, listeners=[trace_runs(**telemetry.options)]).arun("?", schema=SCHEMA)
    tree = telemetry.tree()
    assert len(tree["invoke_agent advisor", "draft", "chat", "chat"]) == 1
    data = telemetry.reader.get_metrics_data()
    assert data is not None
    metrics = {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    counted = sum(point.count for point in metrics["gen_ai.client.operation.duration"].data.data_points)
    calls = [path for path, spans in tree.items() for _ in spans if path[-1] == "chat" and path[-2] != "chat"]
    assert counted == len(calls) == 2


async def test_a_run_that_is_cancelled_leaves_no_span_open(telemetry: Telemetry, caplog: Any) -> None:
    seat = ScriptedProvider("x", name="ann", delay=float("inf"))
    sitting = council(seat, listeners=[trace_runs(**telemetry.options)])
    async with anyio.create_task_group() as group:
        group.start_soon(sitting.arun, "?")
        while not seat.requests:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert trace.get_current_span() is trace.INVALID_SPAN
    (run,) = telemetry.tree()[("invoke_agent advisor",)]
    assert run.attributes["llm_council.status"] == "cancelled"
    assert ("invoke_agent advisor", "draft", "chat") in telemetry.tree()
    assert caplog.text == ""


async def test_concurrent_runs_have_separate_traces(telemetry: Telemetry) -> None:
    shared = council(ScriptedProvider(SCRIPT, name="ann"), listeners=[trace_runs(**telemetry.options)])
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(shared.arun, "?")
    spans = telemetry.exporter.get_finished_spans()
    runs = {span.context.trace_id for span in spans}
    assert len(runs) == 5
    assert all(sum(span.context.trace_id == one for span in spans) == len(spans) / 5 for one in runs)


def test_streams_and_blocking_runs_are_traced_too(telemetry: Telemetry) -> None:
    watched = council(ScriptedProvider(SCRIPT, name="ann"), listeners=[trace_runs(content=True, **telemetry.options)])
    with watched.stream(CANARY) as events:
        list(events)
    watched.run(CANARY)
    watched.close()
    runs = telemetry.tree()[("invoke_agent advisor",)]
    assert [CANARY in span.attributes["gen_ai.input.messages"] for span in runs] == [True, True]
    assert len(telemetry.tree()["invoke_agent advisor", "draft", "chat"]) == 2


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(MissingDependency, match=r"llm-council-sdk\[otel\]"):
        trace_runs()


async def test_a_run_is_logged_without_tasks_and_answers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llm_council.runs")
    seats = [
        ScriptedProvider({**SCRIPT, "draft": [ServerFailed(CANARY), "fine"]}, name="ann"),
        ScriptedProvider({**SCRIPT, "draft": lambda request: ServerFailed(CANARY)}, name="ben"),
    ]
    result = await council(*seats, listeners=[log_runs()]).arun(CANARY, schema=SCHEMA)
    records = [record for record in caplog.records if record.name == "llm_council.runs"]
    assert {record.run_id for record in records} == {result.run_id}  # type: ignore[attr-defined]
    assert CANARY not in "".join(record.getMessage() + repr(vars(record)) for record in records)
    logged = [(record.levelname, record.event) for record in records]  # type: ignore[attr-defined]
    assert logged[0] == ("INFO", "RunStarted")
    assert logged[-1] == ("WARNING", "RunFinished")
    assert ("WARNING", "AttemptFailed") in logged
    assert ("WARNING", "SeatFinished") in logged
    assert ("WARNING", "Degraded") in logged
    assert ("DEBUG", "PhaseFinished") in logged
    caplog.clear()
    good = ScriptedProvider(SCRIPT, name="ann")
    await council(good, listeners=[log_runs("mine")], budget=Budget(deadline=30)).arun("?", schema=SCHEMA)
    assert not [record for record in caplog.records if record.name == "llm_council.runs"]
