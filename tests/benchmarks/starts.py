"""Starting: what an import costs and loads, what a first council costs, how soon the command line is there."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measure import best_of_interleaved, cpu_of, figure, format_comparison

HTTPX_CLIENT = "import httpx; httpx.Client()"
COUNCIL = "from llm_council import Council; Council(['openai'])"
COUNT = "import sys; before = len(sys.modules); import llm_council; print(len(sys.modules) - before)"


def measured(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Return the figures; the server is not needed."""
    rounds = 3 if short else 12
    peer = _peer()
    imports = _imports(rounds, peer, ("httpx",) if short else ("httpx", "aiohttp", "requests", "openai"))
    first = best_of_interleaved({name: _python(sys.executable, code) for name, code in _FIRST.items()}, 2 * rounds)
    bare = first.pop("bare")
    first = {name: seconds - bare for name, seconds in first.items()}
    loaded = int(subprocess.check_output([sys.executable, "-P", "-c", COUNT]))
    figures = [
        figure("import", imports["ours"] / imports["httpx"], format_comparison(imports, "ours", "httpx", 1e3, "ms")),
        figure("modules", loaded, f"{loaded}"),
        figure("first-council", first["ours"] / first["httpx"], format_comparison(first, "ours", "httpx", 1e3, "ms")),
    ]
    if peer is None:
        return figures
    for key, argument in (("cli-version", "version"), ("cli-help", "--help")):
        candidates = {"ours": _command(sys.executable, argument), "peer": _command(str(peer), argument)}
        best = best_of_interleaved(candidates, rounds)
        figures.append(figure(key, best["ours"] / best["peer"], format_comparison(best, "ours", "peer", 1e3, "ms")))
    return figures


_FIRST = {"bare": "pass", "ours": COUNCIL, "httpx": HTTPX_CLIENT}


def _imports(rounds: int, peer: Path | None, libraries: tuple[str, ...]) -> dict[str, float]:
    """Return the CPU seconds of importing each, over that of an interpreter that imports nothing."""
    candidates = {"bare": _python(sys.executable, "pass"), "ours": _python(sys.executable, "import llm_council")}
    for name in libraries:
        if find_spec(name):
            candidates[name] = _python(sys.executable, f"import {name}")
    if peer is not None:
        candidates["bare peer"] = _python(str(peer), "pass")
        candidates["peer"] = _python(str(peer), "import llm_council")
    best = best_of_interleaved(candidates, rounds)
    bare = best.pop("bare")
    bare_peer = best.pop("bare peer", 0.0)
    return {name: seconds - (bare_peer if name == "peer" else bare) for name, seconds in best.items()}


def _python(python: str, code: str) -> Any:
    # -P: the folder that this runs in may hold our own package, which is named as the peer's is.
    return lambda: cpu_of([python, "-P", "-c", code], {"OPENAI_API_KEY": "none-is-sent"})


def _command(python: str, argument: str) -> Any:
    return lambda: cpu_of([str(Path(python).with_name("council")), argument])


def _peer() -> Path | None:
    """Return the Python of the environment that holds the closest peer."""
    python = Path(os.environ.get("LLM_COUNCIL_PEER", ""), "bin", "python")
    return python if python.is_file() else None
