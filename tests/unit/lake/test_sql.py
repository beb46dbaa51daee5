"""Quoting of what SQL is composed of, asked of a real DuckDB and of libpq: whatever a name or a text holds, it is one name or one text."""

import ast
import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import psycopg2.extensions
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mlops_assets
from mlops_assets.core.postgres_address import keywords
from mlops_assets.lake.sql import is_one_of, lake_name, literal, quote, sql_moment

# No database stores a NUL, and a lone surrogate is no text.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
HOSTILE = "x\"; DROP TABLE kept; --'; DROP TABLE kept; /*"

PACKAGE = Path(mlops_assets.__file__).parent
MODEL_TABLE = re.compile(r"(spine|model)\.table$")


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("ATTACH ':memory:' AS lake; CREATE TABLE kept AS SELECT 1 AS one")
    return connection


@given(TEXTS, TEXTS)
@example(HOSTILE, HOSTILE)
def test_a_name_and_a_text_are_what_they_were(connection: duckdb.DuckDBPyConnection, name: str, text: str) -> None:
    cursor = connection.execute(f"SELECT {literal(text)} AS {quote(name)}, {is_one_of(literal(text), [name, text])}")
    assert cursor.description is not None
    assert cursor.description[0][0] == name
    assert cursor.fetchall() == [(text, True)]
    assert connection.execute("FROM kept").fetchall() == [(1,)]


@given(TEXTS.filter(lambda name: "." not in name), TEXTS)
@example(HOSTILE, HOSTILE)
def test_a_table_of_any_name_is_one_table(connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> None:
    table = lake_name(f"{schema}.{name}")
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{quote(schema)}; CREATE OR REPLACE TABLE {table} AS SELECT 7 AS seven")
    try:
        assert connection.execute(f"FROM {table}").fetchall() == [(7,)]
        listed = connection.execute("SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake'").fetchall()
        assert listed == [(schema, name)]
    finally:
        connection.execute(f"DROP SCHEMA lake.{quote(schema)} CASCADE")


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_a_moment_is_what_it_was(connection: duckdb.DuckDBPyConnection, moment: datetime) -> None:
    [(microseconds,)] = connection.execute(f"SELECT epoch_us({sql_moment(moment)})").fetchall()
    assert datetime.fromtimestamp(0, UTC).timestamp() + microseconds / 1e6 == pytest.approx(moment.timestamp())


@given(st.dictionaries(st.sampled_from(["host", "user", "dbname", "passfile"]), TEXTS, min_size=1))
def test_a_keyword_of_libpq_is_what_it_was(parts: dict[str, str]) -> None:
    assert psycopg2.extensions.parse_dsn(keywords(parts)) == parts


def test_a_table_of_a_dbt_model_is_nowhere_named_unquoted() -> None:
    """Its name is that of a file, of which Dagster lets pass the words of SQL. Names in YAML are checked where they are read."""
    unquoted = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr)
        for before, value in zip(node.values, node.values[1:], strict=False)
        if isinstance(before, ast.Constant) and str(before.value).endswith("lake.")
        if isinstance(value, ast.FormattedValue) and MODEL_TABLE.search(ast.unparse(value.value))
    ]
    assert unquoted == []
