"""`features/<source>_statistics`: statistics of every feature, by partition, and how they move over time.

The SQL is in `feature_store/statistics.py`. A run reads the partitions it describes and no others, so that its cost does not
grow with the history.
"""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.core.conditions import ON_NEW_INPUTS
from mlops_assets.core.freshness import cadence_freshness
from mlops_assets.core.keys import FEATURES_SCHEMA, group_name, table_key
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.catalog import FeatureCatalog
from mlops_assets.feature_store.registry import FeatureView
from mlops_assets.feature_store.site import render_view
from mlops_assets.feature_store.statistics import COLUMN_DESCRIPTIONS, PARTITION, statistics_query
from mlops_assets.feature_store.unusual_statistics import EARLIER_PARTITIONS, UnusualStatistic, find_unusual
from mlops_assets.features.dbt_models import DbtSelection
from mlops_assets.features.statistics_checks import USUAL_VALUES, check_usual_values, describe_unusual
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import quote
from mlops_assets.lake.tables import column_types, table_exists
from mlops_assets.schema.cadence import CADENCE_LENGTHS
from mlops_assets.stages.column_lineage import column_lineage
from mlops_assets.stages.execution import (
    RETRIES,
    permanent_failure,
    record_partitions,
    record_range_metadata,
    run_time,
    table_schema,
    written_metadata,
)
from mlops_assets.stages.faults import step

VIEW_PAGE = "feature_view_page"
"""Metadata of an observation of a feature view: its page, as Markdown."""

_PLOTTED_PARTITIONS = 90
# How a feature is called where those of all views and versions are together.
_LABEL = "view || '.' || feature || CASE WHEN version > 1 THEN ' v' || version ELSE '' END"


def build_feature_statistics(selection: DbtSelection) -> dg.AssetsDefinition:
    """The statistics of the feature views of `selection`, which must have one, partitioned like them."""
    table = f"{FEATURES_SCHEMA}.{selection.tag}_statistics"
    days = CADENCE_LENGTHS[selection.cadence].most_days

    @dg.asset(
        key=table_key(table),
        description=f"Statistics of every feature of {selection.tag}, by partition: missing share, moments, quantiles, distinct values.",
        group_name=group_name(selection.tag, FEATURES_SCHEMA),
        kinds={"duckdb"},
        owners=sorted({view.owner for view in selection.views.values() if view.owner}),
        partitions_def=selection.partitions,
        check_specs=[USUAL_VALUES.partitioned_spec(table_key(table), selection.partitions)],
        deps=list(selection.views),
        metadata={"dagster/table_name": f"lake.{table}", **selection.origin},
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRIES,
        automation_condition=ON_NEW_INPUTS,
        freshness_policy=cadence_freshness(selection.cadence),
        code_version="1",
    )
    @step
    def feature_statistics(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult:
        starts, end = sorted(context.partition_keys), context.partition_time_window.end.date()
        with lake.connect(read_only=False) as connection:
            views = [view for view in selection.views.values() if table_exists(connection, view.model.table)]
            if not views:
                raise permanent_failure(
                    f"None of the feature views is materialized yet: {', '.join(_names(selection.views.values()))}."
                )
            written = lake.replace(
                connection,
                table=table,
                query=f"SELECT *, TIMESTAMPTZ '{run_time(context).isoformat()}' AS _loaded_at FROM ({_query(connection, views, starts, end)})",
                partition_range=PartitionRange(PARTITION, date.fromisoformat(starts[0]), end, include_null=True),
                author=context.run.run_id,
            )
            schema = table_schema(connection, f"lake.{table}", COLUMN_DESCRIPTIONS)
            constant = connection.execute(
                f"SELECT DISTINCT {_LABEL} FROM lake.{table} WHERE ({_in_window(starts[0], end)}) "
                "AND most_frequent_share = 1 AND rows > 1 ORDER BY 1"
            ).fetchall()
            unusual = find_unusual(
                connection,
                table=table,
                label=_LABEL,
                partitions=[date.fromisoformat(start) for start in starts],
                earliest=date.fromisoformat(starts[0]) - timedelta(days=days * EARLIER_PARTITIONS),
            )
            plot = _plot(connection, table, end, days)
            _show_views(context, connection, settings, selection, unusual[date.fromisoformat(starts[-1])])
        record_partitions(context, written.rows_by_partition, written.hashes_by_partition)
        missing = sorted(set(_names(selection.views.values())) - set(_names(views)))
        record_range_metadata(
            context,
            {"constant_features": dg.MetadataValue.json([name for (name,) in constant]), **plot, **_lineage(selection)},
        )
        return dg.MaterializeResult(
            check_results=check_usual_values(context.asset_key, unusual),
            metadata={
                **written_metadata(written),
                "dagster/column_schema": schema,
                "not_materialized": dg.MetadataValue.json(missing),
            },
        )

    return feature_statistics


def _show_views(
    context: dg.AssetExecutionContext,
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    selection: DbtSelection,
    unusual: Sequence[UnusualStatistic],
) -> None:
    """Record on the asset of each view, as an observation, its page: columns with values over time, uses, impact, the newest rows; and what
    is unusual in the newest partition.

    Uses are those of now: which models are live is asked of the registry.
    """
    catalog = FeatureCatalog(Path(selection.project.project_dir), current_project().definitions_directory, settings)
    for key, view in selection.views.items():
        if table_exists(connection, view.model.table):
            page = dg.MetadataValue.md(render_view(catalog, view, connection))
            partition = context.partition_keys[-1] if view.model.partition_column else None
            own = [describe_unusual(one) for one in unusual if one.feature.startswith(f"{view.name}.")]
            context.log_event(
                dg.AssetObservation(key, partition=partition, metadata={VIEW_PAGE: page, "unusual": dg.MetadataValue.json(own)})
            )


def _lineage(selection: DbtSelection) -> dict[str, dg.TableColumnLineage]:
    """Statistics of all features stand in the same columns, so that each comes from all of them; the names of features from none."""
    features = [(key, feature) for key, view in selection.views.items() for feature in view.features]
    partitions = [(key, column) for key, view in selection.views.items() if (column := view.model.partition_column)]
    others = {PARTITION: partitions, "view": [], "version": [], "feature": []}
    return column_lineage({name: others.get(name, features) for name in COLUMN_DESCRIPTIONS})


def _names(views: Iterable[FeatureView]) -> list[str]:
    return [view.name for view in views]


def _in_window(start: str, end: date) -> str:
    return f"{PARTITION} IS NULL OR {PARTITION} >= DATE '{start}' AND {PARTITION} < DATE '{end}'"


def _query(connection: duckdb.DuckDBPyConnection, views: Sequence[FeatureView], starts: Sequence[str], end: date) -> str:
    """SQL for the statistics of all `views`: one pass over the window of each."""
    queries = []
    for view in views:
        schema, name = view.model.table.split(".")
        types = column_types(connection, f"lake.{quote(schema)}.{quote(name)}")
        queries.append(statistics_query(view, types=types, starts=[*starts, end.isoformat()]))
    return " UNION ALL ".join(queries)


def _plot(connection: duckdb.DuckDBPyConnection, table: str, end: date, days: int) -> dict[str, Any]:
    """Missing share and mean of every feature over the last partitions before `end`; nothing without two of them."""
    from mlops_assets.ml.figures import markdown_image
    from mlops_assets.ml.monitoring_plots import feature_statistics_plot

    rows = connection.execute(
        f"SELECT {PARTITION}, {_LABEL}, missing_share, mean FROM lake.{table} WHERE {PARTITION} < ? AND {PARTITION} >= ? "
        "ORDER BY view, version, feature",
        [end, end - timedelta(days=days * _PLOTTED_PARTITIONS)],
    ).fetchall()
    partitions = sorted({row[0] for row in rows})
    if len(partitions) < 2:
        return {}
    series: dict[str, dict[date, tuple[float, float | None]]] = {}
    for partition, feature, missing, mean in rows:
        series.setdefault(feature, {})[partition] = (missing, mean)
    png = feature_statistics_plot(
        [str(partition) for partition in partitions],
        {feature: [values.get(partition, (None, None)) for partition in partitions] for feature, values in series.items()},
    )
    return {"statistics": dg.MetadataValue.md(markdown_image("Missing share and mean of every feature over time", png))}
