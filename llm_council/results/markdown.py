"""The Markdown report of a run. The Markdown of models is written anew: it has no link, image, HTML or heading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llm_council.errors._secrets import redact
from llm_council.errors._visible import visible
from llm_council.results._deliberation import deliberation_tables
from llm_council.results._inert_markdown import code_block, escape, rendered
from llm_council.results.html import date, outcomes, title
from llm_council.results.plain import split_answer, vote_line, vote_rows

if TYPE_CHECKING:
    from llm_council.results import CouncilResult

__all__ = ["report"]

_DEPTH = 8  # deeper levels of an answer are shown as JSON


def report(result: CouncilResult) -> str:
    """Return the report of a run as Markdown.

    Args:
        result: the run's result.
    """
    return "\n\n".join(_parts(result)) + "\n"


def _parts(result: CouncilResult) -> Iterator[str]:
    yield f"# {_inline(title(result)) or 'Council'}"
    yield " · ".join(_facts(result))
    if result.task.strip() != title(result):
        yield f"## Task\n\n{code_block(result.task)}"
    if result.error is not None:
        yield f"**{type(result.error).__name__}:** {_inline(str(result.error))}"
    yield from _answer(result)
    votes = vote_line(result)
    if votes is not None:
        yield f"## Votes\n\n{_inline(votes)}\n\n" + "\n".join(_votes(result))
    for table in deliberation_tables(result):
        cells = [table.titles, ("---",) * len(table.titles), *(tuple(map(_inline, row)) for row in table.rows)]
        yield f"## {table.heading}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in cells)
    for heading, lines in (
        ("Problems", [f"{_inline(problem.path)}: {_inline(problem.message)}" for problem in result.problems]),
        ("Warnings", [_inline(warning) for warning in result.warnings]),
    ):
        if lines:
            yield f"## {heading}\n\n" + "\n".join(f"- {line}" for line in lines)
    yield "## Seats\n\n" + "\n".join(_table(result))
    for heading, texts in (("Drafts", result.drafts), ("Critiques", result.critiques)):
        if texts:
            yield f"## {heading}"
            for seat, text in texts.items():
                yield f"### {_inline(seat)}\n\n{rendered(text)[0]}"
    follows = f", which goes on from {_inline(result.plan.follows)}" if result.plan.follows else ""
    yield f"Run {_inline(result.run_id)}{follows}"


def _facts(result: CouncilResult) -> Iterator[str]:
    yield f"**Status:** {result.status}"
    if result.plan.created:
        yield f"**Date:** {_inline(date(result))}"
    mode = f" ({_inline(result.mode)})" if result.mode else ""
    yield f"**Subagent:** {_inline(result.subagent)}{mode}"
    if result.chair:
        yield f"**Chair:** {_inline(result.chair)}"
    if result.agreement is not None:
        yield f"**Agreement:** {result.agreement.level} ({result.agreement.share:.0%})"
    yield f"{result.duration:.1f} s"
    if result.usage.total_tokens is not None:
        yield f"{result.usage.total_tokens} tokens"
    if result.cost.usd is not None:
        yield f"{'' if result.cost.complete else 'at least '}{result.cost.usd:.4f} USD"


def _answer(result: CouncilResult) -> Iterator[str]:
    shown, fields = split_answer(result)
    if shown is None:
        return
    yield "## Answer"
    if isinstance(shown, dict) and shown:
        fields = shown
    else:
        yield _value(shown, 0)[0]
    yield from (_field(str(name), value) for name, value in fields.items() if (name, value) != ("reasoning", ""))


def _field(name: str, value: Any) -> str:
    label = _inline(name.replace("_", " "))
    text, is_line = _value(value, 0)
    return f"**{label}:** {text}" if is_line else f"**{label}:**\n\n{text}"


def _value(value: Any, depth: int) -> tuple[str, bool]:
    """Show a JSON value: a list as a list, text as Markdown. Return too whether it can stand on its title's line."""
    if isinstance(value, str):
        return rendered(value)
    if isinstance(value, dict | list) and depth >= _DEPTH:
        return code_block(json.dumps(value, ensure_ascii=False, indent=2), "json"), False
    if isinstance(value, dict) and value:
        items = [(f"**{_inline(str(name).replace('_', ' '))}:** ", item) for name, item in value.items()]
    elif isinstance(value, list) and value:
        items = [("", item) for item in value]
    elif isinstance(value, bool):  # as on the terminal
        return "yes" if value else "no", True
    else:
        return _inline(json.dumps(value, ensure_ascii=False)), True
    return "\n".join(_item(head, item, depth) for head, item in items), False


def _item(head: str, value: Any, depth: int) -> str:
    text, is_line = _value(value, depth + 1)
    nested = isinstance(value, dict | list) and bool(value)
    if is_line:
        return f"- {head}{text}"
    indented = "\n".join(f"  {line}" if line else "" for line in text.split("\n"))
    return f"- {head.rstrip()}\n\n{indented}\n" if not nested or head else f"-{indented[1:]}"


def _table(result: CouncilResult) -> Iterator[str]:
    yield "| seat | provider | model | calls | seconds | tokens | outcome |"
    yield "| --- | --- | --- | ---: | ---: | ---: | --- |"
    for seat, outcome in outcomes(result):
        tokens = seat.usage.total_tokens
        cells = [
            _inline(seat.name),
            _inline(seat.provider),
            _inline(seat.model or ""),
            str(len(seat.calls)),
            f"{seat.elapsed:.1f}",
            "" if tokens is None else str(tokens),
            _inline(outcome),
        ]
        yield f"| {' | '.join(cells)} |"


def _votes(result: CouncilResult) -> Iterator[str]:
    titles, *rows = vote_rows(result)
    yield f"| {titles[0]} | {titles[1]} |"
    yield "| --- | --- |"
    for name, text in rows:
        yield f"| {_inline(name)} | {_inline(text)} |"


def _inline(text: str) -> str:
    """Return text for use within a line, with markup escaped."""
    return escape(" ".join(visible(redact(text)).split()))
