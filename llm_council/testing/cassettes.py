"""Cassettes: recorded answers of providers in a text file, for tests without a network and without keys.

``Recorder`` calls a provider and writes its answers to the file; ``Replay`` returns them without calling the provider.
The fixture ``cassette`` chooses between them: tests replay, unless the environment variable ``LLM_COUNCIL_RECORD`` is
``missing`` (record if the file does not exist) or ``all`` (record again).

A cassette is JSON for people and for diffs. Calls stand in the order of a run's phases, and long texts are lists of
lines. There are no timings and no ids, so a new recording changes only where an answer changes. Credentials are masked.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from llm_council._seats.configured import create_provider
from llm_council.errors import AdapterFailed, ConfigurationError, CouncilError, InvalidOption
from llm_council.middleware.wrapper import Wrapper
from llm_council.models import GenerateChunk, GenerateRequest, GenerateResponse, Phase, join
from llm_council.models._convert import dump, load
from llm_council.providers.base import ProviderAdapter, call, stream
from llm_council.store._encoding import mask

__all__ = ["RECORD", "Cassette", "Recorder", "Replay", "cassette_path"]

RECORD: Final = "LLM_COUNCIL_RECORD"
"""The environment variable that makes tests record: ``none``, ``missing`` or ``all``."""

FORMAT: Final = 1

# Fields of a request that do not decide the answer, and fields of an answer that differ in every recording.
_IGNORED: Final = ("idempotency_key", "metadata", "timeout_seconds", "stream")
_VOLATILE: Final[dict[str, Any]] = {"attempts": (), "raw": None}

_PHASES: Final = {str(phase): place for place, phase in enumerate(Phase)}


class Cassette:
    """A file of calls. It is read on first use, and rewritten after every recorded call.

    Args:
        path: the file.

    Attributes:
        path: the file.
        missed: a message for each call that the file does not contain.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.missed: list[str] = []
        self._calls: list[dict[str, Any]] | None = None
        self._used: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    def erase(self) -> None:
        """Forget the calls; the file is overwritten with the next recorded call."""
        self._calls = []

    def record(self, provider: str, request: GenerateRequest, answer: GenerateResponse | CouncilError) -> None:
        """Add a call to the file."""
        labels = [str(request.metadata[name]) for name in ("phase", "seat") if name in request.metadata]
        entry: dict[str, Any] = {"provider": provider, "for": " ".join(labels), "request": _dump_request(request)}
        if isinstance(answer, CouncilError):
            facts = dump(answer)
            entry["error"] = {name: facts[name] for name in facts if name not in ("attempts", "elapsed", "run_id")}
        else:
            entry["response"] = _dump_response(attrs.evolve(answer, **_VOLATILE))
        with self._lock:
            calls = self._read() if self.path.exists() or self._calls is not None else []
            calls.append(mask(entry))
            calls.sort(key=_sort_key)
            self._calls = calls
            self._write(calls)

    def answer(self, provider: str, request: GenerateRequest) -> GenerateResponse:
        """Return the recorded answer to a request. The same request made again gets the next recorded answer.

        Raises:
            CouncilError: the recorded error.
            AdapterFailed: no answer is recorded.
        """
        asked = mask(_dump_request(request))
        with self._lock:
            # Equal requests are recorded several times, in the order of their calls.
            found = [call for call in self._read() if call["provider"] == provider and call["request"] == asked]
            key = json.dumps([provider, asked], sort_keys=True)
            place, self._used[key] = self._used[key], self._used[key] + 1
        if place >= len(found):
            what = f"{provider} {request.metadata.get('phase', '')}".strip()
            times = f" a {place + 1}. time" if found else ""
            message = f"{self.path} has no answer for {what}{times}: {request.turns()[-1].text[-80:]!r}"
            self.missed.append(message)
            raise AdapterFailed(f"{message}; to record it: {RECORD}=all")
        if "error" in found[place]:
            raise load(CouncilError, found[place]["error"])
        return load(GenerateResponse, found[place]["response"])

    def _read(self) -> list[dict[str, Any]]:
        if self._calls is None:
            try:
                # ``surrogatepass``: a model may write half of a surrogate pair, which strict UTF-8 cannot express.
                data = _from_lines(json.loads(self.path.read_bytes().decode("utf-8", "surrogatepass")))
                calls = data["calls"]
                if data["format"] != FORMAT or not isinstance(calls, list):
                    raise ValueError(f"format {data['format']!r}")
            except FileNotFoundError:
                message = f"there is no cassette at {self.path}; to record it: {RECORD}=missing"
                self.missed.append(message)
                raise ConfigurationError(message) from None
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InvalidOption(f"the cassette {self.path} cannot be read: {error}") from None
            self._calls = calls
        return self._calls

    def _write(self, calls: list[dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_to_lines({"format": FORMAT, "calls": calls}), indent=2, ensure_ascii=False) + "\n"
        # Written aside and moved: a test run that is killed leaves the old file or the new one, not half of it.
        file, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(file, "wb") as out:
                out.write(text.encode("utf-8", "surrogatepass"))
            Path(name).replace(self.path)
        except BaseException:  # cancellation included: no temporary file may stay
            Path(name).unlink(missing_ok=True)
            raise


class _Taped(Wrapper):
    """A provider with a cassette."""

    _calls_provider = True

    def __init__(self, inner: ProviderAdapter | str, cassette: Cassette | str | os.PathLike[str]) -> None:
        if isinstance(inner, str):
            inner = create_provider(inner, {}, needs_keys=self._calls_provider)
        super().__init__(inner)
        self.cassette = cassette if isinstance(cassette, Cassette) else Cassette(cassette)


class Recorder(_Taped):
    """Calls a provider and records its answers.

    Args:
        inner: the provider, or its name, such as that of a configured one.
        cassette: the cassette, or the path of its file.
    """

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Call the inner provider, and record its answer or error."""
        try:
            response = await call(self.inner, request)
        except CouncilError as error:
            self.cassette.record(self.name, request, error)
            raise
        self.cassette.record(self.name, request, response)
        return response

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the inner provider's answer as it arrives. A stream that is closed before its end is not recorded."""
        chunks: list[GenerateChunk] = []
        try:
            async for chunk in stream(self.inner, request):
                chunks.append(chunk)
                yield chunk
        except CouncilError as error:
            self.cassette.record(self.name, request, error)
            raise
        self.cassette.record(self.name, request, join(chunks))


class Replay(_Taped):
    """Returns recorded answers. The provider itself is never called, and needs no key.

    Args:
        inner: the provider, or its name, such as that of a configured one.
        cassette: the cassette, or the path of its file.
    """

    _calls_provider = False

    def check(self) -> None:
        """Accept every configuration: a replay needs no key."""

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Return the recorded answer."""
        return self.cassette.answer(self.name, request)

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the recorded answer in one chunk."""
        yield GenerateChunk.whole(self.cassette.answer(self.name, request))


def cassette_path(test: Path, name: str) -> Path:
    """Return the path of a test's cassette: ``cassettes/FILE/TEST.json`` beside the test file."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "test"
    return test.parent / "cassettes" / test.stem / f"{plain[:120]}.json"


def _dump_request(request: GenerateRequest) -> dict[str, Any]:
    # A prompt is never left out, even if it equals that of the empty request.
    plain = {**dump(GenerateRequest(prompt=".")), "prompt": None}
    return {k: v for k, v in dump(request).items() if k not in _IGNORED and v != plain[k]}


def _dump_response(response: GenerateResponse) -> dict[str, Any]:
    plain = dump(GenerateResponse())
    fields = {name: value for name, value in dump(response).items() if value != plain[name]}
    if fields.get("content") == fields.get("text"):
        fields.pop("content", None)
    return fields


def _sort_key(entry: Mapping[str, Any]) -> tuple[int, str, str]:
    """Order calls by phase, seat and provider: they may end in another order each time."""
    phase, _, seat = str(entry["for"]).partition(" ")
    return _PHASES.get(phase, len(_PHASES)), seat, str(entry["provider"])


def _to_lines(value: Any) -> Any:
    """Replace each text of several lines by ``{"$lines": [...]}``; a key that begins with ``$`` gets a second one."""
    if isinstance(value, str):
        return {"$lines": value.split("\n")} if "\n" in value else value
    if isinstance(value, Mapping):
        return {f"${key}" if key.startswith("$") else key: _to_lines(item) for key, item in value.items()}
    return [_to_lines(item) for item in value] if isinstance(value, list) else value


def _from_lines(value: Any) -> Any:
    """Undo ``_to_lines``."""
    if isinstance(value, Mapping):
        if set(value) == {"$lines"}:
            return "\n".join(value["$lines"])
        return {key.removeprefix("$"): _from_lines(item) for key, item in value.items()}
    return [_from_lines(item) for item in value] if isinstance(value, list) else value
