"""The check `fresh_features` on predictions in a lake: shares of stale values are those of partitions, whatever their cadence."""

from collections.abc import Callable, Sequence
from datetime import date

import pytest
from late_inputs import INPUTS, SOLUTION

from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.predictions.prediction_checks import check_fresh_features

WINDOW = PartitionRange("day", date(2020, 3, 2), date(2020, 3, 16))
MONDAYS = ["2020-03-02", "2020-03-09"]
DAYS = [f"2020-03-{day:02}" for day in range(2, 16)]


@pytest.fixture(scope="module")
def lake(make_lake: Callable[[], Lake]) -> Lake:
    return make_lake()


@pytest.mark.parametrize(
    ("stale_days", "keys", "largest_share"),
    [
        # A quiet day is a tenth of its week.
        (["2020-03-08"], MONDAYS, 0.1),
        (["2020-03-08"], DAYS, 1.0),
        (["2020-03-13", "2020-03-14"], MONDAYS, 0.3),
        # Of both weeks together it would be the same share.
        (["2020-03-08", "2020-03-15"], MONDAYS, 0.1),
        ([], MONDAYS, 0.0),
    ],
)
def test_shares_are_those_of_partitions(lake: Lake, stale_days: Sequence[str], keys: Sequence[str], largest_share: float) -> None:
    stale = ", ".join(f"DATE '{day}'" for day in stale_days) or "NULL"
    with lake.connect(read_only=False) as connection:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SOLUTION}")
        # Ten rows on Sundays, fifteen on other days.
        connection.execute(
            f"CREATE OR REPLACE TABLE {SOLUTION}.predictions AS SELECT day || '-' || i AS id, day, CAST(day AS TIMESTAMPTZ) AS at_time, "
            "CAST(day AS TIMESTAMPTZ) AS _load_event_timestamp, "
            f"json_object('load', CASE WHEN day IN ({stale}) THEN 'stale' ELSE 'ok' END)::VARCHAR AS view_flags "
            f"FROM (SELECT CAST(DATE '{WINDOW.start}' + d::INTEGER AS DATE) AS day FROM range(14) r(d)), range(15) t(i) "
            "WHERE isodow(day) < 7 OR i < 10"
        )
        results = check_fresh_features(connection, INPUTS, WINDOW, keys=keys)
    shares = {result.partition: float(result.metadata["share_too_old"].value["load"]) for result in results}  # type: ignore[index, call-overload, arg-type]
    assert list(shares) == list(keys)
    assert max(shares.values()) == pytest.approx(largest_share)
    # Each partition by itself: one bad day is that day.
    assert {result.partition for result in results if not result.passed} == {key for key in keys if shares[key] > 0.2}
    [worst] = [result for result in results if shares[result.partition] == max(shares.values())][:1]
    assert worst.description == (None if worst.passed else f"values too old: load: {largest_share:.0%}")
