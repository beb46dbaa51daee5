"""Partitions as spans of days, whatever their cadence."""

from datetime import date

import pytest

from mlops_assets.core.partitions import build_partitions
from mlops_assets.operations.partition_windows import PartitionWindow, partition_windows
from mlops_assets.schema.cadence import Cadence


@pytest.mark.parametrize(
    ("cadence", "start", "end"),
    [
        ("daily", date(2024, 2, 27), date(2024, 3, 1)),
        ("weekly", date(2024, 1, 1), date(2024, 1, 29)),
        ("monthly", date(2023, 12, 1), date(2024, 3, 1)),
        ("yearly", date(2015, 1, 1), date(2019, 1, 1)),
    ],
)
def test_the_last_partition_ends_where_the_declaration_says(cadence: Cadence, start: date, end: date) -> None:
    windows = partition_windows(build_partitions(start, end, cadence).get_partition_keys())
    assert (windows[0].first, windows[-1].end) == (start, end)
    assert all(window.key == window.first.isoformat() and window.first <= window.last for window in windows)


def test_without_keys_there_is_none_and_one_alone_has_a_day() -> None:
    assert partition_windows([]) == []
    assert partition_windows(["2024-02-29"]) == [PartitionWindow("2024-02-29", date(2024, 2, 29), date(2024, 3, 1))]
