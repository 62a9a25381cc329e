"""What tests of the command share with their fixtures: the script of a seat, and the type of ``council``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["ANSWER", "SCRIPT", "Council"]

ANSWER = json.dumps({"answer": "Paris", "reasoning": "It is the seat of government."})
SCRIPT = {"draft": ANSWER, "critique": "All hold.\nRANKING: A > B > C > D > E > F > G > H", "*": ANSWER}

Council: TypeAlias = Callable[..., tuple[int, str, str]]
"""Runs the command with these words and returns its exit status, its stdout and its stderr.

``stdin`` is what is piped in, at most what a pipe holds; None closes standard input.
"""
