"""Readers of sources against plain Python: every value of random files is the same, or its row is rejected for the reason that it must be.

`MLOPS_EXAMPLES=100` makes it a search for faults of some hours.
"""

import json
import math
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import psycopg2
import pytest
from examples import examples
from http_files import serve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_strategies import Delivery, OfRead, csv_deliveries, json_deliveries, parquet_deliveries, postgres_deliveries

from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY
from mlops_assets.schema.source import RawTable
from mlops_assets.sources.reader import PARSED, REASON, ROW, SourceError, parse

thorough = settings(
    max_examples=examples(20),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large, HealthCheck.too_slow],
)
# Not the zone of the times: nothing may depend on the session's.
CONNECTION = duckdb.connect(config={"threads": 1, "extension_directory": str(DUCKDB_EXTENSION_DIRECTORY)})
CONNECTION.execute("SET TimeZone = 'America/New_York'")


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, float):
        return (found == wanted and math.copysign(1, found) == math.copysign(1, wanted)) or found == wanted == 0
    if isinstance(wanted, datetime) and wanted.tzinfo:
        return isinstance(found, datetime) and found.astimezone(UTC) == wanted
    if isinstance(wanted, str) and isinstance(found, str):
        return wanted == found or is_same_float(found, wanted)
    return type(found) is type(wanted) and found == wanted


def is_same_float(found: str, wanted: str) -> bool:
    """Whether two texts are two ways to print one large or small double."""
    return "e" in found and "e" in wanted and float(found) == float(wanted)


def check(delivery: Delivery, folder: Path) -> None:
    """Read the delivery and compare it, row by row."""
    names = list(delivery.table["columns"])
    columns = ", ".join(
        f"epoch_us({name})" if delivery.table["columns"][name]["type"] == "timestamptz" else name for name in names
    )
    with parse(CONNECTION, RawTable.model_validate(delivery.table), directory=folder, window=None):
        accepted = CONNECTION.execute(f"SELECT {columns} FROM {PARSED} WHERE {REASON} IS NULL").fetchall()
        rejected = CONNECTION.execute(f"SELECT {REASON}, {ROW}, n FROM {PARSED} WHERE {REASON} IS NOT NULL").fetchall()
    found = {row[0]: row[1:] for row in accepted}
    assert len(found) == len(accepted)
    assert found.keys() == delivery.accepted.keys(), (rejected, delivery.rejected)
    for number, wanted in delivery.accepted.items():
        read = dict(zip(names[1:], found[number], strict=True))
        for (name, value), expected in zip(read.items(), wanted, strict=True):
            if isinstance(expected, OfRead):
                expected = expected.compute(read[expected.base])
            if isinstance(expected, datetime) and expected.tzinfo and isinstance(value, int):
                expected = (expected - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)
            assert same(value, expected), (delivery.table["columns"][name], value, expected)
    reasons = {number: reason for reason, _, number in rejected if number is not None}
    assert reasons.keys() == delivery.rejected.keys()
    for number, expected_reasons in delivery.rejected.items():
        # Of values without a text of their own the reason is checked up to the value.
        rest = reasons[number]
        for reason in expected_reasons:
            assert reason in rest, (rest, expected_reasons)
    assert sum(number is None for _, _, number in rejected) == delivery.malformed
    assert all(isinstance(json.loads(row), dict) for _, row, _ in rejected if "NaN" not in row and "Infinity" not in row)


@thorough
@given(data=st.data())
def test_csv(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(data.draw(csv_deliveries(Path(folder))), Path(folder))


@thorough
@given(data=st.data())
def test_json(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(data.draw(json_deliveries(Path(folder))), Path(folder))


@thorough
@given(data=st.data())
def test_parquet(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(data.draw(parquet_deliveries(Path(folder))), Path(folder))


@thorough
@given(data=st.data())
def test_urls(data: st.DataObject) -> None:
    """The same of files that a server hands out, and a reject or an error, never other rows, where an answer is cut off or refused."""
    deliveries = data.draw(st.sampled_from([csv_deliveries, json_deliveries, parquet_deliveries]))
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as server:
        server.has_ranges = data.draw(st.booleans())
        delivery = data.draw(deliveries(Path(folder)))
        names = delivery.table["files"]
        delivery.table["files"] = [server.url(quote(name)) for name in names]
        fault = data.draw(st.sampled_from([None, None, None, "cut", "absent"]))
        name = data.draw(st.sampled_from(names))
        # Of an empty file nothing can be cut off.
        if fault is None or (fault == "cut" and not (Path(folder) / name).stat().st_size):
            check(delivery, Path())
            return
        if fault == "cut":
            server.cut.add(name)
        else:
            (Path(folder) / name).unlink()
        expected = (ConnectionError, "did not arrive whole") if fault == "cut" else (SourceError, "the server answers 404")
        with (
            pytest.raises(expected[0], match=expected[1]),
            parse(CONNECTION, RawTable.model_validate(delivery.table), directory=Path(), window=None),
        ):
            pass


@pytest.fixture(scope="module")
def source_database(create_database: Callable[[str], str]) -> str:
    return create_database("reader_properties")


@thorough
@given(data=st.data())
def test_postgres(source_database: str, data: st.DataObject) -> None:
    delivery, sql = data.draw(postgres_deliveries("READER_PROPERTIES_URL"))
    connection = psycopg2.connect(source_database)
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
    connection.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("READER_PROPERTIES_URL", source_database)
        check(delivery, Path())
