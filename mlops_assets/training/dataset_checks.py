"""Checks of a training dataset, between the feature store and the estimator: all that they measure is taken from one scan in the lake."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import MOST_EXAMPLES
from mlops_assets.core.keys import TRAINING_DATASET
from mlops_assets.core.missing_values import finite_value, is_present, numeric_value
from mlops_assets.lake.sql import literal, quote, sql_moment
from mlops_assets.lake.tables import column_types
from mlops_assets.lake.validation import Validation, build_schema, scan
from mlops_assets.schema.column_names import SPLIT, internal
from mlops_assets.schema.duration import subtract_duration
from mlops_assets.sources.table_checks import UNPARTITIONED, DeliveredRows, check_duplicates, duplicates_result
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.dataset_schema import dataset_columns
from mlops_assets.training.leakage import MAXIMUM_ROWS, explained_labels

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
_SUSPICIOUS, _SUSPICIOUS_ROWS = 0.97, 1000
"""A column that is nearly constant is above this share in so many rows, chosen by chance. Only those that are have their values counted."""

_NUMBERS = ("INTEGER", "BIGINT", "DOUBLE", "FLOAT", "SMALLINT", "TINYINT", "HUGEINT", "BOOLEAN", "DECIMAL", "UBIGINT", "UINTEGER")

_SCANNED = "temp.main.scanned_dataset"
"""One row: every measure, and in `_SAMPLE` the training rows that the label is compared with."""

_SAMPLE = internal("sample")


@dataclass(frozen=True)
class ViewCoverage:
    """Of one feature view: rows without history, rows with values older than its limit, and the median age of the values in hours."""

    view: str
    version: int
    without_history: int
    stale: int
    median_hours: float | None


@dataclass(frozen=True)
class CheckedDataset:
    """The findings of one scan of a dataset: the results of its checks, the rows of each split, and the coverage by its feature views."""

    results: list[dg.AssetCheckResult]
    rows_by_split: dict[str, int]
    coverage: list[ViewCoverage]


def check_dataset(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, *, rows: str, training_date: date
) -> CheckedDataset:
    """All checks of the dataset `rows` (a query in parentheses) that was built for `training_date`."""
    return _Dataset(connection, inputs, rows, training_date).check()


class _Dataset:
    """The rows of a dataset, what is measured of them, and the checks that evaluate it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str, training_date: date):
        self._connection, self._inputs, self._rows, self._training_date = connection, inputs, rows, training_date
        types = column_types(connection, rows)
        spine = inputs.solution.spine
        self._key, self._label = quote(spine.key), quote(spine.label)
        self._numeric = {name: types[name].startswith(_NUMBERS) for name in inputs.features if name in types}
        columns = dataset_columns(inputs)
        self._columns = len(columns)
        self._validation = Validation(build_schema(columns, key=[spine.key]), types)
        self._sample = f"(SELECT unnest({_SAMPLE}, max_depth := 2) FROM {_SCANNED})"
        self._measured: Mapping[Hashable, Any] = {}

    def check(self) -> CheckedDataset:
        """Scan the rows and evaluate them."""
        self._measured = self._scan()
        return CheckedDataset(
            results=[
                self._schema(),
                self._row_count(),
                self._duplicates(),
                self._missing(),
                self._constant(),
                self._label_rate(),
                self._leakage(),
            ],
            rows_by_split={split: rows for split in ("holdout", "train") if (rows := self._measured["rows", split])},
            coverage=[
                ViewCoverage(
                    chosen.view.name,
                    chosen.view.version,
                    *(self._measured[measure, chosen.view.name] for measure in ("without_history", "stale", "median_hours")),
                )
                for chosen in self._inputs.views
                if chosen.known_since
            ],
        )

    def _scan(self) -> dict[Hashable, Any]:
        measures = {**self._validation.measures, **self._measures()}
        names = {measure: internal(f"measure_{number}") for number, measure in enumerate(measures)}
        selected = ", ".join(f"{sql} AS {names[measure]}" for measure, sql in measures.items())
        spine = self._inputs.solution.spine
        sampled = dict.fromkeys((spine.key, spine.label, *self._numeric))
        fields = ", ".join(f"{literal(name)}: {quote(name)}" for name in sampled)
        # The hash of the key chooses always the same rows.
        sample = f"arg_min({{{fields}}}, hash({self._key}), {MAXIMUM_ROWS}) FILTER (WHERE {SPLIT} = 'train')"
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE scanned_dataset AS SELECT {selected}, {sample} AS {_SAMPLE} "
            f"FROM {self._validation.relation(self._rows)}"
        )
        values = self._connection.execute(f"SELECT {', '.join(names.values())} FROM {_SCANNED}").fetchall()[0]
        return dict(zip(names, values, strict=True))

    def _measures(self) -> dict[Hashable, str]:
        in_training = f"{SPLIT} = 'train'"
        measures: dict[Hashable, str] = {
            "rows": "count(*)",
            # Rows without a key have one key in common.
            "keys": f"count(DISTINCT {self._key}) + CAST(count(*) > count({self._key}) AS INTEGER)",
            "labels": f"count(DISTINCT {self._label}) FILTER (WHERE {in_training})",
        }
        for split in ("train", "holdout"):
            measures["rows", split] = f"count(*) FILTER (WHERE {SPLIT} = '{split}')"
            measures["label", split] = f"avg({finite_value(self._label)}) FILTER (WHERE {SPLIT} = '{split}')"
        for name, numeric in self._numeric.items():
            column = quote(name)
            present = is_present(column, numeric=numeric)
            measures["present", name] = f"count(*) FILTER (WHERE {present})"
            measures["present in training", name] = f"count(*) FILTER (WHERE {present} AND {in_training})"
            if numeric:
                # Not a number where one of the two is constant.
                measures["correlation", name] = numeric_value(f"abs(corr({finite_value(column)}, {finite_value(self._label)}))")
        measures |= {("future", name): f"count(*) FILTER (WHERE {condition})" for name, condition in self._future().items()}
        predicted = quote(self._inputs.solution.spine.prediction_time)
        for chosen in self._inputs.views:
            if chosen.known_since is None:
                continue
            view, known, limit = chosen.view.name, quote(chosen.known_since), chosen.view.freshness_days
            measures["without_history", view] = f"count(*) FILTER (WHERE {known} IS NULL)"
            measures["stale", view] = f"count(*) FILTER (WHERE {predicted} - {known} > INTERVAL {limit} DAY)" if limit else "0"
            measures["median_hours", view] = f"median(epoch({predicted} - {known})) / 3600"
        return measures

    def _future(self) -> dict[str, str]:
        """Return SQL conditions by name for knowledge that is later than a row may have."""
        solution, midnight = self._inputs.solution, self._inputs.midnight
        predicted, labelled = quote(solution.spine.prediction_time), quote(solution.spine.label_time)
        known = [(chosen.view.name, chosen.known_since) for chosen in self._inputs.views if chosen.known_since]
        if not solution.spine.has_time:
            return {f"features of {name} after prediction": f"{quote(column)} > {predicted}" for name, column in known}
        cutoff, holdout_start = self._training_date, subtract_duration(self._training_date, solution.training.holdout)
        return {
            **{f"features of {name} after prediction": f"{quote(column)} > {predicted}" for name, column in known},
            "label not later than prediction": f"{labelled} <= {predicted}",
            "label after the training date": f"{labelled} >= {sql_moment(midnight(cutoff))}",
            "training label after the hold-out began": f"{SPLIT} = 'train' AND {labelled} >= {sql_moment(midnight(holdout_start))}",
        }

    def _schema(self) -> dg.AssetCheckResult:
        failures = [*self._validation.wrong_columns, *self._validation.failures(self._connection, self._rows, self._measured)]
        return check_rules.SCHEMA.result(
            self._inputs.key(TRAINING_DATASET),
            passed=not failures,
            metadata={
                "columns": self._columns,
                "maximum_failures": 0,
                "numeric_features": sum(self._numeric.values()),
                "categorical_features": len(self._numeric) - sum(self._numeric.values()),
                "failures": dg.MetadataValue.json([failure.as_dict() for failure in failures]),
            },
            description="; ".join(map(str, failures)) or None,
        )

    def _row_count(self) -> dg.AssetCheckResult:
        train, holdout = self._measured["rows", "train"], self._measured["rows", "holdout"]
        checks, features = self._inputs.solution.checks, len(self._inputs.features)
        minimum = checks.least_rows(features)
        reason = f"ten for each of {features} features" if checks.minimum_rows is None else "as the file states"
        return check_rules.ROW_COUNT.result(
            self._inputs.key(TRAINING_DATASET),
            passed=train >= minimum and holdout > 0,
            metadata={"train": train, "holdout": holdout, "minimum_train": minimum, "minimum_holdout": 1},
            description=(f"{train} training rows, checks.minimum_rows is {minimum} ({reason})" if train < minimum else None)
            if holdout
            else f"there is no hold-out row: widen training.{'holdout' if self._inputs.solution.spine.has_time else 'holdout_share'}",
        )

    def _duplicates(self) -> dg.AssetCheckResult:
        key, columns = self._inputs.key(TRAINING_DATASET), [self._inputs.solution.spine.key]
        if self._measured["rows"] == self._measured["keys"]:
            return duplicates_result(key, columns=columns, keys=0, rows=0, examples=[])
        delivered = DeliveredRows(self._connection, self._rows, f"'{UNPARTITIONED}'", [UNPARTITIONED])
        return check_duplicates(delivered, key, columns=columns)[UNPARTITIONED]

    def _missing(self) -> dg.AssetCheckResult:
        limit = self._inputs.solution.checks.maximum_missing
        shares = self._missing_shares("present", self._measured["rows"])
        in_training = self._missing_shares("present in training", self._measured["rows", "train"])
        # What the model never sees in training it cannot have learned from, whatever the limit.
        unseen = [name for name, share in in_training.items() if share == 1 and shares[name] < 1]
        above = {name: share for name, share in shares.items() if share > limit or in_training[name] > limit or name in unseen}
        named = [f"{name} (in all training rows)" if name in unseen else name for name in above]
        return check_rules.MISSING.result(
            self._inputs.key(TRAINING_DATASET),
            passed=not above,
            metadata={
                "limit": limit,
                "above_limit": dg.MetadataValue.json(above),
                "share_by_feature": dg.MetadataValue.json(_above_zero(shares)),
                "share_of_training_rows": dg.MetadataValue.json(_above_zero(in_training)),
            },
            description=f"missing too often: {', '.join(named)}" if named else None,
        )

    def _missing_shares(self, measure: str, rows: int) -> dict[str, float]:
        return {name: 1 - self._measured[measure, name] / rows if rows else 0.0 for name in self._numeric}

    def _constant(self) -> dg.AssetCheckResult:
        few = self._most_frequent(f"(FROM {self._sample} LIMIT {_SUSPICIOUS_ROWS})", self._numeric)
        complete = self._measured["rows", "train"] <= MAXIMUM_ROWS
        rows = self._sample if complete else f"(SELECT * FROM {self._rows} WHERE {SPLIT} = 'train')"
        shares = self._most_frequent(rows, [name for name, share in few.items() if share >= _SUSPICIOUS])
        constant = {name: share for name, share in shares.items() if share >= _NEARLY_CONSTANT}
        return check_rules.CONSTANT.result(
            self._inputs.key(TRAINING_DATASET),
            passed=not constant,
            metadata={
                "features": len(self._numeric),
                "limit": _NEARLY_CONSTANT,
                "share_of_most_frequent_value": dg.MetadataValue.json(constant),
            },
            description=f"constant or nearly constant: {', '.join(constant)}" if constant else None,
        )

    def _most_frequent(self, rows: str, names: Iterable[str]) -> dict[str, float]:
        """The share of the most frequent value among the values of each column; of a column without any it is 1."""
        selected = {}
        for name in names:
            column = quote(name)
            present = is_present(column, numeric=self._numeric[name])
            frequencies = f"histogram(CAST({column} AS VARCHAR)) FILTER (WHERE {present})"
            selected[name] = f"coalesce(list_max(map_values({frequencies})) / count(*) FILTER (WHERE {present}), 1)"
        if not selected:
            return {}
        values = self._connection.execute(f"SELECT {', '.join(selected.values())} FROM {rows}").fetchall()[0]
        return dict(zip(selected, values, strict=True))

    def _label_rate(self) -> dg.AssetCheckResult:
        means = {split: self._measured["label", split] for split in ("holdout", "train") if self._measured["rows", split]}
        bounds = self._inputs.solution.checks.label_rate
        inside = bounds is None or all(mean is not None and bounds[0] <= mean <= bounds[1] for mean in means.values())
        distinct = self._measured["labels"]
        return check_rules.LABEL_RATE.result(
            self._inputs.key(TRAINING_DATASET),
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

    def _leakage(self) -> dg.AssetCheckResult:
        solution = self._inputs.solution
        future = {name: count for name in self._future() if (count := self._measured["future", name])}
        keys = {
            name: f"arg_min({self._key}, {self._key}, {MOST_EXAMPLES}) FILTER (WHERE {self._future()[name]})" for name in future
        }
        rows = (
            {name: list(map(str, examples)) for name, examples in scan(self._connection, self._rows, keys).items()}
            if keys
            else {}
        )
        correlations = {name: self._measured["correlation", name] for name, numeric in self._numeric.items() if numeric}
        ratios = explained_labels(
            self._connection,
            rows=self._sample,
            key=solution.spine.key,
            label=solution.spine.label,
            features=self._numeric,
            regression=solution.problem == "regression",
        )
        limit = solution.checks.maximum_label_correlation
        strengths = {name: max(correlations.get(name) or 0.0, ratio) for name, ratio in ratios.items()}
        telling = {name: round(value, 4) for name, value in strengths.items() if value > limit}
        return check_rules.LEAKAGE.result(
            self._inputs.key(TRAINING_DATASET),
            passed=not future and not telling,
            metadata={
                "limit": limit,
                "rows_with_knowledge_of_the_future": dg.MetadataValue.json(future),
                "keys_of_such_rows": dg.MetadataValue.json(rows),
                "features_that_give_the_label_away": dg.MetadataValue.json(telling),
                "strongest_correlations": dg.MetadataValue.json(_strongest(correlations)),
                "strongest_correlation_ratios": dg.MetadataValue.json(_strongest(ratios)),
            },
            description="; ".join([*future, *(f"{name} gives the label away" for name in telling)]) or None,
        )


def _above_zero(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: round(share, 4) for name, share in shares.items() if share}


def _strongest(measures: Mapping[str, float | None]) -> dict[str, float]:
    ranked = sorted(((value or 0.0, name) for name, value in measures.items()), reverse=True)
    return {name: round(value, 4) for value, name in ranked[:MOST_EXAMPLES]}
