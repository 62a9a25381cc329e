"""A key is held so that it cannot be shown by accident."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.errors import Attempt
from llm_council.errors._secrets import MASK, Secret, StreamMask, clean, masked, redact
from llm_council.models import GenerateResponse, ToolCall
from llm_council.models._attrs import mask_secrets

KEY = "my-very-own-key-0123456789"


def test_repr_str_and_format_do_not_show_the_key() -> None:
    secret = Secret(KEY)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>10}",
        "%s" % secret,  # noqa: UP031
        repr([secret]),
        repr({1: secret}),
    ]
    try:
        json.dumps(secret)
    except TypeError as error:
        shown.append(str(error))
    try:
        raise ValueError(secret)
    except ValueError:
        shown.append(traceback.format_exc())
    assert not [text for text in shown if KEY in text]
    assert secret.reveal() == KEY
    assert not hasattr(secret, "__dict__")


def test_fingerprints_of_two_keys_differ_and_do_not_contain_them() -> None:
    a, b = Secret(KEY), Secret(KEY + "x")
    assert a.fingerprint() == Secret(KEY).fingerprint() != b.fingerprint()
    assert len(a.fingerprint()) == 12
    assert a == Secret(KEY)
    assert a != b
    assert a != KEY
    assert hash(a) == hash(Secret(KEY))


def test_surrounding_whitespace_is_removed() -> None:
    assert Secret(f"  {KEY}\n").reveal() == KEY


@pytest.mark.parametrize(
    "value", ["", "  \n", "two words", "line\nbreak", "tab\there", "caf\u00e9", "nul\x00", "\u200bkey"]
)
def test_a_key_that_a_header_cannot_contain_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(ValueError, match="the key in MY_KEY") as caught:
        Secret(value, env="MY_KEY")
    assert not value.strip() or value.strip() not in str(caught.value)


def test_a_pickle_holds_the_name_of_the_variable_and_never_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(Secret(KEY, env="MY_KEY"))
    assert KEY.encode() not in data
    monkeypatch.setenv("MY_KEY", "another-key-here")
    assert pickle.loads(data).reveal() == "another-key-here"
    monkeypatch.delenv("MY_KEY")
    empty = pickle.loads(data)
    assert not empty
    with pytest.raises(LookupError, match="set MY_KEY in this process, too"):
        empty.reveal()
    assert not pickle.loads(pickle.dumps(Secret(KEY)))


def test_copies_are_the_same_secret() -> None:
    secret = Secret(KEY)
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"a": [secret]})["a"][0] is secret


def test_live_keys_are_redacted_and_collected_ones_are_not() -> None:
    first, second = Secret(KEY), Secret(KEY)
    assert redact(f"<{KEY}>") == f"<{MASK}>"
    del first
    gc.collect()
    assert redact(f"<{KEY}>") == f"<{MASK}>"
    del second
    gc.collect()
    assert redact(f"<{KEY}>") == f"<{KEY}>"


LOOK_LIKE_KEYS = [
    "sk-proj-abcdefghijklmnop",
    "sk-ant-api03-abcdefghijklmnop",
    "sk-or-v1-0123456789abcdef",
    "AIzaSyA0123456789abcdefghijklmnopqrstu",
    "ghp_0123456789abcdefghij",
    "hf_abcdefghijklmnop",
    "gsk_abcdefghijklmnop",
]


@pytest.mark.parametrize("key", LOOK_LIKE_KEYS)
def test_what_looks_like_a_key_is_redacted(key: str) -> None:
    assert key not in redact(f"wrong key {key}, sorry")


def test_keys_in_headers_and_addresses_are_redacted() -> None:
    assert redact("Authorization: Bearer abcdefgh12345") == f"Authorization: Bearer {MASK}"
    assert redact("https://x/y?key=abc&z=1") == f"https://x/y?key={MASK}&z=1"
    assert redact("https://x/y?a=1&api_key=abc") == f"https://x/y?a=1&api_key={MASK}"
    assert redact("http://user:pass@proxy:8080") == f"http://{MASK}@proxy:8080"
    assert redact("nothing here: a sk- of a risk-averse task") == "nothing here: a sk- of a risk-averse task"


def test_a_cut_message_contains_no_part_of_a_key() -> None:
    secret = Secret(KEY)
    for start in range(1010, 1030):
        text = clean("x" * start + secret.reveal() + "y" * 100)
        assert KEY[:5] not in text


@given(st.text(max_size=200))
def test_cleaning_accepts_any_text_and_is_idempotent(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert not [char for char in once if (ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160]
    once.encode()


def test_half_surrogate_pairs_are_replaced() -> None:
    assert clean("a\ud83db") == "a?b"


class TestPieces:
    """A key that arrives in pieces is masked as one that arrives whole."""

    @given(
        st.lists(st.sampled_from(["a", "ab", KEY, KEY[:5], KEY[5:], KEY[:-1], KEY[-1], "my", "-"]), max_size=8),
        st.data(),
    )
    def test_the_masked_text_does_not_depend_on_the_pieces(self, parts: list[str], data: st.DataObject) -> None:
        text = "".join(parts)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
        held = Secret(KEY)
        mask = StreamMask()
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        shown = [*map(mask.feed, pieces), mask.rest()]
        assert held.reveal() not in "".join(shown)
        assert "".join(shown) == masked(text)
        assert mask.rest() == ""

    def test_text_that_cannot_start_a_key_is_not_held_back(self) -> None:
        held = Secret(KEY)
        mask = StreamMask()
        assert mask.feed("plain words.") == "plain words."
        assert mask.feed("and m") == "and "
        assert mask.feed("ore.") == "more."
        assert held

    def test_of_two_matching_keys_the_longer_is_masked(self) -> None:
        short, long = Secret(KEY), Secret(KEY + "-and-more")
        assert masked(long.reveal()) == MASK
        assert short

    @given(st.data())
    def test_no_part_is_shown_of_a_key_that_contains_another(self, data: st.DataObject) -> None:
        short, long = Secret(KEY), Secret(f"before-{KEY}-after")
        text = data.draw(st.lists(st.sampled_from([KEY, long.reveal(), "before-", "x"]), max_size=3).map("".join))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
        mask = StreamMask()
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert "".join([*map(mask.feed, pieces), mask.rest()]) == masked(text)
        assert short


def test_a_data_object_with_a_key_is_masked_and_one_without_is_returned_unchanged() -> None:
    held = Secret(KEY)
    plain = GenerateResponse(text="four", raw={"a": [1, "b", None, {"c": 2.5}]}, attempts=[Attempt(at=0, elapsed=1)])
    assert mask_secrets(plain) is plain
    response = GenerateResponse(
        text=f"<{KEY}>",
        model=KEY,
        raw={KEY: [1, (KEY, None)], "b": True},
        tool_calls=[ToolCall(id="1", name="x", arguments=f'{{"k": "{KEY}"}}')],
        attempts=[Attempt(at=0, elapsed=1, message=KEY)],
        structured={"deep": [{"er": KEY}]},
    )
    shown = mask_secrets(response)
    assert KEY not in repr(shown) + repr(shown.raw)
    assert shown.text == f"<{MASK}>"
    assert shown.raw == {MASK: [1, (MASK, None)], "b": True}
    assert shown.content == shown.text
    assert held


FRAGMENTS = st.lists(
    st.sampled_from(["sk-", "SK_", "AIza", "ghp_", "Bearer ", "?key=", "&API_KEY=", "&access_token=", "://", "u:p@"])
    | st.text("aZ9_-/@: \n", max_size=24)
).map("".join)


@given(FRAGMENTS)
def test_text_that_the_quick_test_rejects_matches_no_pattern(text: str) -> None:
    from llm_council.errors import _secrets

    expected = text
    for _, pattern in _secrets._PATTERNS:
        expected = pattern.sub(MASK, expected)
    assert redact(text) == expected
    assert redact(text) == text or _secrets.may_hold_keys(text)


@given(FRAGMENTS)
def test_text_that_may_hold_no_keys_as_json_holds_none(text: str) -> None:
    import json

    from llm_council.errors import _secrets

    held = Secret('a"quoted\\key-of-some-length')
    for spelling in (text, text + held.reveal()):
        assert redact(spelling) == spelling or _secrets.may_hold_keys(json.dumps({"x": [spelling]}))
