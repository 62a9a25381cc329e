"""The report of an evaluation: what it found, as data, and as Markdown, HTML and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from llm_council.evals.headroom import Headroom
from llm_council.evals.judging import JudgeFacts
from llm_council.evals.statistics import Interval
from llm_council.evals.verdicts import Comparison, Verdict, VerdictKind
from llm_council.models._attrs import as_dict, as_tuple, strict_init
from llm_council.results._awaitable import AwaitableRecord

__all__ = [
    "ArmRow",
    "Curve",
    "CurvePoint",
    "DifferingTask",
    "EvalReport",
    "RiskPoint",
    "SeatFacts",
]


@strict_init
@attrs.frozen(kw_only=True)
class SeatFacts:
    """A seat that was evaluated.

    Attributes:
        name: its name.
        provider: the provider's name.
        model: the model that was asked for; None is the provider's default.
    """

    name: str
    provider: str
    model: str | None = None


@strict_init
@attrs.frozen(kw_only=True)
class ArmRow:
    """The score and the cost of an arm, as means over tasks.

    Attributes:
        arm: ``single:SEAT``, ``sample:SEAT`` for a seat that is asked until its answer is stable, else a strategy.
        items: the number of tasks.
        accuracy: mean score.
        unread: share of tasks without a readable answer, which count as wrong; abstentions apart.
        abstained: share of tasks on which it abstained.
        usd: US dollars a task; None if a price is unknown.
        tokens: tokens a task.
        weighted_tokens: input tokens plus four times the output tokens, a task; the cost where there are no prices.
        calls: calls a task.
        p50: median duration of a task in seconds; calls that are made at once count as the slowest.
        p95: 95th percentile of the duration of a task in seconds.
        equal_samples: how many samples of its baseline cost as much; None for arms of one seat.
        run_variance: mean variance of the score between runs on one task; None if it ran once.
    """

    arm: str
    items: int
    accuracy: Interval
    unread: float = 0.0
    abstained: float = 0.0
    usd: float | None = None
    tokens: float = 0.0
    weighted_tokens: float = 0.0
    calls: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    equal_samples: float | None = None
    run_variance: float | None = None

    def cost(self, unit: str) -> float:
        """Return the cost of a task in US dollars, or in weighted tokens."""
        return (self.usd or 0.0) if unit == "usd" else self.weighted_tokens


@strict_init
@attrs.frozen(kw_only=True)
class CurvePoint:
    """Self-consistency with a number of samples.

    Attributes:
        samples: how many.
        accuracy: mean score over all ways to take so many of the drafts.
        cost: cost of a task, in the unit of the report.
        seconds: seconds of a draft; all are asked for at once.
    """

    samples: int
    accuracy: float
    cost: float
    seconds: float


@strict_init
@attrs.frozen(kw_only=True)
class Curve:
    """The self-consistency of a seat.

    Attributes:
        seat: name of the seat.
        points: by the number of samples, from 1.
    """

    seat: str
    points: tuple[CurvePoint, ...] = attrs.field(converter=as_tuple)


@strict_init
@attrs.frozen(kw_only=True)
class RiskPoint:
    """The result of a poll that abstains if its winner has less than a share of the votes.

    Attributes:
        share: the share, from 0 to 1.
        coverage: share of tasks that it then answers.
        accuracy: mean score on the tasks that it answers.
        accuracy_at: mean score on tasks whose winner has exactly this share.
        items_at: number of those tasks.
    """

    share: float
    coverage: float
    accuracy: float
    accuracy_at: float
    items_at: int


@strict_init
@attrs.frozen(kw_only=True)
class DifferingTask:
    """A task on which some arms are right and others are not.

    Attributes:
        id: the task.
        question: the question, cut to 600 characters.
        target: the right answer.
        answers: what each arm said.
        points: its score.
    """

    id: str
    question: str
    target: str
    answers: Mapping[str, str] = attrs.field(converter=as_dict)
    points: Mapping[str, float] = attrs.field(converter=as_dict)


@strict_init
@attrs.frozen(kw_only=True, eq=False, repr=False)
class EvalReport(AwaitableRecord):
    """The results of an evaluation. It may be awaited, which returns the report itself.

    Attributes:
        name: name of the task set.
        set: facts about it: ``sha256``, ``tasks``, ``licence``, ``source``.
        seats: the seats.
        items: tasks that went through all arms.
        total: tasks of the set.
        stopped: why it ended before the last task; None if it did not.
        unit: what costs are counted in: ``"usd"``, or ``"tokens"`` where a price is unknown.
        facts: the options of the evaluation.
        rows: the arms, seats alone first.
        verdicts: on each arm of several seats.
        bands: arm -> gain over the best seat, with intervals that hold for all arms at once.
        curves: self-consistency of each seat.
        headroom: how much the seats can complement each other.
        risk: results of a poll that abstains below a share of the votes, the largest share first.
        differing: tasks on which arms differ, the first ones.
        differing_total: how many there are.
        judge: who scored the answers; None where they were measured.
        usd: US dollars that the evaluation cost, with an assumed price where none is known.
        calls: number of calls for the pool; calls of arms are not counted.
        warnings: limits of these results, a sentence each.
    """

    name: str
    set: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)
    seats: tuple[SeatFacts, ...] = attrs.field(default=(), converter=as_tuple)
    items: int = 0
    total: int = 0
    stopped: str | None = None
    unit: str = "tokens"
    facts: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)
    rows: tuple[ArmRow, ...] = attrs.field(default=(), converter=as_tuple)
    verdicts: tuple[Verdict, ...] = attrs.field(default=(), converter=as_tuple)
    bands: Mapping[str, Interval] = attrs.field(factory=dict, converter=as_dict)
    curves: tuple[Curve, ...] = attrs.field(default=(), converter=as_tuple)
    headroom: Headroom | None = None
    risk: tuple[RiskPoint, ...] = attrs.field(default=(), converter=as_tuple)
    differing: tuple[DifferingTask, ...] = attrs.field(default=(), converter=as_tuple)
    differing_total: int = 0
    judge: JudgeFacts | None = None
    usd: float = 0.0
    calls: int = 0
    warnings: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)

    def row(self, arm: str) -> ArmRow:
        """Return the row of an arm.

        Raises:
            KeyError: there is no such arm.
        """
        for row in self.rows:
            if row.arm == arm:
                return row
        raise KeyError(arm)

    def verdict(self, arm: str) -> Verdict:
        """Return the verdict on an arm of several seats.

        Raises:
            KeyError: there is no such arm.
        """
        for verdict in self.verdicts:
            if verdict.arm == arm:
                return verdict
        raise KeyError(arm)

    @property
    def kind(self) -> VerdictKind:
        """The verdict on the council: that of its best strategy."""
        kinds = {verdict.kind for verdict in self.verdicts}
        for kind in (VerdictKind.PAYS, VerdictKind.CANNOT_TELL):
            if kind in kinds:
                return kind
        return VerdictKind.DOES_NOT_PAY if kinds else VerdictKind.CANNOT_TELL

    @property
    def answer(self) -> str:
        """The answer to "does a council pay?", in a sentence."""
        if self.judge is not None and self.verdicts:
            return f"Judged by {self.judge.name}, not measured: {self._found[:1].lower()}{self._found[1:]}"
        return self._found

    @property
    def _found(self) -> str:
        if not self.verdicts:
            return "Nothing can be said yet: no arm of several seats was evaluated."
        if self.kind == VerdictKind.PAYS:
            paying = [verdict for verdict in self.verdicts if verdict.kind == VerdictKind.PAYS]
            best = max(paying, key=lambda verdict: self.row(verdict.arm).accuracy.estimate)
            return f"A council pays on these tasks: {best.arm}: {best.reason}."
        if self.kind == VerdictKind.DOES_NOT_PAY:
            return "A council does not pay on these tasks, with these seats and strategies."
        open_end = [one for one in self.verdicts if one.kind == VerdictKind.CANNOT_TELL and one.more_items is None]
        if open_end:
            best = max(open_end, key=lambda verdict: self.row(verdict.arm).accuracy.estimate)
            return f"It cannot be told yet whether a council pays: {best.arm}: {best.reason}."
        more = [verdict.more_items for verdict in self.verdicts if verdict.more_items is not None]
        if not more:
            return "It cannot be told yet whether a council pays."
        return f"It cannot be told yet whether a council pays: about {min(more):,} more tasks would probably tell."

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values; ``from_dict`` reads them back."""
        from llm_council.models._convert import dump  # imports cattrs, which an evaluation does not need

        return {**dump(self), "verdict": str(self.kind), "answer": self.answer}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EvalReport:
        """Return the report that ``to_dict`` wrote.

        Raises:
            InvalidOption: the data does not fit; the message names the path.
        """
        from llm_council.models._convert import load

        return load(cls, {key: value for key, value in data.items() if key not in ("verdict", "answer")})

    def to_markdown(self) -> str:
        """Return a Markdown report for people. Text from models is escaped."""
        from llm_council.evals.markdown import markdown_report

        return markdown_report(self)

    def to_html(self) -> str:
        """Return the report as one HTML file, which loads nothing."""
        from llm_council.evals.html import html_report

        return html_report(self)

    def save(self, folder: Path) -> None:
        """Write ``report.json``, ``report.md`` and ``report.html`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "report.json": json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n",
            "report.md": self.to_markdown(),
            "report.html": self.to_html(),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", errors="replace")

    def __str__(self) -> str:
        """Return the answer in a sentence."""
        return self.answer if self._pending_state is None else self._pending_repr()


def table_rows(report: EvalReport, *, brief: bool = False) -> Iterator[tuple[str, ...]]:
    """Yield the head of the table of arms, then a row for each arm.

    Args:
        report: the report.
        brief: leave out what a terminal has no room for.
    """
    price = "$ / task" if report.unit == "usd" else "tokens / task"
    head = ["arm", "score", "95 % interval", price, "calls", "p50 s", "vs best seat", "vs samples", "verdict"]
    if not brief:
        more = ["unreadable", "abstained", *(["tokens"] if report.unit == "usd" else []), "p95 s"]
        head[6:6] = more
    yield tuple(head)
    verdicts = {verdict.arm: verdict for verdict in report.verdicts}
    for row in report.rows:
        verdict = verdicts.get(row.arm)
        against: tuple[Comparison, ...] = () if verdict is None else verdict.comparisons
        gains = [gain_words(one.difference) for one in against[:2]]
        cells = [
            row.arm,
            f"{100 * row.accuracy.estimate:.1f}",
            interval_words(row.accuracy),
            cost_words(row, report.unit),
            f"{row.calls:.1f}",
            f"{row.p50:.1f}",
            *gains,
            *[""] * (2 - len(gains)),
            "" if verdict is None else str(verdict.kind),
        ]
        if not brief:
            tokens = [f"{row.tokens:,.0f}"] if report.unit == "usd" else []
            cells[6:6] = [share_words(row.unread), share_words(row.abstained), *tokens, f"{row.p95:.1f}"]
        yield tuple(cells)


def share_words(share: float) -> str:
    """Return a share in per cent; empty for none."""
    return f"{100 * share:.1f} %" if share else ""


def cost_words(row: ArmRow, unit: str) -> str:
    """Return the cost of a task."""
    return f"{row.usd or 0.0:.5f}" if unit == "usd" else f"{row.tokens:,.0f}"


def interval_words(found: Interval) -> str:
    """Return the limits of an interval of a share, in per cent."""
    return "none" if found.low is None or found.high is None else f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def gain_words(found: Interval) -> str:
    """Return a gain in points with its interval."""
    if found.low is None or found.high is None:
        return f"{100 * found.estimate:+.1f}"
    return f"{100 * found.estimate:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def verdict_sentence(verdict: Verdict) -> str:
    """Return a verdict in a sentence."""
    return f"{verdict.arm} {verdict.kind}: {verdict.reason}."
