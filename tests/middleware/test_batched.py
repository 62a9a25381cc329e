"""Batched: each call gets its own outcome, once, and is paid once, whatever becomes of its job."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
import threading
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest
from batch_vendor import BatchProvider, Time, Vendor, echo
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import Council
from llm_council._runtime import call_context
from llm_council._seats.configured import ConfiguredProviders
from llm_council.errors import (
    AuthenticationFailed,
    BatchIncomplete,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    ContentFiltered,
    CouncilError,
    DeadlineTooShort,
    InvalidOption,
    MalformedReply,
    RateLimited,
    RequestRejected,
    ServerFailed,
    StoreError,
    TimedOut,
)
from llm_council.middleware import Batched, Failover, Pinned, Retry, _batch_job
from llm_council.middleware._batch_job import LONGEST_WAIT, MOST_SENDS
from llm_council.models import GenerateRequest, GenerateResponse, RetryPolicy
from llm_council.providers._call.pacing import Pacer
from llm_council.providers.base import ProviderAdapter, call, stream
from llm_council.providers.batch_jobs import JobState
from llm_council.testing import ScriptedProvider

pytestmark = pytest.mark.anyio


def batched(vendor: Vendor, journal: Path, passing: Time | None = None, **options: Any) -> Batched:
    passing = passing or Time()
    options = {"window": 1.0, "clock": passing, "sleep": passing.sleep, **options}
    return Batched(BatchProvider(vendor), journal=journal, **options)


async def outcomes(provider: ProviderAdapter, prompts: list[str]) -> list[GenerateResponse | CouncilError]:
    """Make calls at once, and return their outcomes in the order of the prompts."""
    found: list[Any] = [None] * len(prompts)

    async def one(number: int, prompt: str) -> None:
        try:
            found[number] = await call(provider, GenerateRequest(prompt=prompt, sample=number))
        except CouncilError as error:
            found[number] = error

    async with anyio.create_task_group() as group:
        for number, prompt in enumerate(prompts):
            group.start_soon(one, number, prompt)
    return found


def texts(found: list[GenerateResponse | CouncilError]) -> list[str | None]:
    return [outcome.text if isinstance(outcome, GenerateResponse) else type(outcome).__name__ for outcome in found]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "jobs.db"


async def test_calls_at_once_share_a_job_and_each_gets_its_own_answer(journal: Path) -> None:
    vendor = Vendor()
    found = await outcomes(batched(vendor, journal), ["a", "b", "c"])
    assert texts(found) == ["answer to a", "answer to b", "answer to c"]
    assert len(vendor.jobs) == 1
    for answer in found:
        assert isinstance(answer, GenerateResponse)
        assert answer.cost is not None
        assert answer.cost.share == 0.5
        assert answer.extra["batch"]["job"] == "job-0"


@pytest.mark.slow
async def test_a_thousand_calls_with_three_in_a_hundred_failing_get_each_its_own_outcome(journal: Path) -> None:
    def answer(request: GenerateRequest) -> GenerateResponse | CouncilError:
        number = int(request.prompt or "0")
        return ContentFiltered(f"no {number}") if number % 33 == 7 else echo(request)

    vendor = Vendor(answer)
    found = await outcomes(batched(vendor, journal), [str(number) for number in range(1000)])
    failed = {number for number, outcome in enumerate(found) if isinstance(outcome, CouncilError)}
    assert failed == {number for number in range(1000) if number % 33 == 7}
    for number, outcome in enumerate(found):
        if number in failed:
            assert isinstance(outcome, ContentFiltered)
            assert outcome.message == f"no {number}"
        else:
            assert isinstance(outcome, GenerateResponse)
            assert outcome.text == f"answer to {number}"
    assert len(vendor.jobs) == 1
    assert vendor.paid.total() == 1000 - len(failed)
    assert max(vendor.paid.values()) == 1


async def test_a_job_that_expires_fails_its_unanswered_calls_alone_and_a_retry_sends_these_again(journal: Path) -> None:
    vendor = Vendor(ends=JobState.EXPIRED, answered=2)
    found = await outcomes(batched(vendor, journal), ["a", "b", "c"])
    assert texts(found)[:2] == ["answer to a", "answer to b"]
    assert isinstance(found[2], BatchIncomplete)
    assert found[2].reason == "expired"
    assert found[2].retryable

    vendor = Vendor(ends=JobState.EXPIRED, answered=2)

    def on_send(moment: str) -> None:
        vendor.ends = JobState.ENDED if vendor.jobs and moment == "before" else vendor.ends

    vendor.on_send = on_send
    retried = Retry(batched(vendor, journal.with_name("other.db")), RetryPolicy(base=0.0))
    found = await outcomes(retried, ["a", "b", "c", "d"])
    assert texts(found) == ["answer to a", "answer to b", "answer to c", "answer to d"]
    assert [len(job.calls) for job in vendor.jobs.values()] == [4, 2]
    assert set(vendor.paid.values()) == {1}
    assert vendor.paid.total() == 4


async def test_a_job_that_the_vendor_refuses_as_a_whole_fails_its_calls_with_the_vendors_words(journal: Path) -> None:
    vendor = Vendor(ends=JobState.FAILED, error="line 3 has no model")
    found = await outcomes(batched(vendor, journal), ["a", "b"])
    for error in found:
        assert isinstance(error, RequestRejected)
        assert "line 3 has no model" in error.message
    assert found[0] is not found[1]


async def test_an_error_of_the_vendor_before_the_job_was_taken_reaches_each_call(journal: Path) -> None:
    vendor = Vendor(failures={"send": [RequestRejected("bad line", status=400)]})
    provider = batched(vendor, journal)
    found = await outcomes(provider, ["a", "b"])
    assert texts(found) == ["RequestRejected", "RequestRejected"]
    assert found[0] is not found[1]
    assert vendor.asked["find"] == 0
    assert texts(await outcomes(provider, ["a", "b"])) == ["answer to a", "answer to b"]


@pytest.mark.parametrize(
    "error", [ConnectionLost("lost"), TimedOut("slow", phase="read"), ServerFailed("5", status=500)]
)
async def test_a_job_whose_answer_was_lost_is_found_by_listing_and_not_sent_twice(journal: Path, error: Any) -> None:
    vendor = Vendor(failures={"sent": [error]})
    assert texts(await outcomes(batched(vendor, journal), ["a", "b"])) == ["answer to a", "answer to b"]
    assert len(vendor.jobs) == 1
    assert vendor.asked["send"] == 1

    not_taken = Vendor(failures={"send": [error]})
    assert texts(await outcomes(batched(not_taken, journal.with_name("other.db")), ["a"])) == ["answer to a"]
    assert not_taken.asked["find"] == 2  # the second time once every job must be listed
    assert len(not_taken.jobs) == 1


@pytest.mark.parametrize("error", [ConnectFailed("refused"), RateLimited("later", status=429, retry_after=30.0)])
async def test_a_job_is_sent_again_while_the_vendor_cannot_take_it_and_not_for_ever(journal: Path, error: Any) -> None:
    vendor = Vendor(failures={"send": [error] * 3})
    passing = Time()
    assert texts(await outcomes(batched(vendor, journal, passing), ["a"])) == ["answer to a"]
    assert vendor.asked["find"] == 0
    assert passing.slept.count(30.0) == (3 if isinstance(error, RateLimited) else 0)
    vendor = Vendor(failures={"send": [error] * 100})
    provider = batched(vendor, journal.with_name("other.db"))
    assert texts(await outcomes(provider, ["a"])) == [type(error).__name__]
    assert vendor.asked["send"] == MOST_SENDS


async def test_looks_at_a_job_grow_to_a_bound_survive_failures_and_keep_to_retry_after(journal: Path) -> None:
    passing = Time()
    failures: list[Exception] = [ServerFailed("down", status=503), RateLimited("slower", status=429, retry_after=500.0)]
    vendor = Vendor(looks=40, failures={"status": failures, "outcome": [ConnectionLost("cut")]})
    found = await outcomes(batched(vendor, journal, passing), ["a", "b"])
    assert texts(found) == ["answer to a", "answer to b"]
    waits = passing.slept[10:]  # after those of the window
    assert 500.0 in waits
    waits.remove(500.0)
    assert waits[0] < 3.0
    assert 0.8 * LONGEST_WAIT <= max(waits) <= 1.2 * LONGEST_WAIT
    assert len({round(wait, 6) for wait in waits[-10:]}) > 5  # jitter


async def test_a_lasting_error_of_looking_fails_the_calls_and_the_next_one_takes_up_the_job(journal: Path) -> None:
    vendor = Vendor(failures={"status": [AuthenticationFailed("no key", status=401)]})
    provider = batched(vendor, journal)
    assert texts(await outcomes(provider, ["a"])) == ["AuthenticationFailed"]
    assert texts(await outcomes(provider, ["a"])) == ["answer to a"]
    assert len(vendor.jobs) == 1


async def test_replies_that_stay_unreadable_fail_the_calls(journal: Path) -> None:
    vendor = Vendor(failures={"status": [MalformedReply("<html>")] * 50})
    assert texts(await outcomes(batched(vendor, journal), ["a"])) == ["MalformedReply"]


async def test_a_job_that_the_vendor_has_forgotten_is_incomplete(journal: Path) -> None:
    vendor = Vendor(failures={"status": [RequestRejected("no such job", status=404)]})
    assert texts(await outcomes(batched(vendor, journal), ["a"])) == ["BatchIncomplete"]


# --- gathering


async def test_the_window_rules_for_direct_calls(journal: Path) -> None:
    passing = Time()
    vendor = Vendor()
    began = passing.now
    sent: list[float] = []
    vendor.on_send = lambda moment: sent.append(passing.now - began) if moment == "before" else None
    await outcomes(batched(vendor, journal, passing, window=30.0), ["a", "b"])
    assert sent == [pytest.approx(30.0)]


async def test_calls_are_split_by_most_by_bytes_and_by_group(journal: Path) -> None:
    vendor = Vendor()
    assert len(await outcomes(batched(vendor, journal, most=2), list("abcde"))) == 5
    assert sorted(len(job.calls) for job in vendor.jobs.values()) == [1, 2, 2]
    vendor = Vendor(most=3)
    await outcomes(batched(vendor, journal.with_name("2.db")), list("abcde"))
    assert sorted(len(job.calls) for job in vendor.jobs.values()) == [2, 3]
    vendor = Vendor(most_bytes=250)
    await outcomes(batched(vendor, journal.with_name("3.db")), list("abcde"))
    assert sorted(len(job.calls) for job in vendor.jobs.values()) == [1, 2, 2]
    vendor = Vendor()
    provider = batched(vendor, journal.with_name("4.db"))
    async with anyio.create_task_group() as group:
        for model in ("x", "y", "x"):
            group.start_soon(call, provider, GenerateRequest(prompt="a", model=model))
    assert sorted(len(job.calls) for job in vendor.jobs.values()) == [1, 2]


async def test_a_full_job_is_sent_before_the_window_ends(journal: Path) -> None:
    passing = Time()
    provider = batched(Vendor(), journal, passing, window=1000.0, most=3)
    await outcomes(provider, ["a", "b", "c"])
    assert passing.now < 500.0


async def test_a_stream_brings_the_answer_in_one_piece(journal: Path) -> None:
    provider = batched(Vendor(), journal)
    assert not provider.capabilities.streaming
    assert not await provider.supports("streaming")
    assert await provider.supports("structured_output")
    pieces = [chunk.text async for chunk in stream(provider, GenerateRequest(prompt="a"))]
    assert [piece for piece in pieces if piece] == ["answer to a"]


async def test_the_pace_of_direct_calls_does_not_hold_calls_back_from_a_job(journal: Path) -> None:
    vendor = Vendor()
    provider = Retry(batched(vendor, journal))
    found: list[str] = []

    async def streamed(number: int) -> None:
        async with aclosing(stream(provider, GenerateRequest(prompt=f"s{number}"))) as chunks:
            found.append("".join([chunk.text async for chunk in chunks]))

    with Pacer().active():
        async with anyio.create_task_group() as group:
            group.start_soon(outcomes, provider, [str(number) for number in range(100)])
            for number in range(100):
                group.start_soon(streamed, number)
    assert len(found) == 100
    assert [len(job.calls) for job in vendor.jobs.values()] == [200]


async def test_a_pinned_model_is_that_of_the_job(journal: Path) -> None:
    vendor = Vendor()
    passing = Time()
    provider = Batched(Pinned(BatchProvider(vendor), "m-1"), journal=journal, clock=passing, sleep=passing.sleep)
    await call(provider, GenerateRequest(prompt="a"))
    assert [request.model for request in vendor.jobs["job-0"].calls.values()] == ["m-1"]


# --- deadlines and cancellation


@pytest.mark.parametrize("seconds", [1.0, 300.0, 3590.0])
async def test_a_call_with_less_than_an_hour_is_refused_before_anything_is_sent(journal: Path, seconds: float) -> None:
    vendor = Vendor()
    provider = batched(vendor, journal)
    with pytest.raises(DeadlineTooShort, match="86400"):
        await call(provider, GenerateRequest(prompt="a", timeout_seconds=seconds))
    with pytest.raises(InvalidOption, match="batch jobs"):
        await call(provider, GenerateRequest(prompt="a"), deadline=seconds)
    with pytest.raises(DeadlineTooShort):
        await call(Retry(provider), GenerateRequest(prompt="a"), deadline=seconds)
    with pytest.raises(DeadlineTooShort):
        [chunk async for chunk in stream(provider, GenerateRequest(prompt="a"), deadline=seconds)]
    with call_context.entered(call_context.RunScope(run_id="r", allowed=seconds)), pytest.raises(DeadlineTooShort):
        await call(provider, GenerateRequest(prompt="a"))
    assert not vendor.jobs
    assert not vendor.asked
    assert not journal.exists()


async def test_a_call_with_an_hour_or_without_a_deadline_is_made(journal: Path) -> None:
    provider = batched(Vendor(), journal)
    assert (await call(provider, GenerateRequest(prompt="a"), deadline=3600.0)).text == "answer to a"
    assert (await call(provider, GenerateRequest(prompt="b", timeout_seconds=3600.0))).text == "answer to b"
    with call_context.entered(call_context.RunScope(run_id="r", allowed=3600.0)):
        assert (await call(provider, GenerateRequest(prompt="c"))).text == "answer to c"


async def test_a_run_with_the_default_deadline_is_refused_before_any_seat_is_asked(journal: Path) -> None:
    direct = ScriptedProvider("yes", name="direct")
    council = Council([batched(Vendor(), journal), direct])
    with pytest.raises(DeadlineTooShort, match="300 s"):
        await council.arun("Is 7 a prime number?")
    assert not direct.requests


async def test_a_failover_goes_on_to_a_direct_provider_when_the_time_is_short(journal: Path) -> None:
    both = Failover([batched(Vendor(), journal), ScriptedProvider("direct answer")])
    assert (await call(both, GenerateRequest(prompt="a", timeout_seconds=60.0))).text == "direct answer"
    assert (await call(both, GenerateRequest(prompt="a"), deadline=60.0)).text == "direct answer"


async def test_a_job_is_cancelled_with_the_last_call_that_needs_it(journal: Path) -> None:
    vendor = Vendor(looks=10**9)
    provider = batched(vendor, journal, Time(0.01))
    scopes = [anyio.CancelScope(), anyio.CancelScope()]

    async def one(number: int) -> None:
        with scopes[number]:
            await call(provider, GenerateRequest(prompt=str(number)))

    async with anyio.create_task_group() as group:
        for number in range(2):
            group.start_soon(one, number)
        while not vendor.asked["status"]:
            await anyio.sleep(0.01)
        scopes[0].cancel()
        await anyio.sleep(0.05)
        assert not vendor.cancelled
        scopes[1].cancel()
    assert vendor.cancelled == ["job-0"]
    with sqlite3.connect(journal) as connection:
        assert connection.execute("SELECT state FROM jobs").fetchall() == [("cancelled",)]
    connection.close()


async def test_a_call_that_is_cancelled_while_calls_are_gathered_is_not_sent(journal: Path) -> None:
    vendor = Vendor()
    provider = batched(vendor, journal, clock=anyio.current_time, sleep=anyio.sleep, window=0.3)
    async with anyio.create_task_group() as group:
        group.start_soon(call, provider, GenerateRequest(prompt="a"))
        await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    await anyio.sleep(0.4)
    assert not vendor.jobs


async def test_a_call_that_is_cancelled_while_its_job_is_sent_cancels_the_job_then(journal: Path) -> None:
    scope = anyio.CancelScope()
    vendor = Vendor(looks=10**9)
    vendor.on_send = lambda moment: scope.cancel() if moment == "before" else None
    provider = batched(vendor, journal)
    with scope:
        await call(provider, GenerateRequest(prompt="a"))
    with anyio.fail_after(10):
        while not vendor.cancelled:
            await anyio.sleep(0.01)
    assert vendor.cancelled == ["job-0"]


async def test_the_answer_of_a_cancelled_call_is_there_for_the_next_equal_one(journal: Path) -> None:
    vendor = Vendor(looks=5)
    provider = batched(vendor, journal, Time(0.01))
    scope = anyio.CancelScope()
    answers: list[str | None] = []

    async def cancelled() -> None:
        with scope:
            await call(provider, GenerateRequest(prompt="a"))

    async def other() -> None:
        answers.append((await call(provider, GenerateRequest(prompt="b"))).text)

    async with anyio.create_task_group() as group:
        group.start_soon(cancelled)
        group.start_soon(other)
        while not vendor.asked["status"]:
            await anyio.sleep(0.01)
        scope.cancel()
    assert answers == ["answer to b"]
    assert (await call(provider, GenerateRequest(prompt="a"))).text == "answer to a"
    assert len(vendor.jobs) == 1


# --- another process goes on


def copy_journal(path: Path, to: Path) -> Path:
    """Copy a journal as a process that starts now would find it."""
    source, target = sqlite3.connect(path), sqlite3.connect(to)
    source.backup(target)
    source.close()
    target.close()
    return to


@pytest.mark.parametrize("moment", ["before send", "after send", "after id", "after some outcomes", "after all"])
async def test_a_process_that_starts_after_a_kill_takes_up_the_job(
    journal: Path, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batch_job, "SAVED_AT_ONCE", 10)
    prompts = [str(number) for number in range(40)]
    vendor = Vendor()
    kept: list[tuple[Vendor, Path]] = []

    def kill(now: str) -> None:
        if now == moment and not kept:
            kept.append((vendor.snapshot(), copy_journal(journal, tmp_path / "copy.db")))

    vendor.on_send = lambda when: kill(f"{when} send")

    def answering(request: GenerateRequest) -> GenerateResponse | CouncilError:
        if request.prompt == "35":
            kill("after some outcomes")
        return echo(request)

    vendor.answer = answering
    passing = Time()

    async def watching(seconds: float) -> None:
        if vendor.asked["status"]:
            kill("after id")
        await passing.sleep(seconds)

    provider = batched(vendor, journal, passing, sleep=watching)
    assert texts(await outcomes(provider, prompts)) == [f"answer to {prompt}" for prompt in prompts]
    kill("after all")
    past, copied = kept[0]

    past.answer, past.on_send = echo, lambda when: None
    paid_before = past.paid.total()
    again = batched(past, copied)
    found = await outcomes(again, prompts)
    assert texts(found) == [f"answer to {prompt}" for prompt in prompts]
    assert len(past.jobs) == 1
    assert past.asked["send"] == (1 if moment == "before send" else 0)
    assert past.asked["find"] == {"before send": 2, "after send": 1}.get(moment, 0)
    assert past.paid.total() == 40 or moment in ("after some outcomes", "after all")
    assert max(past.paid.values(), default=1) == 1
    assert paid_before <= past.paid.total() <= 40


async def test_a_vendor_that_shows_references_late_is_asked_until_it_does(journal: Path, tmp_path: Path) -> None:
    vendor = Vendor(looks=4, names_reference=False)
    kept: list[tuple[Vendor, Path]] = []

    def kill(moment: str) -> None:
        if moment == "after":
            kept.append((vendor.snapshot(), copy_journal(journal, tmp_path / "copy.db")))

    vendor.on_send = kill
    await outcomes(batched(vendor, journal), ["a", "b"])
    past, copied = kept[0]
    past.on_send = lambda moment: None
    assert texts(await outcomes(batched(past, copied), ["a", "b"])) == ["answer to a", "answer to b"]
    assert len(past.jobs) == 1
    assert past.asked["find"] > 3


async def test_equal_calls_get_answers_of_their_own_now_and_in_the_next_process(journal: Path) -> None:
    numbers = iter(range(100))
    vendor = Vendor(lambda request: GenerateResponse(text=f"draw {next(numbers)}", finish_reason="stop"))

    async def draw(provider: Batched, count: int) -> list[str | None]:
        found: list[str | None] = []

        async def one() -> None:
            found.append((await call(provider, GenerateRequest(prompt="a"))).text)

        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(one)
        return sorted(found, key=str)

    first = batched(vendor, journal)
    assert await draw(first, 3) == ["draw 0", "draw 1", "draw 2"]
    assert await draw(first, 1) == ["draw 3"]  # one process asks again because it wants another answer
    second = batched(vendor, journal)
    assert await draw(second, 3) == ["draw 0", "draw 1", "draw 2"]
    assert await draw(second, 2) == ["draw 3", "draw 4"]
    assert len(vendor.jobs) == 3


async def test_samples_and_accounts_do_not_share_answers(journal: Path) -> None:
    vendor = Vendor()
    await call(batched(vendor, journal), GenerateRequest(prompt="a", sample=0))
    await call(batched(vendor, journal), GenerateRequest(prompt="a", sample=1))
    assert len(vendor.jobs) == 2

    class Other(BatchProvider):
        def cache_identity(self) -> str:
            return "vendor:other account"

    passing = Time()
    other = Batched(Other(vendor), journal=journal, window=1.0, clock=passing, sleep=passing.sleep)
    await call(other, GenerateRequest(prompt="a", sample=0))
    assert len(vendor.jobs) == 3


async def test_a_failed_call_is_sent_again_by_the_next_process(journal: Path) -> None:
    vendor = Vendor(lambda request: ContentFiltered("no"))
    assert texts(await outcomes(batched(vendor, journal), ["a"])) == ["ContentFiltered"]
    vendor.answer = echo
    assert texts(await outcomes(batched(vendor, journal), ["a"])) == ["answer to a"]
    assert len(vendor.jobs) == 2


async def test_a_call_that_takes_up_a_cancelled_job_gets_what_was_answered_or_is_sent(journal: Path) -> None:
    vendor = Vendor(looks=10**9, answered=1)
    provider = batched(vendor, journal, Time(0.01))
    async with anyio.create_task_group() as group:
        group.start_soon(outcomes, provider, ["a", "b"])
        while not vendor.asked["status"]:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert vendor.cancelled == ["job-0"]
    vendor.looks = 0
    assert texts(await outcomes(batched(vendor, journal), ["a", "b"])) == ["answer to a", "answer to b"]
    assert [len(job.calls) for job in vendor.jobs.values()] == [2, 1]
    assert sorted(name.partition("/")[0] for name in vendor.paid) == ["job-0", "job-1"]


async def test_a_call_of_a_job_that_others_may_still_ask_for_cancels_nothing(journal: Path, tmp_path: Path) -> None:
    vendor = Vendor(looks=10**9)
    kept: list[Path] = []
    vendor.on_send = lambda moment: (
        kept.append(copy_journal(journal, tmp_path / "copy.db")) if moment == "after" else None
    )
    provider = batched(vendor, journal, Time(0.01))
    async with anyio.create_task_group() as group:
        group.start_soon(outcomes, provider, ["a", "b"])
        while not kept:
            await anyio.sleep(0.01)
        vendor.failures["cancel"] = [ServerFailed("the process is dead")]
        group.cancel_scope.cancel()
    again = batched(vendor, kept[0], Time(0.01))
    looks = vendor.asked["status"]
    async with anyio.create_task_group() as group:
        group.start_soon(outcomes, again, ["a"])
        while vendor.asked["status"] == looks:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert not vendor.cancelled


# --- the journal


async def test_the_journal_is_private_and_holds_neither_keys_nor_prompts(journal: Path) -> None:
    await call(
        batched(Vendor(lambda request: GenerateResponse(text="forty-two")), journal),
        GenerateRequest(prompt="my secret question"),
    )
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    content = b"".join(path.read_bytes() for path in journal.parent.iterdir())
    assert b"forty-two" in content
    assert b"secret question" not in content
    assert not list(journal.parent.glob("*.lock"))


async def test_a_file_of_another_program_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    vendor = Vendor()
    with pytest.raises(StoreError, match="file of its own"):
        await call(batched(vendor, path), GenerateRequest(prompt="a"))
    (tmp_path / "text").write_text("no database" * 1000)
    with pytest.raises(StoreError, match="cannot be used"):
        await call(batched(vendor, tmp_path / "text"), GenerateRequest(prompt="a"))
    assert not vendor.jobs


async def test_a_journal_that_cannot_be_written_any_more_loses_no_answer(journal: Path) -> None:
    vendor = Vendor()
    provider = batched(vendor, journal)

    def break_journal(request: GenerateRequest) -> GenerateResponse:
        with sqlite3.connect(journal) as connection:
            connection.execute("DROP TABLE IF EXISTS calls")
        connection.close()
        return GenerateResponse(text="paid", finish_reason="stop")

    vendor.answer = break_journal
    assert texts(await outcomes(provider, ["a", "b"])) == ["paid", "paid"]


def test_calls_of_several_threads_and_event_loops_share_one_journal(journal: Path) -> None:
    vendor = Vendor()
    provider = batched(
        vendor, journal, clock=time.monotonic, sleep=lambda seconds: anyio.sleep(min(seconds, 0.01)), window=0.1
    )
    found: dict[str, list[str | None]] = {}

    def work(name: str, backend: str) -> None:
        prompts = [f"{name} {number}" for number in range(20)]
        found[name] = texts(anyio.run(outcomes, provider, prompts, backend=backend))

    threads = [
        threading.Thread(target=work, args=(str(number), backend))
        for number, backend in enumerate(("asyncio", "trio", "asyncio", "trio"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, answers in found.items():
        assert answers == [f"answer to {name} {number}" for number in range(20)]
    assert vendor.paid.total() == 80
    assert provider.generate_sync(GenerateRequest(prompt="sync")).text == "answer to sync"


def test_several_instances_write_one_journal_at_the_same_time(journal: Path) -> None:
    vendor = Vendor()
    prompts = [str(number) for number in range(30)]
    found: list[list[str | None]] = []

    def work() -> None:
        for _ in range(3):
            found.append(texts(anyio.run(outcomes, batched(vendor, journal, most=7), prompts)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[f"answer to {prompt}" for prompt in prompts]] * 12
    assert set(vendor.paid.values()) == {1}
    assert vendor.paid.total() <= 4 * 30  # those that asked before any answer was journalled
    connection = sqlite3.connect(journal)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"journal": ""}, "journal"),
        ({"journal": 3}, "journal"),
        ({"window": -1}, "window"),
        ({"most": 0}, "most"),
        ({"most": True}, "most"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        Batched(BatchProvider(), **{"journal": tmp_path / "j.db", **options})


def test_a_provider_without_batch_jobs_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="offers no batch jobs"):
        Batched(ScriptedProvider("x"), journal=tmp_path / "j.db")
    with pytest.raises(InvalidOption, match="put other middleware around Batched"):
        Batched(Retry(BatchProvider()), journal=tmp_path / "j.db")


def test_a_configuration_names_a_batched_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-the-tests")
    table = {"kind": "batched", "of": "openai/gpt-4.1", "journal": str(tmp_path / "j.db"), "window": 5, "most": 100}
    provider = ConfiguredProviders({"patient": table}).get("patient")
    assert isinstance(provider, Batched)
    assert provider.name == "patient"
    assert isinstance(provider.inner, Pinned)
    assert (provider._settings.window, provider._settings.most) == (5.0, 100)
    assert provider._settings.journal.path == tmp_path / "j.db"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs 'journal'"),
        ({"journal": 3}, "journal"),
        ({"journal": "j.db", "window": "long"}, "window"),
        ({"journal": "j.db", "sleep": 1}, "takes no 'sleep'; it takes journal, window, most"),
        ({"journal": "j.db", "of": "local"}, "offers no batch jobs"),
    ],
)
def test_wrong_options_in_a_configuration_name_the_table(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        ConfiguredProviders({"x": {"kind": "batched", "of": "openai", **options}}).get("x")
    assert caught.value.message.startswith("[providers.x]")


async def test_closing_keeps_the_calls_that_wait(journal: Path) -> None:
    provider = batched(Vendor(looks=5), journal, Time(0.01))
    async with anyio.create_task_group() as group:
        group.start_soon(outcomes, provider, ["a"])
        await anyio.sleep(0.05)
        await provider.aclose()
    assert texts(await outcomes(provider, ["b"])) == ["answer to b"]


@pytest.mark.slow
@examples(15)
@given(
    prompts=st.lists(st.sampled_from("abcde"), min_size=1, max_size=12),
    failing=st.sets(st.sampled_from("abcde"), max_size=2),
    most=st.integers(1, 6),
    ends=st.sampled_from([JobState.ENDED, JobState.EXPIRED, JobState.CANCELLED]),
    answered=st.integers(0, 4),
    lost=st.booleans(),
    faults=st.lists(st.sampled_from(["status", "outcome", "find"]), max_size=4),
)
def test_each_call_gets_its_outcome_once_and_no_answer_is_paid_twice(
    prompts: list[str], failing: set[str], most: int, ends: JobState, answered: int, lost: bool, faults: list[str]
) -> None:
    def answer(request: GenerateRequest) -> GenerateResponse | CouncilError:
        return ContentFiltered(f"no {request.prompt}") if request.prompt in failing else echo(request)

    failures: dict[str, list[Exception]] = {name: [] for name in (*faults, "sent")}
    for name in faults:
        failures[name].append(ServerFailed("down", status=503))
    if lost:
        failures["sent"].append(ConnectionLost("lost"))
    vendor = Vendor(answer, ends=ends, answered=answered, failures=failures)

    def check(found: list[GenerateResponse | CouncilError]) -> int:
        for prompt, outcome in zip(prompts, found, strict=True):
            if isinstance(outcome, GenerateResponse):
                assert outcome.text == f"answer to {prompt}"
                assert prompt not in failing
            elif isinstance(outcome, ContentFiltered):
                assert outcome.message == f"no {prompt}"
            else:
                assert isinstance(outcome, BatchIncomplete)
                assert outcome.reason == str(ends)
        return sum(isinstance(outcome, GenerateResponse) for outcome in found)

    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "jobs.db"
        got = check(anyio.run(outcomes, batched(vendor, journal, most=most), prompts))
        assert vendor.paid.total() == got
        assert len(vendor.jobs) == -(-len(prompts) // most)
        vendor.ends = JobState.ENDED
        check(anyio.run(outcomes, batched(vendor, journal, most=most), prompts))
        wanted = sum(prompt not in failing for prompt in prompts)
        assert vendor.paid.total() == wanted  # what was answered before is not bought again
        assert set(vendor.paid.values()) <= {1}
