"""Columns of the staged rows whose every value is one of a type, by the same cast with which the platform loads them."""

from collections.abc import Collection, Iterable

import duckdb

from mlops_assets.lake.sql import literal
from mlops_assets.operations.new_solution.staged_rows import STAGED, StagedRows, sample_of
from mlops_assets.schema.column_names import internal
from mlops_assets.sources.column_types import TextFormats, cast


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
        return f"CASE WHEN {value} NOT IN ({', '.join(map(literal, nulls))}) THEN {value} END"

    def fitting(self, names: Iterable[str], stated: str, formats: TextFormats, *, nulls: Collection[str] = ()) -> list[str]:
        """Those of `names` of which every value that is there becomes one of the type `stated`."""
        in_sample = self._fitting(list(names), stated, formats, nulls, sample_of(STAGED))
        return self._fitting(in_sample, stated, formats, nulls, STAGED)

    def counts(self, names: Iterable[str], condition: str, *, nulls: Collection[str] = ()) -> dict[str, int]:
        """How many values of each column meet `condition`, SQL in which `{value}` stands for the value."""
        listed = list(names)
        if not listed:
            return {}
        counted = [f"count(*) FILTER ({condition.replace('{value}', self.raw(name, nulls))})" for name in listed]
        [row] = self.connection.execute(f"SELECT {', '.join(counted)} FROM {STAGED}").fetchall()
        return dict(zip(listed, row, strict=True))

    def _fitting(self, names: list[str], stated: str, formats: TextFormats, nulls: Collection[str], rows: str) -> list[str]:
        if not names:
            return []
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
            unfit.append(f"count(*) FILTER ({value} IS NULL AND {raw} IS NOT NULL AND NOT ({rule.nan}))")
        query = f"SELECT * FROM {rows}"
        for step in steps:
            query = f"SELECT *, {', '.join(step)} FROM ({query})"
        [row] = self.connection.execute(f"SELECT {', '.join(unfit)} FROM ({query})").fetchall()
        return [name for name, count in zip(names, row, strict=True) if count == 0]
