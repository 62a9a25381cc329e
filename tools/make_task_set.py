"""Write the task set that ships with the package: questions with answers that code computes.

usage: python tools/make_task_set.py [--check]

Eleven topics with eight clusters of four questions each. The questions of a cluster share a text, and the difficulty
rises from cluster to cluster. The seed is fixed, so that the file is the same on every machine; ``--check`` only
compares.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from itertools import pairwise, permutations, product
from pathlib import Path
from random import Random
from typing import Any

TARGET = Path(__file__).parents[1] / "llm_council" / "evals" / "sets" / "reasoning.jsonl"
SEED = 2026
LEVELS = 8
QUESTIONS = 4

NAMES = ("Ada", "Ben", "Cleo", "Dov", "Edith", "Farid", "Greta", "Hugo", "Ines", "Jon")
TOWNS = ("Ashford", "Birkwell", "Corley", "Dunmere", "Elstow", "Fenwick", "Garth", "Holme")
GOODS = ("lamps", "chairs", "kettles", "rugs", "clocks", "vases", "desks", "mirrors")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = tuple("January February March April May June July August September October November December".split())

Question = dict[str, Any]
"""Fields of a task beside id and metadata."""

Topic = Callable[[Random, int], list[Question]]


def number(text: str, target: float, *, decimals: int = 0) -> Question:
    """Return a question for a number; with decimals, answers within half a unit of the last one are right."""
    scorer: Any = {"kind": "number", "abs": 0.5001 * 10**-decimals} if decimals else "number"
    asked = f" Round to {decimals} decimal place{'s' * (decimals > 1)}." if decimals else ""
    return {"input": text + asked, "target": round(target, decimals) if decimals else target, "scorer": scorer}


def choice(text: str, options: Sequence[str], target: str) -> Question:
    """Return a question with options."""
    return {"input": text, "choices": list(options), "target": target, "scorer": "choice"}


def yes_no(text: str, target: bool) -> Question:  # noqa: FBT001
    """Return a question for yes or no."""
    return {"input": text, "target": target, "scorer": "bool"}


def clock(minutes: int) -> str:
    """Return a time of day."""
    return f"{minutes // 60:02}:{minutes % 60:02}"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


# Numbers


def stock(chance: Random, level: int) -> list[Question]:
    """Follow deliveries, sales and returns of a warehouse."""
    goods = chance.sample(GOODS, 2)
    prices = [chance.randrange(12, 60), chance.randrange(12, 60)]
    levels = [[chance.randrange(40, 90)], [chance.randrange(40, 90)]]
    income = 0
    lines = [f"A warehouse starts with {levels[0][0]} {goods[0]} and {levels[1][0]} {goods[1]}."]
    lines.append(f"One of the {goods[0]} sells for {prices[0]} euros, one of the {goods[1]} for {prices[1]} euros.")
    for day in range(1, 4 + level):
        which = chance.randrange(2)
        now = levels[which][-1]
        kind = chance.choice(("sale", "sale", "delivery", "return", "half"))
        if kind == "sale" and now > 8:
            amount = chance.randrange(4, min(30, now))
            income += amount * prices[which]
            levels[which].append(now - amount)
            lines.append(f"Day {day}: {amount} {goods[which]} are sold.")
        elif kind == "return":
            amount = chance.randrange(1, 5)
            income -= amount * prices[which]
            levels[which].append(now + amount)
            lines.append(f"Day {day}: {amount} {goods[which]} come back in good order, and their price is refunded.")
        elif kind == "half" and now >= 8:
            amount = now // 4
            levels[which].append(now - amount)
            lines.append(f"Day {day}: a quarter of the {goods[which]}, rounded down, is given to a charity for free.")
        else:
            amount = chance.randrange(5, 25)
            levels[which].append(now + amount)
            lines.append(f"Day {day}: {amount} {goods[which]} are delivered.")
    text = "\n".join(lines) + "\n\n"
    return [
        number(f"{text}How many {goods[0]} are there in the end?", levels[0][-1]),
        number(f"{text}How many euros were taken in, refunds subtracted?", income),
        number(f"{text}What is the largest number of {goods[1]} at the start or after any day?", max(levels[1])),
        number(
            f"{text}How many euros would selling everything that is left bring in?",
            sum(price * found[-1] for price, found in zip(prices, levels, strict=True)),
        ),
    ]


def sales(chance: Random, level: int) -> list[Question]:
    """Read a table with conditions."""
    towns = chance.sample(TOWNS, min(len(TOWNS), 3 + (level + 1) // 2))
    rows = [(town, chance.randrange(20, 200), chance.randrange(5, 40), chance.randrange(0, 15)) for town in towns]
    text = table(("shop", "units sold", "price in euros", "units returned"), rows) + "\n\n"
    floor = chance.choice((10, 15, 20))
    above = [row for row in rows if row[2] > floor]
    revenue = {town: (sold - back) * price for town, sold, price, back in rows}
    kept = sum(sold - back for _, sold, _, back in rows)
    return [
        number(
            f"{text}How many units did the shops with a price above {floor} euros sell together, returns included?",
            sum(row[1] for row in above),
        ),
        number(
            f"{text}By how many euros does the best revenue of a shop exceed the second best? Returned units are no"
            " revenue.",
            (ordered := sorted(revenue.values()))[-1] - ordered[-2],
        ),
        number(
            f"{text}What is the mean price in euros of a unit that was sold and not returned, over all shops?",
            sum(revenue.values()) / kept,
            decimals=2,
        ),
        number(
            f"{text}What percentage of all units sold was returned?",
            100 * sum(row[3] for row in rows) / sum(row[1] for row in rows),
            decimals=1,
        ),
    ]


def trace(chance: Random, level: int) -> list[Question]:
    """Run a small program by hand."""
    start, step = chance.randrange(3, 20), chance.randrange(2, 7)
    modulus, small = chance.choice((3, 4, 5)), chance.choice((7, 9, 11))
    rounds = 3 + level
    x, y, taken, highest = start, 0, 0, start
    for i in range(1, rounds + 1):
        if (x + i) % modulus == 0:
            x, taken = x // 2, taken + 1
        else:
            x += step * i
        y += x % small
        highest = max(highest, x)
    text = (
        f"x = {start}\ny = 0\nfor i from 1 to {rounds}:\n    if (x + i) is divisible by {modulus}:\n"
        f"        x = x / 2, rounded down\n    otherwise:\n        x = x + {step} * i\n"
        f"    y = y + (remainder of x divided by {small})\n\n"
    )
    return [
        number(f"{text}What is x after this program?", x),
        number(f"{text}What is y after this program?", y),
        number(f"{text}How many times does this program halve x?", taken),
        number(f"{text}What is the largest value that x ever has, its first one included?", highest),
    ]


def tank(chance: Random, level: int) -> list[Question]:
    """Rates with units, over stages."""
    first, second = chance.randrange(10, 40), chance.randrange(10, 40)
    leak = chance.randrange(1, 6) if level > 2 else 0
    early, late = chance.randrange(5, 20), chance.randrange(5, 20)
    after_a = early * (first - leak)
    after_both = after_a + late * (first + second - leak)
    size = 100 * (after_both // 100 + chance.randrange(3, 30))
    lines = [f"An empty tank holds {size} litres.", f"Pump A brings {first} litres a minute."]
    lines.append(f"Pump B brings {second * 60 / 1000:g} cubic metres an hour (a cubic metre is 1000 litres).")
    if leak:
        lines.append(f"From the beginning, {leak} litres a minute run out through a leak.")
    lines.append(f"A runs alone for {early} minutes, then both run for {late} minutes, then B runs alone.")
    if level > 5:
        lines.append(f"When A stops, the leak is mended, and {early * 5} litres are taken out at once.")
    text = " ".join(lines) + "\n\n"
    later_rate = second - (0 if level > 5 else leak)
    rest = after_both - (early * 5 if level > 5 else 0)
    return [
        number(f"{text}How many litres are in the tank when B starts?", after_a),
        number(f"{text}How many litres are in the tank just before A stops?", after_both),
        number(f"{text}How many litres does B bring until 10 minutes after A stops?", second * (late + 10)),
        number(f"{text}How many minutes after A stops is the tank full?", (size - rest) / later_rate, decimals=1),
    ]


# Choices


def seats(chance: Random, level: int) -> list[Question]:
    """Find the only order of people that fits all clues."""
    people = chance.sample(NAMES, 4 + (level + 1) // 4)
    order = tuple(chance.sample(people, len(people)))
    clues: list[tuple[str, Callable[[tuple[str, ...]], bool]]] = []
    found = list(permutations(people))
    while len(found) > 1:
        clue = seat_clue(chance, people, level)
        left = [one for one in found if clue[1](one)]
        if clue[1](order) and len(left) < len(found):
            clues.append(clue)
            found = left
    for clue in list(clues):
        others = [one for one in clues if one is not clue]
        if sum(all(holds(one) for _, holds in others) for one in permutations(people)) == 1:
            clues = others
    seated = ", ".join(people[:-1]) + " and " + people[-1]
    text = f"{seated} sit in a row of {len(people)} seats, numbered from left to right. "
    text += " ".join(said for said, _ in clues) + "\n\n"
    asked = chance.sample(range(len(people)), 4)
    return [choice(f"{text}Who sits in seat {seat + 1}?", sorted(people), order[seat]) for seat in asked]


def seat_clue(chance: Random, people: Sequence[str], level: int) -> tuple[str, Callable[[tuple[str, ...]], bool]]:
    """Return a clue about an order, which may be false, and the test of it."""
    one, other, third = chance.sample(people, 3)
    kind = chance.randrange(3 if level < 3 else 6)
    if kind == 0:
        return f"{one} sits right next to {other}.", lambda row: abs(row.index(one) - row.index(other)) == 1
    if kind == 1:
        return f"{one} sits somewhere to the left of {other}.", lambda row: row.index(one) < row.index(other)
    if kind == 2:
        return f"{one} sits at one end.", lambda row: row.index(one) in (0, len(row) - 1)
    if kind == 3:
        said = f"Exactly one person sits between {one} and {other}."
        return said, lambda row: abs(row.index(one) - row.index(other)) == 2
    if kind == 4:
        return f"{one} does not sit next to {other}.", lambda row: abs(row.index(one) - row.index(other)) > 1
    said = f"{one} sits somewhere between {other} and {third}."
    return said, lambda row: sorted((row.index(one), row.index(other), row.index(third)))[1] == row.index(one)


def weekdays(chance: Random, level: int) -> list[Question]:
    """Count days across weeks, months and leap years."""
    start = date(chance.randrange(2020, 2030), chance.randrange(1, 13), chance.randrange(1, 28))
    reach = 10 * 3 ** ((level + 1) // 2)
    days = chance.randrange(reach, 2 * reach)
    given = f"{start.day} {MONTHS[start.month - 1]} {start.year} is a {WEEKDAYS[start.weekday()]}. "
    later = start + timedelta(days=chance.randrange(reach, 3 * reach))
    working, added = start, 5 + 2 * level
    for _ in range(added):
        working += timedelta(days=1)
        while working.weekday() > 4:
            working += timedelta(days=1)
    nth = chance.randrange(1, 5)
    asked = chance.randrange(7)
    month = date(start.year, start.month, 1)
    in_month = month + timedelta(days=(asked - month.weekday()) % 7 + 7 * (nth - 1))
    options = {in_month.day, *(in_month.day + shift for shift in (-7, -1, 1, 7) if 1 <= in_month.day + shift <= 28)}
    return [
        choice(f"{given}Which weekday is it {days} days later?", WEEKDAYS, WEEKDAYS[(start.weekday() + days) % 7]),
        choice(
            f"{given}Which weekday is {later.day} {MONTHS[later.month - 1]} {later.year}?",
            WEEKDAYS,
            WEEKDAYS[later.weekday()],
        ),
        choice(
            f"{given}A parcel is sent on that day and arrives {added} working days later, counted from the next day on;"
            " Saturdays and Sundays are no working days. On which weekday does it arrive?",
            WEEKDAYS,
            WEEKDAYS[working.weekday()],
        ),
        choice(
            f"{given}On which day of this month is its {('first', 'second', 'third', 'fourth')[nth - 1]}"
            f" {WEEKDAYS[asked]}?",
            [str(day) for day in sorted(options)],
            str(in_month.day),
        ),
    ]


def meetings(chance: Random, level: int) -> list[Question]:
    """Find the first free time of several people."""
    people = chance.sample(NAMES, 3)
    busy: dict[str, list[tuple[int, int]]] = {}
    for person in people:
        taken: list[tuple[int, int]] = []
        now = 540 + 15 * chance.randrange(3)
        for _ in range(2 + level // 2):
            end = now + 15 * chance.randrange(2, 5)
            taken.append((now, min(end, 1020)))
            now = end + 15 * chance.randrange(1, 4)
            if now >= 990:
                break
        busy[person] = taken
    lines = [f"{person}: {', '.join(f'{clock(a)} to {clock(b)}' for a, b in taken)}" for person, taken in busy.items()]
    text = "The working day is from 09:00 to 17:00. These people are busy at these times:\n" + "\n".join(lines) + "\n\n"
    found = []
    groups = [people, people, people[:2], people[1:]]
    for group, length in zip(groups, (30, 45 + 15 * (level > 3), 30 + 15 * (level > 4), 60), strict=True):
        who = ", ".join(group[:-1]) + " and " + group[-1]
        start = next(
            start
            for start in range(540, 24 * 60, 15)
            if all(start + length <= a or start >= b for person in group for a, b in busy[person])
        )
        answer = clock(start) if start + length <= 1020 else "not on this day"
        others = [clock(time) for time in range(540, 1020, 15) if time != start and abs(time - start) <= 75]
        options = [*sorted({answer, *chance.sample(others, min(4, len(others)))}), "not on this day"]
        asked = f"When can {who} first meet for {length} minutes?"
        found.append(choice(text + asked, list(dict.fromkeys(options)), answer))
    return found


# Yes or no


def knights(chance: Random, level: int) -> list[Question]:
    """Knights tell the truth and knaves lie: find out who is who."""
    people = chance.sample(NAMES, 4)
    while True:
        truth = {person: chance.random() < 0.5 for person in people}
        said = [claim(chance, speaker, people, level) for speaker in [*people, *chance.sample(people, level // 3)]]
        worlds = [dict(zip(people, kinds, strict=True)) for kinds in product((True, False), repeat=4)]
        fitting = [world for world in worlds if all(world[speaker] == holds(world) for speaker, _, holds in said)]
        if fitting == [truth]:
            break
    text = "On an island, knights only tell the truth and knaves only lie. Each of these four is one or the other.\n"
    text += "\n".join(f"{speaker} says: {words}" for speaker, words, _ in said) + "\n\n"
    return [yes_no(f"{text}Is {person} a knight?", truth[person]) for person in people]


Claim = tuple[str, str, Callable[[dict[str, bool]], bool]]


def claim(chance: Random, speaker: str, people: Sequence[str], level: int) -> Claim:
    """Return what a person says, and whether it holds in a world."""
    one, other = chance.sample([person for person in people if person != speaker], 2)
    kind = chance.randrange(2 if level < 3 else 5)
    if kind == 0:
        return speaker, f'"{one} is a knave."', lambda world: not world[one]
    if kind == 1:
        same = f'"{one} and {other} are of the same kind."'
        return speaker, same, lambda world: world[one] == world[other]
    if kind == 2:
        count = chance.randrange(1, 4)
        which = ("one of us four is a knight", "two of us four are knights", "three of us four are knights")[count - 1]
        words = f'"Exactly {which}."'
        return speaker, words, lambda world: sum(world.values()) == count
    if kind == 3:
        words = f'"{one} is a knight, or {other} is a knave, or both."'
        return speaker, words, lambda world: world[one] or not world[other]
    words = f'"If {one} is a knight, then so is {other}."'
    return speaker, words, lambda world: not world[one] or world[other]


def buses(chance: Random, level: int) -> list[Question]:
    """Say whether a town can be reached in time."""
    towns = TOWNS[: 4 + level // 2]
    rides = []
    for _ in range(5 + level):
        here, there = chance.sample(towns, 2)
        leaves = 480 + 5 * chance.randrange(0, 36)
        rides.append((leaves, here, there, leaves + 5 * chance.randrange(3, 14)))
    # A chain, so that far towns are reached sometimes.
    now = 485
    for here, there in pairwise(towns):
        leaves = now + 5 * chance.randrange(1, 4)
        now = leaves + 5 * chance.randrange(2, 7)
        rides.append((leaves, here, there, now))
    chance.shuffle(rides)
    lines = [f"{here} {clock(leaves)} to {there} {clock(arrives)}" for leaves, here, there, arrives in rides]
    start = towns[0]
    reached = {start: 480}
    for leaves, here, there, arrives in sorted(rides):
        ready = 480 if here == start else reached.get(here, 10**6) + 5
        if leaves >= ready and arrives < reached.get(there, 10**6):
            reached[there] = arrives
    text = "These are all buses of a morning, each with departure and arrival:\n" + "\n".join(lines)
    text += f"\n\nSomebody is in {start} at 08:00. To change buses takes 5 minutes, none at the start. "
    found = []
    for town in [*chance.sample(towns[1:], 3), towns[-1]]:
        arrives = reached.get(town, 10**6)
        is_right = chance.random() < 0.5
        limit = arrives + 5 * chance.randrange(0, 3) if is_right else arrives - 5 * chance.randrange(1, 4)
        if arrives == 10**6:
            limit = 480 + 5 * chance.randrange(20, 60)
        asked = f"Can this person be in {town} by {clock(limit)}?"
        found.append(yes_no(text + asked, arrives <= limit))
    return found


# Fields


def orders(chance: Random, level: int) -> list[Question]:
    """Take an order out of a letter with corrections."""
    goods = chance.sample(GOODS, 3)
    prices = {good: chance.randrange(8, 90) for good in goods}
    listed = ", ".join(f"{good} at {price} euros each" for good, price in prices.items())
    discount = chance.choice((5, 10, 20))
    rule = f"Price list: {listed}. Orders of 10 or more pieces get {discount} % off. Shipping is 7 euros, always."
    found = []
    for _ in range(QUESTIONS):
        customer, good = chance.choice(NAMES), chance.choice(goods)
        first, amount = chance.sample(range(2, 10 + 2 * level), 2)
        sent = date(2026, chance.randrange(1, 13), chance.randrange(1, 28))
        wait = chance.randrange(3, 8 + 4 * level)
        total = prices[good] * amount * (1 - discount / 100 * (amount >= 10)) + 7
        lines = [
            f"Letter of {sent.day} {MONTHS[sent.month - 1]} 2026:",
            f'"Hello, this is {customer}. I would like {first} {good}, please.',
            f"My last order, number {chance.randrange(1000, 9999)}, was fine."
            if level > 2
            else f"We liked the {chance.choice(goods)} we saw.",
            f"Sorry, I counted again: make it {amount}, not {first}.",
            f'I need them {wait} days from the date of this letter at the latest."',
        ]
        asked = (
            "\n\nAnswer with a JSON object: customer, product (one word, as in the price list), quantity, total (euros,"
            " shipping included), deliver_by (as YYYY-MM-DD)."
        )
        due = sent + timedelta(days=wait)
        target = {
            "customer": customer,
            "product": good,
            "quantity": amount,
            "total": round(total, 2),
            "deliver_by": due.isoformat(),
        }
        paths: list[Any] = [
            "$.customer",
            "$.product",
            "$.quantity",
            {"path": "$.total", "compare": "number", "abs": 0.01},
        ]
        scorer = {"kind": "fields", "paths": [*paths, "$.deliver_by"], "whole": True}
        found.append({"input": f"{rule}\n\n" + "\n".join(lines) + asked, "target": target, "scorer": scorer})
    return found


def outages(chance: Random, level: int) -> list[Question]:
    """Take the outages of each machine out of a log."""
    hosts = ("alpha", "beta", "gamma", "delta")
    events: list[tuple[int, str, str]] = []
    facts: dict[str, list[tuple[int, int]]] = {host: [] for host in hosts}
    for host in hosts:
        now = 60 * 8 + chance.randrange(40)
        for _ in range(1 + (level + chance.randrange(2)) // 3):
            end = now + chance.randrange(3, 50)
            facts[host].append((now, end))
            events += [(now, host, "down"), (end, host, "up")]
            now = end + chance.randrange(5, 60)
    events += [(60 * 8 + chance.randrange(300), chance.choice(hosts), "disk 80 % full") for _ in range(level)]
    log = "\n".join(f"{clock(time)} {host} {what}" for time, host, what in sorted(events))
    found = []
    for host in hosts:
        lengths = [end - begin for begin, end in facts[host]]
        asked = (
            f"\n\nAnswer with a JSON object about {host}: outages (how many), first (time of the first one, as HH:MM),"
            " longest (minutes), total (minutes that it was down)."
        )
        target = {
            "outages": len(lengths),
            "first": clock(facts[host][0][0]),
            "longest": max(lengths),
            "total": sum(lengths),
        }
        found.append({"input": f"A log of four machines:\n{log}{asked}", "target": target, "scorer": "fields"})
    return found


TOPICS: dict[str, Topic] = {
    "stock": stock,
    "sales": sales,
    "trace": trace,
    "tank": tank,
    "seats": seats,
    "weekdays": weekdays,
    "meetings": meetings,
    "knights": knights,
    "buses": buses,
    "orders": orders,
    "outages": outages,
}


def make() -> str:
    """Return the text of the file."""
    lines = []
    for name, topic in TOPICS.items():
        for level in range(1, LEVELS + 1):
            # A generator of its own for each cluster: a change of one leaves the others as they are.
            for place, question in enumerate(topic(Random(f"{SEED} {name} {level}"), level), start=1):
                metadata = {"cluster": f"{name}-{level}", "topic": name, "level": level}
                lines.append(json.dumps({"id": f"{name}-{level}-{place}", **question, "metadata": metadata}))
    body = "".join(f"{line}\n" for line in lines)
    header = {
        "council_eval": 1,
        "name": "reasoning",
        "licence": "MIT",
        "source": f"generated by tools/make_task_set.py of llm-council-sdk, seed {SEED}",
        "sha256": hashlib.sha256(body.encode()).hexdigest(),
    }
    return json.dumps(header) + "\n" + body


def main() -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare only; status 1 if the file differs")
    made = make()
    if not parser.parse_args().check:
        TARGET.write_text(made, encoding="utf-8")
        return 0
    if TARGET.read_text(encoding="utf-8") == made:
        return 0
    print(f"{TARGET} is not what this program writes: run it without --check")  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
