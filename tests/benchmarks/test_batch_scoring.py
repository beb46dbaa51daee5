"""Batch scoring from lake to lake: beside `predict_proba` alone, and in how much memory with 10 times the rows.

On the real feature views of 2013.
"""

import multiprocessing
import re
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from bundles import fit_bundle, load
from feast_environment import show
from figures import compare, record
from test_training_frame import FIRST, FLIGHTS, Year, replicate, year  # noqa: F401

from mlops_assets.core.settings import Settings
from mlops_assets.engine.engine import ProcessEngine
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.tables import current_snapshot
from mlops_assets.ml.matrix import FeatureSchema, to_frame
from mlops_assets.ml.pipeline import predict
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.predictions.predictions import PART_VALUES, ScoringConfig, scored_rows
from mlops_assets.predictions.scored_parts import StoredChampions
from mlops_assets.schema.column_names import PREDICTION_ID
from mlops_assets.serving.segments import Champions
from mlops_assets.stages.inputs import SolutionInputs

END = date(2014, 1, 1)
TABLE = "flight_delay.predictions"
TRAINED_ROWS = 100_000
ROUNDS = 3
# The point-in-time join alone takes as long as `predict_proba`: with it, 0.5 is about the most there can be.
RATIO_LEAST = 0.6
TIMES = 10
MEMORY_GOAL_GB = 4


@pytest.fixture(scope="module")
def fitted(year: Year) -> Any:  # noqa: F811
    """A model of the flights with the parameters of the solution's, and all rows with their features."""
    inputs = year.inputs
    with year.lake.connect(read_only=True) as connection:
        query = inputs.frame_query(first=FIRST, end=END, condition="true", labelled=True, snapshot=current_snapshot(connection))
        rows = connection.execute(query).to_arrow_table()
    schema = FeatureSchema.from_arrow(rows.schema, list(inputs.features))
    known = rows.filter(pa.compute.is_valid(rows.column("is_late"))).slice(0, TRAINED_ROWS)
    made = fit_bundle(
        known,
        known.column("is_late").to_numpy().astype("int64"),
        schema=schema,
        problem="binary_classification",
        estimator=PipelineStep(inputs.solution.training.estimator.type, inputs.solution.training.estimator.parameters),
        requests=[{"id": str(number)} for number in range(5)],
        name=inputs.name,
    )
    made.write(year.folder / "bundle")
    return made, to_frame(rows, schema)


def score(lake: Lake, inputs: SolutionInputs, bundle: Path, table: str) -> tuple[int, float, float]:
    """Score the year from lake to lake: rows, seconds, and peak memory in GB of the process that calls it."""
    champions = Champions(load(bundle), [])
    with lake.connect(read_only=False) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {table}")
        began = time.perf_counter()
        window = PartitionRange(inputs.solution.partitions.column, FIRST, END)
        settings = Settings(home=bundle.parent)
        stored = StoredChampions(settings, inputs.name, ())
        scored = scored_rows(
            connection, inputs, champions, stored, {}, window=window, config=ScoringConfig(), part_values=PART_VALUES
        )
        written = lake.add_generation(
            connection,
            table=table,
            query=scored.computed(ProcessEngine(), lake, connection, settings),
            key=(inputs.solution.spine.key, window.column),
            identifier=PREDICTION_ID,
            partition_range=window,
            author="benchmark",
            supersede=False,
        )
        seconds = time.perf_counter() - began
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return written.rows, seconds, int(found[1]) / 1e6


def join(year: Year) -> float:  # noqa: F811
    """Seconds that the rows with their features take, read in batches and thrown away."""
    with year.lake.connect(read_only=True) as connection:
        snapshot = current_snapshot(connection)
        frame = year.inputs.frame(first=FIRST, end=END, condition="true", labelled=False, snapshot=snapshot)
        began = time.perf_counter()
        rows = sum(
            batch.num_rows for part in frame.built(connection) for batch in connection.execute(part).to_arrow_reader(20_000)
        )
        assert rows == FLIGHTS
        return time.perf_counter() - began


def test_lake_to_lake_beside_predict_proba_alone(year: Year, fitted: Any) -> None:  # noqa: F811
    made, frame = fitted
    ours, alone, joins = [], [], []
    for _ in range(ROUNDS):
        rows, seconds, _ = score(year.lake, year.inputs, year.folder / "bundle", TABLE)
        assert rows == FLIGHTS
        ours.append(seconds)
        began = time.perf_counter()
        predict(made.pipeline, frame, "binary_classification")
        alone.append(time.perf_counter() - began)
        joins.append(join(year))
    show(f"the point-in-time join alone: {min(joins):.2f} s of {min(ours):.2f} s, predict_proba {min(alone):.2f} s")
    assert compare(
        f"batch scoring from lake to lake, {FLIGHTS:,} flights, {len(year.inputs.features)} features",
        ours=FLIGHTS / min(ours),
        beside="`predict_proba` alone, rows in memory",
        theirs=FLIGHTS / min(alone),
        unit="rows/s",
        at_least=RATIO_LEAST,
    )


def test_memory_is_bounded(year: Year, fitted: Any) -> None:  # noqa: F811
    with year.lake.connect(read_only=False) as connection:
        frame = replicate(year, connection, TIMES)
    spine = replace(year.inputs.spine, table=f"times_{TIMES}.spine")
    larger = replace(year.inputs, spine=spine, views=frame.views)
    measured = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for times, inputs in ((1, year.inputs), (TIMES, larger)):
            rows, seconds, gigabytes = pool.apply(
                score, (year.lake, inputs, year.folder / "bundle", f"flight_delay.times_{times}")
            )
            assert rows == FLIGHTS * times
            measured[times] = gigabytes
            show(f"batch of {rows:>9,} flights: {seconds:.1f} s, {rows / seconds:,.0f} rows/s, peak memory {gigabytes:.2f} GB")
    name = f"peak memory of scoring {FLIGHTS * TIMES:,} flights"
    assert record(name, ours=measured[TIMES], unit="GB", at_most=MEMORY_GOAL_GB)
