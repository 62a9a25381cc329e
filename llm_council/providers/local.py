"""The embedded engine: llama.cpp in a child process, with weights that are fetched once.

The engine serves the OpenAI chat dialect on a loopback address and is called like any gateway. Three things are
special, because the models are small. A schema is bounded before it is sent, so that every answer ends within its
tokens. A model with ``prose_first`` in its profile answers in prose first; a second call turns its answer into JSON, or
asks for the reasons, if an answer and its reasons are all that the schema wants. And what an answer repeats of its
prompt is removed; if nothing is left, the model is asked once more.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
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
    Usage,
    join,
)
from llm_council.models._attrs import provider_name
from llm_council.providers._call.profiles import ModelProfile, profile_for
from llm_council.providers._local import engine as engines
from llm_council.providers._local.bounding import bound, write_grammar
from llm_council.providers._local.cleaning import AnswerCleaner, clean, clean_value, fence_codes
from llm_council.providers._local.engine import Engine, EngineSpec
from llm_council.providers._local.server import LLGUIDANCE
from llm_council.providers._local.weights import (
    LocalModel,
    Progress,
    fetched,
    list_models,
    model,
    model_path,
    pull,
    request_defaults,
    verify,
)
from llm_council.providers.base import ProviderAdapter
from llm_council.providers.compatible import OpenAICompatibleProvider

__all__ = ["LocalModel", "LocalProvider", "Progress", "announce", "list_models", "model_path", "pull"]

_log = logging.getLogger("llm_council.providers.local")

_announced: set[str] = set()  # models whose warning this program has shown

TEXT_TOKENS = 512
"""The maximum tokens of a text without ``max_tokens``: a small model may never end."""

SHAPED_TOKENS = 1024
"""The maximum tokens of an answer with a schema and without ``max_tokens``. A token is assumed to hold one character,
so that every answer ends; a real one holds three or four."""


REASON_TOKENS = 80
"""The maximum tokens of a small model's reasons for an answer."""


class LocalProvider(ProviderAdapter):
    """Runs models on this machine in an embedded engine: no key, no server, no GPU.

    One engine runs for each program and model; all adapters and event loops share it. It starts with the first call.
    It ends when the last adapter that used it is closed or no longer exists, or when the program ends. The next call
    starts it again.

    Args:
        default_model: a name from ``list_models``; None for the first. Models other than the first are fetched by
            ``pull`` or ``council models pull``, never by a call.
        slots: the number of requests computed at once; further ones wait.
        context: the maximum tokens of one request, prompt and answer together.
        threads: threads that generate; None leaves one core free.
        progress: called while weights are fetched; None logs a line.
        name: the provider's name.

    Raises:
        InvalidOption: no model has this name, or ``LLM_COUNCIL_LOCAL_MODEL`` names no file.
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
            self.name = provider_name(name)  # type: ignore[misc]  # a class attribute for authors, an instance's own here
        if default_model is not None:
            model(default_model)
        self._default = default_model
        self._progress = progress
        self._shape: dict[str, Any] = {"slots": slots, "context": context}
        if threads is not None:
            self._shape |= {"threads": threads, "batch_threads": threads}

    def _most_calls_at_once(self) -> int | None:
        slots: int = self._shape["slots"]
        return slots

    def check(self) -> None:
        """Check that the engine is installed and the default model exists.

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
        sent, adjustments = self._prepare(request, engine)
        async with _watched(engine):
            response = await self._ask(request, engine, sent)
        return await self._finish(request, engine, response, adjustments)

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the answer as it arrives; with a schema, the last chunk holds the JSON value.

        Raises:
            ProviderError: as ``generate`` does.
        """
        engine = await self._engine(request.model)
        sent, adjustments = self._prepare(request, engine)
        pieces: list[GenerateChunk] = []
        cleaner = AnswerCleaner(fence_codes(request)) if self._writes_prose(request) else None
        raw = ""
        async with _watched(engine):
            async for piece in _speaker(engine).stream(sent):
                raw += piece.text or ""
                if cleaner is not None:
                    text = cleaner.feed(piece.text or "")
                    if piece.finish_reason is not None:
                        text += cleaner.rest()
                    piece = attrs.evolve(piece, text=text)
                pieces.append(piece)
                yield piece
            if raw.strip() and not any(piece.text for piece in pieces):  # nothing but what it repeated of its prompt
                pieces.append(GenerateChunk(text=(await self._ask(request, engine, sent)).text or ""))
                yield pieces[-1]
        if request.structured_output is not None:
            whole = join(pieces)
            response = await self._finish(request, engine, whole, adjustments)
            new = response.adjustments[len(whole.adjustments) :]
            yield GenerateChunk(structured=response.structured, usage=response.usage, adjustments=new)

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Check the engine and the weights; ``deep`` fetches missing weights and makes a call."""
        try:
            self.check()
        except ConfigurationError as error:
            return DoctorResult(ok=False, message=error.message)
        if deep:
            return await super().doctor(deep=True)
        known = model(self._default)
        running = engines.state(self._spec(known)) if known.path else "not started; the first call starts it"
        where = known.path
        if where is None and known.repository:
            where = f"not fetched ({known.size_bytes / 1e9:.1f} GB); run: council models pull {known.name}"
        elif where is None:
            where = f"not fetched ({known.size_bytes >> 20} MiB); the first call or `council models pull` does it"
        details = {"model": known.name, "weights": known.path, "engine": running, "source": known.source}
        return DoctorResult(ok=True, message=f"{known.name}: weights {where}; engine {running}", details=details)

    def cache_identity(self) -> str:
        """Return the provider's name, the default model, and the hash or size of its file."""
        known = model(self._default)
        return f"local:{known.name}:{known.sha256[:12] or known.size_bytes}"

    async def aclose(self) -> None:
        """Release the engine; it ends unless another adapter uses it. The next call starts it again."""
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

    def _check_model(self, model_name: str | None) -> None:
        """Raise unless a model's file is here or comes with a package, which the first call may fetch."""
        fetched(model(model_name or self._default))

    async def _engine(self, name: str | None) -> Engine:
        known = model(name or self._default)
        engines.installed()  # fail before 90 MiB are fetched in vain
        if known.path is None:
            fetched(known)
            fetch = partial(pull, known.name, progress=self._progress)
            known = await anyio.to_thread.run_sync(fetch, abandon_on_cancel=True)
        elif known.repository:
            await anyio.to_thread.run_sync(verify, known, abandon_on_cancel=True)
        if (warning := announce(known.name)) is not None:
            _log.warning("%s", warning)
        engine = await engines.running(self._spec(known), self)
        # In a thread, as it imports the HTTP client: on a slow machine, the event loop would stand still for seconds.
        await anyio.to_thread.run_sync(getattr, transports, "HttpxTransport", abandon_on_cancel=True)
        return engine

    async def _ask(self, request: GenerateRequest, engine: Engine, sent: GenerateRequest) -> GenerateResponse:
        """Return the engine's answer without what it repeats of its prompt; ask once more if that was all."""
        response = await _speaker(engine).generate(sent)
        if not self._writes_prose(request):
            return response
        codes = fence_codes(request)
        text = clean(response.text or "", codes)
        if not text.strip() and (response.text or "").strip():
            again = await _speaker(engine).generate(sent)
            response, text = attrs.evolve(again, usage=_usage(response, again)), clean(again.text or "", codes)
        return attrs.evolve(response, text=text)

    def _writes_prose(self, request: GenerateRequest) -> bool:
        """Return True if the first answer is prose, and not a JSON value."""
        return request.structured_output is None or self._profile_of(request.model).prose_first

    def _prepare(self, request: GenerateRequest, engine: Engine) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        """Return the first request to the engine, and an adjustment for what it does not express of the schema."""
        wanted = request.structured_output
        defaults = request_defaults(engine.spec.alias)
        if request.temperature is not None:
            defaults.pop("temperature", None)
        request = attrs.evolve(request, extra={**defaults, **request.extra})
        if wanted is None or self._writes_prose(request):
            most = request.max_tokens or TEXT_TOKENS
            return attrs.evolve(request, structured_output=None, max_tokens=most), ()
        return _constrain(request, wanted, engine, request.max_tokens or SHAPED_TOKENS)

    async def _finish(
        self, request: GenerateRequest, engine: Engine, response: GenerateResponse, adjustments: tuple[Adjustment, ...]
    ) -> GenerateResponse:
        """Add the JSON value to an answer; a second call makes it from an answer in prose."""
        wanted = request.structured_output
        if wanted is None:
            return response
        shaped = response
        usage = response.usage
        if self._profile_of(request.model).prose_first and response.text:
            if _is_answer_with_reasoning(wanted.json_schema):
                return await self._add_reasoning(request, engine, response)
            # A model that copies a quotation mark into JSON ends its text there.
            prose = response.text.replace('"', "'")
            turns = (*request.turns(), Message("assistant", prose), Message("user", _ask_for_json(wanted)))
            # The JSON repeats the answer: sample without randomness, and do not penalise repetition.
            extra = {**request.extra, "repeat_penalty": 1.0}
            if request.temperature is None:
                extra["temperature"] = 0.0
            again = attrs.evolve(request, prompt=None, messages=turns, stop=(), stream=False, extra=extra)
            sent, adjustments = _constrain(again, wanted, engine, max(request.max_tokens or 0, SHAPED_TOKENS))
            async with _watched(engine):
                shaped = await _speaker(engine).generate(sent)
            usage = _usage(response, shaped)
        value = clean_value(_value(shaped), fence_codes(request))
        return attrs.evolve(response, structured=value, usage=usage, adjustments=(*response.adjustments, *adjustments))

    async def _add_reasoning(
        self, request: GenerateRequest, engine: Engine, response: GenerateResponse
    ) -> GenerateResponse:
        """Build the object of an answer and its reasons from prose: a small model would write noise as JSON."""
        turns = (*request.turns(), Message("assistant", response.text or ""), Message("user", "Why?"))
        most = min(request.max_tokens or REASON_TOKENS, REASON_TOKENS)
        again = attrs.evolve(
            request, prompt=None, messages=turns, structured_output=None, stop=(), stream=False, max_tokens=most
        )
        sent, _ = self._prepare(again, engine)
        async with _watched(engine):
            reason = await self._ask(again, engine, sent)
        value = {"answer": _whole_sentences(response), "reasoning": _whole_sentences(reason)}
        return attrs.evolve(response, structured=value, usage=_usage(response, reason))


def announce(name: str | None = None) -> str | None:
    """Return a model's warning the first time in this program; None if it has none, or it was returned before.

    Args:
        name: the model; None for the default.

    Raises:
        InvalidOption: no model has this name.
    """
    known = model(name).name
    warning = profile_for("local", known).warning
    if not warning or known in _announced:
        return None
    _announced.add(known)
    return warning


def _constrain(
    request: GenerateRequest, wanted: StructuredOutput, engine: Engine, tokens: int
) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Return a request whose answer must follow a schema, and an adjustment for what it does not express of it."""
    bounded = bound(wanted.json_schema, tokens)
    extra = dict(request.extra)
    structured_output = None
    if bounded.schema is not None and engine.grammar == LLGUIDANCE:
        extra.setdefault("grammar", write_grammar(bounded.schema))
    elif bounded.schema is not None:
        structured_output = attrs.evolve(wanted, json_schema=bounded.schema)
    sent = attrs.evolve(request, structured_output=structured_output, max_tokens=tokens, extra=extra)
    reasons = list(bounded.omitted)
    if not bounded.fits:
        reasons.append(f"its shortest answer may be cut: it can be longer than {tokens} tokens")
    if not reasons:
        return sent, ()
    action = "dropped" if bounded.schema is None else "projected"
    reason = f"left to the check of the answer: {'; '.join(reasons)}"
    return sent, (Adjustment(field="structured_output", action=action, asked=wanted.name, reason=reason),)


def _is_answer_with_reasoning(schema: Mapping[str, Any]) -> bool:
    """Return True if a schema is that of the role ``advisor``: two plain texts, an answer and its reasoning."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or [*properties] != ["answer", "reasoning"]:
        return False
    return all(
        isinstance(facts, dict) and facts.get("type") == "string" and not facts.keys() - {"type", "description"}
        for facts in properties.values()
    )


def _usage(first: GenerateResponse, second: GenerateResponse) -> Usage | None:
    """Return the tokens of two calls together; None if neither reported any."""
    if first.usage is None or second.usage is None:
        return first.usage or second.usage
    return first.usage + second.usage


def _whole_sentences(response: GenerateResponse) -> str:
    """Return an answer; of one that was cut, the sentences that are whole, if there are any."""
    text = (response.text or "").strip()
    if response.finish_reason != FinishReason.LENGTH or text.endswith((".", "!", "?")):
        return text
    end = max(text.rfind(mark) for mark in (". ", "! ", "? ", ".\n", ":\n"))
    return text[: end + 1] if end > 0 else text


def _ask_for_json(wanted: StructuredOutput) -> str:
    properties = wanted.json_schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        return "Write that answer as JSON."
    return f"Write that answer as JSON with these keys: {', '.join(properties)}."


def _value(response: GenerateResponse) -> Any:
    """Return an answer's text as JSON; None if it was cut or is not JSON."""
    if response.finish_reason == FinishReason.LENGTH:
        return None
    try:
        return json.loads(response.text or "")
    except ValueError:
        return None


class _Speaker(OpenAICompatibleProvider):
    """The HTTP client for one engine; it has connections for each event loop."""

    name = "local"
    capabilities = LocalProvider.capabilities

    def __init__(self, engine: Engine) -> None:
        self._own = transports.HttpxTransport(trust_env=False)  # a loopback address needs no proxy
        super().__init__(
            base_url=f"{engine.address}/v1", api_key=engine.key, default_model=engine.spec.alias, transport=self._own
        )

    def _address_advice(self) -> str:
        return ""  # the engine is started by its provider

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
    """Replace the error of a connection by the reason why the engine ended, if it did; count the call meanwhile."""
    call = object()
    engine.calls.add(call)
    try:
        yield
    except (ConnectFailed, ConnectionLost, TruncatedReply) as error:
        if await engine.wait(engine.ended, 0.5):  # the connection ends a moment before the process is reaped
            raise engine.failure() from error.with_traceback(None)
        raise
    finally:
        engine.calls.discard(call)
