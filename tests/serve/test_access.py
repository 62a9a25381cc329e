"""Keys and their limits, and requests that another site could send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.errors import InvalidOption
from llm_council.serve.access import Access, Key, check_origin, read_keys
from llm_council.serve.chat import RequestRefused

SECRET = "a-key-of-some-length-1"
HOSTS = frozenset({"127.0.0.1:8642", "localhost:8642"})


def test_a_key_is_found_by_the_bearer_token_alone() -> None:
    access = Access([Key(name="ann", secret=SECRET), Key(name="bob", secret=SECRET + "2")])
    assert access.key_of(f"Bearer {SECRET}").name == "ann"
    assert access.key_of(f"bearer {SECRET}2").name == "bob"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", f"Basic {SECRET}", SECRET, f"Bearer {SECRET}x", "Bearer \udcff"]
)
def test_any_other_header_is_refused(header: str | None) -> None:
    with pytest.raises(RequestRefused) as caught:
        Access([Key(name="ann", secret=SECRET)]).key_of(header)
    assert caught.value.status == 401
    assert SECRET not in str(caught.value)


def test_a_key_has_so_many_requests_in_a_minute() -> None:
    now = [0.0]
    access = Access([Key(name="ann", secret=SECRET, per_minute=2)], clock=lambda: now[0])
    access.key_of(f"Bearer {SECRET}")
    access.key_of(f"Bearer {SECRET}")
    with pytest.raises(RequestRefused, match="wait 30 s") as caught:
        access.key_of(f"Bearer {SECRET}")
    assert (caught.value.status, caught.value.retry_after) == (429, pytest.approx(30))
    now[0] = 31.0
    assert access.key_of(f"Bearer {SECRET}").name == "ann"


@given(st.lists(st.tuples(st.none() | st.floats(0.01, 3), st.none() | st.floats(0, 3)), max_size=8), st.floats(0.1, 5))
def test_runs_that_cost_at_most_what_they_reserved_never_exceed_a_budget(
    runs: list[tuple[float | None, float | None]], usd: float
) -> None:
    key = Key(name="ann", secret=SECRET, usd=usd)
    paid, held = 0.0, []
    for most, cost in runs:
        try:
            reserved = key.reserve(most)
        except RequestRefused:
            continue
        assert reserved is not None
        actual = None if cost is None else min(cost, reserved)
        paid += reserved if actual is None else actual
        held.append((reserved, actual))
        if len(held) > 1:  # two runs at a time
            key.settle(*held.pop(0))
    assert paid <= usd + 1e-9


def test_a_reserved_budget_may_be_free_later_and_a_spent_one_is_refused_as_openai_does() -> None:
    key = Key(name="ann", secret=SECRET, usd=1.0)
    assert key.reserve(None) == 1.0
    with pytest.raises(RequestRefused, match="running requests have reserved the rest") as caught:
        key.reserve(0.1)
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (429, "rate_limit_exceeded", 1.0)
    key.settle(1.0, None)
    with pytest.raises(RequestRefused, match="it is spent") as caught:
        key.reserve(0.1)
    assert (caught.value.status, caught.value.code) == (429, "insufficient_quota")


def test_a_key_without_a_budget_passes_the_limit_of_the_run_on() -> None:
    key = Key(name="ann", secret=SECRET)
    assert (key.reserve(None), key.reserve(0.5)) == (None, 0.5)
    key.settle(0.5, 0.2)
    assert key.spent == 0


def test_a_file_of_keys_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(f'[keys.ann]\nkey = "{SECRET}"\nusd = 2.5\n[keys.bob]\nkey = "{SECRET}2"\nper_minute = 5\n')
    ann, bob = read_keys(path)
    assert (ann.name, ann.usd, ann.per_minute) == ("ann", 2.5, 120)
    assert (bob.usd, bob.per_minute) == (None, 5)
    assert SECRET not in repr(ann)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no key"),
        ("[keys.ann]\n", "16 or more printable ASCII characters"),
        ('[keys.ann]\nkey = "short"\n', "16 or more"),
        (f'[keys.ann]\nkey = " {SECRET}"\n', "without spaces"),
        (f'[keys.ann]\nkey = "{SECRET}"\nusd = -1\n', "usd: an amount above 0"),
        (f'[keys.ann]\nkey = "{SECRET}"\nper_minute = 0\n', "per_minute"),
        (f'[keys.ann]\nkey = "{SECRET}"\nlimit = 0\n', "unknown setting 'limit'"),
        (f'[keys.ann]\nkey = "{SECRET}"\n[keys.bob]\nkey = "{SECRET}"\n', "one key under two names"),
        ("[keys\n", "no TOML"),
    ],
)
def test_a_wrong_file_is_refused_without_showing_a_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(InvalidOption, match=message) as caught:
        read_keys(path)
    assert SECRET not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"keys\.toml cannot be read"):
        read_keys(tmp_path / "keys.toml")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8642"}, None),
        ({"host": "LOCALHOST:8642"}, None),
        ({"host": "127.0.0.1:8642", "origin": "http://127.0.0.1:8642"}, None),
        ({"host": "evil.example:8642"}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({}, 421),
        ({"host": "127.0.0.1:8642", "origin": "https://evil.example"}, 403),
        ({"host": "127.0.0.1:8642", "origin": "null"}, 403),
        ({"host": "127.0.0.1:8642", "origin": "http://localhost:8642"}, 403),
        ({"host": "127.0.0.1:8642", "origin": "http://127.0.0.1:9999"}, 403),
    ],
)
def test_other_names_and_other_sites_are_refused(headers: dict[str, str], status: int | None) -> None:
    if status is None:
        check_origin(headers, HOSTS)
        return
    with pytest.raises(RequestRefused) as caught:
        check_origin(headers, HOSTS)
    assert caught.value.status == status


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["host", "origin", "authorization"])
async def test_a_header_that_decides_must_not_stand_twice(name: str) -> None:
    guard = pytest.importorskip("llm_council.serve.guard", exc_type=ImportError)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(*_: Any) -> None:
        pytest.fail("the request has passed")

    first = {"host": "127.0.0.1:8642", "origin": "http://evil.example", "authorization": "Bearer x"}
    second = {**first, "origin": "http://127.0.0.1:8642"}
    headers = [("host", first["host"])] if name != "host" else []
    headers += [(name, first[name]), (name, second[name])]
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(key.encode(), value.encode()) for key, value in headers],
    }
    await guard.Guard(app, HOSTS)(scope, None, send)
    assert sent[0]["status"] == 400
    assert b"stands twice" in sent[1]["body"]
