"""Fixtures for every test: asyncio and trio as backends, and a fresh interpreter for a script."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers

pytest.register_assert_rewrite("wire_laws")  # what a law found stands in its failure

# The same examples on every run, and no clock: a law that fails must fail for everyone. It reports the first
# counterexample as it was drawn: to shrink one of a large strategy takes minutes, so that the test would run into its
# time limit and report nothing. HYPOTHESIS_PROFILE=explore searches further, with new examples each time, and shrinks;
# `pytest --timeout 0` leaves it the time.
settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "explore",
    settings.get_profile("deterministic"),
    derandomize=False,
    max_examples=1000,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "deterministic"))

# Hypothesis also draws constants that it finds in the modules imported so far, which differ between the processes that
# share the tests. No setting turns that off, so the search for constants is replaced where examples must be the same.
if settings().derandomize and hasattr(providers, "_get_local_constants"):
    providers._get_local_constants = lambda: providers._local_constants


# Started in the background of a shell, a process ignores interrupts, and so do its children: those that the tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="session", autouse=True)
def _runtime_ends() -> Iterator[None]:
    """Leave no loop thread to the exit of the test process, where no test would see its warnings."""
    yield
    runtime = sys.modules.get("llm_council._runtime")
    if runtime is not None:
        assert runtime.shutdown(timeout=10)


@pytest.fixture(scope="session", autouse=True)
def _plain_call_ids() -> Iterator[None]:
    """Number the ids of calls that have none, so that tests can name them, and compare two readings of one reply."""
    with pytest.MonkeyPatch.context() as patch:
        if "LLM_COUNCIL_CLEAN" not in os.environ:  # the packaging environment has none of the package's dependencies
            patch.setattr("llm_council.models.messages._distinct", str)
        yield


@pytest.fixture(autouse=True)
def _keys_of_this_test_alone() -> Iterator[None]:
    """Forget the keys of a test at its end: a stream holds back what may be the beginning of any key still alive."""

    def alive() -> set[int]:
        secrets = sys.modules.get("llm_council.errors._secrets")
        return set() if secrets is None else {id(found) for key in secrets._live.valuerefs() if (found := key())}

    before = alive()
    yield
    for key in alive() - before:
        sys.modules["llm_council.errors._secrets"]._live.pop(key, None)


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in a fresh interpreter, warnings being errors there, with a hard time limit in seconds."""

    def run(script: str, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(script))
        command = [sys.executable, "-X", "dev", "-W", "error", str(path), *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        # asyncio's debug mode logs a line for every step over 0.1 s, which a busy machine takes now and then.
        lines = [line for line in done.stderr.splitlines(keepends=True) if not line.startswith("Executing <")]
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, "".join(lines))

    return run
