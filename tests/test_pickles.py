"""Councils in pickles and copies: names and configuration travel, adapters and keys do not."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from llm_council import Budget, Council, CouncilConfig, Event, errors
from llm_council.testing.fakes import ScriptedProvider

CANARY = "canary-in-the-coal-mine"
GATEWAY = {"kind": "openai-compatible", "base_url": "http://127.0.0.1:9/v1", "default_model": "m"}


class Ready(ScriptedProvider):
    """A provider that a name or its class can seat."""

    name = "ready"

    def __init__(self) -> None:
        super().__init__({"*": json.dumps({"answer": "Paris", "reasoning": "x"})})


def hear(event: Event) -> None:
    heard.append(event.type)


heard: list[str] = []


def test_a_council_of_names_pickles_its_seats_configuration_and_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    council = Council(["openai/gpt-5", "openai:2"], chair="openai-1", budget=Budget(usd=0.5), listeners=[hear])
    written = pickle.dumps(council)
    again = pickle.loads(written)
    assert (again.providers, again.config) == (council.providers, council.config)
    assert CANARY.encode() not in written
    with pytest.raises(errors.InvalidOption):
        again.run("")


def test_a_pickled_council_runs() -> None:
    heard.clear()
    again = pickle.loads(pickle.dumps(Council([Ready], config=CouncilConfig(), listeners=[hear])))
    assert again.run("Where?").output["answer"] == "Paris"
    assert heard[-1] == "RunFinished"


def test_the_copy_has_the_same_seats_where_other_keys_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", CANARY)
    council = Council(config=CouncilConfig())
    written = pickle.dumps(council)
    monkeypatch.delenv("OPENROUTER_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    again = pickle.loads(written)
    assert again.providers == council.providers
    with pytest.raises(errors.MissingCredentials, match="OPENROUTER_API_KEY"):
        again.run("Where?")


def test_a_council_that_holds_adapters_names_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"adapter instances \(Ready\): name its providers"):
        pickle.dumps(Council([Ready()], config=CouncilConfig()))


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": CANARY},
        {"api_key": "${GATEWAY_KEY}"},
        {"api_key": "${GATEWAY_KEY}", "headers": {"Authorization": f"Bearer {CANARY}"}},
    ],
)
def test_no_key_of_a_configuration_is_in_a_pickle(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_KEY", CANARY)
    config = CouncilConfig(instances={"gateway": {**GATEWAY, **options}}, providers=("gateway",))
    council = Council(config=config)
    assert CANARY.encode() not in pickle.dumps(council) + pickle.dumps(config)
    assert CANARY not in repr(config)


def test_a_key_that_stood_in_the_configuration_is_asked_for_where_the_pickle_is_used() -> None:
    config = CouncilConfig(instances={"gateway": {**GATEWAY, "api_key": CANARY}})
    written = pickle.dumps(Council(["gateway"], config=config))
    with pytest.raises(errors.MissingCredentials, match=r"\[providers\.gateway\].*\$\{VARIABLE\}"):
        pickle.loads(written)


def test_a_key_in_another_field_is_refused() -> None:
    address = f"https://user:{CANARY}@llm.example.com/v1"
    config = CouncilConfig(instances={"other": {**GATEWAY, "base_url": address}})
    with pytest.raises(TypeError, match=r"\$\{VARIABLE\}") as caught:
        pickle.dumps(Council([Ready], config=config))
    assert CANARY not in str(caught.value)


def test_copies_of_a_council_work_with_adapters_too() -> None:
    council = Council([Ready()], config=CouncilConfig())
    for twin in (copy.copy(council), copy.deepcopy(council)):
        assert twin.providers == council.providers
        assert twin.run("Where?").success
