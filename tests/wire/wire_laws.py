"""The laws that every dialect keeps, stated once: a module describes its dialect, and gets them as its tests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import pairwise
from types import ModuleType
from typing import Any, ClassVar

import attrs
import strategies
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import DEFAULT_EXAMPLES, number_of_examples

from llm_council._wire.failures import ErrorDecoder
from llm_council._wire.payloads import dumps, loads
from llm_council.errors import ApiError, InvalidOption, MalformedReply, ProviderError, TruncatedReply
from llm_council.models import GenerateRequest, GenerateResponse, Message, join

REFUSED = (MalformedReply, ApiError, TruncatedReply)


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a body at these places, each taken modulo its length."""
    places = [0, *sorted({cut % (len(body) + 1) for cut in cuts}), len(body)]
    return [body[start:end] for start, end in pairwise(places)]


def lookalikes(keys: str, leaves: Collection[Any], *, most: int = 20) -> st.SearchStrategy[Any]:
    """Values that look like replies, which get further into the decoders than random JSON does.

    Args:
        keys: the words that objects of this dialect have as keys.
        leaves: what stands at their ends, beside any JSON.
        most: leaves of one value.
    """
    keyed = st.sampled_from(keys.split())
    ends = strategies.json_values(leaves=2) | st.sampled_from(list(leaves))
    return st.recursive(
        ends, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keyed, inner, max_size=5), max_leaves=most
    )


def no_feeding(junk: Any, options: Any) -> None:
    """Stand for the feeding of single events where a dialect has a test of its own for it."""


def may_be_empty(request: GenerateRequest) -> bool:
    """Return True if an encoder may find no turn to send, and refuse the request: nothing is said, and nothing called.

    Blank turns of a model are left out, and instructions alone ask nothing.
    """
    asked = [turn for turn in request.turns() if turn.role not in ("system", "developer")]
    return not any(turn.text.strip() or (turn.tool_calls and turn.role == "assistant") for turn in asked)


@attrs.frozen(kw_only=True)
class Dialect:
    """What the laws have to know of a dialect.

    Attributes:
        codec: the functions that ship: encode_request, decode_response, decode_error.
        mirror: the vendor's half: decode_request, encode_response; None where ``codec`` has them too.
        stream: makes the reader of a stream.
        requests: what the dialect carries.
        replies: what it carries whole.
        bodies: the ways to write a reply as a stream, in pieces of so many characters.
        alike: values that look like its messages.
        wrapped: the places in messages where such a value may stand.
        unsaid: the fields of a reply that the dialect has no words for.
        options: how servers differ.
        flagged: whether ``encode_request`` takes ``stream``; else the request says it.
        varied: whether ``decode_response`` takes the options.
        any_turn: makes a turn of any request one that may be encoded.
        refusable: whether the dialect may refuse to encode a request.
        feed: feeds one value to the reader of events.
        hostile: how many of the options read junk.
        odd: junk that is always tried.
        refusal: what a refusal is at least.
        statuses: those of the refusals that hold junk.
        heads: beginnings that lead a reader on.
        examples: how many are tried of each law; None takes the profile's.
        examples_of_any: of any request at all.
    """

    codec: ModuleType
    stream: Callable[..., Any]
    requests: st.SearchStrategy[GenerateRequest]
    replies: st.SearchStrategy[GenerateResponse]
    bodies: Callable[[GenerateResponse, int], list[bytes]]
    alike: st.SearchStrategy[Any]
    wrapped: Callable[[Any], list[Any]]
    unsaid: Collection[str]
    options: Sequence[Any] = (None,)
    flagged: bool = False
    varied: bool = True
    any_turn: Callable[[Message], Message] = lambda turn: turn
    refusable: Callable[[GenerateRequest], bool] = may_be_empty
    feed: Callable[[Any, Any], None] = no_feeding
    hostile: int = 9
    odd: Sequence[Any] = ()
    refusal: type[ProviderError] = ApiError
    statuses: Sequence[int] = (500, 404)
    heads: Sequence[bytes] = (b"",)
    examples: int | None = None
    examples_of_any: int | None = None
    mirror: ModuleType | None = None

    @property
    def vendor(self) -> ModuleType:
        """The module of the vendor's half."""
        return self.mirror or self.codec

    def encode(self, request: GenerateRequest, options: Any, *, live: bool = False) -> dict[str, Any]:
        stream_option = {"stream": live} if self.flagged and live else {}
        return self.codec.encode_request(request, *self._known(options), **stream_option)

    def decode(self, payload: Any, options: Any) -> GenerateRequest:
        return self.vendor.decode_request(payload, *self._known(options))

    def _known(self, options: Any) -> list[Any]:
        return [] if options is None else [options]

    def read(self, pieces: list[bytes]) -> GenerateResponse:
        stream = self.stream()
        chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
        return join([*chunks, *stream.finish()])

    def outcome(self, pieces: list[bytes]) -> Any:
        """What a reader makes of any bytes: an answer, or a refusal with what it had until then."""
        try:
            return self.read(pieces)
        except REFUSED as error:
            return type(error), error.partial

    def tried(self, *drawn: Any, examples: int | None = None) -> Callable[[Callable[..., None]], None]:
        """Hold a law to what is drawn, at once."""
        number = number_of_examples(examples or self.examples or DEFAULT_EXAMPLES)

        def hold(law: Callable[..., None]) -> None:
            settings(max_examples=number)(given(*drawn)(law))()

        return hold


class DialectLaws:
    """The laws; a subclass whose name begins with ``Test`` says which dialect keeps them."""

    dialect: ClassVar[Dialect]

    def test_a_payload_is_a_fixed_point(self) -> None:
        dialect = self.dialect

        @dialect.tried(dialect.requests, st.sampled_from(dialect.options), st.booleans())
        def law(request: GenerateRequest, options: Any, live: bool) -> None:
            payload = dialect.encode(request, options, live=live)
            assert dialect.encode(dialect.decode(loads(dumps(payload)), options), options) == payload

    def test_any_request_at_all_is_encoded_and_read_again_or_refused(self) -> None:
        dialect = self.dialect

        @dialect.tried(strategies.requests(), st.sampled_from(dialect.options), examples=dialect.examples_of_any)
        def law(request: GenerateRequest, options: Any) -> None:
            asked = attrs.evolve(request, messages=[dialect.any_turn(turn) for turn in request.turns()], extra={})
            try:
                payload = dialect.encode(asked, options)
            except InvalidOption:
                assert dialect.refusable(asked)
                return
            body = loads(dumps(payload))
            try:
                again = dialect.decode(body, options)
            except MalformedReply:
                return  # a role or a content that no reader takes
            assert dialect.encode(again, options) == payload

    def test_a_reply_comes_back(self) -> None:
        dialect = self.dialect

        @dialect.tried(dialect.replies)
        def law(response: GenerateResponse) -> None:
            payload = dialect.vendor.encode_response(response)
            assert dialect.codec.decode_response(loads(dumps(payload))) == attrs.evolve(response, raw=payload)

    def test_a_stream_is_the_whole_wherever_it_is_cut(self) -> None:
        dialect = self.dialect

        @dialect.tried(dialect.replies, st.integers(1, 9), st.lists(st.integers(0, 10**6), max_size=20))
        def law(response: GenerateResponse, size: int, cuts: list[int]) -> None:
            whole = dialect.codec.decode_response(dialect.vendor.encode_response(response))
            expected = attrs.evolve(whole, raw=None, text=whole.text or None, content=whole.text or None)
            for body in dialect.bodies(response, size):
                assert dialect.read(split(body, cuts)) == expected
                assert dialect.read([body]) == expected

    def test_any_bytes_are_a_stream_or_refused_wherever_they_are_cut(self) -> None:
        dialect = self.dialect

        @dialect.tried(
            st.sampled_from(dialect.heads),
            st.binary(max_size=60),
            st.lists(st.integers(0, 60), max_size=5),
            examples=20,
        )
        def law(head: bytes, body: bytes, cuts: list[int]) -> None:
            whole = dialect.outcome([head + body])
            assert dialect.outcome(split(head + body, cuts)) == whole
            assert dialect.outcome([bytes([one]) for one in head + body]) == whole

    def test_junk_is_read_or_raises_typed_errors(self) -> None:
        dialect = self.dialect

        def law(value: Any) -> None:
            for junk in dialect.wrapped(value):
                for options in dialect.options[: dialect.hostile]:
                    known = dialect._known(options)
                    with suppress(*REFUSED):
                        dialect.codec.decode_response(junk, *known if dialect.varied else ())
                    with suppress(MalformedReply):
                        dialect.decode(junk, options)
                    with suppress(*REFUSED):
                        dialect.feed(junk, options)
                for status in dialect.statuses:
                    assert isinstance(dialect.codec.decode_error(status, {}, dumps(junk)), dialect.refusal)

        for one in dialect.odd:
            law = example(one)(law)
        dialect.tried(dialect.alike)(law)

    def test_any_body_of_a_refusal_is_read(self) -> None:
        read: ErrorDecoder = self.dialect.codec.decode_error

        @self.dialect.tried(st.binary(max_size=80), st.integers(400, 599))
        def law(body: bytes, status: int) -> None:
            error = read(status, {}, body)
            assert error.message
            assert not isinstance(error, ApiError) or error.status == status

    def test_the_laws_can_fail(self) -> None:
        """A decoder that forgot one fact would be found: the strategies do reach every field."""
        seen: set[str] = set()

        @self.dialect.tried(self.dialect.replies, examples=60)
        def look(response: GenerateResponse) -> None:
            seen.update(field.name for field in attrs.fields(GenerateResponse) if getattr(response, field.name))

        assert seen == {field.name for field in attrs.fields(GenerateResponse)} - set(self.dialect.unsaid)
