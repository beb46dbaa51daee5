"""Queries on a Postgres as DuckDB queries: each column in its exact type, or as the text that Postgres itself writes of it."""

from mlops_assets.lake.sql import literal, quote
from mlops_assets.lake.tables import column_types
from mlops_assets.schema.column_names import internal
from mlops_assets.sources.csv_reader import json_row
from mlops_assets.sources.extract import Extract, Field, SourceError, SourcePart, position

ATTACHED = internal("source_database")

_NUMERIC = 1700
_EXACT = {16, 17, 18, 19, 20, 21, 23, 25, 26, 700, 701, 1042, 1043, 1082, 1114, 1184, 2950}
"""Types that DuckDB reads as they are: boolean, bytes, whole and floating numbers, texts, dates, times with date, UUID."""


def postgres_extract(part: SourcePart) -> Extract:
    """The rows of a query, whose database stays attached as `ATTACHED` until they were taken.

    Raises SourceError for a variable that is not set and a query that Postgres refuses, ConnectionError when it cannot be reached.
    """
    import psycopg2

    assert part.query is not None  # the reader reads queries
    connection, variable, url, sql = part.connection, part.query.url_variable, part.connection_string, part.sql
    part.cleanup.callback(connection.execute, f"DETACH DATABASE IF EXISTS {ATTACHED}")
    try:
        database = psycopg2.connect(url)
    except psycopg2.OperationalError as error:
        problem = str(error).strip()
    except psycopg2.Error:
        raise SourceError(f"The value of {variable} is no connection string of Postgres.") from None
    else:
        problem = ""
    if problem:
        raise ConnectionError(f"The database of {variable} cannot be reached: {problem}")
    try:
        database.set_session(readonly=True)
        with database.cursor() as cursor:
            # A line of its own, since the query may end with a comment.
            cursor.execute(f"SELECT * FROM ({sql}\n) AS q LIMIT 0")
            described = [(column.name, column.type_code) for column in cursor.description or ()]
    except psycopg2.Error as error:
        diagnosis = error.diag.message_primary
        raise SourceError(f"Postgres refuses the query of {variable}: {diagnosis}.") from None
    finally:
        database.close()
    names = [name for name, _ in described]
    selected = ", ".join(_selected(position(number), kind) for number, (_, kind) in enumerate(described))
    aliases = ", ".join(quote(position(number)) for number in range(len(names)))
    outer = f"SELECT {selected} FROM ({sql}\n) AS q({aliases})"
    connection.execute(f"ATTACH {literal(url)} AS {ATTACHED} (TYPE postgres, READ_ONLY)")
    relation = f"(FROM postgres_query({literal(ATTACHED)}, {literal(outer)}))"
    types = list(column_types(connection, relation).values())
    fields = {name: Field(position(number), types[number]) for number, name in enumerate(names)}
    return Extract(
        label=variable,
        fields=fields,
        relation=relation,
        row=json_row(list(zip(names, types, strict=True))),
        repeated=frozenset(name for name in names if names.count(name) > 1),
    )


def _selected(column: str, kind: int) -> str:
    if kind in _EXACT:
        return quote(column)
    value = f"nullif({quote(column)}, 'NaN')" if kind == _NUMERIC else quote(column)
    return f"CAST({value} AS text) AS {quote(column)}"
