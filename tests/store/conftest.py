"""Fixtures of the laws of the store, which hold for SQLite and for PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.store.places import DatabasePlace, FilePlace, Place

_numbers = count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """A PostgreSQL server that runs."""
    from tests.store.postgres_server import Server

    started = Server()
    try:
        started.start()
        yield started
    finally:
        started.remove()


@pytest.fixture
def database(server: Any) -> DatabasePlace:
    """An empty place in the database of a server."""
    return DatabasePlace(server, f"test{next(_numbers)}")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place in each kind of database."""
    if request.param == "sqlite":
        return FilePlace(tmp_path / "folder" / "runs.db")
    found: DatabasePlace = request.getfixturevalue("database")
    return found
