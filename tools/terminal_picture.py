"""Draw what ``council run`` shows on a terminal, as docs/images/terminal-light.svg and docs/images/terminal-dark.svg.

Usage: ``python tools/terminal_picture.py``. The command is the real one, on a pseudo-terminal; its three seats are
scripted, so that the picture needs no key and no network.
"""

from __future__ import annotations

import itertools
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from llm_council import cli, register_provider
from llm_council.models import Cost, GenerateResponse, Usage
from llm_council.testing.fakes import ScriptedProvider

IMAGES: Final = Path(__file__).parents[1] / "docs" / "images"
COLUMNS: Final = 92
ROWS: Final = 60
TASK: Final = "Should a team of two start with microservices?"
COMMAND: Final = ["run", TASK, "-p", "ada,bob,cyd"]

DRAFTS: Final = {
    "ada": "No. Two people cannot run ten services, and boundaries that are guessed early are often wrong.",
    "bob": "No, start with one program. Split off a part when its load or its pace of change asks for it.",
    "cyd": "It depends: yes, if the parts are deployed by different people.",
}
CRITIQUES: Final = {
    "ada": "Right, and it says when to split.",
    "bob": "Right about the cost of operating services, but not about when to split.",
    "cyd": "Both are right. One of them says when to split.\nRANKING: G > H",
}
ANSWER: Final = """# Answer

No. Start with **one program with clear modules**, and split it later:

- Two people spend their time on one deployment, not on ten.
- Boundaries are cheap to move inside one program.
- Split off a part once its *load* or its *pace of change* differs from the rest.

# Reasoning

Both drafts advise against it. The reviews preferred the one that says when to split.
"""
# Seconds that each seat takes for a draft, a critique and the answer.
DELAYS: Final = {"ada": (1.4, 0.9, 1.2), "bob": (1.9, 1.1, 1.2), "cyd": (1.1, 0.7, 1.3)}

# Background, text, and the eight colours of a terminal, as GitHub shows code.
LIGHT: Final = TerminalTheme(
    (255, 255, 255),
    (31, 35, 40),
    [
        *[(36, 41, 47), (179, 29, 40), (17, 99, 41), (125, 78, 0)],
        *[(9, 105, 218), (111, 66, 193), (20, 105, 112), (87, 96, 106)],
    ],
)
DARK: Final = TerminalTheme(
    (13, 17, 23),
    (230, 237, 243),
    [
        *[(139, 148, 158), (255, 123, 114), (63, 185, 80), (210, 153, 34)],
        *[(88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)],
    ],
)
# As rich's own, without its font, which would be fetched from another site.
SVG: Final = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    """Run the command and write both pictures."""
    lines = list(shown(record([sys.executable, __file__, "--child", *COMMAND])))
    while lines and not lines[-1].plain.strip():
        lines.pop()
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, theme in (("light", LIGHT), ("dark", DARK)):
        with Path(os.devnull).open("w") as nowhere:
            console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
            console.print(Text.assemble(("$ ", "bold"), f'council run "{TASK}" {" ".join(COMMAND[2:])}'))
            for line in lines:
                console.print(line)
            picture = console.export_svg(title="", theme=theme, code_format=SVG, unique_id=f"terminal-{name}")
        path = IMAGES / f"terminal-{name}.svg"
        path.write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n", encoding="utf-8")


def record(command: list[str]) -> bytes:
    """Run a command on a pseudo-terminal, in an empty home, and return what it wrote."""
    controller, terminal = pty.openpty()
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
        environment |= {"PATH": os.environ["PATH"], "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
        process = subprocess.Popen(command, cwd=home, env=environment, stdin=terminal, stdout=terminal, stderr=terminal)
        os.close(terminal)
        written = b""
        # Linux reports the end of a terminal as an error.
        try:
            while piece := os.read(controller, 65536):
                written += piece
        except OSError:
            pass
        os.close(controller)
        if process.wait(60):
            sys.exit(written.decode())
    return written


def shown(written: bytes) -> Iterator[Text]:
    """Return the lines of the screen after everything was written to it."""
    screen = pyte.Screen(COLUMNS, ROWS)
    pyte.ByteStream(screen).feed(written)
    for row in range(ROWS):
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        line = Text(no_wrap=True)
        for style, run in itertools.groupby(cells, style_of):
            line.append("".join(cell.data for cell in run), style)
        line.rstrip()
        yield line


def style_of(cell: Any) -> Style:
    """Translate pyte's attributes of a character; it calls yellow brown, as terminals of old did."""
    colour = {"default": None, "brown": "yellow", "brightblack": "bright_black"}.get(cell.fg, cell.fg)
    return Style(color=colour, bold=cell.bold, italic=cell.italics, underline=cell.underscore, reverse=cell.reverse)


def reply(text: str, tokens: int) -> GenerateResponse:
    """Return a reply with the usage and the cost that a vendor would report."""
    usage = Usage(input_tokens=180 + tokens, output_tokens=tokens)
    return GenerateResponse(text=text, model="scripted", usage=usage, cost=Cost(usd=tokens * 2e-5, source="reported"))


def run_scripted(arguments: list[str]) -> None:
    """Run ``council`` in this process, with the scripted seats."""
    for name, draft in DRAFTS.items():
        script = {"draft": reply(draft, 61), "critique": reply(CRITIQUES[name], 48), "*": reply(ANSWER, 97)}
        delay = dict(zip(("draft", "critique", "synthesise"), DELAYS[name], strict=True))

        def make(self: Any, script: Any = script, name: str = name, delay: Any = delay) -> None:
            ScriptedProvider.__init__(self, script, name=name, delay=delay)

        register_provider(name, type(name.title(), (ScriptedProvider,), {"name": name, "__init__": make}))
    with patch.object(sys, "argv", ["council", *arguments]):
        cli.main()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_scripted(sys.argv[2:])
    else:
        main()
