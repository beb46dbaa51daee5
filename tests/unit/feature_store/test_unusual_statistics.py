"""Statistics of a partition against those before it: faults are seen on their day, and usual days are not."""

from datetime import date, timedelta

import duckdb
import numpy as np
import pytest

from mlops_assets.feature_store.unusual_statistics import UnusualStatistic, find_unusual

FIRST, DAYS = date(2024, 1, 1), 130


def unusual(values: dict[str, np.ndarray], *, rows: int = 500, after: int = 30) -> dict[date, list[UnusualStatistic]]:
    """What is unusual in the days after the first `after` ones, of daily `values` of one feature; a statistic without values is constant."""
    connection = duckdb.connect()
    connection.execute("ATTACH ':memory:' AS lake; CREATE SCHEMA lake.features")
    columns = {"missing_share": np.zeros(DAYS), "most_frequent_share": np.full(DAYS, 0.1), "mean": np.full(DAYS, 10.0)} | values
    connection.execute(
        "CREATE TABLE lake.features.statistics (partition DATE, view VARCHAR, feature VARCHAR, rows BIGINT, missing_share DOUBLE, "
        "most_frequent_share DOUBLE, mean DOUBLE, standard_deviation DOUBLE)"
    )
    connection.executemany(
        "INSERT INTO lake.features.statistics VALUES (?, 'weather', 'wind', ?, ?, ?, ?, 2)",
        [[FIRST + timedelta(days=day), rows, *(float(column[day]) for column in columns.values())] for day in range(DAYS)],
    )
    found = find_unusual(
        connection,
        table="features.statistics",
        label="view || '.' || feature",
        partitions=[FIRST + timedelta(days=day) for day in range(after, DAYS)],
        earliest=FIRST,
    )
    assert len(found) == DAYS - after
    return {day: statistics for day, statistics in found.items() if statistics}


@pytest.mark.parametrize(
    ("statistic", "faulty"),
    [("mean", 4.5), ("missing_share", 0.4), ("most_frequent_share", 0.9)],
    ids=["unit", "missing", "stuck"],
)
def test_a_fault_is_seen_on_its_day(statistic: str, faulty: float) -> None:
    usual = {"mean": 10 + np.random.default_rng(0).normal(size=DAYS), "missing_share": np.full(DAYS, 0.01)}
    values = usual.get(statistic, np.full(DAYS, 0.1)).copy()
    values[100] = faulty
    # A share that was never anything else moves by what matters.
    [(day, [one])] = unusual(usual | {statistic: values}).items()
    assert day == FIRST + timedelta(days=100)
    assert (one.feature, one.statistic, one.value, one.partitions) == ("weather.wind", statistic, faulty, 90)
    assert abs(one.value - one.median) > one.limit > 0


@pytest.mark.parametrize("moves", ["noise", "heavy tails", "season"])
def test_at_most_one_of_a_hundred_usual_days_is_unusual(moves: str) -> None:
    random = np.random.default_rng(0)
    series = [
        {
            "noise": random.normal(size=DAYS),
            "heavy tails": random.standard_t(5, size=DAYS),
            "season": np.linspace(0, 20, DAYS) + random.normal(size=DAYS),
        }[moves]
        for _ in range(5)
    ]
    assert sum(len(unusual({"mean": 10 + means})) for means in series) <= 0.01 * 5 * (DAYS - 30)


def test_few_partitions_and_few_rows_tell_nothing() -> None:
    values = np.full(DAYS, 10.0)
    values[15] = 50
    assert unusual({"mean": values}, after=1) == {}
    values[100] = 100
    assert list(unusual({"mean": values}, after=1)) == [FIRST + timedelta(days=100)]
    assert unusual({"mean": values}, rows=20) == {}
