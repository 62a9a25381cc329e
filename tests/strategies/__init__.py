"""Hypothesis strategies for every data class of the library.

``any_model()`` draws from all of them. ``representable(dialect)`` gives the requests, and ``replies(dialect)`` the
answers, that a dialect carries whole: the ones for which round trips are laws.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from llm_council import models as m
from llm_council.errors import MissingDependency

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ModuleNotFoundError:
    raise MissingDependency("strategies need hypothesis: pip install 'llm-council-sdk[testing]'") from None

from strategies._dialects import as_sent, replies, representable
from strategies._examples import DEFAULT_EXAMPLES, examples, number_of_examples
from strategies._models import (
    adjustments,
    attempts,
    budgets,
    capabilities,
    chunks,
    conversations,
    costs,
    doctor_results,
    documents,
    images,
    limits,
    messages,
    parts,
    pdfs,
    reasoning_configs,
    reasoning_parts,
    recordings,
    requests,
    responses,
    retry_policies,
    sounds,
    structured_outputs,
    text_parts,
    timeouts,
    tool_call_deltas,
    tool_calls,
    tools,
    usages,
)
from strategies._runs import (
    agreements,
    answers,
    attachments,
    checks,
    critiques,
    dissents,
    drafts,
    errors,
    events,
    flips,
    judgements,
    past_tasks,
    phases,
    plans,
    problems,
    rankings,
    role_prompts,
    rounds,
    rungs,
    seat_specs,
    tallies,
    tasks,
    timings,
)
from strategies._values import json_values, words

__all__ = [
    "DEFAULT_EXAMPLES",
    "adjustments",
    "agreements",
    "answers",
    "any_model",
    "as_sent",
    "attachments",
    "attempts",
    "budgets",
    "capabilities",
    "checks",
    "chunks",
    "conversations",
    "costs",
    "critiques",
    "dissents",
    "doctor_results",
    "documents",
    "drafts",
    "errors",
    "events",
    "examples",
    "flips",
    "images",
    "instances_of",
    "json_values",
    "judgements",
    "limits",
    "messages",
    "number_of_examples",
    "parts",
    "past_tasks",
    "pdfs",
    "phases",
    "plans",
    "problems",
    "rankings",
    "reasoning_configs",
    "reasoning_parts",
    "recordings",
    "replies",
    "representable",
    "requests",
    "responses",
    "retry_policies",
    "role_prompts",
    "rounds",
    "rungs",
    "seat_specs",
    "sounds",
    "structured_outputs",
    "tallies",
    "tasks",
    "text_parts",
    "timeouts",
    "timings",
    "tool_call_deltas",
    "tool_calls",
    "tools",
    "usages",
    "words",
]

T = TypeVar("T")

_BY_CLASS: dict[type, Callable[[], SearchStrategy[Any]]] = {
    m.Adjustment: adjustments,
    m.Agreement: agreements,
    m.Answer: answers,
    m.Attachment: attachments,
    m.Attempt: attempts,
    m.Budget: budgets,
    m.Cost: costs,
    m.Critique: critiques,
    m.Check: checks,
    m.Dissent: dissents,
    m.DoctorResult: doctor_results,
    m.Draft: drafts,
    m.GenerateChunk: chunks,
    m.GenerateRequest: requests,
    m.GenerateResponse: responses,
    m.AudioPart: sounds,
    m.DocumentPart: documents,
    m.ImagePart: images,
    m.Judgement: judgements,
    m.Flip: flips,
    m.Round: rounds,
    m.Rung: rungs,
    m.Limits: limits,
    m.Message: messages,
    m.PhaseTiming: timings,
    m.PastTask: past_tasks,
    m.Plan: plans,
    m.Problem: problems,
    m.ProviderCapabilities: capabilities,
    m.Ranking: rankings,
    m.ReasoningConfig: reasoning_configs,
    m.ReasoningPart: reasoning_parts,
    m.RetryPolicy: retry_policies,
    m.RolePrompts: role_prompts,
    m.SeatSpec: seat_specs,
    m.StructuredOutput: structured_outputs,
    m.Tally: tallies,
    m.Task: tasks,
    m.TextPart: text_parts,
    m.Timeouts: timeouts,
    m.Tool: tools,
    m.ToolCall: tool_calls,
    m.ToolCallDelta: tool_call_deltas,
    m.Usage: usages,
}


def instances_of(cls: type[T]) -> SearchStrategy[T]:
    """Return the strategy of a class of ``llm_council.models``.

    Raises:
        KeyError: the class is none of them.
    """
    return _BY_CLASS[cls]()


@cache
def any_model() -> SearchStrategy[Any]:
    """Return any object of ``llm_council.models``; events and errors have their own strategies."""
    return st.one_of(*(strategy() for strategy in _BY_CLASS.values()))
