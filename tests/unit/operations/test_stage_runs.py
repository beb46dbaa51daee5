"""How the data of some days become runs: one range of partitions each, whatever cadences the tables have."""

from datetime import date

from mlops_assets.clients.asset_state import AssetState
from mlops_assets.clients.dagster_client import DagsterClient
from mlops_assets.core.partitions import build_partitions
from mlops_assets.operations.partition_windows import PartitionCalendar, partition_windows
from mlops_assets.operations.stage_runs import StageRun, data_runs
from mlops_assets.schema.cadence import Cadence

START, END = date(2024, 1, 1), date(2024, 7, 1)


def asset(key: str, *dependencies: str, partitioned: bool = True, ranges: tuple[tuple[str, str], ...] = ()) -> AssetState:
    return AssetState(
        key=key,
        description="",
        partitioned=partitioned,
        executable=True,
        tags={},
        dependencies=dependencies,
        operations=(key.replace("/", "__"),),
        jobs=(),
        location=("repository", "location"),
        ranges=ranges,
        materialized=bool(ranges),
        failing_checks=(),
        warning_checks=(),
    )


def plan(
    cadences: dict[str, Cadence], *assets: AssetState, first: date | None, last: date
) -> list[tuple[list[str], str | None, str | None]]:
    """The assets, the first and the last partition of each run."""
    windows = {
        key: partition_windows(build_partitions(START, END, cadence).get_partition_keys()) for key, cadence in cadences.items()
    }
    calendar = PartitionCalendar(DagsterClient("http://127.0.0.1:1", "no server"), windows)
    states = {state.key: state for state in assets}
    runs: list[StageRun] = data_runs(calendar, states, states, first=first, last=last, name="data")
    return [(list(run.assets), run.first, run.last) for run in runs]


def test_tables_of_one_cadence_are_one_run_with_those_without_partitions() -> None:
    assert plan(
        {"raw/sent": "daily", "staging/sent": "daily"},
        asset("raw/places", partitioned=False),
        asset("raw/sent"),
        asset("staging/places", "raw/places", partitioned=False),
        asset("staging/sent", "raw/sent", "staging/places"),
        first=date(2024, 2, 1),
        last=date(2024, 2, 29),
    ) == [(["raw/places", "raw/sent", "staging/places", "staging/sent"], "2024-02-01", "2024-02-29")]


def test_each_cadence_has_a_run_after_what_it_depends_on() -> None:
    assert plan(
        {"raw/sent": "daily", "features/sent": "monthly", "features/spine": "monthly"},
        asset("features/spine", "features/sent"),
        asset("raw/sent"),
        asset("features/sent", "raw/sent"),
        first=date(2024, 2, 1),
        last=date(2024, 3, 31),
    ) == [(["raw/sent"], "2024-02-01", "2024-03-31"), (["features/sent", "features/spine"], "2024-02-01", "2024-03-01")]


def test_days_inside_a_partition_need_the_whole_partition() -> None:
    assert plan({"raw/sent": "monthly"}, asset("raw/sent"), first=date(2024, 2, 10), last=date(2024, 2, 12)) == [
        (["raw/sent"], "2024-02-01", "2024-02-01")
    ]


def test_tables_without_partitions_are_one_run_without_a_range() -> None:
    tables = asset("raw/iris", partitioned=False), asset("staging/iris", "raw/iris", partitioned=False)
    assert plan({}, *tables, first=None, last=date(2024, 2, 12)) == [(["raw/iris", "staging/iris"], None, None)]


def test_a_run_begins_with_the_first_partition_that_a_table_lacks() -> None:
    loaded, behind = ("2024-01-01", "2024-02-10"), ("2024-01-01", "2024-02-05")
    cadences: dict[str, Cadence] = {"raw/sent": "daily", "staging/sent": "daily"}
    raw = asset("raw/sent", ranges=(loaded,))
    assert plan(cadences, raw, asset("staging/sent", "raw/sent", ranges=(behind,)), first=None, last=date(2024, 2, 12)) == [
        (["raw/sent", "staging/sent"], "2024-02-06", "2024-02-12")
    ]
    there = asset("staging/sent", "raw/sent", ranges=(loaded,))
    assert plan(cadences, raw, there, first=None, last=date(2024, 2, 10)) == [
        (["raw/sent", "staging/sent"], "2024-01-01", "2024-02-10")
    ]
