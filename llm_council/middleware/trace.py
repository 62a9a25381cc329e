"""A span for each call, by OpenTelemetry's conventions for generative AI."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from llm_council._runtime import call_context
from llm_council.errors import CouncilError
from llm_council.middleware import _genai
from llm_council.middleware._wrapper import Wrapper
from llm_council.models.reply import GenerateChunk, GenerateResponse, join
from llm_council.models.request import GenerateRequest
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["Traced"]


class Traced(Wrapper):
    """Put each call into a span ``chat MODEL``, and count its seconds and tokens; needs the extra ``otel``.

    The span is a child of the current one: of the seat's call where ``llm_council.observers.trace_runs`` listens, which
    counts seconds and tokens itself. It has the request's knobs, the answer's model, tokens and finish reason, and the
    type of a failure; no content unless that is asked for.

    Args:
        inner: the provider.
        content: put prompts and answers into the span too.
        tracer_provider: an OpenTelemetry ``TracerProvider``; None is the global one.
        meter_provider: an OpenTelemetry ``MeterProvider``; None is the global one.
        clock: monotonic seconds.

    Raises:
        MissingDependency: OpenTelemetry is not installed.
    """

    _heeds_cancellation = True
    _bounded_within = True

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
        self._trace, self._context = _genai.api("trace"), _genai.api("context")
        self._tracer = self._trace.get_tracer("llm_council", tracer_provider=tracer_provider)
        self._meters = _genai.Meters(meter_provider)
        self._content = content
        self._clock = clock

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Ask the held provider, in a span."""
        spanned = _Spanned(self, request)
        try:
            with spanned:
                response = await call(self.inner, request)
        except BaseException as error:
            spanned.failed(error)
            raise
        spanned.answered(response)
        return response

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the held provider's answer as it arrives; the span lasts to its end."""
        spanned = _Spanned(self, request)
        chunks: list[GenerateChunk] = []
        arriving = stream(self.inner, request)
        try:
            try:
                while True:
                    # Only while the held provider works: the consumer's own spans are no children of this one.
                    with spanned:
                        chunk = await anext(arriving, None)
                    if chunk is None:
                        break
                    if not chunks:
                        spanned.begun()
                    chunks.append(chunk)
                    yield chunk
            finally:
                with spanned:
                    await arriving.aclose()
        except BaseException as error:
            spanned.failed(error)
            raise
        spanned.answered(join(chunks))


class _Spanned:
    """One call and its span, which is the current one in ``with`` blocks."""

    def __init__(self, traced: Traced, request: GenerateRequest) -> None:
        self._traced = traced
        self._began = traced._clock()
        self._first: float | None = None
        self._token: Any = None
        self._facts = facts = _genai.asked(traced.inner.name, request)
        run_id = call_context.current().run_id
        if run_id is not None:
            facts["llm_council.run.id"] = run_id
        if traced._content:
            facts = facts | _genai.said(request.turns())  # the meters have no use for it
        self._span = traced._tracer.start_span(
            _genai.span_name(request.model), kind=traced._trace.SpanKind.CLIENT, attributes=facts
        )
        # One that leads nowhere, since nobody traces, needs not be the current one.
        self._leads = self._span.get_span_context().is_valid

    def __enter__(self) -> None:
        """Make the span the current one, for the block."""
        if not self._leads:
            return
        context = self._traced._context
        self._token = context.attach(self._traced._trace.set_span_in_context(self._span))

    def __exit__(self, *_: object) -> None:
        if self._leads:
            self._traced._context.detach(self._token)

    def begun(self) -> None:
        """Note the first piece."""
        self._first = self._traced._clock() - self._began

    def answered(self, response: GenerateResponse) -> None:
        """End the span with an answer."""
        if self._span.is_recording():
            self._span.set_attributes(_genai.answered(response))
            if self._traced._content:
                self._span.set_attributes(_genai.said(response=response))
        self._end(response=response)

    def failed(self, error: BaseException) -> None:
        """End the span with a failure; a cancellation, or a stream that was left, is none."""
        self._span.set_attributes(_genai.failed(error))
        if isinstance(error, CouncilError):
            trace = self._traced._trace
            words = f"{type(error).__name__}: {error.message}" if self._traced._content else type(error).__name__
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, words))
        self._end(error=error)

    def _end(self, **how: Any) -> None:
        self._span.end()
        if not self._traced._context.get_value(_genai.OBSERVED):
            self._traced._meters.record(self._facts, self._traced._clock() - self._began, first=self._first, **how)
