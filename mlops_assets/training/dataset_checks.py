"""Checks of a training dataset, between the feature store and the estimator. Counting is done in the lake; pandera validates the frame."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.core import check_rules
from mlops_assets.core.keys import TRAINING_DATASET
from mlops_assets.core.missing_values import finite_number, is_infinite, is_present, number
from mlops_assets.lake.lake import column_types, quote, sql_moment
from mlops_assets.schema.column_names import SPLIT
from mlops_assets.schema.solution import before
from mlops_assets.sources.table_checks import WHOLE, DeliveredRows, check_duplicates
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.leakage import explained_labels

RULES = (
    check_rules.SCHEMA,
    check_rules.ROW_COUNT,
    check_rules.DUPLICATES,
    check_rules.MISSING,
    check_rules.CONSTANT,
    check_rules.LABEL_RATE,
    check_rules.LEAKAGE,
)

_NEARLY_CONSTANT = 0.999
_EXAMPLES = 5
_NUMBERS = ("INTEGER", "BIGINT", "DOUBLE", "FLOAT", "SMALLINT", "TINYINT", "HUGEINT", "BOOLEAN", "DECIMAL", "UBIGINT", "UINTEGER")


def check_dataset(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, *, rows: str, training_date: date
) -> list[dg.AssetCheckResult]:
    """All checks of the dataset `rows` (a query in parentheses) that was built for `training_date`."""
    types = column_types(connection, rows)
    numeric = {name: types[name].startswith(_NUMBERS) for name in inputs.features}
    return [
        _schema(connection, inputs, rows),
        _row_count(connection, inputs, rows),
        check_duplicates(
            DeliveredRows(connection, rows, f"'{WHOLE}'", [WHOLE]),
            inputs.key(TRAINING_DATASET),
            columns=[inputs.solution.spine.key],
        )[WHOLE],
        _missing(connection, inputs, rows, numeric),
        _constant(connection, inputs, rows, numeric),
        _label_rate(connection, inputs, rows),
        _leakage(connection, inputs, rows, training_date, numeric),
    ]


def _schema(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str) -> dg.AssetCheckResult:
    from mlops_assets.ml.matrix import FeatureSchema, to_frame
    from mlops_assets.ml.quality import frame_schema, validate_frame

    table = connection.execute(f"FROM {rows}").to_arrow_table()
    schema = FeatureSchema.from_arrow(table.schema, inputs.features)
    failures = [failure.as_dict() for failure in validate_frame(to_frame(table, schema), frame_schema(schema, {}, {}))]
    failures += _infinite_labels(connection, inputs, rows)
    return check_rules.SCHEMA.result(
        inputs.key(TRAINING_DATASET),
        passed=not failures,
        metadata={
            "numeric_features": len(schema.numeric),
            "categorical_features": len(schema.categorical),
            "failures": dg.MetadataValue.json(failures),
        },
        description="; ".join(map(_in_words, failures)) or None,
    )


def _in_words(failure: Mapping[str, Any]) -> str:
    wrong = "infinite" if failure["check"] == "finite" else f"wrong ({failure['check']})"
    values = "value" if failure["count"] == 1 else "values"
    return f"{failure['column']}: {failure['count']} {wrong} {values}, such as {', '.join(failure['examples'])}"


def _infinite_labels(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str) -> list[dict[str, Any]]:
    """The label of a regression among the failures of the schema, when it is infinite in a row."""
    if inputs.solution.problem != "regression":
        return []
    label = quote(inputs.solution.spine.label)
    found = connection.execute(f"SELECT CAST({label} AS VARCHAR) FROM {rows} WHERE {is_infinite(label)} ORDER BY 1").fetchall()
    examples = list(dict.fromkeys(value for (value,) in found))[:_EXAMPLES]
    return (
        [{"column": inputs.solution.spine.label, "check": "finite", "count": len(found), "examples": examples}] if found else []
    )


def _row_count(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str) -> dg.AssetCheckResult:
    counts = dict(connection.execute(f"SELECT {SPLIT}, count(*) FROM {rows} GROUP BY 1").fetchall())
    train, holdout = counts.get("train", 0), counts.get("holdout", 0)
    minimum = inputs.solution.checks.minimum_rows
    return check_rules.ROW_COUNT.result(
        inputs.key(TRAINING_DATASET),
        passed=train >= minimum and holdout > 0,
        metadata={"train": train, "holdout": holdout, "minimum_train": minimum, "minimum_holdout": 1},
        description=(f"{train} training rows, at least {minimum} are wanted" if train < minimum else None)
        if holdout
        else "there is no hold-out row: widen training.holdout",
    )


def _missing(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str, numeric: Mapping[str, bool]
) -> dg.AssetCheckResult:
    limit = inputs.solution.checks.maximum_missing
    shares, in_training = (
        _per_column(connection, part, numeric, lambda name, number: f"1 - {_count(name, number)} / count(*)")
        for part in (rows, _training_rows(rows))
    )
    # What the model never sees in training it cannot have learned from, whatever the limit.
    unseen = [name for name, share in in_training.items() if share == 1 and shares[name] < 1]
    above = {name: share for name, share in shares.items() if share > limit or (in_training[name] or 0) > limit or name in unseen}
    named = [f"{name} (in all training rows)" if name in unseen else name for name in above]
    return check_rules.MISSING.result(
        inputs.key(TRAINING_DATASET),
        passed=not above,
        metadata={
            "limit": limit,
            "above_limit": dg.MetadataValue.json(above),
            "share_by_feature": dg.MetadataValue.json({name: round(share, 4) for name, share in shares.items() if share}),
            "share_of_training_rows": dg.MetadataValue.json(
                {name: round(share, 4) for name, share in in_training.items() if share}
            ),
        },
        description=f"missing too often: {', '.join(named)}" if named else None,
    )


def _constant(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str, numeric: Mapping[str, bool]
) -> dg.AssetCheckResult:
    def share(name: str, number: bool) -> str:
        # Of the most frequent value; a column without any value counts as constant.
        frequencies = f"histogram(CAST({name} AS VARCHAR)) FILTER ({is_present(name, numeric=number)})"
        return f"coalesce(list_max(map_values({frequencies})) / {_count(name, number)}, 1)"

    shares = _per_column(connection, _training_rows(rows), numeric, share)
    constant = {name: share for name, share in shares.items() if share >= _NEARLY_CONSTANT}
    return check_rules.CONSTANT.result(
        inputs.key(TRAINING_DATASET),
        passed=not constant,
        metadata={"limit": _NEARLY_CONSTANT, "share_of_most_frequent_value": dg.MetadataValue.json(constant)},
        description=f"constant or nearly constant: {', '.join(constant)}" if constant else None,
    )


def _label_rate(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str) -> dg.AssetCheckResult:
    label = quote(inputs.solution.spine.label)
    means = dict(connection.execute(f"SELECT {SPLIT}, avg({finite_number(label)}) FROM {rows} GROUP BY 1 ORDER BY 1").fetchall())
    distinct = connection.execute(f"SELECT count(DISTINCT {label}) FROM {rows} WHERE {SPLIT} = 'train'").fetchall()[0][0]
    bounds = inputs.solution.checks.label_rate
    inside = bounds is None or all(mean is not None and bounds[0] <= mean <= bounds[1] for mean in means.values())
    return check_rules.LABEL_RATE.result(
        inputs.key(TRAINING_DATASET),
        passed=distinct > 1 and inside,
        metadata={
            "mean_by_split": dg.MetadataValue.json(means),
            "distinct_labels": distinct,
            "least_distinct_labels": 2,
            "bounds": dg.MetadataValue.json(bounds or []),
        },
        description=(None if inside else f"the mean of the label by split is {means}, outside {bounds}")
        if distinct > 1
        else "the training rows hold a single label",
    )


def _leakage(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str, training_date: date, numeric: Mapping[str, bool]
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
    target = finite_number(quote(solution.spine.label))
    correlations = _per_column(
        connection,
        rows,
        {name: True for name in numeric if numeric[name]},
        # Not a number where one of the two is constant.
        lambda name, _: number(f"abs(corr({finite_number(name)}, {target}))"),
    )
    ratios = explained_labels(
        connection,
        rows=_training_rows(rows),
        key=solution.spine.key,
        label=solution.spine.label,
        features=numeric,
        regression=solution.problem == "regression",
    )
    limit = solution.checks.maximum_label_correlation
    strengths = {name: max(correlations.get(name) or 0.0, ratio) for name, ratio in ratios.items()}
    telling = {name: round(value, 4) for name, value in strengths.items() if value > limit}
    return check_rules.LEAKAGE.result(
        inputs.key(TRAINING_DATASET),
        passed=not found and not telling,
        metadata={
            "limit": limit,
            "rows_with_knowledge_of_the_future": dg.MetadataValue.json(found),
            "features_that_give_the_label_away": dg.MetadataValue.json(telling),
            "strongest_correlations": dg.MetadataValue.json(_strongest(correlations)),
            "strongest_correlation_ratios": dg.MetadataValue.json(_strongest(ratios)),
        },
        description="; ".join([*found, *(f"{name} gives the label away" for name in telling)]) or None,
    )


def _strongest(measures: Mapping[str, float | None]) -> dict[str, float]:
    ranked = sorted(((value or 0.0, name) for name, value in measures.items()), reverse=True)
    return {name: round(value, 4) for value, name in ranked[:_EXAMPLES]}


def _training_rows(rows: str) -> str:
    return f"(SELECT * FROM {rows} WHERE {SPLIT} = 'train')"


def _count(name: str, numeric: bool) -> str:
    """SQL for the number of rows that have a value."""
    return f"count(*) FILTER ({is_present(name, numeric=numeric)})"


def _per_column(
    connection: duckdb.DuckDBPyConnection, rows: str, columns: Mapping[str, bool], expression: Callable[[str, bool], str]
) -> dict[str, float]:
    """The SQL that `expression` makes of the quoted name and of whether it is numeric, for each of `columns`, in one pass."""
    if not columns:
        return {}
    selected = ", ".join(expression(quote(column), numeric) for column, numeric in columns.items())
    return dict(zip(columns, connection.execute(f"SELECT {selected} FROM {rows}").fetchall()[0], strict=True))
