"""The rows of a table that one write replaces: a range of its partitions, or those with one value of a column."""

from dataclasses import dataclass
from datetime import date

from mlops_assets.lake.sql import literal, quote


@dataclass(frozen=True)
class ColumnValue:
    """Rows whose `column` has `value`."""

    column: str
    value: str

    def predicate(self, alias: str) -> str:
        """SQL that is true for these rows of table `alias`."""
        return f"{alias}.{quote(self.column)} = {literal(self.value)}"


@dataclass(frozen=True)
class PartitionRange:
    """The half-open range `[start, end)` of the DATE column `column` that one write replaces.

    With `include_null`, rows that have no partition are replaced too. The half-open ranges `without` are left as they are, and so are
    other rows than those of `rows`: somebody else writes them.
    """

    column: str
    start: date
    end: date
    include_null: bool = False
    without: tuple[tuple[date, date], ...] = ()
    rows: ColumnValue | None = None

    def predicate(self, alias: str) -> str:
        """SQL that is true for the rows of table `alias` inside the range."""
        column = f"{alias}.{quote(self.column)}"
        inside = f"({column} >= DATE '{self.start}' AND {column} < DATE '{self.end}')"
        for start, end in self.without:
            inside = f"({inside} AND NOT ({column} >= DATE '{start}' AND {column} < DATE '{end}'))"
        if self.include_null:
            inside = f"({inside} OR {column} IS NULL)"
        return inside if self.rows is None else f"({inside} AND {self.rows.predicate(alias)})"
