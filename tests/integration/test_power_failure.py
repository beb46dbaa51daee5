"""What is left after a power failure: what was acknowledged, unless the installation is `buffered`."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from lake_in_folder import lake_in_folder
from power_failure import DiskWithoutPower, disk
from prediction_records import prediction_record

from mlops_assets.core.settings import DURABILITIES, Settings
from mlops_assets.local.durability import make_durable
from mlops_assets.serving.spool import SpoolWriter, segments

PREDICTIONS = 120


@pytest.fixture
def disk_without_power(tmp_path: Path) -> Iterator[DiskWithoutPower]:
    with disk(tmp_path) as made:
        yield made


def settings_on(disk: DiskWithoutPower, durability: str) -> Settings:
    settings = Settings(home=disk.before / "state", durability=durability)
    assert make_durable(settings) == []
    return settings


@pytest.mark.parametrize("durability", DURABILITIES)
def test_the_rows_of_a_table_that_the_catalog_names_are_there(
    disk_without_power: DiskWithoutPower, tmp_path: Path, durability: str
) -> None:
    lake = settings_on(disk_without_power, durability).lake_directory
    # The catalog is on another disk, whose power does not fail: it knows every commit.
    with lake_in_folder(tmp_path, files=lake) as connection:
        connection.execute("CREATE TABLE days AS SELECT range AS day, hash(range) AS value FROM range(100_000)")
        connection.execute("INSERT INTO days SELECT range, hash(range) FROM range(100_000, 100_500)")
        connection.execute("DELETE FROM days WHERE day = 7")
    after = disk_without_power.cut() / "state" / "lake"
    with lake_in_folder(tmp_path, files=after) as connection:
        if durability == "buffered":
            # So much a power failure can take: nothing of this test is proved without it.
            with pytest.raises(duckdb.Error, match=r"too small to be a Parquet file|Cannot open file"):
                connection.execute("SELECT sum(day) FROM days").fetchone()
        else:
            assert connection.execute("SELECT sum(day) FROM days").fetchone() == (sum(range(100_500)) - 7,)


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_prediction_that_was_answered_is_in_the_spool(disk_without_power: DiskWithoutPower, durability: str) -> None:
    spool = settings_on(disk_without_power, durability).spool_directory / "problem"
    records = [prediction_record(number) for number in range(PREDICTIONS)]
    with SpoolWriter(spool, durable=durability == "fsync") as writer:
        for record in records:
            writer.append(record)
        after = disk_without_power.cut()
    kept = [line for segment in segments(after / spool.relative_to(disk_without_power.before)) for line in segment.read(1 << 20)]
    assert len([line for line in kept if line.payload is not None]) == (PREDICTIONS if durability == "fsync" else 0)
