"""The seven checks of a training dataset on 330,000 rows and 28 features: seconds, and the memory of a process that does nothing else."""

import resource
import time
from dataclasses import replace
from datetime import date

import duckdb
import pytest
from clinic import lake_in_memory, solution_inputs
from figures import record
from scans import scans_of

from mlops_assets.schema.gates_section import DatasetChecks
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.dataset_checks import check_dataset

ROWS = 330_000
NUMBERS = [f"number_{each}" for each in range(22)]
TEXTS = {"few": 5, "sixteen": 16, "hundred": 100, "five_hundred": 500, "thousands": 4000, "dozen": 12}


def make_dataset(connection: duckdb.DuckDBPyConnection) -> SolutionInputs:
    """A lake table of numbers and texts, some of them missing, and the solution whose dataset it is."""
    numbers = (
        f"CASE WHEN hash(i, {at}) % 50 <> 0 THEN hash(i, {at}) % 100000 / 7 END AS {name}" for at, name in enumerate(NUMBERS)
    )
    texts = (f"'v' || hash(i, '{name}') % {values} AS {name}" for name, values in TEXTS.items())
    connection.execute(
        "CREATE TABLE lake.clinic.dataset AS SELECT DATE '2020-01-09' AS training_date, DATE '2020-01-01' AS day, 'k' || i AS id, "
        f"CASE WHEN i < {ROWS // 2} THEN 'train' ELSE 'holdout' END AS split, hash(i) % 2 AS late, "
        "TIMESTAMPTZ '2020-01-01 12:00:00+00' + INTERVAL 1 SECOND * i AS at, "
        f"TIMESTAMPTZ '2020-01-01 12:30:00+00' + INTERVAL 1 SECOND * i AS known_at, {', '.join([*numbers, *texts])} "
        f"FROM range({ROWS}) r(i)"
    )
    inputs = solution_inputs("daily")
    solution = inputs.solution.model_copy(update={"checks": DatasetChecks(minimum_rows=10)})
    return replace(inputs, solution=solution, request=(*NUMBERS, *TEXTS))


@pytest.mark.parametrize("time_of_day", ["first, with imports", "again"])
def test_seconds_of_the_dataset_checks(time_of_day: str) -> None:
    with lake_in_memory() as connection:
        inputs = make_dataset(connection)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, processor = time.perf_counter(), time.process_time()
        checked = check_dataset(connection, inputs, rows="(FROM lake.clinic.dataset)", training_date=date(2020, 1, 9))
        wall, used = time.perf_counter() - started, time.process_time() - processor
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        with scans_of(connection, "clinic.dataset") as scans:
            check_dataset(scans.connection, inputs, rows="(FROM lake.clinic.dataset)", training_date=date(2020, 1, 9))
    assert len(checked.results) == 7
    name = f"checks of a dataset of {ROWS:,} rows and {len(NUMBERS) + len(TEXTS)} features, {time_of_day}"
    for what, value, unit in (("wall", wall, "s"), ("processors", used, "s"), ("more memory at the peak", grown, "MB")):
        record(f"{name}: {what}", ours=value, unit=unit)
    assert scans.count == 1
