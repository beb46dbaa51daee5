"""Faults of a source for `mlops replay --inject`: a delivery of its real rows in which some days are wrong, as a file.

The file is read by the raw table's own asset in place of its files, like any other delivery: nothing in the platform knows of faults.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.core.keys import RAW_SCHEMA
from mlops_assets.lake.sql import literal, quote
from mlops_assets.operations.table_schemas import raw_table
from mlops_assets.schema.source import RawTable
from mlops_assets.sources.reader import PARSED, REASON, DateRange, parse

_NUMBERS = ("integer", "bigint", "double")

KINDS = {
    "shift": "the numbers of the days are in another unit, 60 times too large",
    "corrupt": "the numbers of the days have become unreadable",
    "duplicate": "the rows of the days arrive twice",
    "drop": "nine of ten rows of the days are lost",
    "delay": "the rows of the days do not arrive yet",
}
"""What `--inject` can do to a source, and what that means."""


@dataclass(frozen=True)
class Fault:
    """What happens to a raw table (`raw/<name>`) on the days from `first` to `last`."""

    kind: str
    table: str
    first: date
    last: date

    @classmethod
    def read(cls, text: str) -> "Fault":
        """`drop:orders:2013-08-05:2013-08-07` as a fault. Raises StackError when it is none."""
        try:
            kind, table, first, last = text.split(":")
            fault = cls(kind, table, date.fromisoformat(first), date.fromisoformat(last))
        except ValueError as error:
            raise StackError(
                f"{text!r} is no fault: {error}.",
                remedy="Write --inject kind:table:first:last, such as drop:orders:2013-08-05:2013-08-07",
            ) from error
        if kind not in KINDS:
            from mlops_assets.ml.changed_relation import CHANGE_KINDS

            known, changes = ", ".join(KINDS), ", ".join(CHANGE_KINDS)
            raise StackError(f"There is no fault {kind!r}.", remedy=f"Choose one of: {known}; with --policy of {changes}")
        if last < first:
            raise StackError(f"The fault ends on {last}, before it begins on {first}.", remedy="Swap the days.")
        return fault

    @property
    def key(self) -> str:
        """Asset of the table."""
        return f"{RAW_SCHEMA}/{self.table}"

    @property
    def text(self) -> str:
        """The fault in words."""
        return f"{self.kind} of {self.key} from {self.first} to {self.last}: {KINDS[self.kind]}"

    def write(self, path: Path, *, start: date, end: date) -> None:
        """Write the rows of `[start, end)`, faulty on the days of the fault, as the file `path`. Raises StackError."""
        table, directory = raw_table(self.table)
        if table.partitions is None or table.files is None or table.format not in ("csv", "parquet"):
            raise StackError(
                f"{self.key} is not read from CSV or Parquet files by partition: no fault can be injected.",
                remedy="Choose another table.",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            duckdb.connect() as connection,
            parse(connection, table, directory=directory, window=DateRange(table.partitions.column, start, end)),
        ):
            connection.execute("SET TimeZone = 'UTC'")
            null = table.null_strings[0] if table.null_strings else ""
            options = f"FORMAT csv, HEADER, NULLSTR {literal(null)}" if table.format == "csv" else "FORMAT parquet"
            rows = self._rows(table, table.partitions.column)
            connection.execute(f"COPY ({rows}) TO {literal(str(path))} ({options})")

    def _rows(self, table: RawTable, partition: str) -> str:
        """SQL for the rows as they are delivered."""
        names = [name for name, column in table.columns.items() if column.expression is None]
        days = f"{quote(partition)} BETWEEN DATE '{self.first}' AND DATE '{self.last}'"
        numbers = [
            name
            for name in names
            if table.columns[name].type in _NUMBERS and not table.columns[name].required and name not in table.key
        ]
        rows = f"FROM {PARSED} WHERE {REASON} IS NULL"
        delivered = {name: f"{quote(name)} AS {quote(table.columns[name].source or name)}" for name in names}
        plain = ", ".join(delivered.values())
        match self.kind:
            case "duplicate":
                return f"SELECT {plain} {rows} UNION ALL SELECT {plain} {rows} AND {days}"
            case "drop":
                key = ", ".join(map(quote, table.key or names))
                return f"SELECT {plain} {rows} AND NOT ({days} AND hash({key}) % 10 > 0)"
            case "delay":
                return f"SELECT {plain} {rows} AND NOT ({days})"
            case _:
                wrong = "CAST({0} * 60 AS VARCHAR)" if self.kind == "shift" else "'#' || CAST({0} AS VARCHAR)"
                changed = {
                    name: f"CASE WHEN {days} THEN {wrong.format(quote(name))} ELSE CAST({quote(name)} AS VARCHAR) END"
                    for name in numbers
                }
                selected = ", ".join(
                    f"{changed[name]} AS {quote(table.columns[name].source or name)}" if name in changed else delivered[name]
                    for name in names
                )
                return f"SELECT {selected} {rows}"
