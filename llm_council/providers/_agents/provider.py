"""The base class of the command-line agents: build the command, run the program, decode its output or raise."""

from __future__ import annotations

import os
import re
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

import anyio
import attrs

from llm_council._runtime import per_loop
from llm_council._runtime.posix import require_posix
from llm_council._wire import prompted_tools
from llm_council.errors import CommandNotFound, CouncilError, InvalidOption, TimedOut
from llm_council.errors._secrets import Secret, clean
from llm_council.models import Limits, Timeouts
from llm_council.models._attrs import as_instance, copy_with, provider_name
from llm_council.models._paths import absolute, expand_user
from llm_council.models.capabilities import DoctorResult, ProviderCapabilities
from llm_council.models.reply import Adjustment, GenerateChunk, GenerateResponse, join
from llm_council.models.request import GenerateRequest
from llm_council.providers._agents.errors import Ended
from llm_council.providers._agents.invocation import AgentEvents, Invocation
from llm_council.providers._call import error_mapping, fitting, second_way
from llm_council.providers._call.bounded import time_left
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers._call.profiles import profile_for
from llm_council.providers._call.projecting import Restorer
from llm_council.providers.base import ModelProfile, ProviderAdapter, try_out
from llm_council.transports._process import Command, absolute_path, find_program, running

__all__ = ["CommandLineProvider"]

# Variables that every program gets: paths, language, certificates, proxies. None of them holds a key.
_MACHINE = (
    "PATH HOME USER LOGNAME LANG LANGUAGE TERM TMPDIR TZ SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS"
    " HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy"
).split()
_MACHINE_PREFIXES = ("LC_", "XDG_")
# Open no browser, write no colours, ask no questions.
_NON_INTERACTIVE = {"BROWSER": "false", "NO_COLOR": "1", "CI": "1"}
_CREDENTIAL = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|AUTH", re.IGNORECASE)

_EARLY = 1.0  # seconds before the call's deadline at which the program is ended, so that the error can quote its output
_AFTER_FINISH = 2.0  # seconds for a program to exit after its final event
_PROBE_SECONDS = 10.0  # for the questions about version and sign-in


class CommandLineProvider(ProviderAdapter):
    """Base class of the command-line agents. A subclass names the program, encodes requests and decodes events.

    The prompt goes to the program's stdin. The environment holds the variables that every program needs and the
    program's own, and no others. The program runs in an empty folder with its tools off. When a call ends, in any way,
    its processes have ended. A request's tools are described in the prompt and called in the answer's text; the program
    itself calls none.

    Args:
        name: the name of this instance; None is the class's.
        program: the program's name, looked for on ``PATH``, or its absolute path; None is ``PROGRAM``.
        default_model: the model for requests that name none; None leaves the choice to the program.
        folder: the program's working folder, whose files it may read, instructions and hooks included. None is an empty
            folder.
        variables: further environment variables, such as a cloud's credentials; a value of ``None`` removes one.
        at_once: how many processes of the program may run at the same time in one event loop.
        timeout: only ``total`` is used.
        limits: ``stream`` bounds stdout, ``event`` one line of it, ``error_body`` the stored end of stderr.
        profile: the facts about the program's models, as a ``ModelProfile`` or a mapping of its fields; None looks them
            up.

    Raises:
        InvalidOption: an argument is invalid.
    """

    PROGRAM: ClassVar[str]
    INSTALL: ClassVar[str]
    SIGN_IN: ClassVar[str]
    TRIED: ClassVar[str]
    VARIABLES: ClassVar[tuple[str, ...]] = ()
    KEYS: ClassVar[tuple[str, ...]] = ()
    TAKES_MAX_TOKENS: ClassVar[bool] = False

    @error_mapping.hide_frames
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
            self.name = provider_name(name)  # type: ignore[misc]  # a class attribute for authors, an instance's own here
        if type(at_once) is not int or at_once < 1:
            raise InvalidOption(f"{type(self).__name__}.at_once: a whole number of 1 or more, got {at_once!r:.80}")
        self.program = self.PROGRAM if program is None else program
        self.default_model = default_model
        self.folder = None if folder is None else str(absolute(expand_user(folder)))
        self._variables = {key: _as_secret(key, value) for key, value in (variables or {}).items()}
        self._at_once = at_once
        self._timeouts = as_instance("timeout", Timeouts, timeout)
        self._limits = as_instance("limits", Limits, limits)
        self._profile = None if profile is None else as_instance("profile", ModelProfile, profile)
        self._found: str | None = None

    @abstractmethod
    def invocation(self, request: GenerateRequest, *, live: bool) -> Invocation:
        """Encode a fitted request; override to add arguments.

        Args:
            request: the request.
            live: True streams the answer in pieces.
        """

    @abstractmethod
    def _reader(self) -> AgentEvents:
        """Return a new decoder of the program's events."""

    @abstractmethod
    async def _sign_in(self) -> str | None:
        """Return how the program is signed in, or None if only a call can show it.

        Raises:
            AuthenticationFailed: the program is not signed in.
        """

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Run the program for a request, and return its answer."""
        response = await second_way.ask(self, request, self._answer)
        ignored = await fitting.find_violations(request, response)
        return attrs.evolve(response, adjustments=response.adjustments + ignored) if ignored else response

    async def _answer(self, request: GenerateRequest) -> GenerateResponse:
        async with aclosing(self._pieces(request, live=False)) as pieces:
            return join([piece async for piece in pieces])

    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Run the program for a request, and yield pieces of its answer as they arrive."""
        attempt = partial(self._pieces, live=True)
        arrived: list[GenerateChunk] = []
        async with aclosing(second_way.ask_streamed(self, request, attempt)) as pieces:
            async for piece in pieces:
                if fitting.may_be_ignored(request):
                    arrived.append(piece)
                yield piece
        ignored = await fitting.find_violations(request, join(arrived)) if arrived else ()
        if ignored:
            yield GenerateChunk(adjustments=ignored)

    async def _pieces(self, request: GenerateRequest, *, live: bool) -> AsyncGenerator[GenerateChunk, None]:
        parser = prompted_tools.CallParser(request, self._limits)
        fitted, _ = self._fit(request)
        restorer = Restorer(request, fitted, self._abilities(request), self._profile_of(request.model))
        async with aclosing(self._raw_pieces(request, live=live)) as pieces:
            async for piece in pieces:
                for found in parser.feed(piece):
                    for restored in restorer.feed(found):
                        yield restored
        for found in parser.finish():
            for restored in restorer.feed(found):
                yield restored
        for restored in restorer.finish():
            yield restored

    async def _raw_pieces(self, request: GenerateRequest, *, live: bool) -> AsyncGenerator[GenerateChunk, None]:
        """Yield the program's answer; calls of tools are still part of its text."""
        fitted, adjustments = self._fit(request)
        asked = self.invocation(fitted, live=live)
        program = self._find_program()
        total = time_left(request, self._timeouts.total)
        ends = None if total is None else time.monotonic() + max(total - _EARLY, total * 0.75)
        if adjustments:
            yield GenerateChunk(adjustments=adjustments)
        reader = self._reader()
        async with AsyncExitStack() as stack:
            await self._take_slot(stack, ends)
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
                    raise self._timeout_error(reader, process.tail(), total) from None
                code = 0  # the answer is complete but the program did not exit: end it and use the answer
            # Local time: agents name the hour at which a limit ends in the machine's time zone.
            ended = Ended(exit_code=code, stderr=process.tail(), at=datetime.now().astimezone())
        for piece in reader.finish(ended):
            yield piece

    async def _take_slot(self, stack: AsyncExitStack, ends: float | None) -> None:
        """Wait until fewer than ``at_once`` programs run in this event loop."""
        places = await per_loop.get(self, "places", lambda: anyio.Semaphore(self._at_once), _close_nothing)
        with anyio.move_on_after(None if ends is None else ends - time.monotonic()):
            await places.acquire()
            stack.callback(places.release)
            return
        raise TimedOut(f"{self.name} waited too long for its turn: {self._at_once} run at once", phase="pool")

    def _timeout_error(self, reader: AgentEvents, stderr: str, seconds: float | None) -> TimedOut:
        last = reader.note or _last_words(stderr)
        hint = f"; it last said: {last[:300]}" if last else f"; if it waits for a sign-in: {self.SIGN_IN}"
        message = f"{self.name} did not answer within {seconds or 0:.3g} s{hint}"
        return TimedOut(message, phase="deadline").fill(partial=reader.words)

    def _fit(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        """Fit the request to the program, for callers that bypass the entry, and fill in the default model."""
        fitted, adjustments = fitting.fit(request, self._abilities(request), self._profile_of(request.model))
        if fitted.max_tokens is not None and not self.TAKES_MAX_TOKENS:
            reason = f"{self.PROGRAM} has no option for it"
            dropped = Adjustment(field="max_tokens", action="dropped", asked=fitted.max_tokens, reason=reason)
            fitted, adjustments = attrs.evolve(fitted, max_tokens=None), (*adjustments, dropped)
        fitted, spoken = prompted_tools.describe_tools(fitted)
        model = fitted.model or self.default_model
        return (fitted if fitted.model == model else copy_with(fitted, model=model)), adjustments + spoken

    def _abilities(self, request: GenerateRequest) -> ProviderCapabilities:
        """Return the capabilities for this request: an answer bound to a schema could not call tools in its text."""
        if request.structured_output is None or not prompted_tools.callable_tools(request):
            return self.capabilities
        return attrs.evolve(self.capabilities, structured_output=False)

    def _find_program(self) -> str:
        """Return the program's absolute path, searched for once.

        Raises:
            CommandNotFound: the program is not installed; the message names the command that installs it.
        """
        if self._found is None:
            try:
                self._found = find_program(self.program, os.environ.get("PATH"))
            except CommandNotFound as error:
                raise CommandNotFound(f"{error.message}; {self.INSTALL}", provider=self.name) from None
        return self._found

    def _environment(self) -> dict[str, str | Secret]:
        """Return the program's whole environment."""
        own = {*self.VARIABLES, *self.KEYS}
        found: dict[str, str | Secret] = {
            name: _as_secret(name, value) or ""
            for name, value in os.environ.items()
            if name in own or name in _MACHINE or name.startswith(_MACHINE_PREFIXES)
        }
        # A relative entry of PATH would be searched in the program's working folder.
        found |= {"PATH": absolute_path(os.environ.get("PATH")), **_NON_INTERACTIVE}
        for name, value in self._variables.items():
            if value is None:
                found.pop(name, None)
            else:
                found[name] = value
        return found

    def _has_key(self) -> str | None:
        """Return the name of the variable that holds the program's key, if one is set."""
        found = self._environment()
        return next((name for name in self.KEYS if found.get(name)), None)

    async def _probe(self, *arguments: str) -> tuple[int, str]:
        """Run the program with these arguments; return its exit status and its stdout, redacted."""
        command = Command(program=self._find_program(), arguments=arguments, environment=self._environment())
        output = b""
        async with running(command, limits=self._limits, seconds=_PROBE_SECONDS) as process:
            while data := await process.read():
                output += data
            return await process.wait(), clean(output.decode("utf-8", "replace").strip(), limit=16 * 1024)

    def _most_calls_at_once(self) -> int | None:
        return self._at_once

    def check(self) -> None:
        """Check that the platform can run programs in groups, and that the program is installed.

        Raises:
            UnsupportedEnvironmentError: the platform cannot; the message names what is missing.
            CommandNotFound: it is not; the message names the command that installs it.
        """
        require_posix("command-line agents need")
        self._find_program()

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Check the program, its version and its sign-in; ``deep`` makes a call too."""
        began = time.monotonic()
        details: dict[str, Any] = {}
        try:
            require_posix("command-line agents need")
            details["program"] = self._find_program()
            code, output = await self._probe("--version")
            version = re.search(r"\d+(?:\.\d+)+", output)
            details |= {"version": version[0] if version else None, "tried_with": self.TRIED}
            signed_in = None if code else await self._sign_in()
            details["sign_in"] = signed_in
        except CouncilError as error:
            return DoctorResult(
                ok=False, message=error.message, latency_ms=(time.monotonic() - began) * 1000, details=details
            )
        latency = (time.monotonic() - began) * 1000
        if code:
            message = f"{details['program']} --version ended with {code}: {output[:200]}"
            return DoctorResult(ok=False, message=message, latency_ms=latency, details=details)
        if deep:
            called = await try_out(self)
            return attrs.evolve(called, details={**details, **called.details})
        words = [f"{self.PROGRAM} {details['version'] or 'of an unknown version'}"]
        words.append(f"signed in by {signed_in}" if signed_in else "a deep check shows whether it is signed in")
        if _release_line(details["version"]) != _release_line(self.TRIED):
            words.append(f"this library was tried with {self.TRIED}")
        return DoctorResult(ok=True, message="; ".join(words), latency_ms=latency, details=details)

    def cache_identity(self) -> str:
        """Return the name, the program and the model."""
        return f"{self._class_identity()}:{self.program}:{self.default_model or ''}{self._arguments_identity()}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} by {self.program}>"

    def _profile_of(self, model: str | None) -> ModelProfile:
        return self._profile or profile_for(self._family(), model or self.default_model)

    @classmethod
    def _family(cls) -> str:
        """Return the name of the built-in class from which this one inherits; its profiles apply to subclasses too."""
        ours = [base for base in cls.__mro__ if base.__module__.startswith("llm_council.providers.cli.")]
        return next((vars(base)["name"] for base in ours if "name" in vars(base)), "")


async def _close_nothing(_: anyio.Semaphore) -> None:
    """Do nothing: a semaphore needs no closing."""


def _as_secret(name: str, value: str | Secret | None) -> str | Secret | None:
    """Wrap the value of a variable whose name suggests a credential in ``Secret``."""
    # A Secret is masked in messages and logs; a path or a language beside it must stay readable.
    if not isinstance(value, str) or not _CREDENTIAL.search(name):
        return value
    try:
        return Secret(value, env=name)
    except ValueError:  # a value that is empty or has spaces is not a key
        return value


def _release_line(version: str | None) -> str:
    """Return the part of a version that changes with incompatible releases: the major, or 0.minor."""
    parts = (version or "").split(".")
    return parts[0] if parts[0] != "0" else ".".join(parts[:2])


def _last_words(stderr: str) -> str:
    """Return the last line of stderr that is a sentence: not a bracket, not a frame of a stack trace."""
    lines = [line.strip() for line in stderr.splitlines()]
    return next((line for line in reversed(lines) if " " in line and not line.startswith(("at ", "..."))), "")
