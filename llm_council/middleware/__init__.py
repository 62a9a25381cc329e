"""Providers that hold a provider."""

from __future__ import annotations

from llm_council.middleware.retry import Retry

__all__ = ["Retry"]
