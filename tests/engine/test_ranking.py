"""Rankings are read tolerantly and counted exactly."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._engine.ranking import BordaCount, tally, tie_order
from llm_council._engine.ranking import read_ranking as read_by_plan
from llm_council.models import Plan

SEATS = ("ann", "bob", "cid", "dot")


TODAY = Plan(run_id="1", task="A task", subagent="tester", rules=1)
STORED = Plan(run_id="1", task="A task", subagent="tester")  # by 0.1.0


def read_ranking(text: str, labels: Iterable[str]) -> tuple[str, ...]:
    return read_by_plan(TODAY, text, set(labels))


def by_seed(seats: Iterable[str], seed: str) -> list[str]:
    """Return the order in which ties are broken in a run with this seed."""
    return tie_order(Plan(run_id="1", task="A task", subagent="tester", seed=seed, ties_by_seed=True), seats)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("Both err.\nRANKING: B > A > C", "BAC"),
        ("ranking - C, A, B", "CAB"),
        ("**RANKING:** Draft B > Draft A", "BA"),
        ("> Ranking: `A` > `C`", "AC"),
        ("RANKING:\nC > B > A\n", "CBA"),
        ('{"ranking": ["C", "A"], "why": "..."}', "CA"),
        ('```json\n{"ranking": ["Draft B", "Draft C"]}\n```', "BC"),
        ("RANKING: A > B\nNo, wait: A is wrong.\nFinal ranking: B > A", "BA"),
        ("RANKING: B > B > A", "BA"),
        ("RANKING: Z > B", "B"),
        ("RANKING: none of them\nI like A.", ""),
        ("A is a better draft than B.", ""),
        ("My ranking would change nothing", ""),
        ('{"ranking": [', ""),
        ('{"ranking": ["C", "A"]}, and not "ranking": [oops]', "CA"),
        ("**RANKING:**\n\nB > A\nC was close.\nIt is long, though.", "BA"),
        ("", ""),
    ],
)
def test_a_ranking_is_read_from_text(text: str, order: str) -> None:
    assert read_ranking(text, {"A", "B", "C"}) == tuple(order)


# Other forms that models write, and sentences that are no ranking.
FORMS = [
    ("Checked.\n\nFINAL RANKING:\n1. Draft C\n2. Draft A\n3. Draft B", "CAB"),
    ("RANKING:\n1) **B** - clear\n2) A: fine\n3) C (wrong)\n\nThat is all. A was fine.", "BAC"),
    ("Checked.\n\n**RANKING:**\n\n- **Draft B**\n- **Draft A**", "BA"),
    ("RANKING:\nB\nA\nC", "BAC"),
    ("RANKING:\n| rank | draft |\n|---|---|\n| 1 | B |\n| 2 | A |", "BA"),
    ("RANKING:\n| draft | rank | why |\n|---|---|---|\n| A | 2 | ok |\n| B | 1 | good |", "BA"),
    ("Checked.\n\n## Ranking\n\nC > B > A", "CBA"),
    ("Checked.\n\n`RANKING: C > B > A`", "CBA"),
    ("Ranking (best to worst): C > B", "CB"),
    ("Ranking (worst to best): C > B", "BC"),
    ("Ranking (worst to best): C, B, A", "ABC"),
    ("RANKING: C < B", "BC"),
    ("My ranking: C > B > A", "CBA"),
    ("Checked.\n\nThe final ranking is: C > B > A", "CBA"),
    ("The final ranking is C > B > A.", "CBA"),
    ("ranking: c > b > a", "CBA"),
    ('{"ranking": {"A": 2, "B": 1, "C": 3}}', "BAC"),
    ('{"ranking": {"A": 8, "B": 9, "C": 3}}', ""),
    ('{"ranking": {"1": "B", "2": "Draft A"}}', "BA"),
    ('{"ranking": {"first": "B", "second": "Draft A"}}', "BA"),
    ('{"ranking": [{"draft": "A", "rank": 2}, {"draft": "B", "rank": 1}]}', "BA"),
    ('{"ranking": [["B"], ["A", "C"]]}', "BAC"),
    ('{"final_ranking": "B > A > C"}', "BAC"),
    ("I would not give a ranking: A is fine.", ""),
    ("RANKING: I find A hard to read, so I give none.", ""),
    ("RANKING: All are fine; I would not put one before another.", ""),
    ("All are fine; I would not put one before another.", ""),
    ("RANGLISTE: keine", ""),
    ("Best to worst: B > A > C", "BAC"),
    ("I checked it.\nB > A > C", "BAC"),
    ("RANKING: B \u2192 A \u2192 C", "BAC"),
    ("RANKING: B &gt; A", "BA"),
    ("RANKING: B >> A", "BA"),
    ("RANKING: B -> A", "BA"),
    ("RANKING: I rank B > A > C", "BAC"),
    ("RANKING: B > A > C because C is wrong", "BAC"),
    ("RANKING: B > A = C", "BAC"),
    ("RANKING: Draft B, Draft A, Draft C", "BAC"),
    ("RANKING: B, A, and C", "BAC"),
    ("RANKING: B A C", "BAC"),
    ("RANKING: Draft B is best, then Draft A, then Draft C", "BAC"),
    ("RANKING:\n1st: B\n2nd: A\n3rd: C", "BAC"),
    ("RANKING:\nFirst: B\nSecond: A\nThird: C", "BAC"),
    ("RANKING:\n1. B is right throughout.\n2. C errs once.\n3. A errs twice.", "BC"),
    ("RANKING: [B, A, C]", "BAC"),
    ("RANKING: [B] > [A]", "BA"),
    ("RANKING: \\boxed{B > A > C}", "BAC"),
    ("RANKING: **B** > **A**", "BA"),
    ("RANKING: 'B' > 'A'", "BA"),
    ("RANKING: B (strong) > A (weak, see I.2) > C", "BAC"),
    ("### Final Ranking: Response B > Response A", "BA"),
    ("FINAL RANKING:\n\n1. Response B\n2. Response A", "BA"),
    ("Ranked from best to worst: B, A, C", "BAC"),
    ("Ranked best to worst:\n1. B\n2. A", "BA"),
    ("RANKING: 1. B 2. A 3. C", "BAC"),
    ("RANKING: 1) B, 2) A, 3) C", "BAC"),
    ("**Final ranking**\n1. B\n2. A", "BA"),
    ("RANKING: none. A and B are both wrong.", ""),
    ("RANKING: B only. A and C are wrong.", ""),
    ("RANKING:\n1. A\n2. B\n\nRANKING: A > B", "AB"),
    ("In my ranking, A comes first.", ""),
]


@pytest.mark.parametrize(("text", "order"), FORMS)
def test_a_ranking_is_read_in_any_usual_form(text: str, order: str) -> None:
    assert "".join(read_ranking(text, "ABC")) == order


@pytest.mark.parametrize("label", ["I", "A"])
def test_the_words_of_a_sentence_are_no_labels(label: str) -> None:
    for text in (
        f"RANKING: {label} cannot be put in an order",
        f"RANKING: none; {label} say no more",
        f"My ranking: {label} would rather not.",
        f"Ranking\n\n{label} find no order here.\n{label} gave up.",
    ):
        assert read_ranking(text, {"A", "I", "Q"}) == ()
    assert read_ranking("RANKING: I > Q > A", {"A", "I", "Q"}) == ("I", "Q", "A")


LABELS = st.lists(st.sampled_from(["A", "I", "Q", "Z", "AA", "AB"]), min_size=2, unique=True)
SPELLINGS = {
    "chain": lambda order: " > ".join(order),
    "arrows": lambda order: " \u2192 ".join(f"**Draft {label}**" for label in order),
    "commas": lambda order: ", ".join(f"Draft {label}" for label in order),
    "bullets": lambda order: "\n" + "\n".join(f"- Draft {label}: a remark, and another" for label in order),
    "numbers": lambda order: "\n\n" + "\n".join(f"{n}. **{label}** - it is so" for n, label in enumerate(order, 1)),
    "reversed numbers": lambda order: (
        "\n" + "\n".join(f"{n}) {label}" for n, label in reversed([*enumerate(order, 1)]))
    ),
    "table": lambda order: (
        "\n| draft | rank |\n|---|---|\n" + "\n".join(f"| {label} | {n} |" for n, label in enumerate(order, 1))
    ),
    "worst first": lambda order: " < ".join(reversed(order)),
}


@given(LABELS, st.sampled_from(sorted(SPELLINGS)), st.sampled_from(["RANKING:", "## Final ranking:", "My ranking is:"]))
def test_an_order_is_read_back_from_every_spelling(order: list[str], spelling: str, marker: str) -> None:
    text = f"A remark. I > you.\n\n{marker} {SPELLINGS[spelling](order)}\n\nThat is all I have."
    assert read_ranking(text, order) == tuple(order)


def test_a_stored_run_of_0_1_0_is_read_as_it_was() -> None:
    assert read_by_plan(STORED, "RANKING: I say B, then A", {"A", "B", "I"}) == ("I", "B", "A")
    assert read_by_plan(STORED, "RANKING:\n1. B\n2. A", {"A", "B"}) == ("B",)
    assert read_by_plan(STORED, "RANKING: **\n\n B > A\nC\nC", {"A", "B", "C"}) == ("B", "A")
    assert read_by_plan(STORED, "RANKING: X\nY", {"X", "Y"}) == ("X",)
    assert read_by_plan(STORED, '{"ranking": ["B", "A"]}', {"A", "B"}) == ("B", "A")
    assert read_by_plan(STORED, '{"ranking": ["B", "A"]} but "ranking": [best, worst]', {"A", "B"}) == ("B", "A")


def test_a_reviewer_owes_its_ranking_once() -> None:
    count = BordaCount(("bob", "ann"))
    count.expect("cid", ("ann", "bob"))
    count.expect("dan", ("ann", "bob"))
    count.cast("cid", ("ann", "bob"))
    count.cast("cid", ())
    assert count.decided() is None  # dan may still make it a tie, which bob would win


def test_a_label_may_be_any_letter() -> None:
    assert read_ranking("RANKING: X > Z", {"W", "X", "Z"}) == ("X", "Z")


def test_the_better_one_of_two_drafts_is_a_whole_ranking() -> None:
    assert read_ranking("RANKING: X", {"W", "X"}) == ("X", "W")
    assert read_ranking("RANKING: X", {"V", "W", "X"}) == ("X",)


@given(st.text(), st.sets(st.sampled_from("ABCDEFG")))
def test_reading_never_fails_and_names_only_labels(text: str, labels: set[str]) -> None:
    order = read_ranking(f"RANKING: {text}", labels)
    assert set(order) <= labels
    assert len(set(order)) == len(order)


def test_tally_counts_places() -> None:
    ranking = tally([("ann", "bob", "cid"), ("ann", "cid", "bob")], ("ann", "bob", "cid"))
    assert ranking.order[0] == "ann"
    assert ranking.points == {"ann": 1.0, "bob": 0.25, "cid": 0.25}


def test_tally_is_fair_to_a_seat_with_fewer_reviewers() -> None:
    # Nobody reviews its own draft: bob is in one ranking only, and won it.
    ranking = tally([("bob", "ann"), ("ann", "cid"), ("cid", "ann")], ("ann", "bob", "cid"))
    assert ranking.order[0] == "bob"


@given(st.lists(st.permutations(SEATS), max_size=3), st.permutations(SEATS), st.text())
def test_the_order_of_seats_does_not_matter(rankings: list[list[str]], seats: list[str], seed: str) -> None:
    assert tally(rankings, by_seed(seats, seed)) == tally(rankings, by_seed(SEATS, seed))


def test_two_tied_seats_keep_their_order_whichever_others_are_ranked() -> None:
    for seed in map(str, range(50)):
        everyone = by_seed(SEATS, seed)
        assert by_seed(("bob", "dot"), seed) == [seat for seat in everyone if seat in ("bob", "dot")]


@pytest.mark.parametrize(
    ("seed", "order"), [("a seed", "bob ann cid dot"), ("another", "cid ann dot bob"), ("third", "ann dot cid bob")]
)
def test_a_seed_breaks_ties_alike_in_every_release(seed: str, order: str) -> None:
    # Stored runs are replayed by later releases.
    assert by_seed(SEATS, seed) == order.split()


def test_a_plan_without_the_rule_keeps_the_order_of_its_seats() -> None:
    plan = Plan(run_id="1", task="A task", subagent="tester", seed="a seed")
    assert tie_order(plan, SEATS) == list(SEATS)


def unevenness(counts: Counter[tuple[str, ...]], outcomes: int) -> float:
    """Return chi-square of the counts against equal chances for this many outcomes."""
    expected = counts.total() / outcomes
    found = [*counts.values(), *[0] * (outcomes - len(counts))]
    return sum((count - expected) ** 2 / expected for count in found)


def test_each_order_of_tied_seats_is_equally_likely() -> None:
    trio = SEATS[:3]
    orders = Counter(tally([], by_seed(trio, f"seed {number}")).order for number in range(1200))
    assert set(orders) == set(permutations(trio))
    assert unevenness(orders, 6) < 20.5  # 5 degrees of freedom, p = 0.001


def test_random_rankings_favour_no_seat() -> None:
    trio, chance = SEATS[:3], Random(1)
    winners: Counter[tuple[str, ...]] = Counter()
    for number in range(1200):
        rankings = [chance.sample([seat for seat in trio if seat != reviewer], 2) for reviewer in trio]
        winners[tally(rankings, by_seed(trio, f"seed {number}")).order[:1]] += 1
    assert unevenness(winners, 3) < 13.8  # 2 degrees of freedom, p = 0.001


def test_a_ranking_of_one_seat_gives_no_points() -> None:
    assert set(tally([("cid",)], SEATS).points.values()) == {0.0}


def decided_winner(
    rankings: Iterable[Sequence[str]], seats: Sequence[str], missing: Mapping[str, Sequence[str]]
) -> str | None:
    count = BordaCount(seats)
    for reviewer, shown in missing.items():
        count.expect(reviewer, shown)
    for number, ranking in enumerate(rankings):
        count.expect(str(number), seats)
        count.cast(str(number), ranking)
    return count.decided()


partial = st.permutations(SEATS).flatmap(lambda order: st.integers(0, 4).map(lambda n: tuple(order[:n])))


@given(st.lists(partial, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_reviewers_does_not_matter(rankings: list[tuple[str, ...]], random: object) -> None:
    shuffled = list(rankings)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert tally(rankings, SEATS) == tally(shuffled, SEATS)


@given(st.lists(partial, max_size=4), st.lists(partial, max_size=3), st.permutations(SEATS), st.text())
def test_a_decided_lead_is_never_lost(
    earlier: list[tuple[str, ...]], later: list[tuple[str, ...]], seats: list[str], seed: str
) -> None:
    missing = {f"reviewer {number}": seats for number, _ in enumerate(later)}
    order = by_seed(seats, seed)
    leader = decided_winner(earlier, order, missing)
    if leader is not None:
        assert tally(earlier + later, order).order[0] == leader
        assert tally(earlier, order).order[0] == leader


def test_with_nobody_missing_a_tie_is_decided_by_the_seed() -> None:
    tied = [("bob", "ann"), ("ann", "bob")]
    leaders = {decided_winner(tied, by_seed(("ann", "bob"), seed), {}) for seed in map(str, range(20))}
    assert leaders == {"ann", "bob"}


def test_without_any_ranking_the_first_seat_wins() -> None:
    assert decided_winner([], ("bob", "ann"), {}) == "bob"
    assert decided_winner([], ("bob", "ann"), {"cid": ("ann", "bob")}) is None
    assert decided_winner([], (), {}) is None


def test_with_nobody_missing_the_winner_is_decided() -> None:
    assert decided_winner([("bob", "ann")], ("ann", "bob"), {}) == "bob"


def test_a_lead_that_can_be_overtaken_is_not_decided() -> None:
    missing = {"cid": ("ann", "bob")}  # which can bring ann up to a tie with bob, no further
    assert decided_winner([("bob", "ann")], ("ann", "bob"), missing) is None
    assert decided_winner([("bob", "ann")], ("bob", "ann"), missing) == "bob"
    assert decided_winner([("bob", "ann")] * 3, ("ann", "bob"), {"cid": ("ann", "bob")}) == "bob"


@pytest.mark.parametrize("unit", ["\n", " \n", "=", "-", "ranking:\n", "A>", '"ranking": {'])
def test_the_time_of_reading_grows_with_the_length_and_not_with_its_square(unit: str) -> None:
    # With the square, one of these texts takes minutes, which the suite's limit ends.
    text = f"{unit * (200_000 // len(unit))}\nRANKING: B > A"
    assert read_ranking(text, ("A", "B")) == ("B", "A")
