"""dbt sources of the raw tables: their one column list is that of the YAML that loads them."""

from collections.abc import Iterable
from typing import Any

from mlops_assets.features.generated.dbt_model import InlineMapping, dbt_type, dbt_yaml, plain
from mlops_assets.schema.column_names import LOADED_AT, SOURCE
from mlops_assets.schema.declarations import DeclaredTable

_OWN_COLUMNS = (
    InlineMapping(name=LOADED_AT, data_type="timestamp with time zone"),
    InlineMapping(name=SOURCE, data_type="varchar"),
)


def sources_file(origin: str, tables: Iterable[DeclaredTable]) -> str:
    """The YAML file with the `tables` of one source, which are `source('raw', ...)` in SQL."""
    source = {"name": "raw", "database": "lake", "schema": "raw", "tables": [_table(table) for table in tables]}
    return f"# Compiled from {origin} by `mlops prepare`.\n{dbt_yaml({'sources': [source]})}"


def _table(declared: DeclaredTable) -> dict[str, Any]:
    table = declared.table
    partitions = {"config": {"meta": {"partition_column": table.partitions.column}}} if table.partitions else {}
    columns = [
        InlineMapping(
            {"name": plain(name), "data_type": dbt_type(column.type)}
            | ({"description": plain(column.description)} if column.description else {})
        )
        for name, column in table.columns.items()
    ]
    return {"name": declared.name, "description": plain(table.description), **partitions, "columns": [*columns, *_OWN_COLUMNS]}
