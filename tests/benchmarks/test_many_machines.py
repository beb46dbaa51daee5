"""Parts on Ray: what a part and a task cost, and a model of the time that many rows take many workers.

The table of docs/many-machines.md is written by this benchmark. Real feature views of 2013, one raylet of one processor.
"""

import math
import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from figures import compare, record
from ray_cluster import GB, running_ray_cluster
from test_batch_scoring import END, fitted  # noqa: F401
from test_training_frame import FIRST, FLIGHTS, Year, year  # noqa: F401

from mlops_assets.clients.bundle_record import folder_files, tree_hash
from mlops_assets.core.settings import Settings
from mlops_assets.engine.engine import Engine, ProcessEngine
from mlops_assets.engine.ray_engine import ray_engine
from mlops_assets.lake.part_files import PartFiles, part_target, write_part
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.predictions.predictions import PART_VALUES, ScoringConfig, scored_rows
from mlops_assets.predictions.scored_parts import BundleReference, StoredChampions
from mlops_assets.schema.column_names import PREDICTION_ID
from mlops_assets.serving.bundle_loading import load_bundle
from mlops_assets.serving.bundle_store import StoredBundle, open_bundle_store
from mlops_assets.serving.segments import Champions

PAGE = Path(__file__).parents[2] / "docs" / "many-machines.md"
BEGIN, FINISH = "<!-- the model, written by tests/benchmarks/test_many_machines.py -->\n", "<!-- end of the model -->\n"
TASKS, FILES, FEW, MANY = 300, 200, 4, 40
ROWS, WORKERS = (10**8, 10**9, 10**10), (4, 64, 512)
COST_GOAL = 1.5
MEMORY = 3 * GB


@dataclass(frozen=True)
class Costs:
    """Seconds: of the first task of a worker, of a task beside its part, of a part beside its rows, of a row, of a file in the commit.

    `part_bytes` is what the process of the run keeps of a part.
    """

    first: float
    task: float
    part: float
    row: float
    file: float
    part_bytes: float


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_ray_cluster(workers=1, memory=MEMORY) as cluster, ray_engine(cluster.address, memory=MEMORY) as engine:
        yield engine


def settings_of(year: Year) -> Settings:  # noqa: F811
    return Settings(home=year.folder / "home", task_memory_gb=MEMORY // GB)


def champions_of(year: Year) -> tuple[Champions, StoredChampions]:  # noqa: F811
    """The bundle of the fixture, put where workers look for it."""
    settings, folder = settings_of(year), year.folder / "bundle"
    files = folder_files(folder)
    reference = BundleReference(1, tree_hash(files), files)
    open_bundle_store(settings).of(year.inputs.name).put(StoredBundle(1, reference.sha256), folder)
    return Champions(load_bundle(folder, files, threads=1), []), StoredChampions(settings, year.inputs.name, (reference,))


def score(year: Year, engine: Engine, parts: int) -> tuple[float, float, Any]:  # noqa: F811
    """Seconds of computing the predictions of all flights in about so many parts, seconds of the write, and the rows."""
    champions, stored = champions_of(year)
    window = PartitionRange(year.inputs.solution.partitions.column, FIRST, END)
    values = FLIGHTS * sum(len(chosen.features) for chosen in year.inputs.views) // parts
    with year.lake.connect(read_only=False) as connection:
        connection.execute("DROP TABLE IF EXISTS flight_delay.predictions")
        scored = scored_rows(
            connection, year.inputs, champions, stored, {}, window=window, config=ScoringConfig(), part_values=values
        )
        began = time.perf_counter()
        rows = scored.computed(engine, year.lake, connection, settings_of(year))
        computed = time.perf_counter()
        written = year.lake.add_generation(
            connection,
            table=scored.table,
            query=rows,
            key=(year.inputs.solution.spine.key, window.column),
            identifier=PREDICTION_ID,
            partition_range=window,
            author="benchmark",
            supersede=False,
        )
        assert written.rows == FLIGHTS
        return computed - began, time.perf_counter() - computed, rows


def commit_seconds(year: Year) -> float:  # noqa: F811
    """Seconds by which a file more makes a commit longer."""
    seconds, days = [], PartitionRange("day", date(2020, 1, 1), date(2020, 1, 2))
    with year.lake.connect(read_only=False) as connection:
        for files in (1, FILES):
            table = f"benchmark.files_{files}"
            target = part_target(
                connection, table=table, data_path=year.lake.data_path, partition_range=days, uncounted=None, counted="true"
            )
            columns = ", ".join(f"range * {number} AS c{number}" for number in range(40))
            query = f"SELECT DATE '2020-01-01' AS day, {columns} FROM range(100)"
            written = PartFiles(target, [write_part(connection, target, query) for _ in range(files)])
            began = time.perf_counter()
            year.lake.replace(connection, table=table, query=written, partition_range=days, author="benchmark")
            seconds.append(time.perf_counter() - began)
    return (seconds[1] - seconds[0]) / (FILES - 1)


def test_costs_and_the_model(year: Year, fitted: Any, engine: Engine) -> None:  # noqa: F811
    began = time.perf_counter()
    list(engine.map(abs, [1], in_flight=1))
    first = time.perf_counter() - began
    began = time.perf_counter()
    assert len(list(engine.map(abs, range(TASKS), in_flight=2))) == TASKS
    task = (time.perf_counter() - began) / TASKS
    record("a task of Ray that does nothing", ours=task * 1000, unit="ms")

    score(year, engine, FEW)  # the worker loads its libraries and the bundle
    few, _, _ = score(year, engine, FEW)
    many, _, files = score(year, engine, MANY)
    part = max(0.0, (many - few) / (len(files.files) - FEW))
    row = (few - FEW * part) / FLIGHTS
    record(f"a part of a batch prediction beside its rows, {len(files.files)} parts", ours=part * 1000, unit="ms")
    computed, written, _ = score(year, ProcessEngine(), FEW)
    file = commit_seconds(year)
    record(f"a file more in a commit of {FILES}", ours=file * 1000, unit="ms")
    costs = Costs(first, task, part, row, file, len(pickle.dumps(files.files)) / len(files.files))
    is_near = compare(
        f"batch scoring of {FLIGHTS:,} flights by one worker of Ray, {FEW} parts, one thread",
        ours=few,
        beside="this process with all its threads",
        theirs=computed + written,
        unit="s",
        at_most=COST_GOAL,
    )
    features = sum(len(chosen.features) for chosen in year.inputs.views)
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{page_of(costs, PART_VALUES // features)}{FINISH}{rest.partition(FINISH)[2]}")
    assert is_near


def page_of(costs: Costs, part_rows: int) -> str:
    """What was measured, and the table of rows and workers."""
    lines = [
        "| measured | |",
        "|---|---|",
        f"| first task of a worker | {costs.first:.1f} s |",
        f"| a task, its part aside | {costs.task * 1000:.1f} ms |",
        f"| a part, its rows aside: connection, model, file | {costs.part * 1000:.0f} ms |",
        f"| a million rows, joined, scored, written and fingerprinted by one worker | {costs.row * 1e6:.1f} s |",
        f"| a file more in the commit | {costs.file * 1000:.1f} ms |",
        f"| what the process of the run keeps of a part | {costs.part_bytes / 1000:.1f} kB |",
        "",
        f"| rows | parts of {part_rows / 1e6:.1f} million | "
        + " | ".join(f"{workers} workers" for workers in WORKERS)
        + " | of it commit |",
        "|---|---|" + "---|" * (len(WORKERS) + 1),
    ]
    for rows in ROWS:
        parts = math.ceil(rows / part_rows)
        commit = parts * costs.file
        cells = [
            duration(
                costs.first + max(math.ceil(parts / workers) * (part_rows * costs.row + costs.part), parts * costs.task) + commit
            )
            for workers in WORKERS
        ]
        lines.append(f"| 10^{round(math.log10(rows))} | {parts:,} | {' | '.join(cells)} | {duration(commit)} |")
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
