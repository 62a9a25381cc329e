"""Every block of the documentation does what it says.

Python blocks of a page run from top to bottom in one namespace, with top-level ``await`` as in a notebook; TOML and
JSON blocks parse; each ``$ council ...`` line of a console block is a command line that the program accepts. The
built-in providers are scripted and the page runs in an empty folder, so nothing leaves the process.

A page about plugins is installed first: a Python block that begins with ``# package/module.py`` is that file, a TOML
block of entry points installs it, and one that begins with ``# config.toml`` is the user's configuration file.
"""

import ast
import asyncio
import inspect
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser

from llm_council._plugins import GROUPS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
ELSEWHERE = {"dask.md": pytest.mark.dask, "ray.md": pytest.mark.ray}
"""Pages whose blocks run in another environment, because they need what it installs."""
PROGRAMS = [page for page in PAGES if page.parent.name == "cookbook"]
"""Pages whose blocks are files and commands: ``test_cookbook.py`` runs them."""


def run_python(example: Example) -> None:
    """Execute one block; its line numbers are those of the page."""
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    outcome = eval(code, example.namespace)
    if inspect.iscoroutine(outcome):
        example.namespace["_runner"].run(outcome)


def check_console(example: Example) -> None:
    """Parse each ``council`` line with the program's own parser, without running it."""
    from llm_council.cli._main import cli

    for line in example.parsed.replace("\\\n", " ").splitlines():
        _, prompt, command = line.partition("$ ")
        words = shlex.split(command, comments=True) if prompt else []
        if words[:1] == ["council"]:
            with suppress(click.exceptions.Exit):  # of --help
                parse(cli, words[1:])


def parse(command: click.Command, words: list[str]) -> None:
    context = command.make_context("council", words, resilient_parsing=False)
    if isinstance(command, click.Group):
        fields = vars(context)  # click 8.2 renamed the list of words that name a subcommand
        named = fields["_protected_args"] if "_protected_args" in fields else fields["protected_args"]
        _, inner, rest = command.resolve_command(context, [*named, *context.args])
        assert inner is not None
        parse(inner, rest)


def check_toml(example: Example) -> None:
    tomllib.loads(example.parsed)


FILE = re.compile(r"# ([\w/]+\.py)\n")


def install(document: Document, folder: Path) -> None:
    """Put the files of a page into a folder, and its entry points beside them, as pip would."""
    texts = [str(example.parsed) for example in document.examples()]
    for text in texts:
        found = FILE.match(text)
        if found is not None:
            path = folder / found[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif text.startswith("# config.toml\n"):
            path = folder / ".config" / "llm-council" / "config.toml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    lines = []
    for text in texts:
        points = tomllib.loads(text)["project"]["entry-points"] if text.startswith("[project.entry-points") else {}
        for group, named in points.items():
            modules = {value.partition(":")[0].replace(".", "/") for value in named.values()}
            if all((folder / f"{module}.py").is_file() for module in modules):  # else the page does not show them
                lines += [f"[{group}]", *(f"{name} = {value}" for name, value in named.items())]
    info = folder / "house_council-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: house-council\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have an empty folder on the path; what is imported from it is forgotten at the end."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


SCREEN = 60  # lines


@pytest.mark.parametrize("kind", ["middleware", "store", "command", "subagent"])
def test_a_page_about_plugins_fits_on_a_screen(kind: str) -> None:
    assert len((ROOT / "docs" / "guides" / f"{kind}-plugins.md").read_text().splitlines()) <= SCREEN


def test_every_kind_of_plugin_has_its_page() -> None:
    listed = (ROOT / "docs" / "guides" / "plugins.md").read_text()
    assert [group for group in GROUPS.values() if f"| `{group}` |" not in listed] == []


# A name with an underscore at its beginning, alone or after a dot or a slash; not ``__init__``, nor that of a variable.
PRIVATE = re.compile(r"(?<![\w*])_(?!_)[a-z]\w*")
HOWEVER = {"docs/guides/store.md": {"_sync"}}  # "without `_sync`": the end of a name


def test_the_guides_show_no_private_name() -> None:
    pages = [*(ROOT / "docs" / "guides").glob("*.md"), ROOT / "docs" / "providers" / "creating-providers.md"]
    shown = {page.relative_to(ROOT).as_posix(): set(PRIVATE.findall(page.read_text())) for page in pages}
    assert {page: names for page, names in shown.items() if names} == HOWEVER


def check_json(example: Example) -> None:
    json.loads(example.parsed)


PARSERS = [
    CodeBlockParser("python", run_python),
    CodeBlockParser("toml", check_toml),
    CodeBlockParser("json", check_json),
    CodeBlockParser("console", check_console),
]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=ELSEWHERE.get(page.name, ()), id=page.relative_to(ROOT).as_posix())
        for page in PAGES
        if page not in PROGRAMS
    ],
)
def test_page(page: Path, request: pytest.FixtureRequest, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request.getfixturevalue("offline_workers" if page.name in ELSEWHERE else "offline")
    monkeypatch.chdir(site)
    document = Document.parse(str(page), *PARSERS)
    install(document, site)
    with asyncio.Runner() as runner:
        document.namespace.update(__name__="page", _runner=runner)
        for example in document.examples():
            example.evaluate()


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart/direct-apis.md", "docs/quickstart/openrouter.md"])
def test_the_first_lines_of_a_page_say_why_a_run_failed(
    name: str, refused: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from llm_council.errors import CouncilError

    monkeypatch.chdir(tmp_path)
    first = next(Document.parse(str(ROOT / name), CodeBlockParser("python", run_python)).examples())
    try:
        first.evaluate()
    except CouncilError as error:
        shown = str(error)
    else:
        shown = capsys.readouterr().out
    assert "HTTP 401" in shown
    assert "OPENROUTER_API_KEY" in shown or "OPENAI_API_KEY" in shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    broken = [target for target in links(text) if not leads_somewhere(page.parent / target)]
    assert broken == []


def leads_somewhere(path: Path) -> bool:
    """Return True for a file, and for a page of the API that building the site writes: one for each public package."""
    if path.parent != ROOT / "docs" / "reference" / "api":
        return path.exists()
    return not any(part.startswith("_") for part in path.stem.split(".")) and find_spec(path.stem) is not None


def test_a_link_to_a_page_of_the_api_that_nobody_writes_is_broken() -> None:
    folder = ROOT / "docs" / "reference" / "api"
    assert leads_somewhere(folder / "llm_council.errors.md")
    assert not leads_somewhere(folder / "llm_council.nothing.md")
    assert not leads_somewhere(folder / "llm_council._engine.md")


def links(text: str) -> Iterator[str]:
    from markdown_it import MarkdownIt

    for token in MarkdownIt("commonmark").parse(text):
        for child in token.children or ():
            target = str(child.attrGet("href") or "").partition("#")[0]
            if target and "://" not in target and not target.startswith("mailto:"):
                yield target


class TestTheRunner:
    """The judge is judged: a wrong block is seen, on its own line."""

    def run(self, tmp_path: Path, text: str) -> dict[str, Any]:
        page = tmp_path / "page.md"
        page.write_text(text)
        document = Document.parse(str(page), *PARSERS)
        with asyncio.Runner() as runner:
            document.namespace["_runner"] = runner
            for example in document.examples():
                example.evaluate()
        return document.namespace

    def test_blocks_share_names_and_may_await(self, tmp_path: Path) -> None:
        text = "```python\nimport asyncio\na = 1\n```\ntext\n```python\nb = await asyncio.sleep(0, a + 1)\n```\n"
        assert self.run(tmp_path, text)["b"] == 2

    def test_an_error_carries_the_line_of_the_page(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            self.run(tmp_path, "# title\n\n```python\na = 1\na / 0\n```\n")
        assert caught.traceback[-1].lineno == 4  # counted from zero

    @pytest.mark.parametrize("block", ["```toml\na =\n```\n", "```json\n{,}\n```\n"])
    def test_data_blocks_are_parsed(self, tmp_path: Path, block: str) -> None:
        with pytest.raises(ValueError, match=r".+"):
            self.run(tmp_path, block)
