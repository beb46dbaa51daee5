"""Batch scoring of tens of millions of rows in one process: time per row and memory beside those of a tenth of the rows.

On the real feature views and the model of the flights of 2013, each of which is predicted many times. `MILLIONS="10 100"` names the sizes;
100 million rows need some 40 GB of disk for temporary files.
"""

import multiprocessing
import os
from dataclasses import replace
from datetime import date
from typing import Any

from feast_environment import show
from figures import compare, record
from test_batch_scoring import fitted, score  # noqa: F401
from test_training_frame import FLIGHTS, Year, year  # noqa: F401

from mlops_assets.lake.sql import quote
from mlops_assets.stages.inputs import SolutionInputs

MILLIONS = [int(word) for word in os.environ.get("MILLIONS", "1 10").split()]
A_ROW_GOAL = 1.2
MEMORY_GOAL_GB = 4


def with_rows(year: Year, rows: int) -> SolutionInputs:  # noqa: F811
    """The inputs with about so many rows to predict, written month by month, as a year of runs does."""
    copies, schema = round(rows / FLIGHTS), f"rows_{rows}"
    spine, column = year.inputs.spine, quote(year.inputs.solution.partitions.column)
    key = quote(year.inputs.solution.spine.key)
    query = f"SELECT * EXCLUDE (copy) REPLACE ({key} || '#' || copy AS {key}) FROM {spine.table}, range({copies}) copies (copy)"
    with year.lake.connect(read_only=False) as connection:
        connection.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.spine AS {query} LIMIT 0")
        for month in range(1, 13):
            first, after = date(2013, month, 1), date(2013 + month // 12, month % 12 + 1, 1)
            of_month = f"{column} >= DATE '{first}' AND {column} < DATE '{after}'"
            connection.execute(f"INSERT INTO {schema}.spine {query} WHERE {of_month} ORDER BY {column}")
    return replace(year.inputs, spine=replace(spine, table=f"{schema}.spine"))


def test_a_row_costs_what_it_costs_among_a_tenth_of_the_rows(year: Year, fitted: Any) -> None:  # noqa: F811
    seconds_a_million, gigabytes = {}, {}
    for millions in MILLIONS:
        inputs = with_rows(year, millions * 10**6)
        # A process of its own, whose peak of memory is that of this size.
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            rows, seconds, gigabytes[millions] = pool.apply(
                score, (year.lake, inputs, year.folder / "bundle", f"flight_delay.rows_{millions}")
            )
        assert abs(rows - millions * 10**6) < FLIGHTS
        seconds_a_million[millions] = seconds / rows * 10**6
        show(
            f"batch of {rows:>11,} rows: {seconds:.0f} s, {seconds_a_million[millions]:.2f} s a million, {gigabytes[millions]:.2f} GB"
        )
    least, most = min(MILLIONS), max(MILLIONS)
    is_bounded = record(f"peak memory of scoring {most} million rows", ours=gigabytes[most], unit="GB", at_most=MEMORY_GOAL_GB)
    is_even = compare(
        f"batch scoring of {most} million rows, a million of them",
        ours=seconds_a_million[most],
        beside=f"of {least} million rows",
        theirs=seconds_a_million[least],
        unit="s",
        at_most=A_ROW_GOAL,
    )
    assert is_bounded
    assert is_even
