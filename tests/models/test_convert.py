"""The JSON converter: everything that `dump` writes is loaded again; invalid data is refused with its path."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import errors, events
from llm_council import models as m
from llm_council.errors import Attempt, CouncilError, InvalidOption, QuorumLost, RateLimited, RunError, UnknownOption
from llm_council.errors._secrets import Secret
from llm_council.models._convert import dump, load
from llm_council.models.messages import Part


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(dump(value), allow_nan=False))


MODELS = [cls for name in m.__all__ if isinstance(cls := getattr(m, name), type) and attrs.has(cls)]


@examples(15)
@given(st.data())
@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_load_returns_every_model_that_dump_wrote(cls: type, data: st.DataObject) -> None:
    model: Any = data.draw(strategies.instances_of(cls))
    assert same(load(type(model), through_json(model)), model)


@given(strategies.events())
def test_load_returns_every_event_by_its_base_class(event: events.Event) -> None:
    data = through_json(event)
    assert data["type"] == type(event).__name__
    assert same(load(events.Event, data), event)


@given(strategies.errors())
def test_load_returns_every_error_with_all_attributes(error: CouncilError) -> None:
    assert same(load(CouncilError, through_json(error)), error)


def same(a: Any, b: Any) -> bool:
    """Compare as ``==`` does, and errors, which have no equality of their own, by class and facts."""
    if isinstance(b, CouncilError):
        return type(a) is type(b) and a.args == b.args and same(vars(a), vars(b))
    if attrs.has(type(b)):
        names = [field.name for field in attrs.fields(type(b)) if field.eq]  # the bytes of a file are not stored
        return type(a) is type(b) and all(same(getattr(a, name), getattr(b, name)) for name in names)
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in b)
    if isinstance(b, tuple):
        return isinstance(a, tuple) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_parts_of_a_message_have_a_tag() -> None:
    parts = (m.TextPart(text="a"), m.ImagePart(url="https://x/y.png"), m.ReasoningPart(text="b", signature="s"))
    data = through_json(m.Message("user", parts))
    assert [part["type"] for part in data["content"]] == ["TextPart", "ImagePart", "ReasoningPart"]
    assert load(m.Message, data).content == parts
    assert load(Part, data["content"][2]) == parts[2]


def test_known_finish_reasons_are_loaded_as_enum_members() -> None:
    assert load(m.GenerateResponse, dump(m.GenerateResponse(finish_reason="stop"))).finish_reason is m.FinishReason.STOP
    assert load(m.GenerateResponse, dump(m.GenerateResponse(finish_reason="odd"))).raw_finish_reason == "odd"


def test_errors_inside_errors_are_loaded() -> None:
    inner = RateLimited("slow down", status=429, retry_after=float("inf"), attempts=[Attempt(at=0, elapsed=1)])
    lost = load(RunError, through_json(QuorumLost("none left", outcomes={"a": inner, "b": None})))
    assert isinstance(lost, QuorumLost)
    assert lost.outcomes["b"] is None
    assert lost.outcomes["a"].retry_after == float("inf")
    assert lost.outcomes["a"].attempts == (Attempt(at=0, elapsed=1),)


def test_an_error_of_a_missing_plugin_is_loaded_as_the_requested_class() -> None:
    loaded = load(errors.ProviderError, {"type": "Absent", "message": "no", "provider": "p", "their": 1})
    assert type(loaded) is errors.ProviderError
    assert (loaded.message, loaded.provider) == ("no", "p")


class TheirOwn(errors.RateLimited):
    def __init__(self, *, their: str) -> None:
        super().__init__("slow down", status=429)
        self.their = their


def test_an_error_of_a_plugin_is_loaded_without_its_constructor() -> None:
    data = through_json(TheirOwn(their="fact"))
    assert data["type"] == f"{__name__}:TheirOwn"
    loaded = load(errors.ProviderError, data)
    assert isinstance(loaded, TheirOwn)
    assert (loaded.their, loaded.status, loaded.message, loaded.retryable) == ("fact", 429, "slow down", True)


def test_values_that_json_cannot_express_become_text() -> None:
    request = m.GenerateRequest(prompt="x", metadata={"when": object(), "keys": {1: {2, 1}}, "n": float("nan")})
    data = through_json(request)["metadata"]
    assert data["when"].startswith("<object")
    assert data["keys"] == {"1": [1, 2]}
    assert data["n"] == "nan"
    assert through_json({"key": Secret("sk-very-secret-key-1234567890")}) == {"key": "'***'"}


def test_containers_of_models_are_dumped() -> None:
    assert dump({"a": m.DoctorResult(ok=True)})["a"]["ok"] is True
    assert dump((m.Cost(),)) == [{"usd": None, "source": "unknown", "complete": False, "share": 1.0}]


@attrs.frozen(kw_only=True)
class Theirs:
    """A third-party class with fields of our models."""

    name: str
    drafts: tuple[m.Draft, ...] = ()
    best: m.Draft | None = None
    by_seat: dict[str, m.Usage] = attrs.field(factory=dict)
    found: m.Cost | m.Usage | None = None


@examples(20)
@given(strategies.drafts(), strategies.usages())
def test_third_party_classes_with_model_fields_need_no_registration(draft: m.Draft, usage: m.Usage) -> None:
    theirs = Theirs(name="x", drafts=(draft,), best=draft, by_seat={"s": usage}, found=usage)
    assert same(load(Theirs, through_json(theirs)), theirs)


REFUSED: list[tuple[Any, Any, str]] = [
    (m.Draft, {"seat": None}, "Draft.seat: expected a string"),
    (m.Draft, {}, "Draft.seat: is missing"),
    (m.Draft, [], "Draft: expected an object"),
    (m.Draft, "x", "Draft: expected an object"),
    (m.Draft, {"seat": "s", "elapsed": "1"}, "Draft.elapsed: expected a number"),
    (m.Draft, {"seat": "s", "elapsed": True}, "Draft.elapsed: expected a number"),
    (m.DoctorResult, {"ok": "no"}, "DoctorResult.ok: expected true or false"),
    (m.DoctorResult, {"ok": 1}, "DoctorResult.ok: expected true or false"),
    (m.Usage, {"input_tokens": 1.0}, "Usage.input_tokens: expected"),
    (m.Usage, {"input_tokens": -1}, "a whole number of 0 or more"),
    (m.Plan, {"run_id": "r", "task": "t", "subagent": "s", "phases": "draft"}, "Plan.phases: expected a list"),
    (m.Plan, {"run_id": "r", "task": "t", "subagent": "s", "phases": ["drafts"]}, "Plan.phases[0]: expected one of"),
    (m.Plan, {"run_id": "r", "task": "t", "subagent": "s", "seats": [{"name": 1}]}, "Plan.seats[0].name: expected"),
    (m.Message, {"role": "user", "content": [{"type": "Text", "text": "x"}]}, "Message.content[0].type: expected one"),
    (m.Message, {"role": "user", "content": [{"type": "TextPart", "text": 1}]}, "Message.content[0].text: expected"),
    (m.Draft, {"seat": "s", "error": {"type": "RateLimited", "message": "x", "status": "4"}}, "Draft.error.status"),
    (RunError, {"type": "RateLimited", "message": "x"}, "RunError.type: expected a RunError"),
    (events.Event, {"type": "TextDeltas"}, "did you mean 'TextDelta'"),
    (m.Critique, {"seat": "s", "labels": {"A": None}}, "Critique.labels.A: expected a string"),
]


@pytest.mark.parametrize(("cls", "data", "expected"), REFUSED)
def test_an_invalid_value_is_refused_with_its_path(cls: Any, data: Any, expected: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        load(cls, data)
    assert expected in caught.value.message


def test_an_unknown_key_is_refused_with_a_near_name() -> None:
    with pytest.raises(UnknownOption, match=r"Draft\.elapsd: is not known; did you mean 'elapsed'\?"):
        load(m.Draft, {"seat": "s", "elapsd": 1})
    with pytest.raises(UnknownOption, match=r"Plan\.budget\.deadlin"):
        load(m.Plan, {"run_id": "r", "task": "t", "subagent": "s", "budget": {"deadlin": 1}})


@given(strategies.json_values())
def test_any_json_is_loaded_or_refused_with_a_typed_error(value: Any) -> None:
    for cls in (m.Plan, m.Message, m.GenerateResponse, events.Event, CouncilError, Part, tuple[m.Draft, ...]):
        for data in (value, {"seat": value}, {"type": value, "message": value}, {"role": value, "content": value}):
            try:
                load(cls, data)
            except (InvalidOption, UnknownOption) as error:
                assert error.message  # noqa: PT017


def test_a_subclass_does_not_change_how_its_base_is_dumped() -> None:
    before = dump(m.Cost(usd=1.0))

    @attrs.frozen(kw_only=True)
    class Priced(m.Cost):
        currency: str = "USD"

    assert dump(m.Cost(usd=1.0)) == before
    assert load(Priced, dump(Priced(usd=1.0))) == Priced(usd=1.0)


def test_a_result_is_loaded_as_it_was() -> None:
    from llm_council import results

    @examples(15)
    @given(strategies.plans(), strategies.responses(), strategies.errors(RunError))
    def law(plan: m.Plan, response: m.GenerateResponse, error: RunError) -> None:
        call = results.CallReport(phase=m.Phase.DRAFT, response=response, error=error)
        seat = results.SeatReport(name="a", provider="p", calls=(call,))
        facts = {"run_id": "r", "task": "t", "subagent": "advisor", "status": "failed", "plan": plan}
        result = results.CouncilResult(**facts, error=error, seats=[seat], output={"a": [1]}, errors={"a": error})
        assert same(results.CouncilResult.from_dict(through_json(result)), result)

    law()
