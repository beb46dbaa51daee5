"""Columns of the staged rows whose every value is one of a type, by the same cast with which the platform loads them."""

from collections.abc import Collection, Iterable

import duckdb

from mlops_assets.lake.sql import is_one_of
from mlops_assets.operations.new_solution.staged_rows import STAGED, StagedRows, sample_of
from mlops_assets.schema.column_names import internal
from mlops_assets.sources.column_types import TextFormats, cast

_MOST_COLUMNS = 25
"""Columns of one query: with a cast of 300 DuckDB takes gigabytes."""


class StagedColumns:
    """The staged rows, asked for which columns fit a type. `nulls` are texts that mean null."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, staged: StagedRows):
        self.connection = connection
        self.staged = staged

    def raw(self, name: str, nulls: Collection[str]) -> str:
        """SQL for the value of a column; null where its text is one of `nulls`."""
        value = self.staged.sql(name)
        if not nulls or self.staged.columns[name] != "VARCHAR":
            return value
        return f"CASE WHEN NOT {is_one_of(value, nulls)} THEN {value} END"

    def fitting(self, names: Iterable[str], stated: str, formats: TextFormats, *, nulls: Collection[str] = ()) -> list[str]:
        """Those of `names` of which every value that is there becomes one of the type `stated`."""
        for rows in (sample_of(STAGED), STAGED):
            names = [name for part in _parts(names) for name in self._fitting(part, stated, formats, nulls, rows)]
        return list(names)

    def counts(self, names: Iterable[str], condition: str, *, nulls: Collection[str] = ()) -> dict[str, int]:
        """How many values of each column meet `condition`, SQL in which `{value}` stands for the value."""
        counts: dict[str, int] = {}
        for part in _parts(names):
            counted = [f"count(CASE WHEN {condition.replace('{value}', self.raw(name, nulls))} THEN 1 END)" for name in part]
            [row] = self.connection.execute(f"SELECT {', '.join(counted)} FROM {STAGED}").fetchall()
            counts |= dict(zip(part, row, strict=True))
        return counts

    def _fitting(self, names: list[str], stated: str, formats: TextFormats, nulls: Collection[str], rows: str) -> list[str]:
        steps: tuple[list[str], list[str], list[str]] = ([], [], [])
        unfit = []
        for number, name in enumerate(names):
            given, candidate, value = (internal(f"{step}_{number}") for step in ("given", "candidate", "value"))
            raw = self.raw(name, nulls)
            rule = cast(raw, self.staged.columns[name], stated, given=given, candidate=candidate, formats=formats)
            for step, expression, alias in zip(
                steps, (rule.given, rule.candidate, rule.value), (given, candidate, value), strict=True
            ):
                step.append(f"{expression} AS {alias}")
            unfit.append(f"count(CASE WHEN {value} IS NULL AND {raw} IS NOT NULL AND NOT ({rule.nan}) THEN 1 END)")
        query = f"SELECT {', '.join(map(self.staged.sql, names))} FROM {rows}"
        for step in steps:
            query = f"SELECT *, {', '.join(step)} FROM ({query})"
        [row] = self.connection.execute(f"SELECT {', '.join(unfit)} FROM ({query})").fetchall()
        return [name for name, count in zip(names, row, strict=True) if count == 0]


def _parts(names: Iterable[str]) -> list[list[str]]:
    """`names` in parts that one query has memory for."""
    listed = list(names)
    return [listed[begin : begin + _MOST_COLUMNS] for begin in range(0, len(listed), _MOST_COLUMNS)]
