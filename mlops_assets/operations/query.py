"""Read-only SQL on the lake for a person: what `mlops sql` runs."""

from functools import partial
from typing import Any

from mlops_assets.core.errors import AwayError, StackError
from mlops_assets.core.patience import LOST_CONNECTION, patiently
from mlops_assets.core.settings import Settings


class _CatalogAwayError(StackError, AwayError):
    """Postgres, which holds the lake's catalog, does not answer."""


def run_query(settings: Settings, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one query on the lake. Returns the column names and the rows.

    Waits for a catalog that is away. Raises StackError with DuckDB's message when the query is wrong, and when it would do more than
    read the lake.
    """
    return patiently(partial(_run_once, settings, query))


def _run_once(settings: Settings, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    import duckdb

    from mlops_assets.lake.lake import Lake
    from mlops_assets.lake.sql import literal
    from mlops_assets.lake.tables import LakeError

    try:
        lake = Lake.from_settings(settings)
        connection = lake.connect(read_only=True)
    except LakeError as error:
        kind = _CatalogAwayError if LOST_CONNECTION.search(str(error)) else StackError
        raise kind(str(error), remedy="Start what is missing: mlops up") from error
    try:
        # Nothing outside the lake's own folder can be opened from here on, and the query cannot change that.
        connection.execute(f"SET allowed_directories = [{literal(lake.data_path)}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        kinds = [statement.type for statement in connection.extract_statements(query)]
        if len(kinds) != 1 or kinds[0] not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
            raise StackError(
                "This is not one query: the lake is read-only here.", remedy="Give one SELECT, DESCRIBE, SUMMARIZE or EXPLAIN."
            )
        result = connection.execute(query)
        return [column[0] for column in result.description or []], result.fetchall()
    except duckdb.Error as error:
        if LOST_CONNECTION.search(str(error)):
            raise _CatalogAwayError("The lake's catalog went away during the query.", remedy="mlops status") from error
        raise StackError(
            str(error), remedy='The tables: mlops sql "SELECT table_schema, table_name FROM information_schema.tables"'
        ) from error
    finally:
        connection.close()
