"""Measures of a training dataset, which its checks evaluate: all of one scan in the lake."""

from collections.abc import Hashable, Iterable, Mapping
from datetime import date
from typing import Any

import duckdb

from mlops_assets.core.missing_values import finite_value, is_present, numeric_value
from mlops_assets.lake.sql import literal, quote, sql_moment
from mlops_assets.lake.tables import column_types
from mlops_assets.lake.validation import Validation, build_schema
from mlops_assets.schema.column_names import SPLIT, internal
from mlops_assets.schema.duration import subtract_duration
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.dataset_schema import dataset_columns
from mlops_assets.training.leakage import MAXIMUM_ROWS

_NUMBERS = ("INTEGER", "BIGINT", "DOUBLE", "FLOAT", "SMALLINT", "TINYINT", "HUGEINT", "BOOLEAN", "DECIMAL", "UBIGINT", "UINTEGER")

_SCANNED = "temp.main.scanned_dataset"
"""One row: every measure, and in `_SAMPLE` the training rows that the label is compared with."""

_SAMPLE = internal("sample")


class DatasetScan:
    """The measures of the dataset `rows` (a query in parentheses) that was built for `training_date`.

    `numeric` states for each feature that is there whether it is a number; `sample` are training rows chosen by the hash of their key.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, *, rows: str, training_date: date):
        self._connection, self._inputs, self._rows, self._training_date = connection, inputs, rows, training_date
        types = column_types(connection, rows)
        spine = inputs.solution.spine
        self.key, self._label = quote(spine.key), quote(spine.label)
        self.numeric = {name: types[name].startswith(_NUMBERS) for name in inputs.features if name in types}
        columns = dataset_columns(inputs)
        self.columns = len(columns)
        self.validation = Validation(build_schema(columns, key=[spine.key]), types)
        self.sample = f"(SELECT unnest({_SAMPLE}, max_depth := 2) FROM {_SCANNED})"
        self.measured: Mapping[Hashable, Any] = self._measure()

    def _measure(self) -> dict[Hashable, Any]:
        measures = {**self.validation.measures, **self._measures()}
        names = {measure: internal(f"measure_{number}") for number, measure in enumerate(measures)}
        selected = ", ".join(f"{sql} AS {names[measure]}" for measure, sql in measures.items())
        spine = self._inputs.solution.spine
        sampled = dict.fromkeys((spine.key, spine.label, *self.numeric))
        fields = ", ".join(f"{literal(name)}: {quote(name)}" for name in sampled)
        # The hash of the key chooses always the same rows.
        sample = f"arg_min({{{fields}}}, hash({self.key}), {MAXIMUM_ROWS}) FILTER (WHERE {SPLIT} = 'train')"
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE scanned_dataset AS SELECT {selected}, {sample} AS {_SAMPLE} "
            f"FROM {self.validation.relation(self._rows)}"
        )
        values = self._connection.execute(f"SELECT {', '.join(names.values())} FROM {_SCANNED}").fetchall()[0]
        return dict(zip(names, values, strict=True))

    def _measures(self) -> dict[Hashable, str]:
        in_training, in_window = f"{SPLIT} = 'train'", f"{SPLIT} <> 'earlier'"
        measures: dict[Hashable, str] = {
            "rows": "count(*)",
            # Rows without a key have one key in common.
            "keys": f"count(DISTINCT {self.key}) + CAST(count(*) > count({self.key}) AS INTEGER)",
            "labels": f"count(DISTINCT {self._label}) FILTER (WHERE {in_training})",
        }
        for split in ("earlier", "train", "holdout"):
            measures["rows", split] = f"count(*) FILTER (WHERE {SPLIT} = '{split}')"
            measures["label", split] = f"avg({finite_value(self._label)}) FILTER (WHERE {SPLIT} = '{split}')"
        for name, numeric in self.numeric.items():
            column = quote(name)
            present = is_present(column, numeric=numeric)
            measures["present", name] = f"count(*) FILTER (WHERE {present} AND {in_window})"
            measures["present in training", name] = f"count(*) FILTER (WHERE {present} AND {in_training})"
            if numeric:
                # Not a number where one of the two is constant.
                measures["correlation", name] = numeric_value(f"abs(corr({finite_value(column)}, {finite_value(self._label)}))")
        measures |= {("future", name): f"count(*) FILTER (WHERE {condition})" for name, condition in self.future().items()}
        predicted = quote(self._inputs.solution.spine.prediction_time)
        for chosen in self._inputs.views:
            if chosen.known_since is None:
                continue
            view, known, limit = chosen.view.name, quote(chosen.known_since), chosen.view.freshness_days
            measures["without_history", view] = f"count(*) FILTER (WHERE {known} IS NULL)"
            measures["stale", view] = f"count(*) FILTER (WHERE {predicted} - {known} > INTERVAL {limit} DAY)" if limit else "0"
            measures["median_hours", view] = f"median(epoch({predicted} - {known})) / 3600"
        return measures

    def future(self) -> dict[str, str]:
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

    def most_frequent(self, rows: str, names: Iterable[str]) -> dict[str, float]:
        """The share of the most frequent value among the values of each column; of a column without any it is 1."""
        selected = {}
        for name in names:
            column = quote(name)
            present = is_present(column, numeric=self.numeric[name])
            frequencies = f"histogram(CAST({column} AS VARCHAR)) FILTER (WHERE {present})"
            selected[name] = f"coalesce(list_max(map_values({frequencies})) / count(*) FILTER (WHERE {present}), 1)"
        if not selected:
            return {}
        values = self._connection.execute(f"SELECT {', '.join(selected.values())} FROM {rows}").fetchall()[0]
        return dict(zip(selected, values, strict=True))
