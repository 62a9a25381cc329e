"""How many threads the engine gets."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_threads"]

_QUOTA = Path("/sys/fs/cgroup/cpu.max")

MOST_GENERATING = 4
MOST_READING = 8
"""Models of the size that runs here gain nothing from more."""


def default_threads() -> tuple[int, int]:
    """Return how many threads generate and how many read prompts.

    With both cores of a two-core machine busy, two generating threads were 30 times slower than one: they wait for each
    other at every layer. One core stays free, therefore. Prompts are read in large batches and gain from every core,
    as long as waiting threads sleep (``OMP_WAIT_POLICY=passive``).
    """
    cores = _cores()
    return max(1, min(cores - 1, MOST_GENERATING)), max(1, min(cores, MOST_READING))


def _cores() -> int:
    """Return the cores that this process may use; a container may have less time than its cores would give."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else (os.cpu_count() or 1)
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return cores
