"""The facts that a retraining decision rests on, as the reports, the evaluations, the spine and the registry hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import duckdb

from mlops_assets.clients.bundle_record import BundleRecord
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RECALIBRATES_TAG
from mlops_assets.core.keys import DRIFT_REPORT, OUTCOMES, PERFORMANCE_REPORT, TRAINING_DATASET, TRAINING_DATE
from mlops_assets.lake.datasets import newest_dataset
from mlops_assets.lake.sql import lake_name, quote, sql_moment
from mlops_assets.lake.tables import column_types, fingerprint, query_value, table_exists
from mlops_assets.ml.performance_words import describe_performance
from mlops_assets.ml.report_rows import PerformanceRow
from mlops_assets.ml.retraining import WindowResult
from mlops_assets.monitoring.known_performance import LoadVersion, performance_as_known
from mlops_assets.monitoring.monitor import measuring_monitors
from mlops_assets.monitoring.monitored_windows import WINDOW, windows_from_keys
from mlops_assets.schema.column_names import LABELLED_AT, LOADED_AT, MODEL_VERSION, SNAPSHOT_AT
from mlops_assets.schema.table_columns import row_columns
from mlops_assets.stages.execution import permanent_failure
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.all_evaluations import whole_evaluations
from mlops_assets.training.training_frame import labelled_rows


def training_day(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, end: date) -> date:
    """The training date that may use all data before `end`: without time, the newest snapshot."""
    if inputs.solution.spine.has_time:
        return date.fromisoformat(max(key for key in inputs.partitions.get_partition_keys() if key <= end.isoformat()))
    column = quote(inputs.solution.partitions.column)
    [[newest]] = connection.execute(
        f"SELECT max({column}) FROM {lake_name(inputs.spine.table)} WHERE {column} < ?", [end]
    ).fetchall()
    if newest is None:
        raise permanent_failure(f"{inputs.spine.table} has no snapshot before {end}: materialize it first.")
    return newest


def content_columns(inputs: SolutionInputs) -> str:
    """SQL for the columns of the spine that make one training differ from another: the day of a snapshot is none."""
    if inputs.solution.spine.has_time:
        return "*"
    return f"* EXCLUDE ({', '.join((quote(inputs.solution.partitions.column), SNAPSHOT_AT, LABELLED_AT, LOADED_AT))})"


def predicting_version(
    connection: duckdb.DuckDBPyConnection, registry: ModelRegistry, inputs: SolutionInputs, window: date
) -> BundleRecord:
    """The record of the solution's version that predicted last in `window`; the models of segments are looked after by people.

    Raises EvidenceError when somebody changed the version in MLflow: its training date decides.
    """
    reported = f"SELECT DISTINCT {MODEL_VERSION} FROM lake.{inputs.table(DRIFT_REPORT)} WHERE {WINDOW} = ?"
    last = "SELECT NULL AS last, NULL AS version"
    if table_exists(connection, table := inputs.table(OUTCOMES)):
        [period] = windows_from_keys(inputs, [window.isoformat()]).ranges.values()
        last = (
            f"SELECT max({quote(inputs.solution.spine.prediction_time)}) AS last, {MODEL_VERSION} AS version "
            f"FROM lake.{table} t WHERE {period.predicate('t')} GROUP BY 2"
        )
    # After a rollback within the window the lower number is the later one.
    versions = connection.execute(
        f"SELECT {MODEL_VERSION} FROM ({reported}) LEFT JOIN ({last}) ON version = {MODEL_VERSION} ORDER BY last DESC NULLS LAST, 1 DESC",
        [window],
    ).fetchall()
    for (version,) in versions:
        record = registry.registered_record(registry.get(inputs.name, version))
        if record.training.segment is None:
            return record
    raise permanent_failure(
        f"No report says what {inputs.name} predicted in the window {window}: materialize {inputs.name}/{DRIFT_REPORT} first."
    )


@dataclass(frozen=True)
class EvaluatedDates:
    """Training dates with an evaluated candidate for all rows, deployed or not, and those of them for which nothing was trained."""

    every: set[date]
    recalibrations: set[date]


def evaluated_dates(
    connection: duckdb.DuckDBPyConnection, registry: ModelRegistry, inputs: SolutionInputs, day: date, *, since: date
) -> EvaluatedDates:
    """Return the training dates before that of `day`. Of those up to `since`, which decide nothing, none is told a recalibration."""
    # Without time the training of a day has read the snapshot of that day.
    before = "<" if inputs.solution.spine.has_time else "<="
    rows = connection.execute(
        f"SELECT DISTINCT {TRAINING_DATE}, {MODEL_VERSION} FROM {whole_evaluations(connection, inputs.name)} "
        f"WHERE {TRAINING_DATE} {before} ?",
        [day],
    ).fetchall()
    later = [(evaluated, registry.get(inputs.name, version)) for evaluated, version in rows if evaluated > since]
    trained = {evaluated for evaluated, model in later if RECALIBRATES_TAG not in model.tags}
    return EvaluatedDates({evaluated for evaluated, _ in rows}, {evaluated for evaluated, _ in later} - trained)


def count_served_windows(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, version: int, window: date) -> int:
    """Count the windows from the first in which `version` predicted up to `window`."""
    query = f"SELECT min({WINDOW}) FROM lake.{inputs.table(DRIFT_REPORT)} WHERE {MODEL_VERSION} = {version}"
    first = str(query_value(connection, query))
    return sum(first <= key <= window.isoformat() for key in inputs.windows.get_partition_keys())


def reported_windows(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    *,
    version: int,
    after: date | None,
    window: date,
    count: int,
    moment: datetime,
    load: LoadVersion,
) -> list[WindowResult]:
    """Return the results of `version` in the last `count` windows behind `after` and up to `window`, in order of time, as known at `moment`."""
    metric = inputs.solution.training.metric
    shares = connection.execute(
        f"SELECT {WINDOW}, count(DISTINCT feature) FILTER (WHERE alert) / count(DISTINCT feature) "
        f"FROM lake.{inputs.table(DRIFT_REPORT)} WHERE {WINDOW} > ? AND {WINDOW} <= ? AND {MODEL_VERSION} = ? "
        "AND kind = 'feature' AND slice IS NULL GROUP BY 1 ORDER BY 1 DESC LIMIT ?",
        [after or date.min, window, version, count],
    ).fetchall()
    starts = [start for start, _ in shares]
    others = _alerts_of_monitors(connection, inputs, version, starts)
    results = []
    for start, share in reversed(shares):
        reported = _reported_performance(connection, inputs, version, start)
        known = performance_as_known(connection, inputs, reported, version=version, moment=moment, load=load) if reported else []
        row = next((row for row in known if row.metric == metric), None)
        results.append(
            WindowResult(
                start=start,
                drifted_share=share,
                metric=metric,
                estimated=row.estimated if row else None,
                realised=row.realised if row else None,
                limit=row.threshold if row else None,
                alert=any(row.alert for row in known),
                in_words=describe_performance(list(map(vars, known)), metric),
                complete=row is not None and row.complete,
                others=tuple(others.get(start, ())),
            )
        )
    return results


def _reported_performance(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, version: int, window: date
) -> list[PerformanceRow]:
    """Return the report on all predictions of `version` in `window`, one row a metric."""
    table = f"lake.{inputs.table(PERFORMANCE_REPORT)}"
    # A table of an earlier release lacks the newest columns.
    present = column_types(connection, table)
    names = [name for name in row_columns(PerformanceRow) if name != "window"]
    values = [name if name in present else f"NULL AS {name}" for name in names]
    rows = connection.execute(
        f"SELECT {', '.join(values)} FROM {table} WHERE {WINDOW} = ? AND {MODEL_VERSION} = ? AND slice IS NULL ORDER BY metric",
        [window, version],
    ).fetchall()
    return [PerformanceRow(window=window.isoformat(), **dict(zip(names, row, strict=True))) for row in rows]


def _alerts_of_monitors(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, version: int, windows: Sequence[date]
) -> dict[date, list[str]]:
    """Return in words, by window, the measures beyond their limits of the monitors that ask for a training."""
    alerts: dict[date, list[str]] = {}
    for solution_monitor in measuring_monitors(inputs.solution):
        if solution_monitor.monitor.asks_for_training and table_exists(connection, table := inputs.table(solution_monitor.stage)):
            rows = connection.execute(
                f"SELECT {WINDOW}, subject, sentence FROM lake.{table} WHERE alert AND {MODEL_VERSION} = ? AND list_contains(?, {WINDOW}) "
                "ORDER BY ALL",
                [version, list(windows)],
            ).fetchall()
            for window, subject, sentence in rows:
                alerts.setdefault(window, []).append(f"{solution_monitor.monitor.title.lower()} of {subject} {sentence}")
    return alerts


def count_predictions(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: date) -> int:
    """The predictions of all versions in `window`, as they were reported."""
    query = f"SELECT coalesce(sum(rows), 0) FROM lake.{inputs.table(PERFORMANCE_REPORT)} WHERE {WINDOW} = ? AND metric = ? AND slice IS NULL"
    return int(connection.execute(query, [window, inputs.solution.training.metric]).fetchall()[0][0])


def count_labelled(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str, attempted: date | None
) -> tuple[int, int]:
    """Count `rows`, and those of them that got their label after the training for `attempted`."""
    spine = inputs.solution.spine
    since = "true"
    if attempted is not None and spine.has_time:
        since = f"{quote(spine.label_time)} >= {sql_moment(inputs.midnight(attempted))}"
    elif attempted is not None:
        key = quote(spine.key)
        known = f"SELECT {key} FROM {lake_name(inputs.spine.table)} WHERE {labelled_rows(inputs, attempted)}"
        since = f"{key} NOT IN ({known})"
    labelled, new = connection.execute(f"SELECT count(*), count(*) FILTER (WHERE {since}) FROM ({rows})").fetchall()[0]
    return int(labelled), int(new)


def trained_rows_fingerprint(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, attempted: date | None) -> str | None:
    """Identity of the labelled rows as the training for `attempted` read them; None when nothing is recorded of it."""
    dataset = newest_dataset(connection, inputs.table(TRAINING_DATASET), attempted) if attempted else None
    if attempted is None or dataset is None:
        return None
    return fingerprint(
        connection,
        f"(SELECT {content_columns(inputs)} FROM {lake_name(inputs.spine.table)} AT (VERSION => {dataset.source_snapshot}) "
        f"WHERE {labelled_rows(inputs, attempted)})",
    )
