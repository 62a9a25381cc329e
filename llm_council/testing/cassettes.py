"""Cassettes: what providers answered once, in a text file, for tests that need no network and no key.

``Recorder`` asks a provider and writes down what it said; ``Replay`` stands in its place and says it again. The fixture
``cassette`` chooses between them: tests replay, unless the environment variable ``LLM_COUNCIL_RECORD`` is set to
``missing`` (record where there is no file yet) or ``all`` (record anew).

A cassette is JSON for people: requests and answers in the order of a run's phases, long texts line by line, nothing
that differs from one recording to the next but the words themselves. Credentials are never written.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs

from llm_council.errors import AdapterFailed, ConfigurationError, CouncilError, InvalidOption
from llm_council.middleware._wrapper import Wrapper
from llm_council.models import GenerateChunk, GenerateRequest, GenerateResponse, Phase, join
from llm_council.models._convert import dump, load
from llm_council.providers.base import ProviderAdapter, call, stream
from llm_council.providers.registry import get_provider
from llm_council.store._encoding import mask

__all__ = ["RECORD", "Cassette", "Recorder", "Replay", "cassette_path"]

RECORD: Final = "LLM_COUNCIL_RECORD"
"""The environment variable that says whether tests record: ``none``, ``missing`` or ``all``."""

FORMAT: Final = 1

# What may differ between two requests that ask the same, and what differs between two answers that say the same.
_ASIDE: Final = ("idempotency_key", "metadata", "timeout_seconds", "stream")
_NOISE: Final[dict[str, Any]] = {"attempts": (), "raw": None}

_PHASES: Final = {str(phase): place for place, phase in enumerate(Phase)}


class Cassette:
    """A file of calls. It is read when it is first used, and written whole after every call that is recorded.

    Args:
        path: the file.

    Attributes:
        path: the file.
        missed: what was asked and is not in the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.missed: list[str] = []
        self._calls: list[dict[str, Any]] | None = None
        self._used: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    def erase(self) -> None:
        """Begin anew; the file stays as it is until something is recorded."""
        self._calls = []

    def record(self, provider: str, request: GenerateRequest, answer: GenerateResponse | CouncilError) -> None:
        """Write a call down."""
        where = [str(request.metadata[name]) for name in ("phase", "seat") if name in request.metadata]
        said: dict[str, Any] = {"provider": provider, "for": " ".join(where), "request": _asked(request)}
        if isinstance(answer, CouncilError):
            facts = dump(answer)
            said["error"] = {name: facts[name] for name in facts if name not in ("attempts", "elapsed", "run_id")}
        else:
            said["response"] = _spoken(attrs.evolve(answer, **_NOISE))
        with self._lock:
            calls = self._read() if self.path.exists() or self._calls is not None else []
            calls.append(mask(said))
            calls.sort(key=_place)
            self._calls = calls
            self._write(calls)

    def answer(self, provider: str, request: GenerateRequest) -> GenerateResponse:
        """Return what was answered to this request; asked again, what was answered then.

        Raises:
            CouncilError: the error that was recorded; ``AdapterFailed`` where nothing was.
        """
        asked = mask(_asked(request))
        with self._lock:
            found = [one for one in self._read() if one["provider"] == provider and one["request"] == asked]
            key = json.dumps([provider, asked], sort_keys=True)
            place, self._used[key] = self._used[key], self._used[key] + 1
        if place >= len(found):
            what = f"{provider} {request.metadata.get('phase', '')}".strip()
            times = f" a {place + 1}. time" if found else ""
            said = f"{self.path} has no answer for {what}{times}: {request.turns()[-1].text[-80:]!r}"
            self.missed.append(said)
            raise AdapterFailed(f"{said}; to record it: {RECORD}=all")
        if "error" in found[place]:
            raise load(CouncilError, found[place]["error"])
        return load(GenerateResponse, found[place]["response"])

    def _read(self) -> list[dict[str, Any]]:
        if self._calls is None:
            try:
                data = _whole(json.loads(self.path.read_bytes().decode("utf-8", "surrogatepass")))
                calls = data["calls"]
                if data["format"] != FORMAT or not isinstance(calls, list):
                    raise ValueError(f"format {data['format']!r}")
            except FileNotFoundError:
                words = f"there is no cassette at {self.path}; to record it: {RECORD}=missing"
                self.missed.append(words)
                raise ConfigurationError(words) from None
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InvalidOption(f"the cassette {self.path} cannot be read: {error}") from None
            self._calls = calls
        return self._calls

    def _write(self, calls: list[dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_lines({"format": FORMAT, "calls": calls}), indent=2, ensure_ascii=False) + "\n"
        file, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(file, "wb") as out:
                out.write(text.encode("utf-8", "surrogatepass"))
            Path(name).replace(self.path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise


class Recorder(Wrapper):
    """Ask a provider, and write down what it says.

    Args:
        inner: the provider, or its name.
        cassette: where to write.
    """

    def __init__(self, inner: ProviderAdapter | str, cassette: Cassette | str | os.PathLike[str]) -> None:
        super().__init__(get_provider(inner) if isinstance(inner, str) else inner)
        self.cassette = cassette if isinstance(cassette, Cassette) else Cassette(cassette)

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Ask the held provider."""
        try:
            response = await call(self.inner, request)
        except CouncilError as error:
            self.cassette.record(self.name, request, error)
            raise
        self.cassette.record(self.name, request, response)
        return response

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the held provider's answer as it arrives; one that is left before its end is not recorded."""
        chunks: list[GenerateChunk] = []
        try:
            async for chunk in stream(self.inner, request):
                chunks.append(chunk)
                yield chunk
        except CouncilError as error:
            self.cassette.record(self.name, request, error)
            raise
        self.cassette.record(self.name, request, join(chunks))


class Replay(Wrapper):
    """Say again what a provider said when it was recorded; the provider itself is never asked, and needs no key.

    Args:
        inner: the provider, or its name.
        cassette: what it said.
    """

    def __init__(self, inner: ProviderAdapter | str, cassette: Cassette | str | os.PathLike[str]) -> None:
        super().__init__(get_provider(inner) if isinstance(inner, str) else inner)
        self.cassette = cassette if isinstance(cassette, Cassette) else Cassette(cassette)

    def check(self) -> None:
        """Refuse nothing: a key that is not set is not missed."""

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Return what is recorded."""
        return self.cassette.answer(self.name, request)

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield what is recorded, in one piece."""
        yield GenerateChunk.whole(self.cassette.answer(self.name, request))


def cassette_path(test: Path, name: str) -> Path:
    """Return where a test's cassette lies: ``cassettes/FILE/TEST.json`` beside it."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "test"
    return test.parent / "cassettes" / test.stem / f"{plain[:120]}.json"


def _asked(request: GenerateRequest) -> dict[str, Any]:
    return _telling(GenerateRequest(prompt="."), request, _ASIDE, {"prompt": None})


def _spoken(response: GenerateResponse) -> dict[str, Any]:
    said = _telling(GenerateResponse(), response, (), {})
    return {name: value for name, value in said.items() if name != "content" or value != said.get("text")}


def _telling(default: Any, noun: Any, aside: tuple[str, ...], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that say something: those that differ from the default."""
    plain = {**dump(default), **base}
    return {name: value for name, value in dump(noun).items() if name not in aside and value != plain[name]}


def _place(said: Mapping[str, Any]) -> tuple[int, str, str]:
    phase, _, seat = str(said["for"]).partition(" ")
    return _PHASES.get(phase, len(_PHASES)), seat, str(said["provider"])


def _lines(value: Any) -> Any:
    """Write texts of several lines as lists of lines, under a key that no data has."""
    if isinstance(value, str):
        return {"$lines": value.split("\n")} if "\n" in value else value
    if isinstance(value, Mapping):
        return {f"${key}" if key.startswith("$") else key: _lines(item) for key, item in value.items()}
    return [_lines(item) for item in value] if isinstance(value, list) else value


def _whole(value: Any) -> Any:
    """Undo ``_lines``."""
    if isinstance(value, Mapping):
        if set(value) == {"$lines"}:
            return "\n".join(value["$lines"])
        return {key.removeprefix("$"): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value
