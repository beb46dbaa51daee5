"""The whole monitoring windows inside the period that a version was trained and evaluated on, predicted by the version.

They show how much windows differ when nothing is wrong: `ml/reference_windows.py`.
"""

from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING

import duckdb

from mlops_assets.core.prediction_columns import prediction_columns, predictions_array
from mlops_assets.lake.sql import quote
from mlops_assets.schema.column_names import SPLIT, internal
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.candidate_evaluation import decision_threshold
from mlops_assets.training.training_dataset import dataset_query

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.weighted_metrics import WeightedMetrics
    from mlops_assets.serving.bundle import Bundle
    from mlops_assets.serving.contract import Contract

REFERENCE_WINDOW = internal("reference_window")
"""Column of the rows of the period: the first day of the window of a row."""

_MOST_ROWS = 200_000
_EVALUATED_ROWS = 2000
"""Of each window and slice: enough for the standard deviation of a metric."""


@dataclass(frozen=True)
class ReferencePeriod:
    """The scored `rows` of the whole windows, with their window, and the `metrics` of each window (`METRIC_SCHEMA`)."""

    rows: "pa.Table"
    metrics: "pa.Table"

    def sample(self, rows: int) -> "pa.Table":
        """Of each window the first rows by the hash of their key, equally many of each: at most `rows` in all."""
        import pyarrow as pa

        windows = split_windows(self.rows)
        return pa.concat_tables([window.slice(0, max(1, rows // len(windows))) for window in windows.values()])


def split_windows(rows: "pa.Table") -> "dict[str, pa.Table]":
    """The `rows` of `scored_windows` by window, those of each in the order of the hash of their key."""
    windows, first = {}, 0
    for window in rows.column(REFERENCE_WINDOW).value_counts().to_pylist():
        windows[window["values"]] = rows.slice(first, window["counts"])
        first += window["counts"]
    return windows


def scored_windows(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, bundle: "Bundle", training_date: date
) -> "pa.Table | None":
    """The rows of training and hold-out in whole windows, with their window and the predictions of `bundle`; None without enough windows.

    Of a large period it is a sample of each window, chosen by the hash of the key: always the same.
    """
    from mlops_assets.ml.reference_windows import FEWEST_WINDOWS

    starts = _whole_windows(connection, inputs, training_date)
    if len(starts) - 1 < FEWEST_WINDOWS:
        return None
    day, key = quote(inputs.solution.partitions.column), quote(inputs.solution.spine.key)
    bounds = ", ".join(f"('{first}', DATE '{first}', DATE '{after}')" for first, after in pairwise(starts))
    rows = connection.execute(
        f"SELECT w.{REFERENCE_WINDOW}, d.* EXCLUDE ({SPLIT}) FROM {dataset_query(inputs, training_date)} d "
        f"JOIN (VALUES {bounds}) w({REFERENCE_WINDOW}, first, after) ON d.{day} >= w.first AND d.{day} < w.after "
        f"WHERE {SPLIT} <> 'earlier' AND {inputs.in_segment} "
        f"QUALIFY row_number() OVER (PARTITION BY w.{REFERENCE_WINDOW} ORDER BY hash({key}), {key}) <= {_MOST_ROWS // (len(starts) - 1)} "
        f"ORDER BY 1, hash({key}), {key}"
    ).to_arrow_table()
    scored = bundle.score(rows)
    for name in prediction_columns(scored):
        rows = rows.append_column(name, scored.column(name))
    return rows


def _whole_windows(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, training_date: date) -> list[str]:
    """The first days of the windows that the dataset covers from their first day to their last, and the day after the last of them."""
    if not inputs.solution.spine.has_time:
        return []
    day = quote(inputs.solution.partitions.column)
    query = f"SELECT CAST(min({day}) AS DATE) FROM {dataset_query(inputs, training_date)} WHERE {SPLIT} <> 'earlier' AND {inputs.in_segment}"
    [[first]] = connection.execute(query).fetchall()
    if first is None:
        return []
    keys = [key for key in inputs.windows.get_partition_keys() if first.isoformat() <= key <= training_date.isoformat()]
    ends = [inputs.windows.time_window_for_partition_key(key).end.date() for key in keys]
    whole = [(key, end) for key, end in zip(keys, ends, strict=True) if end <= training_date]
    return [*(key for key, _ in whole), whole[-1][1].isoformat()] if whole else []


def measure_period(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, bundle: "Bundle", training_date: date
) -> ReferencePeriod | None:
    """The period of a version, with the metrics of its windows and of their slices; None without enough windows."""
    rows = scored_windows(connection, inputs, bundle, training_date)
    return None if rows is None else ReferencePeriod(rows, _evaluate_windows(inputs, bundle, rows))


def _evaluate_windows(inputs: SolutionInputs, bundle: "Bundle", rows: "pa.Table") -> "pa.Table":
    """The metrics of each window of `scored_windows` and of its slices, in the schema `METRIC_SCHEMA`."""
    import pyarrow as pa

    from mlops_assets.ml.reference import row_slices
    from mlops_assets.ml.reference_windows import METRIC_SCHEMA, window_metrics

    solution = inputs.solution
    measured = []
    for window, window_rows in split_windows(rows).items():
        slices = row_slices(window_rows, solution.gates.slices)
        evaluated = {
            name: evaluated_rows(inputs, bundle.contract, part.slice(0, _EVALUATED_ROWS)) for name, part in slices.items()
        }
        measured += window_metrics(window, evaluated, metrics=solution.metrics, seed=solution.training.seed)
    return pa.Table.from_pylist(measured, schema=METRIC_SCHEMA)


def evaluated_rows(inputs: SolutionInputs, contract: "Contract", rows: "pa.Table") -> "WeightedMetrics":
    """The labels of `rows`, which are all known, and their predictions, to be evaluated."""
    from mlops_assets.ml.evaluation import normalize_predictions
    from mlops_assets.ml.weighted_metrics import WeightedMetrics
    from mlops_assets.schema.problem import label_array

    solution = inputs.solution
    return WeightedMetrics(
        problem=solution.problem,
        labels=label_array(rows.column(solution.spine.label), solution.problem),
        predictions=normalize_predictions(solution.problem, predictions_array(rows)),
        classes=contract.classes,
        threshold=decision_threshold(contract),
    )
