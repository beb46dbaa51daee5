from datetime import date

import dagster as dg

from mlops_assets.feature_store.unusual_statistics import UnusualStatistic
from mlops_assets.features.statistics_checks import check_usual_values

KEY = dg.AssetKey(["features", "weather_statistics"])


def test_each_partition_has_its_outcome_and_the_farthest_is_told_first() -> None:
    near = UnusualStatistic("weather.wind", "mean", value=12.0, median=10.0, limit=1.9, partitions=90)
    far = UnusualStatistic("weather.pressure", "missing_share", value=0.5, median=0.0, limit=0.05, partitions=90)
    usual, unusual = check_usual_values(KEY, {date(2024, 1, 1): [], date(2024, 1, 2): [near, far]})
    assert (usual.partition, usual.passed, usual.description) == ("2024-01-01", True, None)
    assert (unusual.partition, unusual.passed, unusual.severity) == ("2024-01-02", False, dg.AssetCheckSeverity.WARN)
    assert unusual.description == (
        "weather.pressure: missing share 0.5, farther from 0 than in each of 90 partitions before; "
        "weather.wind: mean 12, farther from 10 than in each of 90 partitions before"
    )
    assert unusual.metadata["unusual"].value == 2
