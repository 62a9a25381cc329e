"""Every recipe of the cookbook does what it says.

A recipe is run as a reader runs it: each block after "save this as `NAME`" is a file of that name in an empty folder,
and each line of a console block a command. Nothing of either is changed. Only the environment is replaced: a key, the
address of a fake vendor on loopback, an empty home, and no way to any other machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from markdown_it import MarkdownIt

from llm_council.models import GenerateRequest, GenerateResponse, Usage
from llm_council.testing.servers import FakeBatchVendor, FakeVendor, Hang, obliging

ROOT = Path(__file__).parents[2]
COOKBOOK = ROOT / "docs" / "cookbook"
RECIPES = sorted(page.stem for page in COOKBOOK.glob("*.md") if page.stem != "index")
KEY = "sk-of-the-cookbook-0123456789"
SECONDS = 110  # for one command; on a quiet machine, none takes ten, and those that start Dask or Ray twenty

SAVED = re.compile(r"(?:[Ss]ave|Start)[^.]* as `([^`]+)`")


@attrs.frozen
class Block:
    """A fenced block of a page, and the file that the paragraph before it names, if any."""

    language: str
    text: str
    file: str | None
    line: int


def blocks(name: str) -> list[Block]:
    found, before = [], ""
    for token in MarkdownIt("commonmark").parse((COOKBOOK / f"{name}.md").read_text()):
        if token.type == "inline":
            before = token.content.replace("\n", " ")
        elif token.type == "fence":
            saved = SAVED.search(before)
            assert token.map is not None
            found.append(Block(token.info, token.content, saved[1] if saved else None, token.map[0] + 1))
            before = ""
    return found


def commands(name: str) -> list[str]:
    """The commands of a page, without those that install something: the environment has it."""
    lines = [line for block in blocks(name) if block.language == "console" for line in block.text.splitlines()]
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [command for command in typed if not command.startswith("pip install ")]


def say(request: GenerateRequest) -> GenerateResponse:
    """Answer in the form of the request, and report what it used."""
    return attrs.evolve(obliging(request), usage=Usage(input_tokens=20, output_tokens=10))


class Kitchen:
    """A folder with the files of one recipe, and the commands that run there."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.folder = folder
        self.environment = dict(environment)
        for block in blocks(name):
            if block.file is not None:
                path = folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)

    def run(self, command: str, **environment: str) -> str:
        """Run a command in a shell, as a reader types it; return what it printed to stdout."""
        done = self.outcome(command, **environment)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def outcome(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-ec", command],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def run_all(self) -> list[str]:
        """Run every command of the page, from top to bottom."""
        return [self.run(command) for command in commands(self.name)]

    @contextmanager
    def serving(self, command: str, ready: str, **environment: str) -> Iterator[re.Match[str]]:
        """Keep a server running; yield the match of the line that says that it is ready."""
        process = subprocess.Popen(
            ["bash", "-ec", f"exec {command}"],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        watch = threading.Timer(SECONDS, process.kill)
        watch.start()
        try:
            seen = []
            for line in process.stdout:
                seen.append(line)
                if found := re.search(ready, line):
                    break
            else:
                pytest.fail(f"{command} ended:\n{''.join(seen)}")
            # What it prints later must not fill the pipe, on which it would wait.
            drain = threading.Thread(target=process.stdout.read, daemon=True)
            drain.start()
            yield found
        finally:
            watch.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            drain.join(5)
            process.stdout.close()


@pytest.fixture
def vendor() -> Iterator[FakeVendor]:
    with FakeVendor("openai", say, key=KEY).serve() as serving:
        yield serving


@pytest.fixture
def kitchen(vendor: FakeVendor, tmp_path: Path) -> Callable[[str], Kitchen]:
    """Make the kitchen of a recipe: ``kitchen("script")``."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": vendor.url,
        "PYTHONWARNINGS": "error",
        "PYTHONPYCACHEPREFIX": str(tmp_path / "pycache"),
        "HTTPS_PROXY": "http://127.0.0.1:9",  # nobody listens there: whoever looks for the network fails
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Ann",
        "GIT_AUTHOR_EMAIL": "ann@example.com",
        "GIT_COMMITTER_NAME": "Ann",
        "GIT_COMMITTER_EMAIL": "ann@example.com",
    }

    def make(name: str) -> Kitchen:
        folder = tmp_path / name
        folder.mkdir()
        return Kitchen(name, folder, environment)

    return make


# --- every page ------------------------------------------------------------------------------------------------------


def test_the_index_lists_every_recipe() -> None:
    listed = re.findall(r"^\| \[[^]]+\]\(([\w-]+)\.md\)", (COOKBOOK / "index.md").read_text(), re.MULTILINE)
    assert sorted(listed) == RECIPES


def test_every_recipe_has_its_test() -> None:
    source = Path(__file__).read_text()
    assert [name for name in RECIPES if f'kitchen("{name}")' not in source] == []


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_begins_with_what_it_does_and_its_example(name: str) -> None:
    text = (COOKBOOK / f"{name}.md").read_text()
    first = blocks(name)[0]
    assert text.startswith("# ")
    assert first.line <= 12
    wrong = text.rpartition("\n## ")[2]
    assert "\n## What to change\n" in text
    assert wrong.startswith("What can go wrong\n")
    assert "](" in wrong.splitlines()[-1]  # it ends with a link to where one reads on


@pytest.mark.parametrize("name", RECIPES)
def test_every_block_of_a_recipe_is_a_file_a_command_or_a_cell(name: str) -> None:
    idle = [block.line for block in blocks(name) if block.file is None and block.language != "console"]
    assert idle == [] or name == "jupyter"


@pytest.mark.parametrize("name", [*RECIPES, "index"])
def test_no_sentence_has_more_than_thirty_words(name: str) -> None:
    long = []
    for token in MarkdownIt("commonmark").enable("table").parse((COOKBOOK / f"{name}.md").read_text()):
        if token.type == "inline":
            words = re.sub(r"\]\([^)]*\)|[*`\[]", "", token.content).replace("\n", " ")
            long += [sentence for sentence in re.split(r"(?<=[.:?!;]) ", words) if len(sentence.split()) > 30]
    assert long == []


# --- in a program ----------------------------------------------------------------------------------------------------


def test_script(kitchen: Callable[[str], Kitchen], vendor: FakeVendor) -> None:
    recipe = kitchen("script")
    (answered,) = recipe.run_all()
    assert answered == "low - It is so.\n"
    assert len(vendor.calls) > 1

    (command,) = commands("script")
    refused = recipe.outcome(command, OPENAI_API_KEY="sk-wrong-0123456789")
    assert refused.returncode == 1
    assert "this key is not known" in refused.stderr
    keyless = recipe.outcome(command, OPENAI_API_KEY="")
    assert keyless.returncode == 1
    assert "no key is set" in keyless.stderr


def test_trio(kitchen: Callable[[str], Kitchen]) -> None:
    (printed,) = kitchen("trio").run_all()
    questions = ["Where does the Danube end?", "What limits a queue?", "Why is the sky blue?"]
    assert sorted(line.partition("?")[0] + "?" for line in printed.splitlines() if "?" in line) == sorted(questions)
    assert printed.count("It is so.") >= 3


def test_pytest(kitchen: Callable[[str], Kitchen], vendor: FakeVendor) -> None:
    recipe = kitchen("pytest")
    vendor.said = "Paris"
    record, replay = commands("pytest")
    assert "2 passed" in recipe.run(record)
    asked = len(vendor.calls)
    assert asked > 0
    (cassette,) = recipe.folder.rglob("cassettes/**/*.json")
    assert KEY not in cassette.read_text()
    assert "Paris" in cassette.read_text()
    assert "2 passed" in recipe.run(replay, OPENAI_API_KEY="", OPENAI_BASE_URL="")
    assert len(vendor.calls) == asked


@pytest.mark.cookbook
def test_jupyter(kitchen: Callable[[str], Kitchen], monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    recipe = kitchen("jupyter")
    for name, value in recipe.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTHONWARNINGS")  # the kernel has deprecations of its own
    cells = [block.text for block in blocks("jupyter") if block.language == "python"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", allow_errors=False).execute(cwd=str(recipe.folder))
    awaited, blocked, several, watched, called, seats = [cell.outputs for cell in notebook.cells]
    assert "<details" in awaited[-1].data["text/html"]
    assert "It is so." in awaited[-1].data["text/html"]
    assert "It is so." in blocked[0].text
    assert several[-1].data["text/plain"].count("completed") == 2
    assert "run" in "".join(output.text for output in watched)
    assert "It is so." in called[-1].data["text/plain"]
    assert seats[0].text.count("answered") == 3


# --- behind a web page -----------------------------------------------------------------------------------------------


def route_to(recipe: Kitchen, port: str) -> None:
    """Let the curl of a recipe find port 8000 at another one, so that its commands stay as they are."""
    if shutil.which("curl") is None:
        pytest.skip("curl asks the server of this recipe")
    Path(recipe.environment["HOME"], ".curlrc").write_text(f'connect-to = "127.0.0.1:8000:127.0.0.1:{port}"\nfail\n')


def last_update(printed: str) -> tuple[Any, Any]:
    """The last answer of server-sent events, and the data of their end."""
    data = [json.loads(line.removeprefix("data: ")) for line in printed.splitlines() if line.startswith("data: ")]
    assert "event: end" in printed
    return data[-2], data[-1]


def leave(recipe: Kitchen, vendor: FakeVendor, command: str) -> bool:
    """End a client whose council waits for its seats; return True if their calls were then cancelled."""
    asked, said, vendor.said = len(vendor.asked), vendor.said, Hang()
    client = subprocess.Popen(
        ["bash", "-ec", f"exec {command}"],
        cwd=recipe.folder,
        env=recipe.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert vendor.wait_asked(asked + 2, SECONDS / 2)
    finally:
        client.kill()
        client.wait()
        vendor.said = said
    return vendor.wait_left(20)


UVICORN = r"running on http://127\.0\.0\.1:(\d+)"


@pytest.mark.cookbook
def test_fastapi(kitchen: Callable[[str], Kitchen], vendor: FakeVendor) -> None:
    recipe = kitchen("fastapi")
    serve, triage, explain = commands("fastapi")
    with recipe.serving(serve, UVICORN, UVICORN_PORT="0") as found:
        route_to(recipe, found[1])
        assert json.loads(recipe.run(triage)) == {"severity": "low", "summary": "It is so."}
        answer, end = last_update(recipe.run(explain))
        assert answer["answer"] == "It is so."
        assert end == {"status": "completed"}
        assert leave(recipe, vendor, explain)
        vendor.key = "another"
        assert recipe.outcome(triage).returncode == 22  # curl's status for a reply from 400 on


@pytest.mark.cookbook
def test_django(kitchen: Callable[[str], Kitchen], vendor: FakeVendor) -> None:
    recipe = kitchen("django")
    serve, triage, atriage, explain = commands("django")
    with recipe.serving(serve, UVICORN, UVICORN_PORT="0") as found:
        route_to(recipe, found[1])
        expected = {"status": "completed", "triage": {"severity": "low", "summary": "It is so."}}
        assert json.loads(recipe.run(triage)) == expected
        assert json.loads(recipe.run(atriage)) == expected
        answer, end = last_update(recipe.run(explain))
        assert answer["answer"] == "It is so."
        assert end == {"status": "completed"}
        assert leave(recipe, vendor, explain)
        vendor.key = "another"
        assert json.loads(recipe.run(atriage)) == {"status": "failed", "triage": None}


BROWSE = """
import re, sys
import trial, django
django.setup()
from django.contrib.auth.models import User
from django.test import Client

address = "/admin/council_runs/run/"
ann = Client(SERVER_NAME="127.0.0.1")
assert ann.get(address).status_code == 302, "who has not logged in is sent to the login"
assert ann.login(username="ann", password="danube")
assert address in ann.get("/admin/").content.decode()
page = ann.get(address)
assert page.status_code == 200, page
(run,) = re.findall(r'href="([0-9a-f]+)/"', page.content.decode())
print(ann.get(f"{address}{run}/").content.decode())
assert ann.get(f"{address}0123456789abcdef/").status_code == 404
bob = Client(SERVER_NAME="127.0.0.1")
bob.force_login(User.objects.create_user("bob", is_staff=True))
assert bob.get(address).status_code == 403, "staff need the permission"
assert bob.get(f"{address}{run}/").status_code == 403
"""


@pytest.mark.cookbook
def test_django_admin(kitchen: Callable[[str], Kitchen]) -> None:
    recipe = kitchen("django-admin")
    (recipe.folder / "council_runs" / "__init__.py").touch()
    store, migrate, account, serve = commands("django-admin")
    for command in (store, migrate, account):
        recipe.run(command)
    (recipe.folder / "browse.py").write_text(BROWSE)
    shown = recipe.run("python browse.py")
    assert "Where does the Danube end?" in shown
    assert "It is so." in shown
    assert serve == "python trial.py runserver"
    recipe.run("python trial.py check --fail-level WARNING")


WORK = """
import runpy
from celery.contrib.testing.worker import start_worker
import tasks

with start_worker(tasks.app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
    runpy.run_path("send.py", run_name="__main__")
"""


@pytest.mark.cookbook
def test_celery(kitchen: Callable[[str], Kitchen]) -> None:
    recipe = kitchen("celery")
    (recipe.folder / "work.py").write_text(WORK)
    # A broker in memory has its worker in the same process.
    memory = {"CELERY_BROKER_URL": "memory://", "CELERY_RESULT_BACKEND": "cache+memory://", "PYTHONWARNINGS": "default"}
    printed = recipe.run("python work.py", **memory)
    assert printed.count("'status': 'completed'") == 2
    assert printed.count("It is so.") >= 2
    assert recipe.run("council runs list --store runs.db").count("completed") == 2


# --- on code changes -------------------------------------------------------------------------------------------------

REVIEW = {"review_summary": "Sound.", "issues": [], "recommendations": [], "reasoning": "It adds a line."}
ISSUE = {"severity": "major", "location": None, "description": "The key is printed.", "suggestion": "Mask it."}


def reviewer(verdict: str) -> Callable[[GenerateRequest], str]:
    """Let the vendor approve of a change, or not."""

    def answer(request: GenerateRequest) -> str:
        if request.structured_output is None:
            return "Looks like a line."
        issues = [] if verdict == "approve" else [ISSUE]
        return json.dumps({**REVIEW, "verdict": verdict, "issues": issues})

    return answer


def commit(recipe: Kitchen, text: str) -> None:
    (recipe.folder / "app.py").write_text(text)
    recipe.run("git add . && git commit -qm 'Change the app'")


class Runner:
    """Runs the ``run`` steps of a workflow as GitHub's runner does (docs.github.com/actions, "Workflow syntax")."""

    def __init__(self, recipe: Kitchen, base: str) -> None:
        import yaml

        self.recipe = recipe
        self.temp = recipe.folder.parent / "runner-temp"
        self.temp.mkdir()
        self.summary = self.temp / "summary"
        self.contexts = {
            "secrets.OPENAI_API_KEY": KEY,
            "github.event.pull_request.base.sha": base,
        }
        workflow = yaml.safe_load((recipe.folder / ".github" / "workflows" / "council.yml").read_text())
        (job,) = workflow["jobs"].values()
        self.workflow, self.steps = workflow, [step for step in job["steps"] if "run" in step]

    def filled(self, text: str) -> str:
        return re.sub(r"\$\{\{ *(.*?) *\}\}", lambda found: self.contexts[found[1]], text)

    def run(self) -> list[subprocess.CompletedProcess[str]]:
        """Run the steps until one fails."""
        outcomes: list[subprocess.CompletedProcess[str]] = []
        for step in self.steps:
            if step["run"].startswith("pip install "):
                continue
            assert "${{" not in step["run"]
            environment = {
                **self.recipe.environment,
                "RUNNER_TEMP": str(self.temp),
                "GITHUB_STEP_SUMMARY": str(self.summary),
            }
            del environment["OPENAI_API_KEY"]  # a step has the secrets that its `env` names
            environment |= {name: self.filled(value) for name, value in step.get("env", {}).items()}
            done = subprocess.run(
                ["bash", "-e", "-c", step["run"]],
                cwd=self.recipe.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            outcomes.append(done)
            if done.returncode:
                break
        return outcomes


@pytest.mark.parametrize("verdict", ["approve", "request_changes"])
@pytest.mark.cookbook
def test_github_action(kitchen: Callable[[str], Kitchen], vendor: FakeVendor, verdict: str) -> None:
    recipe = kitchen("github-action")
    vendor.said = reviewer(verdict)
    recipe.run("git init -q -b main")
    commit(recipe, "ready = True\n")
    base = recipe.run("git rev-parse HEAD").strip()
    # What a pull request may try: a project's file that names other seats.
    (recipe.folder / "council.toml").write_text('[council]\nproviders = ["stranger"]\n')
    commit(recipe, "ready = True\nprint('a new line')\n")

    runner = Runner(recipe, base)
    outcomes = runner.run()
    assert runner.workflow["permissions"] == {"contents": "read"}
    assert len(outcomes) == 3, outcomes[-1].stderr
    assert [done.returncode for done in outcomes] == [0, 0, int(verdict != "approve")]
    assert outcomes[-1].stdout == f"{verdict}\n"
    assert "a new line" in (runner.temp / "change.diff").read_text()
    assert any(b"a new line" in asked.body for asked in vendor.calls)
    assert "Sound." in runner.summary.read_text()
    everything = runner.summary.read_text() + "".join(done.stdout + done.stderr for done in outcomes)
    assert KEY not in everything


@pytest.mark.cookbook
def test_github_action_without_an_answer_fails(kitchen: Callable[[str], Kitchen], vendor: FakeVendor) -> None:
    recipe = kitchen("github-action")
    vendor.key = "another"
    recipe.run("git init -q -b main")
    commit(recipe, "ready = True\n")
    base = recipe.run("git rev-parse HEAD").strip()
    commit(recipe, "ready = False\n")
    *_, last = Runner(recipe, base).run()
    assert last.returncode == 1
    assert "this key is not known" in last.stderr


@pytest.mark.cookbook
def test_pre_commit(kitchen: Callable[[str], Kitchen], vendor: FakeVendor, tmp_path: Path) -> None:
    recipe = kitchen("pre-commit")
    recipe.environment["PRE_COMMIT_HOME"] = str(tmp_path / "pre-commit")
    recipe.run("git init -q -b main")
    install, add, make = commands("pre-commit")
    recipe.run(install)

    vendor.said = reviewer("request_changes")
    recipe.run(add)
    refused = recipe.outcome(make)
    assert refused.returncode == 1
    assert "- major: The key is printed." in refused.stdout + refused.stderr
    assert recipe.outcome("git rev-parse --verify -q HEAD").returncode == 1

    vendor.said = reviewer("approve")
    approved = recipe.outcome(make)
    assert approved.returncode == 0, approved.stderr
    assert "approve - Sound." in approved.stdout + approved.stderr
    assert any(b"council_review.py" in asked.body for asked in vendor.calls)

    (recipe.folder / "app.py").write_text("ready = True\n")
    unreachable = recipe.outcome(f"{add} && git commit -m 'Change the app'", OPENAI_API_KEY="")
    assert unreachable.returncode == 0
    assert "Not reviewed: " in unreachable.stdout + unreachable.stderr


# --- on many tasks ---------------------------------------------------------------------------------------------------


def test_half_price(kitchen: Callable[[str], Kitchen]) -> None:
    recipe = kitchen("half-price")
    with FakeBatchVendor("openai", say).serve() as night:
        recipe.environment["OPENAI_BASE_URL"] = night.url
        first, again = commands("half-price")
        printed = recipe.run(first)
        assert printed.count("completed: ") == 3
        assert night.paid.total() == 6  # three drafts, three answers
        assert sorted(recipe.run(again).splitlines()) == sorted(printed.splitlines())
        assert night.paid.total() == 6


@pytest.mark.dask
@pytest.mark.timeout(2 * SECONDS)
def test_dask(kitchen: Callable[[str], Kitchen]) -> None:
    recipe = kitchen("dask")
    recipe.environment["PYTHONWARNINGS"] = "default"  # deprecations inside of other distributions
    (printed,) = recipe.run_all()
    assert printed == "{'completed': 3}\n"
    assert (recipe.folder / "answers.csv").read_text().count("It is so.") == 3


@pytest.mark.ray
@pytest.mark.timeout(2 * SECONDS)
def test_ray(kitchen: Callable[[str], Kitchen]) -> None:
    recipe = kitchen("ray")
    recipe.environment["PYTHONWARNINGS"] = "default"  # deprecations inside of other distributions
    (printed,) = recipe.run_all()
    assert printed.splitlines()[-1] == "{'completed': 3}"
    assert (recipe.folder / "answers.csv").read_text().count("It is so.") == 3


# --- own parts -------------------------------------------------------------------------------------------------------


def test_strategy(kitchen: Callable[[str], Kitchen]) -> None:
    answered, tested = kitchen("strategy").run_all()
    assert answered.startswith("completed It is so. (by ")
    assert re.search(r"\b([5-9]|\d\d) passed", tested)


def test_provider(kitchen: Callable[[str], Kitchen]) -> None:
    recipe = kitchen("provider")
    serve, ask = commands("provider")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    recipe.environment |= {"DESK_PORT": port, "DESK_URL": f"http://127.0.0.1:{port}"}
    with recipe.serving(serve, "Desk answers"):
        assert recipe.run(ask) == "It is night.\n"
        refused = recipe.outcome(ask.replace("of-the-house", "wrong"))
        assert refused.returncode == 1
        assert "desk" in refused.stderr
        assert "401" in refused.stderr
        assert "DESK_KEY" in refused.stderr


def test_evaluation(kitchen: Callable[[str], Kitchen], vendor: FakeVendor) -> None:
    recipe = kitchen("evaluation")
    plan, pool, report = commands("evaluation")
    recipe.run(plan)
    assert vendor.calls == []
    recipe.run(pool)
    asked = len(vendor.calls)
    assert asked == 4 * 3 * 3
    assert "annot tell yet" in recipe.run(report)
    assert len(vendor.calls) == asked
    assert "<html" in (recipe.folder / "report.html").read_text()
