"""The data diff of a change: its dbt models, and what is computed from them, built in a scratch lake and compared with production."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_assets.core.project import Project
from mlops_assets.feature_store.column_lineage import relation_name
from mlops_assets.feature_store.registry import unique_keys
from mlops_assets.features.dbt_translation import partition_column
from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.lake.tables import table_exists
from mlops_assets.operations.review.build_plan import BuildPlan
from mlops_assets.operations.review.scratch_lake import ScratchLake
from mlops_assets.operations.review.table_diff import TableDiff, compare_tables


@dataclass(frozen=True)
class DataReview:
    """The compared tables by name, and a line for each model that was not compared, with the reason."""

    tables: tuple[TableDiff, ...]
    not_compared: tuple[str, ...]


def review_data(scratch: ScratchLake, project: Project, manifest: Mapping[str, Any], plans: Sequence[BuildPlan]) -> DataReview:
    """Build `plans` in the scratch lake, one after another, and compare each table with that of production.

    Raises StackError when dbt cannot build them.
    """
    tables: dict[str, TableDiff] = {}
    not_compared: dict[str, str] = {}
    for plan in plans:
        existing = _existing(scratch, manifest, plan)
        scratch.build(project, manifest, plan)
        for key in plan.models:
            node = manifest["nodes"][key]
            table = relation_name(node)
            if node["config"].get("materialized") == "view":
                not_compared[table] = f"{table}: a view has no rows of before; what is computed from it is compared"
            elif table not in existing:
                not_compared[table] = f"{table}: production has no such table yet"
            else:
                tables[table] = _compare(scratch, manifest, key, plan)
    return DataReview(tuple(tables[name] for name in sorted(tables)), tuple(not_compared[name] for name in sorted(not_compared)))


def _existing(scratch: ScratchLake, manifest: Mapping[str, Any], plan: BuildPlan) -> set[str]:
    tables = {relation_name(manifest["nodes"][key]) for key in plan.models}
    with scratch.lake.connect(read_only=True) as connection:
        return {table for table in tables if table_exists(connection, table)}


def _compare(scratch: ScratchLake, manifest: Mapping[str, Any], key: str, plan: BuildPlan) -> TableDiff:
    node = manifest["nodes"][key]
    table, column = relation_name(node), partition_column(node)
    compared = f"WHERE {quote(column)} >= DATE '{plan.compared}' AND {quote(column)} < DATE '{plan.end}'" if column else ""
    with scratch.lake.connect(read_only=True) as connection:
        return compare_tables(
            connection,
            table=table,
            before=f"SELECT * FROM {lake_name(table)} AT (VERSION => {scratch.snapshot}) {compared}",
            after=f"SELECT * FROM {lake_name(table)} {compared}",
            keys=list(_keys(manifest, key)),
        )


def _keys(manifest: Mapping[str, Any], key: str) -> Iterator[Sequence[str]]:
    """The columns that a data test holds to be unique, then those of a feature view."""
    yield from (sorted(columns) for columns in unique_keys(manifest["nodes"].values()).get(key, []))
    meta = manifest["nodes"][key]["config"].get("meta", {})
    if view := meta.get("feature_view"):
        yield [*view["entity"], *([view["event_timestamp"]] if view.get("event_timestamp") else [])]
