"""Measure everything, print the table, and write it into a page: ``python tests/benchmarks --help``.

Each group of figures is measured in a process of its own, so that none inherits another's memory and connections.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import loopback
import table

GROUPS = ("starts", "served", "calls", "wrappers", "streams", "councils", "paces", "maps", "peer", "soak")
LIMIT = 900.0
"""Seconds that one group may take."""


def main() -> int:
    """Measure, print, write; 1 when a short form finds a gross regression."""
    options = _options()
    if options.group:
        print(json.dumps(_group(options.group, options.url, options)))
        return 0
    peer = _peer_version()
    for name, there in (("openai", importlib.util.find_spec("openai")), ("the closest council package", peer)):
        if not there:
            print(f"NOTE: {name} is not installed: nothing is measured against it", file=sys.stderr)
    machine = table.machine(peer)
    groups = options.only or [name for name in GROUPS if not (options.short and name == "soak")]
    figures: list[dict[str, Any]] = []
    profile = ""
    with loopback.running() as url:
        for name in groups:
            figures += _in_a_process(name, url, options)
        if options.write or options.profile:
            profile = _in_a_process("profile", url, options)
    measured = f"{machine}\n\n{table.rows(figures)}"
    print(f"\n{measured}\n\n{profile}")
    if options.write:
        table.put(options.write, "measured", measured)
        table.put(options.write, "profile", profile)
    regressions = table.gross(figures) if options.short else []
    for line in regressions:
        print(f"GROSS REGRESSION: {line}", file=sys.stderr)
    return 1 if regressions else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few rounds, no soak; fail on gross regressions alone")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between the markers of this page")
    parser.add_argument("--profile", action="store_true", help="print where the CPU of a run goes, too")
    parser.add_argument("--only", action="append", choices=GROUPS, help="take one group of figures alone")
    parser.add_argument("--soak", type=int, default=10_000, metavar="RUNS", help="council runs of the soak")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(name: str, url: str, options: argparse.Namespace) -> Any:
    began = time.perf_counter()
    command = [sys.executable, __file__, "--group", name, "--url", url, "--soak", str(options.soak)]
    command += ["--short"] if options.short else []
    # Without files of compiled code, each start would compile everything again.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT)
    print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def _group(name: str, url: str, options: argparse.Namespace) -> Any:
    # Imported here: the start of everything is measured from processes that have loaded nothing of it.
    if name == "profile":
        profiled = importlib.import_module("profiled")
        return f"{profiled.summary(url, 20 if options.short else 200)}\n\n{profiled.memory(url, 100)}"
    if name == "peer":
        return importlib.import_module("councils").against_the_peer(url, short=options.short)
    if name == "soak":
        return asyncio.run(importlib.import_module("councils").soak(url, options.soak))
    return importlib.import_module(name).measured(url, short=options.short)


def _peer_version() -> str | None:
    python = Path(os.environ.get("LLM_COUNCIL_PEER", ""), "bin", "python")
    if not python.is_file():
        return None
    code = "from importlib.metadata import version; print(version('the-llm-council'))"
    output = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return output.stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main())
