"""Rows of a solution in the lake, compared with what a training needs, before one is tried."""

from collections.abc import Iterator

import duckdb

from mlops_assets.lake.sql import lake_name, quote, sql_moment
from mlops_assets.lake.tables import table_exists
from mlops_assets.schema.cadence import CADENCE_LENGTHS
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.duration import add_duration, subtract_duration
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.training_frame import labelled_rows


def find_row_problems(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs) -> Iterator[ConfigurationError]:
    """What a training on all rows of the spine would lack: training rows, or rows of the hold-out. Nothing while the spine is empty."""
    table = inputs.spine.table
    if not table_exists(connection, table):
        return
    solution = inputs.solution
    column, moment = quote(solution.partitions.column), quote(solution.spine.prediction_time)
    [(last,)] = connection.execute(f"SELECT max({column}) FROM {lake_name(table)} WHERE {inputs.is_labelled}").fetchall()
    if last is None:
        return
    training_date = add_duration(last, CADENCE_LENGTHS[solution.partitions.cadence].duration)
    holdout = sql_moment(inputs.midnight(subtract_duration(training_date, solution.training.holdout)))
    counts = connection.execute(
        f"SELECT count(*) FILTER (WHERE {moment} < {holdout}), count(*) FILTER (WHERE {moment} >= {holdout}) "
        f"FROM {lake_name(table)} WHERE {labelled_rows(inputs, training_date)}"
    ).fetchall()
    [(train, held_out)] = counts
    window = f"{solution.training.window} before {training_date}"
    minimum = solution.checks.least_rows(len(inputs.features))
    if train < minimum:
        message = (
            f"there are {train:,} labelled rows to train on in the {window} without its hold-out, and the check row_count asks for {minimum:,}; "
            "load more, widen training.window, or lower checks.minimum_rows"
        )
        yield ConfigurationError(("checks", "minimum_rows"), message)
    if not held_out:
        message = f"no labelled row is in the last {solution.training.holdout} of the {window}; widen it, or load more"
        yield ConfigurationError(("training", "holdout"), message)
