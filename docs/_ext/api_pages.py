"""Write the pages of the API reference before they are read: every public name, at the one place that documents it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import llm_council

FOLDER = Path(__file__).parents[1] / "reference" / "api"


def public_modules() -> Iterator[str]:
    """Yield every module without an underscore in its dotted name, which is what makes a module public."""
    yield "llm_council"
    for found in pkgutil.walk_packages(llm_council.__path__, "llm_council."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield found.name


def homes() -> dict[str, list[str]]:
    """Return the names that each module documents: those it defines, and those that only private modules define."""
    exported: dict[str, dict[str, Any]] = {}
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of modules that have moved
            exported[module_name] = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    documented: dict[str, list[str]] = {name: [] for name in exported}
    seen: set[int] = set()
    # The module that defines a name comes first, then the one with the longest name: the nearest to it.
    for defines in (True, False):
        for module_name in sorted(exported, key=len, reverse=True):
            for name, value in exported[module_name].items():
                is_object = isinstance(value, type) or inspect.isroutine(value)
                if is_object and not value.__module__.startswith("llm_council"):
                    continue  # a class of another library, which documents it
                if (getattr(value, "__module__", None) == module_name) is defines and id(value) not in seen:
                    documented[module_name].append(name)
                    if is_object:
                        seen.add(id(value))
    return {name: sorted(names) for name, names in documented.items()}


def directive(module: str, name: str) -> str:
    """Return what documents one name."""
    value = getattr(importlib.import_module(module), name)
    if isinstance(value, type):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        return f".. {kind}:: {module}.{name}\n   :members:\n   :show-inheritance:\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {module}.{name}\n"
    # autodoc shows the docstring of a constant's type where the constant has none in this module.
    described = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name))
    lines = described or [f"The value is ``{value!r:.200}``."]
    return "\n".join([f".. data:: {name}", "", *(f"   {line}" for line in lines)]) + "\n"


def names_from_elsewhere(module: str, documented: dict[str, list[str]]) -> str:
    """Return links to the names that a module exports and another one documents."""
    exported = importlib.import_module(module)
    links = []
    for name in sorted(set(getattr(exported, "__all__", ())) - set(documented[module])):
        for home, names in documented.items():
            if name in names and getattr(importlib.import_module(home), name) is getattr(exported, name):
                links.append(f":py:obj:`{name} <{home}.{name}>`")
                break
    return f"It also exports {', '.join(links)}.\n" if links else ""


def page(package: str, modules: dict[str, list[str]], documented: dict[str, list[str]]) -> str:
    """Return the page of a package: its modules, each with its names."""
    parts = [f"# {package}\n"]
    for module, names in modules.items():
        if module != package:
            parts.append(f"## {module}\n")
        summary = inspect.getdoc(importlib.import_module(module)) or ""
        directives = "\n".join(directive(module, name) for name in names)
        links = names_from_elsewhere(module, documented)
        parts.append(f"```{{eval-rst}}\n.. module:: {module}\n\n{summary}\n\n{links}\n{directives}\n```\n")
    return "\n".join(parts)


def write_pages(_: Sphinx) -> None:
    """Write a page for each package directly below ``llm_council``, and remove pages of packages that are gone."""
    packages: dict[str, dict[str, list[str]]] = {}
    documented = homes()
    for module, names in documented.items():
        if names:
            packages.setdefault(".".join(module.split(".")[:2]), {})[module] = names
    FOLDER.mkdir(exist_ok=True)
    pages = {f"{package}.md": page(package, modules, documented) for package, modules in packages.items()}
    for stale in {path.name for path in FOLDER.glob("*.md")} - pages.keys():
        (FOLDER / stale).unlink()
    for name, text in pages.items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before Sphinx looks for pages."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
