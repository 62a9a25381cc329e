"""The site that Sphinx has built holds every public name, flag, key, event, error, status and variable.

``LLM_COUNCIL_SITE`` is its folder; ``tox -e docs`` builds it.
"""

from __future__ import annotations

import html
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
from llm_council.config import CouncilConfig
from llm_council.config._environment import KNOWN
from llm_council.models import Budget, Limits, ReasoningConfig, RetryPolicy
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


@pytest.mark.parametrize("cls", [CouncilConfig, Budget, Limits, RetryPolicy, ReasoningConfig])
def test_every_setting_is_explained(cls: type) -> None:
    assert missing("reference/settings.html", [field.name for field in attrs.fields(cls)]) == []


def test_every_json_key_is_explained() -> None:
    program = "import json, public_json; print(json.dumps(public_json.collect_json()['json']))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "tools", stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    # Below these keys stands what the caller, a vendor or a schema has chosen, or what settings.md explains.
    free = {"schema", "metadata", "output", "structured", "extra", "request", "drafts", "critiques", "errors", "seats"}
    free |= {
        "limits",
        "budget",
        "retry",
        "reasoning",
        "capabilities",
        "aliases",
        "otherwise",
        "calls",
        "answers",
        "points",
    }
    keys = set()
    for command, paths in json.loads(done.stdout).items():
        if command != "config show":
            for path in paths:
                steps = path.replace("[]", "").strip(".").split(".")
                cut = next((place for place, step in enumerate(steps) if step in free), len(steps))
                keys |= set(steps[: cut + 1])
    assert missing("reference/json.html", keys - {""}) == []


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
