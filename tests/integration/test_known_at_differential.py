"""Features and datasets of random small worlds against a row-by-row reference in plain Python: what was known at the time, and nothing else.

Raw events arrive in files of all formats, late, twice, corrected and broken, with missing places and values, around a change of the clock;
days stay empty. The raw table is materialized; a view, a training dataset and the online store are built after each delivery, and all
four compared value by value. A few worlds in `make test`, more in `make test-all`, a search with `MLOPS_EXAMPLES=50`.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from event_files import STYLES, ZONE, Event, Style, write_events
from examples import examples
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from late_inputs import DECLARED, model

from mlops_assets.feature_store.point_in_time import STALE_DAYS, SelectedView
from mlops_assets.feature_store.registry import FeatureView
from mlops_assets.features.online_push import push_view
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import sql_moment
from mlops_assets.lake.tables import current_snapshot
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.online_store.store import FeatureRequest
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import Source
from mlops_assets.sources.raw_tables import build_raw_assets
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.training_frame import split_query, training_frame

WINDOW, HOLDOUT = 7, 3
FRESHNESS, HISTORY = timedelta(days=2), timedelta(days=2)
PLACES = ("a", "Süd", None)
NAN = math.nan
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Season:
    """Two weeks from the Monday `first`."""

    first: date

    @property
    def end(self) -> date:
        return self.first + timedelta(days=14)

    @property
    def start(self) -> datetime:
        """When the first event may happen."""
        return datetime.combine(self.first + timedelta(days=2), datetime.min.time(), UTC)

    @property
    def training_date(self) -> date:
        return self.first + timedelta(days=10)

    @property
    def whole(self) -> PartitionRange:
        return PartitionRange("day", self.first, self.end)


SPRING, AUTUMN = Season(date(2024, 3, 25)), Season(date(2024, 10, 21))
"""The clock is set forward on 31 March and back on 27 October."""


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


@dataclass(frozen=True)
class Delivery:
    """Events that arrive together, in files of one style, for the partitions of the days `[start, end)`: rows of other days are left out."""

    events: Sequence[Event]
    style: Style
    start: date
    end: date


@dataclass(frozen=True)
class World:
    """All that happens in one example. `cadence` is that of the partitions of the raw table."""

    season: Season
    cadence: str
    deliveries: Sequence[Delivery]
    spine: Sequence[Asked]


# Coarse moments meet each other, and the hours around midnight in UTC and in the zone.
MOMENTS = st.one_of(
    st.integers(0, 9 * 24).map(lambda hours: timedelta(hours=hours)),
    st.integers(0, 9 * 24 * 3600 * 1_000_000 - 1).map(lambda microseconds: timedelta(microseconds=microseconds)),
)
LATE = st.sampled_from(
    [timedelta(0), timedelta(hours=1), timedelta(hours=30), timedelta(days=2), timedelta(days=2, microseconds=1)]
)
VALUES = st.sampled_from([None, NAN, 0.0, 1.0, -2.5, 7.0])


@st.composite
def events(draw: Any, season: Season) -> list[Event]:
    """An event, and what else arrives of it: once more the same, a correction, a line that is broken."""
    happened = season.start + draw(MOMENTS)
    found = Event(draw(st.integers(0, 12)), draw(st.sampled_from(PLACES)), happened, happened + draw(LATE), draw(VALUES))
    match draw(st.sampled_from(["alone", "alone", "alone", "twice", "corrected", "broken"])):
        case "twice":
            return [found, found]
        case "corrected":
            return [found, replace(found, known=min(found.known + draw(LATE), happened + timedelta(days=3)), value=draw(VALUES))]
        case "broken":
            return [found, replace(found, broken=True)]
    return [found]


@st.composite
def deliveries(draw: Any, season: Season, cadence: str) -> Delivery:
    arrived = [row for rows in draw(st.lists(events(season), max_size=12)) for row in rows]
    days = sorted({row.day for row in arrived}) or [season.first]
    start, end = days[draw(st.sampled_from([0, 0, 0, 1])) % len(days)], days[-1] + timedelta(days=1)
    if cadence == "weekly":
        start, end = start - timedelta(days=start.weekday()), end + timedelta(days=-end.weekday() % 7)
    return Delivery(draw(st.permutations(arrived)), draw(STYLES), start, end)


@st.composite
def worlds(draw: Any) -> World:
    season, cadence = draw(st.sampled_from([SPRING, AUTUMN])), draw(st.sampled_from(["daily", "daily", "weekly"]))
    asked = st.builds(
        lambda place, at, label, after: Asked(0, place, season.start + at, label, season.start + at + after),
        st.sampled_from(PLACES),
        MOMENTS,
        st.sampled_from([None, 0, 1]),
        st.sampled_from([timedelta(hours=1), timedelta(days=1), timedelta(days=3)]),
    )
    return World(
        season=season,
        cadence=cadence,
        deliveries=draw(st.lists(deliveries(season, cadence), min_size=1, max_size=3)),
        spine=draw(st.lists(asked, min_size=1, max_size=14)),
    )


def missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


# The reference: one row after the other.


def delivered(former: Sequence[Event], delivery: Delivery) -> list[Event]:
    """The raw rows after a delivery: it replaces the days that it is for. NaN is a missing value; a broken row is none."""
    kept = [row for row in former if not delivery.start <= row.day < delivery.end]
    return kept + [
        replace(row, value=None if missing(row.value) else row.value)
        for row in delivery.events
        if delivery.start <= row.day < delivery.end and not row.broken
    ]


def view_rows(raw: Sequence[Event]) -> list[Row]:
    """The rows of the view: one for each place and moment at which something became known. A repeated raw row counts once."""
    rows, events = [], set(raw)
    for place, moment in {(e.place, e.known) for e in events if e.place is not None}:
        known = [e for e in events if e.place == place and e.known <= moment and e.happened > moment - HISTORY]
        values = [e.value for e in known if e.value is not None]
        newest = max(
            known, key=lambda e: (e.happened, e.known, e.number, -math.inf if e.value is None else e.value), default=None
        )
        last = newest.value if newest else None
        rows.append(Row(str(place), moment, len(known), math.fsum(values) if values else None, last))
    return rows


def as_known(rows: Sequence[Row], place: str | None, at: datetime) -> tuple[Any, ...]:
    """The features of a place at a moment, and since when they were known."""
    found = [row for row in rows if row.place == place and row.moment <= at]
    if not found:
        return (None, None, None, None)
    row = max(found, key=lambda each: each.moment)
    if at - row.moment > FRESHNESS:
        return (None, None, None, row.moment if at - row.moment <= FRESHNESS + timedelta(days=STALE_DAYS) else None)
    return (row.events, row.total, row.newest, row.moment)


def split_of(asked: Asked, training_date: date) -> str | None:
    """The split of a row in the dataset of `training_date`; None when it is in none."""
    cutoff, start, holdout = (
        datetime.combine(training_date - timedelta(days=days), datetime.min.time(), ZONE) for days in (0, WINDOW, HOLDOUT)
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


def inputs_of(number: int, season: Season) -> SolutionInputs:
    declared = {
        **DECLARED,
        "partitions": {"column": "day", "start": season.first, "end": season.end, "time_zone": ZONE.key},
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


def deliver(lake: Lake, world: World, number: int, delivery: Delivery, folder: Path) -> None:
    """Write the files of the delivery and materialize its partitions of the raw table."""
    table = {
        **write_events(delivery.events, folder, delivery.style),
        "partitions": {
            "column": "day",
            "start": world.season.first,
            "end": world.season.end,
            "cadence": world.cadence,
            "time_zone": ZONE.key,
        },
        "minimum_rows": 0,
        "maximum_reject_share": 1.0,
        "comparison": {"enabled": False},
    }
    source = Source.model_validate({"owners": ["team:test"], "tables": {f"events{number}": table}})
    step = timedelta(days=7 if world.cadence == "weekly" else 1)
    partitions = {
        "dagster/asset_partition_range_start": str(delivery.start),
        "dagster/asset_partition_range_end": str(delivery.end - step),
    }
    assets = build_raw_assets(source, directory=folder)
    assert dg.materialize(assets, resources={"lake": lake}, tags=partitions).success


def check_raw(connection: duckdb.DuckDBPyConnection, number: int, rows: Sequence[Event], delivery: Delivery) -> None:
    """The raw table holds the rows, repeated ones included, and the table of rejects the broken rows of the delivery."""
    names = ("number", "place", "happened", "known", "value", "day")
    raw = connection.execute(f"SELECT {', '.join(names)} FROM raw.events{number}").fetchall()
    wanted = [tuple(getattr(row, name) for name in names) for row in rows]
    assert sorted(raw, key=repr) == sorted(
        ((*row[:2], *(_utc(moment) for moment in row[2:4]), *row[4:]) for row in wanted), key=repr
    )
    days = f"day >= DATE '{delivery.start}' AND day < DATE '{delivery.end}'"
    reasons = connection.execute(f"SELECT reason FROM raw_rejects.events{number} WHERE {days}").fetchall()
    broken = [row for row in delivery.events if row.broken and delivery.start <= row.day < delivery.end]
    assert sorted(reason for (reason,) in reasons) == sorted(f"number: {row.number}x is no integer" for row in broken)


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def build_view(lake: Lake, connection: duckdb.DuckDBPyConnection, number: int, whole: PartitionRange) -> int:
    """Build the view of all days from the raw table, as a dbt model does. Returns the snapshot."""
    raw = f"(SELECT DISTINCT number, place, happened, known, value FROM lake.raw.events{number} WHERE place IS NOT NULL)"
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
        partition_range=whole,
        author="test",
    )
    return current_snapshot(connection)


def dataset_of(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, season: Season, snapshot: int, *, in_parts: bool
) -> list[tuple[Any, ...]]:
    """The training dataset of a snapshot, as one statement or in parts of a few rows."""
    frame = training_frame(inputs, season.training_date, snapshot)
    known = inputs.views[0].known_since
    found = []
    for query in frame.built(connection, 9) if in_parts else [frame.query]:
        found += connection.execute(
            f"SELECT split, id, events, total, newest, {known} FROM ({split_query(inputs, season.training_date, query)})"
        ).fetchall()
    return sorted(found, key=lambda row: row[1])


@pytest.fixture(scope="module")
def lake(make_lake: Callable[[], Lake]) -> Lake:
    return make_lake()


@settings(
    max_examples=examples(2),
    deadline=None,
    print_blob=True,
    # A world takes seconds: one that fails is told as it is.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(world=worlds())
def test_features_are_those_that_were_known_at_the_time(
    lake: Lake, tmp_path_factory: pytest.TempPathFactory, world: World
) -> None:
    number, season = next(_NUMBERS), world.season
    inputs, view = inputs_of(number, season), view_of(number)
    rows = [replace(asked, number=position) for position, asked in enumerate(world.spine)]
    store = LmdbStore(tmp_path_factory.mktemp("store"))
    raw: list[Event] = []
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
        for delivery in world.deliveries:
            event(f"{delivery.style.format}, {delivery.style.times}")
            deliver(lake, world, number, delivery, tmp_path_factory.mktemp("files"))
            raw = delivered(raw, delivery)
            check_raw(connection, number, raw, delivery)
            snapshot = build_view(lake, connection, number, season.whole)
            known = view_rows(raw)

            built = connection.execute(
                f"SELECT place, moment, events, total, newest FROM features.load{number} ORDER BY ALL"
            ).fetchall()
            assert [Row(*row) for row in built] == sorted(known, key=lambda row: (row.place, row.moment))

            splits = [(split_of(row, season.training_date), row) for row in rows]
            expected = [(split, row.number, *as_known(known, row.place, row.at)) for split, row in splits if split]
            assert dataset_of(connection, inputs, season, snapshot, in_parts=False) == expected
            assert dataset_of(connection, inputs, season, snapshot, in_parts=True) == expected
            states.append((snapshot, expected))

            push_view(connection, store, view, snapshot=snapshot, rebuild=False)
            check_online(store, view, known, rows)
        # What came later changes nothing of a dataset that is built again.
        for snapshot, expected in states:
            assert dataset_of(connection, inputs, season, snapshot, in_parts=False) == expected


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
