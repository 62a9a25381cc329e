"""Write the table of faults from the tests: ``python tests/faults --write docs/reference/faults.md``, or print it."""

import ast
import sys
from pathlib import Path

HERE = Path(__file__).parent
BEGIN, END = "<!-- rows: begin -->", "<!-- rows: end -->"
ORDER = (
    "connection",
    "status",
    "answers",
    "streams",
    "life",
    "processes",
    "plugins",
    "council",
    "secrets",
    "memory",
    "leaks",
    "signals",
)
SEATS = {
    "vendor": "OpenAI, Anthropic, Gemini, Ollama; `httpx`, `requests`",
    "mock": "OpenAI, Anthropic, Gemini, Ollama",
    "agent": "Codex CLI, Claude Code, Gemini CLI",
}


def rows() -> str:
    """Return a section for each module and a row for each test, from their docstrings."""
    text = []
    for section in (name for name in ORDER if (HERE / f"test_{name}.py").exists()):
        path = HERE / f"test_{section}.py"
        module = ast.parse(path.read_text())
        title = (ast.get_docstring(module) or section).rstrip(".")
        text += [f"\n## {title}\n", "| row | promise | shown for |", "|---|---|---|"]
        limits = []
        for test in module.body:
            if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef) and test.name.startswith("test_"):
                promise, _, limit = (ast.get_docstring(test) or "").partition("\n\nLimits: ")
                name = test.name.removeprefix("test_")
                seats = next((SEATS[arg.arg] for arg in test.args.args if arg.arg in SEATS), "")
                mark = f" [^{section}-{name}]" if limit else ""
                text.append(f"| `{name}` | {' '.join(promise.split())}{mark} | {seats} |")
                limits += [f"[^{section}-{name}]: {' '.join(limit.split())}"] if limit else []
        text += ["", *limits] if limits else []
    return "\n".join(text).strip("\n")


def main() -> None:
    """Print the table, or put it between the markers of a page."""
    if sys.argv[1:2] != ["--write"]:
        print(rows())
        return
    page = Path(sys.argv[2])
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{rows()}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
