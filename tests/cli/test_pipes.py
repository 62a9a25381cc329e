"""Pipes and files: what is read from standard input, and where an answer goes when its place fails."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_council.cli import _input
from llm_council.errors import InvalidOption
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import Council

ANSWER = "## Answer\nParis → **é**\n\n## Reasoning\nIt is the seat of government."

pytestmark = pytest.mark.usefixtures("new_user")


@pytest.fixture
def seat() -> Iterator[ScriptedProvider]:
    provider = ScriptedProvider({"critique": "Right.", "*": ANSWER}, name="scripted")
    with registry.overriding(scripted=provider):
        yield provider


def asked(seat: ScriptedProvider) -> str:
    return seat.requests[0].messages[-1].text


def test_what_is_piped_in_stands_beside_the_task_in_a_fence_of_its_own(
    council: Council, seat: ScriptedProvider
) -> None:
    code, _, _ = council("run", "Summarise", "-p", "scripted", stdin=b"\xef\xbb\xbfthe notes\r\n")
    assert code == 0
    text = asked(seat)
    assert text.startswith("Task:\nSummarise\n\n[[[ ")
    assert " File standard input\nthe notes\n" in text


def test_a_dash_alone_is_the_task(council: Council, seat: ScriptedProvider) -> None:
    assert council("run", "-", "-p", "scripted", stdin=b"Where?")[0] == 0
    assert asked(seat).startswith("Task:\nWhere?\n")
    assert "[[[" not in asked(seat)


def test_a_dash_as_file_is_standard_input_at_its_place(council: Council, seat: ScriptedProvider) -> None:
    Path("a.txt").write_text("first")
    code, _, _ = council("run", "Compare", "-f", "a.txt", "-f", "-", "-p", "scripted", stdin=b"second")
    assert code == 0
    text = asked(seat)
    assert text.index("File a.txt\nfirst") < text.index("File standard input\nsecond")


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="the system has no names for open files")
def test_a_file_that_can_be_read_only_once_reaches_the_seats(council: Council, seat: ScriptedProvider) -> None:
    read, write = os.pipe()  # as <(command) of a shell
    os.write(write, b"written by a command")
    os.close(write)
    try:
        code, _, err = council("run", "Summarise", "-f", f"/dev/fd/{read}", "-p", "scripted")
    finally:
        os.close(read)
    assert (code, "is empty" in err) == (0, False)
    assert f"File /dev/fd/{read}\nwritten by a command\n" in asked(seat)


def test_an_empty_pipe_is_no_input(council: Council, seat: ScriptedProvider) -> None:
    for stdin in (b"", b" \n", None):
        assert council("run", "Where?", "-p", "scripted", stdin=stdin)[0] == 0
        assert "[[[" not in asked(seat)


@pytest.mark.parametrize(
    ("words", "stdin", "remedy"),
    [
        (["-"], b"", "the task is empty: standard input held no text"),
        (["-"], None, "standard input is closed"),
        (["-"], b"\xff", "cannot read standard input: not UTF-8 text (byte 0)"),
        (["Summarise"], b"ok\xff", "cannot read standard input: not UTF-8 text (byte 2)"),
        (["Summarise"], b"a\0b", "standard input is not UTF-8 text"),
        (["x", "-f", "-"], b"", "--files -: standard input is empty"),
        (["-", "-f", "-"], b"text", "can be given once"),
        (["x", "-f", "-", "-f", "-"], b"text", "can be given once"),
        (["-i", "none.txt"], b"", "cannot read none.txt: No such file or directory"),
        (["-i", "."], b"", "cannot read .: Is a directory"),
        (["x", "-f", "/dev/zero"], b"", "/dev/zero is larger than 16 MiB"),
        (["-i", "/dev/zero"], b"", "/dev/zero is larger than 16 MiB"),
        (["x", "--schema", "/dev/zero"], b"", "/dev/zero is larger than 16 MiB"),
    ],
)
def test_unusable_input_is_refused_before_anything_is_sent(
    council: Council, seat: ScriptedProvider, words: list[str], stdin: bytes | None, remedy: str
) -> None:
    code, out, err = council("run", *words, "-p", "scripted", stdin=stdin)
    assert (code, out) == (2, "")
    assert remedy in err
    assert not seat.requests


def test_endless_standard_input_stops_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/zero", encoding="utf-8") as endless:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", endless)
        with pytest.raises(InvalidOption, match="standard input is larger than 16 MiB"):
            _input.read_stdin()


def test_waiting_for_standard_input_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_input, "_PATIENCE", 0.01)
    read, write = os.pipe()
    join = _input.threading.Thread.join

    def joined(thread: Any, timeout: float | None = None) -> None:
        join(thread, timeout)
        if timeout == 0.2:  # the note is printed: let the pipe end
            os.write(write, b"late")
            os.close(write)
            join(thread)

    monkeypatch.setattr(_input.threading.Thread, "join", joined)
    with open(read, encoding="utf-8") as pipe:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", pipe)
        assert _input.read_stdin() == "late"
    assert "waiting for standard input; to run without it, add: < /dev/null" in capsys.readouterr().err


def test_standard_input_may_be_an_object_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("notes\n"))
    assert _input.read_stdin() == "notes\n"


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.json", '{\n  "run_id"'),
        ("a.md", "# Where?"),
        ("a.MARKDOWN", "# Where?"),
        ("a.html", "<!doctype html>"),
        ("a.htm", "<!doctype html>"),
        ("a.txt", "Paris → **é**\n"),
        ("a", "Paris → **é**\n"),
    ],
)
def test_the_extension_of_the_output_chooses_the_format(
    council: Council, seat: ScriptedProvider, name: str, start: str
) -> None:
    code, out, _ = council("run", "Where?", "-p", "scripted", "-o", name)
    assert (code, out) == (0, "")
    assert Path(name).read_text(encoding="utf-8").startswith(start)


def test_a_format_that_is_named_takes_precedence_over_the_extension(council: Council, seat: ScriptedProvider) -> None:
    assert council("run", "Where?", "-p", "scripted", "-o", "a.json", "--format", "text")[0] == 0
    assert Path("a.json").read_text(encoding="utf-8").startswith("Paris")
    assert council("run", "Where?", "-p", "scripted", "-o", "a.md", "--json")[0] == 0
    assert json.loads(Path("a.md").read_text(encoding="utf-8"))["success"]


def test_a_file_is_replaced_as_a_whole_or_stays_as_it_was(
    council: Council, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("real.txt").write_text("old")
    Path("link.txt").symlink_to("real.txt")
    seen: list[str] = []

    def fsync(handle: int) -> None:
        seen.append(Path("real.txt").read_text())
        if len(seen) > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    assert council("run", "Where?", "-p", "scripted", "-o", "link.txt")[0] == 0
    new = Path("real.txt").read_text(encoding="utf-8")
    assert (seen, new.startswith("Paris")) == (["old"], True)
    assert Path("link.txt").is_symlink()
    code, out, err = council("run", "Where?", "-p", "scripted", "-o", "link.txt")
    assert (code, out) == (1, new)
    assert "cannot write link.txt: No space left on device; the answer is printed instead" in err
    assert sorted(path.name for path in Path().iterdir()) == ["link.txt", "real.txt"]


def test_a_device_or_a_pipe_as_output_is_written_and_not_replaced(council: Council, seat: ScriptedProvider) -> None:
    assert council("run", "Where?", "-p", "scripted", "-o", "/dev/null")[:2] == (0, "")
    assert Path("/dev/null").is_char_device()


def test_an_answer_that_the_encoding_lacks_is_printed_on_stderr(
    council: Council, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
        code, _, err = council("run", "Where?", "-p", "scripted", "--store", str(tmp_path / "runs.db"))
    assert code == 1
    assert "council: cannot write to stdout: its encoding latin-1 has no U+2192; the answer is printed here" in err
    assert re.search(rf"\(it is stored, too: council replay \w+ --store {re.escape(str(tmp_path))}/runs.db\)", err)
    assert "Paris → **é**" in err


def test_json_is_escaped_where_the_encoding_lacks_a_character(
    council: Council, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = io.BytesIO()
    stdout = io.TextIOWrapper(got, encoding="ascii", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        assert council("run", "Where?", "-p", "scripted", "--json")[0] == 0
    assert json.loads(got.getvalue())["output"]["answer"] == "Paris → **é**"


SCRIPT = f"""
import sys
from llm_council.cli import main
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider
seat = ScriptedProvider({ANSWER!r}, name="scripted", delay=0.05)
with registry.overriding(scripted=seat):
    sys.argv = ["council", *sys.argv[1:]]
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirect", "status", "err"),
    [
        ("run Where? -p scripted 2>/dev/null | true", 1, ""),
        ("run Where? -p scripted --stream 2>&1 | true", 1, ""),
        ("run Where? -p scripted 2>&-", 0, ""),
        ("run Where? -p scripted 2>/dev/full", 0, ""),
        ("run Where? -p scripted >/dev/full 2>/dev/full", 1, ""),
        ("run Summarise -p scripted <&-", 0, None),
    ],
)
def test_closed_and_full_streams_leave_no_traceback(redirect: str, status: int, err: str | None) -> None:
    command = f'set -o pipefail; "$0" -c "$1" {redirect}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode == status
    if err is not None:
        assert done.stderr == err


@pytest.mark.parametrize(
    "words",
    [
        "providers",
        "--help",
        "run --help",
        "--version",
        "completion bash",
        "subagents",
        "config show",
        "models list --json",
    ],
)
@pytest.mark.parametrize("buffering", [1, -1])
def test_a_full_stdout_is_one_line_of_every_command(
    council: Council, monkeypatch: pytest.MonkeyPatch, words: str, buffering: int
) -> None:
    with open("/dev/full", "w", buffering, encoding="utf-8") as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        code, _, err = council(*words.split())
    assert (code, err) == (1, "council: cannot write to stdout: No space left on device; write to another place\n")


def test_a_dash_as_output_is_stdout(council: Council, seat: ScriptedProvider) -> None:
    code, out, _ = council("run", "Where?", "-p", "scripted", "-o", "-")
    assert (code, out) == (0, "Paris → **é**\n")
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "scripted", "-o", ""], "the path is empty; name a file, or - for stdout"),
        (["-p", "scripted", "-o", "o/"], "o/ is a folder; name a file in it"),
        (["-p", "scripted", "-o", "h.PDF"], ".pdf files cannot be written; name a .html"),
        (["-p", ","], "--providers is given, but names none"),
        (["-p", "scripted", "-m", " "], "--models is given, but names none"),
    ],
)
def test_an_option_that_says_nothing_usable_is_refused(
    council: Council, seat: ScriptedProvider, words: list[str], message: str
) -> None:
    code, out, err = council("run", "Where?", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert not seat.requests
    assert not list(Path().iterdir())


def test_a_named_format_is_written_under_any_extension(council: Council, seat: ScriptedProvider) -> None:
    assert council("run", "Where?", "-p", "scripted", "-o", "h.pdf", "--format", "text")[0] == 0
    assert Path("h.pdf").read_text(encoding="utf-8") == "Paris → **é**\n"


def test_a_terminal_is_told_that_the_file_was_written(
    council: Council, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        assert council("run", "Where?", "-p", "scripted", "-o", "a.md")[0] == 0
    assert stderr.getvalue().endswith("council: written to a.md\n")
    assert "written" not in council("run", "Where?", "-p", "scripted", "-o", "a.md")[2]


def test_a_full_stdout_leaves_no_traceback_at_exit() -> None:
    command = '"$0" -c "from llm_council.cli import main; main()" --version >/dev/full'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "council: cannot write to stdout: No space left on device; write to another place\n"
