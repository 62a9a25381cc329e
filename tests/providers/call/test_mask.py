"""Keys that a server repeats in a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.errors import AdapterFailed, ServerFailed
from llm_council.errors._secrets import MASK, Secret, masked
from llm_council.models import GenerateRequest
from llm_council.models.reply import FinishReason, GenerateChunk, GenerateResponse, ToolCallDelta, join
from llm_council.providers._call.mask import ChunkMask
from llm_council.providers.base import ProviderAdapter, ProviderCapabilities, call, stream

KEY = "veiled-canary-0123456789"
ASK = GenerateRequest(prompt="?")


def over(*pieces: GenerateChunk) -> list[GenerateChunk]:
    mask = ChunkMask()
    shown = [mask.apply(piece) for piece in pieces]
    return [piece for piece in [*shown, mask.rest()] if piece is not None]


@given(st.lists(st.sampled_from(["a", KEY, KEY[:9], KEY[9:], KEY[:-1], "v", " "]), max_size=6), st.data())
def test_any_cut_shows_the_same_words(parts: list[str], data: st.DataObject) -> None:
    held = Secret(KEY)
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    words = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    name = data.draw(st.sampled_from(["text", "reasoning", "refusal"]))
    ends = data.draw(st.sampled_from([None, FinishReason.STOP]))
    pieces = [GenerateChunk(**{name: word}) for word in words]
    shown = over(*pieces, GenerateChunk(finish_reason=ends, model="m"))
    assert getattr(join(shown), name) == (masked(text) or None)
    assert held.reveal() not in "".join(getattr(piece, name) for piece in shown)
    if ends:
        assert shown[-1].finish_reason is ends  # nothing comes after the word that the model has stopped


def test_a_piece_that_holds_nothing_is_the_same_piece() -> None:
    held = Secret(KEY)
    pieces = [GenerateChunk(text="word "), GenerateChunk(text="word ", model="m"), GenerateChunk(usage=None)]
    assert [id(piece) for piece in over(*pieces)] == [id(piece) for piece in pieces]
    assert held


def test_no_more_waits_than_may_begin_a_key() -> None:
    held = Secret(KEY)
    mask = ChunkMask()
    first = mask.apply(GenerateChunk(text=f"see {KEY[:6]}"))
    assert first is not None
    assert first.text == "see "
    assert mask.apply(GenerateChunk(text=KEY[6:9])) is None
    last = mask.apply(GenerateChunk(text=" for all"))
    assert last is not None
    assert last.text == f"{KEY[:9]} for all"
    assert mask.rest() is None
    assert held


def test_arguments_of_tool_calls_each_on_their_own() -> None:
    held = Secret(KEY)
    deltas = [ToolCallDelta(index=index, id=f"c{index}", name="look") for index in (0, 1)]
    pieces = [GenerateChunk(tool_calls=deltas)]  # type: ignore[arg-type]
    for part in (KEY[:5], KEY[5:]):
        both = tuple(ToolCallDelta(index=index, arguments=part) for index in (0, 1))
        pieces.append(GenerateChunk(tool_calls=both))
    assert [made.arguments for made in join(over(*pieces)).tool_calls] == [MASK, MASK]
    cut = join(over(*pieces[:2]))
    assert [made.arguments for made in cut.tool_calls] == [KEY[:5]] * 2
    assert held


def test_whatever_stands_beside_the_words() -> None:
    held = Secret(KEY)
    shown = over(GenerateChunk(text="a", model=KEY, request_id=KEY, extra={"note": [KEY]}), GenerateChunk(text="b"))
    assert KEY not in repr(shown)
    assert join(shown).model == MASK
    assert held


def test_what_a_reset_makes_void_does_not_come_back() -> None:
    held = Secret(KEY)
    shown = over(GenerateChunk(text=f"x{KEY[:4]}"), GenerateChunk(text="again", reset="it broke off"))
    assert join(shown).text == "again"
    assert held


class Repeating(ProviderAdapter):
    """Repeats a key in two pieces, and may then fail."""

    name = "repeating"
    capabilities = ProviderCapabilities(streaming=True)

    def __init__(self, *words: str, error: Exception | None = None, whole: bool = False) -> None:
        self.key = Secret(KEY)
        self._words = words
        self._error = error
        self._whole = whole

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        async def pieces():
            for word in self._words:
                yield GenerateChunk(text=word)
            if self._error is not None:
                raise self._error

        return GenerateResponse(text="".join(self._words), model=KEY) if self._whole else pieces()  # type: ignore[return-value]


@pytest.mark.anyio
@pytest.mark.parametrize("whole", [False, True])
async def test_through_the_door(whole: bool) -> None:
    adapter = Repeating(f"it is {KEY[:7]}", f"{KEY[7:]}.", whole=whole)
    pieces = [piece async for piece in stream(adapter, ASK)]
    assert join(pieces).text == f"it is {MASK}."
    assert KEY not in repr(pieces)
    assert (await call(adapter, ASK)).text == f"it is {MASK}."


@pytest.mark.anyio
@pytest.mark.parametrize("error", [ServerFailed("it fell over"), ValueError("it fell over")])
async def test_what_came_before_an_error_is_shown_and_kept(error: Exception) -> None:
    adapter = Repeating(f"{KEY[:7]}", f"{KEY[7:]} and {KEY[:3]}", error=error)
    seen = []

    async def read() -> None:
        async for piece in stream(adapter, ASK):
            seen.append(piece.text)

    with pytest.raises((ServerFailed, AdapterFailed)) as caught:
        await read()
    assert "".join(seen) == f"{MASK} and {KEY[:3]}"
    assert getattr(caught.value, "partial", "".join(seen)) == "".join(seen)
    with pytest.raises((ServerFailed, AdapterFailed)) as caught:
        await call(adapter, ASK)
    assert KEY not in repr(vars(caught.value))
