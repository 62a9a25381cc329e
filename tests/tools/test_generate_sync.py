"""The generator of blocking twins, and what it wrote into this package."""

import ast
import importlib
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import llm_council
from llm_council import errors
from tools import generate_sync

HEAD = '''
from collections.abc import AsyncIterator

from llm_council import _runtime


async def ask(adapter: object, request: str) -> int:
    """Ask an adapter."""
    return len(request)


async def flow(adapter: object, request: str) -> AsyncIterator[str]:
    """Let an adapter flow."""
    for letter in request:
        yield letter


def kept(method):
    method.kept = True
    return method


class Adapter:
    """A class with async cores."""

'''
MARKERS = f"    {generate_sync.START}\n    {generate_sync.END}\n"


def written(cores, directions=""):
    """Return the text between the markers of a class with these cores."""
    markers = MARKERS.replace("    # --- end", directions + "    # --- end")
    text = generate_sync.rewrite(HEAD + textwrap.indent(textwrap.dedent(cores), "    ") + "\n" + markers)
    ast.parse(text)
    return text.partition(generate_sync.START)[2].rpartition(generate_sync.END)[0].strip()


@pytest.mark.slow
def test_the_twins_of_this_package_are_fresh():
    done = subprocess.run(
        [sys.executable, generate_sync.__file__, "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


CORE = '''
async def generate(self, request: str, *, deep: bool = False) -> int:
    """Answer a request.

    At length.
    """
    return 1
'''


def test_a_twin_is_a_typed_method_with_a_docstring():
    assert written(CORE) == textwrap.dedent('''\
        def generate_sync(self, request: str, *, deep: bool = False) -> int:
                """Answer a request.

                The blocking twin of ``generate``; it raises ``InsideEventLoopError`` in a running event loop.
                """
                return _runtime.call(self.generate, request, deep=deep)''')


def test_rewriting_twice_changes_nothing():
    once = generate_sync.rewrite(HEAD + textwrap.indent(CORE, "    ") + MARKERS)
    assert generate_sync.rewrite(once) == once


@pytest.mark.parametrize(
    ("core", "header", "call"),
    [
        ("async def a(self) -> None:", "def a_sync(self) -> None:", "\n        _runtime.call(self.a)"),
        (
            'async def a(self, x: int, /, y: "str | None" = None, *rest: int, z: str = "q", **more: bool) -> str:',
            'def a_sync(self, x: int, /, y: "str | None" = None, *rest: int, z: str = "q", **more: bool) -> str:',
            "return _runtime.call(self.a, x, y, *rest, z=z, **more)",
        ),
        ("async def a(self, *, z) -> int:", "def a_sync(self, *, z) -> int:", "return _runtime.call(self.a, z=z)"),
        ("async def aclose(self) -> None:", "def close(self) -> None:", "if _runtime.is_started():"),
        (
            "def flow(self) -> AsyncIterator[dict[str, int]]:",
            "def flow_sync(self) -> _runtime.BlockingStream[dict[str, int]]:",
            "return _runtime.iterate(self.flow)",
        ),
        (
            "async def wait(self) -> AsyncIterator[int]:",  # not a generator: awaits to an iterator
            "def wait_sync(self) -> AsyncIterator[int]:",
            "return _runtime.call(self.wait)",
        ),
    ],
)
def test_a_twin_has_the_parameters_of_its_core_and_passes_them_on(core, header, call):
    block = written(f'{core}\n    """Do."""\n    ...\n')
    assert header in block
    assert call in block


def test_an_async_generator_becomes_a_blocking_stream():
    block = written('async def flow(self, n: int) -> AsyncIterator[int]:\n    """Flow."""\n    yield n\n')
    assert "def flow_sync(self, n: int) -> _runtime.BlockingStream[int]:" in block
    assert "return _runtime.iterate(self.flow, n)" in block


def test_a_yield_in_a_nested_function_does_not_make_the_core_a_stream():
    core = 'async def a(self) -> int:\n    """Do."""\n    def inner():\n        yield 1\n    return 1\n'
    assert "_runtime.call(self.a)" in written(core)


def test_a_long_header_is_broken_as_the_formatter_breaks_it():
    for count in (6, 12):
        parameters = ", ".join(f"parameter_{number}: int" for number in range(count))
        header = (
            f"async def a(self, {parameters}) -> int:" if count == 6 else f"async def a(self, *, {parameters}) -> int:"
        )
        block = written(f'{header}\n    """Do."""\n')
        assert all(len(line) <= 120 for line in block.splitlines())
        assert (",\n    ) -> int:" in block) == (count == 12)


def test_the_twin_of_arun_beside_run_is_run_sync():
    cores = '''
        def run(self) -> int:
            """Run."""

        async def arun(self) -> int:
            """Run."""

        async def answer(self) -> int:
            """Answer."""
    '''
    block = written(cores)
    assert "def run_sync(self)" in block
    assert "_runtime.call(self.arun)" in block
    assert "def answer_sync(self)" in block


def test_private_methods_plain_methods_and_handwritten_twins_are_not_changed():
    cores = '''
        async def _inner(self) -> int:
            """Do."""

        def plain(self) -> int:
            """Do."""

        async def __aenter__(self) -> int:
            """Do."""

        async def odd(self) -> int:
            """Do."""

        def odd_sync(self) -> int:
            """Do it otherwise."""
    '''
    assert written(cores) == ""


def test_a_twin_may_call_a_function_in_place_of_its_core():
    cores = '''
        async def generate(self, request: str) -> object:
            """Generate."""

        async def stream(self, request: str) -> AsyncIterator[object]:
            """Stream."""
            yield 1
    '''
    block = written(cores, "    # through: generate=ask, stream=flow\n")
    assert block.startswith("# through: generate=ask, stream=flow\n")
    assert "def generate_sync(self, request: str) -> int:" in block
    assert '"""Ask an adapter.' in block
    assert "return _runtime.call(ask, self, request)" in block
    assert "def stream_sync(self, request: str) -> _runtime.BlockingStream[str]:" in block
    assert "return _runtime.iterate(flow, self, request)" in block


def test_only_the_named_decorators_of_a_core_are_copied():
    core = '@kept\n@other\nasync def a(self) -> int:\n    """Do."""\n'
    block = written(core, "    # keeps: kept\n")
    assert "    @kept\n    def a_sync" in block
    assert "other" not in block


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MARKERS, "in no class"),
        (HEAD + f"    {generate_sync.START}\n", "in pairs"),
        (HEAD + f"    {generate_sync.END}\n    {generate_sync.START}\n", "in pairs"),
        (HEAD + "    async def a(self):\n        '''Do.'''\n" + MARKERS, "no return annotation"),
        (HEAD + "    async def a(self) -> int:\n        pass\n" + MARKERS, "no docstring"),
        (HEAD + "    async def a(self) -> int:\n        '''Do.'''\n        yield 1\n" + MARKERS, "AsyncIterator"),
        (HEAD + MARKERS.replace("    # --- end", "    # through: x=ask\n    # --- end"), "no such method"),
        (HEAD + MARKERS.replace("    # --- end", "    # thruogh: x=ask\n    # --- end"), "unknown direction"),
    ],
)
def test_an_unusable_source_is_refused_with_its_line_and_reason(text, message):
    with pytest.raises(generate_sync.Misplaced, match=message):
        generate_sync.rewrite(text)


def test_all_classes_of_a_module_get_their_twins():
    text = generate_sync.rewrite(
        HEAD
        + textwrap.indent(CORE, "    ")
        + MARKERS
        + "\n\nclass Second:\n"
        + textwrap.indent(CORE.replace("generate", "second"), "    ")
        + MARKERS
    )
    first, second = text.split("class Second")
    assert "def generate_sync" in first
    assert "def second_sync" in second
    assert "def generate_sync" not in second


class TestCommand:
    @pytest.fixture
    def module(self, tmp_path, monkeypatch):
        path = tmp_path / "plugin_module.py"
        path.write_text(HEAD + textwrap.indent(CORE, "    ") + MARKERS)
        monkeypatch.syspath_prepend(tmp_path)
        yield path
        sys.modules.pop("plugin_module", None)

    def test_check_fails_when_stale_and_names_the_file(self, module, capsys):
        before = module.read_text()
        assert generate_sync.main(["--check", str(module)]) == 1
        assert str(module) in capsys.readouterr().out
        assert module.read_text() == before

    def test_the_module_of_a_third_party_is_rewritten_and_works(self, module, capsys):
        assert generate_sync.main([str(module)]) == 0
        assert generate_sync.main(["--check", str(module)]) == 0
        adapter = importlib.import_module("plugin_module").Adapter()
        assert adapter.generate_sync("q") == 1
        assert inspect.signature(adapter.generate_sync) == inspect.signature(adapter.generate)

    def test_an_unreadable_file_ends_in_status_2(self, tmp_path, capsys):
        assert generate_sync.main([str(tmp_path / "absent.py")]) == 2
        (tmp_path / "broken.py").write_text("class A(:\n")
        assert generate_sync.main([str(tmp_path / "broken.py")]) == 2
        (tmp_path / "marker.py").write_text(MARKERS)
        assert generate_sync.main(["--check", str(tmp_path / "marker.py")]) == 2
        assert "marker.py" in capsys.readouterr().err


def test_the_configured_modules_exist():
    for name in generate_sync.MODULES:
        path = Path(llm_council.__file__).parent / name
        assert generate_sync.START in path.read_text(encoding="utf-8")
    assert issubclass(errors.InsideEventLoopError, errors.ConfigurationError)
