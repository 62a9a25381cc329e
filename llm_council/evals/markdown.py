"""The report of an evaluation as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llm_council.errors._visible import visible
from llm_council.evals.report import EvalReport, interval_words, table_rows, verdict_sentence

__all__ = ["headroom_lines", "limits", "markdown_report"]


def markdown_report(report: EvalReport) -> str:
    """Return the report as Markdown. Text from models and task sets is escaped."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: EvalReport) -> Iterator[str]:
    yield f"# Does a council pay on {_text(report.name)}?"
    yield ""
    yield f"**{_text(report.answer)}**"
    yield ""
    yield from (f"- {_text(verdict_sentence(verdict))}" for verdict in report.verdicts)
    yield ""
    yield _text(scope(report))
    for warning in report.warnings:
        yield f"\nNote: {_text(warning)}"
    if report.rows:
        yield "\n## Arms\n"
        yield from _table(list(table_rows(report)))
    if report.headroom is not None:
        yield "\n## Headroom\n"
        yield from (f"- {_text(line)}" for line in headroom_lines(report))
    if report.risk:
        yield "\n## If the poll abstains\n"
        rows = [
            (f"{100 * one.share:.0f} %", f"{100 * one.coverage:.1f} %", f"{100 * one.accuracy:.1f} %")
            for one in report.risk
        ]
        yield from _table([("share of votes, at least", "tasks answered", "right"), *rows])
    if report.differing:
        yield f"\n## Where arms differ: {report.differing_total} tasks\n"
        for task in report.differing:
            yield f"- **{_text(task.id)}** {_text(task.question[:200])} (right: {_text(task.target)})"
            said = "; ".join(f"{_text(arm)}: {_text(said or 'no answer')}" for arm, said in task.answers.items())
            yield f"  {said}"
    yield "\n## Limits\n"
    yield from (f"- {line}" for line in limits(report))
    yield "\n## What was run\n"
    yield from (f"- {_text(name)}: {_text(value)}" for name, value in what_was_run(report))


def scope(report: EvalReport) -> str:
    """Return the numbers of tasks and seats, and the cost, in a sentence or two."""
    words = f"{report.items:,} of {report.total:,} tasks, {len(report.seats)} seats"
    if report.usd:
        words += f", {report.usd:.4f} US dollars"
    return f"{words}. {'It ended early: ' + report.stopped + '.' if report.stopped else ''}".strip()


def headroom_lines(report: EvalReport) -> Iterator[str]:
    """Yield how much the seats can complement each other, a sentence a line."""
    found = report.headroom
    if found is None:
        return
    yield (
        f"Some seat solves {100 * found.ceiling.estimate:.1f} % of the tasks ({interval_words(found.ceiling)}):"
        " no choice between their answers can be right more often."
    )
    yield (
        f"A perfect chooser would gain {100 * found.gain.estimate:.1f} points ({interval_words(found.gain)}) over"
        f" {found.best}, the best seat on these tasks ({100 * found.best_accuracy:.1f} %)."
    )
    margin = float(report.facts.get("margin", 0.05))
    if found.cannot_pay(margin):
        yield f"That is below {100 * margin:g} points: no council that picks one of these seats' answers can pay."
    if found.error_correlation is not None:
        worth = "" if found.effective_seats is None else f": {found.seats} seats are worth {found.effective_seats:.1f}"
        yield f"Errors of two seats correlate by {found.error_correlation:.2f}{worth} independent ones."
    if found.same_wrong is not None:
        yield f"Two seats that are both wrong say the same in {100 * found.same_wrong:.0f} % of the cases."
    yield (
        f"A poll is right on {100 * found.poll_accuracy:.1f} %; with independent errors it would be"
        f" {100 * found.independent_accuracy:.1f} %."
    )
    yield (
        f"All seats give the same wrong answer on {100 * found.unanimous_wrong:.1f} % of the tasks, which no vote"
        f" mends; on {100 * found.minority_right:.1f} % a minority is right."
    )
    if found.predicted:
        listed = ", ".join(f"{seats}: {100 * accuracy:.1f} %" for seats, accuracy in found.predicted.items())
        yield f"More seats of this kind, extrapolated by a one-factor model: {listed}."


def limits(report: EvalReport) -> Iterator[str]:
    """Yield the limits of the report, a sentence a line."""
    yield "The figures hold for tasks like these. Other tasks may differ by more than the intervals."
    if report.judge is None:
        yield (
            "Both baselines must be beaten: the best seat, chosen on other tasks than those that it is scored on, and"
            " samples of one seat that cost as much as the arm."
        )
    else:
        yield (
            "All baselines must be beaten: the best seat, chosen on other tasks than those that it is scored on; the"
            " best of several samples of one seat, which the judge chooses by another grade than the one that scores"
            " them; and the best seat at high reasoning effort, where a seat has it. The last two cost as much as the"
            " arm."
        )
        yield "A judge is a model: it favours long and familiar texts, and may be wrong in the same way as the seats."
    spread = max((row.run_variance or 0.0 for row in report.rows), default=0.0)
    if spread:
        yield (
            f"Runs of one arm on one task differ: their variance is up to {spread:.3f}, beside that between tasks."
            " Intervals are about tasks; each has the mean of its runs."
        )
    if any(row.arm == "best strategy" for row in report.rows):
        yield "The row best strategy has, for each task, the strategy that is best on other tasks."
    if report.unit != "usd":
        yield "A price is unknown, or all are 0, so costs are tokens in and four times the tokens out."
    yield "An arm pays only if its gain reaches the margin and chance alone does not explain it."


def what_was_run(report: EvalReport) -> Iterator[tuple[str, str]]:
    """Yield facts by name."""
    for seat in report.seats:
        yield f"seat {seat.name}", f"{seat.provider}{'/' + seat.model if seat.model else ''}"
    if report.judge is not None:
        yield "judge", f"{report.judge.provider}{'/' + report.judge.model if report.judge.model else ''}"
    for name in ("sha256", "licence", "source"):
        if report.set.get(name):
            yield f"set {name}", str(report.set[name])
    for name, value in report.facts.items():
        if isinstance(value, str | int | float):  # others are for programs
            yield name, str(value)


def _table(rows: Sequence[Iterable[str]]) -> Iterator[str]:
    head, *body = [[_text(cell) for cell in row] for row in rows]
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in body:
        yield f"| {' | '.join(row)} |"


_SPECIAL = str.maketrans({char: f"\\{char}" for char in "\\`*_[]<>|#"})


def _text(text: object) -> str:
    return visible(" ".join(str(text).split())).translate(_SPECIAL)
