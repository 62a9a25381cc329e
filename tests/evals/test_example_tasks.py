"""The task set that ships with the package: what its program writes, of all kinds, with right answers."""

from __future__ import annotations

import re
from collections import Counter
from datetime import date, timedelta
from importlib.resources import files
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest

from llm_council.evals import EvalTask, ScorerKind, TaskSet, example_tasks, read_tasks, score
from tools import make_task_set


@pytest.fixture(scope="module")
def tasks() -> TaskSet:
    return example_tasks()


def topic(tasks: TaskSet, name: str) -> list[EvalTask]:
    return [task for task in tasks.tasks if task.metadata["topic"] == name]


def test_the_file_is_what_the_program_writes() -> None:
    assert make_task_set.TARGET.read_text(encoding="utf-8") == make_task_set.make()


def test_the_set_is_package_data_with_a_licence_and_a_hash(tasks: TaskSet) -> None:
    assert files("llm_council.evals").joinpath("sets/reasoning.jsonl").is_file()
    assert tasks.licence == "MIT"
    assert tasks.source is not None
    first, _, body = make_task_set.make().partition("\n")
    assert tasks.sha256 in first
    assert len(body.splitlines()) == len(tasks.tasks)


def test_a_change_of_the_set_is_noticed(tmp_path: Path) -> None:
    changed = tmp_path / "reasoning.jsonl"
    changed.write_text(make_task_set.make().replace('"target": true', '"target": false', 1))
    with pytest.raises(Exception, match="take the original, or remove it"):
        read_tasks(changed)


def test_the_set_has_all_kinds_in_clusters(tasks: TaskSet) -> None:
    assert len(tasks.tasks) >= 320
    assert tasks.clusters == 88
    assert set(Counter(task.cluster for task in tasks.tasks).values()) == {4}
    kinds = Counter(task.scorer.kind for task in tasks.tasks)
    assert kinds == {"number": 128, "choice": 96, "bool": 64, "fields": 64}
    levels = Counter(task.metadata["level"] for task in tasks.tasks)
    assert set(levels) == set(range(1, 9))


def test_neither_yes_nor_one_place_of_a_choice_is_a_good_guess(tasks: TaskSet) -> None:
    yes = Counter(task.target for task in tasks.tasks if task.scorer.kind == ScorerKind.BOOL)
    assert 0.35 < yes[True] / (yes[True] + yes[False]) < 0.65
    places = Counter(task.choices.index(task.target) for task in tasks.tasks if task.scorer.kind == ScorerKind.CHOICE)
    assert max(places.values()) < 0.35 * sum(places.values())


def test_the_right_answer_is_scored_as_right_and_another_one_as_wrong(tasks: TaskSet) -> None:
    for task in tasks.tasks:
        right: Any = task.target
        wrong: Any = {**task.target, next(iter(task.target)): "?"} if isinstance(right, dict) else 10**7
        if task.scorer.kind == ScorerKind.CHOICE:
            wrong = next(option for option in task.choices if option != right)
            assert score(task, f"So it is.\n**ANSWER:** {right}").value == 1
        if task.scorer.kind == ScorerKind.BOOL:
            wrong = not right
        assert score(task, right).value == 1, task.id
        assert score(task, wrong).value in (0, 0.75, None), task.id


# Answers that are computed again, from the text that models see


def test_programs_give_the_answers_that_their_text_gives(tasks: TaskSet) -> None:
    for task in topic(tasks, "trace"):
        assert isinstance(task.input, str)
        start, _, _, rounds, modulus, step, small = map(
            int, re.findall(r"(?<!\w)\d+", task.input.replace("x / 2", ""))[:7]
        )
        x, y, halved, values = start, 0, 0, [start]
        for i in range(1, rounds + 1):
            if (x + i) % modulus:
                x += step * i
            else:
                x, halved = x // 2, halved + 1
            y += x % small
            values.append(x)
        expected = {"What is x": x, "What is y": y, "How many": halved, "What is the largest": max(values)}
        question = task.input.splitlines()[-1]
        assert task.target == next(value for words, value in expected.items() if question.startswith(words)), task.id


def test_orders_give_the_answers_that_their_text_gives(tasks: TaskSet) -> None:
    for task in topic(tasks, "orders"):
        assert isinstance(task.input, str)
        prices = {good: int(price) for good, price in re.findall(r"(\w+) at (\d+) euros", task.input)}
        discount = int(re.findall(r"(\d+) % off", task.input)[0])
        customer, good = re.findall(r"this is (\w+)\. I would like \d+ (\w+),", task.input)[0]
        amount = int(re.findall(r"make it (\d+)", task.input)[0])
        day, month, year = re.findall(r"Letter of (\d+) (\w+) (\d+)", task.input)[0]
        sent = date(int(year), make_task_set.MONTHS.index(month) + 1, int(day))
        due = sent + timedelta(days=int(re.findall(r"(\d+) days from", task.input)[0]))
        total = prices[good] * amount * (100 - discount * (amount >= 10)) / 100 + 7
        assert task.target == {
            "customer": customer,
            "product": good,
            "quantity": amount,
            "total": pytest.approx(total),
            "deliver_by": due.isoformat(),
        }


def test_logs_give_the_answers_that_their_text_gives(tasks: TaskSet) -> None:
    for task in topic(tasks, "outages"):
        assert isinstance(task.input, str)
        host = re.findall(r"about (\w+):", task.input)[0]
        lines = re.findall(rf"(\d\d):(\d\d) {host} (down|up)", task.input)
        times = [60 * int(hour) + int(minute) for hour, minute, _ in lines]
        assert [what for _, _, what in lines] == ["down", "up"] * (len(lines) // 2)
        lengths = [end - begin for begin, end in zip(times[::2], times[1::2], strict=True)]
        first = f"{lines[0][0]}:{lines[0][1]}"
        assert task.target == {"outages": len(lengths), "first": first, "longest": max(lengths), "total": sum(lengths)}


_SEAT_CLUES = {
    r"(\w+) sits right next to (\w+)": lambda row, a, b: abs(row.index(a) - row.index(b)) == 1,
    r"(\w+) sits somewhere to the left of (\w+)": lambda row, a, b: row.index(a) < row.index(b),
    r"(\w+) sits at one end": lambda row, a: row.index(a) in (0, len(row) - 1),
    r"Exactly one person sits between (\w+) and (\w+)": lambda row, a, b: abs(row.index(a) - row.index(b)) == 2,
    r"(\w+) does not sit next to (\w+)": lambda row, a, b: abs(row.index(a) - row.index(b)) > 1,
    r"(\w+) sits somewhere between (\w+) and (\w+)": lambda row, a, b, c: (
        min(row.index(b), row.index(c)) < row.index(a) < max(row.index(b), row.index(c))
    ),
}


def test_seating_puzzles_have_one_solution(tasks: TaskSet) -> None:
    for task in topic(tasks, "seats"):
        assert isinstance(task.input, str)
        text, question = task.input.split("\n\n")
        clues = [one for one in text.split(". ")[1:] if one]
        tests = []
        for clue in clues:
            fitting = [(test, found) for words, test in _SEAT_CLUES.items() if (found := re.match(words, clue))]
            assert len(fitting) == 1, clue
            tests.append((fitting[0][0], fitting[0][1].groups()))
        rows = [row for row in permutations(task.choices) if all(test(row, *names) for test, names in tests)]
        assert len(rows) == 1, task.id
        seat = int(re.findall(r"seat (\d)", question)[0])
        assert rows[0][seat - 1] == task.target


def _holds(words: str, world: dict[str, bool]) -> bool:
    names = [word for word in re.findall(r"\w+", words) if word in world]
    if "same kind" in words:
        return world[names[0]] == world[names[1]]
    if "Exactly" in words:
        return sum(world.values()) == ("one", "two", "three").index(words.split()[1]) + 1
    if "or both" in words:
        return world[names[0]] or not world[names[1]]
    if words.startswith("If"):
        return not world[names[0]] or world[names[1]]
    return not world[names[0]]


def test_islands_have_one_solution(tasks: TaskSet) -> None:
    for task in topic(tasks, "knights"):
        assert isinstance(task.input, str)
        said = re.findall(r'(\w+) says: "([^"]+)"', task.input)
        people = sorted({speaker for speaker, _ in said})
        worlds = [dict(zip(people, kinds, strict=True)) for kinds in product((True, False), repeat=len(people))]
        found = [world for world in worlds if all(world[who] == _holds(words, world) for who, words in said)]
        assert len(found) == 1
        assert found[0][re.findall(r"Is (\w+) a knight", task.input)[0]] is task.target
