"""Verdicts, what a set can resolve, and the two tests that matter: no false "pays", and the promised power."""

from __future__ import annotations

from math import ceil
from random import Random
from statistics import fmean

import pytest
from eval_worlds import WORLDS, World, clustered, independent, probit

from llm_council.errors import InvalidOption
from llm_council.evals import statistics as stats
from llm_council.evals import verdicts as v

# The plan


def test_the_formula_gives_the_published_numbers_of_tasks() -> None:
    assert [v.items_needed(d, 0.2) for d in (0.1, 0.05, 0.03)] == [155, 626, 1742]
    assert v.items_needed(0.1, 0.2, baselines=2) == 194
    # Connor 1987, as Machin et al. 2018, "Sample sizes for clinical, laboratory and epidemiology studies", give it.
    assert v.items_needed(0.1, 0.18) == pytest.approx(138, abs=1)


def test_the_power_at_the_needed_number_of_tasks_is_the_one_that_was_asked_for() -> None:
    for difference, discordance in [(0.1, 0.2), (0.08, 0.3), (0.15, 0.25)]:
        for strategies in (1, 6):
            items = v.items_needed(difference, discordance, strategies=strategies)
            assert v.detection_power(items, difference, discordance, strategies=strategies) == pytest.approx(
                0.8, abs=0.01
            )
            items = v.items_needed(difference, discordance, strategies=strategies, baselines=2)
            both = v.detection_power(items, difference, discordance, strategies=strategies, baselines=2)
            assert both == pytest.approx(0.815, abs=0.02)


def test_what_a_set_can_resolve_is_the_inverse_of_what_a_gain_needs() -> None:
    for items in (50, 155, 626):
        found = v.resolvable_difference(items, 0.2)
        assert found is not None
        assert v.items_needed(found, 0.2) <= items < v.items_needed(found - 0.001, 0.2)
    assert v.resolvable_difference(155, 0.2) == pytest.approx(0.1, abs=0.001)
    assert v.resolvable_difference(10, 0.2) is None


def test_a_margin_bounds_the_power_of_large_sets() -> None:
    # With a true gain of exactly the margin, half of the estimates are below it, however large the set is.
    assert v.detection_power(100_000, 0.05, 0.2) == pytest.approx(0.5, abs=0.001)


def test_clustered_tasks_are_worth_fewer() -> None:
    assert v.effective_items([5] * 20, 0.4) == pytest.approx(100 / 2.6)
    assert v.effective_items([1] * 20, 0.4) == 20
    assert v.effective_items([10, 1, 1], 1.0) < 3


@pytest.mark.parametrize(("difference", "discordance"), [(0.0, 0.2), (0.3, 0.2), (0.1, 1.5)])
def test_impossible_plans_are_refused(difference: float, discordance: float) -> None:
    with pytest.raises(InvalidOption, match="needs a discordance"):
        v.items_needed(difference, discordance)


# Verdicts


def against(both: int, first: int, second: int, neither: int) -> v.Comparison:
    """Compare an arm with a baseline by the counts of tasks that both, one or none of them solve."""
    arm = [1.0] * (both + first) + [0.0] * (second + neither)
    baseline = [1.0] * both + [0.0] * first + [1.0] * second + [0.0] * neither
    return v.compare("single", arm, baseline)


def verdict(*comparisons: v.Comparison, margin: float = 0.05) -> v.Verdict:
    return v.verdicts({"poll": comparisons}, margin=margin)["poll"]


def test_an_arm_that_beats_both_baselines_pays() -> None:
    found = verdict(against(120, 40, 8, 32), against(125, 35, 8, 32))
    assert found.kind == "pays"
    assert found.more_items is None
    assert found.reason == "it gains 13.5 points against single"


def test_an_arm_that_beats_one_baseline_alone_does_not_pay_or_cannot_tell() -> None:
    assert verdict(against(120, 40, 8, 32), against(155, 5, 5, 35)).kind == "does not pay"
    assert verdict(against(120, 40, 8, 32), against(140, 20, 10, 30)).kind == "cannot tell yet"


def test_a_sure_gain_below_the_margin_is_no_reason_to_pay() -> None:
    one = against(1900, 60, 10, 30)
    assert one.difference.low is not None
    assert one.difference.low > 0
    assert verdict(one).kind == "does not pay"
    assert verdict(one, margin=0.02).kind == "pays"


def test_a_verdict_that_is_open_says_how_many_more_tasks_it_takes() -> None:
    one = against(60, 15, 8, 17)
    found = verdict(one)
    assert found.kind == "cannot tell yet"
    assert found.more_items == v.items_needed(0.07, 0.23) - 100
    assert found.reason == f"about {found.more_items:,} more tasks would probably tell"
    again = verdict(one, one)
    assert again.more_items is not None
    assert again.more_items > found.more_items


def test_arms_that_never_differ_are_open_at_first_and_then_do_not_pay() -> None:
    few = verdict(against(20, 0, 0, 5))
    assert few.kind == "cannot tell yet"
    assert few.more_items is not None
    assert few.more_items >= 1
    assert verdict(against(140, 0, 0, 60)).kind == "does not pay"


@pytest.mark.parametrize("noise", [2.3e-16, -1.2e-16])
def test_rounding_of_means_over_samples_is_no_difference(noise: float) -> None:
    arm = [1.0] * 23 + [0.0]
    seat = [1.0 + noise * (task % 3 > 0) for task in range(23)] + [0.0]
    assert v.compare("sample", arm, seat) == v.compare("sample", arm, arm)
    found = v.verdicts({"poll": [v.compare("single", seat, arm)]})["poll"]
    assert found.kind == v.VerdictKind.CANNOT_TELL
    assert found.comparisons[0].p_value == 1.0
    assert stats.mean_interval(seat) == stats.mean_interval(arm)


def test_gains_and_losses_that_cancel_but_for_rounding_do_not_beat_a_baseline() -> None:
    interval = stats.Interval(estimate=0.1, low=9e-17, high=0.2, method="")
    barely = v.Comparison(baseline="b", difference=interval, p_value=0.01, discordance=0.2, items=100, clusters=100)
    assert v.verdicts({"poll": [barely]})["poll"].kind == v.VerdictKind.CANNOT_TELL


def test_too_few_clusters_leave_the_verdict_open() -> None:
    names = [str(index // 10) for index in range(100)]
    found = v.verdicts({"poll": [v.compare("single", [1.0] * 100, [0.0] * 100, names)]})["poll"]
    assert found.kind == "cannot tell yet"
    assert found.more_items == 100
    assert found.reason == "no interval: 10 clusters are fewer than 20"


def test_a_declared_strategy_is_not_adjusted_for_the_others() -> None:
    strong = against(60, 21, 8, 11)
    assert 0.01 < strong.p_value < 0.05
    arms = {name: [strong] for name in ("poll", "rank", "judge", "revise", "verify", "escalate")}
    assert {one.kind for one in v.verdicts(arms).values()} == {"cannot tell yet"}
    declared = v.verdicts(arms, primary="rank")
    assert [name for name, one in declared.items() if one.kind == "pays"] == ["rank"]
    assert declared["rank"].p_value == strong.p_value


def test_an_arm_without_a_baseline_is_refused() -> None:
    with pytest.raises(InvalidOption, match="no baseline"):
        v.verdicts({"poll": []})


# The best seat


@pytest.mark.parametrize("items", [50, 100, 300])
def test_cross_fitting_takes_the_flattery_out_of_the_best_seat(items: int) -> None:
    chance, rounds = Random(items), 150
    flattered, honest = [], []
    for seed in range(rounds):
        solved = probit(0.6)(chance, items, [0.7] * 4)
        seats = {str(number): values for number, values in enumerate(solved)}
        flattered.append(max(fmean(values) for values in solved) - 0.7)
        honest.append(fmean(v.cross_fit(seats, seed=seed).scores) - 0.7)
    error = (0.7 * 0.3 / items / rounds) ** 0.5
    assert fmean(flattered) > 4 * error
    assert abs(fmean(honest)) < 3 * error


def test_the_flattery_of_independent_seats_is_that_of_the_maximum_of_normals() -> None:
    chance, rounds = Random(4), 600
    best = [max(fmean(values) for values in independent(chance, 100, [0.7] * 4)) - 0.7 for _ in range(rounds)]
    sigma = (0.7 * 0.3 / 100) ** 0.5
    assert fmean(best) == pytest.approx(1.03 * sigma, abs=0.15 * sigma)


def test_a_seat_that_is_clearly_better_is_chosen_everywhere() -> None:
    found = v.cross_fit({"a": [0.0, 1.0] * 20, "b": [1.0] * 40})
    assert found.names == {"b": 40}
    assert found.scores == (1.0,) * 40


def test_a_cluster_stays_in_one_fold_and_equal_seats_go_to_the_first() -> None:
    names = [str(index // 4) for index in range(40)]
    chance = Random(6)
    seats = {seat: [float(chance.random() < 0.5) for _ in range(40)] for seat in "abc"}
    chosen = v.cross_fit(seats, names).chosen
    assert all(len(set(chosen[start : start + 4])) == 1 for start in range(0, 40, 4))
    assert set(v.cross_fit({"a": [1.0] * 9, "b": [1.0] * 9}).chosen) == {"a"}
    assert v.cross_fit({"a": [0.0], "b": [1.0]}).chosen == ("a",)  # nothing else to learn from
    assert len(v.cross_fit(seats, ["x"] * 40).chosen) == 40


# The two tests that matter

ARMS = ("poll", "rank", "judge", "revise", "verify", "escalate")


def evaluate(
    world: World, chance: Random, items: int, gain: float, *, size: int, draws: int, primary: str | None
) -> dict[str, v.Verdict]:
    """Run an evaluation of six arms with three equal seats; the first arm has a true gain over both baselines."""
    names = [str(index // size) for index in range(items)] if size > 1 else None
    accuracies = [0.75] * 4 + [0.75 + gain] + [0.75] * (len(ARMS) - 1)
    seats_and_sample, arms = (drawn := world(chance, items, accuracies))[:4], drawn[4:]
    seats = {str(number): values for number, values in enumerate(seats_and_sample[:3])}
    best, sample = v.cross_fit(seats, names, seed=chance.randrange(10**9)).scores, seats_and_sample[3]
    comparisons = {
        arm: [
            v.compare("single", scores, best, names, draws=draws),
            v.compare("sample", scores, sample, names, draws=draws),
        ]
        for arm, scores in zip(ARMS, arms, strict=True)
        if primary in (None, arm)
    }
    return v.verdicts(comparisons, primary=primary)


def share_of_false_findings(world: World, items: int, rounds: int, *, size: int = 1, draws: int = 200) -> float:
    chance = Random(items * size)
    found = [evaluate(world, chance, items, 0.0, size=size, draws=draws, primary=None) for _ in range(rounds)]
    return fmean([any(one.kind == "pays" for one in arms.values()) for arms in found])


def promised_and_found(
    world: World, rounds: int, *, primary: str | None, size: int = 1, draws: int = 200
) -> tuple[float, float]:
    """Return the power that the plan promises for a gain of ten points, and the one that evaluations have."""
    gain, strategies = 0.1, 1 if primary else len(ARMS)
    chance = Random(size * 7 + strategies)
    # What a plan is told: how often the arms differ, and how much the clusters cost.
    first, second = world(chance, 20_000, [0.75, 0.85])
    differences = [one - other for one, other in zip(second, first, strict=True)]
    discordance = fmean(one * one for one in differences)
    effect = stats.design_effect(differences, [str(index // size) for index in range(20_000)]) if size > 1 else 1.0
    items = ceil(v.items_needed(gain, discordance, baselines=2, strategies=strategies) * effect / size) * size
    promised = v.detection_power(items / effect, gain, discordance, baselines=2, strategies=strategies)
    found = [evaluate(world, chance, items, gain, size=size, draws=draws, primary=primary) for _ in range(rounds)]
    return promised, fmean([arms["poll"].kind == "pays" for arms in found])


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_without_a_gain_nothing_pays(name: str) -> None:
    assert share_of_false_findings(WORLDS[name], 100, 30) <= 0.05


@pytest.mark.parametrize("name", WORLDS)
def test_a_gain_of_ten_points_is_found_as_often_as_the_plan_promised(name: str) -> None:
    rounds = 30
    promised, found = promised_and_found(WORLDS[name], rounds, primary="poll")
    assert promised >= 0.8
    assert found >= promised - 3 * (promised * (1 - promised) / rounds) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("items", [50, 100, 300])
@pytest.mark.parametrize("name", WORLDS)
def test_without_a_gain_nothing_pays_in_full(name: str, items: int) -> None:
    assert share_of_false_findings(WORLDS[name], items, 300) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["independent", "probit", "mixture"])
def test_without_a_gain_nothing_pays_with_clusters(name: str) -> None:
    assert share_of_false_findings(clustered(WORLDS[name]), 100, 100, size=5) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("primary", ["poll", None])
@pytest.mark.parametrize("name", WORLDS)
def test_a_gain_of_ten_points_is_found_as_often_as_the_plan_promised_in_full(name: str, primary: str | None) -> None:
    rounds = 300
    promised, found = promised_and_found(WORLDS[name], rounds, primary=primary)
    assert found >= promised - 3 * (promised * (1 - promised) / rounds) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["independent", "probit"])
def test_a_gain_of_ten_points_is_found_with_clusters(name: str) -> None:
    rounds = 100
    promised, found = promised_and_found(clustered(WORLDS[name]), rounds, primary="poll", size=5)
    assert found >= promised - 3 * (promised * (1 - promised) / rounds) ** 0.5
