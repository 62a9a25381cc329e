"""How long the runtime waits, measured with a clock that the test moves."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from llm_council._runtime import calls, thread
from llm_council._runtime.thread import Job, LoopThread


class Clock:
    """Reads as ``time.monotonic``; starts at 100 s."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Flag:
    """The lock of a waiting caller: each wait passes in full, until the loop thread releases it at ``released_at``."""

    def __init__(self, clock: Clock, released_at: float) -> None:
        self.clock = clock
        self.released_at = released_at
        self.timeouts: list[float] = []

    def acquire(self, timeout: float) -> bool:
        assert len(self.timeouts) < 1000, "the caller waits for ever"
        self.timeouts.append(timeout)
        self.clock.now += timeout
        return self.clock.now >= self.released_at


class BlockedThread:
    """A loop thread whose loop has not reacted since ``blocked_since``."""

    exiting = stopping = retired = False
    ident = 0

    def __init__(self, clock: Clock, blocked_since: float) -> None:
        self.clock = clock
        self.blocked_since = blocked_since
        self.retired_at: float | None = None

    def stalled_for(self) -> float:
        return max(0.0, self.clock.now - self.blocked_since)

    def retire(self) -> None:
        self.retired = True
        self.retired_at = self.clock.now

    def withdraw(self, job: Job) -> bool:
        return False  # the job has started

    def call_soon(self, callback: object) -> bool:
        return True

    def current_line(self) -> str:
        return "in adapter.py:1 (generate)"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    fake = Clock()
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic=fake))
    monkeypatch.setattr(thread, "time", SimpleNamespace(monotonic=fake))
    return fake


async def nothing() -> str:
    return "answer"


def started(blocked: BlockedThread) -> Job:
    job = Job(nothing, (), {})
    job.thread = blocked
    return job


def test_a_loop_that_is_blocked_for_five_seconds_is_retired(clock: Clock) -> None:
    blocked = BlockedThread(clock, blocked_since=100.0)
    assert calls.wait_for(started(blocked), Flag(clock, released_at=130.0)) is None
    assert blocked.retired_at == 105.0


def test_a_loop_that_reacts_within_five_seconds_is_not_retired(clock: Clock) -> None:
    blocked = BlockedThread(clock, blocked_since=100.0)
    assert calls.wait_for(started(blocked), Flag(clock, released_at=105.0)) is None
    assert blocked.retired_at is None


def test_the_fallback_answers_one_second_after_the_call_should_have_ended(clock: Clock) -> None:
    blocked = BlockedThread(clock, blocked_since=100.0)
    job = started(blocked)
    job.fallback = (102.0, lambda: "from the fallback")
    fallback = calls.wait_for(job, Flag(clock, released_at=130.0))
    assert fallback is not None
    assert fallback() == "from the fallback"
    assert clock.now == blocked.retired_at == 103.0
    assert job.abandoned


def test_the_fallback_is_not_used_while_the_loop_reacts(clock: Clock) -> None:
    responsive = BlockedThread(clock, blocked_since=1000.0)
    job = started(responsive)
    job.fallback = (102.0, lambda: "from the fallback")
    assert calls.wait_for(job, Flag(clock, released_at=120.0)) is None
    assert responsive.retired_at is None


def test_the_fallback_waits_until_the_loop_is_blocked_for_half_a_second(clock: Clock) -> None:
    blocked = BlockedThread(clock, blocked_since=110.0)
    job = started(blocked)
    job.fallback = (102.0, lambda: "from the fallback")
    assert calls.wait_for(job, Flag(clock, released_at=130.0)) is not None
    assert clock.now == pytest.approx(110.5, abs=0.051)
    assert clock.now >= 110.5


def test_a_waiting_caller_checks_the_loop_twice_a_second(clock: Clock) -> None:
    flag = Flag(clock, released_at=110.0)
    calls.wait_for(started(BlockedThread(clock, blocked_since=1000.0)), flag)
    assert flag.timeouts == [0.5] * 20


def test_a_caller_with_a_fallback_checks_when_that_is_due_and_at_most_twenty_times_a_second(clock: Clock) -> None:
    flag = Flag(clock, released_at=102.0)
    job = started(BlockedThread(clock, blocked_since=1000.0))
    job.fallback = (100.7, lambda: "from the fallback")
    calls.wait_for(job, flag)
    assert flag.timeouts[:4] == pytest.approx([0.5, 0.5, 0.5, 0.2])
    assert set(flag.timeouts[4:]) == {0.05}


def test_a_probe_measures_how_long_the_loop_does_not_answer(clock: Clock) -> None:
    runtime = LoopThread()
    assert runtime.stalled_for() == 0.0
    clock.now += 3.0
    assert runtime.stalled_for() == 3.0
    runtime.loop.call_soon(runtime.loop.stop)
    runtime.loop.run_forever()  # answers the probe
    assert runtime.stalled_for() == 0.0
    runtime.loop.close()


def test_an_interrupted_caller_waits_five_seconds_for_clean_up(clock: Clock) -> None:
    job = started(BlockedThread(clock, blocked_since=100.0))
    flag = Flag(clock, released_at=1000.0)
    job.done = flag
    job.interrupt()
    assert flag.timeouts == [5.0]


@pytest.mark.parametrize(("seconds", "warned"), [(0.99, False), (1.0, True)])
def test_a_step_of_one_second_is_worth_a_warning(
    clock: Clock, caplog: pytest.LogCaptureFixture, seconds: float, warned: bool
) -> None:
    async def work() -> None:
        clock.now = seconds

    clock.now = 0.0
    with pytest.raises(StopIteration):
        thread.watched(work(), "slow").send(None)
    assert ("slow has blocked the event loop for 1.0 s" in caplog.text) is warned


def test_exit_and_fork_wait_two_seconds_for_the_loop_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []
    runtime = SimpleNamespace(
        stopping=False,
        stop=lambda timeout: asked.append(("stop", timeout)),
        park=lambda timeout: asked.append(("park", timeout)),
    )
    lock = threading.Lock()
    monkeypatch.setattr(calls, "_current", runtime)
    monkeypatch.setattr(calls, "_exiting", False)
    monkeypatch.setattr(
        calls, "_lock", SimpleNamespace(acquire=lambda timeout: asked.append(("lock", timeout)), release=lock.release)
    )
    calls._before_fork()
    calls._exit()
    assert asked == [("lock", 2.0), ("park", 2.0), ("stop", 2.0)]
