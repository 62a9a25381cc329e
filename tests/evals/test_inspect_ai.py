"""Councils in inspect_ai: its tasks run on a council, and its logs give paired verdicts (tox -e inspect)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.inspect

inspect_ai = pytest.importorskip("inspect_ai", reason="the environment inspect installs it")

from inspect_ai.dataset import MemoryDataset, Sample, json_dataset  # noqa: E402
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, get_model  # noqa: E402
from inspect_ai.scorer import choice, includes, match  # noqa: E402
from inspect_ai.solver import generate, multiple_choice, system_message  # noqa: E402

from llm_council import Council  # noqa: E402
from llm_council.errors import InvalidOption  # noqa: E402
from llm_council.evals import _inspect_models as models  # noqa: E402
from llm_council.evals import example_tasks, replay  # noqa: E402
from llm_council.evals import inspect_ai as bridge  # noqa: E402
from llm_council.evals.export import inspect_lines  # noqa: E402
from llm_council.testing import ScriptedProvider  # noqa: E402


def convened(*answers: str) -> Council:
    return Council([ScriptedProvider({"*": answer}, name=f"s{number}") for number, answer in enumerate(answers)])


def run(task: Any, folder: Path, **options: Any) -> Any:
    (log,) = inspect_ai.eval(task, log_dir=str(folder), display="none", log_level="error", max_connections=1, **options)
    assert log.status == "success", log.error
    return log


def model(council: Council, strategy: str = "poll") -> Any:
    return get_model("council/own", memoize=False, council=council, strategy=strategy)


CAPITALS = [
    Sample(id="fr", input="Capital of France?", target="Paris"),
    Sample(id="it", input="Of Italy?", target="Rome"),
]


def test_a_task_runs_on_a_council_as_on_a_model(tmp_path: Path) -> None:
    task = inspect_ai.Task(
        dataset=MemoryDataset(CAPITALS), solver=[system_message("Be brief."), generate()], scorer=match()
    )
    log = run(task, tmp_path, model=model(convened("ANSWER: Paris", "ANSWER: Paris", "ANSWER: Rome")))
    sample = log.samples[0]
    assert sample.output.completion == "ANSWER: Paris"
    assert sample.scores["match"].value == "C"
    assert log.samples[1].scores["match"].value == "I"
    assert sample.output.metadata["tally"]["share"] == pytest.approx(2 / 3)
    assert sample.output.metadata["dissent"]
    assert sample.output.usage.total_tokens > 0


def test_the_provider_is_found_by_its_entry_point() -> None:
    from importlib.metadata import entry_points

    (entry,) = [one for one in entry_points(group="inspect_ai") if one.name == "llm_council"]
    assert entry.load() is models
    assert type(model(convened("a")).api) is models.CouncilModel


def test_a_conversation_reaches_the_seats() -> None:
    messages = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content="Pick a number."),
        ChatMessageAssistant(content="Seven."),
        ChatMessageUser(content="Double it,"),
        ChatMessageUser(content="please."),
    ]
    context, history, task = models._turns(messages)
    assert context == "Be brief."
    assert [(turn.role, turn.text) for turn in history] == [("user", "Pick a number."), ("assistant", "Seven.")]
    assert task == "Double it,\n\nplease."
    with pytest.raises(InvalidOption, match="the user's"):
        models._turns(messages[:3])


def test_choices_of_inspect_are_voted_on_by_letter(tmp_path: Path) -> None:
    data = [Sample(id="a", input="Which is a fruit?", choices=["iron", "pear", "coal"], target="B")]
    task = inspect_ai.Task(dataset=MemoryDataset(data), solver=multiple_choice(), scorer=choice())
    log = run(task, tmp_path, model=model(convened("ANSWER: B", "ANSWER: B", "ANSWER: C")))
    assert log.samples[0].scores["choice"].value == "C"


def test_the_solver_votes_on_the_texts_of_choices(tmp_path: Path) -> None:
    data = [Sample(id="a", input="Which is a fruit?", choices=["iron", "pear", "coal"], target="B")]
    council = convened("ANSWER: pear", "It is the second.\nANSWER: B", "ANSWER: coal")
    task = inspect_ai.Task(dataset=MemoryDataset(data), solver=bridge.council(own=council), scorer=choice())
    log = run(task, tmp_path, model="mockllm/model")
    assert log.samples[0].scores["choice"].value == "C"
    assert log.samples[0].output.completion == "ANSWER: B"
    assert log.samples[0].output.metadata["tally"]["share"] == pytest.approx(2 / 3)


def test_tools_are_refused() -> None:
    import anyio

    api = model(convened("a")).api
    with pytest.raises(InvalidOption, match="calls no tools"):
        anyio.run(api.generate, [ChatMessageUser(content="x")], ["tool"], "auto", None)


def test_logs_give_paired_verdicts(tmp_path: Path) -> None:
    data = [
        Sample(id=str(number), input=f"Say {'yes' if number % 5 else 'no'}.", target="yes" if number % 5 else "no")
        for number in range(60)
    ]

    def logged(folder: str, *answers: str) -> bridge.LoggedScores:
        task = inspect_ai.Task(dataset=MemoryDataset(data), solver=generate(), scorer=includes())
        log = run(task, tmp_path / folder, model=model(convened(*answers)))
        return bridge.read_log(log.location, name=folder)

    council, single = (
        logged("council", "ANSWER: yes", "ANSWER: yes", "ANSWER: no"),
        logged("single", *["ANSWER: no"] * 2),
    )
    assert (sum(council.scores.values()), sum(single.scores.values())) == (48, 12)
    found = bridge.paired_verdicts([council], [single])["council"]
    assert found.kind == "pays"
    assert found.comparisons[0].difference.estimate == pytest.approx(36 / 60)
    turned = bridge.paired_verdicts([single], [council])["single"]
    assert turned.kind == "does not pay"
    with pytest.raises(InvalidOption, match="name one of includes, got 'include'; did you mean 'includes'"):
        bridge.read_log(next(str(path) for path in (tmp_path / "council").iterdir()), scorer="include")


def test_our_task_set_is_read_as_it_is_exported(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(f"{line}\n" for line in inspect_lines(example_tasks())))
    samples = json_dataset(str(path))
    assert len(samples) == len(example_tasks().tasks)
    assert json.loads(path.read_text().splitlines()[0])["id"] == samples[0].id


def test_logs_become_a_journal_that_is_replayed(tmp_path: Path) -> None:
    data = [
        Sample(id=str(number), input=f"Say {'yes' if number % 3 else 'no'}.", target="yes" if number % 3 else "no")
        for number in range(30)
    ]

    def logged(folder: str, *answers: str, epochs: int = 1) -> str:
        task = inspect_ai.Task(dataset=MemoryDataset(data), solver=generate(), scorer=includes())
        location: str = run(task, tmp_path / folder, model=model(convened(*answers)), epochs=epochs).location
        return location

    yes, no = logged("a", *["ANSWER: yes"] * 2, epochs=2), logged("b", *["ANSWER: no"] * 2, epochs=2)
    other = logged("c", *["ANSWER: yes"] * 2, epochs=2)
    council = logged("d", "ANSWER: yes", "ANSWER: yes", "ANSWER: no")
    report = bridge.import_logs({"yes": yes, "no": no, "other": other}, tmp_path / "run", councils={"council": council})
    assert report.items == 30
    assert report.row("single:yes").accuracy.estimate == pytest.approx(2 / 3)
    assert report.row("single:no").accuracy.estimate == pytest.approx(1 / 3)
    assert report.row("poll").accuracy.estimate == pytest.approx(2 / 3)
    assert report.row("council").accuracy.estimate == pytest.approx(2 / 3)
    assert report.headroom.ceiling.estimate == 1
    assert replay(tmp_path / "run").to_dict() == report.to_dict()
    with pytest.raises(InvalidOption, match="another folder"):
        bridge.import_logs({"yes": yes}, tmp_path / "run")
