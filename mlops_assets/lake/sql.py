"""SQL texts of the lake: quoted names, literals and moments."""

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


def sql_moment(moment: datetime) -> str:
    """`moment` (with a time zone) as a SQL literal."""
    return f"TIMESTAMPTZ {literal(moment.isoformat())}"
