"""What is left of a vendor's rate limits, as the headers of its replies say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._wire.rate_headers import _ROWS, Remaining, remaining

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            [("calls", 59, 1.0), ("tokens", 149984, 360.0)],
            id="openai",
        ),
        pytest.param(
            {"x-ratelimit-remaining-requests": "4999", "x-ratelimit-reset-requests": "12ms"},
            [("calls", 4999, 0.012)],
            id="openai milliseconds",
        ),
        pytest.param(
            {"x-ratelimit-remaining-requests": "14370", "x-ratelimit-reset-requests": "2m59.56s"},
            [("calls", 14370, 179.56)],
            id="groq",
        ),
        pytest.param(
            {
                "x-ratelimit-remaining-requests-day": "999997455",
                "x-ratelimit-reset-requests-day": "33011.382867097855",
                "x-ratelimit-remaining-tokens-minute": "999998298",
                "x-ratelimit-reset-tokens-minute": "11.382867097854614",
            },
            [("calls", 999997455, 33011.382867097855), ("tokens", 999998298, 11.382867097854614)],
            id="cerebras",
        ),
        pytest.param(
            {
                "anthropic-ratelimit-requests-remaining": "999",
                "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:30Z",
                "anthropic-ratelimit-output-tokens-remaining": "16000",
                "anthropic-ratelimit-output-tokens-reset": "2025-12-31T23:59:00Z",
            },
            [("calls", 999, 30.0), ("tokens", 16000, 0.0)],
            id="anthropic",
        ),
        pytest.param(
            {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767225607500"},
            [("calls", 0, 7.5)],
            id="openrouter",
        ),
        pytest.param(
            {"x-ratelimit-remaining": "3", "x-ratelimit-reset": "1767225660"}, [("calls", 3, 60.0)], id="unix seconds"
        ),
        pytest.param({"ratelimit-remaining": "95", "ratelimit-reset": "25"}, [("calls", 95, 25.0)], id="ietf"),
        pytest.param({"x-ratelimit-remaining-requests": "5"}, [], id="without a reset"),
        pytest.param(
            {"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "1s"}, [], id="a negative rest"
        ),
        pytest.param({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "soon"}, [], id="a word"),
        pytest.param({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "1s and"}, [], id="more"),
        pytest.param({}, [], id="no headers"),
    ],
)
def test_each_vendors_headers_say_what_is_left_and_for_how_long(
    headers: dict[str, str], expected: list[tuple[str, int, float]]
) -> None:
    found = remaining(headers, NOW)
    assert [(limit.unit, limit.left) for limit in found] == [(unit, left) for unit, left, _ in expected]
    assert [limit.seconds for limit in found] == pytest.approx([seconds for *_, seconds in expected])


def test_a_reset_time_is_compared_with_the_clock_of_the_vendor() -> None:
    headers = {
        "date": "Thu, 01 Jan 2026 00:00:00 GMT",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:10Z",
    }
    name = "anthropic-ratelimit-requests-remaining"
    assert remaining(headers, NOW + 86_400) == [Remaining(name, "calls", 0, 10.0)]


NAMES = sorted({name for row in _ROWS for name in row[:2]} | {"date"})
VALUES = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"[0-9]{1,20}(\.[0-9]+)?(ms|s|m|h|d)?", fullmatch=True),
    st.datetimes().map(lambda moment: f"{moment.isoformat()}Z"),
    st.sampled_from(["inf", "nan", "1e400", "0", "-5", "٣", "Thu, 01 Jan 2026 00:00:00 GMT"]),
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8))
def test_whatever_the_headers_hold_the_rest_is_a_count_and_the_wait_is_finite(headers: dict[str, str]) -> None:
    for limit in remaining(headers, NOW):
        assert limit.left >= 0
        assert 0 <= limit.seconds < math.inf
