"""What the engine does about the time that the models take themselves, on a mock clock: it jumps, nothing waits.

``python -m pytest tests/engine/test_critical_path.py -s -k measured`` prints the numbers of
docs/explanation/critical-path.md.
"""

import json
from itertools import takewhile

import anyio
import pytest
import trio.testing

from llm_council.errors import TruncatedReply
from llm_council.events import SeatReset, SeatStarted, TextDelta
from llm_council.models import (
    Attachment,
    Budget,
    FinishReason,
    GenerateChunk,
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


# Nobody listens: every answer is read whole


@pytest.mark.parametrize("streaming", [True, False])
async def test_an_invalid_answer_is_read_whole_then_repaired(run, streaming):
    provider = chair(BAD, capabilities=None if streaming else WHOLE)
    council, result = await run(provider)
    assert result.output == json.loads(GOOD)
    assert provider.streams == 0
    assert council.events_of(SeatReset) == []
    assert [call.response.text for call in result.seats[0].calls] == ["Yes.", BAD, GOOD]
    assert [call.stopped for call in result.seats[0].calls] == [None, None, None]
    assert result.duration == pytest.approx(seconds("Yes.") + seconds(BAD) + seconds(GOOD))


async def test_a_repair_is_told_every_problem_of_an_invalid_answer(run):
    wrong = json.dumps({"verdict": "maybe", "reasons": "none"})
    provider = chair(wrong)
    await run(provider)
    (request,) = provider.asked("repair")
    assert request.messages[2].text == wrong
    assert "$.verdict" in request.messages[3].text
    assert "$.reasons" in request.messages[3].text


async def test_the_chair_is_streamed_only_when_somebody_listens(run):
    silent, with_listener = chair(GOOD), chair(GOOD)
    council, result = await run(silent)
    assert (silent.streams, council.events_of(TextDelta)) == (0, [])
    council, streamed = await run(with_listener, deltas=True)
    assert with_listener.streams == 2  # the draft and the answer
    words = "".join(event.text for event in council.events_of(TextDelta) if event.phase == "synthesise")
    assert words == GOOD
    assert streamed.output == result.output == json.loads(GOOD)


async def test_a_chair_whose_adapter_says_nothing_of_itself_is_replaced(table):
    class Bare(ProviderAdapter):
        name = "bare"

        async def generate(self, request):
            return GOOD

    script = {"draft": "Yes.", "critique": "Right.", "synthesise": GOOD}
    council = table(ann=ScriptedProvider(script), bob=ScriptedProvider(script), cid=Bare())
    result = await council.run(schema=SCHEMA, clock=anyio.current_time)
    assert result.output == json.loads(GOOD)
    assert result.chair == result.ranking.order[0] != "cid"


async def test_listeners_hear_an_invalid_answer_to_its_end(run):
    council, result = await run(chair(BAD), deltas=True)
    assert result.output == json.loads(GOOD)
    for phase, text in (("synthesise", BAD), ("repair", GOOD)):
        assert "".join(event.text for event in council.events_of(TextDelta) if event.phase == phase) == text
    assert council.events_of(SeatReset) == []


@pytest.mark.parametrize("options", [{}, {"config": {"retry": RetryPolicy(max_retries=0)}}])
async def test_a_broken_stream_is_not_asked_again_once_its_text_was_heard(run, options):
    broken = Broken(GOOD[:40], TruncatedReply("the connection was lost", partial=GOOD[:40]))
    council, result = await run(chair(broken, GOOD), deltas=True, **options)
    assert len(council.seats["ann"].asked("synthesise")) == 1
    assert result.status is not Status.COMPLETED


async def test_a_run_that_is_cancelled_while_somebody_listens_closes_the_stream(table):
    provider = chair(GOOD)
    with anyio.move_on_after(seconds("Yes.") + 1.1):
        await table(ann=provider).run(schema=SCHEMA, clock=anyio.current_time, deltas=True)
    assert provider._now == 0
    assert provider.streams == 2


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
    started = {event.seat: event.at for event in council.events_of(SeatStarted) if event.phase == "critique"}
    assert started == pytest.approx({"cid": 6, "ann": 12, "bob": 12})
    assert result.duration == pytest.approx(max(12 + 4, 6 + 9) + 8)
    assert result.duration < in_waves < one_by_one
    print(f"\none by one {one_by_one:g} s; in waves {in_waves:g} s; as drafts arrive {result.duration:g} s")


async def test_measured_the_stable_prefix_of_a_run(table):
    long_draft = "This is a sentence of a draft. " * 60
    script = {"draft": long_draft, "critique": "Right.", "synthesise": BAD, "repair": GOOD}
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
