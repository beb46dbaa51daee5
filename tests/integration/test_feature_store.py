"""The point-in-time join against a brute-force reading of its rule, on small random tables."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.feature_store.point_in_time import STALE_DAYS, Frame, SelectedView, point_in_time_query
from mlops_assets.feature_store.registry import DbtModel, FeatureView
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import literal

START = datetime(2020, 1, 10, tzinfo=UTC)
FRESHNESS_DAYS = 2
Event = tuple[str | None, int | None, datetime, int | None]
Asked = tuple[str | None, int | None, datetime]


@pytest.fixture(scope="module")
def connection(make_lake: Callable[[], Lake]) -> Iterator[duckdb.DuckDBPyConnection]:
    with make_lake().connect(read_only=False) as opened:
        opened.execute("CREATE SCHEMA lake.features")
        opened.execute("CREATE TABLE lake.features.events (a VARCHAR, b INTEGER, at_time TIMESTAMPTZ, day DATE, value INTEGER)")
        opened.execute("CREATE TABLE lake.features.static (a VARCHAR, size INTEGER)")
        opened.execute("INSERT INTO lake.features.static VALUES ('x', 1), ('y', NULL)")
        opened.execute("CREATE TEMP TABLE asked (number INTEGER, a VARCHAR, b INTEGER, asked_at TIMESTAMPTZ)")
        yield opened


def view(name: str, columns: list[str], entity: tuple[str, ...], **times: Any) -> SelectedView:
    model = DbtModel(
        name=name,
        table=f"features.{name}",
        description="",
        columns=dict.fromkeys(columns, ""),
        column_descriptions={},
        partition_column=times.get("partition_column"),
    )
    made = FeatureView(
        model=model,
        version=1,
        entity=entity,
        event_timestamp=times.get("event_timestamp"),
        freshness_days=times.get("freshness_days"),
        owner=None,
    )
    return SelectedView(view=made, features=made.features)


def events_view(freshness_days: int | None) -> SelectedView:
    return view(
        "events",
        ["a", "b", "at_time", "day", "value"],
        ("a", "b"),
        event_timestamp="at_time",
        partition_column="day",
        freshness_days=freshness_days,
    )


STATIC = view("static", ["a", "size"], ("a",))


def latest_snapshot(connection: duckdb.DuckDBPyConnection) -> int:
    return int(connection.execute("FROM lake.current_snapshot()").fetchall()[0][0])


def join(
    connection: duckdb.DuckDBPyConnection, asked: list[Asked], events: list[Event], freshness_days: int | None
) -> list[tuple[Any, ...]]:
    connection.execute("BEGIN; DELETE FROM temp.asked; DELETE FROM lake.features.events")
    for number, (a, b, moment) in enumerate(asked):
        connection.execute("INSERT INTO temp.asked VALUES (?, ?, ?, ?)", [number, a, b, moment])
    for a, b, moment, value in events:
        # A partition is the date in the data's own time zone, here five hours behind UTC.
        day = (moment - timedelta(hours=5)).date()
        connection.execute("INSERT INTO lake.features.events VALUES (?, ?, ?, ?, ?)", [a, b, moment, day, value])
    connection.execute("COMMIT")
    frame = Frame(
        spine="FROM temp.asked",
        prediction_time="asked_at",
        views=(events_view(freshness_days), STATIC),
        first=min((moment for _, _, moment in asked), default=START).date(),
        last=max((moment for _, _, moment in asked), default=START).date(),
        snapshot=latest_snapshot(connection),
    )
    found = connection.execute(f"FROM ({frame.query}) ORDER BY number").fetchall()
    assert sorted(row for part in frame.built(connection) for row in connection.execute(part).fetchall()) == found
    parts = [row for part in frame.built(connection, 2) for row in connection.execute(part).fetchall()]
    assert sorted(parts) == found
    return [(number, value, known, size) for number, _, _, _, value, known, size in found]


def expected(asked: Asked, events: list[Event], freshness_days: int | None) -> tuple[int | None, datetime | None]:
    """The value and since when it is known."""
    a, b, moment = asked
    known = [(at_time, value) for key, other, at_time, value in events if (key, other) == (a, b) and at_time <= moment]
    if not known or a is None or b is None:
        return None, None
    at_time, value = max(known, key=lambda event: event[0])
    too_old = timedelta(0) if freshness_days is None else moment - at_time - timedelta(days=freshness_days)
    return None if too_old > timedelta(0) else value, None if too_old > timedelta(days=STALE_DAYS) else at_time


moments = st.builds(
    lambda hours, microseconds: START + timedelta(hours=hours, microseconds=microseconds),
    st.integers(-80, 40) | st.integers(-400, -80),
    st.sampled_from([0, 0, 1]),
)
first_key, second_key = st.sampled_from(["x", "y", "it's", None]), st.sampled_from([1, 2, None])
events_strategy = st.lists(
    st.tuples(first_key, second_key, moments, st.none() | st.integers(0, 9)), max_size=12, unique_by=lambda event: event[:3]
)


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.tuples(first_key, second_key, moments), min_size=1, max_size=6),
    events=events_strategy,
    freshness_days=st.sampled_from([None, FRESHNESS_DAYS]),
    zone=st.sampled_from(["UTC", "America/New_York", "Pacific/Auckland"]),
)
def test_the_join_is_the_newest_fresh_row_known_at_prediction(
    connection: duckdb.DuckDBPyConnection, asked: list[Asked], events: list[Event], freshness_days: int | None, zone: str
) -> None:
    connection.execute(f"SET TimeZone = '{zone}'")
    found = join(connection, asked, events, freshness_days)
    assert [(number, value, known) for number, value, known, _ in found] == [
        (number, *expected(one, events, freshness_days)) for number, one in enumerate(asked)
    ]
    assert [size for *_, size in found] == [1 if a == "x" else None for a, _, _ in asked]
    assert all(known is None or known <= asked[number][2] for number, _, known, _ in found)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (timedelta(0), 7),
        (timedelta(microseconds=1), None),
        (-timedelta(days=FRESHNESS_DAYS), 7),
        (-timedelta(days=FRESHNESS_DAYS, microseconds=1), None),
    ],
)
def test_the_edges_of_knowledge(connection: duckdb.DuckDBPyConnection, offset: timedelta, value: int | None) -> None:
    [(_, found, _, _)] = join(connection, [("x", 1, START)], [("x", 1, START + offset, 7)], FRESHNESS_DAYS)
    assert found == value


def test_a_newer_null_hides_an_older_value(connection: duckdb.DuckDBPyConnection) -> None:
    events: list[Event] = [("x", 1, START - timedelta(hours=2), 7), ("x", 1, START - timedelta(hours=1), None)]
    [(_, found, known, _)] = join(connection, [("x", 1, START)], events, FRESHNESS_DAYS)
    assert found is None
    assert known == START - timedelta(hours=1)


def test_only_partitions_that_can_matter_are_read() -> None:
    query = point_in_time_query(
        spine="FROM temp.asked",
        prediction_time="asked_at",
        views=[events_view(FRESHNESS_DAYS)],
        first=date(2020, 1, 10),
        last=date(2020, 1, 11),
        snapshot=3,
    )
    assert "AT (VERSION => 3)" in query
    assert "\"day\" <= DATE '2020-01-11' + 1" in query
    assert f"\"day\" >= DATE '2020-01-10' - {FRESHNESS_DAYS + STALE_DAYS + 2}" in query


def test_a_later_correction_does_not_count(connection: duckdb.DuckDBPyConnection) -> None:
    join(connection, [("x", 1, START)], [("x", 1, START, 7)], None)
    before = latest_snapshot(connection)
    connection.execute("UPDATE lake.features.events SET value = 8")
    values = [
        connection.execute(
            point_in_time_query(
                spine="FROM temp.asked",
                prediction_time="asked_at",
                views=[events_view(None)],
                first=START.date(),
                last=START.date(),
                snapshot=snapshot,
            )
        ).fetchall()[0][4]
        for snapshot in (before, latest_snapshot(connection))
    ]
    assert values == [7, 8]


def test_parts_follow_each_other_in_time_and_lose_no_row(connection: duckdb.DuckDBPyConnection) -> None:
    moments = [START + timedelta(hours=7 * number) for number in range(20)] + [None]
    values = ", ".join(
        f"({number}, {literal(str(moment)) if moment else 'NULL'}::TIMESTAMPTZ)" for number, moment in enumerate(moments)
    )
    frame = Frame(
        spine=f"SELECT number, 'x' AS a, asked_at FROM (VALUES {values}) t (number, asked_at)",
        prediction_time="asked_at",
        views=(STATIC,),
        first=START.date(),
        last=START.date() + timedelta(days=7),
        snapshot=latest_snapshot(connection),
    )
    parts = [connection.execute(part).fetchall() for part in frame.built(connection, 8)]
    assert len(parts) == 3
    assert [row for part in parts for row in part] == [(number, "x", moment, 1) for number, moment in enumerate(moments)]
