"""``docs/reference/faults.md`` is written from the docstrings of these tests."""

import ast
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "faults.md"


def test_the_page_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(HERE)], capture_output=True, text=True, check=True, timeout=60)
    shown = PAGE.read_text().partition("<!-- rows: begin -->")[2].partition("<!-- rows: end -->")[0]
    assert shown.strip("\n") == done.stdout.strip("\n"), "python tests/faults --write docs/reference/faults.md"


def test_every_test_has_a_docstring_that_fits_a_table_row() -> None:
    for path in HERE.glob("test_*.py"):
        if path.name == Path(__file__).name:
            continue
        module = ast.parse(path.read_text())
        assert ast.get_docstring(module), path.name
        for test in module.body:
            if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef) and test.name.startswith("test_"):
                docstring = ast.get_docstring(test) or ""
                assert docstring.rstrip().endswith("."), f"{path.name}: {test.name}"
                assert "|" not in docstring, f"{path.name}: {test.name}"
