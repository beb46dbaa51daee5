"""Parquet files with values that DuckDB cannot hold, and broken ones."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_rows import read

from mlops_assets.sources.reader import SourceError


def test_the_folder_of_a_parquet_file_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "b=2").mkdir()
    pq.write_table(pa.table({"a": [1], "b": ["1"]}), tmp_path / "b=2" / "f.parquet")
    assert read(tmp_path, "b=2/f.parquet", format="parquet") == [(1, "1")]
    with pytest.raises(SourceError, match="the folder and the file both have a column b"):
        read(tmp_path, "b=2/f.parquet", format="parquet", options={"hive_partitioning": True})
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b=2" / "f.parquet")
    assert read(tmp_path, "b=2/f.parquet", format="parquet", options={"hive_partitioning": True}) == [(1, "2")]


def test_what_duckdb_cannot_hold_exactly(tmp_path: Path) -> None:
    table = {"a": pa.array([1], pa.time64("ns")), "b": pa.array([[Decimal("0.50")]], pa.list_(pa.decimal128(2, 2)))}
    table["d"] = pa.array([Decimal("-0.50")], pa.decimal128(2, 2))
    pq.write_table(pa.table(table | {"c": pa.array([Decimal("1.5")], pa.decimal256(50, 3))}), tmp_path / "f.parquet")
    columns = {"a": {"type": "varchar"}, "b": {"type": "varchar"}, "d": {"type": "varchar"}}
    assert read(tmp_path, "f.parquet", format="parquet", columns=columns) == [("00:00:00.000000001", '[".50"]', "-0.50")]
    with pytest.raises(SourceError, match=r"f\.parquet: the numbers of the column c have more than 38 digits"):
        read(tmp_path, "f.parquet", format="parquet", columns={"c": {"type": "varchar"}})


def test_nanoseconds_are_kept_or_named(tmp_path: Path) -> None:
    columns = {"a": {"type": "timestamptz"}}
    pq.write_table(pa.table({"a": pa.array([1_000, 1_001], pa.timestamp("ns", "UTC"))}), tmp_path / "f.parquet")
    rows = read(tmp_path, "f.parquet", format="parquet", columns=columns)
    assert len(rows) == 2
    assert rows[1] == ("a: 1970-01-01 00:00:00.000001001 is no timestamptz",)
    for nanoseconds, is_right in ((5_000, True), (5_001, False)):
        table = pa.table({"a": pa.array([nanoseconds, None], pa.timestamp("ns"))})
        pq.write_table(table, tmp_path / "old.parquet", use_deprecated_int96_timestamps=True)
        if is_right:
            assert len(read(tmp_path, "old.parquet", format="parquet", columns=columns)) == 2
        else:
            with pytest.raises(SourceError, match=r"old\.parquet: the times of the column a \(INT96\) have nanoseconds"):
                read(tmp_path, "old.parquet", format="parquet", columns=columns)


@pytest.mark.parametrize("spoil", [lambda content: content[:-20], lambda content: content[:4] + b"\0" * 40 + content[44:]])
def test_a_broken_parquet_file_is_an_error_without_its_content(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    pq.write_table(pa.table({"a": [1, 2], "b": ["S3CRET", "S3CRET"]}), tmp_path / "f.parquet")
    (tmp_path / "f.parquet").write_bytes(spoil((tmp_path / "f.parquet").read_bytes()))
    with pytest.raises(SourceError, match=r"f\.parquet: it cannot be read as parquet") as caught:
        read(tmp_path, "f.parquet", format="parquet")
    assert "S3CRET" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_decimal_that_a_double_cannot_hold_is_rejected(tmp_path: Path) -> None:
    # DuckDB makes the nearest double of the first, 14411518807585588, the same decimal again: it multiplies in doubles.
    numbers = [Decimal("14411518807585587.2"), Decimal("14411518807585588.0"), Decimal("-9007199254740994"), Decimal("0.1"), None]
    pq.write_table(pa.table({"a": pa.array(numbers, pa.decimal128(18, 1))}), tmp_path / "f.parquet")
    rows = read(tmp_path, "f.parquet", format="parquet", columns={"a": {"type": "double"}})
    assert rows[:4] == [(14411518807585588.0,), (-9007199254740994.0,), (0.1,), (None,)]
    assert rows[4:] == [("a: 14411518807585587.2 is no double",)]
