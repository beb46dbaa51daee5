"""Counts how often the queries of a connection read a table, by their plans."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb


class RecordedConnection:
    """A connection that explains each query before it runs it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: str):
        self._connection, self._table, self.queries = connection, table, []

    def execute(self, query: str, *arguments: Any) -> duckdb.DuckDBPyConnection:
        if not query.startswith(("DESCRIBE", "EXPLAIN")):
            [(_, plan)] = self._connection.execute(f"EXPLAIN (FORMAT json) {query}", *arguments).fetchall()
            self.queries += [query] * sum(self._reads(node) for node in json.loads(plan))
        return self._connection.execute(query, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def _reads(self, node: dict[str, Any]) -> int:
        own = str(node.get("extra_info", {}).get("Table", "")).endswith(self._table)
        return own + sum(map(self._reads, node["children"]))


class Scans:
    """The queries that read the table, one entry for each time."""

    def __init__(self, connection: RecordedConnection):
        self.connection: Any = connection

    @property
    def queries(self) -> list[str]:
        return self.connection.queries

    @property
    def count(self) -> int:
        return len(self.queries)


@contextmanager
def scans_of(connection: duckdb.DuckDBPyConnection, table: str) -> Iterator[Scans]:
    """Record how often `table` (schema and name) is read through the connection that this gives."""
    yield Scans(RecordedConnection(connection, table))
