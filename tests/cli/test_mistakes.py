"""Fifteen usual mistakes: each ends with its exit status, and with a sentence on stderr that names the remedy.

Nothing is sent, stdout stays empty, and no traceback is shown.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from llm_council import Council as TheCouncil
from llm_council import CouncilConfig, errors
from llm_council.providers import registry
from llm_council.providers.openai import OpenAIProvider
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import ANSWER, Council

pytestmark = pytest.mark.usefixtures("new_user")

S = ("-p", "scripted")

MISTAKES = {
    "a misspelt provider": (["run", "Hi", "-p", "opnai"], "no provider is named 'opnai'; did you mean 'openai'?"),
    "a misspelt provider with a model": (["run", "Hi", "-p", "openai:gpt-5"], "did you mean 'openai/gpt-5'?"),
    "a model without its provider": (["run", "Hi", "-p", "gpt-5"], "a model needs its provider: 'openai/gpt-5'"),
    "no provider at all": (["run", "Hi"], "set a key:      OPENROUTER_API_KEY"),
    "a missing key": (["run", "Hi", "-p", "openai"], "openai needs a key: set OPENAI_API_KEY"),
    "several missing keys": (
        ["run", "Hi", "-p", "openai,groq/m"],
        "2 keys are missing: set OPENAI_API_KEY (openai), GROQ_API_KEY (groq)",
    ),
    "a schema with a wrong word": (
        ["run", "Hi", *S, "--schema", "wrong.json"],
        "--schema: wrong.json is not a JSON Schema: $.type: there is no type 'objct'; did you mean 'object'?",
    ),
    "a schema that is no JSON": (["run", "Hi", *S, "--schema", "broken.json"], "broken.json is not JSON: "),
    "a missing file": (["run", "Hi", *S, "-f", "none.txt"], "cannot read none.txt: No such file or directory; check"),
    "a folder as a file": (["run", "Hi", *S, "-f", "folder"], "cannot read folder: Is a directory; name a file in it"),
    "a file that is no text": (["run", "Hi", *S, "-f", "picture.png"], "picture.png is not UTF-8 text"),
    "a missing file with the task": (["run", *S, "-i", "none.txt"], "cannot read none.txt: No such file"),
    "an empty task": (["run", " ", *S], 'the task is empty; try: council run "What is ...?"'),
    "no task": (["run", *S], 'no task given; try: council run "What is ...?", or council run - for stdin'),
    "a role without a task": (["run", "reviewer", *S], 'no task given; try: council run reviewer "..."'),
    "two flags that are similar": (
        ["run", "Hi", *S, "--model", "m"],
        "Error: there is no option --model; did you mean --models or --mode?\n",
    ),
    "a flag like no other": (["run", "Hi", *S, "--xyzzy"], "Error: there is no option --xyzzy\n"),
    "a misspelt flag": (["run", "Hi", *S, "--deadlin", "5"], "--deadline"),
    "a flag with a wrong value": (["run", "Hi", *S, "--deadline", "soon"], "'soon' is not a number"),
    "a negative number": (["run", "Hi", *S, "--deadline", "-5"], "-5 is not a number above 0"),
    "a number with a unit": (["run", "Hi", *S, "--deadline", "1m"], "'1m' is not a number; give one above 0, such as"),
    "an option before the command": (["-p", "scripted", "run", "Hi"], "as in: council run -p ..."),
    "a command in quotes": (["run Hi"], "leave the quotes out: council run Hi"),
    "help as a command": (["help"], "there is no command 'help'; see council --help"),
    "an unknown command of a group": (["config", "set"], "there are path, show, trust: council config --help"),
    "a misspelt command of a group": (["models", "pul"], "did you mean 'pull'?"),
    "a task in another encoding": (["run", *S, "-i", "utf16.txt"], "not UTF-8 text (byte 0); save it as UTF-8"),
    "a misspelt command": (["runn", "Hi"], "there is no command 'runn'; did you mean 'run'?"),
    "a task without a command": (["Where is Paris?"], 'to ask a question: council run "Where is Paris?"'),
    "an unknown local model": (["run", "Hi", "-p", "local/nonsense"], "council models list"),
    "an output in a missing folder": (["run", "Hi", *S, "-o", "none/x.md"], "create it, or name another file"),
    "an empty pipe": (["run", "-", *S], "the task is empty: standard input held no text; try: council run"),
    "an unknown role": (
        ["run", "reviewr", "Hi", *S],
        "there is no subagent 'reviewr'; did you mean 'reviewer'? (`council subagents` lists them all)",
    ),
    "an unknown mode": (["run", "drafter", "Hi", *S, "--mode", "implement"], "did you mean 'impl'?"),
    "a task in several words": (["run", "Where", "is", "Paris?", *S], "put the task in quotes"),
    "a task of two words": (["run", "Hi", "there", *S], 'put a task in quotes: council run "Hi there"'),
    "a task and a file with one": (
        ["run", "a task", *S, "-i", "note.txt"],
        "'a task' is no subagent, and the task is read from note.txt: give the task once",
    ),
    "a role after the task": (
        ["run", *S, "What?", "reviewer"],
        'the subagent comes before the task; try: council run reviewer "What?"',
    ),
    "an unknown strategy": (["run", "Hi", *S, "--strategy", "votee"], "did you mean 'vote'?"),
    "an option of a strategy without a value": (
        ["run", "Hi", *S, "--strategy-option", "k"],
        "--strategy-option: expected KEY=VALUE, got 'k'",
    ),
    "an unknown option of a strategy": (
        ["run", "Hi", *S, "--strategy", "single", "--strategy-option", "k=3"],
        "strategy 'single': Single takes no 'k'",
    ),
    "an unknown chair": (["run", "Hi", *S, "--chair", "bob"], "no seat is named 'bob' (seats: scripted)"),
    "a store without a path": (["runs", "list"], "pass --store PATH, set LLM_COUNCIL_STORE"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_2_and_names_its_remedy(council: Council, seat: ScriptedProvider, mistake: str) -> None:
    Path("wrong.json").write_text('{"type": "objct"}')
    Path("broken.json").write_text("{")
    Path("utf16.txt").write_bytes("Where?".encode("utf-16"))
    Path("picture.png").write_bytes(b"\x89PNG\r\n\xff\xfe")
    Path("note.txt").write_text("Where is Paris?")
    Path("folder").mkdir()
    words, remedy = MISTAKES[mistake]
    code, out, err = council(*words)
    assert (code, out) == (2, "")
    assert remedy in err
    assert "Traceback" not in err
    assert seat.requests == []


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("[council", "council.toml: not valid TOML: "),
        ('[council]\nprovider = ["scripted"]\n', "takes no 'provider'; did you mean 'providers'?"),
        ('[council]\nmax_tokens = "many"\n', "max_tokens: a whole number of 1 or more, got 'many'"),
        ("[council]\nbudget = { usd = '1' }\n", "budget.usd: a number of 0 or more, got '1'"),
        ("[counsel]\n", "there is no table [counsel]; did you mean 'council'?"),
        ('[providers.x]\nkind = "openai"\n', "council config trust"),
    ],
)
def test_a_mistake_in_a_configuration_file_names_file_and_field(
    council: Council, seat: ScriptedProvider, text: str, remedy: str
) -> None:
    Path("council.toml").write_text(text)
    code, out, err = council("run", "Hi", *S)
    assert (code, out) == (2, "")
    assert err.startswith("council: council.toml: ")
    assert remedy in err
    assert seat.requests == []


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("LLM_COUNCIL_QUORUM", "two", "LLM_COUNCIL_QUORUM: expected a whole number, got 'two'"),
        ("LLM_COUNCIL_QUORUMS", "2", "there is no environment variable LLM_COUNCIL_QUORUMS; did you mean LLM_COUNCIL_"),
    ],
)
def test_a_mistake_in_a_variable_names_it(
    council: Council, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, remedy: str
) -> None:
    monkeypatch.setenv(variable, value)
    code, out, err = council("run", "Hi", *S)
    assert (code, out, seat.requests) == (2, "", [])
    assert remedy in err


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (404, "model_not_found", "(check the name of the model, in openai/MODEL or default_model)"),
        (401, "invalid_api_key", "(check the key in OPENAI_API_KEY)"),
    ],
)
def test_a_model_or_key_that_the_vendor_refuses_fails_with_1_and_names_the_remedy(
    council: Council, monkeypatch: pytest.MonkeyPatch, status: int, code: str, remedy: str
) -> None:
    reply = httpx.Response(status, json={"error": {"message": "No.", "code": code}})
    monkeypatch.setenv("OPENAI_API_KEY", "canary-canary-0123")
    vendor = OpenAIProvider(transport=httpx.MockTransport(lambda _: reply))
    with registry.overriding(openai=vendor):
        exit_status, out, err = council("run", "Hi", "-p", "openai/gpt-99")
    assert (exit_status, out) == (1, "")
    (line,) = [line for line in err.splitlines() if remedy in line]
    assert line.endswith(remedy)  # no second remedy
    assert "canary" not in err


@pytest.mark.parametrize("task", [["Where?"], ("Where?", "When?"), None, 5, b"Where?"])
def test_a_list_as_task_is_refused_with_what_a_task_is(task: object) -> None:
    council = TheCouncil([ScriptedProvider(ANSWER)], config=CouncilConfig())
    with pytest.raises(errors.InvalidOption, match="a task is text"):
        council.run(task)  # type: ignore[arg-type]


def test_a_closed_stdout_is_reported_on_stderr_with_the_answer() -> None:
    script = (
        "import sys\n"
        "from llm_council.cli import main\n"
        "from llm_council.providers import registry\n"
        "from llm_council.testing.fakes import ScriptedProvider\n"
        f"with registry.overriding(scripted=ScriptedProvider({ANSWER!r}, name='scripted')):\n"
        "    sys.argv = ['council', 'run', 'Where?', '-p', 'scripted']\n"
        "    main()\n"
    )
    command = ["bash", "-c", '"$0" -c "$1" < /dev/null >&-', sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the answer is printed here" in done.stderr
    assert "Paris" in done.stderr
    assert "Traceback" not in done.stderr
