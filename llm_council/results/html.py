"""The HTML report of a run: one page without scripts that loads nothing, with all foreign text escaped.

Only ``_tag`` makes markup; every other string in the page is escaped as text. The page's content security policy allows
nothing but its one style sheet, by hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from llm_council.errors._secrets import clean

if TYPE_CHECKING:
    from llm_council.models.deliberation import PhaseTiming
    from llm_council.results import CouncilResult, SeatReport

__all__ = ["report"]

_DEPTH = 8  # deeper levels of an answer are shown as JSON
_NO_LIMIT = 1 << 32  # `clean` shortens its text by default, which suits messages and not reports


class _Markup(str):
    """Escaped markup. Only ``_tag`` makes it."""

    __slots__ = ()


def report(result: CouncilResult) -> str:
    """Return the report of a run as a complete HTML page.

    Args:
        result: the run's result.
    """
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    # The policy names the style sheet by its hash: other markup in the page can neither style it nor load anything.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = f"Council: {' '.join(clean(result.task, limit=80).split())}"
    head = _tag(
        "head",
        _tag("meta", charset="utf-8"),
        _tag("meta", **{"http-equiv": "Content-Security-Policy", "content": policy}),
        _tag("meta", name="referrer", content="no-referrer"),
        _tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _tag("meta", name="color-scheme", content="light dark"),
        _tag("title", title),
        _tag("style", _Markup(style)),
    )
    page = _tag("html", head, _tag("body", _tag("main", *_parts(result))), lang="en")
    return f"<!doctype html>\n{page}\n"


def _tag(name: str, /, *children: str, **attributes: str) -> _Markup:
    """Return an element. Children that are not markup, and values of attributes, are escaped."""
    shown = "".join(f' {key.rstrip("_")}="{_text(value)}"' for key, value in attributes.items())
    if name == "meta":  # HTML allows no end tag here; SVG requires one for `rect`
        return _Markup(f"<meta{shown}>")
    return _Markup(f"<{name}{shown}>{''.join(map(_text, children))}</{name}>")


def _text(value: str) -> str:
    """Return text as HTML: secrets masked, control characters removed, markup escaped."""
    return value if isinstance(value, _Markup) else escape(clean(value, limit=_NO_LIMIT))


def _parts(result: CouncilResult) -> Iterator[str]:
    mode = f" · {result.mode}" if result.mode else ""
    yield _tag(
        "header",
        _tag("p", f"{result.subagent}{mode}", class_="role"),
        _tag("h1", "Council"),
        _tag("ul", *(_tag("li", *fact) for fact in _facts(result)), class_="facts"),
    )
    yield _section("Task", _block(result.task))
    if result.error is not None:
        name = _tag("strong", f"{type(result.error).__name__}: ")
        yield _tag("p", name, str(result.error), class_="error", dir="auto")
    if result.output is not None or result.text is not None:
        yield _section("Answer", _block(result.text or "") if result.output is None else _value(result.output))
    yield from _list("Problems", [f"{problem.path}: {problem.message}" for problem in result.problems])
    yield from _list("Warnings", list(result.warnings))
    if result.phases:
        yield _section("Time", _timeline(result.phases, result.duration))
    yield _section("Seats", _seats(result))
    for title, texts in (("Drafts", result.drafts), ("Critiques", result.critiques)):
        if texts:
            yield _section(title, *(_folded(seat, text) for seat, text in texts.items()))
    yield _tag("footer", "Run ", _tag("code", result.run_id), " · ", result.plan.strategy)


def _facts(result: CouncilResult) -> Iterator[tuple[str, ...]]:
    yield (_tag("span", str(result.status), class_=f"status {result.status.value}"),)
    if result.chair:
        yield "chair ", _tag("strong", result.chair)
    yield _tag("strong", f"{result.duration:.1f}"), " s"
    if result.usage.total_tokens is not None:
        yield _tag("strong", f"{result.usage.total_tokens:,}"), " tokens"
    if result.cost.usd is not None:
        yield "" if result.cost.complete else "at least ", _tag("strong", f"{result.cost.usd:.4f}"), " USD"


def _section(title: str, *content: str) -> str:
    return _tag("section", _tag("h2", title), *content)


def _list(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield _section(title, _tag("ul", *(_tag("li", line, dir="auto") for line in lines), class_="notes"))


def _block(text: str) -> str:
    return _tag("pre", text.strip("\n"), dir="auto")


def _folded(title: str, text: str) -> str:
    return _tag("details", _tag("summary", title, dir="auto"), _block(text))


def _value(value: Any, depth: int = 0) -> str:
    """Show a JSON value: an object as a list of terms, a list as a list, text as a paragraph."""
    if isinstance(value, Mapping | list) and value:
        if depth >= _DEPTH:
            return _block(json.dumps(value, ensure_ascii=False, indent=2))
        if isinstance(value, list):
            return _tag("ul", *(_tag("li", _value(item, depth + 1)) for item in value))
        terms = (
            (_tag("dt", str(name).replace("_", " ")), _tag("dd", _value(item, depth + 1)))
            for name, item in value.items()
        )
        return _tag("dl", *(part for pair in terms for part in pair))
    text = value if isinstance(value, str) else "—" if value is None else json.dumps(value, ensure_ascii=False)
    return _tag("p", text.strip("\n"), dir="auto")


def _timeline(phases: tuple[PhaseTiming, ...], duration: float) -> str:
    """Draw a bar for each phase; the scale is thousandths of the run."""
    whole = max([duration, *(phase.started + phase.elapsed for phase in phases)]) or 1.0
    rows = []
    for phase in phases:
        # At least 4 thousandths: a bar of a fraction of a pixel would not be seen.
        start, length = 1000 * phase.started / whole, max(4.0, 1000 * phase.elapsed / whole)
        bar = _tag("rect", x=f"{min(start, 996):.0f}", y="0", width=f"{length:.0f}", height="14", rx="3")
        drawing = _tag("svg", bar, viewBox="0 0 1000 14", preserveAspectRatio="none", role="img")
        seconds = f"{phase.elapsed:.1f} s"
        rows.append(_tag("tr", _tag("th", str(phase.phase)), _tag("td", drawing), _tag("td", seconds, class_="number")))
    return _tag("table", *rows, class_="time")


def _seats(result: CouncilResult) -> str:
    columns = ("seat", "provider", "model", "calls", "seconds", "tokens", "outcome")
    # Without votes, every draft has 0 points, and the order says nothing.
    ranked = any(result.ranking.points.values())
    rank = {seat: place for place, seat in enumerate(result.ranking.order, 1)} if ranked else {}
    head = _tag("tr", *(_tag("th", column) for column in columns))
    rows = (_seat(seat, rank, chair=seat.name == result.chair) for seat in result.seats)
    return _tag("div", _tag("table", _tag("thead", head), _tag("tbody", *rows)), class_="wide")


def _seat(seat: SeatReport, rank: dict[str, int], *, chair: bool) -> str:
    tokens = seat.usage.total_tokens
    outcome = f"draft ranked {rank[seat.name]}" if seat.name in rank else "done" if seat.calls else "not asked"
    if chair:
        outcome = f"{outcome}, chair"
    if seat.error is not None:
        outcome = f"{type(seat.error).__name__}: {seat.error}"
    numbers = (str(len(seat.calls)), f"{seat.elapsed:.1f}", "" if tokens is None else f"{tokens:,}")
    return _tag(
        "tr",
        *(_tag("td", cell, dir="auto", class_="name") for cell in (seat.name, seat.provider, seat.model or "")),
        *(_tag("td", cell, class_="number") for cell in numbers),
        _tag("td", outcome, dir="auto", **({"class_": "failed"} if seat.error is not None else {})),
    )
