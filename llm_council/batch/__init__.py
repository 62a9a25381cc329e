"""Many tasks: their results as an iterator, their concurrency, and the budget that they share.

``map`` is given a function that runs one task, and knows neither the council nor the engine.
"""

from __future__ import annotations

from llm_council.batch.map import CouncilMap

__all__ = ["CouncilMap"]
