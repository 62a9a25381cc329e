"""A seat whose stream begins again elsewhere: what came before is void for listeners, result and reader."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_council.errors import ServerFailed
from llm_council.events import SeatReset, TextDelta
from llm_council.middleware import Failover
from llm_council.models import Status
from llm_council.testing.fakes import Broken, ScriptedProvider

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"enum": ["approve", "reject"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}


def seat(first: str, second: str) -> Any:
    breaking = ScriptedProvider(lambda request: Broken(first, ServerFailed("gone")), name="a")
    return Failover([breaking, ScriptedProvider(second, name="b")], mid_stream="restart", failures=100)


async def test_a_reset_stream_emits_seat_reset(table: Any) -> None:
    council = table(ann=seat("no, wait ", "The answer is 391."))
    result = await council.run(deltas=True)
    assert result.status is Status.COMPLETED
    assert result.drafts == {"ann": "The answer is 391."}
    (reset, *_) = council.events_of(SeatReset)
    assert reset.seat == "ann"
    assert "a failed after its first words: gone" in reset.reason
    events = [event for event in council.events if isinstance(event, SeatReset | TextDelta)]
    first = events.index(reset)
    assert "".join(event.text for event in events[:first]) == "no, wait "


async def test_without_listeners_a_reset_leaves_the_new_answer_alone(table: Any) -> None:
    answer = json.dumps({"verdict": "approve"})
    council = table(ann=seat('{"verdict": "app', answer))
    result = await council.run(schema=SCHEMA)
    assert result.status is Status.COMPLETED
    assert result.output == {"verdict": "approve"}
    assert council.events_of(SeatReset) == [], "nobody listens to the words"
