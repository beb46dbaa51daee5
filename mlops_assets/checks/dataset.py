"""Checks of a training dataset, between the feature store and the estimator. Counting is done in the lake; pandera judges the frame."""

from collections.abc import Callable, Sequence
from datetime import date

import dagster as dg
import duckdb

from mlops_assets.checks import rules
from mlops_assets.checks.tables import check_duplicates
from mlops_assets.column_names import SPLIT
from mlops_assets.inputs import SolutionInputs
from mlops_assets.keys import TRAINING_DATASET
from mlops_assets.resources.lake import column_types, quote, sql_moment
from mlops_assets.solution import before

RULES = (
    rules.SCHEMA,
    rules.ROW_COUNT,
    rules.DUPLICATES,
    rules.MISSING,
    rules.CONSTANT,
    rules.LABEL_RATE,
    rules.LEAKAGE,
)

_NEARLY_CONSTANT = 0.999
_NUMBERS = ("INTEGER", "BIGINT", "DOUBLE", "FLOAT", "SMALLINT", "TINYINT", "HUGEINT", "BOOLEAN", "DECIMAL", "UBIGINT", "UINTEGER")


def check_dataset(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, *, rows: str, training_date: date
) -> list[dg.AssetCheckResult]:
    """All checks of the dataset `rows` (a query in parentheses) that was built for `training_date`."""
    return [
        _schema(connection, inputs, rows),
        _row_count(connection, inputs, rows),
        check_duplicates(connection, inputs.key(TRAINING_DATASET), relation=rows, columns=[inputs.solution.spine.key]),
        _missing(connection, inputs, rows),
        _constant(connection, inputs, rows),
        _label_rate(connection, inputs, rows),
        _leakage(connection, inputs, rows, training_date),
    ]


def _schema(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str) -> dg.AssetCheckResult:
    from mlops_assets.ml.matrix import FeatureSchema, to_frame
    from mlops_assets.ml.quality import frame_schema, validate_frame

    table = connection.execute(f"FROM {rows}").to_arrow_table()
    schema = FeatureSchema.from_arrow(table.schema, inputs.features)
    failures = validate_frame(to_frame(table, schema), frame_schema(schema, {}, {}))
    return rules.SCHEMA.result(
        inputs.key(TRAINING_DATASET),
        passed=not failures,
        metadata={
            "numeric_features": len(schema.numeric),
            "categorical_features": len(schema.categorical),
            "failures": dg.MetadataValue.json([failure.as_dict() for failure in failures]),
        },
        description=f"{len(failures)} rules broken" if failures else None,
    )


def _row_count(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str) -> dg.AssetCheckResult:
    counts = dict(connection.execute(f"SELECT {SPLIT}, count(*) FROM {rows} GROUP BY 1").fetchall())
    train, holdout = counts.get("train", 0), counts.get("holdout", 0)
    minimum = inputs.solution.checks.minimum_rows
    return rules.ROW_COUNT.result(
        inputs.key(TRAINING_DATASET),
        passed=train >= minimum and holdout > 0,
        metadata={"train": train, "holdout": holdout, "minimum_train": minimum},
        description=None if holdout else "there is no hold-out row: widen training.holdout",
    )


def _missing(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str) -> dg.AssetCheckResult:
    limit = inputs.solution.checks.maximum_missing
    shares = _per_column(connection, rows, inputs.features, lambda name: f"1 - count({name}) / count(*)")
    above = {name: share for name, share in shares.items() if share > limit}
    return rules.MISSING.result(
        inputs.key(TRAINING_DATASET),
        passed=not above,
        metadata={
            "limit": limit,
            "above_limit": dg.MetadataValue.json(above),
            "share_by_feature": dg.MetadataValue.json({name: round(share, 4) for name, share in shares.items() if share}),
        },
        description=f"missing too often: {', '.join(above)}" if above else None,
    )


def _constant(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str) -> dg.AssetCheckResult:
    train = f"(SELECT * FROM {rows} WHERE {SPLIT} = 'train')"
    # The share of the most frequent value; a column without any value counts as constant.
    shares = _per_column(
        connection,
        train,
        inputs.features,
        lambda name: f"coalesce(list_max(map_values(histogram(CAST({name} AS VARCHAR)))) / count({name}), 1)",
    )
    constant = {name: share for name, share in shares.items() if share >= _NEARLY_CONSTANT}
    return rules.CONSTANT.result(
        inputs.key(TRAINING_DATASET),
        passed=not constant,
        metadata={"limit": _NEARLY_CONSTANT, "share_of_most_frequent_value": dg.MetadataValue.json(constant)},
        description=f"constant or nearly constant: {', '.join(constant)}" if constant else None,
    )


def _label_rate(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str) -> dg.AssetCheckResult:
    label = quote(inputs.solution.spine.label)
    means = dict(
        connection.execute(f"SELECT {SPLIT}, avg(TRY_CAST({label} AS DOUBLE)) FROM {rows} GROUP BY 1 ORDER BY 1").fetchall()
    )
    distinct = connection.execute(f"SELECT count(DISTINCT {label}) FROM {rows} WHERE {SPLIT} = 'train'").fetchall()[0][0]
    bounds = inputs.solution.checks.label_rate
    inside = bounds is None or all(mean is not None and bounds[0] <= mean <= bounds[1] for mean in means.values())
    return rules.LABEL_RATE.result(
        inputs.key(TRAINING_DATASET),
        passed=distinct > 1 and inside,
        metadata={
            "mean_by_split": dg.MetadataValue.json(means),
            "distinct_labels": distinct,
            "bounds": dg.MetadataValue.json(bounds or []),
        },
        description=None if distinct > 1 else "the training rows hold a single label",
    )


def _leakage(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str, training_date: date
) -> dg.AssetCheckResult:
    solution = inputs.solution
    predicted, labelled = quote(solution.spine.prediction_time), quote(solution.spine.label_time)
    known = [(chosen.view.name, chosen.known_since) for chosen in inputs.views if chosen.known_since]
    holdout_start = before(training_date, solution.training.holdout)
    tests = {
        **{f"features of {name} after prediction": f"{quote(column)} > {predicted}" for name, column in known},
        "label not later than prediction": f"{labelled} <= {predicted}",
        "label after the training date": f"{labelled} >= {sql_moment(inputs.midnight(training_date))}",
        "training label after the hold-out began": f"{SPLIT} = 'train' AND {labelled} >= {sql_moment(inputs.midnight(holdout_start))}",
    }
    counts = connection.execute(
        f"SELECT {', '.join(f'count(*) FILTER (WHERE {condition})' for condition in tests.values())} FROM {rows}"
    ).fetchall()[0]
    found = {name: count for name, count in zip(tests, counts, strict=True) if count}
    types = column_types(connection, rows)
    numeric = [name for name in inputs.features if types[name].startswith(_NUMBERS)]
    target = f"TRY_CAST({quote(solution.spine.label)} AS DOUBLE)"
    correlations = _per_column(connection, rows, numeric, lambda name: f"abs(corr(CAST({name} AS DOUBLE), {target}))")
    limit = solution.checks.maximum_label_correlation
    telling = {name: value for name, value in correlations.items() if value is not None and value > limit}
    strongest = sorted(((value or 0.0, name) for name, value in correlations.items()), reverse=True)[:5]
    return rules.LEAKAGE.result(
        inputs.key(TRAINING_DATASET),
        passed=not found and not telling,
        metadata={
            "rows_with_knowledge_of_the_future": dg.MetadataValue.json(found),
            "features_that_give_the_label_away": dg.MetadataValue.json(telling),
            "strongest_correlations": dg.MetadataValue.json({name: round(value, 4) for value, name in strongest}),
        },
        description="; ".join([*found, *telling]) or None,
    )


def _per_column(
    connection: duckdb.DuckDBPyConnection, rows: str, columns: Sequence[str], expression: Callable[[str], str]
) -> dict[str, float]:
    """The SQL that `expression` makes of the quoted name, for each of `columns`, in one pass."""
    if not columns:
        return {}
    selected = ", ".join(expression(quote(column)) for column in columns)
    return dict(zip(columns, connection.execute(f"SELECT {selected} FROM {rows}").fetchall()[0], strict=True))
