"""The ``council`` command: ``llm_council.cli:main``."""

from __future__ import annotations

from llm_council.cli._main import main

__all__ = ["main"]
