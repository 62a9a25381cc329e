"""The site that Sphinx has built holds every public name, flag, key, event, error, status and variable.

``LLM_COUNCIL_SITE`` is its folder; ``tox -e docs`` builds it.
"""

from __future__ import annotations

import html
import importlib
import json
import os
import re
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest

import llm_council
from llm_council import errors, events
from llm_council.batch.result_file import _COMPACT
from llm_council.config import _PROJECT_KEYS, CouncilConfig
from llm_council.config._environment import KNOWN
from llm_council.config._seats import Seat
from llm_council.evals import EvalReport
from llm_council.models import (
    Budget,
    GenerateRequest,
    Limits,
    Plan,
    ProviderCapabilities,
    ReasoningConfig,
    RetryPolicy,
    Timeouts,
)
from llm_council.results import CouncilResult
from llm_council.store import RunInfo
from llm_council.strategies._find import BUILT_IN, class_of

ROOT = Path(__file__).parents[2]
SITE = Path(os.environ.get("LLM_COUNCIL_SITE", ROOT / "site"))
sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

pytestmark = pytest.mark.skipif(not SITE.is_dir() and "CI" not in os.environ, reason="build the site: tox -e docs")


@cache
def text(page: str) -> str:
    """The words of a page."""
    source = (SITE / page).read_text(encoding="utf-8")
    body = source[source.index("<article") : source.index("</article>")]
    return html.unescape(re.sub(r"<[^>]+>", "", body))


def missing(page: str, names: Any) -> list[str]:
    """The names that the page does not hold as words."""
    words = text(page)
    return sorted(name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", words))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of modules that have moved
def test_every_public_name_has_an_entry() -> None:
    from api_pages import homes
    from public_names import all_modules

    # Four lines of heading, then a line for each entry, compressed; it begins with the dotted name.
    inventory = zlib.decompress((SITE / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    entries = {line.split(" ", 1)[0] for line in inventory.splitlines() if " py:" in line}
    documented = homes()
    assert [name for module, names in documented.items() for name in names if f"{module}.{name}" not in entries] == []
    shown = {name for names in documented.values() for name in names}
    foreign = {"AsyncClient"}  # a class of httpx
    public = {name for names in all_modules({}).values() for name in names}
    assert sorted(public - shown - foreign) == []
    assert set(llm_council.__all__) <= shown


def test_every_command_has_its_flags() -> None:
    from public_surface import captured_program, commands

    for path, options in commands(captured_program(), "council"):
        assert missing("reference/command-line.html", [path, *(name for name in options if name.startswith("-"))]) == []


def test_every_exit_status_is_explained() -> None:
    recorded = json.loads((ROOT / "tests/data/0.1.0/public.json").read_text(encoding="utf-8"))["exit_statuses"]
    assert missing("reference/command-line.html", {str(status) for status in recorded.values()} | {"4"}) == []


def test_every_error_has_a_remedy_and_its_messages() -> None:
    from reference_tables import all_messages

    names = [name for name in errors.__all__ if isinstance(getattr(errors, name), type)]
    tables = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    classes = [name for name in names if issubclass(getattr(errors, name), errors.CouncilError)]
    assert [name for name in classes if f"| `{name}` |" not in tables and f"`{name}` is the base" not in tables] == []
    shown = text("reference/errors.html")
    assert sum(map(len, all_messages().values())) > 500
    assert [name for name in all_messages() if name not in shown] == []


def test_every_event_has_its_fields() -> None:
    page = (ROOT / "docs/reference/events.md").read_text(encoding="utf-8")
    common = {field.name for field in attrs.fields(events.Event)}
    for name in events.__all__:
        value = getattr(events, name)
        if isinstance(value, type) and issubclass(value, events.Event) and value is not events.Event:
            (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
            fields = [field.name for field in attrs.fields(value) if field.name not in common]
            assert row.endswith(f"| {', '.join(f'`{field}`' for field in fields)} |"), name


def test_every_environment_variable_is_explained() -> None:
    assert missing("reference/environment.html", KNOWN) == []


@pytest.mark.parametrize("cls", [CouncilConfig, Budget, Limits, RetryPolicy, ReasoningConfig, Seat, Timeouts])
def test_every_setting_is_explained(cls: type) -> None:
    assert missing("reference/settings.html", [field.name for field in attrs.fields(cls)]) == []


def test_what_a_projects_file_may_set_is_listed() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"until you trust it: ([^.]+)\.", page)
    assert set(re.findall(r"`(\w+)`", listed)) == _PROJECT_KEYS


def test_every_json_key_is_explained() -> None:
    program = "import json, public_json; print(json.dumps(public_json.collect_json()['json']))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "tools", stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    # What stands below these keys was chosen by the caller, a vendor or a schema, or is in settings.md.
    open_values = {
        "schema",
        "json_schema",
        "parameters",
        "arguments",
        "structured",
        "metadata",
        "output",
        "extra",
        "data",
    }
    open_values |= {"budget", "limits", "retry", "reasoning", "response_format"}
    by_name = {
        "drafts",
        "critiques",
        "errors",
        "answers",
        "points",
        "otherwise",
        "aliases",
    }  # of seats, drafts or roles
    keys = set()
    for command, paths in json.loads(done.stdout).items():
        for path in paths if command != "config show" else ():
            is_name = False
            for step in path.replace("[]", "").strip(".").split("."):
                if not is_name:
                    keys.add(step)
                is_name = not is_name and (step in by_name or (command == "doctor" and step == "seats"))
                if step in open_values:
                    break
    assert len(keys) > 150
    assert missing("reference/json.html", keys - {""}) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of modules that have moved
@pytest.mark.parametrize("root", [CouncilResult, Plan, RunInfo, EvalReport, GenerateRequest, ProviderCapabilities])
def test_every_class_that_becomes_json_has_a_table_of_its_keys(root: type) -> None:
    pages = "".join((ROOT / f"docs/reference/{name}.md").read_text(encoding="utf-8") for name in ("json", "settings"))
    tables = {found.rpartition(".")[2] for found in re.findall(r"^```\{fields\} (\S+)$", pages, re.MULTILINE)}
    assert sorted({cls.__name__ for cls in held_classes(root)} - tables) == []


def held_classes(root: type) -> set[type]:
    """The class, and those of the values that its fields hold, at any depth."""
    from api_pages import homes

    known: dict[str, list[type]] = {}
    for module, names in homes().items():
        for name in names:
            value = getattr(importlib.import_module(module), name)
            if isinstance(value, type) and attrs.has(value):
                known.setdefault(name, []).append(value)
    found: set[type] = set()
    waiting = [root]
    while waiting:
        cls = waiting.pop()
        if cls in found:
            continue
        found.add(cls)
        for field in attrs.fields(cls):
            if not field.name.startswith("_"):
                for word in re.findall(r"\w+", str(field.type)):
                    waiting += known.get(word, ())[:1]
    return found


def test_every_key_of_a_line_of_a_batch_is_explained() -> None:
    page = (ROOT / "docs/reference/json.md").read_text(encoding="utf-8")
    section = page.split("## A line of `council batch`")[1].split("\n## ")[0]
    assert [key for key in ("id", *_COMPACT) if f"`{key}`" not in section] == []


def test_every_strategy_has_its_options_and_a_drawing() -> None:
    for name in BUILT_IN:
        strategy = class_of(name)
        options = [field.name for field in attrs.fields(strategy)]
        assert missing("reference/strategies.html", [name, *options]) == []
        assert (ROOT / f"docs/images/strategies/{name}.svg").is_file()


def test_the_drawings_are_those_of_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    import strategy_drawings

    monkeypatch.setattr(sys, "argv", ["strategy_drawings.py", "--check"])
    assert strategy_drawings.main() == 0


def test_every_link_of_the_site_leads_somewhere() -> None:
    pages = {path.relative_to(SITE).as_posix(): path.read_text(encoding="utf-8") for path in SITE.rglob("*.html")}
    ids = {page: set(re.findall(r'\bid="([^"]+)"', source)) for page, source in pages.items()}
    dead = []
    for page, source in pages.items():
        for link in re.findall(r'<a\b[^>]*\bhref="([^"]+)"', source):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = html.unescape(link).partition("#")
            target = os.path.normpath(Path(page).parent / path) if path else page
            is_there = target in pages or (SITE / target).exists()
            if not is_there or (anchor and target in ids and anchor not in ids[target]):
                dead.append(f"{page}: {link}")
    assert len(pages) > 40
    assert dead == []


def test_no_page_loads_anything_from_elsewhere() -> None:
    loads = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)=\"(?:https?:)?//")
    assert [path.name for path in SITE.rglob("*.html") if loads.search(path.read_text(encoding="utf-8"))] == []
