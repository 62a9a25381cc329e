"""Encode, run, decode or raise: what every command-line agent does, written once."""

from __future__ import annotations

import os
import re
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import anyio
import attrs

from llm_council._runtime import per_loop
from llm_council._wire import prompted_tools
from llm_council.errors import CommandNotFound, CouncilError, InvalidOption, TimedOut
from llm_council.errors._secrets import Secret, clean
from llm_council.models import Limits, Timeouts
from llm_council.models._attrs import copy_with
from llm_council.models.capabilities import DoctorResult, ProviderCapabilities
from llm_council.models.reply import Adjustment, GenerateChunk, GenerateResponse, join
from llm_council.models.request import GenerateRequest
from llm_council.providers._agents.invocation import AgentEvents, Ended, Invocation
from llm_council.providers._call import error_mapping, fitting
from llm_council.providers._call.bounded import time_left
from llm_council.providers._call.profiles import profile_for
from llm_council.providers.base import ModelProfile, ProviderAdapter, try_out
from llm_council.transports._process import Command, absolute_path, find_program, running

__all__ = ["CommandLineProvider"]

# What any program may need of the machine: where things are, how to speak, how to get out. No key is among them.
_MACHINE = (
    "PATH HOME USER LOGNAME LANG LANGUAGE TERM TMPDIR TZ SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS"
    " HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy"
).split()
_MACHINE_PREFIXES = ("LC_", "XDG_")
# No browser is opened, no colours are written, nobody is asked.
_CALM = {"BROWSER": "false", "NO_COLOR": "1", "CI": "1"}
_CREDENTIAL = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|AUTH", re.IGNORECASE)

_EARLY = 1.0  # seconds before the call's own end in which the program is ended, so that the error says why
_AFTER_FINISH = 2.0  # seconds for a program to end by itself, once it has said how its work ended
_LOOK = 10.0  # seconds for a look at the program's version or its sign-in


class CommandLineProvider(ProviderAdapter):
    """Base of the providers that are programs. Subclasses name the program, and speak its dialect.

    The prompt goes to the program's stdin. It finds the environment's variables that any program needs, its own, and no
    others; it works in an empty folder, with its tools off; when a call ends, whatever way, its processes have ended.
    A request's tools stand in the prompt, and calls of them in the answer: the program itself calls nothing.

    Args:
        name: the name of this instance; None is the class's.
        program: the program's name, looked for on ``PATH``, or its absolute path; None is ``PROGRAM``.
        default_model: the model for requests that name none; None leaves the choice to the program.
        folder: where it works: it reads what it finds there, instructions and hooks included. None is an empty folder.
        variables: further variables of its environment, such as a cloud's credentials; ``None`` takes one away.
        at_once: how many of its processes run at the same time in one event loop.
        timeout: ``total`` is what counts.
        limits: ``stream`` bounds its stdout, ``event`` one line of it, ``error_body`` what is kept of its stderr.
        profile: what its models take, as a ``ModelProfile`` or a mapping of its fields; None looks it up.

    Raises:
        InvalidOption: an argument will not do.
    """

    PROGRAM: ClassVar[str]
    INSTALL: ClassVar[str]
    SIGN_IN: ClassVar[str]
    TRIED: ClassVar[str]
    VARIABLES: ClassVar[tuple[str, ...]] = ()
    KEYS: ClassVar[tuple[str, ...]] = ()
    TAKES_MAX_TOKENS: ClassVar[bool] = False

    @error_mapping.guarded
    def __init__(
        self,
        *,
        name: str | None = None,
        program: str | None = None,
        default_model: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        variables: Mapping[str, str | Secret | None] | None = None,
        at_once: int = 4,
        timeout: Timeouts | Mapping[str, Any] = Timeouts(),
        limits: Limits | Mapping[str, Any] = Limits(),
        profile: ModelProfile | Mapping[str, Any] | None = None,
    ) -> None:
        if name is not None:
            self.name = name  # type: ignore[misc]  # a class attribute for authors, an instance's own here
        if type(at_once) is not int or at_once < 1:
            raise InvalidOption(f"{type(self).__name__}.at_once: a whole number of 1 or more, got {at_once!r:.80}")
        self.program = self.PROGRAM if program is None else program
        self.default_model = default_model
        self.folder = None if folder is None else str(Path(folder).expanduser().absolute())
        self._variables = {key: _sealed(key, value) for key, value in (variables or {}).items()}
        self._at_once = at_once
        self._timeouts = timeout if isinstance(timeout, Timeouts) else Timeouts(**timeout)
        self._limits = limits if isinstance(limits, Limits) else Limits(**limits)
        self._profile = profile if profile is None or isinstance(profile, ModelProfile) else ModelProfile(**profile)
        self._found: str | None = None

    # What a dialect says.

    @abstractmethod
    def invocation(self, request: GenerateRequest, *, live: bool) -> Invocation:
        """Return how a request, which has been fitted, is put to the program; override to add to its arguments.

        Args:
            request: what is asked.
            live: have the answer told in pieces.
        """

    @abstractmethod
    def _reader(self) -> AgentEvents:
        """Return what reads the program's events."""

    @abstractmethod
    async def _sign_in(self) -> str | None:
        """Return how the program is signed in, or None where only a call would tell.

        Raises:
            AuthenticationFailed: it is not.
        """

    # What all of them do.

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Run the program for a request, and return its answer."""
        async with aclosing(self._pieces(request, live=False)) as pieces:
            return join([piece async for piece in pieces])

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Run the program for a request, and yield what it says as it says it."""
        async with aclosing(self._pieces(request, live=True)) as pieces:
            async for piece in pieces:
                yield piece

    async def _pieces(self, request: GenerateRequest, *, live: bool) -> AsyncGenerator[GenerateChunk, None]:
        listener = prompted_tools.Listener(request, self._limits)
        async with aclosing(self._told(request, live=live)) as pieces:
            async for piece in pieces:
                for found in listener.feed(piece):
                    yield found
        for found in listener.finish():
            yield found

    async def _told(self, request: GenerateRequest, *, live: bool) -> AsyncGenerator[GenerateChunk, None]:
        """Yield what the program says, with its calls of tools in its words."""
        fitted, adjustments = self._prepared(request)
        asked = self.invocation(fitted, live=live)
        program = self._located()
        total = time_left(request, self._timeouts.total)
        ends = None if total is None else time.monotonic() + max(total - _EARLY, total * 0.75)
        if adjustments:
            yield GenerateChunk(adjustments=adjustments)
        reader = self._reader()
        async with AsyncExitStack() as stack:
            await self._place(stack, ends)
            command = Command(
                program=program,
                arguments=asked.arguments,
                stdin=asked.stdin,
                environment={**self._environment(), **asked.variables},
                folder=self.folder,
            )
            left = None if ends is None else ends - time.monotonic()
            process = await stack.enter_async_context(running(command, limits=self._limits, seconds=left))
            try:
                while data := await process.read():
                    for piece in reader.feed(data):
                        yield piece
                    if reader.finished:
                        process.hurry(_AFTER_FINISH)
                code = await process.wait()
            except CouncilError as error:
                if not isinstance(error, TimedOut):
                    if hasattr(type(error), "partial"):
                        error.fill(partial=reader.words)
                    raise
                if not reader.finished:
                    raise self._late(reader, process.tail(), total) from None
                code = 0  # it has said all, and does not end: it is ended, and its word taken
            ended = Ended(exit_code=code, stderr=process.tail(), at=datetime.now().astimezone())
        for piece in reader.finish(ended):
            yield piece

    async def _place(self, stack: AsyncExitStack, ends: float | None) -> None:
        """Wait for one of the places that programs have here."""
        places = await per_loop.get(self, "places", lambda: anyio.Semaphore(self._at_once), _leave)
        with anyio.move_on_after(None if ends is None else ends - time.monotonic()):
            await places.acquire()
            stack.callback(places.release)
            return
        raise TimedOut(f"{self.name} waited too long for its turn: {self._at_once} run at once", phase="pool")

    def _late(self, reader: AgentEvents, stderr: str, seconds: float | None) -> TimedOut:
        said = reader.note or _last_words(stderr)
        heard = f"; it last said: {said[:300]}" if said else f"; if it waits for a sign-in: {self.SIGN_IN}"
        message = f"{self.name} did not answer within {seconds or 0:.3g} s{heard}"
        return TimedOut(message, phase="deadline").fill(partial=reader.words)

    def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        """Return the request as it will be put: fitted, for those who did not come through the door, with a model."""
        fitted, adjustments = fitting.fit(request, self._abilities(request), self._profile_of(request.model))
        if fitted.max_tokens is not None and not self.TAKES_MAX_TOKENS:
            reason = f"{self.PROGRAM} has no option for it"
            dropped = Adjustment(field="max_tokens", action="dropped", asked=fitted.max_tokens, reason=reason)
            fitted, adjustments = attrs.evolve(fitted, max_tokens=None), (*adjustments, dropped)
        fitted, spoken = prompted_tools.said(fitted)
        model = fitted.model or self.default_model
        return (fitted if fitted.model == model else copy_with(fitted, model=model)), adjustments + spoken

    def _abilities(self, request: GenerateRequest) -> ProviderCapabilities:
        """Return what it can do for this request: held to a schema, no model could call a tool in words."""
        if request.structured_output is None or not prompted_tools.offered(request):
            return self.capabilities
        return attrs.evolve(self.capabilities, structured_output=False)

    def _located(self) -> str:
        """Return the program's absolute path; it is looked for once.

        Raises:
            CommandNotFound: it is not installed; the message says how it is.
        """
        if self._found is None:
            try:
                self._found = find_program(self.program, os.environ.get("PATH"))
            except CommandNotFound as error:
                raise CommandNotFound(f"{error.message}; {self.INSTALL}", provider=self.name) from None
        return self._found

    def _environment(self) -> dict[str, str | Secret]:
        """Return all that the program finds in its environment."""
        own = {*self.VARIABLES, *self.KEYS}
        found: dict[str, str | Secret] = {
            name: _sealed(name, value) or ""
            for name, value in os.environ.items()
            if name in own or name in _MACHINE or name.startswith(_MACHINE_PREFIXES)
        }
        found |= {"PATH": absolute_path(os.environ.get("PATH")), **_CALM}
        for name, value in self._variables.items():
            if value is None:
                found.pop(name, None)
            else:
                found[name] = value
        return found

    def _has_key(self) -> str | None:
        """Return the variable of a key that the program will find."""
        found = self._environment()
        return next((name for name in self.KEYS if found.get(name)), None)

    async def _look(self, *arguments: str) -> tuple[int, str]:
        """Run the program for a word about itself; return its exit status and what it wrote."""
        command = Command(program=self._located(), arguments=arguments, environment=self._environment())
        said = b""
        async with running(command, limits=self._limits, seconds=_LOOK) as process:
            while data := await process.read():
                said += data
            return await process.wait(), clean(said.decode("utf-8", "replace").strip(), limit=16 * 1024)

    def check(self) -> None:
        """Refuse to start without the program.

        Raises:
            CommandNotFound: it is not installed; the message says how it is.
        """
        self._located()

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Look for the program, its version and its sign-in; ``deep`` makes a call too."""
        began = time.monotonic()
        details: dict[str, Any] = {}
        try:
            details["program"] = self._located()
            code, said = await self._look("--version")
            version = re.search(r"\d+(?:\.\d+)+", said)
            details |= {"version": version[0] if version else None, "tried_with": self.TRIED}
            signed_in = None if code else await self._sign_in()
            details["sign_in"] = signed_in
        except CouncilError as error:
            return DoctorResult(
                ok=False, message=error.message, latency_ms=(time.monotonic() - began) * 1000, details=details
            )
        latency = (time.monotonic() - began) * 1000
        if code:
            message = f"{details['program']} --version ended with {code}: {said[:200]}"
            return DoctorResult(ok=False, message=message, latency_ms=latency, details=details)
        if deep:
            called = await try_out(self)
            return attrs.evolve(called, details={**details, **called.details})
        words = [f"{self.PROGRAM} {details['version'] or 'of an unknown version'}"]
        words.append(f"signed in by {signed_in}" if signed_in else "whether it is signed in, a deep check tells")
        if _line(details["version"]) != _line(self.TRIED):
            words.append(f"this library was tried with {self.TRIED}")
        return DoctorResult(ok=True, message="; ".join(words), latency_ms=latency, details=details)

    def cache_identity(self) -> str:
        """Return the name, the program and the model."""
        return f"{super().cache_identity()}:{self.program}:{self.default_model or ''}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} by {self.program}>"

    def _profile_of(self, model: str | None) -> ModelProfile:
        return self._profile or profile_for(self._family(), model or self.default_model)

    @classmethod
    def _family(cls) -> str:
        """Return the name of the built-in class that this one comes from: a subclass is of its parent's kind."""
        ours = [base for base in cls.__mro__ if base.__module__.startswith("llm_council.providers.cli.")]
        return next((vars(base)["name"] for base in ours if "name" in vars(base)), "")


async def _leave(_: anyio.Semaphore) -> None:
    """Close nothing: a semaphore ends with its loop."""


def _sealed(name: str, value: str | Secret | None) -> str | Secret | None:
    """Take the value of a variable that is called after a credential as a secret."""
    if not isinstance(value, str) or not _CREDENTIAL.search(name):
        return value
    try:
        return Secret(value, env=name)
    except ValueError:  # a value with spaces, or none: no key that a header carries
        return value


def _line(version: str | None) -> str:
    """Return the part of a version that tells incompatible ones apart."""
    parts = (version or "").split(".")
    return parts[0] if parts[0] != "0" else ".".join(parts[:2])


def _last_words(stderr: str) -> str:
    """Return the last line of a program's stderr that says something: no bracket, no frame of a stack."""
    lines = [line.strip() for line in stderr.splitlines()]
    return next((line for line in reversed(lines) if " " in line and not line.startswith(("at ", "..."))), "")
