"""JSON is read strictly, and nothing but a typed error comes of what is not JSON."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from llm_council._wire.payloads import (
    amount,
    arguments_object,
    dumps,
    get_text,
    join_tools,
    kind,
    loads,
    need_list,
    need_object,
    pick_non_empty,
    tokens,
    well_formed,
    with_extra,
)
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models import Limits


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


REFUSED = [
    (b"", "empty"),
    (b"  \n", "empty"),
    (b"{", "not JSON"),
    (b'{"a":', "Expecting value"),
    (b'{"a": [tru', "Expecting value"),
    (b'{"a": NaN}', "NaN is not JSON"),
    (b"[Infinity]", "Infinity is not JSON"),
    (b"[-Infinity]", "-Infinity is not JSON"),
    (b"[1e999]", "out of range"),
    (b"1" * 5000, "not JSON"),
    (b'{"a": 1} x', "Extra data"),
    (b"[1] x", "Extra data"),
    (b"\xff\xfe{}", "not UTF-8"),
    (b'"\xc3"', "not UTF-8"),
    (b"<html><h1>502</h1>", "it begins '<html><h1>502</h1>'"),
    (nested(201), "nested deeper than 200 levels"),
    (nested(100_000), "nested"),
    (b'{"a":' * 100_000, "nested"),
]


@pytest.mark.parametrize(("body", "expected"), REFUSED, ids=[expected for _, expected in REFUSED])
def test_invalid_json_is_refused(body: bytes, expected: str) -> None:
    with pytest.raises(MalformedReply) as caught:
        loads(body)
    assert expected in caught.value.message
    assert caught.value.path == "$"
    assert caught.value.retryable


def test_the_message_names_the_content_type_and_shows_eighty_characters() -> None:
    with pytest.raises(MalformedReply) as caught:
        loads(b"<!doctype html>" + b"x" * 5000, content_type="text/html; charset=utf-8")
    assert "(text/html)" in caught.value.message
    assert len(caught.value.message) < 200


def test_nesting_is_bounded_by_the_limits() -> None:
    assert loads(nested(200)) is not None
    assert loads(nested(3), Limits(json_depth=3)) == [[[]]]
    with pytest.raises(MalformedReply):
        loads(nested(4), Limits(json_depth=3))
    assert loads(b"[" + b"[]," * 500 + b"[]]") is not None  # many brackets are not deep ones
    assert loads(b'"' + b"{" * 500 + b'"') == "{" * 500


def test_a_byte_order_mark_and_space_are_accepted() -> None:
    assert loads(b'\xef\xbb\xbf {"a": 1}\r\n') == {"a": 1}
    assert loads("\ufeff[1]") == [1]


def test_half_surrogate_pairs_become_replacement_characters() -> None:
    assert loads(rb'["\ud83d", {"\udc00": "a\uDfffb"}]') == ["\ufffd", {"\ufffd": "a\ufffdb"}]
    assert loads(rb'"\ud83d\ude00"') == "\U0001f600"
    assert loads(rb'"\\ud83d"') == r"\ud83d"
    assert well_formed("a\ud83d\ude00") == "a\U0001f600"
    assert dumps({"a": "\ud83d"}) == '{"a":"\ufffd"}'.encode()


def test_dumps_writes_compact_utf8_json() -> None:
    assert dumps({"b": "é", "a": MappingProxyType({"x": (1,)})}) == '{"b":"é","a":{"x":[1]}}'.encode()
    assert dumps({"b": 1, "a": 2}, sort=True) == b'{"a":2,"b":1}'
    for value in (float("nan"), {1, 2}, object(), b"x"):
        with pytest.raises(InvalidOption, match="JSON cannot carry"):
            dumps({"a": value})


def test_arguments_that_no_payload_can_carry_are_not_an_object() -> None:
    assert arguments_object('{"a": 1e308}') == {"a": 1e308}
    for text in ('{"a": 1e999}', '{"a": NaN}', '{"a": -Infinity}'):
        assert arguments_object(text) is None


def test_picking_leaves_out_what_is_empty_but_not_zero_or_false() -> None:
    source = {"a": 0, "b": False, "c": None, "d": "", "e": [], "f": {}, "g": 1}
    assert pick_non_empty(source, (*"abcdef", "missing")) == {"a": 0, "b": False}


def test_getters_name_the_path() -> None:
    assert get_text({"a": None}, "a", "$") is None
    assert get_text({"a": "x"}, "a", "$") == "x"
    for action, path in (
        (lambda: get_text({"a": 7}, "a", "$.b"), "$.b.a"),
        (lambda: need_object([], "$.x"), "$.x"),
        (lambda: need_list({}, "$.y"), "$.y"),
    ):
        with pytest.raises(MalformedReply) as caught:
            action()
        assert caught.value.path == path
        assert path in caught.value.message


def test_invalid_counts_and_amounts_are_unknown() -> None:
    assert [tokens(value) for value in (3, 3.0, 3.5, -1, True, "3", None, float("inf"))] == [3, 3, *[None] * 6]
    assert [amount(value) for value in (0, 0.5, -1, True, "1", float("nan"), 10**400)] == [0.0, 0.5, *[None] * 5]


def test_kinds_have_names_for_people() -> None:
    assert [kind(value) for value in (None, True, 1.5, "", [], {})] == [
        "null",
        "a boolean",
        "a number",
        "a string",
        "a list",
        "an object",
    ]


MINE = {"type": "function", "function": {"name": "f"}}
SEARCH = {"type": "web_search"}


@pytest.mark.parametrize(
    ("known", "further", "joined"),
    [
        ([MINE], [SEARCH], [MINE, SEARCH]),
        ([MINE], SEARCH, [MINE, SEARCH]),
        (SEARCH, [MINE], [SEARCH, MINE]),
        ([MINE, SEARCH], [{"name": "f", "strict": True}], [SEARCH, {"name": "f", "strict": True}]),
        ([], [], []),
        ([MINE], None, None),
        ("odd", [MINE], [MINE]),
    ],
)
def test_tools_of_two_places_stand_in_one_list(known: object, further: object, joined: object) -> None:
    assert join_tools(known, further) == joined
    if known:
        assert with_extra({"tools": known}, {"tools": further})["tools"] == joined
