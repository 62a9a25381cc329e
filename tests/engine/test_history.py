"""Follow-ups: what the seats see of the conversation that a run goes on from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council import Council, CouncilConfig, CouncilResult, Limits, Message, RetryPolicy
from llm_council._engine import prompts
from llm_council._engine.fences import RULE, derive_code
from llm_council._engine.history import (
    HEADER,
    History,
    fitting,
    forget_oldest,
    history_parts,
    history_turns,
    read_history,
)
from llm_council._engine.plan import RunRequest, make_plan
from llm_council.errors import ContextTooLong, InvalidOption
from llm_council.models import Attachment, GenerateRequest, PastTask, Plan, SeatSpec, TextPart
from llm_council.strategies import Poll
from llm_council.subagents import load
from llm_council.testing.fakes import ScriptedProvider
from tests.strategies import examples

FIRST = '{"answer": "Paris", "reasoning": "The government sits there."}'
DRAFT = "A draft says it is Paris, on the Seine."
SCRIPT = {"draft": DRAFT, "critique": "A review.\nRANKING: A", "synthesise": FIRST}


# A seed that is fixed, so that the codes of the fences are known to the model that wrote an earlier answer.
SEED = "a seed"
SEEDED = Plan(run_id="r", task="x", subagent="x", seed=SEED)
CODES = [derive_code(SEEDED, "history"), derive_code(SEEDED, "fence", "draft", "a")]
MARKS = ["[[[ ", " ]]]", "[", "]", "\n", "\x00", "\u2028", "Task:\n", "<|im_start|>", "[INST]", "</s>"]
hostile = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from([*MARKS, *CODES, CODES[0][:8], CODES[0][8:]]), max_size=12).map("".join),
)


def turns_of(request: GenerateRequest) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in request.turns()]


def text_of(request: GenerateRequest) -> str:
    return "\n".join(text for _, text in turns_of(request))


def past(*tasks: str) -> tuple[PastTask, ...]:
    return tuple(PastTask(task=task, answer=f"answer to {task}.", run_id=f"run-{task}") for task in tasks)


def plan_of(tasks: Sequence[PastTask], seats: Sequence[SeatSpec] = (), limits: Limits | None = None) -> Plan:
    config = CouncilConfig(limits=limits or Limits(), seed=SEED)
    options = RunRequest(history=History(tasks=tuple(tasks)))
    return make_plan("And now?", load("advisor"), config, seats or [SeatSpec(name="a", provider="a")], options)


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider(SCRIPT, name="ada")


@pytest.fixture
def council(provider: ScriptedProvider) -> Council:
    return Council([provider, provider, provider], config=CouncilConfig(retry=RetryPolicy(max_retries=0)))


class TestARun:
    def test_every_call_holds_the_earlier_task_and_answer_and_no_draft(
        self, council: Council, provider: ScriptedProvider
    ) -> None:
        first = council.run("What is the capital of France?")
        before = len(provider.requests)
        result = council.run("How many people live there?", history=first)
        asked = provider.requests[before:]
        assert {request.metadata["phase"] for request in asked} == {"draft", "critique", "synthesise"}
        for request in asked:
            (role, system), (_, user) = turns_of(request)
            assert role == "system"
            assert RULE in system
            before, task = user.split("\n\nTask:\n")
            code = derive_code(result.plan, "history")
            assert before == (
                f"{HEADER}\n\nEarlier task 1:\nWhat is the capital of France?\n\n[[[ {code} Answer to earlier task 1\n"
                f"Paris\n\nThe government sits there.\n{code} ]]]"
            )
            assert task.startswith("How many people live there?")
        drafts = [request for request in asked if request.metadata["phase"] == "draft"]
        assert all(DRAFT not in text_of(request) for request in drafts)
        assert (result.plan.follows, result.plan.history[0].run_id) == (first.run_id, first.run_id)
        assert first.plan.follows is None

    def test_a_chain_holds_every_earlier_task_in_order(self, council: Council, provider: ScriptedProvider) -> None:
        result: CouncilResult | None = None
        for number in range(5):
            result = council.run(f"task {number}", history=result)
        assert result is not None
        assert [one.task for one in result.plan.history] == [f"task {number}" for number in range(4)]
        shown = re.findall(r"^Earlier task (\d):\n(task \d)$", text_of(provider.requests[-1]), re.MULTILINE)
        assert shown == [(str(number + 1), f"task {number}") for number in range(4)]
        assert result.plan.warnings == ()

    def test_reports_name_the_run_before(self, council: Council) -> None:
        first = council.run("Where?")
        second = council.run("And why?", history=first)
        assert second.to_markdown().endswith(f"Run {second.run_id}, which goes on from {first.run_id}\n")
        assert f"which goes on from <code>{first.run_id}</code>" in second.to_html()
        assert "goes on from" not in first.to_markdown() + first.to_html()

    def test_a_run_of_its_own_is_asked_as_before(self, council: Council, provider: ScriptedProvider) -> None:
        council.run("Where?", history=None)
        council.run("Where?", history=[])
        for request in provider.requests:
            assert [role for role, _ in turns_of(request)] == ["system", "user"]
            assert HEADER not in text_of(request)
            assert turns_of(request)[1][1].startswith("Task:\nWhere?")

    def test_dissent_is_told_in_a_line_without_the_draft(self) -> None:
        words = {"ada": "I counted.\nANSWER: 4", "bob": "I guessed wildly.\nANSWER: 5", "cyd": "Sure.\nANSWER: 4"}
        seats = [ScriptedProvider({"draft": [text, "ANSWER: 8"]}, name=name) for name, text in words.items()]
        schema = {"type": "integer"}
        council = Council(seats, config=CouncilConfig(), strategy=Poll(hurry=False))
        first = council.run("2 + 2?", schema=schema)
        assert [one.answer.shown for one in first.dissent] == ["5"]
        second = council.run("And doubled?", schema=schema, history=first)
        assert second.plan.history[0].answer == "4"
        (request,) = seats[1].requests[1:]
        code = derive_code(second.plan, "history")
        title = "Other answers to earlier task 1, with which not all agreed"
        assert f"[[[ {code} {title}\n- 5 (1 of 3)\n{code} ]]]" in text_of(request)
        assert f"[[[ {code} Answer to earlier task 1\n4\n{code} ]]]" in text_of(request)
        assert "guessed" not in text_of(request)

    def test_a_value_is_told_as_json(self) -> None:
        value = {"verdict": "approve", "issues": [{"at": 1}]}
        provider = ScriptedProvider({"*": json.dumps(value)}, name="ada")
        council = Council([provider], config=CouncilConfig())
        first = council.run("Review it", schema={"type": "object"})
        second = council.run("Why?", history=first)
        assert json.loads(second.plan.history[0].answer) == value
        assert json.dumps(value) in text_of(provider.requests[-1])

    @pytest.mark.slow
    @examples(100)
    @given(hostile, hostile)
    def test_an_earlier_answer_stays_in_its_fence(self, answer: str, other: str) -> None:
        plan = plan_of([PastTask(task="Hm?", answer=answer, dissent=(other,))])
        request = prompts.draft_request(plan, plan.seats[0])
        assert turns_of(request)[0][1].count("\n\n") == 1  # the role and the rule
        user = turns_of(request)[1][1]
        code = derive_code(plan, "history")
        lines = [line for line in user.split("\n") if code in line.lower()]
        assert user.lower().count(code) == len(lines) == 4
        assert [line for line in user.split("\n") if line.startswith("[[[") or line.endswith("]]]")] == lines
        assert user.index("Task:\nAnd now?") > user.rindex(lines[-1])
        for mark in ("<|im_start|>", "[INST]", "</s>", "\x00"):
            assert mark not in user

    def test_an_earlier_answer_does_not_keep_an_authors_name_from_being_hidden(self) -> None:
        ada = ScriptedProvider({**SCRIPT, "draft": "I am sonnet-of-ada, and say 4."}, name="anthropic-ada")
        bob = ScriptedProvider(SCRIPT, name="bobs-provider")
        history = [Message("user", "Who are you?"), Message("assistant", "I am anthropic-ada.")]
        Council([ada, bob], chair="bobs-provider", config=CouncilConfig()).run("2 + 2?", history=history)
        ada_says = ScriptedProvider({**SCRIPT, "draft": "anthropic-ada says 4."}, name="anthropic-ada")
        Council([ada_says, bob], chair="bobs-provider", config=CouncilConfig()).run("2 + 2?", history=history)
        critique = bob.asked("critique")[-1]
        assert "[seat] says 4." in turns_of(critique)[-1][1]

    @pytest.mark.anyio
    async def test_every_way_to_run_takes_a_history(self, council: Council) -> None:
        first = await council.arun("One?")
        assert (await council.run("Two?", history=first)).plan.follows == first.run_id
        assert council.plan("Two?", history=first).follows == first.run_id
        async with council.stream("Two?", history=first) as events:
            async for _ in events:
                pass
        assert events.result is not None
        assert events.result.plan.follows == first.run_id


class TestWhatIsGiven:
    def test_turns_are_paired(self) -> None:
        turns = [
            Message("assistant", "Hello."),
            Message("user", "a"),
            Message("user", "b"),
            Message("assistant", "c"),
            Message("assistant", "d"),
            Message("user", "e"),
        ]
        assert read_history(turns).tasks == (
            PastTask(task="", answer="Hello."),
            PastTask(task="a\n\nb", answer="c\n\nd"),
            PastTask(task="e"),
        )

    def test_no_turn_is_empty_and_the_roles_alternate(self) -> None:
        plan = plan_of(read_history([Message("assistant", "Hello."), Message("user", "a")]).tasks)
        turns = history_turns(plan, plan.seats[0])
        assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant"]
        assert all(turn.text.strip() for turn in turns)
        text = "\n".join(history_parts(plan, plan.seats[0]))
        assert "Earlier task 1:\n(The conversation begins with an answer.)" in text
        assert "(There was no answer.)" in text

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (3, "expected a CouncilResult"),
            ({"role": "user"}, "expected a CouncilResult"),
            ([{"role": "user", "content": "x"}], r"Message\(role, content\)"),
            ([Message("system", "x")], "system_context"),
            ([Message("tool", "x", tool_call_id="1")], "only turns of user and assistant"),
        ],
    )
    def test_anything_else_is_refused_with_the_remedy(self, council: Council, given: Any, words: str) -> None:
        with pytest.raises(InvalidOption, match=words):
            council.run("Why?", history=given)

    def test_turns_with_pictures_are_refused(self, council: Council) -> None:
        from llm_council.models import ImagePart

        turn = Message("user", (ImagePart(data=b"x", media_type="image/png"),))
        with pytest.raises(InvalidOption, match="pass its files in files="):
            council.run("Why?", history=[turn])

    def test_a_failed_run_cannot_be_gone_on_from(self, council: Council) -> None:
        broken = ScriptedProvider({"*": ContextTooLong("no", status=400)}, name="broken")  # type: ignore[dict-item]
        failed = Council([broken], config=CouncilConfig()).run("Why?")
        assert not failed.success
        with pytest.raises(InvalidOption, match=f"{failed.run_id} has no answer") as caught:
            council.run("And?", history=failed)
        assert f"`council resume {failed.run_id}` continues it if it is in a store; else ask again" in str(caught.value)

    def test_a_run_that_abstained_without_answers_is_not_to_be_resumed(self, council: Council) -> None:
        seats = [ScriptedProvider("maybe", name=name) for name in ("ada", "bob", "cyd")]
        first = Council(seats, config=CouncilConfig()).run("Is it?", output_type=bool)
        assert (first.status, first.dissent) == ("abstained", ())
        with pytest.raises(InvalidOption, match=r"it is abstained: ask again, or go on from an earlier run$"):
            council.run("Why?", history=first)

    def test_a_run_that_abstained_is_told_with_its_answers(self, council: Council) -> None:
        seats = [ScriptedProvider(f"ANSWER: {n}", name=name) for n, name in enumerate(("ada", "bob", "cyd"))]
        first = Council(seats, config=CouncilConfig()).run(
            "2 + 2?", schema={"type": "integer"}, strategy=Poll(abstain_below=0.9)
        )
        assert first.status == "abstained"
        history = read_history(first)
        assert "did not agree" in history.tasks[0].answer
        assert len(history.tasks[0].dissent) >= 2

    def test_the_id_of_a_run_needs_a_store(self, council: Council) -> None:
        with pytest.raises(InvalidOption, match=r"store=PATH.*LLM_COUNCIL_STORE"):
            council.run("And?", history="last")


class TestTheContext:
    def test_the_oldest_tasks_beyond_the_limit_are_left_out_and_reported(self) -> None:
        provider = ScriptedProvider(SCRIPT, name="ada")
        council = Council([provider], config=CouncilConfig(limits=Limits(history=100)))
        result: CouncilResult | None = None
        for number in range(6):
            result = council.run(f"task {number}", history=result)
        assert result is not None
        kept = [one.task for one in result.plan.history]
        assert kept == ["task 3", "task 4"]
        assert result.plan.history_left_out == 3
        (warning,) = result.plan.warnings
        assert warning in result.warnings
        assert "the oldest 3 tasks are left out" in warning
        assert "limits.history" in warning
        assert "task 2" not in text_of(provider.requests[-1])

    def test_the_last_task_is_never_left_out(self) -> None:
        assert [one.task for one in plan_of(past("a", "b" * 500), limits=Limits(history=10)).history] == ["b" * 500]

    @examples(60)
    @given(st.lists(st.text(max_size=40), max_size=12), st.integers(1, 200))
    def test_the_latest_tasks_are_kept_whole_and_in_order(self, texts: list[str], limit: int) -> None:
        tasks = tuple(PastTask(task=text, answer=text[::-1]) for text in texts)
        kept = fitting(History(tasks=tasks, left_out=2), Limits(history=limit))
        assert kept.tasks == tasks[len(tasks) - len(kept.tasks) :]
        assert kept.left_out == 2 + len(tasks) - len(kept.tasks)
        size = sum(2 * len(one.task) for one in kept.tasks)
        assert size <= limit or len(kept.tasks) == 1
        if len(kept.tasks) < len(tasks):
            assert size + 2 * len(tasks[-len(kept.tasks) - 1].task) > limit

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_model_with_a_smaller_context_is_asked_again_without_the_oldest(self, stream: bool) -> None:
        def say(request: GenerateRequest) -> str:
            if text_of(request).count("Earlier task") > 2:
                raise ContextTooLong("too many tokens", status=400)
            return SCRIPT.get(request.metadata["phase"], FIRST)

        small, large = ScriptedProvider(say, name="small"), ScriptedProvider(SCRIPT, name="large")
        council = Council([small, large], chair="large", config=CouncilConfig())
        history = [Message(role, f"{role} {n}") for n in range(6) for role in ("user", "assistant")]
        if stream:
            with council.stream("And now?", history=history) as events:
                for _ in events:
                    pass
            result = events.result
        else:
            result = council.run("And now?", history=history)
        assert result is not None
        assert (result.success, result.status) == (True, "completed")
        assert result.warnings == ("small was shown the last 1 of 6 earlier tasks: more do not fit into its context",)
        answered = [request for request in small.requests if text_of(request).count("Earlier task") <= 2]
        assert {request.metadata["phase"] for request in answered} == {"draft", "critique"}
        for request in answered:
            assert "Earlier task 6:\nuser 5" in text_of(request)
            assert text_of(request).count("Earlier task") == 1
        assert len({request.idempotency_key for request in small.requests}) == len(small.requests)
        assert all(text_of(request).count("Earlier task") == 6 for request in large.requests)
        report = next(seat for seat in result.seats if seat.name == "small")
        assert [(one.field, one.asked, one.sent) for one in report.adjustments] == [("history", 6, 1)] * 2
        assert len(report.attempts) == len(small.requests)
        assert CouncilResult.from_dict(result.to_dict()).to_dict() == result.to_dict()

    def test_a_model_that_fits_nothing_fails_as_without_a_history(self) -> None:
        provider = ScriptedProvider({"*": ContextTooLong("never", status=400)}, name="ada")  # type: ignore[dict-item]
        result = Council([provider], config=CouncilConfig()).run("?", history=[Message("user", "a")])
        assert isinstance(result.errors["ada"], ContextTooLong)
        assert len(provider.requests) >= 2

    def test_the_chairs_drafts_are_shortened_only_after_the_history(self) -> None:
        def say(request: GenerateRequest) -> str:
            if request.metadata["phase"] == "synthesise" and len(text_of(request)) > 2500:
                raise ContextTooLong("too many tokens", status=400)
            return {"draft": "word " * 400, "critique": "RANKING: A"}.get(request.metadata["phase"], FIRST)

        provider = ScriptedProvider(say, name="ada")
        council = Council([provider, provider], config=CouncilConfig(retry=RetryPolicy(max_retries=0)))
        result = council.run("And?", history=[Message("user", "a" * 2000), Message("assistant", "b")])
        assert result.success
        assert any("cut to its context" in line for line in result.warnings)
        assert any("none of 1 earlier tasks" in line for line in result.warnings)


class TestSmallModels:
    TASKS = tuple(PastTask(task=f"t{n}", answer="word " * 1000, dissent=("5 (1 of 3)",)) for n in range(4))

    def test_a_model_that_repeats_fences_gets_the_last_tasks_as_turns(self) -> None:
        seat = SeatSpec(name="tiny", provider="local", plain_prompts=True)
        plan = plan_of(self.TASKS, [seat])
        shown = turns_of(prompts.draft_request(plan, seat))
        assert [role for role, _ in shown] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert [text for role, text in shown if role == "user"] == ["t2", "t3", "And now?"]
        assert all(len(text) <= 900 for _, text in shown)
        assert plan.warnings == ("tiny: the small model is shown the last 2 of 4 earlier tasks",)

    def test_a_small_model_reads_the_last_tasks_cut_before_the_question(self) -> None:
        seat = SeatSpec(name="tiny", provider="local", prose_first=True)
        plan = plan_of(self.TASKS, [seat])
        request = prompts.draft_request(plan, seat)
        read = turns_of(request)[1][1]
        assert turns_of(request)[-1] == ("user", "And now?")
        assert re.findall(r"^Earlier task (\d):\n(t\d)$", read, re.MULTILINE) == [("3", "t2"), ("4", "t3")]
        assert len(read) < 2 * 1200
        assert "1 of 3" not in read


class TestRequests:
    def test_a_repair_goes_on_in_the_same_conversation(self) -> None:
        provider = ScriptedProvider({"draft": DRAFT, "synthesise": "no JSON", "repair": "7"}, name="ada")
        council = Council([provider], config=CouncilConfig(), strategy="synthesize")
        result = council.run(
            "How many?", schema={"type": "integer"}, history=[Message("user", "a"), Message("assistant", "b")]
        )
        assert result.output == 7
        (repair,) = provider.asked("repair")
        assert [role for role, _ in turns_of(repair)] == ["system", "user", "assistant", "user"]
        assert "Earlier task 1:\na" in turns_of(repair)[1][1]

    def test_the_mark_of_a_shared_prefix_stands_behind_the_conversation(self) -> None:
        plan = plan_of(past("a", "b"))
        request = prompts.mark_shared_part(plan, prompts.draft_request(plan, plan.seats[0]))
        shared, rest = request.turns()[-1].content
        assert isinstance(shared, TextPart)
        assert isinstance(rest, TextPart)
        assert shared.cache
        assert shared.text.startswith(HEADER)
        assert shared.text.endswith("Task:\nAnd now?")
        # A request that is too long is shortened after it was marked.
        shorter = forget_oldest(plan, plan.seats[0], request)
        assert shorter is not None
        assert shorter[1] == 1
        kept, same = shorter[0].turns()[-1].content
        assert isinstance(kept, TextPart)
        assert kept.cache
        assert kept.text.count("Earlier task") == 1
        assert same == rest

    def test_files_and_context_of_this_task_follow_the_conversation(self) -> None:
        options = RunRequest(
            history=History(tasks=past("a")), context="Some context", files=[Attachment(name="x.py", text="print(1)")]
        )
        plan = make_plan("And?", load("advisor"), CouncilConfig(), [SeatSpec(name="a", provider="a")], options)
        last = turns_of(prompts.draft_request(plan, plan.seats[0]))[-1][1]
        assert "Some context" in last
        assert "print(1)" in last

    @examples(40)
    @given(st.integers(0, 9), st.booleans())
    def test_forgetting_halves_the_tasks_until_none_is_left(self, number: int, plain: bool) -> None:
        plan = plan_of(past(*map(str, range(number))), [SeatSpec(name="a", provider="a", plain_prompts=plain)])
        seat = plan.seats[0]
        request = prompts.draft_request(plan, seat)
        bare = prompts.draft_request(plan_of(()), seat)
        left = min(number, 2) if plain else number
        while (shorter := forget_oldest(plan, seat, request)) is not None:
            request, now = shorter
            assert now == left // 2
            left = now
            assert request.turns()[-1].text.endswith(bare.turns()[-1].text)
            for place in range(number):
                assert (f"answer to {place}." in text_of(request)) is (place >= number - left)
        assert left == 0
        assert turns_of(request) == turns_of(bare)
