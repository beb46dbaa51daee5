"""SQL texts of the lake: quoted names, literals and moments."""

from collections.abc import Iterable
from datetime import datetime


def lake_name(table: str) -> str:
    """The quoted name of the lake's table `schema.table`."""
    schema, _, name = table.partition(".")
    return f"lake.{quote(schema)}.{quote(name)}"


def quote(identifier: str) -> str:
    """`identifier` as a quoted SQL name."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as a quoted SQL string."""
    return "'" + text.replace("'", "''") + "'"


def is_one_of(value: str, texts: Iterable[str]) -> str:
    """SQL for whether the text `value` is one of `texts`; null where it is null.

    Of `IN` with more than a few constants DuckDB makes a join: planning fifty columns with one each takes minutes and gigabytes.
    """
    return f"list_contains([{', '.join(map(literal, texts))}], {value})"


def sql_moment(moment: datetime) -> str:
    """`moment` (with a time zone) as a SQL literal."""
    return f"TIMESTAMPTZ {literal(moment.isoformat())}"
