"""Programs of command-line agents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from fault_agents import CLASSES, LONG, OWN_KEY, agent, await_death, scene

from llm_council import Council, errors
from llm_council.models import GenerateRequest, Limits, Message, StructuredOutput, Tool
from llm_council.providers._agents import provider
from llm_council.providers.base import call, stream
from llm_council.transports import _process

__all__ = ["agent", "scene"]

ASK = GenerateRequest(prompt="What is 6 times 7?", timeout_seconds=LONG)
CANARY = "OWN-KEY-canary-0123456789"


def test_missing(scene, agent, monkeypatch):
    """A program that is not installed or not executable: `CommandNotFound` before anything is started, with the
    searched path and how to install it.
    """
    adapter = scene.make(agent, program=f"{agent}-that-is-nowhere")
    with pytest.raises(errors.CommandNotFound, match="npm install -g") as caught:
        adapter.generate_sync(ASK)
    assert str(scene.bin) in caught.value.message
    assert caught.value.provider == adapter.name
    with pytest.raises(errors.ConfigurationError, match="npm install"):
        Council(providers=[adapter]).run("Why?")
    (scene.bin / agent).chmod(0o644)
    monkeypatch.setenv("PATH", str(scene.bin))
    with pytest.raises(errors.CommandNotFound):
        type(adapter)().generate_sync(ASK)
    assert scene.seen(agent) == []


def test_program_in_the_current_folder(scene, monkeypatch):
    """A program of that name in the current folder, and a PATH that is empty or contains `.`: it is not run."""
    (scene.folder / "project").mkdir()
    scene.program("claude", at=scene.folder / "project")
    monkeypatch.chdir(scene.folder / "project")
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.pathsep}/usr/bin")
    with pytest.raises(errors.CommandNotFound):
        CLASSES["claude"]().generate_sync(ASK)
    assert scene.seen("claude") == []


@pytest.mark.parametrize("kind", ["a folder", "a text", "of no interpreter", "a dangling link", "empty", "no PATH"])
def test_not_a_program(scene, agent, kind, monkeypatch):
    """A folder, a text file, a script without an interpreter or a dangling link in its place, or no PATH:
    `CommandNotFound`.
    """
    place = scene.bin / agent
    if kind == "a folder":
        place.mkdir()
    elif kind == "a dangling link":
        place.symlink_to(scene.folder / "nowhere")
    else:
        place.write_text({"a text": "words", "of no interpreter": "#!/no/such/file\n"}.get(kind, ""))
        place.chmod(0o755)
    monkeypatch.setenv("PATH", "" if kind == "no PATH" else str(scene.bin))
    with pytest.raises(errors.CommandNotFound) as caught:
        CLASSES[agent]().generate_sync(ASK)
    assert type(caught.value) is errors.CommandNotFound
    assert agent in caught.value.message


@pytest.mark.parametrize(
    ("agent", "mode"), [("codex", "hang"), ("claude", "ignore-term"), ("gemini", "ignore-term")], indirect=["agent"]
)
def test_hang(scene, agent, mode):
    """A program that hangs and ignores SIGTERM: `TimedOut` by the call's deadline, with a hint that it may wait for a
    sign-in; its process group has ended.
    """
    adapter = scene.make(agent, mode)
    for seconds in (2, 8, 20):  # as many as this machine needs to start and end a program
        with pytest.raises(errors.TimedOut, match=f"did not answer within {seconds} s") as caught:
            adapter.generate_sync(GenerateRequest(prompt="Why?", timeout_seconds=seconds))
        if scene.hanging(agent) and type(adapter).SIGN_IN in caught.value.message:
            break
    assert caught.value.phase == "deadline"
    assert type(adapter).SIGN_IN in caught.value.message
    await_death(scene.hanging(agent))


def test_hang_after_the_answer(scene, agent):
    """A program that has reported its result and does not exit: it is ended after two seconds, and its result is used,
    whether an answer or an error.
    """
    asked = GenerateRequest(prompt="?", timeout_seconds=100)
    began = time.monotonic()
    assert scene.make(agent, "linger").generate_sync(asked).text == "42"
    with pytest.raises(errors.OutOfCredit):
        scene.make(agent, "linger-error").generate_sync(asked)
    assert time.monotonic() - began < LONG


def test_pipe_kept_open(scene):
    """A grandchild leaves the session and holds the pipe open: the answer is returned when the program ends, not when
    the pipe is closed.
    """
    assert (
        scene.make("claude", "grandchild").generate_sync(GenerateRequest(prompt="?", timeout_seconds=15)).text == "42"
    )


@pytest.mark.anyio
async def test_cancelled(scene):
    """A cancelled call, and a stream that is left early: program and grandchildren have ended, even if they ignore
    SIGTERM.
    """
    for name, use in (("claude", call), ("codex", _first_piece)):
        adapter = scene.make(name, "ignore-term")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use, adapter, ASK)
            pids = await anyio.to_thread.run_sync(scene.await_hanging, name)
            tasks.cancel_scope.cancel()
        await anyio.to_thread.run_sync(await_death, pids)


async def _first_piece(adapter, request):
    async for _ in stream(adapter, request):
        return


RUN = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from llm_council import Council
Council(providers=["codex:2"]).run("Why?")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_parent_ended(scene, number, status):
    """Ctrl-C, SIGTERM and SIGKILL of a process during a blocking run: its programs, their grandchildren and temporary
    files end with it; at most one traceback is shown.
    """
    scene.program("codex", "ignore-term")
    script = scene.folder / "run.py"
    script.write_text(RUN)
    with subprocess.Popen([sys.executable, str(script), str(scene.temporary)], stderr=subprocess.PIPE) as process:
        pids = scene.await_hanging("codex")
        process.send_signal(number)
        _, printed = process.communicate(timeout=LONG)
    assert process.returncode in (status, -number)
    assert printed.count(b"Traceback") <= 1
    await_death(pids)
    scene.await_tidiness()


@pytest.mark.parametrize(
    ("agent", "mode", "limit"),
    [("codex", "flood-out", 3_000_000), ("claude", "one-line", 1_000_000), ("gemini", "one-line", 1_000_000)],
    indirect=["agent"],
)
def test_flood_of_output(scene, agent, mode, limit):
    """Endless output, in lines or in one line: `ReplyTooLarge` at the limit, and the program is ended."""
    adapter = scene.make(agent, mode, limits=Limits(stream=3_000_000, event=1_000_000))
    with pytest.raises(errors.ReplyTooLarge) as caught:
        adapter.generate_sync(ASK)
    assert caught.value.limit == limit


def test_flood_of_stderr(scene):
    """Megabytes on stderr before stdin is read: both are served, nothing blocks, the answer is good."""
    adapter = scene.make("claude", "flood-err")
    assert adapter.generate_sync(GenerateRequest(prompt="p" * 500_000, timeout_seconds=LONG)).text == "42"


def test_stdin_not_read(scene, agent):
    """A program that answers without reading its prompt of 5 MB: no error if its answer is good."""
    adapter = scene.make(agent, "no-read")
    assert adapter.generate_sync(GenerateRequest(prompt="p" * 5_000_000, timeout_seconds=LONG)).text == "42"


def test_large_prompt(scene, agent):
    """A prompt that is too large for an argument arrives complete, on stdin."""
    prompt = "naïve 数 " * 100_000
    assert scene.make(agent, answer="").generate_sync(GenerateRequest(prompt=prompt)).text == prompt


def test_process_list(scene, agent):
    """In the process list, neither arguments nor environment contain prompts, instructions or keys, except the
    program's own key in its environment.
    """
    turns = [Message("system", "secret-system"), Message("user", "secret-user")]
    adapter = scene.make(agent, variables={OWN_KEY[agent]: CANARY})
    adapter.generate_sync(GenerateRequest(messages=turns, model="the-model"))
    (seen,) = scene.seen(agent)
    assert "secret-user" in seen["stdin"]
    assert "secret" not in f"{seen['argv']} {seen['environment']}"
    assert CANARY not in str(seen["argv"])
    assert "the-model" in seen["argv"]


FOREIGN = (
    "OPENROUTER_API_KEY GROQ_API_KEY AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN GOOGLE_APPLICATION_CREDENTIALS"
    " GITHUB_TOKEN PYTHONPATH NODE_OPTIONS LLM_COUNCIL_PROVIDERS LD_LIBRARY_PATH_OF_OTHERS SSH_AUTH_SOCK"
).split()


def test_environment(scene, agent, monkeypatch):
    """Our environment has keys of other providers, credentials of a cloud, `PYTHONPATH`, `NODE_OPTIONS`, `LD_PRELOAD`:
    the program gets only the variables that any program needs, and its own.
    """
    for name in FOREIGN:
        monkeypatch.setenv(name, "canary-foreign")
    monkeypatch.setenv("LD_PRELOAD", "")
    for name in {key for cls in CLASSES.values() for key in cls.KEYS}:
        monkeypatch.setenv(name, f"canary-key-of-{name}")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    adapter = scene.make(agent, variables={"AWS_REGION": "eu-1", "HTTPS_PROXY": None, "HOUSE_TOKEN": "own-canary-1"})
    adapter.generate_sync(ASK)
    (seen,) = scene.seen(agent)
    found = seen["environment"]
    assert not set(FOREIGN) & set(found)
    assert "LD_PRELOAD" not in found
    assert {name for name, value in found.items() if value.startswith("canary-key-of")} == set(CLASSES[agent].KEYS)
    assert (found["XDG_CONFIG_HOME"], found["HOME"], found["LC_ALL"]) == ("/xdg", str(scene.home), "C.UTF-8")
    assert (found["AWS_REGION"], found["HOUSE_TOKEN"], found["BROWSER"]) == ("eu-1", "own-canary-1", "false")
    assert found["PATH"].split(os.pathsep)[0] == str(scene.bin)


def test_working_folder(scene, agent, monkeypatch):
    """Instructions, hooks and settings in the current folder: the program works in an empty folder, which is removed
    afterwards; another one is used only if it is named.
    """
    project = scene.folder / "project"
    project.mkdir()
    (project / "AGENTS.md").touch()
    monkeypatch.chdir(project)
    scene.make(agent).generate_sync(ASK)
    scene.make(agent, folder=".").generate_sync(ASK)
    seen = {Path(saw["cwd"]): saw["found"] for saw in scene.seen(agent)}
    assert seen.pop(project) == ["AGENTS.md"]
    ((empty, found),) = seen.items()
    assert found == []
    assert not empty.exists()


SWITCHES = ("yolo", "dangerously", "bypass", "auto_edit", "workspace-write", "danger-full-access")
OFF = {
    "codex": ("read-only", "features.shell_tool=false", "features.hooks=false"),
    "claude": ("--tools", "", "--strict-mcp-config", '{"disableAllHooks":true}'),
    "gemini": ("plan", "none", "--policy"),
}


def test_tools(scene, agent):
    """An agent's own tools, servers and hooks are off in every call, and no option or configuration turns them on; the
    caller's tools are described in the prompt, and called in the answer.
    """
    schema = StructuredOutput(json_schema={"type": "object"})
    adapter = scene.make(agent, answer="{}")
    adapter.generate_sync(GenerateRequest(prompt="?", structured_output=schema))
    (seen,) = scene.seen(agent)
    assert set(OFF[agent]) <= set(seen["argv"])
    assert not any(word in argument for word in SWITCHES for argument in seen["argv"])
    with pytest.raises(TypeError):
        CLASSES[agent](yolo=True)
    adapter.generate_sync(GenerateRequest(prompt="?", tools=[Tool(name="look")]))
    seen = scene.seen(agent)[1]
    assert set(OFF[agent]) <= set(seen["argv"])
    assert not any(word in argument for word in (*SWITCHES, "look") for argument in seen["argv"])


@pytest.mark.parametrize(("mode", "code"), [("exit-7", 7), ("sigkill", -signal.SIGKILL)])
def test_ended_badly(scene, agent, mode, code):
    """A non-zero exit status, or death by a signal, after a good answer: `CommandFailed` with the status and the end of
    stderr, without a key.
    """
    adapter = scene.make(agent, mode, variables={OWN_KEY[agent]: CANARY})
    with pytest.raises(errors.CommandFailed) as caught:
        adapter.generate_sync(ASK)
    assert caught.value.exit_code == code
    assert caught.value.stderr_tail == ("it went wrong with ***\n" if code == 7 else "")
    assert CANARY not in f"{caught.value!r} {vars(caught.value)}"


@pytest.mark.parametrize(
    ("mode", "cls"), [("error-exit0", errors.OutOfCredit), ("unauthorised", errors.AuthenticationFailed)]
)
def test_error_beside_status_0(scene, agent, mode, cls):
    """Exit status 0 with an event that reports a failure: the error that the agent's message means; a missing sign-in
    names how to sign in.
    """
    with pytest.raises(cls) as caught:
        scene.make(agent, mode).generate_sync(ASK)
    assert type(caught.value) is cls
    assert caught.value.retryable is False
    if cls is errors.AuthenticationFailed:
        assert OWN_KEY[agent] in caught.value.message


@pytest.mark.parametrize(
    ("mode", "cls"), [("empty", errors.EmptyReply), ("trunc", errors.TruncatedReply), ("plain", errors.MalformedReply)]
)
def test_no_complete_answer(scene, agent, mode, cls):
    """Silence, half an event, or text that is not an event: `EmptyReply`, `TruncatedReply`, `MalformedReply`; never an
    answer.
    """
    with pytest.raises(cls) as caught:
        scene.make(agent, mode).generate_sync(ASK)
    assert type(caught.value) is cls


@pytest.mark.parametrize(
    ("agent", "mode"),
    [("codex", "banner"), ("codex", "latin1"), ("claude", "ansi"), ("gemini", "crlf"), ("gemini", "banner")],
    indirect=["agent"],
)
def test_noise_around_the_answer(scene, agent, mode):
    """Banners, colours, CRLF and bytes that are not UTF-8 around the events: the answer is read; unreadable parts are
    listed in `extra["warnings"]`.
    """
    response = scene.make(agent, mode).generate_sync(ASK)
    assert response.text == "42"
    assert any("UTF-8" in warning for warning in response.extra.get("warnings", ())) == (mode == "latin1")


def test_asks_on_a_terminal(scene, agent):
    """A program that asks the user: it finds no terminal and no browser, and its last output is in the error."""
    with pytest.raises(errors.CommandFailed, match="log in"):
        scene.make(agent, "tty").generate_sync(ASK)


def test_other_version(scene):
    """A version that was not tested with this library: `doctor` mentions it, and nothing is refused."""
    adapter = scene.make("claude", "version", variables={OWN_KEY["claude"]: CANARY})
    result = adapter.doctor_sync()
    assert result.ok
    assert "9.9.9" in result.message
    assert "tried with" in result.message
    assert adapter.generate_sync(ASK).text == "42"


@pytest.mark.anyio
async def test_many_at_once(scene, monkeypatch):
    """More calls than places: at most `at_once` programs run; a call that waits too long for a place fails with that
    reason.
    """
    adapter = scene.make("codex", at_once=2)
    now = most = 0

    @asynccontextmanager
    async def counted(*args, **options):
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            async with _process.running(*args, **options) as process:
                yield process
        finally:
            now -= 1

    monkeypatch.setattr(provider, "running", counted)
    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(call, adapter, ASK)
    assert (len(scene.seen("codex")), most) == (6, 2)
    full = scene.make("gemini", "hang", at_once=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, full, ASK)
        await anyio.to_thread.run_sync(scene.await_hanging, "gemini")
        with pytest.raises(errors.TimedOut, match="its turn") as caught:
            await call(full, GenerateRequest(prompt="?", timeout_seconds=1))
        assert caught.value.phase == "pool"
        tasks.cancel_scope.cancel()


MANY = """
import os, sys, tempfile
from pathlib import Path
tempfile.tempdir = sys.argv[1]
from llm_council import errors, get_provider
from llm_council.models import GenerateRequest

def both():
    for name in ("codex", "gemini-cli"):
        try:
            get_provider(name).generate_sync(GenerateRequest(prompt="?"))
        except errors.CommandFailed:
            pass

both()
before = len(list(Path("/dev/fd").iterdir()))
for _ in range(5):
    both()
assert len(list(Path("/dev/fd").iterdir())) <= before
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("nothing is left", list(Path(sys.argv[1]).iterdir()))
"""


def test_nothing_is_left(scene, python):
    """Many calls, good and failed: no additional descriptor, child, zombie or temporary file."""
    scene.program("codex")
    scene.program("gemini", "exit-1")
    done = python(MANY, str(scene.temporary))
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing is left []\n", "")
