"""Draw how each strategy deliberates, into ``docs/images/strategies``. ``--check`` exits with 1 if a drawing is old."""

from __future__ import annotations

import sys
from html import escape
from itertools import pairwise
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "strategies"

# For each strategy its columns from left to right. Every box of a column leads to every box of the next one.
COLUMNS: dict[str, list[list[str]]] = {
    "auto": [["kind of answer"], ["countable: poll", "prose: synthesize"], ["answer"]],
    "single": [["one seat"], ["answer"]],
    "sample": [["draft 1", "draft 2", "draft 3"], ["count"], ["most frequent"]],
    "poll": [["ann", "bob", "cyd"], ["count"], ["majority"]],
    "rank": [["ann drafts", "bob drafts", "cyd drafts"], ["ann ranks", "bob ranks", "cyd ranks"], ["best draft"]],
    "judge": [["ann drafts", "bob drafts", "cyd drafts"], ["judges score"], ["best draft"]],
    "revise": [
        ["ann", "bob", "cyd"],
        ["all answers shown"],
        ["ann revises", "bob revises", "cyd revises"],
        ["majority"],
    ],
    "synthesize": [
        ["ann drafts", "bob drafts"],
        ["ann criticises", "bob criticises", "cyd criticises"],
        ["chair writes"],
    ],
    "escalate": [["ann", "bob"], ["agree? then end"], ["cyd"], ["majority"]],
    "verify": [["an answer"], ["questions on it"], ["ann checks", "bob checks"], ["corrected answer"]],
}

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 132, 30, 44, 12, 6

_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2937;text-anchor:middle}"
    "rect{fill:#f3f4f6;stroke:#6b7280}path{stroke:#6b7280;fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#e5e7eb}rect{fill:#1f2937;stroke:#9ca3af}path{stroke:#9ca3af}}"
)


def drawing(name: str) -> str:
    """Return the drawing of a strategy as SVG, with its words as the description that screen readers read."""
    columns = COLUMNS[name]
    most = max(map(len, columns))
    height = most * _HEIGHT + (most - 1) * _GAP_Y + 2 * _MARGIN
    width = len(columns) * _WIDTH + (len(columns) - 1) * _GAP_X + 2 * _MARGIN
    words = escape(", then ".join(" and ".join(column) for column in columns))
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        f' role="img"><title>{name}</title><desc>{words}</desc><style>{_STYLE}</style>'
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M1 1L7 4L1 7"/></marker></defs>'
    )
    parts = [opening]
    places = [[(x, y) for y in _rows(len(column), height)] for x, column in zip(_lefts(columns), columns, strict=True)]
    for here, there in pairwise(places):
        for x, y in here:
            parts += [f'<path marker-end="url(#a)" d="M{x + _WIDTH} {y}L{to_x} {to_y}"/>' for to_x, to_y in there]
    for column, rows in zip(columns, places, strict=True):
        for text, (x, y) in zip(column, rows, strict=True):
            parts.append(f'<rect x="{x}" y="{y - _HEIGHT / 2:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>')
            parts.append(f'<text x="{x + _WIDTH / 2:g}" y="{y + 4.5:g}">{escape(text)}</text>')
    return "".join([*parts, "</svg>\n"])


def _lefts(columns: list[list[str]]) -> list[int]:
    return [_MARGIN + index * (_WIDTH + _GAP_X) for index in range(len(columns))]


def _rows(boxes: int, height: int) -> list[float]:
    """Return the middle of each box of a column, which is centred."""
    first = height / 2 - (boxes - 1) * (_HEIGHT + _GAP_Y) / 2
    return [first + index * (_HEIGHT + _GAP_Y) for index in range(boxes)]


def main() -> int:
    """Write the drawings, or check them."""
    old = []
    for name in COLUMNS:
        path = FOLDER / f"{name}.svg"
        if "--check" in sys.argv[1:]:
            if not path.is_file() or path.read_text(encoding="utf-8") != drawing(name):
                old.append(name)
        else:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(drawing(name), encoding="utf-8")
    for name in old:
        sys.stderr.write(f"the drawing of {name} is old: run python tools/strategy_drawings.py\n")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
