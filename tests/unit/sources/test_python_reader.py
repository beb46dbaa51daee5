"""What a reader in Python yields reaches the table as it is, or is refused: exact types, one schema, no content in an error."""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa
import pytest

from mlops_assets.schema.source import RawTable
from mlops_assets.sources.python_reader import Rejected, SourceFile, SourceQuery, file_reader, query_reader
from mlops_assets.sources.reader import PARSED, SourceError, parse

NANOSECONDS = 1_577_880_000_123_456_789


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, ...]]]:
    """The parsed rows of a file whose reader yields `items`, with the columns `columns`: values, source, reason, row."""

    def read(*items: Any, columns: dict[str, Any]) -> list[tuple[Any, ...]]:
        # Each of its own: a piece is imported once.
        name = f"own_readers_{uuid4().hex}"
        module = ModuleType(name)
        module.own = file_reader()(lambda file: iter(items))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
        (tmp_path / "f").touch()
        table = RawTable.model_validate({"description": "", "format": f"{name}:own", "files": ["f"], "columns": columns})
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        with parse(connection, table, directory=tmp_path, window=None):
            return connection.execute(f"FROM {PARSED}").fetchall()

    return read


@pytest.mark.parametrize(
    ("values", "stated", "expected", "reason"),
    [
        (pa.array([2**53 + 1]), "bigint", 2**53 + 1, None),
        (pa.array([2**53 + 1]), "double", None, "x: 9007199254740993 is no double"),
        (pa.array([2.5]), "integer", None, "x: 2.5 is no integer"),
        (pa.array([float("nan")]), "double", None, None),
        (pa.array([Decimal("0.10")]), "varchar", "0.10", None),
        (pa.array(["a"]).dictionary_encode(), "varchar", "a", None),
        (
            pa.array([NANOSECONDS], pa.timestamp("ns", tz="UTC")),
            "timestamptz",
            None,
            "x: 2020-01-01 12:00:00.123456789 is no timestamptz",
        ),
        (
            pa.array([NANOSECONDS // 1000], pa.timestamp("us", tz="UTC")),
            "timestamptz",
            datetime(2020, 1, 1, 12, 0, 0, 123456, tzinfo=UTC),
            None,
        ),
        (pa.array([1_000_000_001], pa.time64("ns")), "varchar", "00:00:01.000000001", None),
    ],
)
def test_a_value_keeps_all_its_digits_or_is_rejected(
    read: Callable[..., list[tuple[Any, ...]]], values: pa.Array, stated: str, expected: Any, reason: str | None
) -> None:
    [(value, source, found, _)] = read(pa.table({"x": values}), columns={"x": {"type": stated}})
    assert (value, source, found) == (expected, "f", reason)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([pa.table({"x": pa.array([Decimal(1)], pa.decimal256(60, 2))})], "column x has values of the type decimal256"),
        ([pa.table({"x": pa.array([1], pa.duration("ns"))})], "column x has values of the type duration"),
        ([pa.table({"x": [[None]]}).cast(pa.schema([("x", pa.list_(pa.time64("ns")))]))], "values of the type time64"),
        ([pa.table({"x": [None]})], "the column x has no type"),
        ([pa.table({"x": [1]}), pa.table({"x": ["a"]})], "different columns or types"),
        ([{"x": 1}], "yields dict; a reader yields tables of Arrow"),
        ([pa.table([[1], [2]], names=["x", "x"])], "several columns that are called x"),
        ([pa.table({"y": [1]})], "lacks the columns x (nearest: none). It has: y."),
    ],
)
def test_what_cannot_be_read_exactly_is_refused_by_name(
    read: Callable[..., list[tuple[Any, ...]]], items: list[Any], message: str
) -> None:
    with pytest.raises(SourceError) as refused:
        read(*items, columns={"x": {"type": "varchar"}})
    assert message in str(refused.value)


def test_tables_and_rejects_come_in_any_order_and_number(read: Callable[..., list[tuple[Any, ...]]]) -> None:
    rejects = [Rejected(f"record {number}", "is damaged", f"'{number}'") for number in range(2500)]
    rows = read(
        *rejects[:1], pa.table({"x": [1, 2]}), *rejects[1:], pa.record_batch({"x": [3]}), columns={"x": {"type": "integer"}}
    )
    assert [row[0] for row in rows if row[2] is None] == [1, 2, 3]
    assert len(rows) == 2503
    assert rows[-1][2:] == ("record 2499: is damaged", """{"content":"'2499'"}""")
    assert read(columns={"x": {"type": "integer"}}) == []


def test_an_error_names_the_line_of_the_reader_and_quotes_nothing(
    read: Callable[..., list[tuple[Any, ...]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(file: SourceFile) -> Iterator[pa.Table]:
        raise ValueError("the secret is 42")
        yield

    module = ModuleType("failing_readers")
    module.own = file_reader()(failing)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "failing_readers", module)
    (tmp_path / "f").touch()
    columns = {"x": {"type": "integer"}}
    table = RawTable.model_validate({"description": "", "format": "failing_readers:own", "files": ["f"], "columns": columns})
    with pytest.raises(SourceError) as failed, parse(duckdb.connect(), table, directory=tmp_path, window=None):
        pass
    assert "f: the reader failing_readers:own failed (ValueError in test_python_reader.py, line " in str(failed.value)
    assert "42" not in str(failed.value)
    assert failed.value.__cause__ is None


def test_a_reader_of_queries_gets_the_connection_string_and_the_dates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SourceQuery] = []

    def warehouse(query: SourceQuery, *, role: str) -> Iterator[pa.Table]:
        asked.append(query)
        yield pa.table({"x": [role]})

    module = ModuleType("query_readers")
    module.warehouse = query_reader()(warehouse)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "query_readers", module)
    monkeypatch.setenv("WAREHOUSE", "warehouse://x")
    query = {"database": "query_readers:warehouse", "url_variable": "WAREHOUSE", "sql": "SELECT 1;"}
    declared = {"description": "", "query": query, "options": {"role": "analyst"}, "columns": {"x": {"type": "varchar"}}}
    connection = duckdb.connect()
    with parse(connection, RawTable.model_validate(declared), directory=tmp_path, window=None):
        assert connection.execute(f"SELECT x, * EXCLUDE x FROM {PARSED}").fetchall() == [("analyst", "WAREHOUSE", None, None)]
    assert asked == [SourceQuery("warehouse://x", "SELECT 1", {"x": "varchar"})]
