"""Evaluations of segments that a former release kept in the table of all rows: read once before they are moved, and after it."""

from collections.abc import Callable

from mlops_assets.lake.lake import Lake
from mlops_assets.local.state_steps import STEPS
from mlops_assets.training.all_evaluations import all_evaluations, whole_evaluations

SOLUTION = "late"


def test_rows_of_segments_get_a_table_of_their_own_once(make_lake: Callable[[], Lake]) -> None:
    lake = make_lake()
    with lake.connect(read_only=False) as connection:

        def counted(relation: str) -> list[tuple[int, int]]:
            return connection.execute(f"SELECT model_version, count(*) FROM {relation} GROUP BY 1 ORDER BY 1").fetchall()

        connection.execute(f"CREATE SCHEMA {SOLUTION}")
        connection.execute(
            f"CREATE TABLE {SOLUTION}.evaluation AS SELECT DATE '2020-01-01' AS training_date, i % 3 AS model_version, "
            # One row is from before there were segments.
            "CASE i % 3 WHEN 2 THEN 'north' WHEN 1 THEN '' END AS segment, i AS id FROM range(30) r(i)"
        )
        every = [(0, 10), (1, 10), (2, 10)]
        assert counted(all_evaluations(connection, SOLUTION)) == every
        assert counted(whole_evaluations(connection, SOLUTION)) == every[:2]
        for _ in range(2):
            STEPS[1].apply(lake, connection)
        assert counted(all_evaluations(connection, SOLUTION)) == every
        assert counted(whole_evaluations(connection, SOLUTION)) == every[:2]
        assert counted(f"{SOLUTION}.evaluation") == every[:2]
        assert counted(f"{SOLUTION}.segment_evaluation") == every[2:]
        # A solution that never had segments has no such column.
        connection.execute(f"ALTER TABLE {SOLUTION}.evaluation DROP COLUMN segment")
        assert counted(whole_evaluations(connection, SOLUTION)) == every[:2]
