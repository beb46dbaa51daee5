"""Migrations of the platform's own tables: an ordered list, to which later releases only add.

A step belongs here when the release before could not work with its result, or would not find rows that it moved. What a release only adds is
no step: a column that a table lacks is added by the next write, and is null in the rows of before (docs/adr/0061).
"""

from collections.abc import Callable
from dataclasses import dataclass

import duckdb

from mlops_assets.core.keys import (
    EVALUATION,
    FEATURES_SCHEMA,
    PREDICTION_LOG,
    PREDICTIONS,
    RAW_SCHEMA,
    SEGMENT,
    SEGMENT_STAGES,
    STAGING_SCHEMA,
    stage_table,
)
from mlops_assets.core.prediction_columns import BATCH
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name, literal
from mlops_assets.schema.column_names import CHANNEL, PREDICTION_ID

AUTHOR = "mlops upgrade"


@dataclass(frozen=True)
class Step:
    """One migration. `is_needed` looks for what it changes; `apply` does it, and nothing when it was done already."""

    name: str
    change: str
    is_needed: Callable[[duckdb.DuckDBPyConnection], bool]
    apply: Callable[[Lake, duckdb.DuckDBPyConnection], None]


@dataclass(frozen=True)
class _MovedRows:
    """The rows of a stage's table with `condition` on `column`, which belong into the table of the stage `target`."""

    source: str
    target: str
    column: str
    condition: str
    identifier: str | None

    def solutions(self, connection: duckdb.DuckDBPyConnection) -> list[str]:
        """The solutions whose table `source` has such rows."""
        rows = connection.execute(
            "SELECT schema_name FROM duckdb_columns() WHERE database_name = 'lake' AND table_name = ? AND column_name = ? "
            "AND schema_name NOT IN (?, ?, ?) ORDER BY 1",
            [self.source, self.column, RAW_SCHEMA, STAGING_SCHEMA, FEATURES_SCHEMA],
        ).fetchall()
        return [solution for (solution,) in rows if self._has_rows(connection, solution)]

    def move(self, lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
        """Move the rows of each solution in one transaction: whoever reads both tables finds every row once, before it and after it."""
        for solution in self.solutions(connection):
            source, target = (stage_table(solution, stage) for stage in (self.source, self.target))
            lake.move(
                connection,
                source=source,
                target=target,
                condition=self.condition,
                identifier=self.identifier,
                author=AUTHOR,
            )

    def _has_rows(self, connection: duckdb.DuckDBPyConnection, solution: str) -> bool:
        table = lake_name(stage_table(solution, self.source))
        return bool(connection.execute(f"SELECT 1 FROM {table} WHERE {self.condition} LIMIT 1").fetchall())


def _moving(rows: _MovedRows, change: str) -> Step:
    return Step(
        name=f"{rows.source}_to_{rows.target}",
        change=change,
        is_needed=lambda connection: bool(rows.solutions(connection)),
        apply=rows.move,
    )


STEPS = (
    _moving(
        # Rows from before the column was there are of the batch.
        _MovedRows(
            PREDICTIONS, PREDICTION_LOG, CHANNEL, f"coalesce({CHANNEL}, {literal(BATCH)}) <> {literal(BATCH)}", PREDICTION_ID
        ),
        "predictions of the servers go from `predictions` into `prediction_log`",
    ),
    _moving(
        _MovedRows(EVALUATION, SEGMENT_STAGES[EVALUATION], SEGMENT, f"coalesce({SEGMENT}, '') <> ''", None),
        "evaluations of segments go from `evaluation` into `segment_evaluation`",
    ),
)
