"""Parts of a run's page, as HTML. The page shows them when it is loaded, and its stream when they change."""

from __future__ import annotations

import json
from typing import Any, Final

from llm_council.models import Phase
from llm_council.results import CouncilResult
from llm_council.results._markup import Markup, markdown, tag, value
from llm_council.results.html import answer, deliberation, differences, seats_table, timeline, votes_table
from llm_council.results.plain import vote_line
from llm_council.serve.page.board import FIRST, PHASES, Board, Card
from llm_council.serve.page.templating import render

__all__ = ["board_part", "phase_part", "phase_title", "result_part", "result_values", "seat_card", "shown_words"]

_MOST_JSON: Final = 64_000  # characters that are shown as a list of terms


def phase_title(phase: Phase) -> str:
    """Return the title of a phase."""
    return PHASES.get(phase, str(phase))


def shown_words(card: Card) -> Markup | str:
    """Return the words of a card: Markdown once the answer is whole, before that as they came."""
    if card.state != "done":
        return card.text
    if card.html is None:
        card.html = _rendered(card.text)
    return card.html


def _rendered(text: str) -> Markup:
    """Return an answer as inert markup: a JSON object as a list of terms, other text as Markdown."""
    if text.lstrip().startswith("{") and len(text) <= _MOST_JSON:
        try:
            return tag("div", value(json.loads(text)), class_="md")
        except (ValueError, RecursionError):
            pass
    return markdown(text)


def seat_card(card: Card) -> dict[str, Any]:
    """Return the message that shows a card anew; it names the element, and the one that holds it."""
    html = render("parts/card.html", card=card, words=shown_words(card))
    return {"id": f"card-{card.number}", "into": f"cards-{card.phase}", "html": html}


def phase_part(phase: Phase) -> dict[str, Any]:
    """Return the message that a phase has begun. It changes nothing if the page shows the phase already."""
    html = render("parts/phase.html", phase=phase, title=phase_title(phase), cards=(), shown_words=shown_words)
    return {"id": f"phase-{phase}", "into": "phases", "html": html, "keep": True, "first": phase in FIRST}


def board_part(name: str, board: Board, run_id: str, csrf: str) -> dict[str, Any]:
    """Return the message that shows ``facts``, ``votes`` or ``after`` anew."""
    return {"id": name, "html": render(f"parts/{name}.html", board=board, run_id=run_id, csrf=csrf)}


def result_part(result: CouncilResult[Any] | None, error: str | None) -> dict[str, Any]:
    """Return the message that shows the answer, and what led to it."""
    return {"id": "result", "html": render("parts/result.html", **result_values(result, error))}


def result_values(result: CouncilResult[Any] | None, error: str | None) -> dict[str, Any]:
    """Return the variables of ``parts/result.html``.

    Args:
        result: the result; None if there is none (yet).
        error: why there is none; None if that is not known.
    """
    if result is None:
        return {"result": None, "error": error}
    if result.error is not None:
        error = f"{type(result.error).__name__}: {result.error}"
    has_answer = result.output is not None or result.text is not None
    votes = vote_line(result)
    return {
        "result": result,
        "error": error,
        "answer": answer(result) if has_answer else None,
        "vote_line": votes,
        "votes": None if votes is None else votes_table(result),
        "deliberation": list(deliberation(result)),
        "differences": list(differences(result.drafts)) if len(result.drafts) > 1 else [],
        "problems": [f"{problem.path}: {problem.message}" for problem in result.problems],
        "seats": seats_table(result),
        "time": timeline(result.phases, result.duration) if result.phases else None,
    }
