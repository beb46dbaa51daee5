"""The reported performance of windows, with the labels that were known at a moment, whenever the reports were made."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import duckdb

from mlops_assets.core.keys import OUTCOMES
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import quote, sql_moment
from mlops_assets.lake.tables import table_exists
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.monitoring.monitored_windows import MonitoredVersion, windows_from_keys
from mlops_assets.monitoring.window_performance import is_complete, performance_with_labels
from mlops_assets.schema.column_names import MATURED, MODEL_VERSION, PREDICTION_ID
from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    import pyarrow as pa

LoadVersion = Callable[[int], MonitoredVersion]


def performance_as_known(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    reported: Sequence[PerformanceRow],
    *,
    version: int,
    moment: datetime,
    load: LoadVersion,
) -> list[PerformanceRow]:
    """Return the `reported` rows of one window and `version` as they were with the labels known at `moment`.

    When the report knew the same labels they are what was reported. `load` gives the contract and the reference of a version.
    """
    name, first = reported[0].window, reported[0]
    window = windows_from_keys(inputs, [name]).ranges[name]
    complete = is_complete(inputs, window.end, moment)
    known = _known(inputs, window, version, moment)
    outcomes = f"lake.{inputs.table(OUTCOMES)}"
    count = 0
    if table_exists(connection, inputs.table(OUTCOMES)):
        [[count]] = connection.execute(f"SELECT count(*) FROM {outcomes} t WHERE {known}").fetchall()
    if (complete, count) == (first.complete, first.matured_rows):
        return list(reported)
    labelled: pa.Table | None = None
    if count:
        order = f"{quote(inputs.solution.spine.prediction_time)}, {PREDICTION_ID}"
        labelled = connection.execute(f"FROM {outcomes} t WHERE {known} ORDER BY {order}").to_arrow_table()
    return performance_with_labels(inputs, load(version), reported, labelled, complete=complete)


def _known(inputs: SolutionInputs, window: PartitionRange, version: int, moment: datetime) -> str:
    """SQL that is true for the outcomes of `version` in `window` whose label was known at `moment`."""
    label_time = quote(inputs.solution.spine.label_time)
    return f"{MODEL_VERSION} = {version} AND {MATURED} AND {window.predicate('t')} AND {label_time} <= {sql_moment(moment)}"
