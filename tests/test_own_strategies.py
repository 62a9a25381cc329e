"""Strategies as users choose and write them: names, options, configuration, distributions, stored runs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import anyio
import attrs
import pytest

from llm_council import Council, CouncilConfig, strategies
from llm_council.cli import main
from llm_council.cli._plugin_faults import plugin_faults
from llm_council.errors import AuthenticationFailed, InvalidOption, PluginLoadError, StoreError, UnknownOption
from llm_council.models import Budget, Phase, Status
from llm_council.models._attrs import positive_int, strict_init
from llm_council.providers import registry
from llm_council.results.plain import vote_line
from llm_council.store import Store
from llm_council.strategies import (
    Poll,
    Rank,
    Roster,
    Single,
    Steps,
    Strategy,
    Table,
    Verdict,
    get_strategy,
    list_strategies,
)
from llm_council.strategies._find import BUILT_IN
from llm_council.testing.fakes import ScriptedProvider

TEXT = {"type": "string"}

PLUGIN = '''
import attrs
from llm_council.models import Phase
from llm_council.strategies import Roster, Steps, Strategy, Table, Verdict


@attrs.frozen(kw_only=True)
class Doubted(Strategy):
    """Return the draft that most other seats find right."""

    name = "doubted"
    doubts: int = 1

    def plan(self, roster):
        names = roster.names
        return Steps(
            phases=[Phase.DRAFT, Phase.JUDGE],
            most_calls=len(names) * (1 + self.doubts),
            drafters=names,
            asks={Phase.JUDGE: names * self.doubts},
        )

    async def deliberate(self, table):
        drafts = await table.draft()
        for number in range(self.doubts):
            await table.ask_all([])
            for name in table.seats:
                await table.ask(name, "Right?", show=drafts, phase=Phase.JUDGE, round=number)
        return await table.finish(table.random("choice").choice(drafts))
'''


@strict_init
@attrs.frozen(kw_only=True)
class Second(Strategy):
    """Ask a seat, then another one about its answer."""

    name: ClassVar[str] = "second"
    opinions: int = attrs.field(default=1, validator=positive_int)

    def plan(self, roster: Roster) -> Steps:
        return Steps(
            phases=[Phase.DRAFT, Phase.REVISE],
            most_calls=1 + self.opinions,
            drafters=roster.names[:1],
            asks={Phase.REVISE: roster.names[1 : 1 + self.opinions]},
        )

    async def deliberate(self, table: Table) -> Verdict:
        drafts = await table.draft()
        reply = await table.ask(table.seats[1], "Say it better.", show=drafts, phase=Phase.REVISE)
        return await table.finish(drafts[0] if reply.error else reply)


def seats() -> list[ScriptedProvider]:
    script = {"draft": "It is Paris.", "revise": "Paris.", "judge": "Yes.", "rank": "None."}
    return [ScriptedProvider(script, name=name) for name in ("ada", "bob", "cyd")]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a distribution with one strategy on the path, as pip would lay it out."""

    def install(
        module: str = PLUGIN, point: str = "doubted_pkg:Doubted", distribution: str = "council-doubted"
    ) -> None:
        site = tmp_path / distribution
        info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[llm_council.strategies]\ndoubted = {point}\n")
        (site / "doubted_pkg.py").write_text(module)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(__import__("sys").modules, "doubted_pkg", raising=False)

    return install


class TestNames:
    def test_every_built_in_strategy_is_listed_and_made_by_its_name(self) -> None:
        listed = {info.name: info for info in list_strategies()}
        public = [getattr(strategies, name) for name in strategies.__all__]
        classes = {one for one in public if isinstance(one, type) and issubclass(one, Strategy) and one is not Strategy}
        assert {type(get_strategy(name)) for name in listed} == classes
        assert all(get_strategy(name).name == name for name in listed)
        assert listed["rank"].aliases == ("vote",)
        assert get_strategy("vote") == Rank()
        assert all(info.summary.endswith(".") and info.error is None for info in listed.values())

    def test_the_names_that_files_may_use_are_those_of_the_strategies(self) -> None:
        from llm_council.config._environment import STRATEGIES

        built_in = [info for info in list_strategies() if info.source == "built-in"]
        assert {*STRATEGIES} == {name for info in built_in for name in (info.name, *info.aliases)}

    def test_an_unknown_name_or_option_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(InvalidOption, match="did you mean 'single'"):
            get_strategy("singel")
        with pytest.raises(UnknownOption, match="strategy 'single': Single takes no 'k'"):
            get_strategy("single", k=3)

    @pytest.mark.parametrize("wrong", [3, Single, ["single"]])
    def test_what_is_no_strategy_is_refused(self, wrong: object) -> None:
        with pytest.raises(InvalidOption, match="strategy"):
            Council(seats(), config=CouncilConfig(), strategy=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="strategy"):
            Council(seats(), config=CouncilConfig()).plan("Where?", strategy=wrong)  # type: ignore[arg-type]

    def test_a_class_without_a_name_is_refused(self) -> None:
        class Nameless(Strategy):
            def plan(self, roster: Roster) -> Steps:
                return Steps(phases=[Phase.DRAFT], most_calls=1, drafters=roster.names[:1])

            async def deliberate(self, table: Table) -> Verdict:
                return await table.finish((await table.draft())[0])

        with pytest.raises(InvalidOption, match="Nameless has no name: set the class attribute 'name'"):
            Council(seats(), config=CouncilConfig(), strategy=Nameless())
        with pytest.raises(InvalidOption, match="Nameless has no name: set the class attribute 'name'"):
            Council(seats(), config=CouncilConfig()).plan("Where?", strategy=Nameless())


class TestCouncil:
    def test_a_strategy_is_an_object_or_a_name_of_a_council_or_of_a_run(self) -> None:
        council = Council(seats(), config=CouncilConfig(), strategy=Second())
        assert council.config.strategy == "second"
        assert council.run("Where?", schema=TEXT).plan.strategy == "second"
        assert council.run("Where?", strategy="rank", schema=TEXT).plan.strategy == "rank"
        by_name = Council(seats(), config=CouncilConfig(), strategy="rank")
        assert by_name.run("Where?", "advisor", strategy=Second(), schema=TEXT).plan.strategy == "second"

    def test_a_council_with_a_strategy_is_copied_and_pickled_with_it(self) -> None:
        council = Council(["local:3"], config=CouncilConfig(), strategy=Second(opinions=2))
        copied = pickle.loads(pickle.dumps(council))
        assert copied.plan("Where?", schema=TEXT).strategy_options == {"opinions": 2}

    def test_two_strategies_of_one_name_in_one_council_do_not_mix(self) -> None:
        council = Council(seats(), config=CouncilConfig(), strategy=Second(opinions=2))
        assert council.plan("Where?", strategy=Second()).most_calls == 2
        assert council.plan("Where?").most_calls == 3


class TestStore:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "runs.db"

    @pytest.mark.anyio
    async def test_a_run_is_replayed_by_the_strategy_of_the_council(self, path: Path) -> None:
        council = Council(seats(), config=CouncilConfig(), store=path, strategy=Second())
        result = await council.arun("Where?", _prose())
        assert (result.status, result.output, result.chair) == (Status.COMPLETED, "Paris.", "bob")
        assert (await council.areplay(result.run_id)).to_dict() == result.to_dict()
        other = Council(seats(), config=CouncilConfig(), store=path)
        with pytest.raises(InvalidOption, match="no strategy 'second'"):
            await other.areplay(result.run_id)
        with pytest.raises(InvalidOption, match="no strategy 'second'"):
            await Council(seats(), config=CouncilConfig(), store=path, strategy=Second(opinions=2)).areplay(
                result.run_id
            )

    @pytest.mark.anyio
    async def test_a_failed_run_is_resumed_without_repeating_its_answers(self, path: Path, monkeypatch) -> None:
        class Broken(Second):
            async def deliberate(self, table: Table) -> Verdict:
                await super().deliberate(table)
                raise RuntimeError("power cut")

        providers = seats()
        broken = Council(providers, config=CouncilConfig(), store=path, strategy=Broken())
        failed = await broken.arun("Where?", _prose())
        assert failed.status is Status.FAILED
        whole = Council(providers, config=CouncilConfig(), store=path, strategy=Second())
        result = await whole.aresume(failed.run_id)
        assert (result.status, result.output) == (Status.COMPLETED, "Paris.")
        assert [len(provider.requests) for provider in providers] == [1, 1, 0]

    @pytest.mark.anyio
    async def test_a_strategy_that_asks_otherwise_cannot_replay(self, path: Path) -> None:
        class Other(Second):
            async def deliberate(self, table: Table) -> Verdict:
                await table.draft()
                return await table.finish(await table.ask("cyd", "Why?", phase=Phase.REVISE))

        council = Council(seats(), config=CouncilConfig(), store=path, strategy=Second())
        run_id = (await council.arun("Where?", _prose())).run_id
        with pytest.raises(StoreError, match="revise/cyd/1 was never answered"):
            await Council(seats(), config=CouncilConfig(), store=path, strategy=Other()).areplay(run_id)

    @pytest.mark.anyio
    async def test_a_vote_that_ended_early_is_replayed_as_it_was(self, path: Path) -> None:
        providers = [
            ScriptedProvider(f"ANSWER: {vote}", name=name, delay=delay)
            for name, vote, delay in (("ada", "yes", 0.02), ("bob", "yes", 0), ("cyd", "yes", 0), ("dan", "no", 600))
        ]
        council = Council(providers, config=CouncilConfig(seed="s"), store=path, strategy="poll")
        with anyio.fail_after(20):
            result = await council.arun("Prime?", schema={"type": "boolean"}, budget=Budget(deadline=None, quorum=3))
        assert result.tally is not None
        assert (result.status, result.output, result.tally.decided_after) == (Status.COMPLETED, True, 3)
        assert (await council.areplay(result.run_id)).to_dict() == result.to_dict()

    @pytest.mark.anyio
    async def test_a_seat_that_failed_before_a_vote_ended_early_is_counted_as_failed(self, path: Path) -> None:
        broken = ScriptedProvider(AuthenticationFailed("no such key"), name="ada")
        voters = [
            ScriptedProvider(f"ANSWER: {vote}", name=name, delay=delay)
            for name, vote, delay in (("bob", "yes", 0.02), ("cyd", "yes", 0.02), ("dan", "no", 600))
        ]
        council = Council([broken, *voters], config=CouncilConfig(seed="s"), store=path, strategy="poll")
        with anyio.fail_after(20):
            result = await council.arun("Prime?", schema={"type": "boolean"}, budget=Budget(deadline=None))
        assert result.tally is not None
        assert (result.tally.cast, result.tally.failed, result.tally.decided_after) == (2, 1, 3)
        assert vote_line(result) == "2 of 4 agree; 1 failed; 1 more could not have changed it"
        assert (await council.areplay(result.run_id)).to_dict() == result.to_dict()

    def test_runs_show_prints_the_vote_and_an_answer_of_no(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        voters = [ScriptedProvider(f"So: ANSWER: {vote}", name=name) for name, vote in (("ada", "no"), ("bob", "no"))]
        Council(voters, config=CouncilConfig(), store=path, strategy="poll").run("Prime?", schema={"type": "boolean"})
        monkeypatch.setattr("sys.argv", ["council", "runs", "show", "last", "--store", str(path)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        shown = capsys.readouterr().out
        assert "votes    2 of 2 agree" in shown
        assert shown.rstrip().splitlines()[-1] == "no"

    @pytest.mark.anyio
    async def test_a_run_that_abstained_is_stored_shown_and_not_resumed(self, path: Path) -> None:
        providers = [ScriptedProvider(f"ANSWER: {vote}", name=vote) for vote in ("yes", "no")]
        council = Council(providers, config=CouncilConfig(), store=path, strategy=Poll(abstain_below=0.6))
        result = await council.arun("Prime?", schema={"type": "boolean"}, budget=Budget(quorum=2))
        assert result.status is Status.ABSTAINED
        (info,) = await Store(path).runs()
        assert info.status == "abstained"
        for again in (await council.areplay(result.run_id), await council.aresume(result.run_id)):
            assert again.to_dict() == result.to_dict()
        assert [len(provider.requests) for provider in providers] == [1, 1]

    def test_the_calls_of_a_run_are_named_by_phase_seat_and_number(self, path: Path) -> None:
        result = Council(seats(), config=CouncilConfig(), store=path, strategy=Second()).run("Where?", _prose())
        shown = Store(path).show_sync(result.run_id)
        assert [call.name for call in shown.calls] == ["draft/ada/1", "revise/bob/1"]
        assert shown.plan.asks == {"revise": ("bob",)}


def _prose():
    from llm_council.subagents import Subagent

    return Subagent(name="writer")


class TestConfiguration:
    def test_a_table_gives_a_strategy_options_and_a_name(self, tmp_path: Path, plugin: Callable[..., None]) -> None:
        plugin()
        file = tmp_path / "config.toml"
        file.write_text(
            '[council]\nstrategy = "careful"\n[strategies.careful]\nkind = "doubted"\ndoubts = 2\n[strategies.rank]\n'
        )
        council = Council(seats(), config=CouncilConfig.from_file(file))
        plan = council.plan("Where?")
        assert (plan.strategy, plan.strategy_options, plan.most_calls) == ("doubted", {"doubts": 2}, 9)
        assert council.plan("Where?", strategy="rank").strategy == "rank"

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("[council]\nstrategy = 'mine'\n[strategies.mine]\nkind = 'rnak'", "[strategies.mine] needs kind"),
            ("[council]\nstrategy = 'mine'\n[strategies.mine]", "[strategies.mine] needs kind"),
            ("[strategies]\nmine = 'rank'", "[strategies.mine] must be a table of options"),
            ("[council]\nstrategy = 'main'\n[strategies.mine]\nkind = 'rank'", "did you mean 'mine'"),
        ],
    )
    def test_a_wrong_table_is_refused_with_the_name_of_the_file(self, tmp_path: Path, text: str, words: str) -> None:
        file = tmp_path / "config.toml"
        file.write_text(text)
        with pytest.raises(InvalidOption) as caught:
            CouncilConfig.from_file(file)
        assert str(file) in caught.value.message
        assert words in caught.value.message

    @pytest.mark.parametrize("line", ["kind = 'rnak'", "kind = 3", "k = 5"])
    def test_a_wrong_table_that_is_not_chosen_is_a_warning_until_it_is_used(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str
    ) -> None:
        file = tmp_path / "config.toml"
        file.write_text(f"[strategies.mine]\n{line}")
        council = Council(seats(), config=CouncilConfig.from_file(file))
        words = '[strategies.mine] needs kind = "...", the name of a strategy'
        assert f"{file}: {words}" in caplog.text
        assert council.plan("Where?").strategy == "auto"
        with pytest.raises(InvalidOption) as caught:
            council.plan("Where?", strategy="mine")
        assert words in caught.value.message

    def test_a_wrong_option_of_a_table_is_refused_when_a_run_is_planned(self, tmp_path: Path) -> None:
        config = CouncilConfig(strategy="mine", strategies={"mine": {"kind": "single", "k": 5}})
        with pytest.raises(UnknownOption, match="strategy 'single': Single takes no 'k'"):
            Council(seats(), config=config).plan("Where?")


class TestPlugins:
    def test_a_strategy_of_another_distribution_is_used_by_its_name(self, plugin: Callable[..., None]) -> None:
        plugin()
        (info,) = [info for info in list_strategies() if info.source != "built-in"]
        assert (info.name, info.source, info.summary) == (
            "doubted",
            "council-doubted",
            "Return the draft that most other seats find right.",
        )
        result = Council(seats(), config=CouncilConfig(), strategy="doubted").run("Where?", _prose())
        assert (result.status, result.output) == (Status.COMPLETED, "It is Paris.")

    def test_the_command_passes_options_to_a_strategy(
        self, plugin: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
    ) -> None:
        plugin()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        with registry.overriding(scripted=ScriptedProvider("Paris.", name="scripted")):
            words = ["run", "Where?", "-p", "scripted:3", "--strategy", "doubted", "--strategy-option", "doubts=2"]
            monkeypatch.setattr("sys.argv", ["council", *words, "--dry-run", "--json"])
            monkeypatch.setattr("sys.stdin", None)
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code
        plan = json.loads(capsys.readouterr().out)
        assert (plan["strategy"], plan["strategy_options"], plan["most_calls"]) == ("doubted", {"doubts": 2}, 9)
        assert plan["estimate"]["calls"] == {"draft": 3, "judge": 6}

    @pytest.mark.parametrize(
        ("module", "point", "words"),
        [
            ("raise SystemExit(3)", "doubted_pkg:Doubted", "cannot be imported: SystemExit: 3"),
            ("Doubted = 3", "doubted_pkg:Doubted", "doubted_pkg:Doubted is no Strategy class"),
            (PLUGIN, "doubted_pkg:Dobted", "cannot be imported: AttributeError"),
            (
                PLUGIN.replace('name = "doubted"', 'name = "sure"'),
                "doubted_pkg:Doubted",
                "the attribute 'name' of doubted_pkg:Doubted is 'sure': set it to the name of the entry point",
            ),
        ],
    )
    def test_a_broken_one_is_named_and_harms_no_other(
        self, plugin: Callable[..., None], module: str, point: str, words: str
    ) -> None:
        plugin(module, point)
        council = Council(seats(), config=CouncilConfig())
        with pytest.raises(PluginLoadError, match="of council-doubted") as caught:
            council.plan("Where?", strategy="doubted")
        assert words in caught.value.message
        assert [info.error is None for info in list_strategies()] == [True] * len(BUILT_IN) + [False]
        assert council.plan("Where?", strategy="rank").strategy == "rank"
        assert words in plugin_faults()["council-doubted"]

    def test_an_option_that_it_does_not_have_is_refused_with_those_that_it_has(
        self, plugin: Callable[..., None]
    ) -> None:
        plugin()
        with pytest.raises(UnknownOption, match="did you mean 'doubts'") as caught:
            get_strategy("doubted", doubt=2)
        assert caught.value.message.startswith("strategy 'doubted' takes no 'doubt'")
        assert caught.value.message.endswith("; it takes doubts")

    def test_a_value_that_a_validator_of_attrs_refuses_is_named_in_its_words(self, plugin: Callable[..., None]) -> None:
        checked = "doubts: int = attrs.field(default=1, validator=attrs.validators.in_((1, 2)))"
        plugin(PLUGIN.replace("doubts: int = 1", checked))
        with pytest.raises(InvalidOption) as caught:
            get_strategy("doubted", doubts=3)
        words = "strategy 'doubted': 'doubts' must be in (1, 2) (got 3)"
        assert caught.value.message == words

    @pytest.mark.parametrize(
        ("value", "words"),
        [("two", "doubts: expected a whole number, got 'two'"), (True, "doubts: expected a whole number, got True")],
    )
    def test_a_value_of_another_type_than_its_field_is_refused_before_anything_is_sent(
        self, plugin: Callable[..., None], value: object, words: str
    ) -> None:
        plugin()
        council = Council(seats(), config=CouncilConfig(strategies={"mine": {"kind": "doubted", "doubts": value}}))
        with pytest.raises(InvalidOption) as caught:
            council.plan("Where?", strategy="mine")
        assert caught.value.message == f"strategy 'doubted': {words}"

    def test_two_distributions_with_one_name_are_refused(self, plugin: Callable[..., None]) -> None:
        plugin()
        plugin(distribution="council-other")
        with pytest.raises(PluginLoadError, match="both offer a strategy named 'doubted': uninstall one"):
            get_strategy("doubted")

    def test_plugins_can_be_switched_off(self, plugin: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
        plugin()
        monkeypatch.setenv("LLM_COUNCIL_NO_PLUGINS", "1")
        with pytest.raises(InvalidOption, match=r"no strategy 'doubted'.*LLM_COUNCIL_NO_PLUGINS"):
            get_strategy("doubted")


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., tuple[int, str, str]]:
        """Return a function that asks three seats, which draft these texts, and returns exit status, stdout, stderr."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        (tmp_path / "yes.json").write_text('{"type": "boolean"}')

        def run(*texts: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
            drafts = iter(texts)
            provider = ScriptedProvider(lambda _: next(drafts), name="scripted")
            words = ["run", "Is 2027 prime?", "-p", f"scripted:{len(texts)}", "--strategy", "poll", *options]
            monkeypatch.setattr("sys.argv", ["council", *words, "--schema", "yes.json", "--quorum", str(len(texts))])
            monkeypatch.setattr("sys.stdin", None)
            with registry.overriding(scripted=provider), pytest.raises(SystemExit) as ended:
                main()
            out, err = capsys.readouterr()
            return int(ended.value.code or 0), out, err

        return run

    def test_a_vote_is_told_in_one_line_beside_the_answer(self, run: Callable[..., tuple[int, str, str]]) -> None:
        code, out, err = run("ANSWER: yes", "ANSWER: no", "ANSWER: yes")
        assert (code, out.strip()) == (0, "yes")
        assert "council: 2 of 3 agree; scripted-" in err
        assert " dissents: no" in err

    def test_abstaining_has_an_exit_status_of_its_own(self, run: Callable[..., tuple[int, str, str]]) -> None:
        code, out, err = run("ANSWER: yes", "ANSWER: no", options=("--strategy-option", "abstain_below=0.6"))
        assert (code, out) == (4, "")
        assert "the seats do not agree" in err
