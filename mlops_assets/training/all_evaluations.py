"""All evaluated rows of a solution, those of its models of all rows and those of its segments: the one place where they are read together.

Each has a table of its own, `evaluation` and `segment_evaluation`, and an asset that writes it.
"""

import duckdb

from mlops_assets.core.keys import EVALUATION, SEGMENT, SEGMENT_STAGES, stage_table
from mlops_assets.lake.tables import column_types, table_exists

_STAGES = (EVALUATION, SEGMENT_STAGES[EVALUATION])
_OF_A_SEGMENT = f"coalesce({SEGMENT}, '') <> ''"
"""SQL that is true for the rows of segments which a former release kept in the table `evaluation`."""


def all_evaluations(connection: duckdb.DuckDBPyConnection, solution: str) -> str:
    """SQL in parentheses for the evaluated rows of every version of `solution`."""
    present = [table for stage in _STAGES if table_exists(connection, table := stage_table(solution, stage))]
    return f"({' UNION ALL BY NAME '.join(f'FROM lake.{table}' for table in present)})"


def whole_evaluations(connection: duckdb.DuckDBPyConnection, solution: str) -> str:
    """SQL in parentheses for the evaluated rows of the versions that were trained on all rows."""
    table = f"lake.{stage_table(solution, EVALUATION)}"
    has_segments = SEGMENT in column_types(connection, table)
    return f"(FROM {table} WHERE NOT {_OF_A_SEGMENT})" if has_segments else f"(FROM {table})"
