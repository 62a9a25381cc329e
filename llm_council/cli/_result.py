"""Print the result of a run: the answer on stdout, and on stderr what failed and what it cost."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_council import errors
from llm_council.cli import _output
from llm_council.cli._main import ABSTAINED, DEGRADED, FAILED
from llm_council.cli._output import output_format
from llm_council.errors._secrets import hide_password
from llm_council.results.plain import vote_line

if TYPE_CHECKING:
    from llm_council.results import CouncilResult

__all__ = ["print_result"]

# The most important first: what a person must change comes before what may pass by itself. With the remedy, where the
# message of the error does not name one.
_FAILURES: tuple[tuple[type[errors.CouncilError], str], ...] = (
    (errors.ConfigurationError, ""),
    (errors.AuthenticationFailed, ""),
    (errors.PermissionRefused, ""),
    (errors.OutOfCredit, "add credit to the vendor's account"),
    (errors.ModelNotFound, ""),
    (errors.ContextTooLong, "give fewer or shorter files, or a model with a larger context"),
    (errors.RequestRejected, ""),
    (errors.BudgetExceeded, "raise --budget-usd, or the budget in the configuration"),
    (errors.InvalidOutput, "relax the schema, or raise max_repairs in [council]"),
    (errors.ConnectFailed, ""),
    (errors.RateLimited, "wait, or seat fewer models of this provider"),
    (errors.DeadlineExceeded, "raise --deadline"),
    (errors.TimedOut, "raise --deadline, or the timeouts of the provider"),
    (errors.CouncilError, ""),
)

_SECONDS = re.compile(r"(?<= )\d+\.\d(?= s\b)")  # they differ between seats that failed for the same reason


def print_result(result: CouncilResult, flags: Mapping[str, Any]) -> int:
    """Print a result and its notes; return the exit status.

    Args:
        result: the result.
        flags: the options of the command; ``store`` is the store in use, ``store_option`` the value of ``--store``.
    """
    format_ = output_format(flags)
    text = rendered = None  # a failed run has no text to print, but a report in the other formats
    if format_ == "json":
        text = _output.as_json(result.to_dict())
    elif format_ == "markdown":
        text = result.to_markdown()
    elif format_ == "html":
        text = result.to_html()
    elif result.success:
        text = _text(result, flags)
        is_exact = flags["plain"] or flags["raw"] or flags["output"]  # asks for the text itself
        if not is_exact and _output.can_draw(sys.stdout):
            from llm_council.cli._render import render

            rendered = render(result, text)
    option = f" --store {shlex.quote(hide_password(flags['store_option']))}" if flags.get("store_option") else ""
    stored = f"council replay {result.run_id}{option}" if flags["store"] else ""
    written = text is None or _output.write_answer(text, flags, rendered=rendered, stored=stored)
    if rendered is not None and sys.stderr.isatty():
        _output.print_note("")  # sets the answer apart from what follows
    _notes(result, flags)
    if result.status == "abstained" and written:
        return ABSTAINED
    if not result.success or not written:
        return FAILED
    return DEGRADED if flags["strict"] and result.status == "degraded" else 0


def _text(result: CouncilResult, flags: Mapping[str, Any]) -> str:
    from llm_council.results.plain import as_text, split_answer

    if flags["plain"] and result.text is not None:
        return result.text
    answer, fields = split_answer(result)
    # Text is what another program or a file gets: the answer without its reasons, labels or indentation.
    if not fields.keys() - {"reasoning"}:
        return "" if answer is None else as_text(answer)
    return as_text(result.output_value)


def _notes(result: CouncilResult, flags: Mapping[str, Any]) -> None:
    """Print the error or the warnings on stderr and, with ``--verbose``, adjustments, tokens and cost."""
    say = partial(_output.print_note, raw=flags["raw"])
    votes = vote_line(result)
    if votes is not None:
        say(f"council: {votes}")
    if result.error is not None:
        for line in _failure_lines(result.error, result.errors):
            say(line)
    elif (
        result.status == "degraded"
        or flags["verbose"]
        or flags["store"]  # a warning may say that the run is not stored completely
        or result.plan.budget.usd is not None  # a warning may say that the cost of a call is unknown
    ):
        for warning in _warnings(result):
            say(f"council: {warning}")
    if flags["verbose"]:
        for report in result.seats:
            for adjustment in report.adjustments:
                say(f"  {report.name}: {adjustment.field} {adjustment.action}: {adjustment.reason}")
        cost = "unknown" if result.cost.usd is None else f"${result.cost.usd:.4f}"
        if result.cost.usd == 0 and result.cost.source == "table":
            cost = "$0: local seats cost nothing"
        if flags["store"]:
            say(f"council: stored as {result.run_id}")
        say(f"council: {result.usage.total_tokens or 'unknown'} tokens, cost {cost}, {result.duration:.1f} s")


def _failure_lines(error: errors.CouncilError, seats: Mapping[str, errors.CouncilError]) -> Iterator[str]:
    """Yield why a run failed: its own error, then each other reason once with the seats that it met."""
    message = str(error)
    by_reason: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for name, failure in seats.items():
        # The message of the run's error lists the reasons of its seats, which follow below.
        message = message.replace(f"; {name}: {failure.message}", "").replace(f"; {name}: {failure}", "")
        text = str(failure).removeprefix(f"{name} ")  # the line begins with the name
        reason = _SECONDS.sub("", text)
        texts.setdefault(reason, text)
        by_reason.setdefault(reason, []).append(name)
    own_remedy = _remedy(error)
    yield f"council: {message}{own_remedy}"
    for reason in sorted(by_reason, key=lambda reason: _rank(seats[by_reason[reason][0]])):
        if texts[reason] in message:
            continue
        first, *others = by_reason[reason]
        also = f" (also {', '.join(others)})" if others else ""
        remedy = _remedy(seats[first])
        if remedy and own_remedy and remedy.startswith(own_remedy):
            remedy = ""
        yield f"  {first}: {texts[reason]}{also}{remedy}"


def _warnings(result: CouncilResult) -> list[str]:
    """Return the warnings of a run, the most important first, without repeats of one seat's failure."""
    ranked = []
    seen = {seat.warning for seat in result.plan.seats}  # printed before the run
    for warning in result.warnings:
        seat = warning.split(" ", 1)[0]
        _, _, reason = warning.partition(": ")
        failure = result.errors.get(seat)
        is_failure = failure is not None and bool(reason) and failure.message in reason
        key = f"{seat}: {reason}" if is_failure else warning
        if warning in seen or key in seen:
            continue
        seen.add(key)
        remedy = _remedy(failure) if is_failure and failure is not None else ""
        ranked.append((_rank(failure) if is_failure else len(_FAILURES), f"{warning}{remedy}"))
    return [warning for _, warning in sorted(ranked, key=lambda entry: entry[0])]


def _rank(error: errors.CouncilError | None) -> int:
    return next((place for place, (kind, _) in enumerate(_FAILURES) if isinstance(error, kind)), len(_FAILURES))


def _remedy(error: errors.CouncilError) -> str:
    rank = _rank(error)
    remedy = _FAILURES[rank][1] if rank < len(_FAILURES) else ""
    return f"; {remedy}" if remedy and remedy not in str(error) else ""
