"""Trace runs with OpenTelemetry: a span for the run, one for each phase, one for each call."""

from __future__ import annotations

import threading
from typing import Any

import attrs

from llm_council.events import (
    AttemptFailed,
    Event,
    Listener,
    PhaseFinished,
    PhaseStarted,
    RunFinished,
    RunStarted,
    SeatFinished,
    SeatReset,
    SeatStarted,
)
from llm_council.middleware import _otel
from llm_council.models import GenerateRequest, Phase, Plan, Status

__all__ = ["trace_runs"]


def trace_runs(*, content: bool = False, tracer_provider: Any = None, meter_provider: Any = None) -> Listener:
    """Return a listener that traces runs by OpenTelemetry's conventions for generative AI; needs the extra ``otel``.

    A run is a span ``invoke_agent SUBAGENT``, a child of the caller's current span. Its children are one span for each
    phase, and theirs one span ``chat MODEL`` for each call of a seat, with its tokens, its failed attempts and the type
    of its error. The metrics are ``gen_ai.client.operation.duration`` and ``gen_ai.client.token.usage``. Spans that a
    provider opens, such as those of ``Traced``, are children of the call's span.

    Args:
        content: add the task and the answers to the spans.
        tracer_provider: an OpenTelemetry ``TracerProvider``; None is the global one.
        meter_provider: an OpenTelemetry ``MeterProvider``; None is the global one.

    Raises:
        MissingDependency: OpenTelemetry is not installed.
    """
    return _Tracer(content=content, tracer_provider=tracer_provider, meter_provider=meter_provider).listen


@attrs.define(eq=False)
class _OpenSpan:
    """A span that has not ended.

    Attributes:
        span: the span.
        token: detaches the span from the context; None if it is not attached.
        attributes: the attributes of the request, for the metrics.
    """

    span: Any
    token: Any = None
    attributes: dict[str, Any] = attrs.field(factory=dict)


@attrs.define(eq=False)
class _OpenRun:
    """The open spans of a run."""

    plan: Plan
    run: _OpenSpan
    phases: dict[Phase, _OpenSpan] = attrs.field(factory=dict)
    calls: dict[tuple[Phase, str], _OpenSpan] = attrs.field(factory=dict)


class _Tracer:
    def __init__(self, *, content: bool, tracer_provider: Any, meter_provider: Any) -> None:
        self._trace, self._context = _otel.otel_module("trace"), _otel.otel_module("context")
        self._tracer = self._trace.get_tracer("llm_council", tracer_provider=tracer_provider)
        self._metrics = _otel.Metrics(meter_provider)
        self._content = content
        self._runs: dict[str, _OpenRun] = {}
        # Concurrent runs may report from different threads, each with an event loop of its own.
        self._lock = threading.Lock()

    def listen(self, event: Event) -> None:
        """Start or end the span of an event; events of a run whose start was missed are ignored."""
        if isinstance(event, RunStarted):
            with self._lock:
                self._runs[event.run_id] = self._run_started(event)
            return
        run = self._runs.get(event.run_id)
        if run is None:
            return
        match event:
            case PhaseStarted():
                span = self._span(str(event.phase), run.run, {"llm_council.phase": str(event.phase)})
                run.phases[event.phase] = _OpenSpan(span)
            case PhaseFinished() if event.phase in run.phases:
                run.phases.pop(event.phase).span.end()
            case SeatStarted():
                self._seat_started(run, event)
            case AttemptFailed() if (event.phase, event.seat) in run.calls:
                attributes = {**_otel.error_attributes(event.error), "llm_council.retry_in": event.retry_in or 0.0}
                run.calls[event.phase, event.seat].span.add_event("attempt failed", attributes)
            case SeatReset() if (event.phase, event.seat) in run.calls:
                run.calls[event.phase, event.seat].span.add_event("stream began again")
            case SeatFinished():
                self._seat_finished(run, event)
            case RunFinished():
                self._run_finished(run, event)

    def _run_started(self, event: RunStarted) -> _OpenRun:
        plan = event.plan
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": plan.subagent,
            "llm_council.run.id": plan.run_id,
            "llm_council.strategy": plan.strategy,
            "llm_council.seats": [seat.name for seat in plan.seats],
        }
        if self._content:
            attributes |= _otel.content_attributes(GenerateRequest(prompt=plan.task or " ").turns())
        opened = _OpenSpan(self._tracer.start_span(f"invoke_agent {plan.subagent}", attributes=attributes))
        opened.token = self._attach(opened.span)
        return _OpenRun(plan, opened)

    def _seat_started(self, run: _OpenRun, event: SeatStarted) -> None:
        plan, seat = run.plan, run.plan.seat(event.seat)
        # The event does not have the request; the plan has its parameters. A request needs some prompt.
        parameters = GenerateRequest(
            prompt=" ",
            model=seat.model,
            temperature=plan.temperature,
            max_tokens=plan.max_tokens,
            metadata={"phase": str(event.phase)},
        )
        attributes = _otel.request_attributes(seat.provider, parameters)
        above = run.phases.get(event.phase, run.run)
        own = {**attributes, "llm_council.seat": seat.name, "llm_council.run.id": plan.run_id}
        opened = _OpenSpan(
            self._span(_otel.span_name(seat.model), above, own, self._trace.SpanKind.CLIENT), attributes=attributes
        )
        # ``Traced`` sees this mark, and leaves the metrics of the call to this listener.
        opened.token = self._attach(opened.span, observed=True)
        run.calls[event.phase, event.seat] = opened

    def _seat_finished(self, run: _OpenRun, event: SeatFinished) -> None:
        opened = run.calls.pop((event.phase, event.seat), None)
        if opened is None:  # the budget refused the call, so no span was started
            return
        # OpenTelemetry logs an error, and raises none, if the span was attached in another context.
        self._context.detach(opened.token)
        span, response, error = opened.span, event.response, event.error
        if response is not None:
            span.set_attributes(_otel.response_attributes(response))
            if self._content:
                span.set_attributes(_otel.content_attributes(response=response))
        if error is not None:
            span.set_attributes(_otel.error_attributes(error))
            self._fail(span, type(error).__name__)
        span.end()
        self._metrics.record(opened.attributes, event.elapsed, response=response, error=error)

    def _run_finished(self, run: _OpenRun, event: RunFinished) -> None:
        with self._lock:
            del self._runs[event.run_id]
        for opened in (*run.calls.values(), *run.phases.values()):  # left open by a cancelled run
            opened.span.end()
        run.run.span.set_attribute("llm_council.status", str(event.status))
        if event.status is Status.FAILED:
            self._fail(run.run.span, "failed")
        run.run.span.end()
        self._context.detach(run.run.token)

    def _span(self, name: str, above: _OpenSpan, attributes: dict[str, Any], kind: Any = None) -> Any:
        parent = self._trace.set_span_in_context(above.span)
        return self._tracer.start_span(name, parent, kind or self._trace.SpanKind.INTERNAL, attributes)

    def _attach(self, span: Any, *, observed: bool = False) -> Any:
        """Make a span the current one for the tasks that follow, and return the token that detaches it."""
        context = self._trace.set_span_in_context(span)
        return self._context.attach(self._context.set_value(_otel.OBSERVED, observed, context))

    def _fail(self, span: Any, description: str) -> None:
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, description))
