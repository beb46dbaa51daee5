"""The main job as a plain script: DuckDB in memory, scikit-learn, ONNX Runtime, NannyML. No Dagster, MLflow, dbt or lake.

It reads the same files, runs the same SQL and fits the same models as the platform, and records nothing.
Usage: python plain_script.py plan.json result.json. The plan is written by `test_demo_ratio.py`.
"""

import json
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import duckdb

BATCH_THREADS = 2


class Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.steps[name] = now - self._last
        self._last = now


def main(plan: dict[str, Any]) -> dict[str, Any]:
    clock = Clock()
    connection = duckdb.connect()
    connection.execute(f"SET threads = {BATCH_THREADS}")
    connection.execute("SET TimeZone = 'UTC'")
    # The compiled SQL calls the database `lake`.
    connection.execute("ATTACH ':memory:' AS lake")
    for schema in ("raw", *dict.fromkeys(relation.split(".")[-2] for relation, _ in plan["models"])):
        connection.execute(f"CREATE SCHEMA lake.{schema}")
    load_raw(connection, Path(plan["data"]), plan["first"], plan["end"])
    clock.lap("read the files")
    for relation, query in plan["models"]:
        connection.execute(f"CREATE TABLE {relation} AS {query}")
    clock.lap("features")
    dataset = connection.execute(plan["training_query"]).to_arrow_table()
    clock.lap("training dataset")

    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.drift import evaluate_distances
    from mlops_assets.ml.evaluation import evaluate
    from mlops_assets.ml.matrix import FeatureSchema, to_frame
    from mlops_assets.ml.onnx import onnx_predict, to_onnx
    from mlops_assets.ml.pipeline import build_pipeline, fit_pipeline
    from mlops_assets.ml.pipeline_steps import PipelineStep
    from mlops_assets.ml.reconstruction import reconstruction_rows
    from mlops_assets.ml.reference import MonitoredColumn, summarise
    from mlops_assets.schema.metric_names import metric_names
    from mlops_assets.schema.problem import label_array
    from mlops_assets.training.drift_distances import measure_distances

    problem, label = plan["problem"], plan["label"]
    train, holdout = (dataset.filter(duckdb_mask(dataset, split)) for split in ("train", "holdout"))
    schema = FeatureSchema.from_arrow(dataset.schema, plan["features"])
    training_labels = label_array(train.column(label), problem)

    def fit(rows: Any) -> Any:
        pipeline = build_pipeline(
            problem=problem,
            schema=schema,
            estimator=PipelineStep(class_path=plan["estimator"]["type"], parameters=plan["estimator"]["parameters"]),
            numeric=None,
            categorical=None,
            seed=plan["seed"],
        )
        times = rows.column(plan["prediction_time"]).to_numpy()
        ages = (times.max() - times).astype("timedelta64[s]").astype(float) / 86_400
        histories = [0.5 ** (ages / half_life) if half_life else np.ones(len(ages)) for half_life in plan["half_lives"]]
        return fit_pipeline(pipeline, to_frame(rows, schema), label_array(rows.column(label), problem), histories=histories)

    # The one that is evaluated, and the one that serves, which has seen the hold-out too.
    fits = [fit(train), fit(pa.concat_tables([train, holdout]))]
    clock.lap("fits")
    gated, model = (to_onnx(pipeline, schema, problem) for pipeline in fits)
    clock.lap("ONNX exports")

    def metrics_of(model: Any, rows: Any) -> dict[str, float | None]:
        probabilities = onnx_predict(model, to_frame(rows, schema), schema, problem)
        return evaluate(
            problem=problem,
            metrics=metric_names(problem),
            labels=label_array(rows.column(label), problem),
            predictions=probabilities,
            training_labels=training_labels,
            classes=(0, 1),
            threshold=plan["threshold"],
            slices=rows.select(plan["slices"]),
            minimum_slice_rows=200,
            resampling=None,
        ).metrics

    held_out = metrics_of(gated, holdout)
    clock.lap("evaluation")
    month = connection.execute(plan["scoring_query"]).to_arrow_table()
    onnx_predict(model, to_frame(month, schema), schema, problem)
    realised = metrics_of(model, month.filter(month.column(label).is_valid()))
    clock.lap("scoring and outcomes")
    monitored = [MonitoredColumn(name, "feature", name in schema.numeric) for name in schema.names]
    reference = summarise(holdout, monitored, plan["slices"])
    connection.register("month", month)
    cases = " ".join(
        f"WHEN {plan['partition_column']} >= DATE '{start}' AND {plan['partition_column']} < DATE '{end}' THEN '{start}'"
        for start, end in plan["weeks"]
    )
    weeks = connection.execute(f"SELECT *, CASE {cases} END AS week FROM month WHERE week IS NOT NULL").to_arrow_table()
    connection.register("weeks", weeks)
    distances = measure_distances(connection, rows="weeks", window="week", slices=plan["slices"], reference=reference)
    drift = evaluate_distances(distances, reference, effect_floor=0.1, false_alarms=0.05)
    tables = [(start, connection.execute(f"FROM weeks WHERE week = '{start}'").to_arrow_table()) for start, _ in plan["weeks"]]
    drift += reconstruction_rows(holdout, tables, schema, false_alarms=0.05)
    clock.lap("drift")
    return {
        "steps": clock.steps,
        "rows": {"train": train.num_rows, "holdout": holdout.num_rows, "predicted": month.num_rows},
        "holdout_roc_auc": held_out["roc_auc"],
        "realised_roc_auc": realised["roc_auc"],
        "alerts": sum(row.alert for row in drift),
    }


def duckdb_mask(table: Any, split: str) -> Any:
    import pyarrow.compute as pc

    return pc.equal(table.column("split"), split)


def load_raw(connection: duckdb.DuckDBPyConnection, data: Path, first: str, end: str) -> None:
    """The raw tables with the columns that the compiled SQL expects; flights and weather from `first` to before `end`."""
    audit = "TIMESTAMPTZ '2014-01-01 00:00:00+00' AS _loaded_at, 'files' AS _source"
    scratch = Path(sys.argv[2]).parent
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        archive.extract("flights.csv", scratch)
    sources = {name: data / f"{name}.csv" for name in ("weather", "planes", "airports", "airlines")}
    sources["flights"] = scratch / "flights.csv"
    dates = {"flights": "flight_date", "weather": "weather_date"}
    for name, path in sources.items():
        reader = f"read_csv('{path}', nullstr = ['NA', '\\N'], sample_size = -1)"
        integers = [row[0] for row in connection.execute(f"DESCRIBE FROM {reader}").fetchall() if row[1] == "BIGINT"]
        replaced = f"REPLACE ({', '.join(f'{column}::INTEGER AS {column}' for column in integers)})" if integers else ""
        extra = f", make_date(year::INTEGER, month::INTEGER, day::INTEGER) AS {dates[name]}" if name in dates else ""
        where = f"WHERE {dates[name]} >= DATE '{first}' AND {dates[name]} < DATE '{end}'" if name in dates else ""
        connection.execute(f"CREATE TABLE lake.raw.{name} AS SELECT * {replaced} {extra}, {audit} FROM {reader} {where}")


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
