"""What an engine runs with: its model, its slots, and how many threads it gets."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

__all__ = ["EngineSpec", "default_threads"]

_QUOTA = Path("/sys/fs/cgroup/cpu.max")

MOST_GENERATING = 4
MOST_READING = 8
"""Models of the size that runs here gain nothing from more."""


@attrs.frozen(kw_only=True)
class EngineSpec:
    """What makes two engines the same one.

    Attributes:
        model: absolute path of the weights.
        alias: the name that replies carry.
        slots: requests that are computed at once; further ones queue in the engine.
        context: tokens of one slot, prompt and answer together.
        threads: threads that generate.
        batch_threads: threads that read prompts.
    """

    model: str
    alias: str
    slots: int = 4
    context: int = 4096
    threads: int = attrs.field(factory=lambda: default_threads()[0])
    batch_threads: int = attrs.field(factory=lambda: default_threads()[1])


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
