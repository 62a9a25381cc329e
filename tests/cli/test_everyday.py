"""The commands of every day: dry runs, the list of providers, stored runs by short names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import pytest

import llm_council
from llm_council import CouncilConfig
from llm_council._engine.estimate import estimate
from llm_council.cli._plan import as_lines
from llm_council.models import GenerateRequest, GenerateResponse
from llm_council.providers import registry
from llm_council.providers.base import ProviderAdapter, ProviderCapabilities
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import SCRIPT, Council


@pytest.fixture(autouse=True)
def _wide(new_user: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def configure(text: str) -> None:
    path = Path(os.environ["XDG_CONFIG_HOME"], "llm-council", "config.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_dry_run_prints_five_lines_with_calls_tokens_and_a_cost_bound(council: Council, seat: object) -> None:
    code, out, err = council("run", "--dry-run", "Where is it?", "-p", "scripted:3", "--budget-usd", "0.5")
    assert (code, err) == (0, "")
    lines = dict(line.split(None, 1) for line in out.splitlines())
    assert list(lines) == ["task", "seats", "calls", "tokens", "cost"]
    assert lines["task"] == "Where is it? (for advisor)"
    assert lines["seats"].startswith("scripted-1, scripted-2, scripted-3; auto chose 'synthesize': ")
    assert lines["calls"].startswith("6: 2 drafts, 3 critiques, 1 synthesis; up to 2 repairs; up to 2 retries")
    assert " in and 8,000 out, if no answer is longer than 1,000 tokens" in lines["tokens"]
    assert lines["cost"].startswith("unknown for scripted-1, scripted-2, scripted-3 (no price is known")
    assert lines["cost"].endswith("; the run stops at $0.5")


def test_a_dry_run_names_many_seats_of_one_model_in_short(council: Council, seat: object) -> None:
    _, out, _ = council("run", "--dry-run", "Where?", "-p", "scripted:9,scripted/b")
    lines = dict(line.split(None, 1) for line in out.splitlines())
    assert lines["seats"].startswith("scripted-1 to scripted-9, scripted/b; ")
    assert lines["cost"].startswith("unknown for scripted-1 to scripted-9, scripted/b (")


def test_a_dry_run_without_notes_ends_the_line_of_seats_with_a_name() -> None:
    asked = llm_council.Council(["local:2"], config=CouncilConfig())
    plan = attrs.evolve(asked.plan("Where?"), notes=())
    assert as_lines(plan, estimate(plan, asked._price), {}).splitlines()[1] == "seats   local-1, local-2"


def test_a_dry_run_says_which_keys_are_missing_and_ends_with_0(council: Council) -> None:
    code, out, err = council("run", "--dry-run", "Where?", "-p", "openai,groq/m")
    assert code == 0
    assert out.startswith("task ")
    assert "the run could not start yet: 2 keys are missing: set OPENAI_API_KEY (openai), GROQ_API_KEY (groq)" in err


@pytest.mark.parametrize(
    ("seats", "is_offered"), [("own/m", False), ("scripted", False), ("openai/m", True), ("own/m,openai/m", True)]
)
def test_a_dry_run_offers_the_table_of_prices_only_where_it_may_help(
    council: Council, seat: object, monkeypatch: pytest.MonkeyPatch, seats: str, is_offered: bool
) -> None:
    monkeypatch.setattr("llm_council.pricing.load", lambda: None)
    configure('[providers.own]\nkind = "openai-compatible"\nbase_url = "https://llm.example.com/v1"\n')
    _, out, _ = council("run", "--dry-run", "Where?", "-p", seats)
    assert "no price is known" in out
    assert ("llm-council-sdk[prices]" in out) == is_offered


def test_a_dry_run_as_json_holds_the_whole_plan_and_the_estimate(council: Council, seat: object) -> None:
    _, out, _ = council("run", "--dry-run", "Where?", "-p", "scripted:3", "--json")
    plan = json.loads(out)
    assert plan["estimate"]["calls"] == {"draft": 2, "critique": 3, "synthesise": 1, "repair": 2}
    assert plan["prompts"]["system"]


def test_a_dry_run_of_local_seats_says_that_they_cost_nothing(council: Council) -> None:
    configure('[providers.own]\nkind = "openai-compatible"\nbase_url = "http://127.0.0.1:9/v1"\n')
    _, out, _ = council("run", "--dry-run", "Where?", "-p", "ollama/a,local:2,own/m")
    assert out.splitlines()[-1] == "cost    nothing for seats on your own machines"


def test_the_bound_of_the_cost_is_never_rounded_down(council: Council) -> None:
    pytest.importorskip("genai_prices")
    code, out, _ = council("run", "--dry-run", "Where?", "-p", "openai/gpt-5-mini", "--json")
    usd = json.loads(out)["estimate"]["usd"]
    assert code == 0
    line = council("run", "--dry-run", "Where?", "-p", "openai/gpt-5-mini")[1].splitlines()[-1]
    shown = float(line.split("$")[1].split()[0])
    assert usd <= shown <= usd * 1.1


def test_local_seats_cost_nothing_and_verbose_says_so(council: Council) -> None:
    class Server(ScriptedProvider):
        name = "ollama"

    with registry.overriding(ollama=Server(SCRIPT)):
        code, out, err = council("run", "Where?", "-p", "ollama:3", "--json", "-v")
    cost = json.loads(out)["cost"]
    assert code == 0
    assert (cost["usd"], cost["complete"]) == (0.0, True)
    assert "cost $0: local seats cost nothing" in err


class Plugin(ProviderAdapter):
    name = "plugged"
    capabilities = ProviderCapabilities()
    API_KEY_ENV = "PLUGGED_KEY"

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        return GenerateResponse(text="yes")


def test_providers_lists_configured_and_registered_ones_and_which_variables_are_set(
    council: Council, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    registry.register_provider("plugged", Plugin)
    monkeypatch.setenv("PLUGGED_KEY", "x")
    configure('[providers.gateway]\nkind = "vllm"\napi_key = "${GATEWAY_KEY}"\n[providers.fast]\nkind = "vllm"\n')
    code, out, err = council("providers")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split() for line in out.splitlines()}
    assert list(rows)[1:3] == ["gateway", "fast"]
    assert rows["gateway"][8:11] == ["GATEWAY_KEY,", "not", "set"]
    assert "set GATEWAY_KEY" in out
    assert rows["fast"][8:10] == ["VLLM_API_KEY,", "optional"]
    assert rows["plugged"][8:10] == ["PLUGGED_KEY,", "set"]
    assert rows["openai"][8:11] == ["OPENAI_API_KEY,", "not", "set"]
    found = {info["name"]: info for info in json.loads(council("providers", "--json")[1])}
    assert found["gateway"]["kind"] == "configured"
    assert "GATEWAY_KEY" in found["gateway"]["error"]
    assert (found["plugged"]["key_is_set"], found["openai"]["key_is_set"]) == (True, False)


def test_providers_are_listed_even_if_the_configuration_is_broken(council: Council) -> None:
    configure("[council")
    code, out, err = council("providers")
    assert code == 0
    assert "openai" in out
    assert err.startswith("council: the configuration is left out: ")


def test_stored_runs_are_found_by_last_and_by_a_unique_beginning(
    council: Council, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_COUNCIL_STORE", "runs.db")
    code, _, err = council("runs", "show", "last")
    assert code == 1
    assert "there is no run store" in err or "no run" in err
    first = json.loads(council("run", "First?", "-p", "scripted:3", "--json")[1])["run_id"]
    second = json.loads(council("run", "Second?", "-p", "scripted:3", "--json")[1])["run_id"]
    assert "Second?" in council("runs", "show", "last")[1]
    for name, task in ((first, "First?"), (first[:8], "First?"), (second[:8], "Second?")):
        assert json.loads(council("replay", name, "--json")[1])["task"] == task
        assert json.loads(council("resume", name, "--json")[1])["task"] == task
        assert json.loads(council("runs", "export", name)[1])["plan"]["task"] == task
    code, _, err = council("runs", "show", "zz")
    assert (code, "no run zz is stored here; `council runs list` lists them" in err) == (1, True)
    assert council("runs", "purge", "last")[1] == "1 run deleted\n"
    assert "First?" in council("runs", "show", "last")[1]


def test_an_ambiguous_beginning_lists_the_runs(
    council: Council, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_council._engine import plan

    monkeypatch.setenv("LLM_COUNCIL_STORE", "runs.db")
    for run_id in ("aa_1", "aax1", "aax"):
        monkeypatch.setattr(plan.secrets, "token_hex", lambda _, run_id=run_id: run_id)
        assert council("run", "Where?", "-p", "scripted")[0] == 0
    code, _, err = council("runs", "show", "aa")
    assert code == 1
    assert "3 runs begin with aa: aax, aax1, aa_1; give more of the id" in err
    assert council("runs", "show", "aax")[1].split()[1] == "aax,"
    assert council("runs", "show", "aa_")[1].split()[1] == "aa_1,"


def test_show_is_readable(council: Council, seat: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COUNCIL_STORE", "runs.db")
    council("run", "Where   is\nit?", "-p", "scripted/one,scripted/two,scripted")
    code, out, _ = council("runs", "show", "last")
    head, calls, answer = out.split("\n\n", 2)
    assert code == 0
    facts = dict(line.split(None, 1) for line in head.splitlines())
    assert facts["task"] == "Where is it? (for advisor)"
    assert facts["seats"] == "scripted/one (one), scripted/two (two), scripted"
    assert facts["took"].endswith("cost unknown")
    assert calls.splitlines()[0].split() == ["call", "state", "time", "note"]
    assert calls.splitlines()[1].split()[:2] == ["draft/scripted/one/1", "answered"]
    assert answer == "answer: Paris\nreasoning: It is the seat of government.\n"


def test_doctor_without_any_provider_still_checks_the_installation(
    council: Council, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_council.cli import _commands

    monkeypatch.setattr(_commands, "check_installation", lambda: ["something is broken"])
    code, out, err = council("doctor")
    assert (code, out) == (2, "installation: something is broken\n")
    assert "set a key" in err


def test_a_role_file_is_named_by_its_path(council: Council, seat: ScriptedProvider) -> None:
    Path("my roles").mkdir()
    Path("my roles/teacher.toml").write_text(
        'system = "You teach."\n[modes.explain]\ninstructions = "Explain."\n[modes.quiz]\ninstructions = "Ask."\n'
    )
    code, out, _ = council("run", "./my roles/teacher.toml", "Bees", "-p", "scripted", "--mode", "quiz", "--json")
    result = json.loads(out)
    assert (code, result["subagent"], result["mode"]) == (0, "teacher", "quiz")
    assert seat.requests[0].turns()[0].text.startswith("You teach.\n\nAsk.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["./none.toml", "Bees"], "none.toml"),
        (["./none.toml"], 'no task given; try: council run ./none.toml "..."'),
        (["./broken.toml", "Bees"], "line 2"),
    ],
)
def test_a_wrong_role_file_is_refused_before_anything_is_sent(
    council: Council, seat: ScriptedProvider, words: list[str], message: str
) -> None:
    Path("broken.toml").write_text('system = "You edit."\ncritique =\n')
    code, out, err = council("run", *words, "-p", "scripted")
    assert (code, out) == (2, "")
    assert message in err
    assert seat.requests == []


def test_a_role_file_that_replaces_a_built_in_role_says_so(council: Council, seat: ScriptedProvider) -> None:
    configure('[subagents]\npaths = ["roles"]\n')
    Path("roles").mkdir()
    Path("roles/advisor.toml").write_text('description = "Mine."\nsystem = "Mine."\n')
    code, out, err = council("run", "Bees", "-p", "scripted")
    assert code == 0
    assert "council: the subagent advisor is that of roles/advisor.toml, not the built-in one" in err
    assert "the subagent" not in out
    (row,) = [line for line in council("subagents")[1].splitlines() if line.startswith("advisor ")]
    assert row.endswith("Mine. (replaces the built-in one: roles/advisor.toml)")
