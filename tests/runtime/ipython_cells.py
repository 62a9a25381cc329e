"""Blocking calls under IPython and its kernel, whose event loop waits for each cell anyway.

``test_ipython.py`` runs this file in a process of its own: a shell slows hypothesis down for the rest of a process.
"""

import asyncio
import contextlib
import gc
import io
import json
import textwrap
import warnings
from pathlib import Path

import anyio
import pytest

from llm_council import Council, CouncilConfig, CouncilResult, errors
from llm_council.events import RunFinished
from llm_council.testing.fakes import ScriptedProvider

SETUP = """
    import json
    from llm_council import Council, CouncilConfig
    from llm_council.testing.fakes import ScriptedProvider
    answer = json.dumps({"answer": "Paris", "reasoning": "x"})
    council = Council([ScriptedProvider({"*": answer})], config=CouncilConfig())
"""
SCRIPT = """
    def ask(task):
        return council.run(task)

    print("first", council.run("Where?").output["answer"])
    print("second", ask("Where?").output["answer"])
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """A real IPython shell without a history file."""
    core = pytest.importorskip("IPython.core.interactiveshell")
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        shell = core.InteractiveShell.instance(config=config)
        yield shell
        core.InteractiveShell.clear_instance()


@pytest.fixture
def cells(shell):
    """Run cells one after the other in a running event loop, as a kernel does; return their values and the output."""

    def run(*sources):
        async def execute():
            for source in map(textwrap.dedent, (SETUP, *sources)):
                done = await shell.run_cell_async(source, transformed_cell=shell.transform_cell(source))
                done.raise_error()
                yield done.result

        async def main():
            return [value async for value in execute()][1:]

        with contextlib.redirect_stdout(io.StringIO()) as written:
            return asyncio.run(main()), written.getvalue()

    return run


@pytest.fixture
def dropped():
    """Let a test drop pending results without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
        yield
        gc.collect()


def test_a_cell_may_make_blocking_calls(cells):
    (answer, events, checked, closed), _ = cells(
        "council.run_sync('Where?').output['answer']",
        "[type(event).__name__ for event in council.stream('Where?')]",
        "council.doctor_sync()",
        "with council: pass",
    )
    assert answer == "Paris"
    assert (events[0], events[-1]) == ("RunStarted", "RunFinished")
    assert [found.ok for found in checked.values()] == [True]
    assert closed is None


def test_a_cell_may_leave_a_stream_early(cells):
    (statuses,), _ = cells("""
        slow = Council([ScriptedProvider("x", delay=30.0)], config=CouncilConfig())
        with slow.stream('Where?') as stream:
            for event in stream:
                break
        [str(stream.result.status)]
    """)
    assert statuses == ["cancelled"]


def test_a_cell_may_await_and_several_runs_at_once(cells):
    (answer, answers), _ = cells(
        "(await council.run('Where?')).output['answer']",
        "import asyncio\n[r.output['answer'] for r in await asyncio.gather(council.run('1?'), council.run('2?'))]",
    )
    assert (answer, answers) == ("Paris", ["Paris", "Paris"])


@pytest.mark.usefixtures("dropped")
def test_a_pending_result_in_a_cell_says_what_to_type(cells):
    (shown, doctor), _ = cells("repr(council.run('Where?'))", "repr(council.doctor())")
    assert "'await council.run(...)', or 'council.run_sync(...)'" in shown
    assert "'await council.doctor(...)', or 'council.doctor_sync(...)'" in doctor


def test_a_plain_function_in_a_notebook_blocks(cells):
    (answer,), _ = cells("def ask():\n    return council.run('Where?').output['answer']\nask()")
    assert answer == "Paris"


def test_a_script_that_a_cell_runs_works_as_on_the_command_line(cells, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SETUP + SCRIPT), encoding="utf-8")
    _, written = cells(f"%run {path}")
    assert written.splitlines() == ["first Paris", "second Paris"]


@pytest.mark.slow
def test_a_real_kernel_runs_blocking_calls_in_cells_functions_and_scripts(tmp_path):
    manager_of = pytest.importorskip("jupyter_client.manager").KernelManager
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SETUP + SCRIPT), encoding="utf-8")
    manager = manager_of(kernel_name="python3")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    written = []

    def heard(message):
        content = message["content"]
        written.append(content.get("text") or content.get("data", {}).get("text/plain") or content.get("evalue") or "")

    try:
        client.wait_for_ready(timeout=60)
        for cell in (
            SETUP,
            "print(council.run_sync('Where?').output['answer'])",
            "print([type(event).__name__ for event in council.stream('Where?')][-1])",
            "print((await council.run('Where?')).output['answer'])",
            f"%run {path}",
            "council.run('Where?')",
        ):
            client.execute_interactive(textwrap.dedent(cell), output_hook=heard, timeout=60)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    text = "".join(written)
    assert text.startswith("Paris\nRunFinished\nParis\nfirst Paris\nsecond Paris\n")
    assert "'await council.run(...)'" in text


# Elsewhere in a running event loop, the message fits the place.


def council():
    answer = json.dumps({"answer": "Paris", "reasoning": "x"})
    return Council([ScriptedProvider({"*": answer})], config=CouncilConfig())


def in_a_function(ask):
    return ask("Where?")


def read(ask):
    return ask("Where?").text


def consume(ask):
    return list(ask("Where?"))


@pytest.mark.anyio
@pytest.mark.parametrize(("function", "method"), [(in_a_function, "run_sync"), (read, "run"), (consume, "stream")])
@pytest.mark.usefixtures("dropped")
async def test_in_a_plain_function_the_message_names_a_worker_thread(function, method, anyio_backend_name):
    with pytest.raises(errors.InsideEventLoopError) as caught:
        function(getattr(council(), method))
    start = "asyncio.to_thread" if anyio_backend_name == "asyncio" else "trio.to_thread.run_sync"
    assert f"with {start}({function.__name__}, ...)" in str(caught.value)
    assert "await" not in str(caught.value)


@pytest.mark.anyio
async def test_the_remedies_work():
    ask = council()
    assert isinstance(await anyio.to_thread.run_sync(in_a_function, ask.run), CouncilResult)
    assert '"Paris"' in await anyio.to_thread.run_sync(read, ask.run)
    assert isinstance((await anyio.to_thread.run_sync(consume, ask.stream))[-1], RunFinished)


@pytest.mark.anyio
@pytest.mark.usefixtures("dropped")
async def test_in_a_coroutine_the_message_names_await():
    ask = council()
    with pytest.raises(errors.InsideEventLoopError, match=r"await arun\(\)"):
        [ask.run_sync(task) for task in ("Where?",)]
    with pytest.raises(errors.InsideEventLoopError, match=r"await council\.run\(\.\.\.\)"):
        _ = [ask.run(task).text for task in ("Where?",)]
    pending = ask.run("Where?")
    with pytest.raises(errors.InsideEventLoopError, match=r"ipython_cells\.py, line \d+.*await council\.run\(\.\.\.\)"):
        read(lambda task: pending)


def test_a_dropped_result_warns_with_the_line_that_made_it():
    async def main():
        ask = council()
        with pytest.warns(RuntimeWarning, match=r"'Council\.arun' was never awaited.*await council\.run") as caught:
            ask.run("Where?")  # this line
        return caught[0]

    warning = asyncio.run(main())
    assert warning.filename == __file__
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert lines[warning.lineno - 1].endswith("# this line")
