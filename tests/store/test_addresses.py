"""Addresses of PostgreSQL: what can be said of them without psycopg and without a server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_council import Council, CouncilConfig
from llm_council.errors import MissingDependency
from llm_council.errors._secrets import hide_password
from llm_council.store import open_store
from llm_council.testing.fakes import ScriptedProvider


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:hunter2@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:hun/ter2@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:hun@ter2@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:hunter2?@db/x", "postgresql://me:***@db/x"),
        ("postgresql://:hunter2@db/x", "postgresql://:***@db/x"),
        ("postgresql://db/x?user=me&password=hunter2", "postgresql://db/x?user=me&password=***"),
        ("postgresql://db/x?sslpassword=hunter2&user=me", "postgresql://db/x?sslpassword=***&user=me"),
        ("postgresql://me@db:5432/x", "postgresql://me@db:5432/x"),
        ("postgresql://db:5432/x", "postgresql://db:5432/x"),
        ("postgresql:///x?host=/run/postgresql", "postgresql:///x?host=/run/postgresql"),
        ("~/runs.db", "~/runs.db"),
    ],
)
def test_the_password_of_an_address_is_hidden(address: str, shown: str) -> None:
    assert hide_password(address) == shown
    assert hide_password(shown) == shown
    assert f"store={shown!r}" in repr(CouncilConfig(store=address))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_without_psycopg_the_extra_is_named_before_anything_is_sent(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "llm_council.store._postgres", raising=False)
    address = f"{scheme}://me:hunter2@db/x"
    seat = ScriptedProvider("words")
    for use in (open_store, lambda place: Council([seat], config=CouncilConfig(), store=place).run("Where?")):
        with pytest.raises(MissingDependency, match=r"pip install 'llm-council-sdk\[postgres\]'") as caught:
            use(address)
        assert "hunter2" not in str(caught.value)
    assert seat.requests == []


def test_a_file_is_used_without_psycopg(python: Callable[..., Any], tmp_path: Path) -> None:
    script = """
        import sys
        sys.modules["psycopg"] = None
        from llm_council import Council, CouncilConfig
        from llm_council.store import Store
        from llm_council.testing.fakes import ScriptedProvider
        result = Council([ScriptedProvider("words")], config=CouncilConfig(), store=sys.argv[1]).run("Where?")
        assert Store(sys.argv[1]).runs_sync()[0].run_id == result.run_id
        assert "llm_council.store._postgres" not in sys.modules
    """
    done = python(script, str(tmp_path / "runs.db"))
    assert (done.returncode, done.stderr) == (0, "")
