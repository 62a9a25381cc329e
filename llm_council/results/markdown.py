"""The Markdown report of a run. Text from models is escaped: it contains no markup, link, image or HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llm_council.errors._secrets import clean

if TYPE_CHECKING:
    from llm_council.results import CouncilResult, SeatReport

__all__ = ["report"]

_SHORT = 300  # a longer text is shown as a block of its own
_DEPTH = 8  # deeper levels of an answer are shown as JSON
_NO_LIMIT = 1 << 32  # `clean` shortens its text by default, which suits messages and not reports

# The markup of Markdown and its common dialects. GitHub makes links of `www.` and of URLs, hence the dot and the colon.
_MARKUP = re.compile(r"[\\`*_\[\]{}<>&|~!#$@^=:]|(?<=www)\.|^[-+](?=\s)|^\d+(?=[.)]\s)", re.IGNORECASE)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def report(result: CouncilResult) -> str:
    """Return the report of a run as Markdown.

    Args:
        result: the run's result.
    """
    return "\n\n".join(_parts(result)) + "\n"


def _parts(result: CouncilResult) -> Iterator[str]:
    mode = f" ({_inline(result.mode)})" if result.mode else ""
    yield f"# Council: {_inline(result.subagent)}{mode}"
    yield " · ".join(_facts(result))
    yield f"## Task\n\n{_block(result.task)}"
    if result.error is not None:
        yield f"**{type(result.error).__name__}:** {_inline(str(result.error))}"
    yield from _answer(result)
    for title, lines in (
        ("Problems", [f"{_inline(problem.path)}: {_inline(problem.message)}" for problem in result.problems]),
        ("Warnings", [_inline(warning) for warning in result.warnings]),
    ):
        if lines:
            yield f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines)
    yield "## Seats\n\n" + "\n".join(_table(result))
    for title, texts in (("Drafts", result.drafts), ("Critiques", result.critiques)):
        if texts:
            yield f"## {title}"
            for seat, text in texts.items():
                yield f"### {_inline(seat)}\n\n{_block(text)}"
    yield f"Run {_inline(result.run_id)}"


def _facts(result: CouncilResult) -> Iterator[str]:
    yield f"**Status:** {result.status}"
    if result.chair:
        yield f"**Chair:** {_inline(result.chair)}"
    yield f"{result.duration:.1f} s"
    if result.usage.total_tokens is not None:
        yield f"{result.usage.total_tokens} tokens"
    if result.cost.usd is not None:
        yield f"{'' if result.cost.complete else 'at least '}{result.cost.usd:.4f} USD"


def _answer(result: CouncilResult) -> Iterator[str]:
    if result.output is None and result.text is None:
        return
    yield "## Answer"
    if result.output is None or isinstance(result.output, str):
        yield _block(result.output if result.output is not None else result.text or "")
    elif isinstance(result.output, dict) and result.output:
        yield "\n\n".join(_field(str(name), value) for name, value in result.output.items())
    else:
        yield _value(result.output, 0)


def _field(name: str, value: Any) -> str:
    title = _inline(name.replace("_", " "))
    text = _value(value, 0)
    if "\n" in text or (isinstance(value, dict | list) and value):
        return f"**{title}:**\n\n{text}"
    return f"**{title}:** {text}"


def _value(value: Any, depth: int) -> str:
    """Show a JSON value: a list as a list, short text inline, long text as a block."""
    if isinstance(value, dict | list) and depth >= _DEPTH:
        return _block(json.dumps(value, ensure_ascii=False, indent=2), "json")
    if isinstance(value, dict) and value:
        items = [(f"**{_inline(str(name).replace('_', ' '))}:** ", item) for name, item in value.items()]
    elif isinstance(value, list) and value:
        items = [("", item) for item in value]
    elif isinstance(value, str):
        return _inline(value) if len(value) <= _SHORT and "\n" not in value.strip() else _block(value)
    else:
        return _inline(json.dumps(value, ensure_ascii=False))
    return "\n".join(_item(head, item, depth) for head, item in items)


def _item(head: str, value: Any, depth: int) -> str:
    text = _value(value, depth + 1)
    nested = isinstance(value, dict | list) and bool(value)
    if not nested and "\n" not in text:
        return f"- {head}{text}"
    indented = "\n".join(f"  {line}" if line else "" for line in text.split("\n"))
    return f"- {head.rstrip()}\n\n{indented}\n" if not nested or head else f"-{indented[1:]}"


def _table(result: CouncilResult) -> Iterator[str]:
    yield "| seat | provider | model | calls | seconds | tokens | outcome |"
    yield "| --- | --- | --- | ---: | ---: | ---: | --- |"
    # Without votes, every draft has 0 points, and the order says nothing.
    ranked = any(result.ranking.points.values())
    rank = {seat: place for place, seat in enumerate(result.ranking.order, 1)} if ranked else {}
    for seat in result.seats:
        tokens = seat.usage.total_tokens
        cells = [
            _inline(seat.name),
            _inline(seat.provider),
            _inline(seat.model or ""),
            str(len(seat.calls)),
            f"{seat.elapsed:.1f}",
            "" if tokens is None else str(tokens),
            _outcome(seat, rank),
        ]
        yield f"| {' | '.join(cells)} |"


def _outcome(seat: SeatReport, rank: dict[str, int]) -> str:
    if seat.error is not None:
        return f"{type(seat.error).__name__}: {_inline(str(seat.error))}"
    return f"draft ranked {rank[seat.name]}" if seat.name in rank else "done" if seat.calls else "not asked"


def _inline(text: str) -> str:
    """Return text for use within a line, with markup escaped."""
    line = " ".join(clean(text, limit=_NO_LIMIT).split())
    return _MARKUP.sub(_escape, line)


def _escape(found: re.Match[str]) -> str:
    mark = found[0]
    if mark in _ENTITIES:
        return _ENTITIES[mark]
    # "1." begins a list. A backslash before a digit would be shown, so it stands before the dot.
    return f"{mark}\\" if mark.isdigit() else f"\\{mark}"


def _block(text: str, language: str = "text") -> str:
    """Return text as a code block. The fence is longer than any run of backticks in the text, which cannot close it."""
    text = clean(text, limit=_NO_LIMIT).strip("\n")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
