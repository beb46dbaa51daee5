"""All predictions of a solution, those of the batch and those of its servers: the one place where they are read together.

Each has a table of its own, `predictions` and `prediction_log`, and an asset that writes it. For SQL there is the view `all_predictions`.
Of a row that the batch scored several times it has the generation that counts; `predictions` has them all.
"""

import duckdb

from mlops_assets.core.keys import ALL_PREDICTIONS, PREDICTION_LOG, PREDICTIONS, stage_table
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name
from mlops_assets.lake.tables import column_types, table_exists
from mlops_assets.schema.column_names import COUNTED
from mlops_assets.stages.execution import permanent_failure

_STAGES = (PREDICTIONS, PREDICTION_LOG)


def all_predictions(connection: duckdb.DuckDBPyConnection, solution: str, *, every_generation: bool = False) -> str | None:
    """SQL in parentheses for every prediction of `solution` that counts, or for every one; None when it has predicted nothing yet.

    A column that only one of the two tables has is null in the rows of the other.
    """
    parts = []
    for stage in _STAGES:
        if table_exists(connection, table := stage_table(solution, stage)):
            is_counted = not every_generation and stage == PREDICTIONS
            parts.append(counted_predictions(connection, table) if is_counted else f"FROM lake.{table}")
    return f"({' UNION ALL BY NAME '.join(parts)})" if parts else None


def counted_predictions(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """The SQL for those rows of the table of the batch that count: all of them in a table that a former release wrote."""
    has_generations = COUNTED in column_types(connection, f"lake.{table}")
    return f"FROM lake.{table} WHERE coalesce({COUNTED}, true)" if has_generations else f"FROM lake.{table}"


def require_predictions(connection: duckdb.DuckDBPyConnection, solution: str) -> str:
    """The SQL of `all_predictions`. Raises Failure when there is nothing."""
    if (relation := all_predictions(connection, solution)) is None:
        raise permanent_failure(f"{solution} has predicted nothing: materialize {solution}/{PREDICTIONS}, or ask a server.")
    return relation


def update_view(lake: Lake, connection: duckdb.DuckDBPyConnection, solution: str) -> None:
    """Make the view `all_predictions` that of the tables that there are. Columns that they get later it has by itself."""
    view = stage_table(solution, ALL_PREDICTIONS)
    with lake.writer_lock([view]):
        relation = all_predictions(connection, solution)
        if relation is None or (table_exists(connection, view) and _is_view_of(connection, view, relation)):
            return
        connection.execute(f"CREATE OR REPLACE VIEW {lake_name(view)} AS FROM {relation}")


def _is_view_of(connection: duckdb.DuckDBPyConnection, view: str, relation: str) -> bool:
    """Whether the view reads the tables of `relation`, and leaves out what does not count if `relation` does."""
    schema, _, name = view.partition(".")
    [(definition,)] = connection.execute(
        "SELECT sql FROM duckdb_views() WHERE database_name = 'lake' AND schema_name = ? AND view_name = ?", [schema, name]
    ).fetchall()
    tables, wanted = (connection.get_table_names(f"FROM {each}", qualified=True) for each in (f"lake.{view}", relation))
    return tables == wanted and (COUNTED in definition) == (COUNTED in relation)
