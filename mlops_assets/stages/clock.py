"""The clock of the data: the moment up to which the world is known. Nothing that computes data asks the machine for the time."""

from datetime import datetime

import duckdb

from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.stages.execution import permanent_failure
from mlops_assets.stages.inputs import SolutionInputs


def data_clock(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs) -> datetime:
    """The end of the newest partition of the spine, in UTC: what is dated later is not known yet, though the lake may hold it.

    Windows, the maturity of labels and the age of a model are measured against it. Raises Failure when the spine is empty.
    """
    column = quote(inputs.solution.partitions.column)
    newest = connection.execute(f"SELECT max({column}) FROM {lake_name(inputs.spine.table)}").fetchall()[0][0]
    if newest is None:
        raise permanent_failure(f"{inputs.spine.table} has no rows: materialize it first.")
    return inputs.midnight(inputs.partitions.time_window_for_partition_key(newest.isoformat()).end.date())
