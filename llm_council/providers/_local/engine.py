"""Start, share, watch and end the embedded engine: one child process for each model in this program.

Start: ``running`` starts the process (``server.py``) on first use and waits until it listens. The settings and a random
API key go to its stdin; its loopback address comes back on stdout.

Watch: a daemon thread per engine starts the process and waits for its exit; a second one keeps the end of its log in
memory. While calls wait, the first one looks from time to time whether the process answers or computes; if it does
neither, it is killed, and the next call starts another. No lock is held while waiting, so many event loops and threads
can call at once.

End: each adapter that uses an engine is one of its holders. The engine ends when its last holder releases it or is
collected, and when this program exits: the process ends once its stdin is closed.

Fork: a forked child forgets the parent's engines and starts its own on demand.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from typing import Any

import anyio
import attrs

from llm_council._runtime.posix import require_posix
from llm_council.errors import CommandFailed, CouncilError, MissingDependency, TimedOut, UnsupportedEnvironmentError
from llm_council.errors._secrets import Secret, clean

__all__ = ["Engine", "EngineSpec", "default_threads", "installed", "release", "running", "state"]

START_SECONDS = 120.0
"""Most seconds from the start of the process to its address: large weights on a slow disk."""

LOG_BYTES = 64 * 1024
"""Bytes of the end of the engine's log that are stored, in memory only."""

PROBE_SECONDS = 5.0
"""Seconds between two looks at an engine that calls wait for, and most seconds that it may take to answer one."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")

MOST_GENERATING = 4
MOST_READING = 8
"""Models of the size that runs here gain nothing from more."""

_SERVER = Path(__file__).with_name("server.py")
# LD_LIBRARY_PATH: some interpreters do not start without it. No key, no PYTHONPATH, no LD_PRELOAD.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


@attrs.frozen(kw_only=True)
class EngineSpec:
    """The settings of an engine; callers with equal settings share one process.

    Attributes:
        model: absolute path of the weights.
        alias: the name that replies carry.
        slots: requests that are computed at once; further ones queue in the engine.
        context: tokens of one slot, prompt and answer together.
        threads: threads that generate.
        batch_threads: threads that read prompts.
    """

    model: str
    alias: str
    slots: int = 4
    context: int = 4096
    threads: int = attrs.field(factory=lambda: default_threads()[0])
    batch_threads: int = attrs.field(factory=lambda: default_threads()[1])


def default_threads() -> tuple[int, int]:
    """Return how many threads generate and how many read prompts.

    With both cores of a two-core machine busy, two generating threads were 30 times slower than one: they wait for each
    other at every layer. One core stays free, therefore. Prompts are read in large batches and gain from every core,
    as long as waiting threads sleep (``OMP_WAIT_POLICY=passive``).
    """
    cores = _cores()
    return max(1, min(cores - 1, MOST_GENERATING)), max(1, min(cores, MOST_READING))


def _cores() -> int:
    """Return the cores that this process may use; a container may have less time than its cores would give."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else (os.cpu_count() or 1)
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return cores


def installed() -> str:
    """Return the folder from which the engine's package is imported, without importing it.

    Raises:
        UnsupportedEnvironmentError: the platform cannot run it.
        MissingDependency: it is not installed.
    """
    require_posix("the embedded engine needs")
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(
            "the local provider needs the embedded engine: pip install 'llm-council-sdk[local]'", provider="local"
        )
    return str(Path(next(iter(spec.submodule_search_locations))).parent)


class Engine:
    """One engine process and the thread that starts it and waits for its exit.

    Attributes:
        spec: its settings.
        key: the API key of its server.
        address: its base URL; empty until it listens, and if it failed to start.
        grammar: the grammars that it was built for: ``"llguidance"`` or ``"gbnf"``.
        settled: set once it listens or has ended.
        ended: set once the process is gone.
        calls: the calls that wait for an answer of it.
        holders: ids of the objects that use it.
        speaker: the adapter's HTTP client for this engine; stored here so that it lives as long as the engine.
    """

    def __init__(self, spec: EngineSpec, packages: str) -> None:
        self.spec = spec
        self.key = Secret(secrets.token_urlsafe(32))
        self.address = ""
        self.grammar = ""
        self.settled = threading.Event()
        self.ended = threading.Event()
        self.holders: set[int] = set()
        self.calls: set[object] = set()
        self.speaker: Any = None
        self._packages = packages
        self._log: deque[bytes] = deque()
        self._logged = 0
        self._start_error = ""
        self._stopping = False
        self._start_timed_out = False
        self._is_frozen = False
        self._process: subprocess.Popen[bytes] | None = None
        # The kernel ends the process when the thread that started it ends: it must be this one, which waits for it.
        self._thread = threading.Thread(target=self._supervise, name="llm-council-engine", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process id; None before the start."""
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.returncode if self._process else None

    @property
    def usable(self) -> bool:
        """Whether a new caller may wait for this engine or call it."""
        if self._stopping or self.ended.is_set():
            return False
        return self._process is None or self._process.poll() is None

    def start(self) -> None:
        """Start the process, without waiting for it."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the process to end by closing its stdin; does not wait."""
        self._stopping = True
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    async def wait(self, event: threading.Event, seconds: float | None = None) -> bool:
        """Wait for ``settled`` or ``ended`` in any event loop, at most so long; return whether it is set."""
        with anyio.move_on_after(seconds):
            while not event.is_set():  # noqa: ASYNC110 - a thread sets it, for any number of event loops
                await anyio.sleep(0.01)
        return event.is_set()

    def join(self, seconds: float) -> None:
        """Wait until the process has ended; kill it when it takes longer than this."""
        if not self.ended.wait(seconds):
            self._kill()
            self.ended.wait(seconds)

    def log(self, limit: int = 4096) -> str:
        """Return the end of what the engine wrote, at most this many characters, redacted."""
        text = b"".join(tuple(self._log)).decode("utf-8", "replace")
        return clean(text[-limit:], limit=limit)

    def failure(self) -> CouncilError:
        """Return a new error that says why this engine does not run."""
        if isinstance(self.exit_code, int) and self.address:
            ending = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit status {self.exit_code}"
            happened = "answered and computed nothing any more" if self._is_frozen else f"ended with {ending}"
            return CommandFailed(
                f"the local engine {happened} during the call; the next call starts it again",
                exit_code=self.exit_code,
                stderr_tail=self.log(),
                provider="local",
                retryable=True,
            )
        if self._start_timed_out:
            return TimedOut(
                f"the local engine did not start within {START_SECONDS:g} s; the end of its log: {self.log(500)}",
                phase="connect",
                provider="local",
            )
        return CommandFailed(
            f"the local engine could not load {self.spec.model}: {self._start_error or 'no reason given'}; "
            f"the end of its log: {self.log(500)}",
            exit_code=self.exit_code,
            stderr_tail=self.log(),
            provider="local",
        )

    def forget(self) -> None:
        """In a forked child: close the copies of the pipes, without a signal or a wait for the parent's process."""
        process = self._process
        if process is None:
            return
        _close_pipes(process)
        process.returncode = 0  # else its finalizer would warn of, and wait for, a process that is not ours

    def _supervise(self) -> None:
        watchdog = threading.Timer(START_SECONDS, self._give_up)
        watchdog.daemon = True
        try:
            self._process = process = self._spawn()
        except OSError as exc:
            self._start_error = f"{type(exc).__name__}: {exc}"
            self.settled.set()
            self.ended.set()
            return
        if self._stopping:
            self.stop()
        watchdog.start()
        drain = threading.Thread(target=self._drain, args=(process,), name="llm-council-engine-log", daemon=True)
        drain.start()
        self._exchange_settings(process)
        watchdog.cancel()
        while drain.is_alive():  # until the process has ended, and its log with it
            drain.join(PROBE_SECONDS)
            if drain.is_alive() and self.calls and self.address and self._has_frozen(process.pid):
                self._is_frozen = True
                self._kill()
        process.wait()
        drain.join(1.0)
        _close_pipes(process)
        self.ended.set()
        self.settled.set()

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        return subprocess.Popen(  # an absolute path of ours, no shell
            [sys.executable, "-I", "-X", "faulthandler", str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # raw pipes have no lock that a fork could leave held
            cwd="/",
            env={**environment, "OMP_WAIT_POLICY": "passive"},
            start_new_session=True,
        )

    def _exchange_settings(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - for the type checker
        settings = {**attrs.asdict(self.spec), "packages": self._packages, "api_key": self.key.reveal()}
        try:
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            answer = json.loads(process.stdout.readline() or b"{}")
        except (OSError, ValueError) as exc:
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        if "address" in answer:
            self.grammar = str(answer["grammar"])
            self.address = str(answer["address"])
            self.settled.set()
        else:
            self._start_error = str(answer.get("error") or "it ended while starting")

    def _has_frozen(self, pid: int) -> bool:
        """Return True if the process answers no request and uses no processor meanwhile; takes ``PROBE_SECONDS``."""
        before = _processor_time(pid)
        host, _, port = self.address.removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PROBE_SECONDS)
        try:
            connection.request("GET", "/health")
            connection.getresponse()
        except TimeoutError:
            # Its threads may all be busy with other requests: then it computes.
            return before == _processor_time(pid)
        except (OSError, http.client.HTTPException):  # it has ended, or answers something
            return False
        finally:
            connection.close()
        return False

    def _drain(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None  # noqa: S101 - for the type checker
        with contextlib.suppress(OSError, ValueError):
            while piece := process.stderr.read(8192):
                self._log.append(piece)
                self._logged += len(piece)
                while self._logged - len(self._log[0]) >= LOG_BYTES:
                    self._logged -= len(self._log.popleft())

    def _give_up(self) -> None:
        self._start_timed_out = True
        self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()


def _processor_time(pid: int) -> tuple[str, ...]:
    """Return the processor time that a process has used, in units of the kernel; empty where it cannot be read."""
    try:
        # proc(5): of the fields after the name in brackets, the 12th and 13th are the times in user and kernel mode.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # other systems have no such file
        return ()
    return tuple(fields[11:13])


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


_lock = threading.Lock()
_engines: dict[EngineSpec, Engine] = {}
_dropped: deque[int] = deque()  # holders that ended and whose engines are still to be given up
_finalizers: dict[int, weakref.finalize[Any, Any]] = {}


async def running(spec: EngineSpec, holder: object) -> Engine:
    """Return the engine for a model, started if need be, and keep it for the holder until ``release`` or its end.

    Args:
        spec: which engine.
        holder: any object that can be referred to weakly; it is not kept alive.

    Raises:
        MissingDependency: the engine is not installed.
        UnsupportedEnvironmentError: this program cannot start a Python of its own kind.
        CommandFailed, TimedOut: the engine did not start; the message ends with its log.
    """
    packages = installed()
    if not sys.executable or os.name != "posix":
        raise UnsupportedEnvironmentError(
            "the local engine runs in a Python process of its own, which needs Linux or macOS and sys.executable",
            provider="local",
        )
    with _lock:  # for microseconds: nobody waits while holding it but for a thread to start
        stopped = _release_collected()  # first: an id among them may be this holder's now
        engine = _engines.get(spec)
        if engine is None or not engine.usable:
            holders = engine.holders if engine else set()
            engine = _engines[spec] = Engine(spec, packages)
            engine.holders |= holders
            atexit.unregister(_stop_all)  # so that it is registered once, whatever the number of engines
            atexit.register(_stop_all)
            engine.start()
        engine.holders.add(id(holder))
        if id(holder) not in _finalizers:
            _finalizers[id(holder)] = weakref.finalize(holder, _drop, id(holder))
    _stop(stopped)
    await engine.wait(engine.settled)
    if not engine.address:
        raise engine.failure()
    return engine


def release(holder: object) -> tuple[Engine, ...]:
    """Remove a holder from its engines; stop the engines without a holder, and return them so that one can wait."""
    finalizer = _finalizers.get(id(holder))
    if finalizer is not None:
        finalizer.detach()
    return _release(id(holder))


def _release(holder: int) -> tuple[Engine, ...]:
    with _lock:
        stopped = _give_up(holder)
    _stop(stopped)
    return tuple(stopped)


def _drop(holder: int) -> None:
    """Give up the engines of a collected holder.

    The garbage collector may call this in any thread, even in one that holds the lock: it must not wait for it.
    """
    _dropped.append(holder)  # a deque, whose `append` needs no lock
    _stop([])


def _stop(engines: list[Engine]) -> None:
    """Stop engines, then those of holders that were collected meanwhile.

    If another thread holds the lock, it calls this function next and does the rest.
    """
    while True:
        for engine in engines:
            engine.stop()
        if not _dropped or not _lock.acquire(blocking=False):
            return
        try:
            engines = _release_collected()
        finally:
            _lock.release()


def _release_collected() -> list[Engine]:
    stopped = []
    while _dropped:
        stopped += _give_up(_dropped.popleft())
    return stopped


def _give_up(holder: int) -> list[Engine]:
    _finalizers.pop(holder, None)
    held = [spec for spec, engine in tuple(_engines.items()) if holder in engine.holders]
    for spec in held:
        _engines[spec].holders.discard(holder)
    return [_engines.pop(spec) for spec in held if not _engines[spec].holders]


def state(spec: EngineSpec) -> str:
    """Describe the state of a model's engine in this program, in a few words."""
    engine = _engines.get(spec)
    if engine is None or not engine.usable:
        return "not started; the first call starts it"
    return f"running at {engine.address}, process {engine.pid}" if engine.address else "starting"


def _stop_all() -> None:
    engines = tuple(_engines.values())
    _engines.clear()
    for engine in engines:
        engine.stop()
    end = time.monotonic() + 2.0  # for all together: a program should not take long to exit
    for engine in engines:
        engine.join(max(0.1, end - time.monotonic()))


def _forget_after_fork() -> None:
    global _lock
    # A new lock: another thread of the parent, which the child does not have, may have held the old one.
    _lock = threading.Lock()
    _dropped.clear()
    engines = tuple(_engines.values())
    _engines.clear()
    for finalizer in _finalizers.values():
        finalizer.detach()
    _finalizers.clear()
    for engine in engines:
        engine.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
