"""The embedded default: a llama.cpp engine in a process of ours, with weights that are fetched once.

The engine speaks the OpenAI chat dialect on a loopback address, so that everything behind the start of its process is
what any gateway gets. What is special here is for small models: a schema is bounded before it is sent, so that an
answer to it always ends, and a model that its profile calls ``prose_first`` answers in prose, which it then shapes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio.to_thread
import attrs

from llm_council import transports
from llm_council.errors import ConfigurationError, ConnectFailed, ConnectionLost, TruncatedReply
from llm_council.models import (
    Adjustment,
    DoctorResult,
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    Message,
    ProviderCapabilities,
    StructuredOutput,
    join,
)
from llm_council.providers._call.profiles import ModelProfile, profile_for
from llm_council.providers._local import engine as engines
from llm_council.providers._local.bounding import bounded, grammar
from llm_council.providers._local.engine import Engine, EngineSpec
from llm_council.providers._local.server import LLGUIDANCE
from llm_council.providers._local.weights import (
    LocalModel,
    Progress,
    list_models,
    model,
    model_path,
    pull,
    sampling,
)
from llm_council.providers.base import ProviderAdapter
from llm_council.providers.compatible import OpenAICompatibleProvider

__all__ = ["LocalModel", "LocalProvider", "Progress", "list_models", "model_path", "pull"]

TEXT_TOKENS = 512
"""Most tokens of a text when the request does not say: a small model may not find an end."""

SHAPED_TOKENS = 1024
"""Most tokens of an answer that a schema bounds. A token is taken to hold one character, so that the answer ends
whatever the model writes; real ones hold three or four."""


class LocalProvider(ProviderAdapter):
    """Models that run on this machine, in an engine of ours: no key, no server, no GPU.

    One engine runs for each program and model. It starts with the first call, is shared by all adapters and event
    loops, and ends with the last ``close`` or ``aclose`` of an adapter that used it, with that adapter itself, or with
    the program; the next call starts it again.

    Args:
        default_model: a name that ``list_models`` knows; None is the first of them.
        slots: requests that are computed at once; further ones queue.
        context: tokens of one request, prompt and answer together.
        threads: threads that generate; None leaves one core free.
        progress: told how much of the weights has arrived, should they have to be fetched; None logs a line.
        name: the provider's name.

    Raises:
        InvalidOption: there is no such model, or ``LLM_COUNCIL_LOCAL_MODEL`` names no file.
    """

    name = "local"
    capabilities = ProviderCapabilities(streaming=True, structured_output=True)

    def __init__(
        self,
        *,
        default_model: str | None = None,
        slots: int = 4,
        context: int = 4096,
        threads: int | None = None,
        progress: Progress | None = None,
        name: str | None = None,
    ) -> None:
        if name is not None:
            self.name = name  # type: ignore[misc]  # a class attribute for authors, an instance's own here
        if default_model is not None:
            model(default_model)
        self._default = default_model
        self._progress = progress
        self._shape: dict[str, Any] = {"slots": slots, "context": context}
        if threads is not None:
            self._shape |= {"threads": threads, "batch_threads": threads}

    def check(self) -> None:
        """Refuse to start what cannot work.

        Raises:
            MissingDependency: the engine is not installed.
            InvalidOption: ``LLM_COUNCIL_LOCAL_MODEL`` names no file.
        """
        engines.installed()
        model(self._default)

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Answer a request; with a schema, ``structured`` holds the value and ``text`` what the model said.

        Raises:
            MissingDependency: the engine is not installed, or there is nothing to fetch weights with.
            CommandFailed: the weights could not be fetched, the engine did not start, or it died.
            ProviderError: as with any gateway.
        """
        engine = await self._engine(request.model)
        asked, told = self._asked(request, engine)
        async with _watched(engine):
            response = await _speaker(engine).generate(asked)
        return await self._finished(request, engine, response, told)

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the answer as it arrives; with a schema, the last piece holds the shaped value.

        Raises:
            ProviderError: as ``generate`` does.
        """
        engine = await self._engine(request.model)
        asked, told = self._asked(request, engine)
        pieces: list[GenerateChunk] = []
        async with _watched(engine):
            async for piece in _speaker(engine).stream(asked):
                pieces.append(piece)
                yield piece
        if request.structured_output is not None:
            said = join(pieces)
            response = await self._finished(request, engine, said, told)
            new = response.adjustments[len(said.adjustments) :]
            yield GenerateChunk(structured=response.structured, usage=response.usage, adjustments=new)

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Look whether engine and weights are there; ``deep`` fetches what is missing and makes a call."""
        try:
            self.check()
        except ConfigurationError as error:
            return DoctorResult(ok=False, message=error.message)
        if deep:
            return await super().doctor(deep=True)
        known = model(self._default)
        running = engines.state(self._spec(known)) if known.path else "not started; the first call starts it"
        where = (
            known.path or f"not fetched ({known.size_bytes >> 20} MiB); the first call or `council models pull` does it"
        )
        details = {"model": known.name, "weights": known.path, "engine": running, "source": known.source}
        return DoctorResult(ok=True, message=f"{known.name}: weights {where}; engine {running}", details=details)

    def cache_identity(self) -> str:
        """Return the provider's name and what tells the default model's file from another."""
        known = model(self._default)
        return f"local:{known.name}:{known.sha256[:12] or known.size_bytes}"

    async def aclose(self) -> None:
        """Give up the engine; it ends unless another adapter uses it. The next call starts it again."""
        stopped = engines.release(self)
        for engine in stopped:
            if engine.speaker is not None:
                await engine.speaker.aclose()
        for engine in stopped:
            if not await engine.wait(engine.ended, 5):
                engine.join(0.1)
        await super().aclose()

    def _profile_of(self, model_name: str | None) -> ModelProfile:
        return profile_for("local", model(model_name or self._default).name)

    def _spec(self, known: LocalModel) -> EngineSpec:
        return EngineSpec(model=str(known.path), alias=known.name, **self._shape)

    async def _engine(self, name: str | None) -> Engine:
        known = model(name or self._default)
        engines.installed()  # before 90 MiB are fetched for nothing
        if known.path is None:
            fetch = partial(pull, known.name, progress=self._progress)
            known = await anyio.to_thread.run_sync(fetch, abandon_on_cancel=True)
        return await engines.running(self._spec(known), self)

    def _asked(self, request: GenerateRequest, engine: Engine) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        """Return what the engine is asked first, and what of the request's schema it is not told."""
        wanted = request.structured_output
        usual = dict(sampling(engine.spec.alias))
        if request.temperature is not None:
            usual.pop("temperature", None)
        request = attrs.evolve(request, extra={**usual, **request.extra})
        if wanted is None or self._profile_of(request.model).prose_first:
            most = request.max_tokens or TEXT_TOKENS
            return attrs.evolve(request, structured_output=None, max_tokens=most), ()
        return _held(request, wanted, engine, request.max_tokens or SHAPED_TOKENS)

    async def _finished(
        self, request: GenerateRequest, engine: Engine, response: GenerateResponse, told: tuple[Adjustment, ...]
    ) -> GenerateResponse:
        """Add the shaped value to an answer, asking for it where the answer is prose."""
        wanted = request.structured_output
        if wanted is None:
            return response
        shaped = response
        usage = response.usage
        if self._profile_of(request.model).prose_first and response.text:
            turns = (*request.turns(), Message("assistant", response.text), Message("user", _shape_it(wanted)))
            # Shaping repeats what was said: without chance, and without a penalty on repeating.
            calm = {} if request.temperature is not None else {"temperature": 0.0}
            extra = {**request.extra, **calm, "repeat_penalty": 1.0}
            again = attrs.evolve(request, prompt=None, messages=turns, stop=(), stream=False, extra=extra)
            asked, told = _held(again, wanted, engine, max(request.max_tokens or 0, SHAPED_TOKENS))
            async with _watched(engine):
                shaped = await _speaker(engine).generate(asked)
            usage = usage + shaped.usage if usage and shaped.usage else usage
        return attrs.evolve(
            response,
            structured=_value(shaped),
            usage=usage,
            adjustments=(*response.adjustments, *told),
        )


def _held(
    request: GenerateRequest, wanted: StructuredOutput, engine: Engine, tokens: int
) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Return a request that holds the engine to a schema, and what of the schema it is not told."""
    sent = bounded(wanted.json_schema, tokens)
    extra = dict(request.extra)
    if sent.schema is None:
        held = None
    elif engine.grammar == LLGUIDANCE:
        held = None
        extra.setdefault("grammar", grammar(sent.schema))
    else:
        held = attrs.evolve(wanted, json_schema=sent.schema)
    asked = attrs.evolve(request, structured_output=held, max_tokens=tokens, extra=extra)
    reasons = list(sent.unsaid)
    if not sent.fits:
        reasons.append(f"its shortest answer may be cut: it can be longer than {tokens} tokens")
    if not reasons:
        return asked, ()
    action = "dropped" if sent.schema is None else "projected"
    reason = f"left to the check of the answer: {'; '.join(reasons)}"
    return asked, (Adjustment(field="structured_output", action=action, asked=wanted.name, reason=reason),)


def _shape_it(wanted: StructuredOutput) -> str:
    properties = wanted.json_schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        return "Write that answer as JSON."
    return f"Write that answer as JSON with these keys: {', '.join(properties)}."


def _value(response: GenerateResponse) -> Any:
    """Return the JSON value that an answer is; None for one that was cut, or is something else."""
    if response.finish_reason == FinishReason.LENGTH:
        return None
    try:
        return json.loads(response.text or "")
    except ValueError:
        return None


class _Speaker(OpenAICompatibleProvider):
    """What talks to one engine; its connections are kept per event loop."""

    name = "local"
    capabilities = LocalProvider.capabilities

    def __init__(self, engine: Engine) -> None:
        self._own = transports.HttpxTransport(trust_env=False)  # no proxy stands between us and ourselves
        super().__init__(
            base_url=f"{engine.address}/v1", api_key=engine.key, default_model=engine.spec.alias, transport=self._own
        )

    async def aclose(self) -> None:
        await self._own.aclose()
        await super().aclose()


def _speaker(engine: Engine) -> _Speaker:
    if engine.speaker is None:
        engine.speaker = _Speaker(engine)
    speaker: _Speaker = engine.speaker
    return speaker


@asynccontextmanager
async def _watched(engine: Engine) -> AsyncIterator[None]:
    """Say how the engine ended where a call failed for that reason."""
    try:
        yield
    except (ConnectFailed, ConnectionLost, TruncatedReply) as error:
        if await engine.wait(engine.ended, 0.5):  # the connection ends a moment before the process is reaped
            raise engine.failure() from error.with_traceback(None)
        raise
