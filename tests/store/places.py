"""The stores of the laws: a file of SQLite, and tables in a PostgreSQL database."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from typing import Any

from llm_council.store import _sqlite
from llm_council.store._database import MIGRATIONS, TABLES

__all__ = ["DatabasePlace", "FilePlace", "Place"]


class Place(ABC):
    """A store that does not exist yet, and a way to look into it that is not the store's own.

    Attributes:
        address: its path or address.
    """

    address: str

    @abstractmethod
    def query(self, statement: str, *parameters: Any) -> list[Any]:
        """Return the rows of a statement, in which tables are ``{runs}`` and parameters ``?``."""

    @abstractmethod
    def change(self, *statements: str) -> None:
        """Execute statements in one transaction."""

    @abstractmethod
    def older(self, version: int) -> Place:
        """Return a place with the tables of an older version, and the rows of this one."""

    @abstractmethod
    def set_version(self, version: int) -> None:
        """Write another number of the schema."""

    @abstractmethod
    def version(self) -> int:
        """Return the number of the schema."""

    def held(self) -> str:
        """Return everything that the tables hold."""
        return "".join(repr(self.query(f"SELECT * FROM {{{table}}}")) for table in TABLES)

    def columns(self) -> dict[str, list[str]]:
        """Return the names of the columns of each table, in order of the alphabet."""
        return {table: self._columns(table) for table in TABLES}

    @abstractmethod
    def _columns(self, table: str) -> list[str]: ...


class FilePlace(Place):
    """A file of SQLite."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = str(path)

    def query(self, statement: str, *parameters: Any) -> list[Any]:
        with closing(sqlite3.connect(self.path, timeout=5)) as connection:
            return connection.execute(_sqlite.render(statement), parameters).fetchall()

    def change(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.path, timeout=5)) as connection, connection:
            connection.execute("PRAGMA foreign_keys = ON")
            for statement in statements:
                connection.execute(_sqlite.render(statement))

    def older(self, version: int) -> Place:
        older = FilePlace(self.path.with_name("older.db"))
        with closing(sqlite3.connect(older.path)) as connection:
            connection.executescript(_sqlite.render("".join(MIGRATIONS[:version])))
            connection.execute(f"PRAGMA application_id = {_sqlite.APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("ATTACH ? AS now", (str(self.path),))
            for table in TABLES:
                columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
                connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM now.{table}")
            connection.commit()
        return older

    def set_version(self, version: int) -> None:
        self.change(f"PRAGMA user_version = {version}")

    def version(self) -> int:
        return int(self.query("PRAGMA user_version")[0][0])

    def _columns(self, table: str) -> list[str]:
        return [name for (name,) in self.query("SELECT name FROM pragma_table_info(?) ORDER BY name", table)]


class DatabasePlace(Place):
    """Tables in a schema of their own in a PostgreSQL database.

    Args:
        server: the server.
        schema: a name that no other place has; the schema is created.
    """

    def __init__(self, server: Any, schema: str) -> None:
        self.server, self.schema = server, schema
        self.address = f"{server.address()}&options=-csearch_path%3D{schema}"
        server.run(f"CREATE SCHEMA {schema}")

    def query(self, statement: str, *parameters: Any) -> list[Any]:
        import psycopg

        from llm_council.store import _postgres

        with psycopg.connect(self.address) as connection:
            return connection.execute(_postgres.render(statement), parameters or None).fetchall()

    def change(self, *statements: str) -> None:
        import psycopg

        from llm_council.store import _postgres

        with psycopg.connect(self.address) as connection:
            for statement in statements:
                connection.execute(_postgres.render(statement))

    def older(self, version: int) -> Place:
        older = DatabasePlace(self.server, f"{self.schema}_older")
        older.change(
            "CREATE TABLE {schema} (version INTEGER NOT NULL)",
            f"INSERT INTO {{schema}} (version) VALUES ({version})",
            *MIGRATIONS[:version],
        )
        for table in TABLES:
            # In order of ``place``, which the server counts itself.
            columns = ", ".join(column for column in older._columns(table) if column != "place")
            order = "" if table == "runs" else " ORDER BY place"
            older.change(f"INSERT INTO {{{table}}} ({columns}) SELECT {columns} FROM {self.schema}.{{{table}}}{order}")
        return older

    def set_version(self, version: int) -> None:
        self.change(f"UPDATE {{schema}} SET version = {version}")

    def version(self) -> int:
        return int(self.query("SELECT version FROM {schema}")[0][0])

    def _columns(self, table: str) -> list[str]:
        statement = "SELECT column_name FROM information_schema.columns WHERE table_schema = ? AND table_name = ?"
        return sorted(name for (name,) in self.query(statement, self.schema, f"llm_council_{table}"))
