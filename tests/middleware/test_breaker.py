"""The circuit breaker against a model of it, for any order of calls, failures and waits."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strategies import examples

from llm_council.errors import (
    AuthenticationFailed,
    CapabilityMissing,
    ContentFiltered,
    ContextTooLong,
    CouncilError,
    EmptyReply,
    InvalidOption,
    MissingCredentials,
    OutOfCredit,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
    TruncatedReply,
)
from llm_council.middleware._breaker import MAX_RETRY_AFTER, Breaker, State

OWN_FAULT = [RequestRejected("no"), ContextTooLong("long"), ContentFiltered("no"), CapabilityMissing("no")]
HOPELESS = [AuthenticationFailed("no"), OutOfCredit("no"), MissingCredentials("no")]


class Machine(RuleBasedStateMachine):
    """A breaker and a plain retelling of its rules; calls in progress are kept, so that they may end late."""

    @initialize(failures=st.integers(1, 4), cool_down=st.sampled_from([0.0, 1.0, 30.0]))
    def start(self, failures: int, cool_down: float) -> None:
        self.failures, self.cool_down = failures, cool_down
        self.breaker = Breaker(failures, cool_down)
        self.now = 100.0
        self.calls = 0  # in progress
        self.state = State.CLOSED
        self.in_a_row = 0
        self.until = 0.0
        self.probing = False

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, 31.0, 2 * MAX_RETRY_AFTER]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        if self.state is State.OPEN and self.now >= self.until:
            self.state, self.probing = State.HALF_OPEN, False
        allowed = self.state is State.CLOSED or (self.state is State.HALF_OPEN and not self.probing)
        waited = self.breaker.wait(self.now)
        assert self.breaker.admit(self.now) is allowed
        assert (waited == 0) is allowed or self.cool_down == 0
        if allowed:
            self.calls += 1
            self.probing = self.state is State.HALF_OPEN

    @precondition(lambda self: self.calls)
    @rule()
    def answer(self) -> None:
        self.calls -= 1
        self.breaker.succeeded()
        if self.state is not State.OPEN:
            self.state, self.in_a_row, self.probing = State.CLOSED, 0, False

    @precondition(lambda self: self.calls)
    @rule(error=st.sampled_from([ServerFailed("no"), TimedOut("slow"), EmptyReply("nothing"), RateLimited("wait")]))
    def failure(self, error: CouncilError) -> None:
        self.calls -= 1
        self.breaker.failed(error, self.now)
        self.in_a_row += 1
        if self.state is State.HALF_OPEN or (self.state is State.CLOSED and self.in_a_row >= self.failures):
            self.opened(self.now + self.cool_down)

    @precondition(lambda self: self.calls)
    @rule(error=st.sampled_from(HOPELESS))
    def hopeless(self, error: CouncilError) -> None:
        self.calls -= 1
        self.breaker.failed(error, self.now)
        self.in_a_row += 1
        if self.state is not State.OPEN:
            self.opened(self.now + self.cool_down)

    @precondition(lambda self: self.calls)
    @rule(seconds=st.sampled_from([0.5, 7.0, 3 * MAX_RETRY_AFTER]))
    def asked_to_wait(self, seconds: float) -> None:
        self.calls -= 1
        self.breaker.failed(RateLimited("wait", retry_after=seconds), self.now)
        self.in_a_row += 1
        until = self.now + min(seconds, MAX_RETRY_AFTER)
        self.opened(max(until, self.until) if self.state is State.OPEN else until)

    @precondition(lambda self: self.calls)
    @rule(error=st.sampled_from([*OWN_FAULT, None]))
    def says_nothing(self, error: CouncilError | None) -> None:
        self.calls -= 1
        if error is None:
            self.breaker.ended()
        else:
            self.breaker.failed(error, self.now)
        self.probing = False

    def opened(self, until: float) -> None:
        self.state, self.until, self.probing = State.OPEN, until, False

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.state is self.state
            if self.state is State.OPEN:
                assert self.breaker.wait(self.now) == max(0.0, self.until - self.now)


TestBreaker = Machine.TestCase
TestBreaker.settings = examples(40, stateful_step_count=30)


@pytest.mark.parametrize("options", [{"failures": 0}, {"cool_down": -1.0}])
def test_invalid_figures_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidOption, match="failures: 1 or more"):
        Breaker(**options)  # type: ignore[arg-type]


def test_a_truncated_reply_that_is_not_retryable_does_not_count_as_a_failure() -> None:
    breaker = Breaker(failures=1)
    breaker.failed(TruncatedReply("max_tokens", retryable=False), 0.0)
    assert breaker.state is State.CLOSED
    breaker.failed(TruncatedReply("the connection ended"), 0.0)
    assert breaker.state is State.OPEN
