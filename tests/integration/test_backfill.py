"""Corrections and what they touch: raw tables and what follows them, run by Dagster on a real lake."""

import csv
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from typer.testing import CliRunner

from mlops_assets.cli.main import app
from mlops_assets.core.conditions import ON_NEW_INPUTS
from mlops_assets.core.keys import stage_tags
from mlops_assets.lake.lake import Lake
from mlops_assets.operations.backfill import TouchedAsset, rebuild_outdated, touched_assets
from mlops_assets.schema.source import Source
from mlops_assets.sources.raw_tables import build_raw_assets
from mlops_assets.stages.execution import partition_range, record_partitions, written_metadata
from mlops_assets.stages.faults import step

pytestmark = pytest.mark.long

FIRST, LAST, END = "2020-01-01", "2020-02-09", "2020-02-10"
DAYS = dg.DailyPartitionsDefinition(FIRST, end_date=END)
ALL_DAYS = DAYS.get_partition_keys()
HISTORY_DAYS = 28
VISITS, PLACES = dg.AssetKey(["raw", "visits"]), dg.AssetKey(["raw", "places"])
STAGED, HISTORY = dg.AssetKey(["staging", "visits"]), dg.AssetKey(["features", "history"])
PREDICTIONS, COVERAGE = dg.AssetKey(["clinic", "predictions"]), dg.AssetKey(["features", "coverage"])
CORRECTED = "2020-01-05"


def windowed(key: dg.AssetKey, query: str, deps: Sequence[dg.AssetDep]) -> dg.AssetsDefinition:
    """An asset whose rows of a day are those of `query` for the days of the run."""

    @dg.asset(
        key=key,
        deps=deps,
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=ON_NEW_INPUTS,
        code_version="1",
    )
    @step
    def compute(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        window = partition_range(context, "day")
        with lake.connect(read_only=False) as connection:
            rows = query.format(first=window.start, end=window.end)
            written = lake.replace(
                connection, table=".".join(key.path), query=rows, partition_range=window, author=context.run.run_id
            )
        record_partitions(context, written.rows_by_partition, written.hashes_by_partition)
        return dg.MaterializeResult(metadata=written_metadata(written))

    return compute


class Clinic:
    """Visits by day and their places, the visits with their place, and how many there were in four weeks."""

    def __init__(self, lake: Lake, folder: Path, instance: dg.DagsterInstance):
        self.lake, self.folder, self.instance = lake, folder, instance
        self.visits = {day: 1 + number % 3 for number, day in enumerate(ALL_DAYS)}
        self.places = ["north", "south"]
        table = {"description": "", "format": "csv", "minimum_rows": 0}
        source = {
            "owners": ["team:a"],
            "tables": {
                "visits": {
                    **table,
                    "files": ["visits.csv"],
                    "columns": {"day": {"type": "date", "required": True}, "visits": {"type": "bigint"}},
                    "partitions": {"column": "day", "start": FIRST, "end": END, "cadence": "daily"},
                    "comparison": {"enabled": False},
                },
                "places": {**table, "files": ["places.csv"], "columns": {"place": {"type": "varchar"}}},
            },
        }
        back = dg.TimeWindowPartitionMapping(start_offset=-HISTORY_DAYS, allow_nonexistent_upstream_partitions=True)
        inside = "WHERE day >= DATE '{first}' AND day < DATE '{end}'"
        staged = f"SELECT day, least(visits, 5) AS visits, (SELECT count(*) FROM raw.places) AS places FROM raw.visits {inside}"
        history = (
            f"SELECT day, CAST((SELECT sum(visits) FROM staging.visits e WHERE e.day BETWEEN s.day - {HISTORY_DAYS} AND s.day) AS BIGINT) "
            f"AS visits FROM staging.visits s {inside}"
        )

        @dg.asset(key=COVERAGE, deps=[HISTORY], automation_condition=ON_NEW_INPUTS)
        def coverage() -> None: ...

        @dg.asset(
            key=PREDICTIONS,
            deps=[HISTORY],
            partitions_def=DAYS,
            automation_condition=ON_NEW_INPUTS,
            tags=stage_tags("clinic", "predictions"),
        )
        def predictions() -> None: ...

        self.assets = [
            *build_raw_assets(Source.model_validate(source), directory=folder),
            windowed(STAGED, staged, [dg.AssetDep(VISITS), dg.AssetDep(PLACES)]),
            windowed(HISTORY, history, [dg.AssetDep(STAGED, partition_mapping=back)]),
            coverage,
            predictions,
        ]
        self.graph = dg.Definitions(self.assets, resources={"lake": lake}).resolve_asset_graph()
        self.launched: list[tuple[tuple[str, ...], str | None, str | None]] = []

    def materialize(self, keys: Sequence[dg.AssetKey], first: str | None, last: str | None) -> None:
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last} if first and last else {}
        result = dg.materialize(
            self.assets, selection=list(keys), resources={"lake": self.lake}, instance=self.instance, tags=tags
        )
        assert result.success
        self.launched.append((tuple(key.to_user_string() for key in keys), first, last))

    def load(self, first: str | None, last: str | None) -> None:
        """Load a raw table as it is delivered now: visits of the days, or the places."""
        self.deliver()
        self.materialize([VISITS] if first else [PLACES], first, last)
        self.launched.clear()

    def deliver(self) -> None:
        with (self.folder / "visits.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("day", "visits"), *self.visits.items()])
        (self.folder / "places.csv").write_text("\n".join(["place", *self.places]))

    def touched(self) -> list[TouchedAsset]:
        return touched_assets(self.instance, self.graph)

    def rebuild(self) -> dict[str, int]:
        return rebuild_outdated(self.instance, self.graph, self.materialize)

    def stale(self, key: dg.AssetKey) -> list[str]:
        """The partitions that Dagster itself shows as stale."""
        resolver = CachingStaleStatusResolver(self.instance, self.graph, LoadingContextForTest(self.instance))
        return [day for day in ALL_DAYS if resolver.get_status(key, day) == StaleStatus.STALE]

    def rows(self, table: str) -> list[tuple[date, int]]:
        with self.lake.connect(read_only=True) as connection:
            return connection.execute(f"SELECT day, visits FROM {table} ORDER BY day").fetchall()


@pytest.fixture(scope="module")
def shared_lake(make_lake: Callable[[], Lake]) -> Lake:
    return make_lake()


@pytest.fixture
def clinic(shared_lake: Lake, tmp_path: Path) -> Iterator[Clinic]:
    """Forty days, built in one run."""
    with dg.DagsterInstance.ephemeral() as instance:
        made = Clinic(shared_lake, tmp_path, instance)
        made.deliver()
        made.materialize([PLACES, VISITS, STAGED, HISTORY, PREDICTIONS], FIRST, LAST)
        made.materialize([COVERAGE], None, None)
        made.launched.clear()
        yield made


def test_a_reload_without_a_change_makes_nothing_stale(clinic: Clinic) -> None:
    assert clinic.touched() == []
    clinic.load(None, None)
    clinic.load(FIRST, LAST)
    clinic.load(CORRECTED, CORRECTED)
    assert clinic.stale(STAGED) == clinic.stale(HISTORY) == []
    assert clinic.touched() == []
    assert clinic.rebuild() == {}
    assert clinic.launched == []


def test_a_corrected_day_touches_the_days_that_read_it_and_no_other(clinic: Clinic) -> None:
    clinic.visits[CORRECTED] += 1
    clinic.load(FIRST, LAST)
    assert clinic.stale(STAGED) == [CORRECTED]
    last = ALL_DAYS[ALL_DAYS.index(CORRECTED) + HISTORY_DAYS]
    assert clinic.touched() == [
        TouchedAsset("staging/visits", outdated=1, touched=1, first=CORRECTED, last=CORRECTED, reach=""),
        TouchedAsset("features/history", outdated=0, touched=29, first=CORRECTED, last=last, reach="28 days on"),
        TouchedAsset("features/coverage", outdated=0, touched=1, first=None, last=None, reach=""),
    ]
    before = clinic.rows("features.history")
    assert clinic.rebuild() == {"staging/visits": 1, "features/history": 29, "features/coverage": 1}
    assert clinic.launched == [
        (("staging/visits",), CORRECTED, CORRECTED),
        (("features/history",), CORRECTED, last),
        (("features/coverage",), None, None),
    ]
    differing = {
        str(day) for (day, visits), (_, old) in zip(clinic.rows("features.history"), before, strict=True) if visits != old
    }
    assert differing == set(ALL_DAYS[ALL_DAYS.index(CORRECTED) :][: HISTORY_DAYS + 1])
    assert clinic.stale(STAGED) == clinic.stale(HISTORY) == []
    assert clinic.touched() == []
    assert clinic.rebuild() == {}


def test_what_comes_out_as_it_was_stops_there(clinic: Clinic) -> None:
    clinic.visits[CORRECTED] = 8
    clinic.load(CORRECTED, CORRECTED)
    clinic.rebuild()
    clinic.launched.clear()
    # The staged table holds no more than five of them.
    clinic.visits[CORRECTED] = 9
    clinic.load(CORRECTED, CORRECTED)
    assert [asset.touched for asset in clinic.touched()] == [1, 29, 1]
    assert clinic.rebuild() == {"staging/visits": 1}
    assert clinic.touched() == []


def test_another_place_makes_all_days_that_read_it_outdated(clinic: Clinic) -> None:
    clinic.places.append("west")
    clinic.load(None, None)
    assert clinic.stale(STAGED) == ALL_DAYS
    built = clinic.rebuild()
    # The places are in the staged rows, and so in their versions, but the history of visits came out as it was.
    assert built == {"staging/visits": len(ALL_DAYS), "features/history": len(ALL_DAYS)}
    assert clinic.touched() == []


def test_an_interrupted_rebuild_goes_on(clinic: Clinic) -> None:
    for day in (CORRECTED, "2020-02-07"):
        clinic.visits[day] += 1
    clinic.load(FIRST, LAST)
    runs = 0

    def killed_after_two(keys: Sequence[dg.AssetKey], first: str | None, last: str | None) -> None:
        nonlocal runs
        if runs == 2:
            raise KeyboardInterrupt
        runs += 1
        clinic.materialize(keys, first, last)

    with pytest.raises(KeyboardInterrupt):
        rebuild_outdated(clinic.instance, clinic.graph, killed_after_two)
    assert clinic.stale(STAGED) == []
    assert clinic.rebuild() == {"features/history": 32, "features/coverage": 1}
    assert clinic.touched() == []
    assert len(clinic.launched) == len(set(clinic.launched)) == 5


def test_the_command_needs_to_know_what_to_build() -> None:
    refused = CliRunner().invoke(app, ["backfill"])
    assert refused.exit_code == 1
    assert "mlops backfill --from-changes --dry-run" in refused.output
