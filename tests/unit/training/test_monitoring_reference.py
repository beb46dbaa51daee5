from datetime import date, timedelta

import pytest
from clinic import solution_inputs

from mlops_assets.training.monitoring_reference import count_partitions


@pytest.mark.parametrize(("cadence", "expected"), [("daily", 45), ("monthly", 2), ("yearly", 1)])
def test_the_rows_of_a_partition_are_expected_by_partition_not_by_date(cadence: str, expected: int) -> None:
    days = [date(2020, 1, 6) + timedelta(days=number) for number in range(45)]
    assert count_partitions(solution_inputs(cadence), days) == expected


def test_days_without_a_row_count() -> None:
    # Fifteen rows in a month and a half: in a month ten are expected, not thirty.
    days = [date(2020, 1, 6) + timedelta(days=3 * number) for number in range(15)]
    assert count_partitions(solution_inputs("daily"), days) == 43
