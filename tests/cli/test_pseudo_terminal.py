"""What a person sees on a terminal of 80 and of 120 columns: progress, the streamed words, the answer, Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import attrs
import pyte
import pytest

pytestmark = pytest.mark.slow

WORD = "It is Paris, the capital of France."
ANSWER = (
    "## Answer\n**Paris** is the capital. " + "Words are not broken in the middle here. " * 4 + "\n\n"
    "- the *Louvre*\n\n| city | river |\n|---|---|\n| Paris | Seine |\n\nSee [the page](https://evil.example/).\n\n"
    "## Reasoning\nIt is the seat of government; \x1b]52;c;aGk=\x07 is shown."
)
PROGRAM = f"""
import sys
from llm_council.cli import main
from llm_council.errors import AuthenticationFailed
from llm_council.models import Cost, GenerateResponse, Usage
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider

def answer(text):
    usage, cost = Usage(input_tokens=1000, output_tokens=234), Cost(usd=0.0123, source="reported")
    return GenerateResponse(text=text, usage=usage, cost=cost, finish_reason="stop")

delay = float(sys.argv.pop(1))
seats = {{
    "ada": ScriptedProvider({{"draft": answer({WORD!r}), "critique": answer("Right."), "*": answer({ANSWER!r})}},
                            name="ada", delay=0.4),
    "bob": ScriptedProvider({{"draft": answer({WORD!r}), "*": answer("Right.")}}, name="bob", delay=delay),
    "cyd": ScriptedProvider(AuthenticationFailed("the key in CYD_API_KEY is wrong"), name="cyd"),
}}
with registry.overriding(**seats):
    sys.argv = ["council", *sys.argv[1:]]
    main()
"""


@attrs.define
class Seen:
    """What a terminal showed.

    Attributes:
        frames: the screen after each piece of output.
        lines: the lines at the end, those that left the screen included.
        sent: every byte that the terminal got.
        status: the exit status of the command.
    """

    frames: list[str]
    lines: list[str]
    sent: bytes
    status: int


def on_terminal(
    words: list[str], columns: int, home: Path, *, delay: float = 0.2, ctrl_c: Callable[[str], bool] | None = None
) -> Seen:
    """Run the command on a pseudo-terminal; press Ctrl-C once a frame makes ``ctrl_c`` true."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(home)
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
        environment = {**kept, "HOME": str(home), "TERM": "xterm-256color", "PYTHONUTF8": "1"}
        # By an own call: the size is there before the program asks for it.
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        os.execve(sys.executable, [sys.executable, "-c", PROGRAM, str(delay), *words], environment)
    screen = pyte.HistoryScreen(columns, 30, history=1000)
    stream = pyte.ByteStream(screen)
    frames, sent = [], b""
    while True:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, "the command hangs"
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        sent += piece
        stream.feed(piece)
        frames.append("\n".join(line.rstrip() for line in screen.display))
        if ctrl_c is not None and ctrl_c(frames[-1]):
            os.kill(process, signal.SIGINT)
            ctrl_c = None
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    history = ["".join(line[column].data for column in range(columns)).rstrip() for line in screen.history.top]
    lines = [*history, *(line.rstrip() for line in screen.display)]
    return Seen(frames, lines, sent, os.waitstatus_to_exitcode(status))


@pytest.mark.parametrize("columns", [80, 120])
def test_progress_then_the_rendered_answer_then_the_failures(columns: int, tmp_path: Path) -> None:
    words = ["run", "Capital?", "-p", "ada,bob,cyd", "--chair", "ada", "--seed", "1"]
    seen = on_terminal(words, columns, tmp_path, delay=0.9)
    assert seen.status == 0
    text = "\n".join(seen.lines)

    # While it ran: one line a seat with a clock that ticks.
    lines = {line for frame in seen.frames for line in frame.splitlines()}
    assert len({line.split()[2] for line in lines if line.startswith("bob") and " s" in line and "✓" not in line}) > 1
    # At the end: phases, tokens and money, then the answer with space around it.
    board = [line for line in seen.lines if line.startswith(("seat", "ada", "bob", "cyd"))]
    assert [line.split()[0] for line in board] == ["seat", "ada", "bob", "cyd"]
    assert board[0].split() == ["seat", "draft", "critique", "synthesise", "tokens", "cost"]
    assert board[1].split()[-2:] == ["2,468", "$0.0246"]
    assert "✓ 0." in board[1]
    assert "✗ 0.0 s" in board[3]
    start = seen.lines.index(next(line for line in seen.lines if line.startswith("Paris is the capital.")))
    assert seen.lines[start - 1] == ""
    assert "3,702 tokens · $0.0369" in text

    # The answer: rendered, its words whole, the reasons below it, links as text.
    assert "**" not in text
    assert " • the Louvre" in seen.lines
    assert "See the page (https://evil.example/)." in seen.lines
    words = " ".join(seen.lines[start : start + 4])
    assert words.count("Words are not broken in the middle here.") == 4
    assert text.index("evil.example") < text.index("Reasoning") < text.index("seat of government; ␛]52;c;aGk=␇")
    assert b"\x1b]" not in seen.sent

    # What failed: once, with the variable to change.
    assert text.count("the key in CYD_API_KEY is wrong") == 1
    assert text.index("seat of government") < text.index("CYD_API_KEY")


@pytest.mark.parametrize("columns", [80, 120])
def test_streamed_words_stand_side_by_side_and_ctrl_c_leaves_the_terminal_in_order(
    columns: int, tmp_path: Path
) -> None:
    def both_are_shown(frame: str) -> bool:
        return any("draft ada" in line and "draft bob" in line for line in frame.splitlines())

    words = ["run", "Capital?", "-p", "ada,bob", "--stream"]
    seen = on_terminal(words, columns, tmp_path, delay=30, ctrl_c=both_are_shown)
    assert any(map(both_are_shown, seen.frames))
    assert seen.status == 130
    assert seen.lines[-1] == "" or "interrupted" in "\n".join(seen.lines)
    assert "Traceback" not in "\n".join(seen.lines)
    assert seen.sent.rindex(b"\x1b[?25h") > seen.sent.rindex(b"\x1b[?25l"), "the cursor is visible again"


def test_streamed_words_stay_and_the_final_answer_is_there_once(tmp_path: Path) -> None:
    seen = on_terminal(["run", "Capital?", "-p", "ada,bob", "--stream", "--chair", "ada"], 80, tmp_path)
    assert seen.status == 0
    text = "\n".join(seen.lines)
    assert sum(line.count(WORD[:20]) for line in seen.lines) == 2
    assert any("draft ada" in line and "draft bob" in line for line in seen.lines)
    assert text.count("the Louvre") == 1
    assert text.count("It is the seat of government") == 1


@pytest.mark.parametrize("columns", [80, 120])
def test_a_batch_is_one_bar_and_failures_stand_above_it(columns: int, tmp_path: Path) -> None:
    tasks = "".join(f'{{"id": "q{number}", "task": "Capital?"}}\n' for number in range(12))
    (tmp_path / "tasks.jsonl").write_text(tasks + "{\n")
    words = ["batch", "tasks.jsonl", "-o", "results.jsonl", "-p", "ada,bob", "--chair", "ada", "--concurrency", "3"]
    seen = on_terminal(words, columns, tmp_path)
    assert seen.status == 1
    bars = [line for frame in seen.frames for line in frame.splitlines() if "/12 " in line]
    assert all("━" in line and len(line) <= columns for line in bars)
    assert any("/s" in line and " left" in line and "$0." in line for line in bars)
    text = "\n".join(seen.lines)
    assert text.count("/12 ") == 1
    assert text.index("line 13: not JSON") < text.index("12/12 ") < text.index("12 of 12 tasks succeeded")
    assert seen.sent.rindex(b"\x1b[?25h") > seen.sent.rindex(b"\x1b[?25l"), "the cursor is visible again"


def test_ctrl_c_ends_a_batch_with_the_way_on(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"id": "q", "task": "Capital?"}\n')
    words = ["batch", "tasks.jsonl", "-o", "results.jsonl", "-p", "ada,bob"]
    seen = on_terminal(words, 80, tmp_path, delay=30, ctrl_c=lambda frame: "0/1 " in frame)
    assert seen.status == 130
    text = "\n".join(seen.lines)
    assert "0 of 1 tasks are done; to go on:" in text
    assert "council batch tasks.jsonl -o results.jsonl -p ada,bob" in text
    assert "Traceback" not in text
    assert seen.sent.rindex(b"\x1b[?25h") > seen.sent.rindex(b"\x1b[?25l"), "the cursor is visible again"
