"""Content of the lake: tables, their columns, their fingerprints, and its snapshots."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import duckdb

from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.schema.column_names import is_audit

CATALOG = "__ducklake_metadata_lake"
"""DuckLake's own tables, attached beside the lake."""


class LakeError(Exception):
    """The lake cannot do what was asked; the message says what to change."""


def partition_fingerprints(
    connection: duckdb.DuckDBPyConnection, relation: str, *, partition: str, row_hash: str, where: str
) -> dict[str, tuple[int, int]]:
    """Per partition the number of rows and the sum of their row hashes (a sum, so that equal rows do not cancel out)."""
    rows = connection.execute(
        f"SELECT {partition}, count(*), sum({row_hash}::HUGEINT) FROM {relation} t WHERE {where} GROUP BY ALL"
    ).fetchall()
    return {key: (count, int(total)) for key, count, total in rows if count}


def row_hash(columns: Sequence[str]) -> str:
    """SQL for the hash of `columns` in a row of the table `t`."""
    return f"hash({', '.join(f't.{quote(column)}' for column in columns)})"


def fingerprint(connection: duckdb.DuckDBPyConnection, relation: str) -> str:
    """16 hexadecimal digits that identify the rows of `relation` (a table, or a query in parentheses) whatever their order.

    The sum modulo 2^64 of DuckDB's 64-bit row hashes (25 times faster than MD5); audit columns do not count. The same in every
    process, but another version of DuckDB may hash differently: the lock pins it.
    """
    return counted_fingerprint(connection, relation)[1]


def counted_fingerprint(connection: duckdb.DuckDBPyConnection, relation: str) -> tuple[int, str]:
    """The number of rows of `relation`, and its `fingerprint`."""
    columns = [column for column in column_types(connection, relation) if not is_audit(column)]
    totals = partition_fingerprints(connection, relation, partition="''", row_hash=row_hash(columns), where="true")
    rows, total = totals.get("", (0, 0))
    return rows, f"{total % 2**64:016x}"


def current_snapshot(connection: duckdb.DuckDBPyConnection) -> int:
    """The newest snapshot of the lake."""
    return int(query_value(connection, "FROM lake.current_snapshot()"))


def snapshot_at(connection: duckdb.DuckDBPyConnection, moment: datetime) -> int:
    """The newest snapshot that was committed at `moment` (with a time zone) or before.

    Raises LakeError when there is none, or when it has expired: what the lake held then is not known any more.
    """
    before, after = connection.execute(
        "SELECT max(snapshot_id) FILTER (snapshot_time <= $1), min(snapshot_id) FILTER (snapshot_time > $1) FROM lake.snapshots()",
        [moment],
    ).fetchall()[0]
    if before is None:
        raise LakeError(f"The lake holds nothing from {moment.isoformat()} or before: its first snapshot is younger.")
    if after is not None and after > before + 1:
        raise LakeError(
            f"What the lake held at {moment.isoformat()} has expired: of the snapshots around, {before} and {after} are left. "
            "MLOPS_KEPT_SNAPSHOT_DAYS is for how long every snapshot is kept."
        )
    return int(before)


def table_exists(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether `schema.table` is in the lake."""
    try:
        # The list of all tables reads the statistics of each from Postgres, for each snapshot again.
        connection.execute(f"DESCRIBE {lake_name(table)}")
    except duckdb.CatalogException:
        return False
    return True


def column_types(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Column name -> DuckDB type of a table, or of a query in parentheses, in its order."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}


def query_value(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    """The first value of the first row of `query`."""
    return connection.execute(query).fetchall()[0][0]
