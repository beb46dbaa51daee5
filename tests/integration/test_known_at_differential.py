"""Features and datasets of random small worlds against a row-by-row reference in plain Python: what was known at the time, and nothing else.

Raw events arrive late, twice, corrected and withdrawn, with missing places and values, around a change of the clock; days stay empty.
A view, a training dataset and the online store are built after each delivery, and compared value by value.
`MLOPS_DIFFERENTIAL_EXAMPLES` sets how many worlds are tried: a few by default, 200 take about ten minutes.
"""

import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from late_inputs import DECLARED, model

from mlops_assets.feature_store.point_in_time import SelectedView
from mlops_assets.feature_store.registry import FeatureView
from mlops_assets.features.online_push import push_view
from mlops_assets.lake.lake import Lake, PartitionRange, current_snapshot, sql_moment
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.online_store.store import FeatureRequest
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.training_dataset import split_query, training_frame

ZONE = ZoneInfo("Europe/Berlin")
FIRST, END = date(2024, 3, 25), date(2024, 4, 8)
"""The clock changes on 31 March."""
WHOLE = PartitionRange("day", FIRST, END)
START = datetime(2024, 3, 27, tzinfo=UTC)
TRAINING_DATE, WINDOW, HOLDOUT = date(2024, 4, 4), 7, 3
FRESHNESS, HISTORY = timedelta(days=2), timedelta(days=2)
PLACES = ("a", "b", None)
NAN = math.nan
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Event:
    """Something that happened at a place and became known later."""

    number: int
    place: str | None
    happened: datetime
    known: datetime
    value: float | None

    @property
    def day(self) -> date:
        return self.known.astimezone(ZONE).date()


@dataclass(frozen=True)
class Asked:
    """A row of the spine."""

    number: int
    place: str | None
    at: datetime
    label: int | None
    label_known: datetime

    @property
    def day(self) -> date:
        return self.at.astimezone(ZONE).date()


@dataclass(frozen=True)
class Row:
    """A row of the view: events of the last two days as known at a moment."""

    place: str
    moment: datetime
    events: int
    total: float | None
    newest: float | None


# Coarse moments meet each other, and the hours around midnight in UTC and in the zone.
MOMENTS = st.one_of(
    st.integers(0, 9 * 24).map(lambda hours: START + timedelta(hours=hours)),
    st.integers(0, 9 * 24 * 3600 * 1_000_000 - 1).map(lambda microseconds: START + timedelta(microseconds=microseconds)),
)
EVENTS = st.builds(
    lambda number, place, happened, late, value: Event(number, place, happened, happened + late, value),
    st.integers(0, 12),
    st.sampled_from(PLACES),
    MOMENTS,
    st.sampled_from(
        [timedelta(0), timedelta(hours=1), timedelta(hours=30), timedelta(days=2), timedelta(days=2, microseconds=1)]
    ),
    st.sampled_from([None, NAN, 0.0, 1.0, -2.5, 7.0]),
)
ASKED = st.builds(
    lambda place, at, label, after: Asked(0, place, at, label, at + after),
    st.sampled_from(PLACES),
    MOMENTS,
    st.sampled_from([None, 0, 1]),
    st.sampled_from([timedelta(hours=1), timedelta(days=1), timedelta(days=3)]),
)
DELIVERIES = st.lists(st.lists(EVENTS, max_size=12), min_size=1, max_size=3)


def missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


# The reference: one row after the other.


def delivered(former: Sequence[Event], delivery: Sequence[Event]) -> list[Event]:
    """The raw rows after a delivery: it replaces the days that it holds, and a repeated row counts once."""
    days = {event.day for event in delivery}
    kept = [event for event in former if event.day not in days]
    rows: dict[Any, Event] = {}
    for event in [*kept, *delivery]:
        rows.setdefault((event.number, event.place, event.happened, event.known, repr(event.value)), event)
    return list(rows.values())


def view_rows(events: Sequence[Event]) -> list[Row]:
    """The rows of the view: one for each place and moment at which something became known."""
    rows = []
    for place, moment in {(event.place, event.known) for event in events if event.place is not None}:
        known = [e for e in events if e.place == place and e.known <= moment and e.happened > moment - HISTORY]
        values = [event.value for event in known if event.value is not None and not missing(event.value)]
        newest = max(
            known, key=lambda e: (e.happened, e.known, e.number, -math.inf if missing(e.value) else e.value), default=None
        )
        last = newest.value if newest and not missing(newest.value) else None
        rows.append(Row(str(place), moment, len(known), math.fsum(values) if values else None, last))
    return rows


def as_known(rows: Sequence[Row], place: str | None, at: datetime) -> tuple[Any, ...]:
    """The features of a place at a moment, and since when they were known."""
    found = [row for row in rows if row.place == place and row.moment <= at]
    if not found:
        return (None, None, None, None)
    row = max(found, key=lambda each: each.moment)
    if at - row.moment > FRESHNESS:
        return (None, None, None, row.moment)
    return (row.events, row.total, row.newest, row.moment)


def split_of(asked: Asked) -> str | None:
    """The split of a row in the dataset of `TRAINING_DATE`; None when it is in none."""
    cutoff, start, holdout = (
        datetime.combine(TRAINING_DATE - timedelta(days=days), datetime.min.time(), ZONE) for days in (0, WINDOW, HOLDOUT)
    )
    if asked.label is None or not start <= asked.at < cutoff or asked.label_known >= cutoff:
        return None
    if asked.at < holdout:
        return "train" if asked.label_known < holdout else None
    return "holdout"


# The platform.


def view_of(number: int) -> FeatureView:
    columns = ["place", "moment", "day", "events", "total", "newest", "_loaded_at"]
    return FeatureView(
        model=model(f"load{number}", f"features.load{number}", columns, "day"),
        version=1,
        entity=("place",),
        event_timestamp="moment",
        freshness_days=FRESHNESS.days,
        owner=None,
    )


def inputs_of(number: int) -> SolutionInputs:
    declared = {
        **DECLARED,
        "partitions": {"column": "day", "start": FIRST, "end": END, "time_zone": ZONE.key},
        "features": [{"view": f"load{number}"}],
        "training": {**DECLARED["training"], "window": f"{WINDOW}d", "holdout": f"{HOLDOUT}d"},  # type: ignore[dict-item]
    }
    spine = model("spine", f"world{number}.spine", ["id", "day", "at_time", "place", "was_late", "known_at"], "day")
    view = view_of(number)
    return SolutionInputs(
        solution=Solution.model_validate(declared),
        spine=spine,
        views=(SelectedView(view, view.features),),
        request=(),
        derived={},
    )


def literal(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case str():
            return f"'{value}'"
        case datetime():
            return sql_moment(value)
        case date():
            return f"DATE '{value}'"
        case float():
            return f"'{value!r}'::DOUBLE"
    return str(value)


def table(rows: Sequence[Sequence[Any]], **types: str) -> str:
    """SQL for rows with these columns."""
    columns = ", ".join(f"CAST(c{position} AS {kind}) AS {name}" for position, (name, kind) in enumerate(types.items()))
    values = ", ".join(f"({', '.join(map(literal, row))})" for row in rows or [[None] * len(types)])
    names = ", ".join(f"c{position}" for position in range(len(types)))
    return f"SELECT {columns} FROM (VALUES {values}) r({names}){'' if rows else ' WHERE false'}"


def deliver(lake: Lake, connection: duckdb.DuckDBPyConnection, number: int, delivery: Sequence[Event]) -> None:
    """Replace the days of the delivery in the raw table."""
    types = {
        "number": "INTEGER",
        "place": "VARCHAR",
        "happened": "TIMESTAMPTZ",
        "known": "TIMESTAMPTZ",
        "value": "DOUBLE",
        "day": "DATE",
    }
    for day in sorted({event.day for event in delivery}) or [FIRST]:
        rows = [(e.number, e.place, e.happened, e.known, e.value, e.day) for e in delivery if e.day == day]
        lake.replace(
            connection,
            table=f"raw.events{number}",
            query=f"SELECT DISTINCT * FROM ({table(rows, **types)})",
            partition_range=PartitionRange("day", day, day + timedelta(days=1)),
            author="test",
        )


def build_view(lake: Lake, connection: duckdb.DuckDBPyConnection, number: int) -> int:
    """Build the view of all days from the raw table. Returns the snapshot."""
    raw = f"(SELECT * REPLACE (nullif(value, 'nan'::DOUBLE) AS value) FROM lake.raw.events{number} WHERE place IS NOT NULL)"
    order = "e.happened, e.known, e.number, coalesce(e.value, '-inf'::DOUBLE)"
    lake.replace(
        connection,
        table=f"features.load{number}",
        query=(
            f"SELECT m.place, m.moment, CAST(timezone('{ZONE.key}', m.moment) AS DATE) AS day, count(e.number)::BIGINT AS events, "
            f"sum(e.value) AS total, (arg_max(row(e.value), ({order})))[1] AS newest, now() AS _loaded_at "
            f"FROM (SELECT DISTINCT place, known AS moment FROM {raw}) m LEFT JOIN {raw} e "
            f"ON e.place = m.place AND e.known <= m.moment AND e.happened > m.moment - INTERVAL {HISTORY.days} DAY GROUP BY ALL"
        ),
        partition_range=WHOLE,
        author="test",
    )
    return current_snapshot(connection)


def dataset_of(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, snapshot: int, *, in_parts: bool
) -> list[tuple[Any, ...]]:
    """The training dataset of a snapshot, as one statement or in parts of a few rows."""
    frame = training_frame(inputs, TRAINING_DATE, snapshot)
    known = inputs.views[0].known_since
    found = []
    for query in frame.built(connection, 9) if in_parts else [frame.query]:
        found += connection.execute(
            f"SELECT split, id, events, total, newest, {known} FROM ({split_query(inputs, TRAINING_DATE, query)})"
        ).fetchall()
    return sorted(found, key=lambda row: row[1])


@pytest.fixture(scope="module")
def lake(make_lake: Callable[[], Lake]) -> Lake:
    return make_lake()


@settings(
    max_examples=int(os.environ.get("MLOPS_DIFFERENTIAL_EXAMPLES", "4")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(deliveries=DELIVERIES, spine=st.lists(ASKED, min_size=1, max_size=14))
def test_features_are_those_that_were_known_at_the_time(
    lake: Lake, tmp_path_factory: pytest.TempPathFactory, deliveries: list[list[Event]], spine: list[Asked]
) -> None:
    number = next(_NUMBERS)
    inputs, view = inputs_of(number), view_of(number)
    rows = [replace(asked, number=position) for position, asked in enumerate(spine)]
    store = LmdbStore(tmp_path_factory.mktemp("store"))
    events: list[Event] = []
    states: list[tuple[int, list[tuple[Any, ...]]]] = []
    with lake.connect(read_only=False) as connection:
        connection.execute(f"CREATE SCHEMA world{number}")
        types = {
            "id": "BIGINT",
            "day": "DATE",
            "at_time": "TIMESTAMPTZ",
            "place": "VARCHAR",
            "was_late": "BIGINT",
            "known_at": "TIMESTAMPTZ",
        }
        described = [(row.number, row.day, row.at, row.place, row.label, row.label_known) for row in rows]
        connection.execute(f"CREATE TABLE world{number}.spine AS {table(described, **types)}")
        for delivery in deliveries:
            deliver(lake, connection, number, delivery)
            snapshot = build_view(lake, connection, number)
            events = delivered(events, delivery)
            known = view_rows(events)

            built = connection.execute(
                f"SELECT place, moment, events, total, newest FROM features.load{number} ORDER BY ALL"
            ).fetchall()
            assert [Row(*row) for row in built] == sorted(known, key=lambda row: (row.place, row.moment))

            expected = [(split, row.number, *as_known(known, row.place, row.at)) for row in rows if (split := split_of(row))]
            assert dataset_of(connection, inputs, snapshot, in_parts=False) == expected
            assert dataset_of(connection, inputs, snapshot, in_parts=True) == expected
            states.append((snapshot, expected))

            push_view(connection, store, view, snapshot=snapshot, rebuild=False)
            check_online(store, view, known, rows)
        # What came later changes nothing of a dataset that is built again.
        for snapshot, expected in states:
            assert dataset_of(connection, inputs, snapshot, in_parts=False) == expected


def check_online(store: LmdbStore, view: FeatureView, known: Sequence[Row], rows: Sequence[Asked]) -> None:
    """The store gives the newest values of each place, unless they are too old at the moment that is asked for."""
    for asked in rows:
        [found] = store.read([FeatureRequest(view.name, 1, None)], [{"place": asked.place}], asked.at)
        newest = max((row for row in known if row.place == asked.place), key=lambda row: row.moment, default=None)
        values, flag = tuple(found.values.values()), found.views[view.name].flag
        if asked.place is None:
            assert (values, flag) == ((None, None, None), "wrong_key")
        elif newest is None:
            assert (values, flag) == ((None, None, None), "missing")
        elif asked.at - newest.moment > FRESHNESS:
            assert (values, flag) == ((None, None, None), "stale")
        else:
            assert values == (newest.events, newest.total, newest.newest)
            assert flag == ("newer" if newest.moment > asked.at else "ok")
            if newest.moment <= asked.at:
                assert values == as_known(known, asked.place, asked.at)[:3]
