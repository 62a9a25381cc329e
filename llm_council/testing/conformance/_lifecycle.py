"""Promises about event loops, threads, blocking twins, closing, pickling, secrets and the doctor."""

from __future__ import annotations

import copy
import functools
import importlib.util
import inspect
import pickle
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import attrs

from llm_council.errors import ConfigurationError, CouncilError, ProviderError
from llm_council.models import GenerateRequest, Message
from llm_council.providers.base import ProviderAdapter, call, examine
from llm_council.testing.conformance._base import ASK, KEY, TEXT, ConformanceBase, call_streamed, captured_logs
from llm_council.testing.conformance._promises import CannotPlay, Player, fail, promise
from llm_council.testing.servers import Refuse

__all__ = ["Lifecycle"]

_CALLS_AT_ONCE = 8
_MOST_PLACES = 4  # of a key, in one line

_Ask = Callable[[ProviderAdapter, GenerateRequest], Awaitable[Any]]


class Lifecycle(ConformanceBase):
    """Event loops, threads, blocking twins, closing, pickling, secrets and the doctor."""

    @promise(
        "concurrent calls get their own answers",
        remedy="keep nothing of a call on the adapter",
    )
    async def test_concurrency(self) -> None:
        """Make several calls at once, in one event loop."""
        answers: dict[int, str | None] = {}
        async with self.stage(_echo) as stage:

            async def ask(number: int) -> None:
                answers[number] = (await call(stage.adapter, _numbered(number))).text

            async with anyio.create_task_group() as tasks:
                for number in range(_CALLS_AT_ONCE):
                    tasks.start_soon(ask, number)
        _require_own_answers(answers)

    @promise(
        "one instance can be used in several event loops, one after another",
        remedy="take the client from http_client(), which keeps one for each event loop",
    )
    def test_loops(self) -> None:
        """Call in two event loops, and through the blocking twin between them."""
        with self.playing(TEXT) as stage, stage.adapter:

            async def ask() -> None:
                if (await call(stage.adapter, ASK)).text != TEXT:
                    fail("a call returned a wrong answer when the adapter was used in several event loops")

            # The blocking call between them runs in a third loop. A client that is shared between loops fails here.
            for backend in (*self.backends, *self.backends):
                anyio.run(ask, backend=backend)
                stage.adapter.generate_sync(ASK)

    @promise(
        "one instance can be used in several threads, and each gets its own answer",
        remedy="keep nothing of a call on the adapter",
    )
    def test_threads(self) -> None:
        """Make calls from several threads at once."""
        with self.playing(_echo) as stage, stage.adapter, ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
            texts = pool.map(lambda number: stage.adapter.generate_sync(_numbered(number)).text, range(_CALLS_AT_ONCE))
            _require_own_answers(dict(enumerate(texts)))

    @promise(
        "the blocking twins return what the coroutines return",
        remedy="do not override the blocking methods",
    )
    def test_twins(self) -> None:
        """Compare generate_sync, stream_sync, doctor_sync and supports_sync."""
        with self.playing(TEXT) as stage, stage.adapter:
            adapter = stage.adapter
            if adapter.generate_sync(ASK).text != TEXT:
                fail("generate_sync returned a wrong answer")
            if "".join(piece.text for piece in adapter.stream_sync(ASK)) != TEXT:
                fail("stream_sync returned a wrong answer")
            if not adapter.doctor_sync().ok:
                fail("doctor_sync reports a fault, but the vendor works")
            if adapter.supports_sync("streaming") is not adapter.capabilities.streaming:
                fail("supports_sync('streaming') differs from its capabilities")

    @promise(
        "a call works after aclose, and aclose may be called twice",
        remedy="open in each call what aclose closes, as http_client() does",
    )
    async def test_closing(self) -> None:
        """Close, call, and close twice."""
        async with self.stage(TEXT) as stage:
            for _ in range(2):
                await call(stage.adapter, ASK)
                await stage.adapter.aclose()
            await stage.adapter.aclose()

    @promise("every client that an adapter opens is closed by aclose")
    async def test_clients(self) -> None:
        """Call several times, close, and look at the clients that were made."""
        with _recorded_clients() as clients:
            async with self.stage(TEXT) as stage:
                for _ in range(2):
                    await call(stage.adapter, ASK)
                    await call_streamed(stage.adapter)
                await stage.adapter.aclose()
                left = [client for client in clients if not _is_closed(client)]
        if left:
            kind = f"{type(left[0]).__module__.partition('.')[0]}.{type(left[0]).__name__}"
            fail(
                f"after 4 calls and aclose, {len(left)} of {len(clients)} {kind} are open:"
                " use the client of http_client(), or close your own in aclose"
            )

    @promise("cache_identity() tells apart addresses and models, and is the same for equal adapters")
    def test_cache_identity(self) -> None:
        """Make adapters that differ in one argument, and two that do not."""
        takes = _parameters(self.provider)
        if not takes:
            raise CannotPlay("the adapter takes neither base_url nor default_model, by which identities could differ")
        remedy = "return the class, the address and the model from cache_identity(), without the key"
        with self.surroundings():
            try:
                adapter = self.make("http://127.0.0.1:9/one", KEY)
            except ConfigurationError as error:  # what overrides ``playing`` need not be made by ``make``
                raise CannotPlay(f"the adapter cannot be made with these arguments: {error}") from error
            identity = adapter.cache_identity()
            if self.make("http://127.0.0.1:9/one", KEY).cache_identity() != identity:
                fail(f"two equal adapters have two cache identities: {remedy}")
            moved = self.make("http://127.0.0.1:9/two", KEY)
            if "base_url" in takes and moved.cache_identity() == identity:
                fail(f"adapters at two addresses have one cache identity, so they share answers: {remedy}")
            other = copy.copy(self)
            other.model = "house/other-7"  # type: ignore[misc]  # of this copy alone
            if "default_model" in takes and self.model and "default_model" not in self.options:
                renamed = other.make("http://127.0.0.1:9/one", KEY)
                # An adapter may be made by a method that passes no model.
                differs = getattr(renamed, "default_model", None) != getattr(adapter, "default_model", None)
                if differs and renamed.cache_identity() == identity:
                    fail(f"adapters with two default models have one cache identity, so they share answers: {remedy}")

    @promise(
        "an adapter, an answer and an error survive pickling",
        remedy="leave locks, clients and functions out of __getstate__",
    )
    async def test_pickling(self) -> None:
        """Pickle all three, and call the copy."""
        async with self.stage(TEXT) as stage:
            _require_importable(stage.adapter)
            # ``raw`` may be an object of a vendor's SDK, which need not be picklable.
            response = attrs.evolve(await call(stage.adapter, ASK), raw=None)
            if pickle.loads(pickle.dumps(response)) != response:  # noqa: S301 - our own bytes
                fail("an unpickled answer differs from the original")
            async with _pickle_copy(stage.adapter) as copy:
                try:
                    text = (await call(copy, ASK)).text
                except CouncilError:
                    if self._variable() is not None:
                        raise
                    text = TEXT  # a key that was passed as an argument is not pickled, and the copy may say so
                if text != TEXT:
                    fail("an unpickled adapter returned a wrong answer")
            stage.vendor.said = Refuse(status=429, message="slow down")
            error = await _raised_error(stage.adapter)
            if str(pickle.loads(pickle.dumps(error))) != str(error):  # noqa: S301
                fail("an unpickled error has another message")

    @promise(
        "the key is sent in a header, and is in no text, log, error, URL or pickle",
        remedy="keep the key in a Secret, reveal it only into a header, and delete what repeats it before you raise",
    )
    async def test_secrets(self) -> None:
        """Look for the key wherever it could be read."""
        with captured_logs() as logged:
            async with self.stage(TEXT) as stage:
                adapter, vendor = stage.adapter, stage.vendor
                shown = {"an answer": repr(await call(adapter, ASK)), "its repr": f"{adapter!r} {adapter}"}
                await call_streamed(adapter)
                shown["its doctor's result"] = repr(await examine(adapter))
                shown["its cache_identity"] = adapter.cache_identity()
                # Vendors quote the key in their refusals: OpenAI writes "Incorrect API key provided: sk-...".
                vendor.said = Refuse(status=401, message=f"the key {_visible_key(vendor)} is not known")
                places: list[str] = []
                for ask in (call, call_streamed):
                    error = await _raised_error(adapter, ask)
                    places += _places_of_key(error)
                    shown["a pickled error"] = shown.get("a pickled error", "") + repr(pickle.dumps(error))
                shown["its doctor's result after a refusal"] = repr(await examine(adapter))
                shown["a pickle of it"] = _pickle_text(adapter)
                shown["an address"] = " ".join(f"{asked.path}?{asked.query}" for asked in vendor.asked)
        shown["a log"] = " ".join(logged)
        found = [*dict.fromkeys(places), *(where for where, text in shown.items() if KEY in text)]
        if found:
            fail(f"the key is in {' and in '.join(found[:_MOST_PLACES])}")

    @promise(
        "the doctor is free unless deep, and reports whether the vendor works; if deep, it makes a call",
        remedy="ask the vendor for something free and check the status; make a call only if deep",
    )
    async def test_doctor(self) -> None:
        """Examine it with a vendor that answers, and with one that refuses."""
        async with self.stage(TEXT) as stage:
            adapter, vendor = stage.adapter, stage.vendor
            result = await examine(adapter)
            if not result.ok:
                fail(f"the vendor works, but the doctor reports: {result.message}")
            if vendor.calls:
                fail("the doctor called a model, but deep=True was not given")
            # A plain examination may list models, which is free; a deep one proves that a model answers.
            deep = await examine(adapter, deep=True)
            if not (deep.ok and vendor.calls):
                fail(f"with deep=True, the doctor made {len(vendor.calls)} calls and reports: {deep.message}")
            vendor.said = Refuse(status=401, message="this key is not known")
            before = len(vendor.asked)
            result = await examine(adapter)
            if result.ok and len(vendor.asked) > before:
                fail(f"the vendor refused the key, but the doctor reports ok: {result.message}")
            if (await examine(adapter, deep=True)).ok:
                fail("the vendor refuses every call, but the doctor with deep=True reports ok")


@contextmanager
def _recorded_clients() -> Iterator[list[Any]]:
    """Collect the HTTP clients that are made in the meantime, of the libraries that are imported."""
    made: list[Any] = []
    with ExitStack() as patches:
        for module, name in (("httpx", "AsyncClient"), ("httpx", "Client"), ("aiohttp", "ClientSession")):
            cls = getattr(sys.modules.get(module), name, None)
            if cls is not None:
                patches.enter_context(patch.object(cls, "__init__", _recording(cls.__init__, made)))
        yield made


def _recording(init: Callable[..., None], made: list[Any]) -> Callable[..., None]:
    @functools.wraps(init)
    def record(self: Any, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        made.append(self)

    return record


def _is_closed(client: Any) -> bool:
    # httpx and aiohttp name it differently.
    return bool(client.closed if hasattr(client, "closed") else client.is_closed)


def _parameters(provider: type[ProviderAdapter] | None) -> set[str]:
    """Return which of the arguments that ``make`` passes a class takes."""
    offered = {"base_url", "default_model"}
    if provider is None:
        return set()
    parameters = inspect.signature(provider).parameters.values()
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return offered if takes_all else offered & {parameter.name for parameter in parameters}


def _numbered(number: int) -> GenerateRequest:
    return GenerateRequest(messages=[Message("user", f"say number-{number}.")])


def _echo(request: GenerateRequest) -> str:
    return f"you said: {request.turns()[-1].text}"


def _require_own_answers(answers: dict[int, str | None]) -> None:
    for number, text in sorted(answers.items()):
        if f"number-{number}." not in (text or ""):
            fail(f"the call with number-{number} got the answer of another call: {text!r}")


async def _raised_error(adapter: ProviderAdapter, ask: _Ask = call) -> ProviderError:
    try:
        await ask(adapter, ASK)
    except ProviderError as error:
        found = error
    else:
        fail("the vendor refused the call, but the adapter returned an answer")
    return found


def _visible_key(vendor: Player) -> str:
    """Return the key if a header carried it to the vendor: it can repeat only what it was sent."""
    headers = [value for asked in vendor.asked for value in asked.headers.values()]
    return KEY if not headers or any(KEY in value for value in headers) else "that it was sent"


def _places_of_key(error: BaseException) -> Iterator[str]:
    """Yield where an error and its causes hold the key: messages, attributes, and the variables of each frame.

    Error trackers record the variables of frames.
    """
    chain: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop(0)
        if each is None or any(each is seen for seen in chain):
            continue
        chain.append(each)
        left += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions
    for each in chain:
        kind = type(each).__name__
        if KEY in f"{each} {each!r}":
            yield f"the message of {kind}"
        for name, value in vars(each).items():
            if KEY in repr(value):
                yield f"the attribute {name!r} of {kind}"
        for frame in traceback.TracebackException.from_exception(each, capture_locals=True).stack:
            for name, shown in (frame.locals or {}).items():
                if KEY in shown:
                    yield f"the variable {name!r} of {frame.name}() in {Path(frame.filename).name}:{frame.lineno}"


def _require_importable(adapter: ProviderAdapter) -> None:
    cls = type(adapter)
    if "<locals>" in cls.__qualname__:
        raise CannotPlay(f"{cls.__name__} is defined inside a function, so pickle cannot find it")
    try:
        known = importlib.util.find_spec(cls.__module__) is not None
    except (ImportError, ValueError):
        known = cls.__module__ == "__main__"
    if not known:
        raise CannotPlay(f"{cls.__name__} is in a module that cannot be imported")


def _pickle_copy(adapter: ProviderAdapter) -> ProviderAdapter:
    try:
        copy: ProviderAdapter = pickle.loads(pickle.dumps(adapter))  # noqa: S301 - our own bytes
    except Exception as error:  # noqa: BLE001 - pickling may raise anything
        fail(f"the adapter cannot be pickled: {type(error).__name__}: {error}")
    if type(copy) is not type(adapter):
        fail(f"unpickling returned a {type(copy).__name__}")
    return copy


def _pickle_text(adapter: ProviderAdapter) -> str:
    try:
        return repr(pickle.dumps(adapter))
    except Exception:  # noqa: BLE001 - test_pickling reports it
        return ""
