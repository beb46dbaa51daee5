"""Columns of the lake's tables as their files declare them, and planned changes from the one to the other. Printing goes elsewhere."""

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.core.errors import StackError
from mlops_assets.core.keys import RAW_SCHEMA
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.lake.schema_evolution import ColumnChange, RequestedChanges, SchemaPlanError, apply_changes, plan_changes
from mlops_assets.schema.declarations import declared_tables, read_declarations
from mlops_assets.schema.source import RawTable

if TYPE_CHECKING:
    import duckdb

    from mlops_assets.lake.lake import Lake


def raw_table(name: str) -> tuple[RawTable, Path]:
    """The raw table `name` as its file declares it, with the folder of that file. Raises StackError when there is none."""
    declarations = read_declarations(current_project().definitions_directory)
    tables = declared_tables(declarations)
    if name in tables:
        return tables[name].table, tables[name].file.parent
    # It may stand in a file that cannot be read.
    wrong = "".join(f"\n{problem}" for problem in declarations.problems)
    raise StackError(
        f"There is no raw table {name!r}.{wrong}", remedy=f"There are: {', '.join(sorted(tables)) or 'none'}. Faults: mlops check"
    )


def declared_columns(table: str) -> dict[str, str]:
    """Column -> type of a raw table, by its YAML file, or of an incremental dbt model, by its contract; of others nothing is declared."""
    schema, _, name = table.partition(".")
    if schema == RAW_SCHEMA:
        return {column: declared.type for column, declared in raw_table(name)[0].columns.items()}
    manifest = current_project().dbt_manifest
    for node in json.loads(manifest.read_text())["nodes"].values() if manifest.is_file() else []:
        if node["config"].get("materialized") == "incremental" and (node["schema"], node.get("alias")) == (schema, name):
            return {column["name"]: column["data_type"] for column in node["columns"].values() if column.get("data_type")}
    return {}


def plan_table_changes(settings: Settings, table: str, requested: RequestedChanges) -> list[ColumnChange]:
    """The changes that would make the columns of `table` the declared and the `requested` ones. Changes nothing. Raises StackError."""
    from mlops_assets.lake.lake import Lake

    with _opened(Lake.from_settings(settings), table, read_only=True) as connection:
        return _plan(connection, table, requested)


def apply_table_changes(settings: Settings, table: str, requested: RequestedChanges, *, accept_loss: bool) -> list[ColumnChange]:
    """Make the changes of `plan` in one transaction, while no run writes the table. Earlier snapshots stay as they are.

    Raises StackError when values would be lost, unless `accept_loss`: they become null.
    """
    from mlops_assets.lake.lake import Lake
    from mlops_assets.lake.sql import lake_name

    lake = Lake.from_settings(settings)
    with lake.writer_lock([table]), _opened(lake, table, read_only=False) as connection:
        changes = _plan(connection, table, requested)
        if (lost := [change for change in changes if change.lost]) and not accept_loss:
            raise StackError(
                "Values would be lost: "
                + "; ".join(f"{change} in {change.lost:,} rows" for change in lost)
                + ". Nothing was changed.",
                remedy="--accept-loss makes them null. The rows as they are stay readable at the snapshot before.",
            )
        if changes:
            apply_changes(connection, table=table, target=lake_name(table), changes=changes, author=getpass.getuser())
        return changes


def _plan(connection: "duckdb.DuckDBPyConnection", table: str, requested: RequestedChanges) -> list[ColumnChange]:
    from mlops_assets.lake.sql import lake_name
    from mlops_assets.lake.tables import column_types

    target = lake_name(table)
    try:
        return plan_changes(
            connection,
            target=target,
            existing=column_types(connection, target),
            declared=declared_columns(table),
            requested=requested,
        )
    except SchemaPlanError as error:
        raise StackError(str(error), remedy=f"See the columns: mlops schema plan {table}") from error


@contextmanager
def _opened(lake: "Lake", table: str, *, read_only: bool) -> "Iterator[duckdb.DuckDBPyConnection]":
    from mlops_assets.lake.tables import LakeError, table_exists

    try:
        connection = lake.connect(read_only=read_only)
    except LakeError as error:
        raise StackError(str(error), remedy="Start what is missing: mlops up") from error
    with connection:
        if not table_exists(connection, table):
            raise StackError(
                f"There is no table {table} in the lake: nothing to change.",
                remedy='The tables: mlops sql "SELECT table_schema, table_name FROM information_schema.tables"',
            )
        yield connection
