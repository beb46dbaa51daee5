"""The dbt project on real data in a lake of its own: point in time, windows, late and missing rows."""

from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dbt_lake
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from bundles import contract
from dbt_lake import FIRST, LAST, Dbt

from mlops_assets import defs
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.project import current_project
from mlops_assets.feature_store.point_in_time import SelectedView, point_in_time_query
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import current_snapshot
from mlops_assets.schema.solution import Solution
from mlops_assets.serving.derived import DerivedFeatures

pytestmark = pytest.mark.long

lake = dbt_lake.lake
dbt = dbt_lake.dbt

FIRST_PREDICTED = date(2013, 7, 5)

VIEWS = {
    "carrier_history": ["carrier"],
    "origin_history": ["origin"],
    "destination_history": ["dest"],
    "route_history": ["origin", "dest"],
    "aircraft_history": ["tailnum"],
    "flight_number_history": ["carrier", "flight_number"],
    "origin_departures": ["origin"],
    "carrier_origin_departures": ["carrier", "origin"],
    "aircraft_previous_leg": ["tailnum"],
    "origin_weather": ["origin"],
}
DAILY = {"carrier_history", "origin_history", "destination_history", "route_history"}


def _window(start: date, end: date) -> list[str]:
    return ["--event-time-start", str(start), "--event-time-end", str(end)]


@pytest.fixture(scope="module")
def built(lake: Lake, dbt: Dbt) -> Lake:
    """The lake after one dbt call over all dates, tests included."""
    dbt(
        "build", "--select", "tag:nycflights13", "--exclude-resource-type", "unit_test", *_window(FIRST, LAST + timedelta(days=1))
    )
    return lake


def test_unit_tests_of_the_models(built: Lake, dbt: Dbt) -> None:
    dbt("test", "--select", "test_type:unit")


@pytest.fixture(scope="module")
def raw_flights(built: Lake) -> pd.DataFrame:
    """The raw flights with their moments, computed here in plain Python from raw columns alone."""
    with built.connect(read_only=True) as connection:
        flights = connection.execute("FROM raw.flights").df()
        zones = dict(connection.execute("SELECT faa, tzone FROM raw.airports").fetchall())
    zones |= dict.fromkeys(("SJU", "BQN", "PSE"), "America/Puerto_Rico") | {"STT": "America/St_Thomas"}
    new_york = ZoneInfo("America/New_York")

    def moments(row: "pd.Series") -> tuple[object, ...]:
        midnight = pd.Timestamp(row.flight_date).tz_localize(new_york)
        local = pd.Timestamp(row.flight_date) + pd.Timedelta(hours=row.hour, minutes=row.minute)
        scheduled = local.tz_localize(new_york).tz_convert("UTC")
        destination = ZoneInfo(zones[row.dest])
        clock = pd.Timedelta(hours=row.sched_arr_time // 100, minutes=row.sched_arr_time % 100)
        arrival = (scheduled.tz_convert(destination).tz_localize(None).normalize() + clock).tz_localize(destination)
        if arrival <= scheduled:
            arrival = (arrival.tz_localize(None) + pd.Timedelta(days=1)).tz_localize(destination)
        departed = max(scheduled + pd.Timedelta(minutes=row.dep_delay), midnight) if pd.notna(row.dep_delay) else pd.NaT
        arrived = arrival.tz_convert("UTC") + pd.Timedelta(minutes=row.arr_delay) if pd.notna(row.arr_delay) else pd.NaT
        return scheduled, departed, arrived

    flights[["scheduled", "departed", "arrived"]] = [moments(row) for row in flights.itertuples()]
    for column in ("scheduled", "departed", "arrived"):
        flights[column] = pd.to_datetime(flights[column], utc=True)
    flights["flight_number"] = flights["flight"].astype(str)
    return flights


@pytest.fixture(scope="module")
def joined(built: Lake) -> pd.DataFrame:
    """200 flights of the last week with every feature as of their prediction time, and when each view last said something."""
    joins, columns = "", []
    with built.connect(read_only=True) as connection:
        for view, keys in VIEWS.items():
            condition = " AND ".join(f"s.{key} = {view}.{key}" for key in keys)
            joins += f" ASOF LEFT JOIN features.{view} ON {condition} AND s.predicted_at >= {view}.event_timestamp"
            names = [row[0] for row in connection.execute(f"DESCRIBE features.{view}").fetchall()]
            columns += [f"{view}.{name}" for name in names if name not in {*keys, "event_timestamp", "event_date", "_loaded_at"}]
            columns.append(f"{view}.event_timestamp AS {view}_at")
        return connection.execute(
            f"SELECT s.*, {', '.join(columns)} FROM (FROM flight_delay.spine WHERE flight_date >= '{FIRST_PREDICTED}' "
            f"AND tailnum IS NOT NULL ORDER BY md5(flight_id) LIMIT 200) s {joins}"
        ).df()


def _by_key(flights: pd.DataFrame, keys: list[str]) -> dict[tuple[object, ...], pd.DataFrame]:
    return {key: group for key, group in flights.groupby(keys)}  # noqa: C416


def _same(actual: object, expected: object) -> bool:
    if pd.isna(expected):  # type: ignore[call-overload]
        return bool(pd.isna(actual))  # type: ignore[call-overload]
    return bool(abs(float(actual) - float(expected)) < 1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize(("view", "keys"), [(view, keys) for view, keys in VIEWS.items() if view.endswith("_history")])
def test_history_is_what_was_known(joined: pd.DataFrame, raw_flights: pd.DataFrame, view: str, keys: list[str]) -> None:
    prefix = view.removesuffix("_history")
    compared = 0
    groups = _by_key(raw_flights, keys)
    for row in joined.itertuples():
        at = getattr(row, f"{view}_at")
        same = groups[tuple(getattr(row, key) for key in keys)]
        known = same[same.arrived <= row.predicted_at]
        if pd.isna(at):
            assert known[known.arrived > row.predicted_at - pd.Timedelta(hours=1)].empty or view not in DAILY
            continue
        assert at <= row.predicted_at
        # Nothing that was known an hour before the prediction is missing from the row that the join finds.
        assert (
            known[known.arrived > at].arrived.min() > row.predicted_at - pd.Timedelta(hours=1) or known[known.arrived > at].empty
        )
        if view in DAILY:
            assert row.predicted_at - at <= pd.Timedelta(hours=25) or known[known.arrived > at - pd.Timedelta(days=28)].empty
        for days in (7, 28):
            delays = known[(known.arrived > at - pd.Timedelta(days=days)) & (known.arrived <= at)].arr_delay
            assert getattr(row, f"{prefix}_arrivals_{days}d") == len(delays)
            assert _same(getattr(row, f"{prefix}_mean_delay_{days}d"), delays.mean())
            assert _same(getattr(row, f"{prefix}_late_rate_{days}d"), (delays > 15).mean() if len(delays) else float("nan"))
            compared += len(delays)
    assert compared > 1000


@pytest.mark.parametrize(("view", "keys"), [(view, keys) for view, keys in VIEWS.items() if view.endswith("_departures")])
def test_recent_departures_are_what_was_known(
    joined: pd.DataFrame, raw_flights: pd.DataFrame, view: str, keys: list[str]
) -> None:
    prefix = view.removesuffix("_departures")
    hours = pd.Timedelta(hours=1)
    overdue_seen = 0
    groups = _by_key(raw_flights, keys)
    for row in joined.itertuples():
        same = groups[tuple(getattr(row, key) for key in keys)]
        at = getattr(row, f"{view}_at")
        if pd.isna(at):
            assert same[same.departed <= row.predicted_at - 0.25 * hours].empty
            continue
        departed = same[(same.departed > at - 3 * hours) & (same.departed <= at)]
        waiting = same[(same.scheduled >= at - 3 * hours) & (same.scheduled <= at - 0.25 * hours)]
        waiting = waiting[waiting.departed.isna() | (waiting.departed > at)]
        assert getattr(row, f"{prefix}_departures_3h") == len(departed)
        assert _same(getattr(row, f"{prefix}_mean_departure_delay_3h"), departed.dep_delay.mean())
        late = (departed.dep_delay > 15).mean() if len(departed) else float("nan")
        assert _same(getattr(row, f"{prefix}_late_departure_rate_3h"), late)
        assert _same(getattr(row, f"{prefix}_mean_departure_delay_1h"), departed[departed.departed > at - hours].dep_delay.mean())
        assert getattr(row, f"{prefix}_overdue_departures") == len(waiting)
        assert _same(getattr(row, f"{prefix}_mean_overdue_minutes"), ((at - waiting.scheduled) / pd.Timedelta(minutes=1)).mean())
        overdue_seen += len(waiting)
        # A row older than a step is the one that says that there is nothing left to count.
        if row.predicted_at - at >= 0.25 * hours:
            assert getattr(row, f"{prefix}_departures_3h") == 0
            assert getattr(row, f"{prefix}_overdue_departures") == 0
    assert overdue_seen > 50


def test_previous_leg_is_what_was_known(joined: pd.DataFrame, raw_flights: pd.DataFrame) -> None:
    compared = 0
    month = pd.Timedelta(days=28)
    for row in joined.itertuples():
        same = raw_flights[raw_flights.tailnum == row.tailnum]
        at = row.aircraft_previous_leg_at
        if pd.isna(at):
            assert same[(same.departed <= row.predicted_at) | (same.arrived <= row.predicted_at)].empty
            continue
        moments = pd.concat([same.departed, same.arrived])
        assert at == moments[moments <= row.predicted_at].max()
        arrived = same[(same.arrived <= at) & (same.arrived > at - month)].sort_values("arrived")
        departed = same[(same.departed <= at) & (same.departed > at - month)].sort_values("departed")
        assert _same(row.previous_leg_arrival_delay, arrived.arr_delay.iloc[-1] if len(arrived) else float("nan"))
        assert _same(row.previous_leg_departure_delay, departed.dep_delay.iloc[-1] if len(departed) else float("nan"))
        under_way = len(departed) > 0 and (len(arrived) == 0 or departed.index[-1] != arrived.index[-1])
        assert row.previous_leg_under_way == under_way
        compared += len(arrived)
    assert compared > 100


def test_weather_is_of_an_hour_that_had_ended(joined: pd.DataFrame, built: Lake) -> None:
    with built.connect(read_only=True) as connection:
        weather = connection.execute("FROM raw.weather").df()
    for row in joined.itertuples():
        known = weather[(weather.origin == row.origin) & (weather.time_hour + pd.Timedelta(hours=1) <= row.predicted_at)]
        latest = known.sort_values("time_hour").iloc[-1]
        assert row.origin_weather_at == latest.time_hour + pd.Timedelta(hours=1)
        assert _same(row.weather_temperature, latest.temp)
        assert _same(row.weather_precipitation, latest.precip)
        assert _same(row.weather_wind_gust, latest.wind_gust)


@pytest.fixture(scope="module")
def registry(built: Lake) -> FeatureRegistry:
    return FeatureRegistry.from_manifest(current_project().dbt_manifest)


def test_the_frame_of_600_flights(built: Lake, registry: FeatureRegistry) -> None:
    """The point-in-time join beside its rule read literally: every earlier row of the entity, the newest of them, fresh or not."""
    views = [registry.view(name, None) for name in VIEWS]
    keys = sorted({key for view in views for key in view.entity})
    with built.connect(read_only=True) as connection:
        asked = (
            f"SELECT flight_id, predicted_at, {', '.join(keys)} FROM flight_delay.spine "
            f"WHERE flight_date >= '{FIRST_PREDICTED}' ORDER BY md5(flight_id) LIMIT 600"
        )
        frame = connection.execute(
            point_in_time_query(
                spine=asked,
                prediction_time="predicted_at",
                views=[SelectedView(view, view.features) for view in views],
                first=FIRST_PREDICTED - timedelta(days=1),
                last=LAST + timedelta(days=1),
                snapshot=current_snapshot(connection),
            )
        ).df()
        tables = {view.name: connection.execute(f"FROM lake.{view.model.table}").df() for view in views}
    assert len(frame) == 600
    assert frame.tailnum.isna().any(), "no null key among the rows"
    frame = frame.set_index("flight_id")
    for view in views:
        rows = frame[["predicted_at", *view.entity]].dropna().reset_index()
        earlier = rows.merge(tables[view.name], on=list(view.entity))
        earlier = earlier[earlier.event_timestamp <= earlier.predicted_at]
        newest = earlier.loc[earlier.groupby("flight_id").event_timestamp.idxmax()].set_index("flight_id")
        fresh = newest[newest.predicted_at - newest.event_timestamp <= pd.Timedelta(days=view.freshness_days or 10_000)]
        expected = fresh[list(view.features)].reindex(frame.index)
        actual = frame[list(view.features)]
        assert ((actual == expected) | (actual.isna() & expected.isna())).all(axis=None), view.name
        assert (frame.loc[fresh.index, f"_{view.name}_event_timestamp"] == fresh.event_timestamp).all()
        assert expected.notna().any(axis=1).sum() > 450, view.name


def test_derived_features_of_real_flights(built: Lake, registry: FeatureRegistry) -> None:
    attributes = yaml.safe_load((Path(defs.__path__[0]) / "flight_delay" / "defs.yaml").read_text())["attributes"]
    expressions = {
        "hour_of_departure": "scheduled_minute_of_day // 60",
        "scheduled_speed": "distance / scheduled_duration_minutes",
        "hub": "CASE WHEN carrier = 'UA' AND origin = 'EWR' OR carrier = 'B6' AND origin = 'JFK' THEN 'yes' ELSE lower(carrier) END",
    }
    attributes["features"].append({"derived": expressions})
    inputs = resolve_inputs(Solution.model_validate(attributes), registry)
    with built.connect(read_only=True) as connection:
        query = inputs.frame_query(
            first=FIRST_PREDICTED, end=LAST, condition="true", labelled=False, snapshot=current_snapshot(connection)
        )
        rows = connection.execute(f"FROM ({query}) ORDER BY md5(flight_id) LIMIT 2000").to_arrow_table()
    offline = rows.select(list(expressions)).to_pylist()
    asked = rows.select(list(inputs.request)).to_pylist()
    derived = DerivedFeatures(
        contract(
            features=[{"name": name, "type": "double", "minimum": 0, "maximum": 1} for name in (*inputs.request, *expressions)],
            request_columns=[{"name": name, "type": inputs.spine.columns[name]} for name in inputs.request],
            derived_features=[{"name": name, "expression": text} for name, text in inputs.derived.items()],
        )
    )
    assert [repr(row) for row in derived.evaluate(asked)] == [repr(row) for row in offline]
    assert [repr(derived.evaluate([row])[0]) for row in asked[:200]] == [repr(row) for row in offline[:200]]
    assert len({row["hub"] for row in offline}) > 5


def test_label_is_of_the_raw_arrival(built: Lake, raw_flights: pd.DataFrame) -> None:
    with built.connect(read_only=True) as connection:
        spine = connection.execute("FROM flight_delay.spine ORDER BY flight_date, carrier, flight_number, origin").df()
    raw = raw_flights.sort_values(["flight_date", "carrier", "flight_number", "origin"]).reset_index(drop=True)
    assert len(spine) == len(raw)
    assert (spine.predicted_at == raw.scheduled - pd.Timedelta(hours=2)).all()
    assert ((spine.arrived_at == raw.arrived) | (spine.arrived_at.isna() & raw.arrived.isna())).all()
    assert (spine.is_late.isna() == raw.arr_delay.isna()).all()
    assert (spine.is_late.dropna() == (raw.arr_delay.dropna() > 15)).all()
    assert set(spine[spine.is_late.isna()].status) == {"cancelled", "diverted"}


def _rows(lake: Lake, tables: list[str]) -> dict[str, pa.Table]:
    """The rows of each table, in order, with their partition as `day`."""
    with lake.connect(read_only=True) as connection:
        found = {}
        for table in tables:
            names = [row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()]
            column = next(name for name in ("event_date", "flight_date", "weather_date") if name in names)
            found[table] = connection.execute(f"SELECT {column} AS day, * FROM {table} ORDER BY ALL").to_arrow_table()
        return found


TABLES = [f"features.{view}" for view in VIEWS] + ["staging.flights", "staging.weather", "flight_delay.spine"]
INCREMENTAL = "tag:nycflights13,config.materialized:incremental"


def test_a_rerun_replaces_exactly_its_window_also_by_nothing_and_a_day_by_itself_equals_the_window_at_once(
    built: Lake, dbt: Dbt
) -> None:
    day, next_day = date(2013, 7, 10), date(2013, 7, 11)
    tables = ["staging.flights", "flight_delay.spine"]
    before = _rows(built, TABLES)
    assert all(rows.num_rows for rows in before.values())
    with built.connect(read_only=False) as connection:
        connection.execute("CREATE TABLE raw.kept AS FROM raw.flights WHERE flight_date IN (?, ?)", [day, next_day])
        connection.execute("DELETE FROM raw.flights WHERE flight_date IN (?, ?)", [day, next_day])
    try:
        dbt("run", "--select", "flights flight_delay_spine", *_window(day, next_day))
        after = _rows(built, tables)
    finally:
        with built.connect(read_only=False) as connection:
            connection.execute("INSERT INTO raw.flights FROM raw.kept")
            connection.execute("DROP TABLE raw.kept")
    for table in tables:
        # The day is empty now; the next one, outside the window, is as it was although its raw rows were gone too.
        assert after[table].equals(before[table].filter(pc.field("day") != day))
        assert next_day in after[table].column("day").unique().to_pylist()
    dbt("run", "--select", INCREMENTAL, *_window(day, next_day))
    after = _rows(built, TABLES)
    assert [table for table in TABLES if not after[table].equals(before[table])] == []


def test_scheduled_durations_are_plausible(built: Lake) -> None:
    with built.connect(read_only=True) as connection:
        rows = connection.execute(
            "SELECT dest, median(scheduled_duration_minutes), median(distance) FROM flight_delay.spine GROUP BY dest"
        ).fetchall()
    assert len(rows) > 80
    for dest, minutes, miles in rows:
        # Half an hour to two hours on the ground and in climb, the rest at 350 to 560 miles an hour.
        assert 30 + miles / 9.4 <= minutes <= 120 + miles / 5.8, (dest, minutes, miles)
