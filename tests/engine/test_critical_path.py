"""What the engine does about the time that the models take themselves, on a mock clock: it jumps, nothing waits.

``python -m pytest tests/engine/test_critical_path.py -s -k measured`` prints the numbers of
docs/explanation/critical-path.md.
"""

import json
from itertools import takewhile

import anyio
import pytest
import trio.testing

from llm_council.errors import ServerFailed, TruncatedReply
from llm_council.events import AttemptFailed, SeatFinished, SeatReset, SeatStarted, TextDelta
from llm_council.middleware.retry import Retry
from llm_council.models import (
    Attachment,
    Budget,
    FinishReason,
    GenerateChunk,
    Phase,
    ProviderCapabilities,
    RetryPolicy,
    Status,
    Usage,
)
from llm_council.providers.base import ProviderAdapter
from llm_council.testing.fakes import Broken, ScriptedProvider

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["approve", "reject"]},
        "reasons": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["verdict", "reasons"],
    "additionalProperties": False,
}
GOOD = json.dumps({"verdict": "approve", "reasons": ["It holds."] * 40})
BAD = json.dumps({"verdict": "maybe", "reasons": ["It holds."] * 40})
PIECE = 4  # characters; a token, about
PACE = 0.02  # seconds between two pieces


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Dictating(ScriptedProvider):
    """Takes its time over every piece: a second until the first, then ``PACE``; whole answers take as long."""

    streams = 0

    async def generate(self, request):
        reply = await self._reply(request)
        text = reply.text or ""
        await anyio.sleep(1 + PACE * -(-len(text) // PIECE))
        if isinstance(reply, Broken):
            raise reply.error
        return reply

    async def stream(self, request):
        self.streams += 1
        reply = await self._reply(request)
        text = reply.text or ""
        await anyio.sleep(1)
        for start in range(0, len(text), PIECE):
            await anyio.sleep(PACE)
            yield GenerateChunk(text=text[start : start + PIECE], usage=Usage(input_tokens=9, output_tokens=1))
        if isinstance(reply, Broken):
            raise reply.error
        yield GenerateChunk(usage=reply.usage, structured=reply.structured, finish_reason=FinishReason.STOP)


WHOLE = ProviderCapabilities(streaming=False, structured_output=True)


def chair(*answers, repair=(GOOD,), capabilities=None):
    script = {"draft": "Yes.", "critique": "Right.", "synthesise": list(answers), "repair": list(repair)}
    return Dictating(script, capabilities=capabilities)


@pytest.fixture
def run(table):
    async def run(provider, *, small=False, **options):
        council = table(ann=provider)
        options = {"schema": SCHEMA, "budget": Budget(deadline=600), **options}
        result = await council.run(council.plan(small=small, **_planned(options)), clock=anyio.current_time, **options)
        return council, result

    return run


def _planned(options):
    names = [name for name in options if name not in ("deltas", "price", "clock")]
    return {name: options.pop(name) for name in names}


def seconds(text):
    """Return how long an answer takes that is read to its end."""
    return 1 + PACE * -(-len(text) // PIECE)


# A doomed answer is stopped


async def test_a_doomed_answer_is_stopped_and_its_repair_begins_at_once(run):
    provider = chair(BAD)
    council, result = await run(provider)
    assert result.status is Status.COMPLETED
    assert result.output == json.loads(GOOD)
    (stopped,) = [call for call in result.seats[0].calls if call.stopped]
    assert (stopped.phase, stopped.error) == (Phase.SYNTHESISE, None)
    assert "$.verdict" in stopped.stopped
    assert BAD.startswith(stopped.response.text)
    assert len(stopped.response.text) < 30
    assert stopped.elapsed < seconds(BAD) / 2
    assert len(stopped.response.attempts) == 1
    assert any("ann was stopped after 1.1 s" in warning and "$.verdict" in warning for warning in result.warnings)
    (reset,) = council.heard(SeatReset)
    assert (reset.phase, reset.seat, reset.reason) == ("synthesise", "ann", stopped.stopped)
    finished = next(event for event in council.heard(SeatFinished) if event.phase == "synthesise")
    started = next(event for event in council.heard(SeatStarted) if event.phase == "repair")
    assert started.at == finished.at
    (request,) = provider.asked("repair")
    assert request.messages[2].text == stopped.response.text
    assert "$.verdict" in request.messages[3].text
    assert "It was stopped when that was seen." in request.messages[3].text


async def test_a_valid_answer_is_the_same_as_when_nobody_reads_along(run):
    provider = chair(GOOD)
    council, result = await run(provider)
    assert result.output == json.loads(GOOD)
    assert provider.streams == 1  # drafts are not read along
    assert council.heard(SeatReset) == []
    assert council.heard(TextDelta) == []
    assert result.duration == pytest.approx(seconds("Yes.") + seconds(GOOD))
    assert result.seats[0].calls[-1].stopped is None
    assert result.seats[0].calls[-1].response.usage.output_tokens == len(GOOD.split())


@pytest.mark.parametrize(
    "options",
    [
        {"provider": chair(BAD, capabilities=WHOLE)},  # does not stream
        {"provider": chair(BAD), "small": True},  # shapes its prose at the end
        {"provider": chair(BAD), "config": {"max_repairs": 1}},  # a stopped answer tells its first fault alone
        {"provider": chair(BAD, repair=[]), "config": {"max_repairs": 0}},
        {"provider": chair(BAD, repair=[]), "budget": Budget(deadline=600, calls=2)},  # none could follow
    ],
)
async def test_an_answer_is_read_whole_where_stopping_could_cost_it(run, options):
    provider = options.pop("provider")
    council, result = await run(provider, **options)
    assert provider.streams == 0
    assert council.heard(SeatReset) == []
    calls = [call for call in result.seats[0].calls if call.phase == Phase.SYNTHESISE]
    assert [call.response.text for call in calls] == [BAD]


async def test_a_chair_whose_adapter_says_nothing_of_itself_is_replaced(table):
    class Bare(ProviderAdapter):
        name = "bare"

        async def generate(self, request):
            return GOOD

    script = {"draft": "Yes.", "critique": "Right.", "synthesise": GOOD}
    council = table(ann=ScriptedProvider(script), bob=ScriptedProvider(script), cid=Bare())
    result = await council.run(schema=SCHEMA, clock=anyio.current_time)
    assert result.output == json.loads(GOOD)
    assert result.chair == "ann"


async def test_without_a_schema_nobody_reads_along(run):
    provider = chair(BAD)
    _, result = await run(provider, schema=None)
    assert result.output == BAD
    assert provider.streams == 0


async def test_the_last_repairs_are_read_whole(run):
    provider = chair(BAD, repair=[BAD, BAD])
    _, result = await run(provider)
    assert result.status is Status.FAILED
    assert [bool(call.stopped) for call in result.seats[0].calls] == [False, True, False, False]
    assert result.error.text == BAD
    _, result = await run(chair(BAD, repair=[BAD, BAD, GOOD]), config={"max_repairs": 3})
    assert result.output == json.loads(GOOD)
    assert [bool(call.stopped) for call in result.seats[0].calls] == [False, True, True, False, False]


async def test_a_stopped_call_is_counted(run):
    _, result = await run(chair(BAD), budget=Budget(deadline=600, tokens=100_000, calls=3))
    assert result.output == json.loads(GOOD)
    assert [call.response.usage for call in result.seats[0].calls][1] is None  # what a stream counts on its way is less
    assert any("the budget counted an estimate" in warning for warning in result.warnings)
    assert not result.cost.complete


async def test_an_answer_in_one_piece_has_nothing_left_to_save(run):
    class Whole(Dictating):
        async def stream(self, request):
            yield await self.generate(request)

    _, result = await run(Whole(chair(BAD)._script))
    assert [call.response.text for call in result.seats[0].calls][1:] == [BAD, GOOD]
    assert not any(call.stopped for call in result.seats[0].calls)


async def test_who_listens_to_the_words_is_told_to_forget_them(run):
    council, result = await run(chair(BAD), deltas=True)
    assert result.output == json.loads(GOOD)
    words = "".join(event.text for event in council.heard(TextDelta) if event.phase == "synthesise")
    assert BAD.startswith(words)
    assert len(council.heard(SeatReset)) == 1
    assert "".join(event.text for event in council.heard(TextDelta) if event.phase == "repair") == GOOD


async def test_a_loop_is_not_shown_to_the_model_that_was_in_it(run):
    text = '{"verdict": "approve", "reasons": ["' + "The cat sat on the mat. " * 4000
    provider = chair(text)
    _, result = await run(provider)
    assert result.output == json.loads(GOOD)
    (stopped,) = [call for call in result.seats[0].calls if call.stopped]
    assert len(stopped.response.text) < len(text) / 4
    (request,) = provider.asked("repair")
    assert len(request.messages[2].text) < len(stopped.response.text)


# A stream that breaks is no worse than a call that fails


async def test_a_stream_that_only_the_engine_reads_is_asked_again_when_it_breaks(run):
    broken = Broken(GOOD[:40], TruncatedReply("the connection was lost", partial=GOOD[:40]))
    council, result = await run(chair(broken, GOOD))
    assert result.output == json.loads(GOOD)
    assert result.status is Status.COMPLETED
    (failed,) = council.heard(AttemptFailed)
    assert (failed.phase, type(failed.error)) == ("synthesise", TruncatedReply)
    attempts = result.seats[0].calls[-1].response.attempts
    assert [attempt.error for attempt in attempts] == ["TruncatedReply", None]


async def test_retries_of_the_provider_and_of_a_broken_stream_add_up(table):
    broken = Broken(GOOD[:40], TruncatedReply("the connection was lost", partial=GOOD[:40]))
    down = ServerFailed("overloaded", status=529)
    inner = chair(broken, down, GOOD)
    council = table(ann=Retry(inner, RetryPolicy(max_retries=2), rng=_Zero()))
    result = await council.run(schema=SCHEMA, clock=anyio.current_time)
    assert result.output == json.loads(GOOD)
    attempts = result.seats[0].calls[-1].response.attempts
    assert [attempt.error for attempt in attempts] == ["TruncatedReply", "ServerFailed", None]


class _Zero:
    def uniform(self, low, high):
        return low


@pytest.mark.parametrize("options", [{"deltas": True}, {"config": {"retry": RetryPolicy(max_retries=0)}}])
async def test_a_broken_stream_is_not_asked_again_where_its_words_were_told_or_retries_are_off(run, options):
    broken = Broken(GOOD[:40], TruncatedReply("the connection was lost", partial=GOOD[:40]))
    council, result = await run(chair(broken, GOOD), **options)
    assert len(council.seats["ann"].asked("synthesise")) == 1
    assert result.status is not Status.COMPLETED


async def test_a_run_that_is_cancelled_while_it_reads_along_closes_the_stream(table):
    provider = chair(GOOD)
    with anyio.move_on_after(seconds("Yes.") + 1.1):
        await table(ann=provider).run(schema=SCHEMA, clock=anyio.current_time)
    assert provider._now == 0
    assert provider.streams == 1


# What is measured


async def test_measured_critiques_overlap_the_drafts(table):
    times = {"ann": (4, 3), "bob": (6, 4), "cid": (12, 9)}  # seconds of a draft and of a critique; cid is slow at both
    seats = {
        name: ScriptedProvider(
            {"draft": "Yes.", "critique": "Right.", "synthesise": "Yes."},
            delay={"draft": draft, "critique": review, "synthesise": 8},
        )
        for name, (draft, review) in times.items()
    }
    council = table(**seats)
    result = await council.run(
        drafters=list(times), config={"chair": "cid"}, budget=Budget(deadline=600), clock=anyio.current_time
    )
    drafts, reviews = zip(*times.values(), strict=True)
    one_by_one = sum(drafts) + sum(reviews) + 8
    in_waves = max(drafts) + max(reviews) + 8
    assert result.status is Status.COMPLETED
    # cid, the slowest, judges the drafts of ann and bob while it still writes its own; they wait for cid's alone.
    started = {event.seat: event.at for event in council.heard(SeatStarted) if event.phase == "critique"}
    assert started == pytest.approx({"cid": 6, "ann": 12, "bob": 12})
    assert result.duration == pytest.approx(max(12 + 4, 6 + 9) + 8)
    assert result.duration < in_waves < one_by_one
    print(f"\none by one {one_by_one:g} s; in waves {in_waves:g} s; as drafts arrive {result.duration:g} s")


async def test_measured_a_doomed_answer(run):
    _, stopped = await run(chair(BAD))
    _, whole = await run(chair(BAD, capabilities=WHOLE))
    assert stopped.output == whole.output
    saved = whole.duration - stopped.duration
    assert saved == pytest.approx(seconds(BAD) - stopped.seats[0].calls[1].elapsed)
    assert saved > 2
    characters = len(BAD) - len(stopped.seats[0].calls[1].response.text)
    print(
        f"\ndoomed: {whole.duration:.2f} s read whole, {stopped.duration:.2f} s stopped; {characters} characters less"
    )


async def test_measured_the_stable_prefix_of_a_run(table):
    said = "This is a sentence of a draft. " * 60
    script = {"draft": said, "critique": "Right.", "synthesise": BAD, "repair": GOOD}
    seats = {name: ScriptedProvider(script) for name in ("ann", "bob", "cid")}
    notes = Attachment(name="notes.txt", text="A line of the file that everybody reads.\n" * 300)
    council = table(**seats)
    result = await council.run(schema=SCHEMA, files=[notes], context="A context. " * 100, clock=anyio.current_time)
    assert result.output == json.loads(GOOD)
    shares = {}
    for name, provider in seats.items():
        texts = ["\n".join(turn.text for turn in request.turns()) for request in provider.requests]
        phases = [request.metadata["phase"] for request in provider.requests]
        for before, after, phase in zip(texts, texts[1:], phases[1:], strict=False):
            shares[name, phase] = shared(before, after) / len(after)
    # All that the phases have in common stands first; a repair begins with the whole request that it repairs.
    stable = len(notes.text) + 100 * len("A context. ")
    for (_, phase), share in shares.items():
        assert share > (0.9 if phase == "repair" else 0.6)
    for provider in seats.values():
        texts = [request.messages[1].text for request in provider.requests]
        assert shared(*texts) > stable
    print("\n" + "; ".join(f"{name} {phase} {share:.0%}" for (name, phase), share in shares.items()))


def shared(*texts):
    """Count the characters with which all texts begin."""
    return sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False)))
