"""A vote on each part of an object by itself. The winning parts may come from different drafts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from random import Random
from typing import Any

import attrs

from llm_council import _schema
from llm_council.errors import InvalidOption
from llm_council.models import Answer, AnswerKind, Draft, Tally
from llm_council.models._attrs import is_number
from llm_council.strategies._answer_form import AnswerForm, canonical, form_of, part_of, path_of, with_common_keys
from llm_council.strategies._ballots import Ballots
from llm_council.strategies._plurality import Plurality

__all__ = ["FieldBallots", "FieldCount", "countable_fields"]

_NOWHERE = object()


def countable_fields(schema: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return paths of the properties of an object that can be counted: numbers, yes or no, and listed values.

    Raises:
        InvalidOption: there are none.
    """
    properties = (schema or {}).get("properties")
    paths = []
    for name, part in properties.items() if isinstance(properties, Mapping) else ():
        is_plain = isinstance(part, Mapping) and "." not in name
        if is_plain and form_of(_target(schema or {}, part)).kind != AnswerKind.TEXT:
            paths.append(f"$.{name}")
    if not paths:
        raise InvalidOption(
            "fields='each' votes on parts of an object, and the schema has no property that is a number, yes or no, or"
            " one of listed values: name parts with vote_on, or leave fields out"
        )
    return tuple(paths)


def _target(schema: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the definition that a part refers to with ``$ref``, as pydantic writes enums; else the part itself."""
    name = str(part.get("$ref", "")).removeprefix("#/$defs/")
    found = schema.get("$defs", {}).get(name) if "$ref" in part else None
    return found if isinstance(found, Mapping) else part


class FieldCount(Plurality):
    """The count of whole answers, with a count of each field. The counts of the fields decide.

    Attributes:
        fields: count of each field by its path.
    """

    fields: Mapping[str, Plurality]

    def is_open(self, abstain_below: float | None = None) -> bool:
        """Return True while the seats that have not voted can still change a field."""
        return any(count.is_open(abstain_below) for count in self.fields.values())

    def least_votes(self, waiting: Sequence[str], abstain_below: float | None = None) -> int:
        """Return after how many more votes all fields may be decided at the earliest."""
        return max(count.least_votes(waiting, abstain_below) for count in self.fields.values())

    def tally(self, chance: Random, *, decided_after: int | None = None) -> Tally:
        """Return the count; ``chance`` breaks the ties of fields."""
        whole = super().tally(chance, decided_after=decided_after)
        fields = {path: count.tally(chance) for path, count in self.fields.items()}
        if whole.winner is None:
            return attrs.evolve(whole, rule="fields", fields=fields)
        broken = {tally.broken_by for tally in fields.values() if tally.broken_by}
        winner = canonical([json.loads(str(tally.winner)) for tally in fields.values()])
        return attrs.evolve(
            whole,
            rule="fields",
            winner=winner,
            fields=fields,
            # The field on which the seats agree least says how far they agree.
            share=min(tally.share for tally in fields.values()),
            margin=min(tally.margin for tally in fields.values()),
            tied=(),
            broken_by="seed" if "seed" in broken else next(iter(broken), None),
            composed=winner not in whole.points,
        )


class FieldBallots(Ballots):
    """Reads whole answers, and counts their parts.

    Args:
        form: the parts that are compared.
        seats: the seats that are to vote.
        weights: weight of each seat by name; None gives each the same.
    """

    def __init__(self, form: AnswerForm, seats: Sequence[str], weights: Mapping[str, float] | None = None) -> None:
        super().__init__(form, seats, weights)
        self._parts: dict[str, dict[str, Answer]] = {}

    def count(self, drafts: Sequence[Draft], failed: Sequence[str] = ()) -> FieldCount:
        """Return the count of these drafts, and of further seats that gave none."""
        whole = FieldCount(self.seats, self._weights)
        count_of = {path_of(path): Plurality(self.seats, self._weights) for path in self.form.paths}
        whole.fields = count_of
        answers = {draft.name: answer for draft in drafts if not draft.error and (answer := self.read(draft))}
        self._parts = {path_of(path): _parts_at(path, answers) for path in self.form.paths}
        # Numbers that are equal in a part are equal in the whole, too.
        self._merged = {
            answer.key: canonical([json.loads(parts[name].key) for parts in self._parts.values()])
            for name, answer in answers.items()
        }
        for count, parts in [(whole, self.answers), *((count_of[path], self._parts[path]) for path in count_of)]:
            for draft in drafts:
                if draft.error is not None:
                    count.fail(draft.seat)
                else:
                    count.cast(draft.seat, parts[draft.name].key if draft.name in parts else None)
            for seat in failed:
                count.fail(seat)
        return whole

    def spokesman(self, key: str | None, drafts: Sequence[Draft]) -> Draft:
        """Return the draft that has most parts of the winning answer; of several, that of the largest weight."""
        wanted = [canonical(part) for part in json.loads(str(key))]

        def parts_won(draft: Draft) -> int:
            return sum(self._key_at(path, draft) == part for path, part in zip(self._parts, wanted, strict=True))

        readable = [draft for draft in drafts if draft.name in self.answers]
        return max(readable, key=lambda draft: (parts_won(draft), (self._weights or {}).get(draft.seat, 0.0)))

    def _key_at(self, path: str, draft: Draft) -> str | None:
        part = self._parts[path].get(draft.name)
        return None if part is None else part.key

    def compose(self, tally: Tally, drafts: Sequence[Draft]) -> tuple[Tally, Any]:
        """Return the tally and the object made of the parts that won.

        If the schema refuses that object, the object of the draft with most winning parts is returned, and the tally
        names that draft's answer as the winner.
        """
        best = self.spokesman(tally.winner, drafts)
        value = deepcopy(self.answers[best.name].value)
        for path, steps in zip(self._parts, self.form.paths, strict=True):
            wanted = tally.fields[path].winner
            if self._key_at(path, best) == wanted:
                continue
            source = next(draft for draft in drafts if self._key_at(path, draft) == wanted)
            value = _replaced(value, steps, part_of(self.answers[source.name].value, steps, _NOWHERE))
        if _schema.compile(self.form.schema or {}).accepts(value):
            return tally, value
        whole = self.answers[best.name]
        return attrs.evolve(tally, winner=whole.key, composed=False), whole.value

    def facts(self, tally: Tally, drafts: Sequence[Draft]) -> dict[str, Any]:
        """Return the fields of ``Verdict`` about the vote; see ``Ballots.facts``."""
        facts = super().facts(tally, drafts)
        if tally.fields and tally.winner is not None:
            # A field whose tie was broken by chance says least.
            weakest = min(tally.fields.values(), key=lambda field: (field.share, not field.tied))
            facts["agreement"] = Plurality.agreement(weakest)
        first, second, *_ = [*tally.points.values(), 0.0, 0.0]
        leader = next(iter(tally.points), None) if first > second else None
        shown = [answer.shown for answer in facts["answers"].values() if answer.key == leader]
        facts["otherwise"]["poll"] = shown[0] if shown else None
        return facts


def _parts_at(path: Sequence[str], answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """Return one part of each answer, by the name of the draft; numbers that are equal have one key."""
    parts = {name: part_of(answer.value, path) for name, answer in answers.items()}
    kind = AnswerKind.NUMBER if all(is_number(part) for part in parts.values()) else AnswerKind.JSON
    return with_common_keys(
        {name: Answer(kind=kind, value=part, key=canonical(part), shown="") for name, part in parts.items()}
    )


def _replaced(value: Any, steps: Sequence[str], part: Any) -> Any:
    """Return a value with one part replaced, or removed for ``_NOWHERE``; a missing parent stays missing."""
    if not steps:
        return value if part is _NOWHERE else part
    holder = part_of(value, steps[:-1])
    last = steps[-1]
    if isinstance(holder, dict):
        if part is _NOWHERE:
            holder.pop(last, None)
        else:
            holder[last] = part
    elif isinstance(holder, list) and last.isdecimal() and int(last) < len(holder) and part is not _NOWHERE:
        holder[int(last)] = part
    return value
