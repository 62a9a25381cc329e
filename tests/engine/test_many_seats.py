"""A large council: what is done once for each draft, and not once for each pair of reviewer and draft."""

import pytest

from llm_council._engine import seat_texts
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

SEATS = 9


@pytest.fixture
def prepared(monkeypatch):
    """Record the texts in which names are searched."""
    texts = []
    hide_names = seat_texts.hide_names

    def record(plan, text):
        texts.append(text)
        return hide_names(plan, text)

    monkeypatch.setattr(seat_texts, "hide_names", record)
    return texts


def council_of(table, review):
    script = {"critique": "Right.\nRANKING: A", "rank": review, "synthesise": "391"}
    return table(
        **{
            f"seat-{number}": ScriptedProvider({**script, "draft": f"Draft of number {number}."})
            for number in range(SEATS)
        }
    )


@pytest.mark.parametrize(("strategy", "texts"), [("synthesize", SEATS - 1 + 1), ("vote", SEATS)])
async def test_names_are_hidden_once_in_each_text_whatever_the_number_of_its_readers(table, prepared, strategy, texts):
    council = council_of(table, "Right.")
    result = await council.run(strategy=strategy)
    assert result.success
    assert len(result.critiques) == SEATS
    assert len(prepared) == len(set(prepared)) == texts  # the drafts, and the one text of all critiques


async def test_a_text_that_was_prepared_for_another_reader_looks_the_same(table, monkeypatch):
    async def prompts():
        council = council_of(table, "Right.")
        await council.run(run_id="r1")
        return {name: [request.messages for request in seat.requests] for name, seat in council.seats.items()}

    shared = await prompts()
    prepare = seat_texts.SeatTexts.quotable
    monkeypatch.setattr(
        seat_texts.SeatTexts,
        "quotable",
        lambda self, text, limit: prepare(seat_texts.SeatTexts(self.plan), text, limit),
    )
    assert await prompts() == shared
