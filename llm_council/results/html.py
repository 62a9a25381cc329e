"""The HTML report of a run: one page without scripts and links that loads nothing.

Texts of models are rendered as Markdown by ``_untrusted``; every other text is escaped by ``_markup``. The page's
content security policy allows nothing but its one style sheet, by hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING

from llm_council.errors._secrets import clean, redact
from llm_council.errors._visible import visible
from llm_council.results._deliberation import deliberation_tables
from llm_council.results._markup import Markup, block, fold, markdown, tag, value
from llm_council.results.differences import compare
from llm_council.results.plain import split_answer, vote_line, vote_rows

if TYPE_CHECKING:
    from llm_council.models.deliberation import PhaseTiming
    from llm_council.results import CouncilResult, SeatReport

__all__ = [
    "answer",
    "date",
    "differences",
    "facts",
    "outcomes",
    "page",
    "report",
    "seats_table",
    "timeline",
    "title",
]

_TITLE = 140  # characters of the task that are its title
_MODELS = 4  # models that are named at the top; the table of seats has all
_SHOWN = 6  # statements of a draft that are shown at once; the others are folded


def report(result: CouncilResult) -> str:
    """Return the report of a run as a complete HTML page.

    Args:
        result: the run's result.
    """
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return page(title(result), style, *_parts(result))


def page(name: str, style: str, *content: str) -> str:
    """Return a complete HTML page that loads and runs nothing.

    Args:
        name: its title.
        style: its style sheet.
        *content: what it shows.
    """
    # The policy names the style sheet by its hash: other markup in the page can neither style it nor load anything.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", **{"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", name),
        tag("style", Markup(style)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', *content)), lang='en')}\n"


def title(result: CouncilResult) -> str:
    """Return the first words of the task, on one line."""
    words = " ".join(visible(redact(result.task)).split())
    if len(words) <= _TITLE:
        return words
    return f"{words[:_TITLE].rsplit(' ', 1)[0]}…"


def date(result: CouncilResult) -> str:
    """Return when the run was planned, to the minute; empty if that is unknown."""
    created = result.plan.created or ""
    day, _, time = created.partition("T")
    return f"{day} {time[:5]} UTC" if time.endswith("Z") else created


def outcomes(result: CouncilResult) -> Iterator[tuple[SeatReport, str]]:
    """Yield each seat, and what became of it: its error, the rank of its draft, or whether it was asked."""
    # Without votes, every draft has 0 points, and the order says nothing.
    ranked = result.ranking.order if any(result.ranking.points.values()) else ()
    if result.tally is not None and result.tally.order:
        ranked = result.tally.order
    ranks = {seat: place for place, seat in enumerate(ranked, 1)}
    for seat in result.seats:
        if seat.error is not None:
            yield seat, f"{type(seat.error).__name__}: {seat.error}"
        elif seat.name in ranks:
            yield seat, f"draft ranked {ranks[seat.name]}"
        else:
            yield seat, "done" if seat.calls else "not asked"


def _parts(result: CouncilResult) -> Iterator[str]:
    mode = f" · {result.mode}" if result.mode else ""
    yield tag(
        "header",
        tag("p", f"{result.subagent}{mode}", class_="role"),
        tag("h1", title(result), dir="auto"),
        tag("ul", *(tag("li", *fact) for fact in facts(result)), class_="facts"),
    )
    if result.task.strip() != title(result):
        yield fold("The whole task", block(result.task))
    if result.error is not None:
        name = tag("strong", f"{type(result.error).__name__}: ")
        yield tag("p", name, str(result.error), class_="error", dir="auto")
    if result.output is not None or result.text is not None:
        yield _section("Answer", answer(result))
    votes = vote_line(result)
    if votes is not None:
        yield _section("Votes", tag("p", votes, dir="auto"), votes_table(result))
    for heading, table in deliberation(result):
        yield _section(heading, table)
    if len(result.drafts) > 1:
        yield _section("Where the drafts differ", *differences(result.drafts))
    if result.drafts:
        yield _section("Drafts", *(fold(_name(result, seat), markdown(text)) for seat, text in result.drafts.items()))
    if result.critiques:
        reviews = (fold(f"{seat} reviews", markdown(text)) for seat, text in result.critiques.items())
        yield _section("Reviews", *reviews)
    yield from _list("Problems", [f"{problem.path}: {problem.message}" for problem in result.problems])
    yield from _list("Warnings", list(result.warnings))
    yield _section("Seats", seats_table(result))
    if result.phases:
        yield _section("Time", timeline(result.phases, result.duration))
    follows = (", which goes on from ", tag("code", result.plan.follows)) if result.plan.follows else ()
    yield tag("footer", "Run ", tag("code", result.run_id), *follows, " · ", result.plan.strategy)


def deliberation(result: CouncilResult) -> Iterator[tuple[str, Markup]]:
    """Yield a heading and a table for each part of the deliberation that a result tells of."""
    for table in deliberation_tables(result):
        titles = tag("tr", *(tag("th", title) for title in table.titles))
        rows = (tag("tr", *(tag("td", cell, dir="auto") for cell in row)) for row in table.rows)
        yield table.heading, tag("table", titles, *rows, class_="votes")


def votes_table(result: CouncilResult) -> Markup:
    """Return a table of the seats and their answers, or of the drafts and their points."""
    _, *rows = vote_rows(result)
    cells = (tag("tr", tag("th", name, dir="auto"), tag("td", text, dir="auto")) for name, text in rows)
    return tag("table", *cells, class_="votes")


def facts(result: CouncilResult) -> Iterator[tuple[str, ...]]:
    """Yield status, date, models, cost, tokens, duration and chair, each as the content of one element."""
    yield (tag("span", str(result.status), class_=f"status {result.status.value}"),)
    if result.plan.created:
        yield (tag("span", date(result)),)
    models = list(dict.fromkeys(seat.model or seat.provider for seat in result.seats))
    if models:
        more = f" and {len(models) - _MODELS} more" if len(models) > _MODELS else ""
        named = ", ".join(clean(model, limit=60) for model in models[:_MODELS])
        yield (tag("strong", f"{named}{more}", dir="auto"),)
    if result.cost.usd is not None:
        yield "" if result.cost.complete else "at least ", tag("strong", f"{result.cost.usd:.4f}"), " USD"
    else:
        yield ("cost unknown",)
    if result.usage.total_tokens is not None:
        yield tag("strong", f"{result.usage.total_tokens:,}"), " tokens"
    yield tag("strong", f"{result.duration:.1f}"), " s"
    if result.chair:
        yield "chair ", tag("strong", clean(result.chair, limit=60), dir="auto")
    if result.agreement is not None:
        yield tag("strong", str(result.agreement.level)), f" ({result.agreement.share:.0%})"


def answer(result: CouncilResult) -> Markup:
    """Return the answer; of an object with a text named ``answer``, that text first and the other fields below."""
    shown, rest = split_answer(result)
    below = (tag("div", value(rest), class_="rest"),) if rest else ()
    return tag("div", value(shown), *below, class_="answer")


def differences(drafts: Mapping[str, str]) -> Iterator[Markup]:
    """Yield what only one draft says, by seat."""
    found = compare(drafts)
    if not any(found.only.values()):
        yield tag("p", "Every statement of each draft is in another draft, too.")
        return
    number = "One statement is" if found.shared == 1 else f"{found.shared or 'No'} statements are"
    yield tag("p", f"{number} in all drafts, in similar words.", class_="hint")
    for seat, statements in found.only.items():
        if not statements:
            continue
        shown, more = statements[:_SHOWN], statements[_SHOWN:]
        yield tag("h3", f"Only {seat}", dir="auto")
        yield tag("ul", *(tag("li", statement, dir="auto") for statement in shown), class_="only")
        if more:
            items = (tag("li", statement, dir="auto") for statement in more)
            yield fold(f"{len(more)} more", tag("ul", *items, class_="only"))


def _name(result: CouncilResult, seat: str) -> str:
    """Return a seat's name and, unless the name has it, its model."""
    model = next((report.model for report in result.seats if report.name == seat), None)
    return seat if model is None or model in seat else f"{seat} · {model}"


def _section(name: str, *content: str) -> Markup:
    return tag("section", tag("h2", name), *content)


def _list(name: str, lines: list[str]) -> Iterator[Markup]:
    if lines:
        yield _section(name, tag("ul", *(tag("li", line, dir="auto") for line in lines), class_="notes"))


def timeline(phases: tuple[PhaseTiming, ...], duration: float) -> Markup:
    """Draw a bar for each phase; the scale is thousandths of the run."""
    whole = max([duration, *(phase.started + phase.elapsed for phase in phases)]) or 1.0
    rows = []
    for phase in phases:
        # At least 4 thousandths: a bar of a fraction of a pixel would not be seen.
        start, length = 1000 * phase.started / whole, max(4.0, 1000 * phase.elapsed / whole)
        bar = tag("rect", x=f"{min(start, 996):.0f}", y="0", width=f"{length:.0f}", height="14", rx="3")
        drawing = tag("svg", bar, viewBox="0 0 1000 14", preserveAspectRatio="none", aria_hidden="true")
        seconds = f"{phase.elapsed:.1f} s"
        rows.append(tag("tr", tag("th", str(phase.phase)), tag("td", drawing), tag("td", seconds, class_="number")))
    return tag("table", *rows, class_="time")


def seats_table(result: CouncilResult) -> Markup:
    """Return a table of the seats: model, calls, time, tokens, and what became of each."""
    head = tag("tr", *(tag("th", column) for column in _COLUMNS))
    rows = (_seat(seat, outcome, is_chair=seat.name == result.chair) for seat, outcome in outcomes(result))
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="seats")


_COLUMNS = ("seat", "provider", "model", "calls", "seconds", "tokens", "outcome")


def _seat(seat: SeatReport, outcome: str, *, is_chair: bool) -> Markup:
    tokens = seat.usage.total_tokens
    if is_chair and seat.error is None:
        outcome = f"{outcome}, chair"
    numbers = (str(len(seat.calls)), f"{seat.elapsed:.1f}", "" if tokens is None else f"{tokens:,}")
    cells = (seat.name, seat.provider, seat.model or "", *numbers, outcome)
    kinds = ("name", "name", "name", "number", "number", "number", "failed" if seat.error is not None else "outcome")
    # A narrow page shows each row as a list, with the names of the columns before the values.
    return tag(
        "tr",
        *(
            tag("td", cell, data_label=column, class_=kind, dir="auto")
            for cell, column, kind in zip(cells, _COLUMNS, kinds, strict=True)
        ),
    )
