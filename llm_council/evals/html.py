"""The report of an evaluation as one HTML page, which loads and runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources

from llm_council.evals.markdown import headroom_lines, limits, scope, what_was_run
from llm_council.evals.report import ArmRow, DifferingTask, EvalReport, table_rows, verdict_sentence
from llm_council.evals.svg import Axis, Forest, Mark, Series, forest, scatter
from llm_council.evals.verdicts import VerdictKind
from llm_council.results._markup import Markup, fold, tag
from llm_council.results.html import page

__all__ = ["html_report", "report_parts"]

_KINDS = {VerdictKind.PAYS: "pays", VerdictKind.DOES_NOT_PAY: "not", VerdictKind.CANNOT_TELL: "open"}


def html_report(report: EvalReport) -> str:
    """Return the report as a complete HTML page."""
    style = "\n".join(
        resources.files(package).joinpath(name).read_text(encoding="utf-8")
        for package, name in (("llm_council.results", "report.css"), ("llm_council.evals", "eval.css"))
    )
    return page(f"Does a council pay on {report.name}?", style, *report_parts(report))


def report_parts(report: EvalReport) -> Iterator[Markup]:
    """Yield the parts of the report, from its title to what was run."""
    yield tag(
        "header",
        tag("p", "Evaluation", class_="role"),
        tag("h1", f"Does a council pay on {report.name}?", dir="auto"),
        tag("p", report.answer, class_="verdict", dir="auto"),
    )
    sentences = (
        tag("li", verdict_sentence(verdict), class_=_KINDS[verdict.kind], dir="auto") for verdict in report.verdicts
    )
    yield tag("ul", *sentences, class_="sentences")
    yield tag("p", scope(report), class_="hint")
    for warning in report.warnings:
        yield tag("p", f"Note: {warning}", class_="hint", dir="auto")
    if report.rows:
        yield _section("Arms", _table(report))
        yield from _scatters(report)
        yield from _forest(report)
    if report.headroom is not None:
        lines = (tag("li", line, dir="auto") for line in headroom_lines(report))
        yield _section("Headroom", tag("ul", *lines))
    if report.risk:
        yield _section("If the poll abstains", *_risk(report))
    if report.differing:
        yield _section(f"Where arms differ: {report.differing_total} tasks", *map(_task, report.differing))
    yield _section("Limits", tag("ul", *(tag("li", line) for line in limits(report))))
    rows = (tag("tr", tag("th", name), tag("td", value, dir="auto")) for name, value in what_was_run(report))
    yield _section("What was run", tag("table", *rows, class_="votes"))


def _section(name: str, *content: str) -> Markup:
    return tag("section", tag("h2", name), *content)


def _table(report: EvalReport) -> Markup:
    head, *rows = table_rows(report)
    # A column that is empty for all arms says nothing.
    shown = [place for place in range(len(head)) if any(row[place] for row in rows)]
    kinds = {verdict.arm: _KINDS[verdict.kind] for verdict in report.verdicts}
    body = []
    for row in rows:
        cells = [tag("th", row[0], scope="row", dir="auto")]
        for place in shown[1:]:
            is_verdict = head[place] == "verdict"
            kind = kinds.get(row[0], "") if is_verdict else "number"
            cells.append(tag("td", row[place], class_=kind, dir="auto"))
        body.append(tag("tr", *cells))
    heads = tag("thead", tag("tr", *(tag("th", head[place], scope="col") for place in shown)))
    return tag("div", tag("table", heads, tag("tbody", *body), class_="arms"), class_="scroll", tabindex="0")


def _kind(report: EvalReport, arm: str) -> str:
    return next((_KINDS[verdict.kind] for verdict in report.verdicts if verdict.arm == arm), "seat")


def _scatters(report: EvalReport) -> Iterator[Markup]:
    unit = "US dollars a task, logarithmic" if report.unit == "usd" else "weighted tokens a task, logarithmic"
    cost = [(row, row.cost(report.unit)) for row in report.rows]
    lines = [
        Series(
            points=[(point.cost, point.accuracy) for point in curve.points if point.cost > 0],
            name=f"samples of {curve.seat}",
            kind=f"curve{number % 4}",
        )
        for number, curve in enumerate(report.curves)
    ]
    yield _section(
        "Score and cost",
        _scatter(report, cost, lines, unit, log=True),
        tag(
            "p",
            "Upper left is better. Dotted lines: more and more samples of one seat. The solid line joins the arms that"
            " no other one beats in both.",
            class_="legend",
        ),
    )
    seconds = [(row, row.p50) for row in report.rows]
    yield _section("Score and time", _scatter(report, seconds, [], "median seconds of a task", log=False))


def _scatter(
    report: EvalReport, places: Sequence[tuple[ArmRow, float]], lines: Sequence[Series], title: str, *, log: bool
) -> Markup:
    marks = [
        Mark(
            x=place,
            y=row.accuracy.estimate,
            name=row.arm,
            kind=_kind(report, row.arm),
            low=row.accuracy.low,
            high=row.accuracy.high,
        )
        for row, place in places
    ]
    best: list[tuple[float, float]] = []
    for mark in sorted(marks, key=lambda one: (one.x, -one.y)):
        if not best or mark.y > best[-1][1]:
            best.append((mark.x, mark.y))
    frontier = Series(points=best, name="not beaten in both", kind="frontier", steps=True)
    shown = [series for series in lines if series.points]
    across = [mark.x for mark in marks] + [a for series in shown for a, _ in series.points]
    up = [mark.y for mark in marks] + [b for series in shown for _, b in series.points]
    up += [end for mark in marks for end in (mark.low, mark.high) if end is not None]
    x = Axis.over(across, title, log=log, zero=not log)
    return scatter(x, Axis.over(up, "score", percent=True), marks, [*shown, frontier], f"Score by {title}, of each arm")


def _forest(report: EvalReport) -> Iterator[Markup]:
    margin = 100 * float(report.facts.get("margin", 0.05))
    second = "samples at equal cost" if report.judge is None else "the best of samples at equal cost"
    for place, name in enumerate(("the best seat", second, "the best seat at high effort")):
        rows = []
        for verdict in report.verdicts:
            if len(verdict.comparisons) <= place:
                continue
            found = verdict.comparisons[place].difference
            band = report.bands.get(verdict.arm) if place == 0 else None
            rows.append(
                Forest(
                    name=verdict.arm,
                    estimate=100 * found.estimate,
                    low=None if found.low is None else 100 * found.low,
                    high=None if found.high is None else 100 * found.high,
                    kind=_KINDS[verdict.kind],
                    band_low=None if band is None or band.low is None else 100 * band.low,
                    band_high=None if band is None or band.high is None else 100 * band.high,
                )
            )
        if rows:
            legend = "Intervals of 95 %. The dashed line is the gain that is worth having."
            if place == 0:
                legend += " Thin lines hold for all arms at once."
            yield _section(
                f"Gain over {name}",
                forest(rows, margin, f"Gain of each arm over {name}, in points"),
                tag("p", legend, class_="legend"),
            )


def _risk(report: EvalReport) -> Iterator[Markup]:
    points = [(point.coverage, point.accuracy) for point in report.risk]
    marks = [
        Mark(x=point.coverage, y=point.accuracy, name=f"from {100 * point.share:.0f} % of the votes", kind="seat")
        for point in report.risk
    ]
    x = Axis.over([0.0, 1.0], "share of tasks that are answered", percent=True)
    y = Axis.over([b for _, b in points], "right", percent=True)
    line = Series(points=points, name="the poll", kind="curve1")
    yield scatter(x, y, marks, [line], "How often a poll is right, by the share of tasks that it answers")
    cells = (
        tag(
            "tr",
            tag("th", f"{100 * point.share:.0f} %", scope="row"),
            tag("td", f"{point.items_at:,}", class_="number"),
            tag("td", f"{100 * point.accuracy_at:.1f} %", class_="number"),
        )
        for point in report.risk
    )
    head = tag("tr", tag("th", "share of the votes"), tag("th", "tasks"), tag("th", "right"))
    yield tag("p", "How often the poll is right, by the share of the votes that its answer got:", class_="legend")
    yield tag("table", tag("thead", head), tag("tbody", *cells), class_="arms")


def _task(task: DifferingTask) -> Markup:
    said = (
        tag(
            "tr",
            tag("th", arm, dir="auto"),
            tag("td", answer or "no answer", class_="right" if task.points.get(arm, 0.0) >= 1 else "wrong", dir="auto"),
        )
        for arm, answer in task.answers.items()
    )
    inner = tag(
        "div",
        tag("p", task.question, dir="auto"),
        tag("p", f"Right: {task.target}", dir="auto"),
        tag("table", *said, class_="votes"),
        class_="said",
    )
    right = sum(points >= 1 for points in task.points.values())
    return fold(f"{task.id}: {right} of {len(task.points)} arms are right", inner)
