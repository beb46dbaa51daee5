"""Checks of predictions: complete, finite and on fresh features in a batch; once each and inside the partitions in a log."""

from collections.abc import Mapping, Sequence

import dagster as dg
import duckdb

from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import MOST_EXAMPLES, PartitionCheckResult
from mlops_assets.core.keys import PREDICTION_LOG, PREDICTIONS
from mlops_assets.feature_store.point_in_time import SelectedView, is_fresh
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import lake_name, literal, quote
from mlops_assets.lake.tables import table_exists
from mlops_assets.predictions.all_predictions import counted_predictions
from mlops_assets.schema.column_names import COUNTED, PREDICTION_ID, TRAINED_ON, VIEW_FLAGS, internal
from mlops_assets.stages.execution import rows_by_partition_key
from mlops_assets.stages.inputs import SolutionInputs

_MOST_STALE = 0.2
"""Share of the rows of a partition; single entities are quiet for long at any time."""


def check_complete(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange, *, keys: Sequence[str]
) -> list[PartitionCheckResult]:
    """Whether in each of the partitions `keys`, which are those of `window`, every row that the batch predicts has one prediction that counts.

    A row that its version was trained on has none. The prediction of a row that has left the spine stays.
    """
    key, partition = quote(inputs.solution.spine.key), quote(window.column)
    rows, day, trained = internal("rows"), internal("day"), internal("trained")
    spine = (
        f"(SELECT {key}, {partition} AS {day}, count(*) AS {rows} FROM {lake_name(inputs.spine.table)} t "
        f"WHERE {window.predicate('t')} AND {inputs.is_predicted} GROUP BY ALL)"
    )
    predicted = (
        f"(SELECT {key}, {partition} AS {day}, count(*) FILTER (WHERE coalesce({COUNTED}, true)) AS {rows}, "
        f"coalesce(bool_or({TRAINED_ON}), false) AS {trained} FROM lake.{inputs.table(PREDICTIONS)} t "
        f"WHERE {window.predicate('t')} GROUP BY ALL)"
    )
    is_wrong = f"(s.{rows} <> 1 OR (p.{rows} IS DISTINCT FROM 1 AND NOT coalesce(p.{rows} = 0 AND p.{trained}, false)))"
    by_date = connection.execute(
        f"SELECT CAST({day} AS VARCHAR), count(*), count(*) FILTER (WHERE {is_wrong}), "
        f"list(CAST({key} AS VARCHAR) ORDER BY {key}) FILTER (WHERE {is_wrong})[:{MOST_EXAMPLES}] "
        f"FROM {spine} s LEFT JOIN {predicted} p USING ({key}, {day}) GROUP BY 1"
    ).fetchall()
    total = rows_by_partition_key(keys, {date: count for date, count, _, _ in by_date})
    wrong = rows_by_partition_key(keys, {date: count for date, _, count, _ in by_date})
    examples = _by_partition_key(keys, {date: day_examples for date, _, _, day_examples in by_date})
    return [
        PartitionCheckResult.from_result(
            check_rules.COMPLETE.result(
                inputs.key(PREDICTIONS),
                passed=wrong[name] == 0 and sum(total.values()) > 0,
                metadata={
                    "rows": total[name],
                    "least_rows_of_the_run": 1,
                    "without_exactly_one_prediction": wrong[name],
                    "maximum": 0,
                    "examples": dg.MetadataValue.json(examples[name]),
                    **({} if total[name] else {"no_examples": "There is no row."}),
                },
                description=(f"{wrong[name]} of {total[name]} keys have not one prediction" if wrong[name] else None)
                if total[name]
                else "the spine has no row in this partition",
            ),
            name,
        )
        for name in keys
    ]


def _by_partition_key(keys: Sequence[str], by_date: Mapping[str, Sequence[str] | None]) -> dict[str, list[str]]:
    """The first examples of each partition, of those of its dates."""
    examples: dict[str, list[str]] = {name: [] for name in keys}
    for day, day_examples in sorted(by_date.items()):
        [name] = [key for key, count in rows_by_partition_key(keys, {day: 1}).items() if count]
        examples[name] = [*examples[name], *(day_examples or ())][:MOST_EXAMPLES]
    return examples


def check_finite(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange, *, keys: Sequence[str]
) -> list[PartitionCheckResult]:
    """Whether in each of the partitions `keys`, which are those of `window`, every prediction is a finite number."""
    column = "value" if inputs.solution.problem == "regression" else "score"
    key, is_wrong = quote(inputs.solution.spine.key), f"({column} IS NULL OR NOT isfinite({column}))"
    by_date = connection.execute(
        f"SELECT CAST({quote(window.column)} AS VARCHAR), count(*), count(*) FILTER (WHERE {is_wrong}), min({column}), max({column}), "
        f"list(CAST({key} AS VARCHAR) ORDER BY {key}) FILTER (WHERE {is_wrong})[:{MOST_EXAMPLES}] "
        f"FROM ({counted_predictions(connection, inputs.table(PREDICTIONS))}) t WHERE {window.predicate('t')} GROUP BY 1"
    ).fetchall()
    rows = rows_by_partition_key(keys, {date: count for date, count, *_ in by_date})
    wrong = rows_by_partition_key(keys, {date: count for date, _, count, *_ in by_date})
    examples = _by_partition_key(keys, {row[0]: row[5] for row in by_date})
    lowest = min((row[3] for row in by_date if row[3] is not None), default=0)
    highest = max((row[4] for row in by_date if row[4] is not None), default=0)
    return [
        PartitionCheckResult.from_result(
            check_rules.FINITE.result(
                inputs.key(PREDICTIONS),
                passed=wrong[name] == 0,
                metadata={
                    "rows": rows[name],
                    "not_finite": wrong[name],
                    "maximum_not_finite": 0,
                    "examples": dg.MetadataValue.json(examples[name]),
                    "minimum_of_the_run": float(lowest),
                    "maximum_of_the_run": float(highest),
                },
                description=f"{wrong[name]} of {rows[name]} predictions are no finite number" if wrong[name] else None,
            ),
            name,
        )
        for name in keys
    ]


def _too_old(chosen: SelectedView, prediction_time: str) -> str:
    """SQL that is true when a row has no values of the view because of their age, or older ones than the solution accepts."""
    stale = f"json_extract_string({VIEW_FLAGS}, {literal('$.' + chosen.view.name)}) = 'stale'"
    if chosen.known_since is None or chosen.accepted_lag_days is None:
        return stale
    accepted = is_fresh(prediction_time, quote(chosen.known_since), chosen.accepted_lag_days)
    return f"({stale} OR coalesce(NOT ({accepted}), false))"


def check_fresh_features(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: PartitionRange, *, keys: Sequence[str]
) -> list[PartitionCheckResult]:
    """Whether in each of the partitions `keys`, which are those of `window`, the values of every view are recent enough.

    A view that is not built any more spoils whole partitions; an entity that was quiet for long spoils rows here and there.
    """
    prediction_time, key = quote(inputs.solution.spine.prediction_time), quote(inputs.solution.spine.key)
    counted = "".join(
        f", count(*) FILTER (WHERE {old}), arg_min(CAST({key} AS VARCHAR), {key}, {MOST_EXAMPLES}) FILTER (WHERE {old})"
        for old in (_too_old(chosen, prediction_time) for chosen in inputs.views)
    )
    by_date = connection.execute(
        f"SELECT CAST({quote(window.column)} AS VARCHAR), count(*){counted} "
        f"FROM ({counted_predictions(connection, inputs.table(PREDICTIONS))}) t WHERE {window.predicate('t')} GROUP BY 1"
    ).fetchall()
    rows, *stale = (
        rows_by_partition_key(keys, {day: counts[position] for day, *counts in by_date})
        for position in (0, *range(1, 2 * len(inputs.views) + 1, 2))
    )
    examples = {
        chosen.view.name: _by_partition_key(keys, {day: counts[2 * number + 2] for day, *counts in by_date})
        for number, chosen in enumerate(inputs.views)
    }
    results = []
    for name in keys:
        shares = {
            chosen.view.name: old[name] / rows[name] if rows[name] else 0.0
            for chosen, old in zip(inputs.views, stale, strict=True)
        }
        late = {view: f"{view}: {share:.0%}" for view, share in shares.items() if share > _MOST_STALE}
        result = check_rules.FRESH_FEATURES.result(
            inputs.key(PREDICTIONS),
            passed=not late,
            metadata={
                "limit": _MOST_STALE,
                "rows": rows[name],
                "share_too_old": dg.MetadataValue.json(shares),
                "examples": dg.MetadataValue.json({view: examples[view][name] for view in late}),
            },
            description=f"values too old: {', '.join(late.values())}" if late else None,
        )
        results.append(PartitionCheckResult.from_result(result, name))
    return results


def check_logged_once(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, stage: str) -> dg.AssetCheckResult:
    """Whether the table of `stage`, a log of predictions, has every prediction once."""
    table, rows, distinct, repeated = inputs.table(stage), 0, 0, list[str]()
    if table_exists(connection, table):
        rows, distinct = connection.execute(f"SELECT count(*), count(DISTINCT {PREDICTION_ID}) FROM lake.{table}").fetchall()[0]
    if rows > distinct:
        result = connection.execute(
            f"SELECT {PREDICTION_ID} FROM lake.{table} GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT {MOST_EXAMPLES}"
        )
        repeated = [identifier for (identifier,) in result.fetchall()]
    return check_rules.LOGGED_ONCE.result(
        inputs.key(stage),
        passed=rows == distinct,
        metadata={
            "rows": rows,
            "more_than_once": rows - distinct,
            "maximum_more_than_once": 0,
            "examples": dg.MetadataValue.json(repeated),
        },
        description=f"{rows - distinct} rows repeat a prediction" if repeated else None,
    )


def check_within_partitions(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs) -> dg.AssetCheckResult:
    """Whether every prediction of the log is of a day that a partition holds: reports, outcomes and decisions never see another one.

    A caller that gives no time, or a time zone other than the solution's, is seen here, and partitions that have ended.
    """
    table, partitions = inputs.table(PREDICTION_LOG), inputs.solution.partitions
    column, rows, outside, examples = quote(partitions.column), 0, 0, list[str]()
    bounds = [f"{column} IS NULL", f"{column} < {literal(partitions.start.isoformat())}"]
    if partitions.end:
        bounds.append(f"{column} >= {literal(partitions.end.isoformat())}")
    if table_exists(connection, table):
        [(rows,)] = connection.execute(f"SELECT count(*) FROM lake.{table}").fetchall()
        # By their least and greatest dates, files that hold none are not read.
        query = (
            f"SELECT count(*), arg_min(concat_ws(', ', CAST({column} AS VARCHAR), {PREDICTION_ID}), {PREDICTION_ID}, {MOST_EXAMPLES}) "
            f"FROM lake.{table} WHERE {' OR '.join(bounds)}"
        )
        [(outside, examples)] = connection.execute(query).fetchall()
    span = f"{partitions.start} to {partitions.end} (exclusive)" if partitions.end else f"{partitions.start} onwards"
    return check_rules.WITHIN_PARTITIONS.result(
        inputs.key(PREDICTION_LOG),
        passed=not outside,
        metadata={
            "rows": rows,
            "outside": outside,
            "maximum_outside": 0,
            "examples": dg.MetadataValue.json(examples or []),
        },
        description=f"{outside} predictions are outside of the partitions, which are {span}: no report covers them"
        if outside
        else None,
    )
