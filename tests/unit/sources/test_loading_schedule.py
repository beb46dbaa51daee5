"""Schedules of sources: what a tick loads."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from mlops_assets.schema.source import Source
from mlops_assets.sources.loading_schedule import build_loading_jobs, build_loading_schedules
from mlops_assets.sources.raw_tables import build_raw_assets

DAY = {"day": {"type": "date"}}


def source(cron: str) -> Source:
    table = {"description": "Rows.", "files": ["rows.csv"], "format": "csv", "columns": DAY}
    daily = {"column": "day", "start": "2024-01-01", "end": "2024-02-01"}
    return Source.model_validate(
        {
            "owners": ["team:a"],
            "schedule": {"cron": cron, "time_zone": "Europe/Berlin"},
            "tables": {
                "orders": {**table, "partitions": daily},
                "parcels": {**table, "partitions": daily},
                "visits": {**table, "partitions": {"column": "day", "start": "2024-01-01", "cadence": "monthly"}},
                "depots": table,
            },
        }
    )


def requests(schedule: dg.ScheduleDefinition, tick: datetime, instance: dg.DagsterInstance) -> list[dg.RunRequest] | str:
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=tick)
    yielded = list(schedule(context))
    launched = [each for each in yielded if isinstance(each, dg.RunRequest)]
    return launched or str(yielded[0].skip_message)


def loaded(cron: str, tick: datetime, tmp_path: Path) -> dict[str, tuple[str, str] | None]:
    """Raw table -> the first and the last partition that the tick loads, None for a table without."""
    declared = source(cron)
    jobs, schedules = build_loading_jobs(declared, name="shop"), build_loading_schedules(declared, name="shop")
    assets = build_raw_assets(declared, directory=tmp_path)
    resources = {"lake": dg.ResourceDefinition.none_resource()}
    repository = dg.Definitions(assets=assets, jobs=jobs, schedules=schedules, resources=resources).get_repository_def()
    found: dict[str, tuple[str, str] | None] = {}
    with dg.instance_for_test() as instance:
        for schedule in schedules:
            tables = [key.path[-1] for key in repository.get_job(schedule.job_name).asset_layer.selected_asset_keys]
            launched = requests(schedule, tick, instance)
            if isinstance(launched, str):
                assert launched.startswith("No partition ended since ")
                continue
            [request] = launched
            first, last = (request.tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
            found |= dict.fromkeys(tables, (first, last) if first and last else None)
    return found


@pytest.mark.parametrize(
    ("cron", "tick", "expected"),
    [
        (
            "0 6 * * *",
            datetime(2024, 1, 10, 6),
            {"orders": ("2024-01-09", "2024-01-09"), "parcels": ("2024-01-09", "2024-01-09"), "depots": None},
        ),
        (
            "0 6 * * 1",
            datetime(2024, 1, 15, 6),
            {"orders": ("2024-01-08", "2024-01-14"), "parcels": ("2024-01-08", "2024-01-14"), "depots": None},
        ),
        (
            "0 6 1 * *",
            datetime(2024, 2, 1, 6),
            {
                "orders": ("2024-01-01", "2024-01-31"),
                "parcels": ("2024-01-01", "2024-01-31"),
                "visits": ("2024-01-01", "2024-01-01"),
                "depots": None,
            },
        ),
        ("0 6 * * *", datetime(2024, 3, 10, 6), {"depots": None}),
    ],
)
def test_a_tick_loads_what_ended_since_the_one_before(
    cron: str, tick: datetime, expected: dict[str, tuple[str, str] | None], tmp_path: Path
) -> None:
    assert loaded(cron, tick.replace(tzinfo=ZoneInfo("Europe/Berlin")), tmp_path) == expected


def test_what_a_schedule_loads_has_no_condition_that_loads_it_too(tmp_path: Path) -> None:
    scheduled = source("0 6 * * *")
    by_condition = scheduled.model_copy(update={"schedule": None})
    conditions = {
        declared.schedule is None: [
            spec.automation_condition is not None
            for asset in build_raw_assets(declared, directory=tmp_path)
            for spec in asset.specs
            if spec.key.path[-1] == "visits"
        ]
        for declared in (scheduled, by_condition)
    }
    assert conditions == {False: [False], True: [True]}
