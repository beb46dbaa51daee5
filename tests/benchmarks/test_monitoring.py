"""What a window costs: distances beside plain SQL that computes two of them, and NannyML's parts beside bare calls. Ratios of one run.

Seconds are those of the processors, all threads together: on a busy machine the clock on the wall measures the others.

The rows are those of the US census: 16 features, 42 windows of 5,000 rows, shuffled within the years.
"""

import os
import time
import warnings
from collections.abc import Callable

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from census import CATEGORICAL, NUMERIC, SCHEMA, census
from figures import compare

from mlops_assets.ml.matrix import to_frame
from mlops_assets.ml.nannyml_adapter import import_nannyml
from mlops_assets.ml.performance_estimation import PredictionChunk, estimate_metrics, estimated_metrics
from mlops_assets.ml.reconstruction import reconstruction_rows
from mlops_assets.ml.reference import MonitoredColumn, summarise
from mlops_assets.training.drift_distances import measure_distances

ROUNDS = 5
WINDOW_ROWS, WINDOWS = 5000, 42
UNIVARIATE_GOAL, NANNYML_GOAL = 2.0, 1.2
# Threads that wait for each other on a busy machine measure the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def reference() -> pa.Table:
    return census("reference", 20_000)


@pytest.fixture(scope="module")
def windows() -> pa.Table:
    table = census("analysis", WINDOW_ROWS * WINDOWS)
    return table.append_column("w", pa.array(np.arange(table.num_rows) // WINDOW_ROWS))


def best(*tasks: Callable[[], object]) -> list[float]:
    """The best processor seconds of each task; one round of each in turn."""
    seconds: list[list[float]] = [[] for _ in tasks]
    for _ in range(ROUNDS):
        for position, task in enumerate(tasks):
            began = time.process_time()
            task()
            seconds[position].append(time.process_time() - began)
    return [min(each) for each in seconds]


def test_distances_beside_plain_sql(reference: pa.Table, windows: pa.Table) -> None:
    """The floor computes the Jensen-Shannon distance and the population stability index alone, of prepared bins; ours all four distances."""
    monitored = [
        *(MonitoredColumn(name, "feature", True) for name in NUMERIC),
        *(MonitoredColumn(name, "feature", False) for name in CATEGORICAL),
    ]
    summary = summarise(reference, monitored, ())
    connection = duckdb.connect()
    connection.register("arrow_rows", windows)
    connection.execute("CREATE TABLE rows AS FROM arrow_rows")
    connection.register("known", summary.masses.filter(pa.compute.field("binning").isin(["equal_width", "category"])))
    age = summary.columns.filter(pa.compute.field("feature") == "AGEP").to_pylist()[0]
    width = (age["high"] - age["low"]) / age["bins"]
    plain = f"""
        WITH long AS (UNPIVOT (SELECT w, CAST(least({age["bins"]} - 1, floor((AGEP - {age["low"]}) / {width})) AS INTEGER)::VARCHAR AS AGEP,
                {", ".join(CATEGORICAL)} FROM rows) ON AGEP, {", ".join(CATEGORICAL)} INTO NAME feature VALUE bin),
        counts AS (SELECT w, feature, bin, count(*) AS q FROM long GROUP BY ALL),
        both_sides AS (SELECT w, feature, bin, sum(q) AS q, sum(p) AS p FROM (
            SELECT *, 0 AS p FROM counts UNION ALL
            SELECT w, feature, bin, 0, k.rows FROM (SELECT DISTINCT w, feature FROM counts) JOIN known k USING (feature)) GROUP BY ALL),
        shares AS (SELECT w, feature, q / sum(q) OVER f AS q, p / sum(p) OVER f AS p FROM both_sides WINDOW f AS (PARTITION BY w, feature))
        SELECT w, feature, sqrt(greatest(0, sum(
                CASE WHEN p > 0 THEN p * log2(2 * p / (p + q)) ELSE 0 END + CASE WHEN q > 0 THEN q * log2(2 * q / (p + q)) ELSE 0 END) / 2)),
            sum((q - p) * ln((q + 1e-4) / (p + 1e-4)))
        FROM shares GROUP BY ALL ORDER BY ALL"""

    def ours() -> object:
        return measure_distances(connection, rows="rows", window="w", slices=(), reference=summary)

    def floor() -> object:
        return connection.execute(plain).fetchall()

    measured = {
        (each.window, each.feature): each.value
        for each in measure_distances(connection, rows="rows", window="w", slices=(), reference=summary)
        if each.method == "jensen_shannon"
    }
    for window, feature, distance, _ in connection.execute(plain).fetchall():
        # Ages lie on edges of bins, which the plain estimate of the bin misses.
        if feature in CATEGORICAL:
            assert measured[str(window), feature] == pytest.approx(distance, abs=1e-9)
    ours_seconds, floor_seconds = best(ours, floor)
    assert compare(
        f"four distances of {len(monitored)} features in {WINDOWS} windows of {WINDOW_ROWS:,} rows, processor time",
        ours=ours_seconds,
        beside="plain SQL for two of them",
        theirs=floor_seconds,
        unit="s",
        at_most=UNIVARIATE_GOAL,
    )


@pytest.mark.parametrize("part", ["CBPE", "DLE", "reconstruction"])
def test_a_window_beside_bare_nannyml_calls(part: str, reference: pa.Table, windows: pa.Table) -> None:
    """One window: fit on the reference, then estimate or calculate, as ours does in every run."""
    package = import_nannyml()
    window = windows.slice(0, WINDOW_ROWS)
    chunk = [PredictionChunk(("w", ""), window)]
    if part == "CBPE":
        metrics = estimated_metrics("binary_classification", "roc_auc")

        def ours() -> object:
            return estimate_metrics(
                "binary_classification",
                reference=reference,
                label="employed",
                chunks=chunk,
                schema=SCHEMA,
                classes=(0, 1),
                metrics=metrics,
            )

        def bare() -> object:
            estimator = package.CBPE(
                metrics=list(metrics),
                y_pred_proba="score",
                y_pred="predicted_label",
                y_true="employed",
                problem_type="classification_binary",
                chunk_size=WINDOW_ROWS,
            )
            outputs = ["score", "predicted_label"]
            return estimator.fit(reference.select([*outputs, "employed"]).to_pandas()).estimate(
                window.select(outputs).to_pandas()
            )

    elif part == "DLE":
        random = np.random.default_rng(0)
        values = {
            "value": reference["AGEP"],
            "label": pa.array(reference["AGEP"].to_numpy() + random.normal(size=reference.num_rows)),
        }
        known, asked = reference, window.append_column("value", window["AGEP"])
        for name, column in values.items():
            known = known.append_column(name, column)
        chunk = [PredictionChunk(("w", ""), asked)]

        def ours() -> object:
            return estimate_metrics(
                "regression",
                reference=known,
                label="label",
                chunks=chunk,
                schema=SCHEMA,
                classes=(),
                metrics=("mean_absolute_error",),
            )

        def bare() -> object:
            estimator = package.DLE(
                feature_column_names=list(SCHEMA.names),
                y_pred="value",
                y_true="label",
                metrics=["mae"],
                chunk_size=WINDOW_ROWS,
                hyperparameters={"verbosity": -1, "n_jobs": 1},
            )
            frame = to_frame(known, SCHEMA).assign(value=known["value"].to_numpy(), label=known["label"].to_numpy())
            return estimator.fit(frame).estimate(to_frame(asked, SCHEMA).assign(value=asked["value"].to_numpy()))

    else:

        def ours() -> object:
            return reconstruction_rows(reference, [("w", window)], SCHEMA, false_alarms=0.001)

        def bare() -> object:
            calculator = package.DataReconstructionDriftCalculator(column_names=list(SCHEMA.names), chunk_size=WINDOW_ROWS)
            return calculator.fit(to_frame(reference, SCHEMA)).calculate(to_frame(window, SCHEMA))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours_seconds, bare_seconds = best(ours, bare)
    assert compare(
        f"{part} of one window, processor time",
        ours=ours_seconds,
        beside="bare NannyML",
        theirs=bare_seconds,
        unit="s",
        at_most=NANNYML_GOAL,
    )
