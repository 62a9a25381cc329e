"""Write the table of faults from the tests: ``python tests/faults --write docs/reference/faults.md``, or print it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from fault_dialects import VENDORS

HERE = Path(__file__).parent
BEGIN, END = "<!-- rows: begin -->", "<!-- rows: end -->"
ORDER = (
    "connection",
    "status",
    "answers",
    "requests",
    "streams",
    "reply_forms",
    "life",
    "surroundings",
    "processes",
    "plugins",
    "council",
    "killed_strategies",
    "secrets",
    "memory",
    "leaks",
    "signals",
)
SEATS = {
    "vendor": "all, over all",
    "mock": "all",
    "agent": "Codex CLI, Claude Code, Gemini CLI",
}
TRANSPORTS = {
    "httpx": "`httpx`, over aiohttp",
    "httpcore": "`httpx`, over its own pool",
    "requests": "`requests`",
    "sdk": "Anthropic's own client",
}
TITLES = {**{dialect.id: dialect.title for dialect in VENDORS.values()}, **TRANSPORTS}


def rows() -> str:
    """Return the list of providers, and for each module a section with a row for each test, from the docstrings."""
    providers = ", ".join(dialect.title for dialect in VENDORS.values())
    text = [f"All: {providers}.\n\nOver all: {'; '.join(TRANSPORTS.values())}."]
    for section in (name for name in ORDER if (HERE / f"test_{name}.py").exists()):
        path = HERE / f"test_{section}.py"
        module = ast.parse(path.read_text())
        title = (ast.get_docstring(module) or section).rstrip(".")
        text += [f"\n## {title}\n", "| row | promise | shown for |", "|---|---|---|"]
        notes = []
        for test in module.body:
            if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef) and test.name.startswith("test_"):
                promise, _, limit = (ast.get_docstring(test) or "").partition("\n\nLimits: ")
                name = test.name.removeprefix("test_")
                seats = next((SEATS[arg.arg] for arg in test.args.args if arg.arg in SEATS), "")
                note = " ".join([*([" ".join(limit.split())] if limit else []), *exceptions(test, module)])
                mark = f" [^{section}-{name}]" if note else ""
                text.append(f"| `{name}` | {' '.join(promise.split())}{mark} | {seats} |")
                notes += [f"[^{section}-{name}]: {note}"] if note else []
        text += ["", *notes] if notes else []
    return "\n".join(text).strip("\n")


def exceptions(test: ast.FunctionDef | ast.AsyncFunctionDef, module: ast.Module) -> Iterator[str]:
    """Yield a sentence for each reason in the ``exempt`` marks of a test, with the providers it applies to."""
    names = {
        line.targets[0].id: line.value.value
        for line in module.body
        if isinstance(line, ast.Assign)
        and isinstance(line.targets[0], ast.Name)
        and isinstance(line.value, ast.Constant)
    }
    reasons: dict[str, list[str]] = {}
    for mark in test.decorator_list:
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "exempt":
            who, why = (names[part.id] if isinstance(part, ast.Name) else ast.literal_eval(part) for part in mark.args)
            reasons.setdefault(why, []).append(TITLES[who])
    for why, whose in reasons.items():
        yield f"{', '.join(whose)}: {why}"


def main() -> None:
    """Print the table, or write it between the markers of a page."""
    if sys.argv[1:2] != ["--write"]:
        print(rows())
        return
    page = Path(sys.argv[2])
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{rows()}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
