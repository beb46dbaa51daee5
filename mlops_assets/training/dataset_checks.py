"""Checks of a training dataset, between the feature store and the estimator: all that they measure is taken from one scan in the lake."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import dagster as dg
import duckdb

from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import MOST_EXAMPLES
from mlops_assets.core.keys import TRAINING_DATASET
from mlops_assets.lake.validation import scan
from mlops_assets.schema.column_names import SPLIT
from mlops_assets.sources.table_checks import UNPARTITIONED, DeliveredRows, check_duplicates, duplicates_result
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.dataset_scan import DatasetScan
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
    """The rows of a dataset with their measures, and the checks that evaluate them."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, rows: str, training_date: date):
        self._connection, self._inputs, self._rows = connection, inputs, rows
        self._scan = DatasetScan(connection, inputs, rows=rows, training_date=training_date)

    def check(self) -> CheckedDataset:
        """Evaluate the measures of the rows."""
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
            rows_by_split={
                split: rows for split in ("earlier", "holdout", "train") if (rows := self._scan.measured["rows", split])
            },
            coverage=[
                ViewCoverage(
                    chosen.view.name,
                    chosen.view.version,
                    *(self._scan.measured[measure, chosen.view.name] for measure in ("without_history", "stale", "median_hours")),
                )
                for chosen in self._inputs.views
                if chosen.known_since
            ],
        )

    def _schema(self) -> dg.AssetCheckResult:
        failures = [
            *self._scan.validation.wrong_columns,
            *self._scan.validation.failures(self._connection, self._rows, self._scan.measured),
        ]
        return check_rules.SCHEMA.result(
            self._inputs.key(TRAINING_DATASET),
            passed=not failures,
            metadata={
                "columns": self._scan.columns,
                "maximum_failures": 0,
                "numeric_features": sum(self._scan.numeric.values()),
                "categorical_features": len(self._scan.numeric) - sum(self._scan.numeric.values()),
                "failures": dg.MetadataValue.json([failure.as_dict() for failure in failures]),
            },
            description="; ".join(map(str, failures)) or None,
        )

    def _row_count(self) -> dg.AssetCheckResult:
        train, holdout = self._scan.measured["rows", "train"], self._scan.measured["rows", "holdout"]
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
        if self._scan.measured["rows"] == self._scan.measured["keys"]:
            return duplicates_result(key, columns=columns, keys=0, rows=0, examples=[])
        delivered = DeliveredRows(self._connection, self._rows, f"'{UNPARTITIONED}'", [UNPARTITIONED])
        return check_duplicates(delivered, key, columns=columns)[UNPARTITIONED]

    def _missing(self) -> dg.AssetCheckResult:
        limit = self._inputs.solution.checks.maximum_missing
        # Earlier rows may be from before a feature view began.
        shares = self._missing_shares("present", self._scan.measured["rows"] - self._scan.measured["rows", "earlier"])
        in_training = self._missing_shares("present in training", self._scan.measured["rows", "train"])
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
        return {name: 1 - self._scan.measured[measure, name] / rows if rows else 0.0 for name in self._scan.numeric}

    def _constant(self) -> dg.AssetCheckResult:
        few = self._scan.most_frequent(f"(FROM {self._scan.sample} LIMIT {_SUSPICIOUS_ROWS})", self._scan.numeric)
        complete = self._scan.measured["rows", "train"] <= MAXIMUM_ROWS
        rows = self._scan.sample if complete else f"(SELECT * FROM {self._rows} WHERE {SPLIT} = 'train')"
        shares = self._scan.most_frequent(rows, [name for name, share in few.items() if share >= _SUSPICIOUS])
        constant = {name: share for name, share in shares.items() if share >= _NEARLY_CONSTANT}
        return check_rules.CONSTANT.result(
            self._inputs.key(TRAINING_DATASET),
            passed=not constant,
            metadata={
                "features": len(self._scan.numeric),
                "limit": _NEARLY_CONSTANT,
                "share_of_most_frequent_value": dg.MetadataValue.json(constant),
            },
            description=f"constant or nearly constant: {', '.join(constant)}" if constant else None,
        )

    def _label_rate(self) -> dg.AssetCheckResult:
        means = {
            split: self._scan.measured["label", split] for split in ("holdout", "train") if self._scan.measured["rows", split]
        }
        bounds = self._inputs.solution.checks.label_rate
        inside = bounds is None or all(mean is not None and bounds[0] <= mean <= bounds[1] for mean in means.values())
        distinct = self._scan.measured["labels"]
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
        future = {name: count for name in self._scan.future() if (count := self._scan.measured["future", name])}
        keys = {
            name: f"arg_min({self._scan.key}, {self._scan.key}, {MOST_EXAMPLES}) FILTER (WHERE {self._scan.future()[name]})"
            for name in future
        }
        rows = (
            {name: list(map(str, examples)) for name, examples in scan(self._connection, self._rows, keys).items()}
            if keys
            else {}
        )
        correlations = {name: self._scan.measured["correlation", name] for name, numeric in self._scan.numeric.items() if numeric}
        ratios = explained_labels(
            self._connection,
            rows=self._scan.sample,
            key=solution.spine.key,
            label=solution.spine.label,
            features=self._scan.numeric,
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
