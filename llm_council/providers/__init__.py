"""Adapters to models, and the one door to them; ``llm_council.providers.base`` is the import an author needs."""
