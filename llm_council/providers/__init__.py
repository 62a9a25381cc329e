"""Adapters to models. ``llm_council.providers.base`` is the single entry point: callers and authors import from it."""
