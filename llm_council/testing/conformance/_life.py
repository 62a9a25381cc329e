"""Promises about an adapter's life: loops, threads, copies, secrets, its doctor, its blocking twins."""

from __future__ import annotations

import importlib.util
import pickle
import traceback
from concurrent.futures import ThreadPoolExecutor

import anyio
import attrs

from llm_council.errors import CouncilError, ProviderError
from llm_council.models import GenerateRequest, Message
from llm_council.providers.base import ProviderAdapter, call, examine
from llm_council.testing.conformance._promise import CannotPlay, Player, broken, promise
from llm_council.testing.conformance._stand import ASK, KEY, TEXT, Stand, listening, whole_stream
from llm_council.testing.servers import Refuse

__all__ = ["Life"]

_MANY = 8


class Life(Stand):
    """Loops, threads, copies, secrets, its doctor, its blocking twins."""

    @promise("calls at the same time get their own answers")
    async def test_concurrency(self) -> None:
        """Ask several things at once, in one event loop."""
        answers: dict[int, str | None] = {}
        async with self.stage(_echo) as stage:

            async def ask(number: int) -> None:
                answers[number] = (await call(stage.adapter, _numbered(number))).text

            async with anyio.create_task_group() as tasks:
                for number in range(_MANY):
                    tasks.start_soon(ask, number)
        _own_answers(answers)

    @promise("one instance serves one event loop after another")
    def test_loops(self) -> None:
        """Call in two event loops, and through the blocking twin between them."""
        with self.playing(TEXT) as stage, stage.adapter:

            async def ask() -> None:
                if (await call(stage.adapter, ASK)).text != TEXT:
                    broken("another answer came in the second event loop")

            for backend in (*self.backends, *self.backends):
                anyio.run(ask, backend=backend)
                stage.adapter.generate_sync(ASK)

    @promise("one instance serves several threads, and each gets its own answer")
    def test_threads(self) -> None:
        """Ask from several threads at once."""
        with self.playing(_echo) as stage, stage.adapter, ThreadPoolExecutor(_MANY) as pool:
            texts = pool.map(lambda number: stage.adapter.generate_sync(_numbered(number)).text, range(_MANY))
            _own_answers(dict(enumerate(texts)))

    @promise("the blocking twins say what the coroutines say")
    def test_twins(self) -> None:
        """Compare generate_sync, stream_sync, doctor_sync and supports_sync."""
        with self.playing(TEXT) as stage, stage.adapter:
            adapter = stage.adapter
            if adapter.generate_sync(ASK).text != TEXT:
                broken("generate_sync gave another answer")
            if "".join(piece.text for piece in adapter.stream_sync(ASK)) != TEXT:
                broken("stream_sync gave another answer")
            if not adapter.doctor_sync().ok:
                broken("doctor_sync says that it is not well")
            if adapter.supports_sync("streaming") is not adapter.capabilities.streaming:
                broken("supports_sync('streaming') is not what its capabilities say")

    @promise("after aclose the next call works, and closing twice is no error")
    async def test_closing(self) -> None:
        """Close, call, and close twice."""
        async with self.stage(TEXT) as stage:
            for _ in range(2):
                await call(stage.adapter, ASK)
                await stage.adapter.aclose()
            await stage.adapter.aclose()

    @promise("a pickled adapter, answer and error come back whole")
    async def test_pickling(self) -> None:
        """Pickle all three, and ask the copy."""
        async with self.stage(TEXT) as stage:
            _importable(stage.adapter)
            response = attrs.evolve(await call(stage.adapter, ASK), raw=None)
            if pickle.loads(pickle.dumps(response)) != response:  # noqa: S301 - our own bytes
                broken("an answer's copy is another answer")
            async with _copied(stage.adapter) as copy:
                try:
                    told = (await call(copy, ASK)).text
                except CouncilError:
                    if self._variable() is not None:
                        raise
                    told = TEXT  # a key that was passed by hand is not carried over, and the copy may say so
                if told != TEXT:
                    broken("a pickled adapter gives another answer")
            stage.vendor.said = Refuse(status=429, message="slow down")
            error = await _error(stage.adapter)
            if str(pickle.loads(pickle.dumps(error))) != str(error):  # noqa: S301
                broken("an error's copy says something else")

    @promise("its key goes to the vendor in a header, and stands in no text, log, error, address or pickle")
    async def test_secrets(self) -> None:
        """Look for the key wherever it could be read."""
        with listening() as logged:
            async with self.stage(TEXT) as stage:
                adapter, vendor = stage.adapter, stage.vendor
                shown = {"an answer": repr(await call(adapter, ASK)), "its repr": f"{adapter!r} {adapter}"}
                await whole_stream(adapter)
                shown["its doctor's word"] = repr(await examine(adapter))
                shown["its cache_identity"] = adapter.cache_identity()
                vendor.said = Refuse(status=401, message=f"the key {_repeated(vendor)} is not known")
                error = await _error(adapter)
                shown["an error"] = f"{error!r} {vars(error)!r}"
                shown["a traceback"] = _read(error)
                shown["a pickled error"] = repr(pickle.dumps(error))
                shown["its doctor's word about a refusal"] = repr(await examine(adapter))
                shown["a pickle of it"] = _pickled(adapter)
                shown["an address"] = " ".join(f"{asked.path}?{asked.query}" for asked in vendor.asked)
        shown["a log"] = " ".join(logged)
        found = [where for where, text in shown.items() if KEY in text]
        if found:
            broken(f"the key stands in {' and in '.join(found)}")

    @promise("its doctor is cheap and honest: well with the vendor, ill without, and deep it makes a call")
    async def test_doctor(self) -> None:
        """Examine it with a vendor that is well, and with one that refuses."""
        async with self.stage(TEXT) as stage:
            adapter, vendor = stage.adapter, stage.vendor
            result = await examine(adapter)
            if not result.ok:
                broken(f"the vendor is well, and the doctor says: {result.message}")
            if vendor.calls:
                broken("its doctor makes a model work without being asked for it")
            deep = await examine(adapter, deep=True)
            if not (deep.ok and vendor.calls):
                broken(f"deep, its doctor made {len(vendor.calls)} calls and says: {deep.message}")
            vendor.said = Refuse(status=401, message="this key is not known")
            before = len(vendor.asked)
            result = await examine(adapter)
            if result.ok and len(vendor.asked) > before:
                broken(f"the vendor refused the key, and its doctor says: {result.message}")
            if (await examine(adapter, deep=True)).ok:
                broken("every call is refused, and its doctor says, deep, that it is well")


def _numbered(number: int) -> GenerateRequest:
    return GenerateRequest(messages=[Message("user", f"say number-{number}.")])


def _echo(request: GenerateRequest) -> str:
    return f"you said: {request.turns()[-1].text}"


def _own_answers(answers: dict[int, str | None]) -> None:
    for number, text in sorted(answers.items()):
        if f"number-{number}." not in (text or ""):
            broken(f"a call about number-{number} got the answer {text!r}")


async def _error(adapter: ProviderAdapter) -> ProviderError:
    try:
        await call(adapter, ASK)
    except ProviderError as error:
        found = error
    else:
        broken("the vendor refused, and that was taken for an answer")
    return found


def _repeated(vendor: Player) -> str:
    """Return what a vendor can repeat of a key: what it was sent."""
    headers = [value for asked in vendor.asked for value in asked.headers.values()]
    return KEY if not headers or any(KEY in value for value in headers) else "that it was sent"


def _read(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def _importable(adapter: ProviderAdapter) -> None:
    cls = type(adapter)
    if "<locals>" in cls.__qualname__:
        raise CannotPlay(f"{cls.__name__} is defined inside a function, where pickle does not find it")
    try:
        known = importlib.util.find_spec(cls.__module__) is not None
    except (ImportError, ValueError):
        known = cls.__module__ == "__main__"
    if not known:
        raise CannotPlay(f"{cls.__name__} stands in no module that can be imported")


def _copied(adapter: ProviderAdapter) -> ProviderAdapter:
    try:
        copy: ProviderAdapter = pickle.loads(pickle.dumps(adapter))  # noqa: S301 - our own bytes
    except Exception as error:  # noqa: BLE001 - whatever pickling raises
        broken(f"{type(error).__name__}: {error}")
    if type(copy) is not type(adapter):
        broken(f"its copy is of class {type(copy).__name__}")
    return copy


def _pickled(adapter: ProviderAdapter) -> str:
    try:
        return repr(pickle.dumps(adapter))
    except Exception:  # noqa: BLE001 - that it cannot be pickled is another promise's business
        return ""
