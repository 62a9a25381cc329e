"""Weights of seats in a poll: from measured accuracy alone, and refused where it does not hold."""

from __future__ import annotations

from math import log
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import Council, CouncilConfig
from llm_council.errors import InvalidOption
from llm_council.models import AnswerKind, SeatSpec
from llm_council.strategies import Poll
from llm_council.strategies._plurality import Plurality
from llm_council.strategies.seat_accuracy import (
    KindAccuracy,
    SeatAccuracy,
    as_accuracies,
    as_toml,
    log_odds_weight,
    read_accuracies,
    weights_of,
)
from llm_council.testing.fakes import ScriptedProvider

BOOL = {"type": "boolean"}


NAMES = ("ann", "bob", "cid")


def measured(name: str, accuracy: float, tasks: int = 100, *, kind: str = "bool", **more: Any) -> dict[str, Any]:
    return {"provider": name, "kinds": {kind: {"accuracy": accuracy, "tasks": tasks}}, **more}


TABLE = {"ann": measured("ann", 0.9), "bob": measured("bob", 0.6), "cid": measured("cid", 0.6)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.toml"
    path.write_text(as_toml(as_accuracies(TABLE), title="Measured on a set, 100 tasks."))
    return path


def council(*texts: str, config: CouncilConfig | None = None, store: Path | None = None) -> Council:
    said = texts or ("ANSWER: no",) * 3
    seats = [ScriptedProvider(text, name=name) for name, text in zip(NAMES, said, strict=True)]
    return Council(seats, config=config or CouncilConfig(), store=store)


def test_a_file_gives_log_odds_and_the_plan_names_the_only_voter(file: Path) -> None:
    plan = council().plan("Is it so?", schema=BOOL, strategy=Poll(weights=file))
    assert plan.notes[-2:] == (
        "weights: ann 2.2, bob 0.405, cid 0.405",
        "these weights make ann the only voter",
    )
    # The plan holds what was read: a run is resumed by it, whatever becomes of the file.
    assert plan.strategy_options == {"weights": read_accuracies(file)}
    file.unlink()
    again = council().plan("Is it so?", schema=BOOL, strategy=Poll(**plan.strategy_options))
    assert again.notes == plan.notes


def test_the_accurate_seat_outvotes_the_others_and_the_run_is_replayed_without_the_file(
    tmp_path: Path, file: Path
) -> None:
    made = council("ANSWER: yes", "ANSWER: no", "ANSWER: no", store=tmp_path / "runs.sqlite")
    assert made.run("Is it so?", schema=BOOL, strategy="poll").output is False
    result = made.run("Is it so?", schema=BOOL, strategy=Poll(weights=file))
    assert result.output is True
    assert result.tally is not None
    assert result.tally.points["true"] == pytest.approx(log(9), abs=1e-3)
    file.unlink()
    assert made.replay(result.run_id).to_dict() == result.to_dict()


def test_a_configuration_may_name_the_file(tmp_path: Path, file: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"[strategies.weighed]\nkind = 'poll'\nweights = '{file}'\n")
    made = council(config=CouncilConfig.from_file(config))
    assert "these weights make ann the only voter" in made.plan("?", schema=BOOL, strategy="weighed").notes


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"bob": measured("bob", 0.6, 49)}, "bob was measured on 49 tasks, and weights need 50"),
        ({"bob": measured("bob", 0.6, model="m-1")}, "bob was measured as bob/m-1, and is bob now: measure it again"),
        ({"bob": measured("bob", 0.6, kind="number")}, "of the kind number, and this vote is on bool"),
        ({"bob": None}, "the accuracy of 'bob' was not measured"),
        ({name: measured(name, 0.5) for name in NAMES}, "no seat is better than chance"),
        ({"bob": 2.0}, "each a number of 0 or more, and one above 0; or the measured accuracy of each"),
    ],
)
def test_what_does_not_hold_is_refused_before_anything_is_sent(changed: dict[str, Any], words: str) -> None:
    table = {name: row for name, row in {**TABLE, **changed}.items() if row is not None}
    with pytest.raises(InvalidOption) as caught:
        council().plan("?", schema=BOOL, strategy=Poll(weights=table))
    assert words in caught.value.message


def test_a_seat_of_another_name_takes_the_accuracy_of_its_model() -> None:
    rows = as_accuracies({"old": measured("openai", 0.8, model="m")})
    assert weights_of(rows, [SeatSpec(name="new", provider="openai", model="m")], AnswerKind.BOOL) == {
        "new": pytest.approx(log(4))
    }


def test_the_number_of_options_is_that_of_the_vote() -> None:
    row = {"accuracy": 0.6, "tasks": 80, "options": 9.5}
    rows = as_accuracies({"ann": {"provider": "p", "kinds": {"choice": row, "number": row}}})
    seats = [SeatSpec(name="ann", provider="p")]
    assert weights_of(rows, seats, AnswerKind.CHOICE, 4)["ann"] == pytest.approx(log(3 * 0.6 / 0.4))
    assert weights_of(rows, seats, AnswerKind.NUMBER)["ann"] == pytest.approx(log(8.5 * 0.6 / 0.4))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no table [seats.NAME]"),
        ("seats = 3", "has no table [seats.NAME]"),
        ("[seats.ann", "is no TOML"),
        ("[seats.ann]\nprovider = 'p'", "seats.ann: "),
        ("[seats.ann]\nprovider = 'p'\n[seats.ann.kinds.vibes]\naccuracy = 0.5\ntasks = 60", "choice, number, bool"),
        ("[seats.ann]\nprovider = 'p'\n[seats.ann.kinds.bool]\naccuracy = 50\ntasks = 60", "a share from 0 to 1"),
        (
            "[seats.ann]\nprovider = 'p'\n[seats.ann.kinds.bool]\naccuracy = 0.5\ntasks = 60\nconfidence = 1",
            "confidence",
        ),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "weights.toml"
    path.write_text(text)
    with pytest.raises(InvalidOption) as caught:
        Poll(weights=path)
    assert str(path) in caught.value.message
    assert words in caught.value.message
    with pytest.raises(InvalidOption, match="cannot read the weights"):
        Poll(weights=tmp_path / "none.toml")


names = st.text(min_size=1, max_size=8)
rows = st.builds(
    SeatAccuracy,
    provider=names,
    model=st.none() | names,
    kinds=st.dictionaries(
        st.sampled_from([str(kind) for kind in AnswerKind]),
        st.builds(KindAccuracy, accuracy=st.floats(0, 1), tasks=st.integers(1, 10**6), options=st.floats(2, 100)),
        min_size=1,
        max_size=3,
    ),
)


@examples(60)
@given(st.dictionaries(names, rows, min_size=1, max_size=3))
def test_what_is_written_is_read_back(tmp_path_factory: Any, seats: dict[str, SeatAccuracy]) -> None:
    path = tmp_path_factory.mktemp("weights") / "w.toml"
    path.write_text(as_toml(seats), encoding="utf-8")
    found = as_accuracies(read_accuracies(path))
    assert list(found) == list(seats)
    for name, row in seats.items():
        assert (found[name].provider, found[name].model) == (row.provider, row.model)
        for kind, one in row.kinds.items():
            assert found[name].kinds[kind].accuracy == pytest.approx(one.accuracy, abs=5e-5)
            assert found[name].kinds[kind].tasks == one.tasks


@examples(60)
@given(st.floats(0.001, 0.999), st.floats(2, 50))
def test_a_weight_is_0_below_chance_and_grows_with_accuracy(accuracy: float, options: float) -> None:
    weight = log_odds_weight(accuracy, options)
    assert weight == 0 or accuracy > 1 / options - 1e-9
    assert log_odds_weight(min(0.9995, accuracy + 0.0004), options) >= weight


def test_of_level_answers_that_of_the_strongest_seat_wins() -> None:
    count = Plurality(("a", "b", "c"), {"a": 2.0, "b": 1.0, "c": 1.0})
    for seat, key in (("a", "x"), ("b", "y"), ("c", "y")):
        count.cast(seat, key)
    tallies = [count.tally(Random(seed)) for seed in range(20)]
    assert {(tally.winner, tally.tied, tally.broken_by) for tally in tallies} == {("x", ("x", "y"), "weights")}
