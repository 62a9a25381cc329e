"""The provider of the seed page, word for word: the promises that it keeps, and those that its sketch leaves out."""

import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from llm_council.testing.conformance import ProviderConformance

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[3] / "shared")
PAGE = SHARED / "seed" / "creating-custom-providers.md"

if not PAGE.is_file():
    pytest.skip(f"no seed page at {PAGE}: set LLM_COUNCIL_SHARED", allow_module_level=True)


class TestMyProvider(ProviderConformance):
    """It breaks the promises that its code leaves out; the base class keeps the others."""

    not_kept: ClassVar = {
        "knobs": "it sends neither top_p nor stop",
        "extra": "it sends no extra",
        "tools": "it declares tool_use, and sends no tools",
        "tool_offers": "it declares tool_use, and sends no tools",
        "tool_history": "it declares tool_use, and sends no calls of tools",
        "parallel_calls": "it declares tool_use, and returns no calls of tools",
        "silent_changes": "it sends neither top_p nor stop",
        "schema": "it declares structured_output, and sends no schema",
        "streaming": "it declares streaming, and answers whole",
        "secrets": "it keeps its key as a plain string, which goes into its pickle",
    }
    quick = 1.0

    @pytest.fixture(autouse=True)
    def _page(self, tmp_path, monkeypatch):
        """Import the page's module by the name that its entry point gives it."""
        blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        path = tmp_path / "seed_page.py"
        path.write_text(next(block for block in blocks if "import httpx" in block))
        monkeypatch.syspath_prepend(tmp_path)
        spec = importlib.util.spec_from_file_location("seed_page", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "seed_page", module)
        spec.loader.exec_module(module)
        self.provider = module.MyProvider
