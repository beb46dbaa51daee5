"""Monitoring windows of a run: their predictions with the known labels, and the references that these are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.keys import OUTCOMES, PREDICTION_LOG, PREDICTIONS
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import quote
from mlops_assets.lake.tables import column_types, table_exists
from mlops_assets.lake.validation import Validation, build_schema, scan
from mlops_assets.monitoring.staged_rows import ROWS, stage_once
from mlops_assets.predictions.all_predictions import require_predictions
from mlops_assets.schema.column_names import MATURED, MODEL_VERSION, PREDICTION_ID, internal
from mlops_assets.schema.table_columns import TableColumn, descriptions
from mlops_assets.stages.execution import (
    partition_range,
    permanent_failure,
    record_partitions,
    record_range_metadata,
    table_schema,
    written_metadata,
)
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import read_contract
from mlops_assets.training.monitoring_reference import VersionReference, load_reference

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.evaluation import Evaluation
    from mlops_assets.serving.contract import Contract

WINDOW = "window_start"
"""DATE column of every report: the partition, which is the first day of the window."""

WINDOW_AND_VERSION: Mapping[str, TableColumn] = {
    "window": TableColumn(type="VARCHAR", nullable=False),
    MODEL_VERSION: TableColumn(type="INTEGER", nullable=False),
}
"""The first columns of the rows that a monitor found, which `report_query` wants."""

STAGED_WINDOW = internal(WINDOW)
"""Column of `ROWS`: the first day of the window of a row."""


@dataclass(frozen=True)
class Windows:
    """The monitoring windows of a run: the key of each and the partitions of the predictions in it."""

    ranges: dict[str, PartitionRange]

    @property
    def whole(self) -> PartitionRange:
        """From the first to the last window."""
        parts = list(self.ranges.values())
        return PartitionRange(parts[0].column, parts[0].start, parts[-1].end)

    def end(self, key: str) -> date:
        """The day after the window."""
        return self.ranges[key].end


@dataclass(frozen=True)
class MonitoredVersion:
    """The contract and the reference that the rows of a version are compared with.

    `evaluations` are those of the reference by the columns of their slices, kept for the further windows that are compared with them.
    """

    version: int
    contract: "Contract"
    reference: VersionReference
    evaluations: "dict[tuple[str, ...], Evaluation]" = field(default_factory=dict, repr=False, compare=False)


def load_monitored_version(inputs: SolutionInputs, registry: ModelRegistry, settings: Settings, version: int) -> MonitoredVersion:
    """Contract and reference of a version. Raises Failure when it has no stored reference."""
    model = registry.get(inputs.name, version)
    contract = read_contract(registry, settings, model)
    return MonitoredVersion(version=version, contract=contract, reference=load_reference(registry, settings, model))


def windows_from_keys(inputs: SolutionInputs, keys: Sequence[str]) -> Windows:
    """The windows of these partition keys, in order."""
    ranges = {}
    for key in keys:
        window = inputs.windows.time_window_for_partition_key(key)
        ranges[key] = PartitionRange(inputs.solution.partitions.column, window.start.date(), window.end.date())
    return Windows(ranges)


def window_dependencies(inputs: SolutionInputs) -> list[dg.AssetKey | dg.AssetDep]:
    """Return the dependencies of what reads the predictions of windows, with their outcomes, and the versions that predicted them."""
    return [*inputs.predictions, inputs.key(OUTCOMES), *inputs.evaluations]


def stage_rows(connection: duckdb.DuckDBPyConnection, settings: Settings, inputs: SolutionInputs, windows: Windows) -> list[int]:
    """Make the table `ROWS`: the predictions of `windows` with `STAGED_WINDOW` and the label (null until it is known). Returns the versions.

    The reports of a run read the rows of the first of them, unless predictions or outcomes changed since. Raises Failure when none of
    the windows has a prediction.
    """
    predictions = require_predictions(connection, inputs.name)
    stages = (PREDICTIONS, PREDICTION_LOG, OUTCOMES)
    tables = [table for stage in stages if table_exists(connection, table := inputs.table(stage))]
    query = _rows_query(inputs, windows, predictions, tables)
    stage_once(connection, settings.staged_windows_directory / inputs.name, query=query, tables=tables)
    versions = [
        version for (version,) in connection.execute(f"SELECT DISTINCT {MODEL_VERSION} FROM {ROWS} ORDER BY 1").fetchall()
    ]
    if not versions:
        raise permanent_failure(
            f"No predictions in the windows {', '.join(windows.ranges)}: materialize {inputs.name}/{PREDICTIONS} there, or ask a server."
        )
    return versions


def _rows_query(inputs: SolutionInputs, windows: Windows, predictions: str, tables: Sequence[str]) -> str:
    label = quote(inputs.solution.spine.label)
    bounds = ", ".join(f"(DATE '{key}', DATE '{window.start}', DATE '{window.end}')" for key, window in windows.ranges.items())
    column = quote(inputs.solution.partitions.column)
    known = f"(SELECT NULL AS {PREDICTION_ID}, NULL AS {label} LIMIT 0)"
    if (outcomes := inputs.table(OUTCOMES)) in tables:
        known = f"(SELECT {PREDICTION_ID}, {label} FROM lake.{outcomes} t WHERE {MATURED} AND {windows.whole.predicate('t')})"
    return (
        f"SELECT w.{STAGED_WINDOW}, p.*, o.{label} FROM {predictions} p "
        f"JOIN (VALUES {bounds}) w({STAGED_WINDOW}, first, after) ON p.{column} >= w.first AND p.{column} < w.after "
        f"LEFT JOIN {known} o ON o.{PREDICTION_ID} = p.{PREDICTION_ID} WHERE {windows.whole.predicate('p')}"
    )


def window_rows(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, version: int) -> "dict[str, pa.Table]":
    """The rows of a version by window, in order of time."""
    return _by_window(connection, inputs, version, "")


def sampled_windows(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, version: int) -> "dict[str, pa.Table]":
    """The rows of a version by window, of each at most `monitoring.drift.maximum_rows`, chosen by the hash of their key: always the same."""
    order = f"hash({quote(inputs.solution.spine.key)}), {PREDICTION_ID}"
    place = f"row_number() OVER (PARTITION BY {STAGED_WINDOW} ORDER BY {order})"
    return _by_window(connection, inputs, version, f"QUALIFY {place} <= {inputs.solution.monitoring.drift.maximum_rows} ")


def rows_of_version(report: "pa.Table", version: int) -> "pa.Table":
    """The rows that a report found of a version, with its number, which `report_query` wants."""
    import pyarrow as pa

    return report.append_column(MODEL_VERSION, pa.repeat(version, report.num_rows).cast(pa.int32()))


def report_query(relation: str) -> str:
    """SQL for the rows of a report that names its windows in the text column `window`, with `window_start` and the version in front."""
    return f'SELECT CAST("window" AS DATE) AS {WINDOW}, {MODEL_VERSION}, * EXCLUDE ("window", {MODEL_VERSION}) FROM {relation}'


def report_columns(columns: Mapping[str, TableColumn]) -> dict[str, TableColumn]:
    """The columns of the table of a report: those of `report_query`, then the monitor's `columns`."""
    first = {
        WINDOW: TableColumn(type="DATE", nullable=False, description="First day of the monitoring window."),
        MODEL_VERSION: TableColumn(
            type="INTEGER",
            nullable=False,
            description="Version that predicted: its contract and its hold-out are what the rows are held against.",
        ),
    }
    return first | {name: column for name, column in columns.items() if name not in WINDOW_AND_VERSION}


def validate_report(connection: duckdb.DuckDBPyConnection, table: str, query: str, columns: Mapping[str, TableColumn]) -> None:
    """Raise Failure unless the rows of `query` are as the `columns` of the report `table` are declared; it names all that is wrong."""
    rows = f"({query})"
    validation = Validation(build_schema(columns, key=()), column_types(connection, rows))
    measured = scan(connection, validation.relation(rows), validation.measures) if validation.measures else {}
    if failures := [*validation.wrong_columns, *validation.failures(connection, rows, measured)]:
        raise permanent_failure(
            f"{table} was not written, its rows are not as its columns are declared: {'; '.join(map(str, failures))}."
        )


def write_report(
    context: dg.AssetExecutionContext,
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    *,
    table: str,
    query: str,
    columns: Mapping[str, TableColumn],
    lineage: Mapping[str, Any],
) -> dict[str, Any]:
    """Make the rows of this run's windows in a report's `table` those of `query`. Returns the metadata of the materialization.

    `lineage` is its column lineage, as metadata. Raises Failure when the rows are not as `columns` declares them.
    """
    validate_report(connection, table, query, columns)
    written = lake.replace(
        connection, table=table, query=query, partition_range=partition_range(context, WINDOW), author=context.run.run_id
    )
    record_partitions(context, written.rows_by_partition, written.hashes_by_partition)
    record_range_metadata(context, lineage)
    return {
        **written_metadata(written),
        "dagster/column_schema": table_schema(connection, f"lake.{table}", descriptions(columns)),
    }


def _by_window(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, version: int, chosen: str) -> "dict[str, pa.Table]":
    import pyarrow.compute as pc

    table = connection.execute(
        f"FROM {ROWS} WHERE {MODEL_VERSION} = {version} {chosen}"
        f"ORDER BY {STAGED_WINDOW}, {quote(inputs.solution.spine.prediction_time)}, {PREDICTION_ID}"
    ).to_arrow_table()
    days = table.column(STAGED_WINDOW)
    return {day.isoformat(): table.filter(pc.equal(days, day)) for day in sorted(days.unique().to_pylist())}
