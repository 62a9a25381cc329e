"""The error tree: facts are attributes, messages are safe, everything pickles."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import strategies
from hypothesis import given
from strategies import examples

from llm_council import errors
from llm_council.errors import (
    ApiError,
    Attempt,
    CommandFailed,
    ConfigurationError,
    ConnectFailed,
    CouncilError,
    InvalidOption,
    InvalidOutput,
    ProviderError,
    QuorumLost,
    RateLimited,
    RunError,
    ServerFailed,
    StoreError,
    TimedOut,
    UnknownOption,
    near,
)
from llm_council.errors._secrets import MaskedText, Secret

ALL = [cls for name in errors.__all__ if isinstance(cls := getattr(errors, name), type) and cls is not Attempt]


def test_the_tree_in_the_docstring_names_every_class() -> None:
    drawn = set(re.findall(r"\b[A-Z][A-Za-z]+\b", errors.__doc__ or ""))
    assert {cls.__name__ for cls in ALL} <= drawn


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_class_has_a_docstring_and_the_common_facts(cls: type[CouncilError]) -> None:
    assert cls.__doc__
    assert issubclass(cls, CouncilError)
    error = cls("what happened", provider="p", model="m", run_id="r", request_id="q", elapsed=1.5)
    assert str(error) == error.message == "what happened"
    assert (error.provider, error.model, error.run_id, error.request_id) == ("p", "m", "r", "q")
    assert error.elapsed == 1.5
    assert error.attempts == ()
    assert isinstance(error.retryable, bool)
    with pytest.raises(TypeError):
        cls("x", unheard_of=1)


def test_which_errors_are_retryable() -> None:
    passing = {cls.__name__ for cls in ALL if cls().retryable}
    assert passing == {
        "TransportError",
        "ConnectFailed",
        "ConnectionLost",
        "RateLimited",
        "ServerFailed",
        "MalformedReply",
        "EmptyReply",
        "TruncatedReply",
        "BatchIncomplete",
    }
    assert not ConnectFailed(kind="tls").retryable
    assert TimedOut(phase="connect").retryable
    assert not TimedOut(phase="deadline").retryable
    assert ApiError(retryable=True).retryable
    assert not ServerFailed(retryable=False).retryable


@pytest.mark.slow
@examples(150)
@given(strategies.errors())
def test_every_error_pickles_and_copies_with_its_facts(error: CouncilError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert again.args == error.args
        assert again.__traceback__ is None
        assert again.__dict__.keys() == error.__dict__.keys()
        assert str(again.__dict__) == str(error.__dict__) or "outcomes" in error.__dict__


def test_a_raised_error_pickles_without_its_traceback() -> None:
    with pytest.raises(RateLimited) as caught:
        raise RateLimited("slow down", retry_after=3.0)
    assert caught.value.__traceback__ is not None
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.__traceback__ is None
    assert again.retry_after == 3.0


def test_a_subclass_of_a_third_party_pickles() -> None:
    error = TheirOwn("x", their="fact")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.their, str(again)) == (TheirOwn, "fact", "x")


class TheirOwn(ProviderError):
    def __init__(self, message: str = "", *, their: str) -> None:
        super().__init__(message)
        self.their = their


def test_messages_are_redacted_cut_and_free_of_control_characters() -> None:
    secret = Secret("hush-hush-hush-123")
    error = ApiError(f"\x1b[31mkey {secret.reveal()}\r\nis wrong\x00\u202e" + "x" * 5000, body=f"<{secret.reveal()}>")
    assert error.message.startswith("[31mkey ***\nis wrong")
    assert "\u202e" not in error.message
    assert len(error.message) == 1024
    assert error.body == "<***>"
    assert secret.reveal() not in CommandFailed("x", stderr_tail=secret.reveal()).stderr_tail
    assert len(ApiError("x", body="y" * 10**6).body) <= 64 * 1024


def test_fill_sets_missing_facts_and_leaves_the_others() -> None:
    error = RateLimited("x", provider="p")
    attempt = Attempt(at=0.0, elapsed=1.0)
    assert error.fill(provider="other", model="m", attempts=(attempt,)) is error
    assert (error.provider, error.model, error.attempts) == ("p", "m", (attempt,))
    with pytest.raises(AttributeError, match="no fact 'modle'"):
        error.fill(modle="m")


def test_wrong_options_are_also_type_and_value_errors() -> None:
    assert issubclass(UnknownOption, TypeError)
    assert issubclass(InvalidOption, ValueError)
    assert issubclass(UnknownOption, ConfigurationError)


def test_run_errors_hold_the_finished_parts() -> None:
    late = TimedOut("late", phase="deadline", partial="half")
    lost = QuorumLost("one of three", outcomes={"a": late, "b": None})
    assert lost.outcomes == {"a": late, "b": None}
    assert late.partial == "half"
    assert InvalidOutput("x", problems=["p"], text="t").problems == ("p",)
    for cls in (QuorumLost, InvalidOutput, errors.BudgetExceeded, errors.DeadlineExceeded):
        assert issubclass(cls, RunError)
    assert not issubclass(StoreError, RunError)


def test_near_suggests_a_similar_name() -> None:
    assert near("Revewer", ["reviewer", "planner"]) == "; did you mean 'reviewer'?"
    assert near("zzz", ["reviewer"]) == ""
    assert near("x", []) == ""


class TestWhatHadArrived:
    """The text before an error may be long: it stays in the pieces that others hold, until somebody reads it."""

    def test_a_partial_text_is_joined_when_it_is_read(self) -> None:
        words = ["one ", "two ", "three"]
        error = errors.ReplyTooLarge("too large", limit=9).fill(partial=MaskedText(words))
        held = vars(error)["partial"]
        assert [id(piece) for piece in held._pieces[:3]] == [id(word) for word in words]
        assert repr(held) == "'one two three'"
        error.fill(partial="another", elapsed=1.0)
        assert vars(error)["partial"] is held
        assert error.partial == "one two three"
        assert vars(error)["partial"] == "one two three"
        assert errors.TimedOut("late").fill(partial=MaskedText([])).partial is None

    @pytest.mark.parametrize("cls", [errors.ReplyTooLarge, errors.TimedOut, errors.ApiError])
    @pytest.mark.parametrize("twin", [copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
    def test_a_copy_has_the_partial_text(self, cls, twin) -> None:
        error = cls("too bad").fill(partial=MaskedText(["one ", "two"]))
        assert twin(error).partial == error.partial == "one two"

    def test_a_key_that_is_split_over_two_pieces_is_masked(self) -> None:
        secret = Secret("a-canary-0123456789")
        error = errors.TruncatedReply("cut").fill(partial=MaskedText(["it is a-can", "ary-0123456789"]))
        assert secret.reveal() not in f"{vars(error)} {error.partial}"
        assert error.partial == "it is ***"
        error = errors.TruncatedReply("cut").fill(partial="it is a-canary-0123456789")
        assert error.partial == "it is ***"
