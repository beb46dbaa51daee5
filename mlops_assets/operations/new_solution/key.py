"""The key of a table: the columns that identify a row."""

import re
from itertools import combinations

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.features.generated.dbt_model import sql_word
from mlops_assets.lake.sql import quote
from mlops_assets.operations.new_solution.answers import NONE, Answers, Decision
from mlops_assets.operations.new_solution.origin import free_name
from mlops_assets.operations.new_solution.table_facts import TYPED, TableFacts

_KEY_NAME = re.compile(r"((^|_|\b)(id|ids|key|uuid|guid|nr|no|num|code|index)|number|nummer|schlüssel|schluessel|kennung)$", re.I)
_JOINED_NAME = re.compile(r"[a-z](ID|Id|Nr|No|Key)$")
_MOST_PARTS = 8
"""Columns that are tried in pairs."""


def infer_key(
    connection: duckdb.DuckDBPyConnection, table: TableFacts, taken: set[str], answers: Answers
) -> tuple[tuple[str, ...], Decision]:
    """The columns of the key, none where the key is made from the content of a row. `taken` are columns with another role."""
    if answers.key:
        key = () if answers.key == (NONE,) else answers.key
        if key and (problem := _problem(connection, table, key)):
            raise StackError(f"{', '.join(key)} {problem}.", remedy="Name more or other columns: --key, or --key none")
        return key, Decision(field="key", value=",".join(key) or NONE, reason="Given.")
    whole = {
        name: facts
        for name, facts in table.columns.items()
        if facts.filled == table.rows and name not in taken and facts.type in ("varchar", "integer", "bigint")
    }
    unique = [name for name, facts in whole.items() if facts.distinct == table.rows]
    if named := [name for name in unique if looks_like_key(name)]:
        reason = f"Each of {table.rows:,} rows has a value of its own, and the name is that of a key."
        return (named[0],), Decision(field="key", value=named[0], reason=reason)
    parts = [name for name in whole if looks_like_key(name)]
    moments = [name for name, facts in table.columns.items() if facts.is_time and facts.filled == table.rows]
    for pair in combinations([*parts, *moments][:_MOST_PARTS], 2):
        if any(part in parts for part in pair) and not _problem(connection, table, pair):
            reason = f"No two of {table.rows:,} rows have the same {' and '.join(pair)}."
            return pair, Decision(field="key", value=",".join(pair), reason=reason)
    reason = "No column with the name of a key has a value of its own in each row: one is made from the content of the row."
    return (), Decision(field="key", value=NONE, reason=reason)


def looks_like_key(name: str) -> bool:
    """Whether a column has the name of a key."""
    return bool(_KEY_NAME.search(name) or _JOINED_NAME.search(name))


def _problem(connection: duckdb.DuckDBPyConnection, table: TableFacts, columns: tuple[str, ...]) -> str | None:
    if missing := [name for name in columns if table.columns[name].filled < table.rows]:
        return f"identify no row where {missing[0]} is missing"
    names = ", ".join(map(quote, columns))
    [(distinct,)] = connection.execute(f"SELECT count(*) FROM (SELECT DISTINCT {names} FROM {TYPED})").fetchall()
    return None if distinct == table.rows else f"identify {distinct:,} of {table.rows:,} rows"


def key_column(key: tuple[str, ...], table: TableFacts) -> tuple[str, str | None]:
    """The column of the spine with the key, and the expression that makes it of several columns.

    A list in JSON keeps apart what a separator would not: no two keys become one.
    """
    if len(key) == 1:
        return key[0], None
    name = free_name(f"{'_'.join(key)}_key", table.columns)
    parts = ", ".join(f"CAST({sql_word(column)} AS VARCHAR)" for column in key)
    return name, f"CAST(to_json([{parts}]) AS VARCHAR)"
