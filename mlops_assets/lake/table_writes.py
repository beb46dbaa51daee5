"""Rows that are staged in a temporary table, and the statements that write them into a table of the lake."""

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from mlops_assets.lake.part_files import PartFiles
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.schema_evolution import ColumnChange, alter_statements, is_widening, refused_types_message
from mlops_assets.lake.sql import lake_name, literal, quote
from mlops_assets.lake.tables import LakeError, column_types, partition_fingerprints, query_value, row_hash, table_exists
from mlops_assets.schema.column_names import COUNTED, GENERATION, fold, internal, is_audit

STAGED = "temp.main.staged_rows"
ROW_HASH = internal("row_hash")


def replace_staged(
    connection: duckdb.DuckDBPyConnection, *, table: str, partition_range: PartitionRange | None, files: PartFiles | None
) -> dict[str, Any]:
    """Make the rows of `table` (in `partition_range`, or all) equal to the staged rows; return the fields of a `WriteResult`.

    Where the staged rows are those of `files`, their fingerprints are taken, and if all rows are new the files themselves.

    Raises LakeError when staged rows lie outside the range, or change the type of a column.
    """
    target = _target(connection, table)
    columns, dropped, changes = _aligned_columns(connection, table, target)
    inside = "true" if partition_range is None else _predicate_of_staged(connection, table, partition_range, files)
    partition = _partition_text(partition_range) if partition_range else "''"
    compared = [column for column in columns if not is_audit(column)]
    new = (
        files.fingerprints
        if files
        else partition_fingerprints(connection, STAGED, partition=partition, row_hash=f"t.{ROW_HASH}", where="true")
    )
    old = partition_fingerprints(connection, target, partition=partition, row_hash=row_hash(compared), where=inside)
    outdated = _partitions_with_values(connection, target, partition=partition, columns=dropped, where=inside)
    differing = sorted(key for key in new.keys() | old.keys() if new.get(key) != old.get(key) or key in outdated)
    if differing:
        keys = ", ".join(literal(key) for key in differing)
        if any(key in old for key in differing):
            connection.execute(f"DELETE FROM {target} t WHERE {inside} AND {partition} IN ({keys})")
        if files and new.keys() <= set(differing) and files.can_be_registered(connection):
            files.register(connection)
        else:
            names = ", ".join(quote(column) for column in columns)
            connection.execute(f"INSERT INTO {target} ({names}) SELECT {names} FROM {STAGED} t WHERE {partition} IN ({keys})")
    return {
        "table": table,
        "rows": sum(rows for rows, _ in new.values()),
        "rows_by_partition": {key: rows for key, (rows, _) in new.items()} if partition_range else {},
        "hashes_by_partition": {key: total for key, (_, total) in new.items()} if partition_range else {},
        "changed": bool(differing),
        "fingerprint": f"{sum(total for _, total in new.values()) % 2**64:016x}",
        "schema_changes": changes,
    }


def add_staged_generation(
    connection: duckdb.DuckDBPyConnection,
    *,
    table: str,
    key: Sequence[str],
    identifier: str,
    partition_range: PartitionRange,
    supersede: bool,
    files: PartFiles | None,
) -> dict[str, Any]:
    """Add the staged rows that are new or differ from what is there; return the fields of a `GenerationResult`. See `Lake.add_generation`."""
    target = _target(connection, table)
    columns, _, changes = _aligned_columns(connection, table, target)
    inside, partition = _predicate_of_staged(connection, table, partition_range, files), _partition_text(partition_range)
    value_hash = row_hash([column for column in columns if not is_audit(column) and column != identifier])
    keys, counted = ", ".join(map(quote, key)), f"coalesce({COUNTED}, true)"
    # Rows that were written before there were generations are the first, and count.
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE earlier_rows AS SELECT {keys}, coalesce({GENERATION}, 1) AS {GENERATION}, "
        f"{counted} AS {COUNTED}, {value_hash} AS {ROW_HASH} FROM {target} t WHERE {inside}"
    )
    has_earlier = bool(query_value(connection, "SELECT count(*) FROM temp.main.earlier_rows"))
    same_key = " AND ".join(f"e.{quote(name)} = t.{quote(name)}" for name in key)
    is_superseding = f"({str(supersede).lower()} AND t.{COUNTED})"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE new_rows AS SELECT t.* REPLACE ("
        f"coalesce(n.{GENERATION}, 0) + 1 AS {GENERATION}, "
        f"t.{COUNTED} AND ({is_superseding} OR NOT coalesce(n.{COUNTED}, false)) AS {COUNTED}, "
        f"t.{quote(identifier)} || CASE WHEN n.{GENERATION} IS NULL THEN '' ELSE ':g' || (n.{GENERATION} + 1) END AS {quote(identifier)}) "
        f"FROM {STAGED} t LEFT JOIN (SELECT {keys}, max({GENERATION}) AS {GENERATION}, bool_or({COUNTED}) AS {COUNTED} "
        f"FROM temp.main.earlier_rows GROUP BY ALL) n USING ({keys}) "
        f"WHERE NOT EXISTS (FROM temp.main.earlier_rows e WHERE {same_key} AND e.{ROW_HASH} = {value_hash} "
        f"AND (e.{COUNTED} OR NOT {is_superseding}))"
        if has_earlier
        else f"CREATE OR REPLACE TEMP VIEW new_rows AS FROM {STAGED}"
    )
    if has_earlier and supersede:
        connection.execute(
            f"UPDATE {target} t SET {COUNTED} = false WHERE {inside} AND {counted} "
            f"AND EXISTS (FROM temp.main.new_rows e WHERE {same_key} AND e.{COUNTED})"
        )
    if files and not has_earlier and files.can_be_registered(connection):
        files.register(connection)
        added = first = files.rows
        fingerprints = files.fingerprints
    else:
        names = ", ".join(map(quote, columns))
        added = query_value(connection, f"INSERT INTO {target} ({names}) SELECT {names} FROM temp.main.new_rows")
        first = query_value(connection, f"SELECT count(*) FROM temp.main.new_rows WHERE {GENERATION} = 1")
        relation, where = (target, f"{inside} AND {counted}") if has_earlier else (STAGED, COUNTED)
        fingerprints = partition_fingerprints(connection, relation, partition=partition, row_hash=value_hash, where=where)
    connection.execute(f"DROP {'TABLE' if has_earlier else 'VIEW'} temp.main.new_rows")
    connection.execute("DROP TABLE temp.main.earlier_rows")
    return {
        "table": table,
        "rows": sum(rows for rows, _ in fingerprints.values()),
        "rows_by_partition": {value: rows for value, (rows, _) in fingerprints.items()},
        "hashes_by_partition": {value: total for value, (_, total) in fingerprints.items()},
        "changed": bool(added),
        "fingerprint": f"{sum(total for _, total in fingerprints.values()) % 2**64:016x}",
        "schema_changes": changes,
        "first": first,
        "again": added - first,
    }


def append_staged(connection: duckdb.DuckDBPyConnection, *, table: str, identifier: str | None) -> dict[str, Any]:
    """Add the staged rows whose `identifier` no row of `table` has; return the fields of an `AppendResult`.

    Raises LakeError when a staged row has no identifier, or a column another type.
    """
    target = _target(connection, table)
    columns, _, changes = _aligned_columns(connection, table, target)
    names = ", ".join(map(quote, columns))
    if identifier is None:
        added = query_value(connection, f"INSERT INTO {target} ({names}) SELECT {names} FROM {STAGED}")
        return {"table": table, "rows": added, "duplicates": 0, "schema_changes": changes}
    key = quote(identifier)
    staged, identified = connection.execute(f"SELECT count(*), count({key}) FROM {STAGED}").fetchall()[0]
    if identified < staged:
        raise LakeError(f"{staged - identified} rows for {table} have no {identifier}: the query must give every row one.")
    added = connection.execute(
        f"INSERT INTO {target} ({names}) SELECT {names} FROM {STAGED} s "
        f"WHERE NOT EXISTS (FROM {target} t WHERE t.{key} = s.{key}) QUALIFY row_number() OVER (PARTITION BY {key}) = 1"
    ).fetchall()[0][0]
    return {"table": table, "rows": added, "duplicates": staged - added, "schema_changes": changes}


def _predicate_of_staged(
    connection: duckdb.DuckDBPyConnection, table: str, partition_range: PartitionRange, files: PartFiles | None
) -> str:
    """SQL that is true for the rows `t` of the range. Raises LakeError when staged rows lie outside; in `files` it was looked already."""
    inside = partition_range.predicate("t")
    if files:
        return inside
    outside = query_value(connection, f"SELECT count(*) FROM {STAGED} t WHERE {inside} IS NOT TRUE")
    if outside:
        raise LakeError(f"{outside} rows for {table} lie outside {partition_range}: the query must select exactly that range.")
    return inside


def _partition_text(partition_range: PartitionRange) -> str:
    return f"coalesce(CAST(t.{quote(partition_range.column)} AS VARCHAR), '')"


def _target(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """The quoted name of `table`, which is created with the columns of the staged rows when it does not exist."""
    if not table_exists(connection, table):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{quote(table.partition('.')[0])}")
        connection.execute(
            f"CREATE TABLE {lake_name(table)} AS SELECT COLUMNS(lambda name: name <> '{ROW_HASH}') FROM {STAGED} LIMIT 0"
        )
    return lake_name(table)


def in_wider_types(connection: duckdb.DuckDBPyConnection, query: str, existing: Mapping[str, str]) -> str:
    """`query` with its columns in the types of the `existing` ones where those are wider, so that equal rows have equal hashes."""
    wider = {fold(name): kind for name, kind in existing.items()}
    casts = [
        f"CAST({quote(name)} AS {wider[fold(name)]}) AS {quote(name)}"
        for name, kind in column_types(connection, f"({query})").items()
        if is_widening(kind, wider.get(fold(name), kind))
    ]
    return f"SELECT * REPLACE ({', '.join(casts)}) FROM ({query})" if casts else query


def _aligned_columns(
    connection: duckdb.DuckDBPyConnection, table: str, target: str
) -> tuple[list[str], list[str], list[ColumnChange]]:
    """Names of the staged columns, after the target got the new and wider ones; the target's columns that are not staged; the changes."""
    staged = column_types(connection, STAGED)
    staged.pop(ROW_HASH, None)
    existing = {fold(name): (name, kind) for name, kind in column_types(connection, target).items()}
    changes, refused = [], {}
    for column, data_type in staged.items():
        name, old = existing.get(fold(column), (column, None))
        if old is None or is_widening(old, data_type):
            changes.append(ColumnChange(name, old, data_type))
        elif old != data_type:
            refused[name] = (old, data_type)
    if refused:
        raise LakeError(refused_types_message(table, refused))
    for change in changes:
        for statement in alter_statements(target, change):
            connection.execute(statement)
    present = {fold(column) for column in staged}
    return list(staged), [name for folded, (name, _) in existing.items() if folded not in present], changes


def _partitions_with_values(
    connection: duckdb.DuckDBPyConnection, relation: str, *, partition: str, columns: Sequence[str], where: str
) -> set[str]:
    """Partitions in which one of `columns` has a value."""
    if not columns:
        return set()
    condition = " OR ".join(f"t.{quote(column)} IS NOT NULL" for column in columns)
    rows = connection.execute(f"SELECT DISTINCT {partition} FROM {relation} t WHERE {where} AND ({condition})").fetchall()
    return {key for (key,) in rows}
