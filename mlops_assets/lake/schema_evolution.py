"""Changes of a lake table's columns: what is widened by itself, and what a person plans and applies. Writing rows goes elsewhere."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from mlops_assets.schema.column_names import fold, internal

_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_UNSIGNED = ("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


def _widenings() -> Iterator[tuple[str, str]]:
    for position, narrow in enumerate(_SIGNED):
        yield from ((narrow, wide) for wide in _SIGNED[position + 1 :])
    for position, narrow in enumerate(_UNSIGNED):
        yield from ((narrow, wide) for wide in (*_UNSIGNED[position + 1 :], *_SIGNED[position + 1 :]))
    # 53 bits: every integer of up to 32 bits is a DOUBLE.
    yield from ((narrow, "DOUBLE") for narrow in (*_SIGNED[:3], *_UNSIGNED[:3], "FLOAT"))
    yield "DATE", "TIMESTAMP"


_WIDENINGS = frozenset(_widenings())


def is_widening(old: str, new: str) -> bool:
    """Whether every value of type `old` is a value of type `new`, so that a column may become `new` without being asked for.

    DuckLake can do more, such as BIGINT to DOUBLE, which merges large numbers, or TIMESTAMP to TIMESTAMPTZ, which picks a zone.
    """
    return (old, new) in _WIDENINGS


@dataclass(frozen=True)
class ColumnChange:
    """One change of a column: its type from `old` to `new`; added, without `old`; dropped, without `new`; or renamed to `renamed`.

    `lost` counts the values that the new type cannot hold; they become null.
    """

    column: str
    old: str | None
    new: str | None
    renamed: str | None = None
    lost: int = 0

    def __str__(self) -> str:
        """The change in words."""
        if self.renamed is not None:
            return f"{self.column} renamed to {self.renamed}"
        if self.old is None:
            return f"{self.column} {self.new} added"
        if self.new is None:
            return f"{self.column} {self.old} dropped"
        return f"{self.column} {self.old} -> {self.new}"


def alter_statements(target: str, change: ColumnChange) -> list[str]:
    """SQL that makes `change` in the table `target` (its quoted name). Earlier snapshots keep the column as it was."""
    column = _quote(change.column)
    if change.renamed is not None:
        return [f"ALTER TABLE {target} RENAME COLUMN {column} TO {_quote(change.renamed)}"]
    if change.old is None:
        return [f"ALTER TABLE {target} ADD COLUMN {column} {change.new}"]
    if change.new is None:
        return [f"ALTER TABLE {target} DROP COLUMN {column}"]
    if is_widening(change.old, change.new):
        return [f"ALTER TABLE {target} ALTER COLUMN {column} SET DATA TYPE {change.new}"]
    retyped = _quote(internal("retyped"))
    return [
        f"ALTER TABLE {target} ADD COLUMN {retyped} {change.new}",
        f"UPDATE {target} SET {retyped} = TRY_CAST({column} AS {change.new}) WHERE NOT {_is_lost(column, change.old, change.new)}",
        f"ALTER TABLE {target} DROP COLUMN {column}",
        f"ALTER TABLE {target} RENAME COLUMN {retyped} TO {column}",
    ]


def _is_lost(column: str, old: str, new: str) -> str:
    """SQL that is true for a value that `new` cannot hold: it is no such value, or is another one when it comes back."""
    return (
        f"({column} IS NOT NULL AND (TRY_CAST({column} AS {new}) IS NULL "
        f"OR TRY_CAST(TRY_CAST({column} AS {new}) AS {old}) IS DISTINCT FROM {column}))"
    )


@dataclass(frozen=True)
class RequestedChanges:
    """Changes that a person asks for: new names and types by column, and columns to drop."""

    renamed: Mapping[str, str]
    types: Mapping[str, str]
    dropped: Sequence[str]


class SchemaPlanError(Exception):
    """The requested changes cannot be made; the message says why."""


def plan_changes(
    connection: duckdb.DuckDBPyConnection,
    *,
    target: str,
    existing: Mapping[str, str],
    declared: Mapping[str, str],
    requested: RequestedChanges,
) -> list[ColumnChange]:
    """The changes, in order, from the columns of `target` to the `declared` ones and the `requested` ones, with what each would lose.

    A column that is not declared any more stays unless it is to be dropped. Raises SchemaPlanError.
    """
    names = {fold(name): name for name in existing}
    types = {fold(name): kind for name, kind in existing.items()}
    for name in [*requested.renamed, *requested.dropped, *requested.types]:
        if fold(name) not in names and name not in requested.renamed.values():
            raise SchemaPlanError(f"There is no column {name}. There are: {', '.join(existing)}.")
    changes = [ColumnChange(names[fold(name)], types[fold(name)], None) for name in requested.dropped]
    for name in requested.dropped:
        del types[fold(name)]
    renamed_from = {}
    for old, new in requested.renamed.items():
        if fold(new) in types:
            raise SchemaPlanError(
                f"{old} cannot be renamed to {new}: that column is there. --drop {new} first, if its values are not needed."
            )
        changes.append(ColumnChange(names[fold(old)], types[fold(old)], types[fold(old)], renamed=new))
        types[fold(new)] = types.pop(fold(old))
        names[fold(new)] = new
        renamed_from[fold(new)] = names[fold(old)]
    target_types = {**declared, **{requested.renamed.get(name, name): kind for name, kind in requested.types.items()}}
    kinds = canonical_types(connection, target_types)
    for name, kind in kinds.items():
        if fold(name) in (fold(dropped) for dropped in requested.dropped):
            raise SchemaPlanError(f"{name} cannot be dropped: it is declared.")
        old_kind = types.get(fold(name))
        if old_kind is None:
            changes.append(ColumnChange(name, None, kind))
        elif old_kind != kind:
            read = _quote(renamed_from.get(fold(name), names[fold(name)]))
            lost = connection.execute(f"SELECT count(*) FROM {target} WHERE {_is_lost(read, old_kind, kind)}").fetchall()[0][0]
            changes.append(ColumnChange(names[fold(name)], old_kind, kind, lost=lost))
    return changes


def canonical_types(connection: duckdb.DuckDBPyConnection, types: Mapping[str, str]) -> dict[str, str]:
    """The types as DuckDB names them. Raises SchemaPlanError for one that there is not."""
    if not types:
        return {}
    try:
        return dict(
            zip(
                types,
                connection.execute("SELECT " + ", ".join(f"typeof(NULL::{kind})" for kind in types.values())).fetchall()[0],
                strict=True,
            )
        )
    except duckdb.Error as error:
        raise SchemaPlanError(f"Not every type is one of DuckDB: {error}") from error


def apply_changes(
    connection: duckdb.DuckDBPyConnection, *, table: str, target: str, changes: Sequence[ColumnChange], author: str
) -> None:
    """Make `changes` in one transaction, recorded with its snapshot. The caller holds the writer lock."""
    connection.execute("BEGIN")
    try:
        for change in changes:
            for statement in alter_statements(target, change):
                connection.execute(statement)
        recorded = json.dumps({"table": table, "schema_changes": [str(change) for change in changes]})
        connection.execute(
            "CALL lake.set_commit_message(?, ?, extra_info => ?)", [author, f"change the columns of {table}", recorded]
        )
        connection.execute("COMMIT")
    except BaseException:  # an interrupt too leaves no open transaction, and is raised again
        connection.execute("ROLLBACK")
        raise


def likely_renames(
    connection: duckdb.DuckDBPyConnection, *, old: str, new: str, gone: Mapping[str, str], added: Mapping[str, str]
) -> list[tuple[str, str, float]]:
    """Pairs of a column that is `gone` from relation `old` and one `added` in `new` that are probably the same one, renamed.

    They have one type, and most distinct values of the new column are values of the old one. With the pair comes that share, which
    a column of a few values, such as a flag, reaches by chance: there the names must be alike too.
    """
    from difflib import SequenceMatcher

    pairs: list[tuple[str, str, float]] = []
    for before, kind in gone.items():
        for after, other in added.items():
            if kind != other and not is_widening(kind, other):
                continue
            distinct, shared = connection.execute(
                f"SELECT count(*), count(*) FILTER (WHERE value IN (SELECT {_quote(before)} FROM {old})) "
                f"FROM (SELECT DISTINCT {_quote(after)} AS value FROM {new} WHERE {_quote(after)} IS NOT NULL LIMIT {_COMPARED_VALUES})"
            ).fetchall()[0]
            share = shared / distinct if distinct else 0.0
            alike = SequenceMatcher(None, fold(before), fold(after)).ratio() >= _ALIKE
            if share >= _MOSTLY and (distinct >= _TELLING_VALUES or alike):
                pairs.append((before, after, share))
    best: list[tuple[str, str, float]] = []
    for before, after, share in sorted(pairs, key=lambda pair: -pair[2]):
        if before not in [pair[0] for pair in best] and after not in [pair[1] for pair in best]:
            best.append((before, after, share))
    return best


_COMPARED_VALUES = 10_000
_TELLING_VALUES = 20
_MOSTLY = 0.5
_ALIKE = 0.6


def refused_types_message(table: str, refused: Mapping[str, tuple[str, str]]) -> str:
    """The message about columns whose type may not change by itself: column -> (type in the lake, type that comes)."""
    columns = "; ".join(f"column {name} is {old} and would become {new}" for name, (old, new) in refused.items())
    types = " ".join(f"--type {name}={new}" for name, (_, new) in refused.items())
    return (
        f"{table}: {columns}. Not every value survives that, so nothing was written. Mend the type where the column is declared, or see "
        f"what the change would do: `mlops schema plan {table} {types}`; `mlops schema apply` with the same options makes it."
    )


def _quote(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
