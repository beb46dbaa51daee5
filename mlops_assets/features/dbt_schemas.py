"""Types of incremental dbt models before dbt runs: the lake's table follows the contract where nothing is lost, else the run ends."""

from collections.abc import Mapping, Sequence

import dagster as dg

from mlops_assets.core.keys import table_name
from mlops_assets.features.dbt_translation import Node, is_incremental
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.schema_evolution import ColumnChange, apply_changes, canonical_types, is_widening, refused_types_message
from mlops_assets.lake.sql import lake_name
from mlops_assets.lake.tables import column_types, table_exists
from mlops_assets.schema.column_names import fold
from mlops_assets.stages.execution import permanent_failure, schema_change_metadata


def follow_contracts(context: dg.AssetExecutionContext, lake: Lake, nodes: Mapping[dg.AssetKey, Node]) -> None:
    """Widen the columns of the tables of `nodes` to the types of their contracts. The caller holds the writer locks.

    dbt would cast the new rows to the old type, or stop without a remedy. Raises Failure, before anything is built, when a type changes
    otherwise, or when columns came or went in a model whose `on_schema_change` is `fail`.
    """
    declared = {
        key: {column["name"]: column["data_type"] for column in node["columns"].values() if column.get("data_type")}
        for key, node in nodes.items()
        if is_incremental(node)
    }
    if not any(declared.values()):
        return
    problems = []
    with lake.connect(read_only=False) as connection:
        for key, columns in declared.items():
            table = table_name(key)
            if not columns or not table_exists(connection, table):
                continue
            existing = {fold(name): (name, kind) for name, kind in column_types(connection, lake_name(table)).items()}
            widened, refused, added = [], {}, []
            for name, kind in canonical_types(connection, columns).items():
                present, old = existing.get(fold(name), (name, None))
                if old is None:
                    added.append(name)
                elif is_widening(old, kind):
                    widened.append(ColumnChange(present, old, kind))
                elif old != kind:
                    refused[present] = (old, kind)
            found = [refused_types_message(table, refused)] if refused else []
            if nodes[key]["config"].get("on_schema_change") == "fail":
                declared_names = {fold(name) for name in columns}
                gone = [name for folded, (name, _) in existing.items() if folded not in declared_names]
                found += _difference(table, added=added, gone=gone)
            problems += found
            if widened and not found:
                apply_changes(connection, table=table, target=lake_name(table), changes=widened, author=context.run.run_id)
                context.add_asset_metadata(schema_change_metadata(table, widened), asset_key=key)
    if problems:
        raise permanent_failure(" ".join(problems))


def _difference(table: str, *, added: Sequence[str], gone: Sequence[str]) -> list[str]:
    """The message about columns that the contract has and the table lacks, or the other way round."""
    if not added and not gone:
        return []
    options = "".join(f" --drop {name}" for name in gone)
    if len(added) == len(gone) == 1:
        options += f" (or, for a new name of the same column, --rename {gone[0]}={added[0]})"
    return [
        f"{table}: the contract of the dbt model has other columns than the table: new {', '.join(added) or 'none'}, gone "
        f"{', '.join(gone) or 'none'}. Nothing was built. `mlops schema plan {table}{options}` shows what would change, "
        "`mlops schema apply` does it; older rows have no value in a new column until they are built again."
    ]
