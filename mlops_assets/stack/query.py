"""Read-only SQL on the lake for a person: what `mlops sql` runs."""

from typing import Any

from mlops_assets.settings import Settings
from mlops_assets.stack.errors import StackError


def run_query(settings: Settings, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one query on the lake, attached read-only. Returns the column names and the rows.

    Raises StackError with DuckDB's message when the query is wrong.
    """
    import duckdb

    from mlops_assets.resources.lake import Lake, LakeError

    try:
        connection = Lake.from_settings(settings).connect(read_only=True)
    except LakeError as error:
        raise StackError(str(error), remedy="Start what is missing: mlops up") from error
    try:
        result = connection.execute(query)
        return [column[0] for column in result.description or []], result.fetchall()
    except duckdb.Error as error:
        raise StackError(
            str(error), remedy='The tables: mlops sql "SELECT table_schema, table_name FROM information_schema.tables"'
        ) from error
    finally:
        connection.close()
