"""Traced: a span for each call, by OpenTelemetry's semantic conventions for generative AI."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any

from llm_council._runtime import call_context
from llm_council.errors import CouncilError
from llm_council.middleware import _otel
from llm_council.middleware.wrapper import Wrapper
from llm_council.models.reply import GenerateChunk, GenerateResponse, join
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["Traced"]


class Traced(Wrapper):
    """Record each call as a span ``chat MODEL``, and its duration and tokens as metrics; needs the extra ``otel``.

    The span is a child of the current one. With ``llm_council.observers.trace_runs`` that is the span of the seat's
    call, and ``trace_runs`` records the metrics. The span has the request's parameters, the answer's model, tokens and
    finish reason, and the type of an error. It has content only if ``content`` is True.

    Args:
        inner: the provider.
        content: add prompts and answers to the span.
        tracer_provider: an OpenTelemetry ``TracerProvider``; None is the global one.
        meter_provider: an OpenTelemetry ``MeterProvider``; None is the global one.
        clock: returns monotonic seconds.

    Raises:
        MissingDependency: OpenTelemetry is not installed.
    """

    _is_own_middleware = True
    _keeps_time_limits = True

    def __init__(
        self,
        inner: ProviderAdapter,
        *,
        content: bool = False,
        tracer_provider: Any = None,
        meter_provider: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        self._trace, self._context = _otel.otel_module("trace"), _otel.otel_module("context")
        self._tracer = self._trace.get_tracer("llm_council", tracer_provider=tracer_provider)
        self._metrics = _otel.Metrics(meter_provider)
        self._content = content
        self._clock = clock

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Call the wrapped provider in a span."""
        span = _CallSpan(self, request)
        try:
            with span.current():
                response = await call(self.inner, request)
        except BaseException as error:
            span.failed(error)
            raise
        span.answered(response)
        return response

    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the wrapped provider's answer as it arrives; the span ends with it."""
        span = _CallSpan(self, request)
        chunks: list[GenerateChunk] = []
        arriving = stream(self.inner, request)
        try:
            try:
                while True:
                    # Current only while the wrapped provider works: spans of the consumer are not its children.
                    with span.current():
                        chunk = await anext(arriving, None)
                    if chunk is None:
                        break
                    if not chunks:
                        span.begun()
                    chunks.append(chunk)
                    yield chunk
            finally:
                with span.current():
                    await arriving.aclose()
        except BaseException as error:
            span.failed(error)
            raise
        span.answered(join(chunks))


class _CallSpan:
    """The span of one call."""

    def __init__(self, traced: Traced, request: GenerateRequest) -> None:
        self._traced = traced
        self._began = traced._clock()
        self._first: float | None = None
        self._attributes = _otel.request_attributes(traced.inner.name, request)
        run_id = call_context.current().run_id
        if run_id is not None:
            self._attributes["llm_council.run.id"] = run_id
        content = _otel.content_attributes(request.turns()) if traced._content else {}
        self._span = traced._tracer.start_span(
            _otel.span_name(request.model),
            kind=traced._trace.SpanKind.CLIENT,
            attributes=self._attributes | content,
        )

    def current(self) -> AbstractContextManager[object]:
        """Return a context in which this is the current span."""
        # ``failed`` and ``answered`` end the span: OpenTelemetry itself would record the message of an error.
        use_span: Callable[..., AbstractContextManager[object]] = self._traced._trace.use_span
        return use_span(self._span, end_on_exit=False, record_exception=False, set_status_on_exception=False)

    def begun(self) -> None:
        """Record the time of the first chunk."""
        self._first = self._traced._clock() - self._began

    def answered(self, response: GenerateResponse) -> None:
        """End the span with an answer."""
        if self._span.is_recording():
            self._span.set_attributes(_otel.response_attributes(response))
            if self._traced._content:
                self._span.set_attributes(_otel.content_attributes(response=response))
        self._end(response=response)

    def failed(self, error: BaseException) -> None:
        """End the span with an error. A cancellation or a closed stream does not set the error status."""
        self._span.set_attributes(_otel.error_attributes(error))
        if isinstance(error, CouncilError):
            trace = self._traced._trace
            description = f"{type(error).__name__}: {error.message}" if self._traced._content else type(error).__name__
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, description))
        self._end(error=error)

    def _end(self, **how: Any) -> None:
        self._span.end()
        # ``trace_runs`` records the calls of a council: to record them here too would count them twice.
        if not self._traced._context.get_value(_otel.OBSERVED):
            elapsed = self._traced._clock() - self._began
            self._traced._metrics.record(self._attributes, elapsed, first=self._first, **how)
