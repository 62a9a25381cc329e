"""``PartialOutput``: the answer while it arrives, as a JSON value."""

from __future__ import annotations

import itertools
import json
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import Council, CouncilConfig, CouncilStream, Plan, _schema
from llm_council._engine import partial_output
from llm_council._engine.partial_output import NOTHING, PartialReader, reader_of
from llm_council.errors import RequestRejected
from llm_council.errors._secrets import Secret
from llm_council.events import Event, PartialOutput, PhaseStarted, RunFinished
from llm_council.models import GenerateRequest, Phase
from llm_council.models._journal import Call
from llm_council.testing.fakes import Broken, ScriptedProvider


@attrs.frozen
class Line:
    text: str
    number: int = 0


@attrs.frozen
class Page:
    title: str
    lines: list[Line]


PAGE = {"title": "On bridges", "lines": [{"text": f"line {number}", "number": 10**number} for number in range(12)]}


def streamed(stream: CouncilStream[Any]) -> list[Any]:
    """Run a stream to its end, and return the values of its partial outputs."""
    with stream:
        return [event.value for event in stream if isinstance(event, PartialOutput)]


def council(*answers: Any, **options: Any) -> Council:
    texts = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
    script: Any = {"draft": "a draft", "critique": "fine", "synthesise": texts[:1], "repair": texts[1:]}
    ann = ScriptedProvider(script, name="ann", pieces=40)
    bob = ScriptedProvider(script, name="bob", pieces=40)
    return Council([ann, bob], config=CouncilConfig(), chair="ann", **options)


def grows(earlier: Any, later: Any) -> bool:
    """Return True if a later value has all of an earlier one."""
    if isinstance(earlier, dict):
        return isinstance(later, dict) and all(key in later and grows(earlier[key], later[key]) for key in earlier)
    if isinstance(earlier, list):
        return (
            isinstance(later, list)
            and len(earlier) <= len(later)
            and all(grows(one, other) for one, other in zip(earlier, later, strict=False))
        )
    return later.startswith(earlier) if isinstance(earlier, str) else bool(later == earlier)


def test_the_answer_grows_and_the_last_value_is_that_of_the_output() -> None:
    stream = council(PAGE).stream("Write", output_type=Page, strategy="synthesize")
    values = streamed(stream)
    assert len(values) > 10
    assert all(grows(earlier, later) for earlier, later in itertools.pairwise(values))
    assert values[-1] == stream.result.output_value == PAGE
    assert stream.result.output == Page("On bridges", [Line(**line) for line in PAGE["lines"]])


def test_thinking_prose_and_fences_around_the_answer_are_no_part_of_it() -> None:
    text = f'<think>{{"title": "no"}}</think>Here it is {{sic}}:\n```json\n{json.dumps(PAGE, indent=1)}\n```\nDone.'
    stream = council(text).stream("Write", output_type=Page, strategy="synthesize")
    values = streamed(stream)
    assert len(values) > 10
    assert all(grows(earlier, later) for earlier, later in itertools.pairwise(values))
    assert values[-1] == PAGE


def test_a_repair_begins_anew() -> None:
    invalid = {**PAGE, "title": 3}
    stream = council(invalid, PAGE).stream("Write", output_type=Page, strategy="synthesize")
    events: list[Event] = []
    with stream:
        events.extend(stream)
    place = next(i for i, one in enumerate(events) if isinstance(one, PhaseStarted) and one.phase == Phase.REPAIR)
    before = [one.value for one in events[:place] if isinstance(one, PartialOutput)]
    after = [one.value for one in events[place:] if isinstance(one, PartialOutput)]
    assert before[-1] == invalid
    assert len(after[0]) <= 1
    assert after[-1] == PAGE


def test_another_chair_begins_anew() -> None:
    broken = Broken(json.dumps(PAGE)[:200], RequestRejected("no", status=400))
    ann = ScriptedProvider({"synthesise": broken, "*": "a draft"}, name="ann", pieces=20)
    bob = ScriptedProvider({"synthesise": json.dumps(PAGE), "*": "a draft"}, name="bob", pieces=20)
    asked = Council([ann, bob], config=CouncilConfig(), chair="ann", strategy="synthesize")
    stream = asked.stream("Write", output_type=Page)
    values = streamed(stream)
    assert sum(len(value) == 0 or list(value) == ["title"] for value in values) >= 2
    assert values[-1] == PAGE
    assert stream.result.chair == "bob"


def test_a_single_seat_that_answers_in_the_form_of_the_schema_is_followed() -> None:
    ann = ScriptedProvider(json.dumps(PAGE), name="ann", pieces=40)
    values = streamed(Council([ann], config=CouncilConfig()).stream("Write", output_type=Page, strategy="single"))
    assert len(values) > 10
    assert values[-1] == PAGE


def test_a_counted_answer_arrives_at_once() -> None:
    seats = [ScriptedProvider("ANSWER: yes", name=name) for name in ("ann", "bob", "cyd")]
    stream = Council(seats, config=CouncilConfig()).stream("Fine?", output_type=bool, strategy="poll")
    assert streamed(stream) == [True]


def test_an_answer_under_headings_grows_by_section() -> None:
    text = "## Answer\nParis is the capital.\n\n## Reasoning\nIt is where the government sits."
    stream = council(text).stream("Where?", strategy="synthesize")
    values = streamed(stream)
    assert values[0].keys() == {"answer"}
    assert values[-1] == stream.result.output


def test_prose_has_no_partial_output_and_its_text_arrives_as_deltas() -> None:
    assert streamed(council("Plain words").stream("Write", output_type=str, strategy="synthesize")) == []


def test_nothing_is_read_for_a_run_that_nobody_listens_to(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr("llm_council._engine.calls.reader_of", lambda *given: made.append(given))
    seen: list[Event] = []
    result = council(PAGE, listeners=[seen.append]).run("Write", output_type=Page, strategy="synthesize")
    assert result.success
    assert made == []
    assert not any(isinstance(event, PartialOutput) for event in seen)


def test_the_last_event_comes_before_the_end_of_the_run() -> None:
    with council(PAGE).stream("Write", output_type=Page, strategy="synthesize") as stream:
        events = list(stream)
    last = max(place for place, event in enumerate(events) if isinstance(event, PartialOutput))
    end = next(place for place, event in enumerate(events) if isinstance(event, RunFinished))
    assert last < end


def test_a_parser_that_fails_does_not_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, text: str) -> object:
        raise RuntimeError("broken")

    monkeypatch.setattr(PartialReader, "_value_in", fail)
    stream = council(PAGE).stream("Write", output_type=Page, strategy="synthesize")
    assert streamed(stream) == [PAGE]
    assert stream.result.success


def test_a_run_without_an_answer_ends_without_a_last_value() -> None:
    stream = council(*["no json at all"] * 6).stream("Write", output_type=Page, strategy="synthesize")
    assert streamed(stream) == []
    assert not stream.result.success


@pytest.mark.parametrize("spelled", ["sk-0123456789abcdef", "\\u0073k-0123456789abcdef"])
def test_a_key_in_the_answer_is_in_no_value(spelled: str) -> None:
    secret = Secret("sk-0123456789abcdef")
    text = '{"title": "It is KEY, not another", "lines": []}'.replace("KEY", spelled)
    values = streamed(council(text).stream("Write", output_type=Page, strategy="synthesize"))
    assert secret.reveal() == "sk-0123456789abcdef"
    assert len(values) > 3
    assert not any("0123456789abcdef" in json.dumps(value) for value in values)


# The reader


def reader(schema: dict[str, Any]) -> PartialReader:
    return PartialReader(_schema.compile(schema), schema.get("type"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "hel', {"a": "hel"}),
        ('{"a": 12', {}),  # may become 123
        ('{"a": 12,', {"a": 12}),
        ('{"a": tr', {}),
        ('{"a', {}),
        ("[1, 2", [1]),
        ("[1, 2]", [1, 2]),
        ('{"a": [{"b": "c"}, {"d"', {"a": [{"b": "c"}, {}]}),
        ('Sure: {"a": "x"} and {"a": "y"}', {"a": "x"}),
        ('{"a": NaN', NOTHING),
        ("", NOTHING),
        ("plain words [1] here", [1]),
        ("<think>{}", NOTHING),
        ("[" * 500, NOTHING),
        ("\ud800", NOTHING),
    ],
)
def test_the_value_of_an_incomplete_text(text: str, value: Any) -> None:
    found = reader({})
    found.feed(text)
    whole = reader({})
    whole._pieces = [text]
    assert whole._read() == value


def test_the_wrapper_of_an_answer_that_is_no_object_is_taken_off() -> None:
    found = reader({"type": "array", "items": {"type": "integer"}})
    values = [found.feed(piece) for piece in ('{"val', 'ue": [1, 2', ", 33, 44", "]}")] + [found.finish()]
    assert [value for value in values if value is not NOTHING][-1] == [1, 2, 33, 44]
    assert not any(isinstance(value, dict) for value in values)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@given(
    value=st.dictionaries(texts, json_values, max_size=4) | st.lists(json_values, max_size=4),
    cuts=st.lists(st.integers(0, 200), max_size=12),
)
@examples(40)
def test_any_pieces_lead_to_the_whole_value(value: Any, cuts: list[int]) -> None:
    text = json.dumps(value)
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    found = reader({})
    values = [found.feed(text[start:end]) for start, end in itertools.pairwise(places)]
    values = [one for one in (*values, found.finish()) if one is not NOTHING]
    assert values[-1] == value
    assert all(grows(earlier, later) for earlier, later in itertools.pairwise(values))


def test_the_work_grows_with_the_length_of_an_answer_and_not_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    whole = PartialReader._value_in

    def counted(self: PartialReader, text: str) -> Any:
        nonlocal read
        read += len(text)
        return whole(self, text)

    monkeypatch.setattr(PartialReader, "_value_in", counted)
    for size, most in ((2_000, 30), (20_000, 30), (200_000, 30)):
        text = json.dumps({"text": "x" * size})
        found, read = reader({}), 0
        for start in range(0, len(text), 4):
            found.feed(text[start : start + 4])
        assert read < most * len(text)


def test_only_calls_that_write_the_answer_are_read() -> None:
    def call(plan: Plan, phase: Phase, *, by_schema: bool) -> Call:
        from llm_council.models import StructuredOutput

        wanted = StructuredOutput(json_schema={"type": "object"}) if by_schema else None
        request = GenerateRequest(prompt="x", structured_output=wanted)
        return Call(name="x", phase=phase, seat="ann", request=request)

    asked = council()
    plan = asked.plan("x", output_type=Page, strategy="synthesize")
    assert reader_of(plan, call(plan, Phase.SYNTHESISE, by_schema=True)) is not None
    assert reader_of(plan, call(plan, Phase.REPAIR, by_schema=True)) is not None
    for phase in (Phase.DRAFT, Phase.CRITIQUE, Phase.REVISE):
        assert reader_of(plan, call(plan, phase, by_schema=True)) is None
    assert reader_of(plan, call(plan, Phase.SYNTHESISE, by_schema=False)) is None
    prose = asked.plan("x", output_type=str)
    assert reader_of(prose, call(prose, Phase.SYNTHESISE, by_schema=True)) is None
    votes = asked.plan("x", output_type=Literal["a", "b"], strategy="poll")
    assert reader_of(votes, call(votes, Phase.DRAFT, by_schema=True)) is None


def test_the_parser_is_imported_by_the_first_answer_that_is_read() -> None:
    import inspect

    assert "jiter" not in vars(partial_output)
    assert "from jiter import" in inspect.getsource(PartialReader._value_in)
