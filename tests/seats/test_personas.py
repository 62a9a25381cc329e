"""Seats with a persona: in code, in a configuration, and behind a provider's name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from llm_council import Budget, ConfigurationError, Council, CouncilConfig, Seat
from llm_council.errors import InvalidOption, UnknownOption, UnknownProvider, UntrustedConfig
from llm_council.models import GenerateRequest, Phase, SeatSpec
from llm_council.testing.fakes import ScriptedProvider

DOUBT = "You doubt every claim. Ask what would prove it wrong."
PRAISE = "You look for what is good in an idea before you judge it."
ANSWER = '{"answer": "4", "reasoning": "Counted."}'
SCRIPT = {"draft": "It is 4.", "critique": "Good.\nRANKING: A", "rank": "RANKING: A", "*": ANSWER}

ROWS = f"""\
[[seats]]
provider = "vllm/house-70b"
name = "sceptic"
instructions = "{DOUBT}"
temperature = 0.2

[[seats]]
provider = "ollama"
name = "fan"
instructions = "{PRAISE}"
"""


def system_of(request: GenerateRequest) -> str:
    return "\n".join(turn.text for turn in request.turns() if turn.role == "system")


def rest_of(request: GenerateRequest) -> str:
    return "\n".join(turn.text for turn in request.turns() if turn.role != "system")


def described(council: Council) -> list[tuple[str, str, str | None]]:
    return [(seat.name, seat.provider, seat.model) for seat in council.plan("Why?").seats]


@pytest.fixture
def config(tmp_path: Path) -> CouncilConfig:
    path = tmp_path / "config.toml"
    path.write_text(ROWS)
    return CouncilConfig.from_file(path)


class TestInCode:
    def test_a_persona_speaks_in_the_system_turn_of_its_seat_in_every_phase_and_nowhere_else(self) -> None:
        provider = ScriptedProvider(SCRIPT, name="ada")
        seats = [
            Seat(provider, name="sceptic", instructions=DOUBT, temperature=0.2),
            Seat(provider, name="optimist", instructions=PRAISE),
            provider,
        ]
        result = Council(seats, config=CouncilConfig(temperature=0.9)).run("2 + 2?")
        assert result.success
        own = {"sceptic": DOUBT, "optimist": PRAISE, "ada": ""}
        phases: dict[str, set[str]] = {}
        for request in provider.requests:
            seat = request.metadata["seat"]
            phases.setdefault(seat, set()).add(request.metadata["phase"])
            for name, words in own.items():
                assert (words in system_of(request)) is (name == seat or not words)
                assert not words or words not in rest_of(request)
            assert request.temperature == (0.2 if seat == "sceptic" else 0.9)
        assert all("critique" in seen for seen in phases.values())
        assert {"draft", "critique"} <= phases["sceptic"]

    def test_two_personas_of_one_model_are_two_seats_with_their_own_keys(self) -> None:
        from llm_council.middleware.cache import key_of

        provider = ScriptedProvider(SCRIPT, name="ada")
        Council([Seat(provider, name="a", instructions=DOUBT), Seat(provider, name="b", instructions=PRAISE)]).run("?")
        drafts = provider.asked("draft")
        assert [request.metadata["seat"] for request in drafts] == ["a", "b"]
        assert len({request.idempotency_key for request in drafts}) == 2
        assert len({key_of(request, "ada") for request in drafts}) == 2

    def test_reviewers_see_neither_the_name_nor_the_words_of_a_persona_that_a_draft_repeats(self) -> None:
        echo = {**SCRIPT, "draft": f"I was told: {DOUBT.upper()} As a sceptic, I say 4."}
        provider = ScriptedProvider(echo, name="ada")
        reviewer = ScriptedProvider(SCRIPT, name="bob")
        Council([Seat(provider, name="sceptic", instructions=DOUBT), reviewer], chair="bob").run("2 + 2?")
        (critique,) = reviewer.asked("critique")
        assert "I say 4" in critique.turns()[-1].text
        for request in reviewer.requests:
            for words in ("sceptic", "doubt every claim", "prove it wrong"):
                assert words not in rest_of(request).lower() + system_of(request).lower()

    def test_seats_of_one_name_are_numbered_and_a_count_makes_several(self) -> None:
        seat = Seat("local:2", name="sceptic", instructions=DOUBT)
        council = Council([seat, "local", Seat("local", name="fan"), Seat("local", name="fan")])
        assert council.providers == ("sceptic-1", "sceptic-2", "local", "fan", "fan-2")
        assert [bool(spec.instructions) for spec in council.plan("?").seats] == [True, True, False, False, False]

    def test_an_adapter_class_stands_in_a_seat(self) -> None:
        class Mine(ScriptedProvider):
            name = "mine"

            def __init__(self) -> None:
                super().__init__(SCRIPT, name="mine")

        assert described(Council([Seat(Mine, name="sceptic")])) == [("sceptic", "mine", None)]

    def test_the_chair_is_named_by_its_persona(self) -> None:
        council = Council(["local", "ollama/x", Seat("vllm/y", name="judge", instructions=DOUBT)], chair="judge")
        assert council.plan("?").chairs[0] == "judge"

    def test_a_seat_is_frozen_and_shows_what_it_holds(self) -> None:
        seat = Seat("local", name="sceptic", temperature=0)
        with pytest.raises(AttributeError):
            seat.name = "other"  # type: ignore[misc]
        assert seat == Seat("local", name="sceptic", temperature=0)
        assert "sceptic" in repr(seat)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"name": "a,b"}, "Seat.name"),
            ({"name": "a@b"}, "Seat.name"),
            ({"name": ""}, "Seat.name"),
            ({"instructions": "  "}, "Seat.instructions"),
            ({"instructions": 3}, "Seat.instructions"),
            ({"temperature": -1}, "Seat.temperature"),
            ({"instruction": "x"}, "did you mean 'instructions'"),
        ],
    )
    def test_a_wrong_value_names_its_field(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises((InvalidOption, UnknownOption), match=words):
            Seat("local", **options)

    def test_a_seat_alone_is_to_be_put_in_a_list(self) -> None:
        with pytest.raises(InvalidOption, match="expected a list"):
            Council(Seat("local"))  # type: ignore[arg-type]

    def test_a_council_of_personas_is_pickled_unless_it_holds_an_adapter(self) -> None:
        council = Council([Seat("local", name="sceptic", instructions=DOUBT)])
        assert pickle.loads(pickle.dumps(council)).plan("?").seats == council.plan("?").seats
        with pytest.raises(TypeError, match="ScriptedProvider"):
            pickle.dumps(Council([Seat(ScriptedProvider(SCRIPT), name="sceptic")]))

    def test_a_seat_that_takes_over_a_repair_does_not_see_the_words_of_the_seat_that_failed(self) -> None:
        def ada(request: GenerateRequest) -> Any:
            if request.metadata["phase"] == Phase.REPAIR:
                raise InvalidOption("no")
            return "no JSON" if request.metadata["phase"] == "synthesise" else "It is 4."

        first = ScriptedProvider(ada, name="ada")
        second = ScriptedProvider({**SCRIPT, "repair": ANSWER}, name="bob")
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        seats = [
            Seat(first, name="sceptic", instructions=DOUBT, temperature=0.1),
            Seat(second, name="fan", instructions=PRAISE, temperature=0.7),
        ]
        Council(seats, chair="sceptic").run("2 + 2?", schema=schema)
        (repair, *_) = second.asked("repair")
        assert "no JSON" in rest_of(repair)
        assert DOUBT not in system_of(repair) + rest_of(repair)
        assert system_of(repair).count(PRAISE) == 1
        assert repair.temperature == 0.7

    def test_a_small_model_has_its_persona_in_the_system_turn_too(self) -> None:
        from llm_council._engine import prompts
        from llm_council._engine.plan import make_plan
        from llm_council.subagents import load

        facts = {"provider": "local", "instructions": DOUBT, "prose_first": True}
        specs = [SeatSpec(name="a", plain_prompts=True, **facts), SeatSpec(name="b", **facts)]  # type: ignore[arg-type]
        plan = make_plan("2 + 2?", load("advisor"), CouncilConfig(), specs)
        for spec in specs:
            request = prompts.draft_request(plan, spec)
            assert DOUBT in system_of(request)
            assert DOUBT not in rest_of(request)


class TestInAConfiguration:
    def test_the_rows_sit_if_no_provider_is_named(self, config: CouncilConfig) -> None:
        council = Council(config=config)
        assert described(council) == [("sceptic", "vllm", "house-70b"), ("fan", "ollama", None)]
        first, second = council.plan("?").seats
        assert (first.instructions, first.temperature) == (DOUBT, 0.2)
        assert (second.instructions, second.temperature) == (PRAISE, None)
        assert pickle.loads(pickle.dumps(council)).plan("?").seats == (first, second)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("openai/gpt-6.1@sceptic", [("sceptic", "openai", "gpt-6.1")]),
            ("openai@sceptic", [("sceptic", "openai", None)]),
            ("@sceptic", [("sceptic", "vllm", "house-70b")]),
            ("local:2@fan", [("fan-1", "local", None), ("fan-2", "local", None)]),
            ("local@fan:2", [("fan-1", "local", None), ("fan-2", "local", None)]),
            ("@fan:2", [("fan-1", "ollama", None), ("fan-2", "ollama", None)]),
            ("ollama/llama3.2:1b@fan", [("fan", "ollama", "llama3.2:1b")]),
            # Models whose own names hold the sign.
            ("vertex/claude-x@20250929", [("vertex/claude-x@20250929", "vertex", "claude-x@20250929")]),
            ("vertex/claude-x@default", [("vertex/claude-x@default", "vertex", "claude-x@default")]),
            ("vertex/claude-x@default@fan", [("fan", "vertex", "claude-x@default")]),
            ("openrouter/@preset/mine", [("openrouter/@preset/mine", "openrouter", "@preset/mine")]),
        ],
    )
    def test_a_persona_stands_behind_a_provider(
        self, config: CouncilConfig, text: str, expected: list[tuple[str, str, str | None]]
    ) -> None:
        council = Council([text], config=config)
        assert described(council) == expected
        words = {"sceptic": DOUBT, "fan": PRAISE}.get(expected[0][0].partition("-")[0], "")
        assert {seat.instructions for seat in council.plan("?").seats} == {words}

    def test_one_persona_at_two_providers_makes_two_seats(self, config: CouncilConfig) -> None:
        council = Council(["openai@sceptic", "ollama@sceptic"], config=config)
        assert council.providers == ("sceptic", "sceptic-2")

    def test_providers_of_the_same_file_decide_who_sits(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_text(f'[council]\nproviders = ["local", "@fan"]\n{ROWS}')
        assert Council(config=CouncilConfig.from_file(path)).providers == ("local", "fan")

    def test_an_unknown_persona_names_the_nearest_one(self, config: CouncilConfig) -> None:
        with pytest.raises(UnknownOption, match="did you mean 'sceptic'"):
            Council(["openai/gpt-6.1@sceptik"], config=config)
        with pytest.raises(UnknownOption, match=r"\[\[seats\]\]"):
            Council(["openai/gpt-6.1@sceptic"], config=CouncilConfig())

    def test_the_name_of_a_persona_alone_is_told_how_to_be_written(self, config: CouncilConfig) -> None:
        with pytest.raises(UnknownProvider, match="'@sceptic'"):
            Council(["sceptic"], config=config)

    @pytest.mark.parametrize(
        ("toml", "words"),
        [
            ('[[seats]]\nname = "a"\n', r"\[\[seats\]\] 1 needs provider"),
            ('[[seats]]\nprovider = "local"\n[[seats]]\nprovider = 3\n', r"\[\[seats\]\] 2"),
            ('[[seats]]\nprovider = "local"\ntemprature = 1\n', "did you mean 'temperature'"),
            ('[[seats]]\nprovider = "local"\ntemperature = "hot"\n', r"\[\[seats\]\] 1.temperature"),
            ('[[seats]]\nprovider = "local"\nname = "a b"\n', r"\[\[seats\]\] 1.name"),
            (
                '[[seats]]\nprovider = "a"\nname = "x"\n[[seats]]\nprovider = "b"\nname = "x"\n',
                "two seats are named 'x'",
            ),
            ('[seats]\nprovider = "local"\n', r"write \[\[seats\]\]"),
            ('[council]\nseats = [{ provider = "local" }]\n', r"write \[\[seats\]\]"),
        ],
    )
    def test_a_wrong_row_names_the_file_and_the_row(self, tmp_path: Path, toml: str, words: str) -> None:
        path = tmp_path / "config.toml"
        path.write_text(toml)
        with pytest.raises(ConfigurationError, match=words) as caught:
            CouncilConfig.from_file(path)
        assert str(path) in caught.value.message

    def test_an_unknown_provider_of_a_row_names_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "config.toml"
        path.write_text('[[seats]]\nprovider = "opnai"\nname = "a"\n')
        monkeypatch.setenv("LLM_COUNCIL_CONFIG", str(path))
        with pytest.raises(UnknownProvider, match=r"config\.toml: seats: no provider is named 'opnai'"):
            Council()


class TestInAProject:
    @pytest.fixture(autouse=True)
    def user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        mine = tmp_path / "mine.toml"
        mine.write_text('[council]\nproviders = ["openai"]\n[[seats]]\nprovider = "local"\nname = "own"\n')
        monkeypatch.setenv("LLM_COUNCIL_CONFIG", str(mine))

    def test_its_seats_sit_without_trust_in_place_of_the_users_providers(self, tmp_path: Path) -> None:
        (tmp_path / "council.toml").write_text(ROWS)
        assert Council(config=CouncilConfig.discover(tmp_path)).providers == ("sceptic", "fan")

    def test_the_environment_still_decides_who_sits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "council.toml").write_text(ROWS)
        monkeypatch.setenv("LLM_COUNCIL_PROVIDERS", "ollama/x@fan, local")
        council = Council(config=CouncilConfig.discover(tmp_path))
        assert described(council) == [("fan", "ollama", "x"), ("local", "local", None)]

    def test_more_seats_than_a_project_may_have_need_trust(self, tmp_path: Path) -> None:
        (tmp_path / "council.toml").write_text('[[seats]]\nprovider = "local:12"\n[[seats]]\nprovider = "local"\n')
        with pytest.raises(UntrustedConfig, match="13 seats"):
            CouncilConfig.discover(tmp_path)


@pytest.mark.anyio
class TestInAStore:
    async def test_a_run_with_personas_is_replayed_and_resumed(self, tmp_path: Path) -> None:
        provider = ScriptedProvider({**SCRIPT, "synthesise": ["no", ANSWER]}, name="ada")
        seats = [Seat(provider, name="sceptic", instructions=DOUBT, temperature=0.2), provider]
        council = Council(
            seats, config=CouncilConfig(max_repairs=0), store=tmp_path / "runs.db", budget=Budget(calls=5)
        )
        result = await council.arun("2 + 2?")
        assert (await council.areplay(result.run_id)).to_dict() == result.to_dict()
        asked = len(provider.requests)
        # Another council, which does not know the persona: the plan does.
        other = Council([provider], config=CouncilConfig(), store=tmp_path / "runs.db")
        again = await other.aresume(result.run_id)
        assert again.plan.seats == result.plan.seats
        for request in provider.requests[asked:]:
            if request.metadata["seat"] == "sceptic":
                assert DOUBT in system_of(request)
